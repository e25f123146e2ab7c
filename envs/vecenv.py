"""ProcGen as a Stable-Baselines3 vector environment."""

from __future__ import annotations

import functools
import importlib.util
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gymnasium
import numpy as np
from jaxtyping import UInt8
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices, VecEnvStepReturn

from rlbilinear.envs.argument_names import takes_procgen_names
from rlbilinear.envs.episodes import Ended, Episodes, Images
from rlbilinear.envs.games import FRAMES_PER_SECOND, NUM_ACTIONS, NUM_LEVELS
from rlbilinear.envs.grid import Cell
from rlbilinear.envs.heist import Heist
from rlbilinear.envs.maze import Maze
from rlbilinear.envs.observation import placements
from rlbilinear.envs.schedule import Order, Playable
from rlbilinear.envs.simulator import check_seed

Observations = UInt8[np.ndarray, "envs 3 64 64"]
_FOR_VIDEOS = ("moviepy", "pkg_resources")
"""The second is of setuptools before 81: imageio-ffmpeg 0.3, to which gym3 keeps, imports it."""


class ProcgenVecEnv(VecEnv):
    """Copies of one ProcGen game, stepped together, for Stable-Baselines3.

    Observations are uint8 (envs, 3, 64, 64). Their memory is channels last (what the simulator
    writes, and what convolutions on a CPU run fastest on); only the shape is channels first.

    The levels are drawn by the simulator, or with `levels` the given ones: exactly these seeds, or
    states. They are put in again at every reset and whenever an episode ends, so that edits last.
    `envs.schedule.Schedule` says which environment plays which level when.

    A reset always begins another episode, on the next level. Only the first one, if nothing was
    played before, begins the first.

    Each step's `info`, and each of `reset_infos`, has `level_seed`, the level that the returned
    observation shows (edited or not: its state says), and with given levels `level_index`, its
    place among them. Where an episode ended there are also

    - `episode`: its return `r`, length `l` in steps, and `t`, seconds since this was created;
    - `prev_level_seed` and `prev_level_complete`: the level that was played, and whether the
      simulator counts it as completed; with given levels `prev_level_index`;
    - `TimeLimit.truncated`: it ended by the step limit;
    - `terminal_observation`: the simulator never shows the frame after the last action, it
      returns the next level's at once. So this is the observation *before* the last action, one
      step earlier than the name says.

    Other processes make environments of their own; start these by "spawn" or "forkserver". In a
    forked child the simulator's threads are missing, and its parent's environments wait for ever;
    only with `num_threads=0` do they work there.

    Args:
        env_name: one of `GAMES`.
        num_envs: number of copies.
        levels: what to play: level seeds, of any game; or `Maze`, `Heist` or states as bytes, of
            any sizes and modes.
        order: of given levels: "in turn" (None is that) or "random", drawn by `seed`.
        num_levels: number of generated levels; 0 takes all from `start_level` on.
        start_level: seed of the first generated level.
        mode: distribution mode of generated levels, one of `GAMES[env_name]`; None is "easy". As an
            attribute, with given levels, that of the first.
        seed: seed of the sequence of levels.
        num_threads: the simulator's threads.
        render_mode: None, or "rgb_array" for the 512x512 human view in `render` (slow). Recording
            it by `VecVideoRecorder` needs the extra `video`: pip install 'rlbilinear[video]'.
        options: ProcGen's own switches for generated levels, see `Simulator.OPTIONS`; and its names
            of arguments above: `distribution_mode`, `rand_seed` and `num`.

    Raises:
        ValueError: an argument is not accepted; the message lists what is.
        ImportError: the simulator cannot be loaded; the message says what it needs.
    """

    @takes_procgen_names
    def __init__(
        self,
        env_name: str,
        num_envs: int,
        *,
        levels: Sequence[Playable] | None = None,
        order: Order | None = None,
        num_levels: int = 0,
        start_level: int = 0,
        mode: str | None = None,
        seed: int = 0,
        num_threads: int = 4,
        render_mode: str | None = None,
        **options: bool,
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
        self.render_mode = render_mode  # the base class asks for it
        self._episodes = Episodes(
            env_name,
            num_envs,
            levels=levels,
            order=order,
            num_levels=num_levels,
            start_level=start_level,
            mode=mode,
            seed=seed,
            num_threads=num_threads,
            human_view=render_mode == "rgb_array",
            **options,
        )
        self.env_name, self.mode = env_name, self._episodes.mode
        self.options = self._episodes.options
        super().__init__(
            num_envs,
            gymnasium.spaces.Box(0, 255, (3, 64, 64), np.uint8),
            gymnasium.spaces.Discrete(NUM_ACTIONS),
        )
        del self.metadata  # of the base class; ours is below
        self._started = time.time()
        self._last = self.observe()

    @classmethod
    def at_cells(
        cls, state: Maze | Heist, cells: Iterable[Cell] | None = None, **arguments: Any
    ) -> ProcgenVecEnv:
        """Return one environment for each cell, which starts every episode there.

        Args:
            state: a maze or heist.
            cells: where its mouse or agent starts; None takes all of `state.free_cells()`.
            arguments: `num_threads` and `render_mode`.

        Raises:
            ValueError: a cell is outside or a wall, or there are none.
        """
        levels = placements(state, cells)
        game = "maze" if isinstance(state, Maze) else "heist"
        return cls(game, max(len(levels), 1), levels=levels, **arguments)

    @functools.cached_property  # recorders write to it
    def metadata(self) -> dict[str, Any]:  # type: ignore[override]  # an attribute of the class
        """What environments say of themselves; to be rendered, this one says what videos need.

        `VecVideoRecorder` reads it before it imports MoviePy. Where that fails, its own error names
        an extra of gymnasium, which does not bring all that is needed here.
        """
        missing = [name for name in _FOR_VIDEOS if importlib.util.find_spec(name) is None]
        if self.render_mode is not None and missing:
            warnings.warn(
                f"{' and '.join(missing)} cannot be imported, which Stable-Baselines3's recorder "
                "of videos needs: pip install 'rlbilinear[video]'",
                stacklevel=2,
            )
        return {"render_modes": ["rgb_array"], "render_fps": FRAMES_PER_SECOND}

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed the sequence of levels; takes effect at the next reset. None draws a seed.

        Raises:
            ValueError: the seed is not in 0..2**31 - 1.
        """
        if seed is None:
            seed = int(np.random.default_rng().integers(NUM_LEVELS))
        return super().seed(check_seed(seed))

    def reset(self) -> Observations:
        """Begin the next level in every environment and return its first observation.

        If a seed was set, the sequence of levels starts again.
        """
        (seed, *_) = self._seeds
        self._episodes.begin(seed)
        self._reset_seeds()
        self._reset_options()
        self._last = self.observe()
        self.reset_infos = self._infos()
        return self._last

    def step_async(self, actions: np.ndarray) -> None:
        """Start a step; the simulator's threads run it while the caller does other things.

        Action -1 stands still and then ends the episode.
        """
        self._episodes.act(actions)
        # Written while the simulator works; where an episode ends they change.
        self._step_infos = self._infos()

    def step_wait(self) -> VecEnvStepReturn:
        """Finish the step: observations, rewards, dones, infos (see the class)."""
        images, rewards, dones, ended = self._episodes.wait()
        infos = self._step_infos
        if ended is not None:
            self._describe(ended, infos)
        self._last = _channels_first(images)
        return self._last, rewards, dones, infos

    def observe(self) -> Observations:
        """Return the current observations, for instance after `set_states`."""
        return _channels_first(self._episodes.images())

    def get_states(self, indices: Iterable[int] | None = None) -> list[bytes]:
        """Return the simulator's states of these environments (default all)."""
        return self._episodes.get_states(indices)

    def set_states(self, states: Sequence[bytes], indices: Iterable[int] | None = None) -> None:
        """Put these environments (default all) into these states, as the start of an episode.

        Returns and lengths in `info["episode"]` count from here. At the episode's end the next
        given level follows; without given ones, the next drawn from the level range and generator
        that the state carries. For edits that last, give them as `levels`.

        Raises:
            ValueError: a state is malformed or of another game; nothing was set.
        """
        self._episodes.set_states(states, indices)
        self._last = self.observe()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Return the 512x512 human view of each environment (needs render_mode="rgb_array")."""
        if self.render_mode is None:
            raise ValueError('create the environment with render_mode="rgb_array" to render it')
        return list(self._episodes.human_views())

    def close(self) -> None:
        """Free the simulator."""
        self._episodes.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute, which all environments share."""
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute; environments share them, so only for all at once."""
        if len(set(self._get_indices(indices))) != self.num_envs:
            raise ValueError(f"environments share their attributes: set {attr_name!r} for all")
        setattr(self, attr_name, value)

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Call `get_state()` or `set_state(state)` of single environments."""
        methods: dict[str, Callable[..., Any]] = {
            "get_state": lambda index: self.get_states([index])[0],
            "set_state": lambda index, state: self.set_states([state], [index]),
        }
        if method_name not in methods:
            raise AttributeError(f"no method {method_name!r}; there are {list(methods)}")
        method = methods[method_name]
        return [
            method(index, *method_args, **method_kwargs) for index in self._get_indices(indices)
        ]

    def env_is_wrapped(
        self, wrapper_class: type[gymnasium.Wrapper], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Return False for each: nothing can be wrapped inside the simulator."""
        return [False for _ in self._get_indices(indices)]

    def _infos(self, where: Iterable[int] | None = None) -> list[dict[str, Any]]:
        """Say which levels these environments (default all) show."""
        seeds, indices = self._episodes.level_seeds(), self._episodes.level_indices()
        where = range(self.num_envs) if where is None else where
        if indices is None:
            return [{"level_seed": seeds[env]} for env in where]
        return [{"level_seed": seeds[env], "level_index": indices[env]} for env in where]

    def _describe(self, ended: Ended, infos: list[dict[str, Any]]) -> None:
        """Say which episodes ended and what follows; `_last` is what was seen before."""
        seconds = round(time.time() - self._started, 6)
        where = ended.where.tolist()
        for number, (index, begun) in enumerate(zip(where, self._infos(where), strict=True)):
            infos[index].update(
                begun
                | {
                    "episode": {
                        "r": round(float(ended.returns[number]), 6),
                        "l": int(ended.lengths[number]),
                        "t": seconds,
                    },
                    "prev_level_seed": int(ended.level_seeds[number]),
                    "prev_level_complete": bool(ended.complete[number]),
                    "TimeLimit.truncated": bool(ended.truncated[number]),
                    "terminal_observation": self._last[index].copy(),
                }
            )
            if ended.level_indices is not None:
                infos[index]["prev_level_index"] = int(ended.level_indices[number])


def _channels_first(images: Images) -> Observations:
    return images.transpose(0, 3, 1, 2)
