"""The directions put to the test at a layer, and those set beside them.

A *map* concept is in places, so its directions are of channels, the same at every position. A
*class* or *scalar* is one value of the whole state: its directions are of the whole output.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rlbilinear.probes.causal.data import Counterfactuals, Kind

Rows = Float[Tensor, "n positions dimension"]
Basis = Float[Tensor, "rank dimension"]


def rows_of(outputs: Float[Tensor, "n *output"], kind: Kind) -> Rows:
    """Return outputs as rows: of channels at every position for a map, else of the whole output.

    In float64, on the processor.
    """
    flat = outputs.double().cpu()
    if kind == "map":
        return flat.flatten(2).movedim(1, 2)
    return flat.flatten(1)[:, None]


def outputs_of(rows: Rows, shape: tuple[int, ...], kind: Kind) -> Float[Tensor, "n *output"]:
    """Return rows as the outputs that they are of: the inverse of `rows_of`."""
    if kind == "map":
        rows = rows.movedim(2, 1)
    return rows.reshape(len(rows), *shape)


def part_along(rows: Rows, basis: Basis) -> Rows:
    """Return the component of rows in a subspace, given by an orthonormal basis."""
    return (rows @ basis.T) @ basis


def leading(rows: Rows, rank: int) -> Basis:
    """Return the leading right singular vectors of rows, positions counted as samples."""
    flat = rows.flatten(0, 1)
    samples, dimension = flat.shape
    if samples < dimension:
        # By the samples' products, which are far smaller than the decomposition of the rows.
        left = torch.linalg.eigh(flat @ flat.T).eigenvectors.flip(1)[:, :rank]
        return torch.linalg.qr(flat.T @ left).Q.T
    values = torch.linalg.eigh(flat.T @ flat)
    return values.eigenvectors.flip(1)[:, :rank].T.contiguous()


def difference_subspace(change: Rows, pairs: Counterfactuals, kind: Kind, rank: int) -> Basis:
    """Return the directions that change most when only the concept does.

    Of a concept in places, or where the pairs do not say its values: the leading singular vectors
    of all changes. Of a class: of the mean changes between each two values, so that what changes
    without regard to the values averages out. Of a scalar: of the slope of the change on the value
    (one direction), then of what is left.
    """
    base, source = pairs.base_value, pairs.source_value
    if kind == "map" or base is None or source is None:
        return leading(change, rank)
    if kind == "scalar":
        gap = torch.from_numpy(np.asarray(source - base, float))
        slope = torch.einsum("n,npd->pd", gap, change)
        first = slope / slope.norm().clamp(min=torch.finfo(slope.dtype).tiny)
        rest = leading(change - part_along(change, first), rank - 1) if rank > 1 else first[:0]
        return torch.cat([first, rest])
    moves, index = np.unique(np.stack([base, source], 1), axis=0, return_inverse=True)
    index = torch.from_numpy(index.reshape(-1))
    means = torch.stack([change[index == each].mean(0) for each in range(len(moves))])
    found = leading(means, rank)
    if len(found) < rank:
        rest = leading(change - part_along(change, found), rank - len(found))
        found = torch.cat([found, rest])
    return found


def orthonormal(directions: Float[Tensor, "n dimension"]) -> Basis:
    """Return an orthonormal basis of what directions span."""
    _, sizes, basis = torch.linalg.svd(directions, full_matrices=False)
    return basis[sizes > sizes.amax() * 1e-9]


def principal_subspace(rows: Rows, basis: Basis) -> Basis:
    """Return the directions in which rows vary most, apart from those of a subspace; as many."""
    centred = rows - rows.mean((0, 1))
    return leading(centred - part_along(centred, basis), len(basis))
