"""Mazes as values: reading, editing, generating, sampling."""

from collections.abc import Iterable

import numpy as np

from rlbilinear.benchmarks.fields import (
    look_field_by_field,
    move_cheese_field_by_field,
    move_mouse_field_by_field,
    read_fields,
)
from rlbilinear.benchmarks.measure import Comparison, measure, measure_each, within
from rlbilinear.envs import (
    FITTING,
    Cell,
    Constraints,
    Levels,
    Maze,
    Region,
    measure_table,
    sample_levels,
)
from rlbilinear.envs.simulator import Simulator
from rlbilinear.envs.state import parse

LEVELS = 10_000


def comparisons() -> Iterable[Comparison]:
    """Measure what the issue sets targets for, beside an alternative where there is one."""
    maze = Maze.from_seed(3)
    raw = maze.to_bytes()
    read = Maze.from_bytes(raw)
    cell = read.free_cells()[5]
    assert look_field_by_field(raw)[1:] == (maze.mouse, list(maze.cheese))
    yield within(
        "grid, mouse and cheese from bytes",
        measure_each(lambda: _look(Maze.from_bytes(raw))),
        20e-6,
        "the whole state, field by field",
        measure_each(lambda: look_field_by_field(raw), 20),
    )
    yield within(
        "all fields of a state",
        measure_each(lambda: parse(raw)),
        200e-6,
        "field by field",
        measure_each(lambda: read_fields(raw), 20),
    )
    both_ways = {
        "mouse moved, new bytes": (
            lambda: read.with_mouse(cell).to_bytes(),
            lambda: move_mouse_field_by_field(raw, *cell),
        ),
        "cheese moved, new bytes": (
            lambda: read.with_cheese(cell).to_bytes(),
            lambda: move_cheese_field_by_field(raw, *cell),
        ),
    }
    for task, (ours, other) in both_ways.items():
        assert ours() == other()
        yield within(
            task, measure_each(ours), 50e-6, "read and written by field", measure_each(other, 20)
        )
    yield within(
        "wall removed, new bytes",
        measure_each(lambda: read.with_wall(Cell(0, 0), False).to_bytes()),
        50e-6,
    )
    yield within(
        f"{LEVELS:,} easy levels",
        measure(lambda: [Maze.from_seed(seed) for seed in FITTING.first(LEVELS)], repeats=1),
        20.0,
        "by the simulator, states read",
        measure(lambda: _by_simulator(FITTING, LEVELS), repeats=1),
    )
    constraints = Constraints(maze_dim=(9, 15), cheese_out_of=Region(5), has_decision_square=True)
    yield Comparison(
        f"100 levels with {constraints}",
        measure(lambda: sample_levels(FITTING, 100, seed=0, constraints=constraints)),
    )
    mazes = [Maze.from_seed(seed) for seed in FITTING.first(100)]
    yield Comparison("sixteen measures of 100 levels", measure(lambda: measure_table(mazes)))


def _look(maze: Maze) -> tuple[np.ndarray, Cell, tuple[Cell, ...]]:
    return maze.grid, maze.mouse, maze.cheese


def _by_simulator(levels: Levels, count: int) -> list[Maze]:
    """Return levels as the simulator generates them: 100 environments begin new ones at will."""
    simulator = Simulator(
        "maze", 100, start_level=levels.start, num_levels=levels.count, num_threads=0
    )
    mazes: list[Maze] = []
    while len(mazes) < count:
        mazes += map(Maze.from_bytes, simulator.get_states())
        simulator.act(np.full(100, -1, np.int32))
    simulator.close()
    return mazes
