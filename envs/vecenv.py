"""ProcGen as a Stable-Baselines3 vector environment."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gymnasium
import numpy as np
from jaxtyping import UInt8
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices, VecEnvStepReturn

from envs.games import NUM_ACTIONS
from envs.simulator import Simulator
from envs.state import episode_clock

Observations = UInt8[np.ndarray, "envs 3 64 64"]


class ProcgenVecEnv(VecEnv):
    """Copies of one ProcGen game, stepped together, for Stable-Baselines3.

    Observations are uint8 (envs, 3, 64, 64). Their memory is channels last (what the simulator
    writes, and what convolutions on a CPU run fastest on); only the shape is channels first.

    Each step's `info` has `level_seed`, the level that the returned observation shows. Where an
    episode ended there are also

    - `episode`: its return `r`, length `l` in steps, and `t`, seconds since this was created;
    - `prev_level_seed` and `prev_level_complete`: the level that was played, and whether the
      simulator counts it as completed;
    - `TimeLimit.truncated`: it ended by the step limit;
    - `terminal_observation`: the simulator never shows the frame after the last action, it
      returns the next level's at once. So this is the observation *before* the last action, one
      step earlier than the name says.

    Args:
        env_name: one of `GAMES`.
        num_envs: number of copies.
        num_levels: number of levels; 0 takes all from `start_level` on.
        start_level: seed of the first level.
        mode: distribution mode, one of `GAMES[env_name]`.
        seed: seed of the sequence of levels.
        num_threads: the simulator's threads.
        render_mode: None, or "rgb_array" for the 512x512 human view in `render` (slow).
        options: ProcGen's own switches, see `Simulator.OPTIONS`.

    Raises:
        ValueError: an argument is not accepted; the message lists what is.
        ImportError: the simulator cannot be loaded; the message says what it needs.
    """

    def __init__(
        self,
        env_name: str,
        num_envs: int,
        *,
        num_levels: int = 0,
        start_level: int = 0,
        mode: str = "easy",
        seed: int = 0,
        num_threads: int = 4,
        render_mode: str | None = None,
        **options: bool,
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
        self.render_mode = render_mode  # the base class asks for it
        self.env_name, self.mode = env_name, mode
        self._make: Callable[[int], Simulator] = lambda rand_seed: Simulator(
            env_name,
            num_envs,
            mode=mode,
            num_levels=num_levels,
            start_level=start_level,
            seed=rand_seed,
            num_threads=num_threads,
            human_view=render_mode == "rgb_array",
            **options,
        )
        self._simulator = self._make(seed)
        super().__init__(
            num_envs,
            gymnasium.spaces.Box(0, 255, (3, 64, 64), np.uint8),
            gymnasium.spaces.Discrete(NUM_ACTIONS),
        )
        self._started = time.time()
        self._returns = np.zeros(num_envs)
        self._lengths = np.zeros(num_envs, np.int64)
        self._clocks = np.zeros(num_envs, np.int64)
        (first_state,) = self._simulator.get_states([0])
        _, self._step_limit = episode_clock(first_state)
        self._fresh = True
        self._last = self.observe()

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed the sequence of levels; takes effect at the next reset. None draws a seed."""
        if seed is None:
            seed = int(np.random.default_rng().integers(2**31 - 1))
        return super().seed(seed)

    def reset(self) -> Observations:
        """Start a new level in every environment and return its first observation."""
        (seed, *_) = self._seeds
        if seed is not None:
            self._simulator.close()
            self._simulator = self._make(seed)
        elif not self._fresh:
            self._simulator.act(np.full(self.num_envs, -1, np.int32))
        self._reset_seeds()
        self._reset_options()
        self._fresh = True
        self._begin_episode(slice(None))
        self._last = self.observe()
        self.reset_infos = [{"level_seed": level} for level in self._level_seeds()]
        return self._last

    def step_async(self, actions: np.ndarray) -> None:
        """Start a step; the simulator's threads run it while the caller does other things."""
        self._fresh = False
        self._simulator.act(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Finish the step: observations, rewards, dones, infos (see the class)."""
        frame = self._simulator.observe()
        observations, rewards, dones = _channels_first(frame.images), frame.rewards, frame.first
        self._returns += rewards
        self._lengths += 1
        self._clocks += 1
        infos: list[dict[str, Any]] = [{"level_seed": level} for level in self._level_seeds()]
        if dones.any():
            for index in np.flatnonzero(dones):
                infos[index].update(self._ending(index))
            self._begin_episode(dones)
        self._last = observations
        return observations, rewards.copy(), dones.copy(), infos

    def observe(self) -> Observations:
        """Return the current observations, for instance after `set_states`."""
        return _channels_first(self._simulator.observe().images)

    def get_states(self, indices: Iterable[int] | None = None) -> list[bytes]:
        """Return the simulator's states of these environments (default all)."""
        return self._simulator.get_states(indices)

    def set_states(
        self,
        states: Sequence[bytes],
        indices: Iterable[int] | None = None,
        *,
        trusted: bool = False,
    ) -> None:
        """Put these environments (default all) into these states, as the start of an episode.

        Returns and lengths in `info["episode"]` count from here. At the episode's end the next
        level follows, drawn from the level range and generator that the state carries.

        Games other than maze take states of unknown origin only if the caller vouches for them by
        `trusted` (see `Simulator.set_states`).

        Raises:
            ValueError: a state is malformed, of another game or of unknown origin; nothing was set.
        """
        where = list(range(self.num_envs)) if indices is None else [int(i) for i in indices]
        self._simulator.set_states(states, where, trusted=trusted)
        self._fresh = False
        self._begin_episode(where)
        self._clocks[where] = [episode_clock(state)[0] for state in states]
        self._last = self.observe()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Return the 512x512 human view of each environment (needs render_mode="rgb_array")."""
        if self.render_mode is None:
            raise ValueError('create the environment with render_mode="rgb_array" to render it')
        self._simulator.observe()
        return list(self._simulator.info("rgb").copy())

    def close(self) -> None:
        """Free the simulator."""
        self._simulator.close()

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

    def _level_seeds(self) -> list[int]:
        return self._simulator.info("level_seed").tolist()

    def _begin_episode(self, where: Any) -> None:
        self._returns[where] = 0.0
        self._lengths[where] = 0
        self._clocks[where] = 0

    def _ending(self, index: int) -> dict[str, Any]:
        complete = bool(self._simulator.info("prev_level_complete")[index])
        return {
            "episode": {
                "r": round(float(self._returns[index]), 6),
                "l": int(self._lengths[index]),
                "t": round(time.time() - self._started, 6),
            },
            "prev_level_seed": int(self._simulator.info("prev_level_seed")[index]),
            "prev_level_complete": complete,
            "TimeLimit.truncated": bool(self._clocks[index] >= self._step_limit) and not complete,
            "terminal_observation": self._last[index].copy(),
        }


def _channels_first(images: UInt8[np.ndarray, "envs 64 64 3"]) -> Observations:
    return images.copy().transpose(0, 3, 1, 2)
