"""Eigenvector chains: follow a direction of a deep network down through its bilinear layers.

One direction ``u`` of a layer's output is a quadratic form; its eigenvectors are directions of what
comes in, and so on down. In convolutions an eigenfilter covers several channels and taps: its
channel x space components give channel directions of the layer below, and maps that say where they
are read. Through a skip connection a direction comes down as it is, too. What is kept of all this
is a tree, whose leaves are channel directions of the lowest layer's input.

A chain that keeps everything is exact, and exponentially large. One that keeps the first
eigenfilter and its first channel pattern at every layer is the *greedy* chain. What a chain leaves
out are the other eigenfilters and patterns and, as sums are squared at every layer, the products of
what is kept with what is not. How much that matters depends on the inputs: `explain_chain` says.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rlbilinear.checks import check_whole
from rlbilinear.convolution import (
    Geometry,
    as_convolution,
    channel_spatial_svd,
    convolve,
    eigenfilters,
    geometry,
)
from rlbilinear.edits.functional import PositionBias
from rlbilinear.layers import BilinearConv2d, BilinearLinear
from rlbilinear.quadratic import as_direction
from rlbilinear.stack import BilinearStack, Stage

LARGEST = 20_000
"""Directions in a chain at most."""


class Pattern(NamedTuple):
    """What a filter reads of one channel direction below: ``map * (direction . x)``."""

    map: Float[Tensor, "kh kw"]
    """with the component's singular value in it"""
    source: "Link"


class Branch(NamedTuple):
    """An eigenfilter kept: it adds ``value (sum of its patterns)²``."""

    value: float
    patterns: tuple[Pattern, ...]


@dataclass(frozen=True, eq=False)
class Link:
    """A channel direction of a layer's output, and what it is made of in the layer below.

    One without a geometry is a direction of the chain's input. Calling it predicts its map.
    """

    direction: Float[Tensor, "channels"]
    geometry: Geometry | None = None
    branches: tuple[Branch, ...] = ()
    skip: "Link | None" = None
    linear: tuple[Pattern, ...] = ()
    constant: Float[Tensor, "*map"] | float = 0.0
    rank: int = 0
    """eigenfilters that there are"""
    share: float = 1.0
    """of the squared eigenvalues in those kept"""

    def __call__(
        self, x: Float[Tensor, "n channels height width"]
    ) -> Float[Tensor, "n out_height out_width"]:
        """Predict the direction's map from the chain's input, as far as the chain keeps it."""
        if self.geometry is None:
            return torch.einsum("c,nchw->nhw", self.direction.to(x), x)
        terms = [branch.value * self._read(branch.patterns, x) ** 2 for branch in self.branches]
        if self.linear:
            terms.append(self._read(self.linear, x))
        if self.skip is not None:
            terms.append(self.skip(x))
        return torch.stack(terms).sum(0) + self.constant

    @property
    def below(self) -> list["Link"]:
        """The links of the layer below."""
        patterns = [p for branch in self.branches for p in branch.patterns] + [*self.linear]
        return [p.source for p in patterns] + ([] if self.skip is None else [self.skip])

    def links(self) -> Iterator["Link"]:
        """Go through this link and all below it."""
        yield self
        for link in self.below:
            yield from link.links()

    def _read(self, patterns: tuple[Pattern, ...], x: Tensor) -> Float[Tensor, "n h w"]:
        assert self.geometry is not None
        sources = torch.stack([pattern.source(x) for pattern in patterns], dim=1)
        maps = torch.stack([pattern.map for pattern in patterns])
        return convolve(sources, maps[None], *self.geometry).squeeze(1)


def chain(
    stack: BilinearStack,
    direction: Float[Tensor, "channels"],
    *,
    filters: int | None = 1,
    patterns: int | None = 1,
) -> Link:
    """Follow a channel direction of a stack's output down to its input.

    Args:
        stack: of bilinear convolutions, with or without skip connections, linear ones and
            average-pools; `as_convolutional` makes such stages of dense ones.
        direction: over the output channels of its last stage; its norm matters.
        filters: eigenfilters kept of every direction, the largest, all when None. With 0 only the
            skip connections (and biases) are followed: what the chain has to be compared with.
        patterns: channel x space components kept of every filter, all when None.

    Raises:
        TypeError: another kind of stage.
        ValueError: nothing would be kept of a stage, the direction does not fit, or the chain has
            might have more than `LARGEST` directions.
    """
    if filters is not None:
        check_whole(0, filters=filters)
    if patterns is not None:
        check_whole(patterns=patterns)
    size = _size(stack.stages, filters, patterns)
    if size > LARGEST:
        raise ValueError(
            f"this chain may have {size:,} directions, more than {LARGEST:,}: keep fewer filters "
            "and patterns, or go through fewer layers"
        )
    return _link(stack.stages, direction, filters, patterns)


def as_convolutional(stage: Stage, shape: tuple[int, int, int] | None = None) -> Stage:
    """View a dense stage on flattened maps as a convolution with a single output position.

    Args:
        stage: another kind of stage is returned as it is.
        shape: the maps' ``(channels, height, width)``; a channel for every input when None.

    Raises:
        ValueError: the inputs do not have that shape, or there is a skip connection over several
            positions.
    """
    main, skip = stage.main, stage.skip
    if isinstance(main, PositionBias):
        inner = as_convolutional(Stage(main.layer, skip), shape)
        bias = main.bias if main.bias.ndim == 3 else main.bias[:, None, None]
        return Stage(PositionBias(inner.main, bias), inner.skip)
    if not isinstance(main, BilinearLinear | nn.Linear):
        return stage
    if shape is None:
        shape = main.in_features, 1, 1
    if skip is not None and shape[1:] != (1, 1):
        raise ValueError(f"a skip connection cannot go from maps of shape {shape} to one position")
    if isinstance(skip, nn.Linear):
        skip = _linear_convolution(skip, shape)
    if isinstance(main, BilinearLinear):
        return Stage(as_convolution(main, shape), skip)
    return Stage(_linear_convolution(main, shape), skip)


class Explained(NamedTuple):
    """How well a chain through the uppermost layers predicts the direction, on data."""

    layers: int
    """stages that the chain goes down through, the uppermost; below them all is as it truly is"""
    directions: int
    """links of the chain"""
    r2: float
    """1 - squared error / variance of the true map, centred at every position"""
    correlation: float
    """of both maps centred at every position: blind to a wrong scale and offset"""
    skip_r2: float
    """r2 when only skip connections are followed; nan where a bilinear layer has none"""
    share: float
    """of the direction's squared eigenvalues, in its first bilinear layer, in the filters kept"""


def explain_chain(
    stack: BilinearStack,
    direction: Float[Tensor, "channels"],
    x: Float[Tensor, "n channels height width"],
    *,
    filters: int | None = 1,
    patterns: int | None = 1,
    layers: int | None = None,
) -> list[Explained]:
    """Measure what a chain ignores: R² of its prediction as it goes down one layer after another.

    Args:
        stack: see `chain`.
        direction: over its output channels.
        x: inputs of the stack, at least two.
        filters: see `chain`.
        patterns: see `chain`.
        layers: go down through so many stages at most, all when None.

    Raises:
        TypeError: see `chain`.
        ValueError: see `chain`; or fewer than two inputs, or not so many stages.
    """
    lowest = len(stack.stages) if layers is None else layers
    if len(x) < 2 or not 1 <= lowest <= len(stack.stages):
        raise ValueError(
            f"expected at least two inputs to centre on, and 1 to {len(stack.stages)} layers; "
            f"got {len(x)} and {layers}"
        )
    rows = []
    with torch.no_grad():
        outputs = stack.outputs(x)
        true = torch.einsum("c,nchw->nhw", direction.to(outputs[-1]), outputs[-1])
        for down in range(1, lowest + 1):
            part = BilinearStack(stack.stages[-down:])
            inputs = outputs[-1 - down]
            found = chain(part, direction, filters=filters, patterns=patterns)
            predicted = found(inputs)
            skip_r2 = float("nan")
            if all(stage.skip is not None or stage.degree == 1 for stage in part.stages):
                bare = chain(part, direction, filters=0, patterns=patterns)
                skip_r2 = r_squared(true, bare(inputs))
            count = sum(1 for _ in found.links())
            fit = r_squared(true, predicted), _correlation(true, predicted)
            rows.append(Explained(down, count, *fit, skip_r2, _first_share(found)))
    return rows


def r_squared(true: Float[Tensor, "n *map"], predicted: Float[Tensor, "n *map"]) -> float:
    """Return ``1 - |true - predicted|² / |true - mean|²``, the mean over n at every position.

    An offset of the prediction counts as error. nan when the true values do not vary.
    """
    variance = ((true - true.mean(0)) ** 2).sum()
    return (1 - ((true - predicted) ** 2).sum() / variance).item() if variance > 0 else float("nan")


def _first_share(link: Link) -> float:
    """Return the share of the first bilinear layer, below linear ones."""
    while link.rank == 0 and len(link.below) == 1:
        (link,) = link.below
    return link.share


def _correlation(true: Tensor, predicted: Tensor) -> float:
    a, b = true - true.mean(0), predicted - predicted.mean(0)
    sizes = (a.norm() * b.norm()).item()
    return (a * b).sum().item() / sizes if sizes > 0 else float("nan")


def _size(stages: tuple[Stage, ...], filters: int | None, patterns: int | None) -> int:
    """Return how many links a chain has at most."""
    size = 1
    for stage in stages:
        main, _ = _without_offset(stage.main)
        if isinstance(main, nn.AvgPool2d):
            size += 1
            continue
        conv = main.left if isinstance(main, BilinearConv2d) else main
        channels, *kernel = conv.weight.shape[1:]
        taps = math.prod(kernel)
        split = _least(patterns, channels, taps)
        if isinstance(main, BilinearConv2d):
            split *= _least(filters, 2 * main.hidden_channels, channels * taps) + (
                conv.bias is not None
            )
        size = 1 + size * (split + (stage.skip is not None))
    return size


def _least(*numbers: int | None) -> int:
    return min(number for number in numbers if number is not None)


def _link(
    stages: tuple[Stage, ...],
    direction: Float[Tensor, "channels"],
    filters: int | None,
    patterns: int | None,
) -> Link:
    if not stages:
        return Link(direction)
    *below, stage = stages
    main, offset = _without_offset(stage.main)

    def follow(lower: Tensor) -> Link:
        return _link(tuple(below), lower, filters, patterns)

    def split(filter: Float[Tensor, "channels kh kw"]) -> tuple[Pattern, ...]:
        svd = channel_spatial_svd(filter)
        components = zip(svd.channels, svd.singular_values, svd.maps, strict=True)
        return tuple(Pattern(s * m, follow(c)) for c, s, m in [*components][:patterns])

    if isinstance(main, nn.AvgPool2d):
        ones = torch.ones(_pair(main.kernel_size), dtype=torch.float64)
        average = Pattern(ones / ones.numel(), follow(direction))
        link = Link(direction, _laid(main), linear=(average,))
    elif isinstance(main, nn.Conv2d):
        direction = as_direction(direction, main.out_channels, "output channels")
        linear = split(torch.einsum("o,ocyx->cyx", direction, main.weight))
        constant = 0.0 if main.bias is None else (direction @ main.bias).item()
        link = Link(direction, _laid(main), linear=linear, constant=constant)
    else:
        found = eigenfilters(main, direction)
        direction = as_direction(direction, main.out_channels, "output channels")
        kept, energy = slice(filters), (found.values**2).sum()
        pairs = zip(found.values[kept], found.filters[kept], strict=True)
        link = Link(
            direction,
            geometry(main),
            tuple(Branch(value.item(), split(filter)) for value, filter in pairs),
            linear=split(found.linear) if found.linear.any() else (),
            constant=found.constant,
            rank=len(found.values),
            share=((found.values[kept] ** 2).sum() / energy).item() if energy > 0 else 1.0,
        )
    if stage.skip is not None:
        lower, constant = _through(stage.skip, direction)
        link = replace(link, skip=follow(lower), constant=link.constant + constant)
    if offset is not None:
        here = torch.einsum("c,chw->hw", direction, offset)
        link = replace(link, constant=link.constant + here)
    if not link.below:
        raise ValueError(
            "nothing is kept of a stage: there is no skip connection, and "
            + ("no filter is to be kept" if filters == 0 else "the direction is zero in it")
        )
    return link


Main = BilinearConv2d | nn.Conv2d | nn.AvgPool2d


def _without_offset(
    module: nn.Module,
) -> tuple[Main, Float[Tensor, "channels height width"] | None]:
    """Return a stage's main part, and what is added to its output at every position."""
    if isinstance(module, PositionBias):
        main, offset = _without_offset(module.layer)
        return main, module.bias if offset is None else module.bias + offset
    if not isinstance(module, BilinearConv2d | nn.Conv2d | nn.AvgPool2d):
        raise TypeError(
            f"a chain goes through convolutions and average-pools, got {module}; dense layers are "
            "convolutions by rlbilinear.chains.as_convolutional"
        )
    if isinstance(module, nn.Conv2d) and (module.groups != 1 or module.padding_mode != "zeros"):
        raise TypeError(
            f"a chain goes through convolutions of one group, zero-padded; got {module}"
        )
    if isinstance(module, nn.AvgPool2d) and (
        module.ceil_mode or not module.count_include_pad or module.divisor_override
    ):
        raise TypeError(f"a chain goes through plain average-pools, got {module}")
    return module, None


def _laid(module: nn.Conv2d | nn.AvgPool2d) -> Geometry:
    if isinstance(module.padding, str):
        raise TypeError(f"expected padding in pixels, got {module}")
    dilation = module.dilation if isinstance(module, nn.Conv2d) else 1
    return Geometry(_pair(module.stride), _pair(module.padding), _pair(dilation))


def _linear_convolution(linear: nn.Linear, shape: tuple[int, int, int]) -> nn.Conv2d:
    channels, height, width = shape
    if channels * height * width != linear.in_features:
        raise ValueError(f"{linear.in_features} inputs are not flattened maps of shape {shape}")
    with torch.device("meta"):
        bias = linear.bias is not None
        conv = nn.Conv2d(channels, linear.out_features, (height, width), bias=bias)
    weights = {"weight": linear.weight.detach().clone().reshape(conv.weight.shape)}
    if linear.bias is not None:
        weights["bias"] = linear.bias.detach().clone()
    conv.load_state_dict(weights, assign=True)
    return conv


def _pair(number: int | tuple[int, ...]) -> tuple[int, int]:
    return (number, number) if isinstance(number, int) else (number[0], number[1])


def _through(skip: nn.Module, direction: Float[Tensor, "channels"]) -> tuple[Tensor, float]:
    """Return the direction before a skip connection, and the constant that it adds."""
    if isinstance(skip, nn.Identity):
        return direction, 0.0
    if isinstance(skip, nn.Conv2d) and {*skip.kernel_size, *skip.stride, skip.groups} == {1}:
        constant = 0.0 if skip.bias is None else (direction @ skip.bias.double()).item()
        return direction @ skip.weight.flatten(1).double(), constant
    raise TypeError(f"a chain goes through identity and 1x1 skip connections, got {skip}")
