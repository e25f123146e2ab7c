"""Compressing a bilinear layer: the same function with fewer hidden units.

Hidden units whose columns of ``down`` are parallel write one output direction: together they are
one quadratic form of ``(x, 1)``. A form with p positive and n negative eigenvalues needs
``max(p, n)`` units, no fewer (a single unit has at most one of either sign), and a positive and a
negative term share one: ``s a² - t b² = (√s a + √t b)(√s a - √t b)``.
"""

import copy
from dataclasses import dataclass
from typing import Generic, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rlbilinear.checks import check_finite
from rlbilinear.edits.functional.parts import (
    Bilinear,
    bias_or_zeros,
    check_bilinear,
    explicit_down,
    matrix_of,
    with_units,
)
from rlbilinear.quadratic import QuadraticForm
from rlbilinear.spectrum import fix_signs

TIED = 0.9
"""Singular values of this ratio or a larger one are tied: rounding turns their vectors by about
``1 / (1 - TIED)`` times its own size, which must stay below what counts as an eigenvalue."""


class Units(NamedTuple):
    """Hidden units of ``(x, 1)``: ``sum_r columns_r (left_r . (x, 1)) (right_r . (x, 1))``."""

    left: Float[Tensor, "units inputs"]
    right: Float[Tensor, "units inputs"]
    columns: Float[Tensor, "units outputs"]

    def only(self, which: Tensor | slice) -> "Units":
        """Return some of the units, by their indices or a mask."""
        return Units(self.left[which], self.right[which], self.columns[which])


class Merged(NamedTuple):
    """An output direction that is now written by fewer hidden units."""

    units: int
    """how many wrote it before"""
    positive: int
    """positive eigenvalues of their form of (x, 1)"""
    negative: int
    """negative ones; it now has as many units as the larger of the two numbers"""


@dataclass(frozen=True, eq=False)
class Compression(Generic[Bilinear]):
    """A layer with as few hidden units as its output directions need, and what became of them.

    Attributes:
        layer: the same function, in the given layer's dtype.
        before: hidden units before.
        after: hidden units now.
        merged: each direction whose units became fewer.
        error: what was dropped as rounding, at most, as a share of the layer's norm: in the
            Frobenius norm of its tensor, relative to the root of the sum of its units' squared
            norms.
    """

    layer: Bilinear
    before: int
    after: int
    merged: tuple[Merged, ...]
    error: float

    def __str__(self) -> str:
        ranks = ", ".join(f"{m.units} units of rank {m.positive}+{m.negative}" for m in self.merged)
        return (
            f"{self.before} hidden units compressed to {self.after}; merged: {ranks or 'none'}; "
            f"relative error {self.error:.1g}"
        )


def compress(layer: Bilinear, tolerance: float | None = None) -> Compression[Bilinear]:
    """Write a bilinear layer with as few hidden units as its output directions need.

    Units that add nothing are left out, and units with parallel columns of ``down`` are merged by
    QR and eigh of their common form (biases included), so that edits of one direction do not make
    the layer grow. Where the forms are many and small, an orthonormal basis of the outputs, which
    depends on the function alone and not on its units, is written anew instead if that takes fewer.
    (The fewest units over all bases is a tensor rank, which nobody can compute in general.)

    This is repeated until no fewer units are found, so that a second call finds nothing: it copies
    its layer, as does a call for any layer that cannot be made smaller. (A second round can find
    more only where something is about as large as the tolerance.) The layer never gets more units,
    and at least one is left.

    Args:
        layer: the layer.
        tolerance: norm of what may be left out as rounding where a direction is written, relative
            to the norm of the units that write it; when None ten times the precision of the
            layer's dtype, or a hundred times that of float64 (more in large layers).

    Raises:
        TypeError: the layer is not bilinear.
        ValueError: a tolerance that is not in [0, 1), or weights that are not finite.
    """
    check_bilinear(layer)
    if tolerance is not None:
        check_finite(tolerance=tolerance)
    if tolerance is not None and not 0 <= tolerance < 1:
        raise ValueError(f"expected a tolerance in [0, 1), got {tolerance}")
    smaller, units = copy.deepcopy(layer), _units_of(layer)
    before, size = len(units.left), float(_sizes(units).norm())
    merged, dropped = list[Merged](), 0.0
    while True:
        parts = _fewer(units, _rounding(smaller) if tolerance is None else tolerance)
        if max(1, _count(parts)) >= len(units.left):
            break
        smaller = _written(smaller, parts)
        units = _units_of(smaller)
        merged += [each.merged for each in parts if each.merged]
        dropped += sum(each.dropped for each in parts)
    error = dropped / size if size else 0.0
    return Compression(smaller, before, len(units.left), tuple(merged), error)


class _Part(NamedTuple):
    """Units of one output direction, or some that stay as they are."""

    units: Units
    merged: Merged | None = None
    """None: as they are"""
    dropped: float = 0.0
    """the Frobenius norm of what was left out, at most"""


def _units_of(layer: Bilinear) -> Units:
    """Return the layer's units, in float64.

    Raises:
        ValueError: they are not finite.
    """
    left, right = (
        torch.cat([matrix_of(part), bias_or_zeros(part)[:, None]], dim=1)
        for part in (layer.left, layer.right)
    )
    units = Units(left, right, matrix_of(explicit_down(layer)).T)
    if not _sizes(units).norm().isfinite():
        raise ValueError("expected finite weights whose products are finite, got nan or infinity")
    return units


def _written(layer: Bilinear, parts: list[_Part]) -> Bilinear:
    """Copy the layer with these units; with one that is zero if there are none."""
    left, right, columns = (
        torch.cat(tensors) for tensors in zip(*(each.units for each in parts), strict=True)
    )
    if not len(left):
        left, right, columns = (t.new_zeros(1, t.shape[1]) for t in (left, right, columns))
    return with_units(layer, left[:, :-1], right[:, :-1], columns.T, (left[:, -1], right[:, -1]))


def _rounding(layer: Bilinear) -> float:
    """Return a bound of relative rounding errors: of stored weights, and of sums over them."""
    stored, summed = (torch.finfo(dtype).eps for dtype in (layer.left.weight.dtype, torch.float64))
    terms = max(layer.left.weight[0].numel(), len(layer.left.weight))
    return max(10 * stored, max(100, terms) * summed)


def _fewer(units: Units, tolerance: float) -> list[_Part]:
    """Leave out rounding, and write the rest by the shorter of two routes."""
    sizes = _sizes(units)
    used = sizes > tolerance * sizes.norm() / len(sizes)
    rounding = _Part(units.only(slice(0)), dropped=float(sizes[~used].sum()))
    units = units.only(used)
    parts = [_merge(units.only(group), tolerance) for group in _groups(units, tolerance)]
    # Forms of full rank along d directions need at least d inputs / 2 units: most d to be tried.
    inputs = int((units.left.any(0) | units.right.any(0)).sum())
    most = (2 * _count(parts) - 1) // max(1, inputs)
    if most > 0 and (span := _span(units, tolerance, most)) is not None:
        parts = min(parts, _along_basis(units, span, tolerance), key=_count)
    return [rounding, *parts]


def _merge(units: Units, tolerance: float) -> _Part:
    """Write units with parallel columns as fewer units, if that is possible."""
    if len(units.left) == 1:
        return _Part(units)
    column = fix_signs(units.columns[_sizes(units).argmax()][None])[0]
    direction = column / column.norm()
    weight = units.columns @ direction
    form = QuadraticForm(units.left, units.right, weight, 0 * units.left[0], weight.new_zeros(()))
    apart = _sizes(units._replace(columns=units.columns - torch.outer(weight, direction)))
    scale = _sizes(units._replace(columns=weight[:, None])).norm()
    part = _write(*form.eigh(), direction, tolerance * scale, len(weight))
    if len(part.units.left) >= len(weight):
        return _Part(units)
    return part._replace(dropped=part.dropped + float(apart.sum()))


def _along_basis(units: Units, span: Float[Tensor, "d outputs"], tolerance: float) -> list[_Part]:
    """Write all units anew along an orthonormal basis of outputs that depends on their sum alone.

    These are the left singular vectors of the tensor as an ``outputs x inputs²`` matrix (those of
    `rlbilinear.hosvd`, which finds them from a Gram matrix, to half the digits). Where singular
    values are tied, vectors are free but their span is not: single outputs' projections are taken.
    """
    none, floor = units.left.new_zeros(units.left.shape[1]), tolerance * _sizes(units).norm()
    forms = torch.stack(
        [
            QuadraticForm(units.left, units.right, weight, none, none[0]).matrix()
            for weight in span @ units.columns.T
        ]
    )
    vectors, values, _ = torch.linalg.svd(forms.flatten(1), full_matrices=False)
    used = values > floor
    vectors, values, without = vectors[:, used], values[used], values[~used].norm()
    cuts = (values[1:] < TIED * values[:-1]).nonzero()[:, 0] + 1
    basis = torch.cat([_nearest(each.T @ span) for each in vectors.tensor_split(cuts.cpu(), 1)])
    spectra = torch.linalg.eigh(torch.einsum("bd,dij->bij", basis @ span.T, forms))
    beside = _sizes(units._replace(columns=units.columns - units.columns @ span.T @ span))
    rounding = _Part(units.only(slice(0)), dropped=float(beside.sum() + without))
    return [rounding] + [
        _write(values, vectors.T, direction, floor, len(units.left))
        for values, vectors, direction in zip(*spectra, basis, strict=True)
    ]


def _nearest(basis: Float[Tensor, "k outputs"]) -> Float[Tensor, "k outputs"]:
    """Return the orthonormal basis of the same span that is made of single outputs' projections.

    Always the longest of them, and of equally long ones the first, after what is taken is removed.
    """
    rest, rows = basis.T @ basis, torch.empty_like(basis)
    for row in rows:
        lengths = rest.diagonal()
        longest = lengths >= (1 - 1e-9) * lengths.amax()
        found = rest[longest.to(torch.uint8).argmax()]
        row[:] = found / found.norm()
        rest = rest - torch.outer(row, row)
    return rows


def _span(units: Units, tolerance: float, most: int) -> Float[Tensor, "d outputs"] | None:
    """Return an orthonormal basis of what the columns span; None if it has more than ``most``."""
    rest = units.columns * (units.left.norm(dim=1) * units.right.norm(dim=1))[:, None]
    floor, rows = tolerance * rest.norm(), rest[:0]
    while len(rows) < rest.shape[1] and rest.norm() > floor:
        if len(rows) == most:
            return None
        row = rest[rest.norm(dim=1).argmax()]
        rows = torch.cat([rows, row[None] / row.norm()])
        rest = rest - torch.outer(rest @ rows[-1], rows[-1])
    return torch.linalg.qr(rows.T).Q.T


def _write(
    values: Float[Tensor, "k"],
    vectors: Float[Tensor, "k inputs"],
    direction: Float[Tensor, "outputs"],
    floor: Float[Tensor, ""],
    before: int,
) -> _Part:
    """Write a form along a direction of norm 1 as few units; all but a rest up to the floor."""
    order = values.abs().argsort()
    rests = values[order].square().cumsum(0).sqrt()
    kept = order[rests > floor].flip(0)
    scaled = vectors[kept] * values[kept].abs().sqrt()[:, None]
    plus, minus = scaled[values[kept] > 0], scaled[values[kept] < 0]
    size = max(len(plus), len(minus))
    first, second = scaled.new_zeros(2, size, scaled.shape[1])
    first[: len(plus)], second[: len(minus)] = plus, minus
    return _Part(
        Units(first + second, first - second, direction.expand(size, -1)),
        Merged(before, len(plus), len(minus)),
        float(values[order[rests <= floor]].norm()),
    )


def _groups(units: Units, tolerance: float) -> list[Int[Tensor, "group"]]:
    """Return the indices of units with parallel columns."""
    columns = units.columns / units.columns.norm(dim=1, keepdim=True)
    # Parallel columns have products of equal size with any vector: only those are compared.
    probe = torch.randn(columns.shape[1], generator=torch.Generator().manual_seed(0)).to(columns)
    keys, order = (columns @ probe).abs().sort()
    cuts = (keys.diff() > 4 * tolerance * probe.norm()).nonzero()[:, 0] + 1
    groups = []
    for run in order.tensor_split(cuts.cpu()):
        rest = run
        while len(rest) > 1:
            first = columns[rest[0]]
            apart = columns[rest] - torch.outer(columns[rest] @ first, first)
            same = apart.norm(dim=1) <= tolerance
            same[0] = True
            groups.append(rest[same])
            rest = rest[~same]
        if len(rest):
            groups.append(rest)
    return sorted(groups, key=lambda group: int(group.min()))


def _sizes(units: Units) -> Float[Tensor, "units"]:
    return units.left.norm(dim=1) * units.right.norm(dim=1) * units.columns.norm(dim=1)


def _count(parts: list[_Part]) -> int:
    return sum(len(each.units.left) for each in parts)
