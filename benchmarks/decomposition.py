"""Decompositions from factors, against the dense route; how their cost grows."""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from rlbilinear import (
    BilinearConv2d,
    BilinearLinear,
    BilinearTensor,
    Spectrum,
    compress,
    eigenfilters,
    scale_eigenfilters,
)
from rlbilinear.benchmarks.measure import Comparison, Cost, measure, measure_in_turns, peak_memory
from rlbilinear.composition import head_forms
from rlbilinear.hosvd import hosvd
from rlbilinear.implicit import image_form
from rlbilinear.quadratic import Method

ACTIONS = 15
SPEEDUP, FILTERS_MB = 200, 50
LOGITS_SECONDS, LOGITS_MB = 1.0, 200
WIDE_SECONDS, WIDE_MB = 60.0, 2000
WIDE_INPUTS, WIDE_HIDDEN, WIDE_PAIRS = 4096, 16384, 64
CLASSES, CLASSIFIER_HIDDEN, CLASSIFIER_INPUTS = 10, (64, 128, 256, 512), (64, 128, 256, 784)


class Growth(NamedTuple):
    """The cost of one direction's eigenfilters as one size of the layer grows."""

    what: str
    sizes: tuple[int, ...]
    ours: tuple[Cost, ...]
    dense: tuple[Cost, ...]
    """of the dense route, at the first of these sizes"""

    @property
    def exponents(self) -> tuple[float, float]:
        """Fitted over the larger half of the sizes, where overheads no longer count: ours, its."""
        return _exponent(self.sizes, self.ours), _exponent(self.sizes, self.dense)


def comparisons() -> Iterator[Comparison]:
    """Measure layers of the sizes in use, with what is asked of each, then how cost grows."""
    torch.manual_seed(0)
    yield from _one_direction()
    yield _all_logits()
    yield from _classifiers()
    yield from _wide_layer()
    yield _whole_image()
    yield _all_outputs()
    yield from _edited()
    for growth in growths():
        ours, dense = growth.exponents
        last = len(growth.dense) - 1
        yield Comparison(
            f"one direction, {growth.what} {growth.sizes[last]}: time as {growth.what}^{ours:.2f}",
            growth.ours[last],
            f"dense: time as {growth.what}^{dense:.2f}",
            growth.dense[last],
        )


def figures() -> Mapping[str, Figure]:
    """Draw the cost of one direction as width, kernel and rank grow."""
    figure, axes = plt.subplots(1, len(growths()), figsize=(12, 3.6), layout="constrained")
    for axis, growth in zip(axes, growths(), strict=True):
        for name, costs, exponent in zip(
            ("factors", "dense"), (growth.ours, growth.dense), growth.exponents, strict=True
        ):
            sizes, seconds = growth.sizes[: len(costs)], [cost.seconds for cost in costs]
            axis.loglog(sizes, seconds, "o-", label=f"{name}: {growth.what}$^{{{exponent:.2f}}}$")
        axis.set(xlabel=growth.what, xticks=growth.sizes, xticklabels=growth.sizes)
        axis.minorticks_off()
        axis.legend()
    axes[0].set_ylabel("seconds for one direction")
    return {"growth": figure}


def dense_tensor(conv: BilinearConv2d) -> Tensor:
    """Build the whole third-order tensor of a layer without ``down``, in float64."""
    left, right = (each.weight.detach().double().flatten(1) for each in (conv.left, conv.right))
    tensor = torch.einsum("oi,oj->oij", left, right)
    return (tensor + tensor.mT) / 2


def dense_form(layer: BilinearConv2d | BilinearLinear, direction: Tensor) -> Tensor:
    """Build the matrix of one direction of a layer without ``down``, in float64."""
    left, right = (each.weight.detach().double().flatten(1) for each in (layer.left, layer.right))
    half = (left.T * direction.double()) @ right
    return (half + half.T) / 2


def _one_direction() -> Iterator[Comparison]:
    conv, u = BilinearConv2d(32, 32, 7, padding=3), torch.randn(32)
    ours = measure(lambda: eigenfilters(conv, u), repeats=50)
    task = "eigenfilters of one direction, 32 channels, 7x7"
    other = measure(
        lambda: torch.linalg.eigh(torch.tensordot(u.double(), dense_tensor(conv), 1)), repeats=3
    )
    yield Comparison(
        task,
        ours,
        "the dense tensor built, contracted, eigh",
        other,
        f"at least {SPEEDUP} times faster, under {FILTERS_MB} MB",
        other.seconds >= SPEEDUP * ours.seconds and ours.megabytes < FILTERS_MB,
    )
    # What no published tool does, but a reader might: only this direction's matrix.
    other = measure(lambda: torch.linalg.eigh(dense_form(conv, u)), repeats=3)
    yield Comparison(task, ours, "only this direction's dense matrix, eigh", other)


def _all_logits() -> Comparison:
    dense, head = BilinearLinear(2048, 256), nn.Linear(256, ACTIONS)
    ours = measure(lambda: head_forms(dense, head).eigh())
    row = head.weight[0].detach()
    one = _once(lambda: torch.linalg.eigh(dense_form(dense, row)))
    return Comparison(
        f"all eigenpairs of {ACTIONS} logits of a 2048 -> 256 dense layer",
        ours,
        f"dense matrix and eigh (of one logit, times {ACTIONS})",
        one._replace(seconds=ACTIONS * one.seconds),
        f"at most {LOGITS_SECONDS:g} s and {LOGITS_MB} MB",
        ours.seconds <= LOGITS_SECONDS and ours.megabytes <= LOGITS_MB,
    )


def _classifiers() -> Iterator[Comparison]:
    """Measure all classes' eigenpairs of small classifiers, against bilinear-decomposition's way.

    Both begin at the layer's weights, compute in the same dtype with one thread, and take turns.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for hidden, inputs in itertools.product(CLASSIFIER_HIDDEN, CLASSIFIER_INPUTS):
        layer = BilinearLinear(inputs, CLASSES, hidden_features=hidden)
        for dtype, k in itertools.product((torch.float64, torch.float32), (None, 10)):
            ours, other = measure_in_turns(
                partial(class_pairs, layer, dtype, k), partial(dense_pairs, layer, dtype, k)
            )
            yield Comparison(
                f"{'all' if k is None else k} eigenpairs of {CLASSES} classes, {inputs} inputs, "
                f"{hidden} hidden, {str(dtype).removeprefix('torch.')}",
                ours,
                "the dense tensor, batched eigh, sorted",
                other,
                "not slower",
                ours.seconds <= other.seconds,
            )
    torch.set_num_threads(threads)


def class_pairs(layer: BilinearLinear, dtype: torch.dtype, k: int | None) -> tuple[Spectrum, ...]:
    """Return every output's eigenpairs, with signs and numerical ranks, from the weights."""
    return layer.quadratic_forms().eigh(k, dtype=dtype)


def dense_pairs(layer: BilinearLinear, dtype: torch.dtype, k: int | None) -> tuple[Tensor, Tensor]:
    """Return every output's eigenpairs as bilinear-decomposition computes them.

    The dense tensor is formed and made symmetric and ``torch.linalg.eigh`` takes all outputs at
    once; the pairs are then sorted by magnitude, as ours are.
    """
    assert layer.down is not None
    left, right, down = (
        each.weight.detach().to(dtype) for each in (layer.left, layer.right, layer.down)
    )
    tensor = torch.einsum("oh,hi,hj->oij", down, left, right)
    values, vectors = torch.linalg.eigh((tensor + tensor.mT) / 2)
    order = values.abs().argsort(dim=-1, descending=True)[:, :k]
    rows = order[:, None].expand(-1, vectors.shape[1], -1)
    return values.gather(-1, order), vectors.gather(-1, rows)


def _wide_layer() -> Iterator[Comparison]:
    """Measure a random layer, whose spectrum decays slowest: trained ones are faster by Lanczos."""
    layer = BilinearLinear(WIDE_INPUTS, 1, hidden_features=WIDE_HIDDEN)
    u = torch.ones(1)

    def decomposed(method: Method) -> object:
        return layer.quadratic_form(u).eigh(WIDE_PAIRS, method=method)

    ours = _once(partial(decomposed, "auto"))
    alternatives: dict[str, Method] = {
        "all eigenpairs of the dense matrix": "exact",
        "Lanczos on products with the factors, nothing of inputs² built": "lanczos",
    }
    for name, method in alternatives.items():
        yield Comparison(
            f"top {WIDE_PAIRS} eigenpairs of a direction, {WIDE_INPUTS} inputs, "
            f"{WIDE_HIDDEN} hidden",
            ours,
            name,
            _once(partial(decomposed, method)),
            f"at most {WIDE_SECONDS:g} s and {WIDE_MB} MB",
            ours.seconds <= WIDE_SECONDS and ours.megabytes <= WIDE_MB,
        )


def _all_outputs() -> Comparison:
    """Measure the higher-order SVD of a layer: one form for each output, all at once."""
    conv = BilinearConv2d(32, 32, 5, padding=2)

    def unfolded() -> object:
        return torch.linalg.svd(dense_tensor(conv).flatten(1), full_matrices=False)

    return Comparison(
        "HOSVD of a layer of 32 channels, 5x5",
        measure(lambda: hosvd(BilinearTensor.of(conv))),
        "SVD of the dense tensor as outputs x inputs²",
        _once(unfolded),
    )


def _edited() -> Iterator[Comparison]:
    """Measure what edits of one direction cost, and what they leave in the forward pass."""
    conv, u = BilinearConv2d(32, 32, 5, padding=2), torch.randn(32)
    edits = [
        partial(scale_eigenfilters, direction=u, factors={i: 0.5 for i in range(n)})
        for n in range(8, 64, 8)
    ]

    def edited() -> BilinearConv2d:
        layer = conv
        for edit in edits:
            layer = edit(layer)
        return layer

    long = edited()
    short = compress(long).layer
    task = f"{len(edits)} edits of a direction, 32 channels, 5x5"

    def rebuilt() -> object:
        matrix = dense_form(conv, u)
        for n in range(8, 64, 8):
            values, vectors = torch.linalg.eigh(matrix)
            order = values.abs().argsort(descending=True)[:n]
            scaled = vectors[:, order] * values[order]
            matrix = matrix - 0.5 * scaled @ vectors[:, order].T
        return torch.linalg.eigh(matrix)

    yield Comparison(
        f"{task}, then compressed",
        measure(lambda: compress(edited())),
        "the direction's dense matrix edited and decomposed",
        measure(rebuilt),
    )
    x = torch.randn(64, 32, 16, 16)
    with torch.inference_mode():
        yield Comparison(
            f"forward pass after {task}: {short.hidden_channels} hidden units, "
            f"{conv.hidden_channels} at first",
            measure(lambda: short(x)),
            f"not compressed: {long.hidden_channels} hidden units",
            measure(lambda: long(x)),
        )


def _whole_image() -> Comparison:
    """Measure a probe's vector over a 16x16 map, through a block of the laptop's network."""
    conv, shape = BilinearConv2d(32, 32, 3, padding=1), (32, 16, 16)
    form = image_form(conv, torch.randn(shape), shape)
    ours = _once(lambda: form.eigh(16))
    # The dense matrix of 8192 inputs alone is 0.5 GB, its eigh ten minutes: a quarter of the map.
    part = image_form(conv, torch.randn(32, 8, 8), (32, 8, 8))
    other = _once(lambda: torch.linalg.eigh(part.quadratic_form().matrix()))
    task = "top 16 eigenpairs of a whole 3x3 convolution, 32 channels, over 16x16 positions"
    return Comparison(task, ours, "dense matrix and eigh, of only 8x8 positions", other)


@cache
def growths() -> tuple[Growth, ...]:
    """Measure one direction's eigenfilters as width, kernel and rank grow, each alone."""

    def layer(width: int = 32, kernel: int = 3, rank: int = 32) -> BilinearConv2d:
        return BilinearConv2d(width, 1, kernel, hidden_channels=rank)

    makes: dict[str, tuple[Sequence[int], int, Callable[[int], BilinearConv2d]]] = {
        "width": ((32, 64, 128, 256, 512, 1024), 4, lambda n: layer(width=n)),
        "kernel": ((3, 5, 7, 11, 15, 21), 4, lambda n: layer(kernel=n)),
        "rank": ((16, 32, 64, 128, 256, 512), 6, lambda n: layer(kernel=7, rank=n)),
    }
    u, found = torch.ones(1), []
    for what, (sizes, dense_sizes, make) in makes.items():
        layers = [make(size) for size in sizes]
        ours = [_cost(partial(eigenfilters, conv, u)) for conv in layers]
        dense = [_cost(partial(_decompose_matrix, conv, u)) for conv in layers[:dense_sizes]]
        found.append(Growth(what, tuple(sizes), tuple(ours), tuple(dense)))
    return tuple(found)


def _decompose_matrix(conv: BilinearConv2d, u: Tensor) -> object:
    return torch.linalg.eigh(conv.quadratic_form(u).matrix())


def _exponent(sizes: Sequence[int], costs: Sequence[Cost]) -> float:
    half = len(costs) // 2
    x, y = np.log(sizes[half : len(costs)]), np.log([cost.seconds for cost in costs[half:]])
    return float(np.polyfit(x, y, 1)[0])


def _cost(call: Callable[[], object]) -> Cost:
    return measure(call, repeats=9, budget=1.0)


def _once(call: Callable[[], object]) -> Cost:
    """Measure a long call a single time, time and memory together."""
    seconds = 0.0

    def timed() -> None:
        nonlocal seconds
        start = time.perf_counter()
        call()
        seconds = time.perf_counter() - start

    megabytes = peak_memory(timed)
    return Cost(seconds, megabytes)
