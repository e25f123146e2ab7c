"""Environments from values: observing, stepping, given levels, recording; heists."""

import statistics
import time
import zlib
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np

from rlbilinear.benchmarks.measure import (
    Comparison,
    Cost,
    measure,
    measure_each,
    peak_memory,
    within,
)
from rlbilinear.envs import (
    Heist,
    Maze,
    ProcgenVecEnv,
    ProcgenVectorEnv,
    Recording,
    observe,
    placements,
)
from rlbilinear.envs.heist_guide import HeistGuide, expert_actions
from rlbilinear.envs.simulator import Simulator, import_procgen

ENVIRONMENTS, STEPS, THREADS = 256, 20, 4


def comparisons() -> Iterable[Comparison]:
    """Measure what there are targets for, beside an alternative where there is one."""
    yield _observing()
    yield from _stepping()
    yield _given_levels()
    yield _recording()
    heist = Heist.from_seed(2)
    raw, cell = heist.to_bytes(), heist.keys[0].cell
    yield Comparison("heist from bytes", measure_each(lambda: Heist.from_bytes(raw)))
    yield within(
        "heist's agent moved, new bytes",
        measure_each(lambda: heist.with_agent(cell).to_bytes()),
        50e-6,
    )
    yield _following()


def _following() -> Comparison:
    """Follow heists and ask the expert, beside the simulator's step and its states."""
    env = ProcgenVecEnv("heist", ENVIRONMENTS, num_threads=0)
    heists = [Heist.from_bytes(raw) for raw in env.get_states()]
    guide = HeistGuide(ENVIRONMENTS, heists[0].size)
    for index, each in enumerate(heists):
        guide.put(index, each)
    actions = np.random.default_rng(0).integers(15, size=(STEPS, ENVIRONMENTS))

    def follow() -> None:
        for row in actions:
            guide.step(row)
            expert_actions(guide.right)

    def ask() -> None:
        for row in actions:
            env.step(row)
            env.get_states()

    ours, other = measure(follow), measure(ask, repeats=3)
    env.close()
    task = f"{ENVIRONMENTS} heists, {STEPS} steps followed and the expert's actions"
    return Comparison(task, ours, "the simulator's step, and its states", other)


def _observing() -> Comparison:
    seeds = (seed for seed in range(1000) if Maze.from_seed(seed, "hard").maze_dim == 25)
    maze = Maze.from_seed(next(seeds), "hard")
    cells = len(maze.free_cells())
    np.testing.assert_array_equal(observe(placements(maze)), _observe_one_by_one(maze))
    ours = measure(lambda: observe(placements(maze)))
    return Comparison(
        f"a 25x25 maze seen from its {cells} cells",
        ours,
        "an environment set for each",
        measure(lambda: _observe_one_by_one(maze), repeats=3),
        "at least 5,000 a second",
        cells / ours.seconds >= 5000,
    )


def _observe_one_by_one(maze: Maze) -> np.ndarray:
    seen = []
    for cell in maze.free_cells():
        simulator = Simulator("maze", mode=maze.mode, num_threads=0)
        simulator.set_states([maze.with_mouse(cell).to_bytes()])
        seen.append(simulator.observe().images[0].transpose(2, 0, 1).copy())
        simulator.close()
    return np.stack(seen)


def _stepping() -> Iterable[Comparison]:
    """Step by turns: what else the machine does then falls on both."""
    actions = np.random.default_rng(0).integers(15, size=(STEPS, ENVIRONMENTS)).astype(np.int32)
    raw = import_procgen().ProcgenGym3Env(
        num=ENVIRONMENTS,
        env_name="maze",
        distribution_mode="easy",
        rand_seed=0,
        num_threads=THREADS,
    )
    stable_baselines = ProcgenVecEnv("maze", ENVIRONMENTS, num_threads=THREADS)
    gymnasium = ProcgenVectorEnv("maze", ENVIRONMENTS, num_threads=THREADS)
    gymnasium.reset(seed=0)

    def step_raw(*, copies: bool = True) -> None:
        raw._reuse_arrays = not copies  # otherwise what one step gave is overwritten by the next
        for row in actions:
            raw.act(row)
            raw.observe()

    def step_with(env: ProcgenVecEnv | ProcgenVectorEnv) -> Callable[[], None]:
        def step() -> None:
            for row in actions:
                env.step(row)

        return step

    task = f"{ENVIRONMENTS} environments, {STEPS} steps"
    bare = partial(step_raw, copies=False)
    for words, baseline in (("", step_raw), (", its arrays overwritten", bare)):
        ours, other = _by_turns(step_with(stable_baselines), baseline, repeats=50)
        yield Comparison(
            f"{task}, Stable-Baselines3",
            ours,
            f"the simulator alone{words}",
            other,
            "at least 90 % of its rate",
            other.seconds / ours.seconds >= 0.9,
        )
    ours, other = _by_turns(step_with(gymnasium), step_raw)
    yield Comparison(f"{task}, gymnasium", ours, "the simulator alone", other)
    for env in (raw, stable_baselines, gymnasium):
        env.close()


def _given_levels() -> Comparison:
    levels = [Maze.from_seed(seed) for seed in range(ENVIRONMENTS)]
    given = ProcgenVecEnv("maze", ENVIRONMENTS, levels=levels, num_threads=THREADS)
    generated = ProcgenVecEnv("maze", ENVIRONMENTS, num_threads=THREADS)
    end = np.full(ENVIRONMENTS, -1, np.int32)
    ours, other = _by_turns(lambda: given.step(end), lambda: generated.step(end))
    given.close()
    generated.close()
    return Comparison(f"{ENVIRONMENTS} ends, given levels follow", ours, "generated levels", other)


def _recording() -> Comparison:
    """Memory is that of what is kept at the end."""
    env = ProcgenVecEnv("maze", 4, num_threads=0)
    actions = np.random.default_rng(0).integers(15, size=(500, 4))
    actions[49::50] = -1  # a new level after 50 steps
    steps, begun = [], np.ones(4, bool)
    for row in actions:
        steps.append((env.get_states(), begun))
        begun = env.step(row)[2]
    env.close()

    def record() -> Recording:
        recording = Recording(4)
        for states, begins in steps:
            recording.append(states, begins)
        return recording

    def pack() -> list[list[bytes]]:
        return [[zlib.compress(state) for state in states] for states, _ in steps]

    packed = sum(len(state) for states in pack() for state in states)
    return Comparison(
        "500 steps of 4 mazes recorded",
        measure(record)._replace(megabytes=record().nbytes / 1e6),
        "each state packed by zlib",
        measure(pack)._replace(megabytes=packed / 1e6),
    )


def _by_turns(
    one: Callable[[], object], two: Callable[[], object], repeats: int = 9
) -> tuple[Cost, Cost]:
    """Measure two calls, one after the other again and again."""
    calls = (one, two)
    megabytes = [peak_memory(call) for call in calls]
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for call, times in zip(calls, seconds, strict=True):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
    ours, other = (
        Cost(statistics.median(times), peak) for times, peak in zip(seconds, megabytes, strict=True)
    )
    return ours, other
