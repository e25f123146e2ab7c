"""The patches that excite eigenfilters most, over any number of frames, in one pass."""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, TypeVar, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from rlbilinear import Eigenfilters
from rlbilinear.agents import Agent
from rlbilinear.agents.architectures import BilinearBlock, ReluBlock
from rlbilinear.agents.evaluation import start_levels
from rlbilinear.agents.network import HEADS
from rlbilinear.convolution import convolve
from rlbilinear.edits.functional import PositionBias
from rlbilinear.envs import ProcgenVecEnv
from rlbilinear.probes.named import AgentLike, as_agent
from rlbilinear.receptive import Rectangle, Window, read_by, window

Apart = Literal["level", "frame"]
T = TypeVar("T")


class Frames(NamedTuple):
    """Observations, with the level and the step of its episode of each."""

    observations: UInt8[np.ndarray, "n 3 height width"]
    levels: Int[np.ndarray, "n"]
    steps: Int[np.ndarray, "n"]


@dataclass(frozen=True, eq=False)
class Activation:
    """An observation that excites an eigenfilter.

    Attributes:
        contribution: what the filter adds there to its direction, ``value * (filter * x)²``, with
            the sign of the value: at a patch's position, or summed over all positions.
        level: of the observation.
        step: of its episode.
        observation: the picture.
    """

    contribution: float
    level: int
    step: int
    observation: UInt8[np.ndarray, "3 height width"]


@dataclass(frozen=True, eq=False)
class Patch(Activation):
    """Where an eigenfilter is excited in an observation.

    Attributes:
        response: ``filter * x`` there; its sign tells the pattern from its negative.
        position: row and column in the filter's map, row 0 at the top.
        window: what lies under the filter in the maps it reads; it may reach into the padding.
        pixels: all of the picture that can have changed the response, exactly.
    """

    response: float
    position: tuple[int, int]
    window: Rectangle
    pixels: Rectangle

    @property
    def image(self) -> UInt8[np.ndarray, "3 rows columns"]:
        """The part of the picture in ``pixels``."""
        top, left, bottom, right = self.pixels
        return self.observation[:, top:bottom, left:right]


@dataclass(frozen=True, eq=False)
class TopActivations:
    """The largest contributions of each eigenfilter, descending by size.

    Attributes:
        patches: for each filter, the positions where it contributes most.
        observations: for each filter, the observations where it contributes most, summed over
            positions.
        frames: how many were seen.
    """

    patches: tuple[tuple[Patch, ...], ...]
    observations: tuple[tuple[Activation, ...], ...]
    frames: int

    def table(self) -> pd.DataFrame:
        """Return a row a patch: filter, rank, and the patch without its picture."""
        rows = [
            {
                "filter": index,
                "rank": rank,
                "contribution": patch.contribution,
                "response": patch.response,
                "level": patch.level,
                "step": patch.step,
                "row": patch.position[0],
                "column": patch.position[1],
                **{f"pixels_{side}": end for side, end in patch.pixels._asdict().items()},
            }
            for index, patches in enumerate(self.patches)
            for rank, patch in enumerate(patches)
        ]
        return pd.DataFrame(rows)


def played_frames(
    agent: AgentLike,
    levels: Sequence[int],
    *,
    mode: str = "easy",
    chunk: int = 32,
    steps: int = 512,
    seed: int = 0,
) -> Iterator[Frames]:
    """Play one episode on each level and yield what the agent sees, as it goes.

    Actions are sampled from the policy; a level's random choices come from ``(seed, level)``.

    Args:
        agent: who plays, its own game.
        levels: seeds.
        mode: the game's distribution mode.
        chunk: levels played side by side.
        steps: at most so many of an episode.
        seed: of the sampling.

    Raises:
        ValueError: the agent's outputs are not finite in a state; the message names the layer.
    """
    agent = as_agent(agent)
    for first in range(0, len(levels), chunk):
        part = np.asarray(levels[first : first + chunk])
        noise = [np.random.default_rng([seed, level]) for level in part]
        env = ProcgenVecEnv(agent.config.game, len(part), mode=mode)
        try:
            observations = start_levels(env, part.tolist())
            playing = np.arange(len(part))
            for step in range(steps):
                seen = observations[playing]
                yield Frames(seen, part[playing], np.full(len(playing), step))
                scores = agent.logits(seen).cpu().numpy()
                gumbel = np.stack([noise[i].gumbel(size=scores.shape[1]) for i in playing])
                actions = np.zeros(len(part), np.int64)
                actions[playing] = (scores + gumbel).argmax(1)
                shown, _, dones, _ = env.step(actions)
                observations = np.asarray(shown)
                playing = playing[~dones[playing]]
                if not len(playing):
                    break
        finally:
            env.close()


def top_activations(
    agent: AgentLike,
    before: str,
    filters: Eigenfilters,
    frames: Iterable[Frames],
    *,
    count: int = 9,
    apart: Apart = "level",
    weights: Float[Tensor, "out_height out_width"] | None = None,
) -> TopActivations:
    """Find where eigenfilters contribute most, in one pass over frames.

    For a filter of negative value these are its most negative contributions, not its smallest.
    Memory is that of ``count`` observations a filter and of one batch, however many frames come.

    Args:
        agent: whose filters.
        before: the step of the forward pass whose output the filters read: of a block, the step
            before it.
        filters: of a convolution, or of a dense layer as one.
        frames: from `played_frames`, or any others.
        count: patches and observations kept of each filter.
        apart: at most one of a ``level``, or of a ``frame``: frames of an episode look alike.
        weights: what each position counts, as a component's map of `rlbilinear.vector_filters`.

    Raises:
        ValueError: no such step, another choice, a count below 1, weights of another shape, or
            activations that are not finite.
    """
    if apart not in get_args(Apart) or count < 1:
        raise ValueError(
            f"expected count >= 1, apart one of {', '.join(get_args(Apart))}; "
            f"got {count} and {apart!r}"
        )
    agent = as_agent(agent)
    earlier = windows_through(agent, before)
    height, width = filters.filters.shape[2:]
    own = Window((height, width), filters.stride, filters.padding, filters.dilation)
    _, *picture = agent.config.observation_shape
    best_patches = [_Best[Patch](count) for _ in filters.values]
    best_observations = [_Best[Activation](count) for _ in filters.values]
    seen = 0
    for batch in frames:
        x = agent.activations(batch.observations, [before])[before]
        responses = convolve(x, filters.filters, filters.stride, filters.padding, filters.dilation)
        contributions = filters.values.to(x)[:, None, None] * responses**2
        if weights is not None:
            if weights.shape != responses.shape[2:]:
                raise ValueError(
                    f"expected weights of the maps' shape {tuple(responses.shape[2:])}, "
                    f"got {tuple(weights.shape)}"
                )
            contributions = contributions * weights.to(x)
        totals = contributions.sum((2, 3)).cpu().numpy()
        flat = contributions.flatten(2)
        where = flat.abs().argmax(2, keepdim=True)
        peaks = flat.gather(2, where)[..., 0].cpu().numpy()
        at_peaks = responses.flatten(2).gather(2, where)[..., 0].cpu().numpy()
        columns = responses.shape[3]

        def activation(n: int, contribution: float, batch: Frames = batch) -> Activation:
            level, step = int(batch.levels[n]), int(batch.steps[n])
            return Activation(float(contribution), level, step, batch.observations[n].copy())

        for n, level in enumerate(batch.levels.tolist()):
            key = level if apart == "level" else seen + n
            for i, (patches, observations) in enumerate(
                zip(best_patches, best_observations, strict=True)
            ):
                if observations.takes(key, abs(totals[n, i])):
                    observations.put(key, abs(totals[n, i]), activation(n, totals[n, i]))
                if patches.takes(key, abs(peaks[n, i])):
                    y, x_ = divmod(int(where[n, i]), columns)
                    area = own.reads(Rectangle(y, x_, y + 1, x_ + 1))
                    patches.put(
                        key,
                        abs(peaks[n, i]),
                        Patch(
                            **vars(activation(n, peaks[n, i])),
                            response=float(at_peaks[n, i]),
                            position=(y, x_),
                            window=area,
                            pixels=read_by(area, earlier, (picture[0], picture[1])),
                        ),
                    )
        seen += len(batch.levels)
    return TopActivations(
        tuple(best.sorted() for best in best_patches),
        tuple(best.sorted() for best in best_observations),
        seen,
    )


def windows_through(agent: Agent, step: str) -> list[Window]:
    """Return the windows of all layers up to a step of the forward pass, that step included.

    Raises:
        ValueError: no such step, or one of them does not give maps.
    """
    steps = [name for name in agent.layer_names if "." not in name and name not in HEADS]
    if step not in steps:
        raise ValueError(
            f"{step!r} is not a step of the forward pass; choose from {', '.join(steps)}"
        )
    chosen = steps[: steps.index(step) + 1]
    return [each for name in chosen for each in _windows(agent.layer(name))]


def _windows(module: nn.Module) -> list[Window]:
    """Return a step's windows; a residual block reads what its branch reads."""
    if isinstance(module, PositionBias):
        return _windows(module.layer)
    if isinstance(module, nn.Sequential):
        return [each for part in module for each in _windows(part)]
    if isinstance(module, BilinearBlock):
        return [window(module.bilinear)]
    if isinstance(module, ReluBlock):
        return [window(module.conv1), window(module.conv2)]
    return [window(module)]


class _Best(Generic[T]):
    """The ``count`` largest of many, at most one of each key; of equal ones the first."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._found: dict[Hashable, tuple[float, T]] = {}
        self._floor = 0.0

    def takes(self, key: Hashable, size: float) -> bool:
        """Say whether something of this size would be kept."""
        return size > self._floor and size > self._found.get(key, (0.0, None))[0]

    def put(self, key: Hashable, size: float, what: T) -> None:
        """Keep it, in the place of another of its key or of the smallest."""
        self._found.pop(key, None)
        self._found[key] = size, what
        if len(self._found) > self._count:
            # The last of equal ones goes.
            del self._found[min(reversed(self._found), key=lambda other: self._found[other][0])]
        if len(self._found) == self._count:
            self._floor = min(size for size, _ in self._found.values())

    def sorted(self) -> tuple[T, ...]:
        """Return what was kept, the largest first."""
        return tuple(what for _, what in sorted(self._found.values(), key=lambda pair: -pair[0]))
