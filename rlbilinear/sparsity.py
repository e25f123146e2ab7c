"""Sparsity of spectra, and how well the eigenvectors of one output explain another."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from rlbilinear.checks import check_whole
from rlbilinear.quadratic import QuadraticForm


def effective_rank(values: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch"]:
    """Return ``(sum |v|)² / sum v²``: k for k equal values, 1 for a single one, 0 for none."""
    return _ratio(values.abs().sum(-1) ** 2, (values**2).sum(-1))


def participation_ratio(values: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch"]:
    """Return ``(sum v²)² / sum v⁴``: the effective rank of the energies.

    For k equal values it is k as well; small ones weigh less.
    """
    return effective_rank(values**2)


def cumulative_energy(values: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch k"]:
    """Return the share of ``sum v²`` in the 1, 2, ... k values of largest magnitude."""
    energy = (values**2).sort(-1, descending=True).values
    return _ratio(energy.cumsum(-1), energy.sum(-1, keepdim=True))


def count_for_energy(values: Float[Tensor, "k"], share: float = 0.9) -> int:
    """Return how many values hold at least a share of the energy.

    Raises:
        ValueError: a share outside (0, 1], or values that are all zero.
    """
    if not 0 < share <= 1 or not values.any():
        raise ValueError(f"expected a share in (0, 1] of values that are not all zero, got {share}")
    # The last sum may round to less than 1.
    return int((cumulative_energy(values)[:-1] < share * (1 - 1e-12)).sum()) + 1


def completeness(target: QuadraticForm, vectors: Float[Tensor, "k inputs"]) -> Float[Tensor, "k"]:
    """Return the share of a form's squared norm inside the span of the first 1, 2, ... k vectors.

    ``|U Q Uᵀ|² / |Q|²`` with the vectors as orthonormal rows ``U``: how much of the target is made
    of interactions among them. Linear and constant parts play no role.

    Args:
        target: the form, for instance of one class.
        vectors: orthonormal, for instance another class's top eigenvectors.

    Raises:
        ValueError: vectors of another size, or not orthonormal.
    """
    vectors = vectors.to(target.left)
    if vectors.ndim != 2 or vectors.shape[1] != target.in_features:
        raise ValueError(
            f"expected vectors (k, {target.in_features}), got shape {tuple(vectors.shape)}"
        )
    if not torch.allclose(vectors @ vectors.T, torch.eye(len(vectors)).to(vectors), atol=1e-6):
        raise ValueError("expected orthonormal vectors")
    half = (target.left @ vectors.T * target.weight[:, None]).T @ (target.right @ vectors.T)
    core = (half + half.T) / 2
    # Leading blocks of the core: |core[:j, :j]|² for j = 1 .. k.
    inside = (core**2).cumsum(0).cumsum(1).diagonal()
    return _ratio(inside, target.norm**2)


def cross_completeness(
    forms: Sequence[QuadraticForm], k: int
) -> Float[Tensor, "targets sources k"]:
    """Return `completeness` of every form in the top 1 .. k eigenvectors of every form.

    The diagonal is how few eigenvectors a form needs itself, the rest how much forms share. Where a
    source has fewer than k eigenvectors, its last value stays.

    Raises:
        ValueError: ``k`` is not positive, or there is no form.
    """
    check_whole(k=k)
    if not forms:
        raise ValueError("expected at least one form")
    bases = [form.eigh(k).vectors for form in forms]
    table = forms[0].left.new_zeros(len(forms), len(forms), k)
    for t, target in enumerate(forms):
        for s, basis in enumerate(bases):
            shares = completeness(target, basis)
            table[t, s, : len(shares)] = shares
            if 0 < len(shares) < k:
                table[t, s, len(shares) :] = shares[-1]
    return table


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Divide; nothing of nothing is 0."""
    return torch.where(whole > 0, part / whole.clamp_min(torch.finfo(whole.dtype).tiny), 0.0)
