"""Subspaces of a layer's channels: the directions an intervention is confined to."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from rlbilinear.checks import check_whole, is_whole
from rlbilinear.edits.functional import span

Basis = Float[Tensor, "k channels"] | Float[Tensor, "k channels height width"]
"""Orthonormal directions, one a row: over channels, or over a whole feature map."""

Differences = Float[Tensor, "n channels height width"] | Float[Tensor, "n features"]


@dataclass(frozen=True, eq=False)
class Subspace:
    """A named subspace of a layer's output; all of it when ``basis`` is None."""

    name: str
    basis: Basis | None = None


def difference_subspace(differences: Differences, k: int) -> Float[Tensor, "k channels"]:
    """Return the ``k`` channel directions that carry most of some activation differences.

    The leading right singular vectors of the differences as rows over channels, positions counted
    as samples, without centring; from the Gram matrix over channels, in float64. Fit it on other
    levels than it is tried on.

    Raises:
        ValueError: k is not from 1 to the number of channels, or the differences are not finite.
    """
    channels = differences.shape[1]
    if not is_whole(k) or not 1 <= k <= channels:
        raise ValueError(f"expected k from 1 to {channels}, the number of channels, got {k}")
    if not torch.isfinite(differences).all():
        raise ValueError("expected finite differences, got nan or infinity")
    gram = torch.zeros(channels, channels, dtype=torch.float64)
    for part in differences.split(256):
        rows = part.double().cpu().movedim(1, -1).reshape(-1, channels)
        gram += rows.T @ rows
    return torch.linalg.eigh(gram).eigenvectors.flip(1)[:, :k].T.contiguous()


def random_subspace(channels: int, k: int, seed: int) -> Float[Tensor, "k channels"]:
    """Return a uniformly random subspace, as a control; the same seed gives the same.

    Raises:
        ValueError: k is not from 1 to ``channels``.
    """
    check_whole(channels=channels)
    check_whole(0, seed=seed)
    if not is_whole(k) or not 1 <= k <= channels:
        raise ValueError(f"expected k from 1 to {channels}, the number of channels, got {k}")
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(channels, k, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(normal).Q.T.contiguous()


def candidates(
    differences: Differences,
    ranks: Iterable[int],
    *,
    directions: Mapping[str, Float[Tensor, "*several channels"]] | None = None,
    seed: int = 0,
) -> list[Subspace]:
    """Return the subspaces of a layer worth comparing, for `interchange_table`.

    Everything; the given directions, each alone; and for each rank the leading difference
    directions and as many random ones. Ranks above the number of channels are left out.

    Args:
        differences: of the layer's activations over the pairs of *other* levels.
        ranks: how many directions.
        directions: by name, such as a probe's channel direction.
        seed: seed of the random ones.
    """
    channels = differences.shape[1]
    kept = sorted({k for k in ranks if k <= channels})
    leading = difference_subspace(differences, max(kept)) if kept else None
    return [
        Subspace("all"),
        *(Subspace(name, span(given)) for name, given in (directions or {}).items()),
        *(Subspace("difference", leading[:k]) for k in kept if leading is not None),
        *(Subspace("random", random_subspace(channels, k, seed + k)) for k in kept),
    ]


def check_basis(basis: Basis) -> None:
    """Raise ValueError unless the rows are orthonormal (to 1e-4)."""
    if basis.ndim not in (2, 4) or not len(basis):
        raise ValueError(
            "expected a basis (k, channels) or (k, channels, height, width), "
            f"got shape {tuple(basis.shape)}"
        )
    rows = basis.detach().cpu().double().flatten(1)
    error = (rows @ rows.T - torch.eye(len(rows)).to(rows)).abs().max()
    if not error < 1e-4:  # nan too
        raise ValueError(
            f"the basis is not orthonormal: B Bᵀ is off the identity by {error:.2g}; "
            "make one of any directions with `span`"
        )


def component(x: Float[Tensor, "batch *output"], basis: Basis) -> Float[Tensor, "batch *output"]:
    """Project outputs onto a subspace: of channels, at every position, or of whole maps.

    Raises:
        ValueError: the basis is of another shape than the outputs.
    """
    basis = basis.to(x)
    if _is_whole(x, basis):
        rows = basis.flatten(1)
        return (x.flatten(1) @ rows.T @ rows).reshape(x.shape)
    return torch.einsum("kc,kd,nd...->nc...", basis, basis, x)


def coordinates(x: Float[Tensor, "batch *output"], basis: Basis) -> Float[Tensor, "batch k *rest"]:
    """Return outputs' coordinates along each direction: at every position, or of whole maps.

    Raises:
        ValueError: the basis is of another shape than the outputs.
    """
    basis = basis.to(x)
    if _is_whole(x, basis):
        return x.flatten(1) @ basis.flatten(1).T
    return torch.einsum("kd,nd...->nk...", basis, x)


def spread(along: Float[Tensor, "batch k *rest"], basis: Basis) -> Float[Tensor, "batch *output"]:
    """Return the outputs that have these `coordinates`, and nothing outside the subspace."""
    return torch.einsum(
        "nk,k...->n..." if basis.ndim > 2 else "nk...,kc->nc...", along, basis.to(along)
    )


def _is_whole(x: Tensor, basis: Basis) -> bool:
    """Whether directions are over whole maps; raise ValueError if they are over neither."""
    whole = basis.ndim == x.ndim and basis.shape[1:] == x.shape[1:]
    if not whole and (basis.ndim != 2 or basis.shape[1:] != x.shape[1:2]):
        raise ValueError(
            f"a basis of shape {tuple(basis.shape)} does not fit outputs {tuple(x.shape[1:])}"
        )
    return whole
