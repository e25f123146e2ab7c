"""Edits of single eigenfilters of an output direction: scaled, written, kept, rotated."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from rlbilinear.checks import as_numbers, check_finite, check_whole, is_whole
from rlbilinear.edits.functional.maps import plane_rotation, scale_output
from rlbilinear.edits.functional.parts import Bilinear, append_units, check_bilinear
from rlbilinear.quadratic import QuadraticForm, to_double


def scale_eigenfilters(
    layer: Bilinear, direction: Float[Tensor, "outputs"], factors: Mapping[int, float]
) -> Bilinear:
    """Scale eigenfilters (eigenvectors, for a dense layer) of an output direction ``u``.

    ``y' = y + sum_i (factor_i - 1) value_i (filter_i * x)² u / (u . u)``: filter i is appended as a
    row of both ``left`` and ``right``, the rest of its term as a column of ``down``.

    Args:
        layer: the layer to edit.
        direction: a vector over the outputs; its norm does not matter.
        factors: index into the direction's spectrum *of this layer* to factor; 0 ablates, 1 keeps,
            -1 flips. After an edit the spectrum is another, and is ordered anew.

    Raises:
        TypeError: the layer is not bilinear.
        ValueError: an index beyond the spectrum's rank, a factor that is not finite, or a direction
            of another shape, not finite, or zero.
    """
    form, _ = form_and_dual(layer, direction)
    values, vectors = form.eigh()
    if not isinstance(factors, Mapping):
        raise ValueError(f"expected factors by their index, such as {{0: 0.0}}; got {factors!r}")
    indices = check_indices(factors, len(values))
    for index in indices:
        check_finite(**{f"the factor of eigenfilter {index}": factors[index]})
    change = values.new_tensor([factors[i] - 1 for i in indices])
    return write_eigenfilters(layer, direction, change * values[indices], vectors[indices])


def scale_filters(
    layer: Bilinear,
    direction: Float[Tensor, "outputs"],
    filters: Float[Tensor, "k *inputs"],
    factors: Sequence[float],
) -> Bilinear:
    """Scale given orthonormal filters of an output direction, wherever they are in its spectrum.

    Filter ``v`` has the coefficient ``vᵀ Q v`` in the direction's form ``Q``, its eigenvalue when
    it is an eigenfilter; ``(factor - 1) vᵀ Q v (v * x)²`` is added to ``u . y``. So scaling by
    ``1 / factor`` undoes it.

    Args:
        layer: the layer to edit.
        direction: a vector over the outputs; its norm does not matter.
        filters: orthonormal, of the layer's inputs (of a patch, for a convolution).
        factors: one for each filter.

    Raises:
        TypeError: the layer is not bilinear.
        ValueError: filters of another shape or not orthonormal, not one finite factor each, or a
            direction of another shape, not finite, or zero.
    """
    form, _ = form_and_dual(layer, direction)
    rows = orthonormal(filters, form.in_features).to(form.weight)
    change = rows.new_tensor([float(factor) for factor in factors]) - 1
    if change.shape != (len(rows),) or not torch.isfinite(change).all():
        raise ValueError(f"expected {len(rows)} finite factors, got {list(factors)}")
    values = ((form.gradient(rows) - form.linear) * rows).sum(1) / 2
    return write_eigenfilters(layer, direction, change * values, rows)


def write_eigenfilters(
    layer: Bilinear,
    direction: Float[Tensor, "outputs"],
    values: Float[Tensor, "k"],
    filters: Float[Tensor, "k *inputs"],
) -> Bilinear:
    """Add ``sum_i values_i (filters_i * x)²`` to an output direction: of this layer or of another.

    Only ``direction . y`` changes, by that sum: it is written along ``u / (u . u)``.

    Args:
        layer: the layer to edit.
        direction: a vector over the outputs.
        values: one for each filter.
        filters: of the layer's inputs (of a patch, for a convolution), of any norm.

    Raises:
        TypeError: the layer is not bilinear.
        ValueError: filters of another shape, numbers that are not finite, or a direction of another
            shape or zero.
    """
    form, dual = form_and_dual(layer, direction)
    rows, values = to_double(filters).flatten(1), to_double(values)
    if rows.shape != (len(values), form.in_features) or not torch.isfinite(rows).all():
        raise ValueError(
            f"expected finite filters of {form.in_features} inputs, one for each of "
            f"{len(values)} values; got shape {tuple(filters.shape)}"
        )
    if not torch.isfinite(values).all():
        raise ValueError("expected finite values, got nan or infinity")
    return append_units(layer, rows, rows, torch.outer(dual, values))


def keep_eigenfilters(
    layer: Bilinear, direction: Float[Tensor, "*several outputs"], keep: int | Iterable[int]
) -> Bilinear:
    """Keep only some eigenfilters of an output direction; what biases add along it stays.

    The direction is removed from ``down`` and rebuilt from the kept filters, so that the layer
    grows by these alone (and by one unit for the linear part when it has biases). Of several
    directions each keeps its own, and all of one that has fewer: all are removed and rebuilt.

    Args:
        layer: the layer to edit.
        direction: a vector over the outputs, or linearly independent ones as rows; norms do not
            matter.
        keep: how many of the largest, or the indices into the direction's spectrum.

    Raises:
        TypeError: the layer is not bilinear.
        ValueError: more than any direction's rank, or a direction of another shape, not finite,
            zero, or a combination of the others.
    """
    directions = torch.atleast_2d(as_numbers(direction, "directions"))
    keep = keep if isinstance(keep, Iterable) else range(_count(keep))
    forms = [form_and_dual(layer, each)[0] for each in directions]
    spectra = [form.eigh() for form in forms]
    wanted = check_indices(keep, max(len(spectrum.values) for spectrum in spectra))
    duals = _duals(directions).to(forms[0].weight)
    edited = scale_output(layer, directions, 0.0)
    for form, (values, vectors), dual in zip(forms, spectra, duals, strict=True):
        indices = [index for index in wanted if index < len(values)]
        rows, columns = vectors[indices], torch.outer(dual, values[indices])
        edited = append_units(edited, rows, rows, columns)
        if layer.left.bias is not None:
            edited = _append_affine(edited, dual, form.linear, form.constant)
    return edited


def rotate_filters(
    layer: Bilinear,
    direction: Float[Tensor, "outputs"],
    source: Float[Tensor, "*inputs"],
    target: Float[Tensor, "*inputs"],
    angle: float | None = None,
) -> Bilinear:
    """Rotate the filters of an output direction, in the plane of two filters.

    ``u . y(x)`` becomes ``u . y(Rᵀ x)`` with R the rotation: an eigenfilter ``source`` is turned
    towards ``target`` and keeps its eigenvalue, and so does every other with its part in the plane.
    Two hidden units are added (and one for the linear part when the layer has biases).

    Args:
        layer: the layer to edit.
        direction: a vector over the outputs; its norm does not matter.
        source: a filter, of the layer's inputs (of a patch, for a convolution), of any norm.
        target: another.
        angle: in radians; all the way from source to target when None.

    Raises:
        TypeError: the layer is not bilinear.
        ValueError: filters of another shape, zero or parallel, or a direction of another shape,
            not finite, or zero.
    """
    form, dual = form_and_dual(layer, direction)
    if torch.as_tensor(source).numel() != form.in_features:
        raise ValueError(
            f"expected filters of {form.in_features} inputs, got shape {tuple(source.shape)}"
        )
    basis, turn = (t.to(form.weight) for t in plane_rotation(source, target, angle))
    # R Q Rᵀ - Q = Bᵀ N + Nᵀ B with R = I + Bᵀ M B and N = M (B Q + (B Q Bᵀ) Mᵀ B / 2).
    read = (form.gradient(basis) - form.linear) / 2
    partners = turn @ (read + (read @ basis.T) @ turn.T @ basis / 2)
    edited = append_units(layer, basis, partners, 2 * dual[:, None].expand(-1, 2))
    if layer.left.bias is None:
        return edited
    moved = basis.T @ (turn @ (basis @ form.linear))
    return _append_affine(edited, dual, moved, form.constant.new_zeros(()))


def form_and_dual(
    layer: Bilinear, direction: Tensor
) -> tuple[QuadraticForm, Float[Tensor, "outputs"]]:
    """Return the direction's form, and its dual ``u / (u . u)``, which adds 1 to ``u . y`` only.

    Raises:
        TypeError: the layer is not bilinear.
        ValueError: a direction of another shape, not finite, or zero.
    """
    check_bilinear(layer)
    form = layer.quadratic_form(direction)
    direction = to_double(as_numbers(direction, "a direction")).to(form.weight)
    if not direction.any():
        raise ValueError("expected a direction that is not zero")
    return form, direction / (direction @ direction)


def _count(keep: object) -> int:
    """Return how many to keep.

    Raises:
        ValueError: no whole number from 0 on.
    """
    check_whole(0, keep=keep)
    return int(keep)  # type: ignore[call-overload]


def check_indices(indices: Iterable[int], rank: int) -> list[int]:
    """Return indices into a spectrum, each once and in order.

    Raises:
        ValueError: they are not whole numbers, or one is not in it.
    """
    if not isinstance(indices, Iterable) or not all(map(is_whole, found := list(indices))):
        raise ValueError(f"expected indices, whole numbers from 0 to {rank - 1}; got {indices!r}")
    indices = sorted(set(map(int, found)))
    if indices and (indices[0] < 0 or indices[-1] >= rank):
        raise ValueError(f"expected indices from 0 to {rank - 1} (the rank is {rank}): {indices}")
    return indices


def orthonormal(
    filters: Float[Tensor, "k *inputs"], size: int | None = None
) -> Float[Tensor, "k inputs"]:
    """Flatten filters that are orthonormal up to rounding, and take the rounding away.

    Raises:
        ValueError: they are not, or are not of ``size`` inputs.
    """
    rows = to_double(as_numbers(filters, "filters"))
    rows = rows.flatten(1) if rows.ndim > 1 else rows[None]
    if not torch.isfinite(rows).all() or (size is not None and rows.shape[1] != size):
        raise ValueError(
            f"expected finite filters (k, {size or 'inputs'}), got shape {tuple(filters.shape)}"
        )
    error = rows @ rows.T - torch.eye(len(rows)).to(rows)
    if len(rows) and error.abs().max() > 1e-5:
        raise ValueError(
            f"expected orthonormal filters; their products differ by {error.abs().max():.2g}"
        )
    left, _, right = torch.linalg.svd(rows, full_matrices=False)
    return left @ right


def _duals(directions: Float[Tensor, "n outputs"]) -> Float[Tensor, "n outputs"]:
    """Return ``g`` with ``u_i . g_j = (i == j)``, in the directions' span."""
    rows = to_double(directions)
    scaled = rows / rows.norm(dim=1, keepdim=True)
    if torch.linalg.matrix_rank(scaled) < len(rows):
        raise ValueError("expected linearly independent directions: one is the others' combination")
    return (torch.linalg.pinv(scaled) / rows.norm(dim=1)).T


def _append_affine(layer: Bilinear, dual: Tensor, linear: Tensor, constant: Tensor) -> Bilinear:
    """Add ``(linear . x + constant)(0 . x + 1)`` along a dual direction."""
    row, one = linear[None], constant.new_ones(1)
    return append_units(layer, row, 0 * row, dual[:, None], (constant[None], one))
