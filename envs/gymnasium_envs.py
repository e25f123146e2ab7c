"""ProcGen for gymnasium: `gymnasium.make` and `gymnasium.make_vec` of "rlbilinear/procgen-maze-v0".

Importing `rlbilinear.envs` registers all games; the id
"rlbilinear.envs:rlbilinear/procgen-maze-v0" imports it as well.
Observations are uint8 (64, 64, 3), channels last, as gymnasium's own wrappers expect them. For
Stable-Baselines3 there is `ProcgenVecEnv`, which is faster than its wrapper around `make`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Float64, Int64, UInt8

from rlbilinear.envs.argument_names import takes_procgen_names
from rlbilinear.envs.episodes import Ended, Episodes
from rlbilinear.envs.games import FRAMES_PER_SECOND, GAMES, NUM_ACTIONS, NUM_LEVELS, is_whole
from rlbilinear.envs.schedule import Order, Playable

_OBSERVATIONS = gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8)
_ACTIONS = gymnasium.spaces.Discrete(NUM_ACTIONS)
_METADATA = {"render_modes": ["rgb_array"], "render_fps": FRAMES_PER_SECOND}
_VECTOR_METADATA = {**_METADATA, "autoreset_mode": AutoresetMode.SAME_STEP}
Image = UInt8[np.ndarray, "64 64 3"]
Images = UInt8[np.ndarray, "envs 64 64 3"]


def register() -> None:
    """Register "rlbilinear/procgen-<game>-v0" for each game; a second time changes nothing."""
    for game in GAMES:
        name = f"rlbilinear/procgen-{game}-v0"
        if name not in gymnasium.registry:
            gymnasium.register(
                id=name,
                entry_point=f"{__name__}:{ProcgenEnv.__name__}",
                vector_entry_point=f"{__name__}:{ProcgenVectorEnv.__name__}",
                kwargs={"env_name": game},
            )


class ProcgenEnv(gymnasium.Env[Image, np.int64]):
    """One ProcGen game for gymnasium.

    `info` has `level_seed`, with given levels `level_index`, and at an episode's end
    `level_complete`, whether the simulator counts the level as completed. The simulator never shows
    the frame after the last action: the last observation of an episode is repeated instead.

    A reset always begins another episode, on the next level. `reset(seed=...)` begins the sequence
    of levels again, the same for the same seed; without a seed, the first reset draws one.

    Args:
        env_name: one of `GAMES`; `gymnasium.make` knows it from the id.
        levels: what to play, episode after episode: level seeds, of any game; or `Maze`, `Heist` or
            states as bytes.
        order: of given levels: "in turn" (None is that) or "random".
        mode: distribution mode of generated levels; None is "easy".
        num_levels: number of generated levels; 0 takes all from `start_level` on.
        start_level: seed of the first generated level.
        seed: seed of the sequence of levels, until a reset gives another: procgen's `rand_seed`,
            which has the same levels there. None draws one.
        render_mode: None, or "rgb_array" for the 512x512 human view in `render` (slow).
        options: ProcGen's own switches for generated levels, see `Simulator.OPTIONS`; and its names
            of arguments above: `distribution_mode` and `rand_seed`.

    Raises:
        ValueError: an argument is not accepted; the message lists what is.
        ImportError: the simulator cannot be loaded; the message says what it needs.
    """

    metadata = _METADATA

    @takes_procgen_names
    def __init__(
        self,
        env_name: str,
        *,
        levels: Sequence[Playable] | None = None,
        order: Order | None = None,
        mode: str | None = None,
        num_levels: int = 0,
        start_level: int = 0,
        seed: int | None = None,
        render_mode: str | None = None,
        **options: bool,
    ) -> None:
        self.render_mode = _checked(render_mode)
        self._episodes = Episodes(
            env_name,
            1,
            levels=levels,
            order=order,
            mode=mode,
            num_levels=num_levels,
            start_level=start_level,
            seed=0 if seed is None else seed,
            num_threads=0,
            human_view=render_mode is not None,
            **options,
        )
        self.observation_space, self.action_space = _OBSERVATIONS, _ACTIONS
        self._over, self._seeded = True, seed is not None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Image, dict[str, Any]]:
        """Begin another episode, and return its first observation; no options are known."""
        super().reset(seed=seed)
        if seed is not None or not self._seeded:
            self._episodes.restart(int(self.np_random.integers(NUM_LEVELS)))
        elif not self._over:  # at an end, the simulator goes on to the next level by itself
            self._episodes.restart()
        self._over, self._seeded = False, True
        self._last = self._episodes.images()[0]
        self._picture = self._human_view()
        return self._last.copy(), self._info()

    def step(self, action: np.int64) -> tuple[Image, float, bool, bool, dict[str, Any]]:
        """Take an action; see the class for the observation that ends an episode."""
        if self._over:
            raise gymnasium.error.ResetNeeded("the episode is over, or none was begun: reset first")
        info = self._info()
        self._episodes.act(np.array([action]))
        images, rewards, dones, ended = self._episodes.wait()
        self._over = bool(dones[0])
        truncated = ended is not None and bool(ended.truncated[0])
        if ended is None:
            self._last = images[0]
            self._picture = self._human_view()
        else:
            info["level_complete"] = bool(ended.complete[0])
        return self._last.copy(), float(rewards[0]), self._over and not truncated, truncated, info

    def render(self) -> UInt8[np.ndarray, "512 512 3"] | None:
        """Return the human view (needs render_mode="rgb_array")."""
        return self._picture.copy() if self._picture is not None else None

    def close(self) -> None:
        """Free the simulator."""
        self._episodes.close()

    def _human_view(self) -> UInt8[np.ndarray, "512 512 3"] | None:
        return None if self.render_mode is None else self._episodes.human_views()[0]

    def _info(self) -> dict[str, Any]:
        indices = self._episodes.level_indices()
        info = {"level_seed": self._episodes.level_seeds()[0]}
        return info if indices is None else info | {"level_index": indices[0]}


class ProcgenVectorEnv(gymnasium.vector.VectorEnv[Images, np.ndarray, np.ndarray]):
    """Copies of one ProcGen game, stepped together by the simulator's threads, for gymnasium.

    An environment whose episode ends is reset in the same step (`AutoresetMode.SAME_STEP`): the
    observation is the next episode's first, `infos["final_obs"]` has the ended one's last, and
    `infos["final_info"]` its `level_seed`, `level_complete`, and with given levels `level_index`.

    Some of gymnasium's vector wrappers (those of observations) only take environments that reset in
    the next step: `make_vec(..., vectorization_mode="sync")`, slower, is such a one.

    Args:
        env_name: one of `GAMES`; `gymnasium.make_vec` knows it from the id.
        num_envs: number of copies.
        num_threads: the simulator's threads.
        levels: as of `ProcgenEnv`, and so are the arguments below.
        order: of given levels.
        mode: distribution mode.
        num_levels: number of levels; 0 for all.
        start_level: seed of the first.
        seed: seed of the order of levels.
        render_mode: what `render` returns.
        options: the game's other options.

    Raises:
        ValueError: an argument is not accepted; the message lists what is.
        ImportError: the simulator cannot be loaded; the message says what it needs.
    """

    metadata = _VECTOR_METADATA

    @takes_procgen_names
    def __init__(
        self,
        env_name: str,
        num_envs: int = 1,
        *,
        levels: Sequence[Playable] | None = None,
        order: Order | None = None,
        mode: str | None = None,
        num_levels: int = 0,
        start_level: int = 0,
        seed: int | None = None,
        num_threads: int = 4,
        render_mode: str | None = None,
        **options: bool,
    ) -> None:
        self.closed = True  # as long as there is nothing to close
        self.render_mode = _checked(render_mode)
        self._episodes = Episodes(
            env_name,
            num_envs,
            levels=levels,
            order=order,
            mode=mode,
            num_levels=num_levels,
            start_level=start_level,
            seed=0 if seed is None else seed,
            num_threads=num_threads,
            human_view=render_mode is not None,
            **options,
        )
        self.closed = False
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = _OBSERVATIONS, _ACTIONS
        self.observation_space = batch_space(_OBSERVATIONS, num_envs)
        self.action_space = batch_space(_ACTIONS, num_envs)
        self._begun, self._seeded = False, seed is not None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Images, dict[str, Any]]:
        """Begin another episode everywhere, and return the first observations.

        Args:
            seed: one for all environments; their sequences of levels still differ.
            options: none are known.

        Raises:
            ValueError: a list of seeds, or a reset of some environments only.
        """
        if not (seed is None or is_whole(seed)):
            raise ValueError(f"one seed is for all environments, an int; got {seed!r}")
        if options and "reset_mask" in options:
            raise ValueError("environments reset themselves when an episode ends: no reset_mask")
        super().reset(seed=seed)
        draw = seed is not None or not self._seeded
        self._episodes.begin(int(self.np_random.integers(NUM_LEVELS)) if draw else None)
        self._begun = self._seeded = True
        self._last = self._episodes.images()
        return self._last, self._infos()

    def step(
        self, actions: np.ndarray
    ) -> tuple[
        Images,
        Float64[np.ndarray, " envs"],
        Bool[np.ndarray, " envs"],
        Bool[np.ndarray, " envs"],
        dict[str, Any],
    ]:
        """Take an action in each environment; see the class for what ends give."""
        if not self._begun:
            raise gymnasium.error.ResetNeeded("no episode was begun: reset first")
        self._episodes.act(actions)
        images, rewards, dones, ended = self._episodes.wait()
        infos = self._infos()
        truncated = np.zeros(self.num_envs, bool)
        if ended is not None:
            truncated[ended.where] = ended.truncated
            infos |= self._final(ended, dones)
        self._last = images
        return images, rewards.astype(np.float64), dones & ~truncated, truncated, infos

    def render(self) -> tuple[UInt8[np.ndarray, "512 512 3"], ...] | None:
        """Return the human view of each environment (needs render_mode="rgb_array")."""
        return None if self.render_mode is None else tuple(self._episodes.human_views())

    def close_extras(self, **kwargs: Any) -> None:
        """Free the simulator."""
        self._episodes.close()

    def _infos(self) -> dict[str, Any]:
        everywhere = np.ones(self.num_envs, bool)
        infos = {"level_seed": self._episodes.level_seeds()}
        if (indices := self._episodes.level_indices()) is not None:
            infos["level_index"] = indices
        return _masked({key: np.array(numbers) for key, numbers in infos.items()}, everywhere)

    def _final(self, ended: Ended, dones: Bool[np.ndarray, " envs"]) -> dict[str, Any]:
        """Return what gymnasium's own environments say in this mode of episodes that ended."""
        last = np.full(self.num_envs, None, object)
        for index in ended.where:
            last[index] = self._last[index].copy()
        final = {
            "level_seed": self._spread(ended, ended.level_seeds),
            "level_complete": self._spread(ended, ended.complete),
        }
        if ended.level_indices is not None:
            final["level_index"] = self._spread(ended, ended.level_indices)
        return _masked({"final_obs": last, "final_info": _masked(final, dones)}, dones)

    def _spread(
        self, ended: Ended, values: Int64[np.ndarray, " ended"] | Bool[np.ndarray, " ended"]
    ) -> np.ndarray:
        spread = np.zeros(self.num_envs, values.dtype)
        spread[ended.where] = values
        return spread


def _checked(render_mode: str | None) -> str | None:
    if render_mode not in (None, "rgb_array"):
        raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
    return render_mode


def _masked(infos: dict[str, Any], where: Bool[np.ndarray, " envs"]) -> dict[str, Any]:
    """Add to each key the mask of environments that have it, as gymnasium does."""
    return infos | {f"_{key}": where.copy() for key in infos}
