"""Attacks read from the weights: what to add to an input, or remove, to change the output.

No gradient and no data: masks come from the eigenvectors of every class's quadratic form, removed
directions from the singular vectors of a linear map. `attack_curve` sets a mask beside Gaussian
noise of equal norm.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rlbilinear.checks import check_whole, likeliest
from rlbilinear.quadratic import QuadraticForm
from rlbilinear.spectrum import to_double


@dataclass(frozen=True, eq=False)
class QuadraticMasks:
    """Inputs of unit norm, each of which excites one eigenvector of one class.

    In the space that the forms read, a mask excites none of the other eigenvectors stacked, as far
    as these are linearly independent. Ordered by class, then by eigenvalue.
    """

    masks: Float[Tensor, "m inputs"]
    classes: Int[Tensor, "m"]
    values: Float[Tensor, "m"]
    vectors: Float[Tensor, "m inner"]
    """the eigenvectors, orthonormal within a class, in the space that the forms read"""

    def of(self, class_index: int, rank: int = 0) -> Float[Tensor, "inputs"]:
        """Return the mask of a class's ``rank``-th positive eigenvector.

        Raises:
            ValueError: the class has no such eigenvector among the stacked ones.
        """
        found = (self.classes == class_index).nonzero().flatten()
        if not 0 <= rank < len(found):
            raise ValueError(
                f"class {class_index} has {len(found)} eigenvectors stacked, there is no mask "
                f"for number {rank}; classes are {sorted(set(self.classes.tolist()))}"
            )
        return self.masks[found[rank]]


def quadratic_masks(
    forms: Sequence[QuadraticForm],
    per_class: int = 1,
    *,
    embedding: Float[Tensor, "inner inputs"] | None = None,
) -> QuadraticMasks:
    """Build masks from the top positive eigenvectors of every class's quadratic form.

    The eigenvectors are stacked as rows; a column of the stack's pseudo-inverse is the smallest
    vector on which its own eigenvector gives 1 and every other 0. Mapped back through the embedding
    ``E`` (by ``Eᵀ``, as eigenvectors are), and scaled to unit norm, it is the mask. The more
    eigenvectors are stacked, the less a mask excites its own: one per class is the strongest.

    Source: Pearce et al., "Bilinear MLPs enable weight-based mechanistic interpretability".

    Args:
        forms: one for each class; bilinear layers give them exactly, polynomial approximants give
            those of other networks. Linear and constant parts play no role.
        per_class: positive eigenvectors taken of each form; fewer when it has not so many.
        embedding: the linear map before the forms; the identity when None.

    Raises:
        ValueError: no form, none with a positive eigenvalue, forms or an embedding of different
            sizes, or ``per_class`` not positive.
    """
    check_whole(per_class=per_class)
    sizes = sorted({form.in_features for form in forms})
    if len(sizes) != 1:
        raise ValueError(f"expected forms of one number of inputs, got {sizes or 'no form'}")
    if embedding is not None and (embedding.ndim != 2 or len(embedding) != sizes[0]):
        raise ValueError(
            f"expected an embedding ({sizes[0]}, inputs), got shape {tuple(embedding.shape)}"
        )
    found = [positive[:per_class] for positive in map(_positive_eigenpairs, forms)]
    classes = torch.tensor([c for c, pairs in enumerate(found) for _ in pairs])
    if not len(classes):
        raise ValueError("no form has a positive eigenvalue: there is nothing to excite")
    values = torch.stack([value for pairs in found for value, _ in pairs])
    vectors = torch.stack([vector for pairs in found for _, vector in pairs])
    masks = torch.linalg.pinv(vectors).T
    if embedding is not None:
        masks = masks @ to_double(embedding).to(masks)
    # What the embedding maps to zero stays zero.
    masks = masks / masks.norm(dim=1, keepdim=True).clamp_min(torch.finfo(masks.dtype).tiny)
    return QuadraticMasks(masks, classes.to(values.device), values, vectors)


def singular_directions(
    linear: Float[Tensor, "outputs inputs"], k: int | None = None
) -> Float[Tensor, "k inputs"]:
    """Return the input directions that a linear map acts on most, orthonormal, in float64.

    They are its right singular vectors, up to the numerical rank; with a linear approximant's
    weights and `without_directions` they are the attack on what it approximates.

    Raises:
        ValueError: not a matrix, not finite, or ``k`` negative.
    """
    if linear.ndim != 2 or not torch.isfinite(linear).all():
        raise ValueError(f"expected a finite matrix, got shape {tuple(linear.shape)}")
    if k is not None:
        check_whole(0, k=k)
    matrix = to_double(linear)
    _, sizes, directions = torch.linalg.svd(matrix, full_matrices=False)
    tolerance = sizes.amax() * max(matrix.shape) * torch.finfo(matrix.dtype).eps
    return directions[sizes > tolerance][:k]


def without_directions(
    x: Float[Tensor, "*batch inputs"], directions: Float[Tensor, "k inputs"]
) -> Float[Tensor, "*batch inputs"]:
    """Return ``(I - sum_i u_i u_iᵀ) x`` for orthonormal directions ``u``, in the dtype of x."""
    directions = directions.to(x)
    return x - (x @ directions.T) @ directions


class AttackCurve(NamedTuple):
    """Accuracy when a mask is added, beside Gaussian noise of the same norm, at each size."""

    sizes: Float[Tensor, "sizes"]
    """norm of what is added, with the sign of the mask"""
    masked: Float[Tensor, "sizes"]
    """accuracy with the mask added"""
    noisy: Float[Tensor, "repeats sizes"]
    """accuracy with noise added, drawn anew for every image and repeat"""
    towards: Float[Tensor, "sizes"]
    """share of the images of other classes that are taken for the mask's class"""


def attack_curve(
    predict: Callable[[Tensor], Tensor],
    images: Float[Tensor, "n inputs"],
    labels: Int[Tensor, "n"],
    mask: Float[Tensor, "inputs"],
    class_index: int,
    sizes: Sequence[float],
    *,
    repeats: int = 5,
    seed: int = 0,
) -> AttackCurve:
    """Measure accuracy under a mask and under noise of equal norm.

    Args:
        predict: images to logits ``(n, classes)``.
        images: flattened.
        labels: their classes.
        mask: scaled to unit norm here.
        class_index: the class that the mask belongs to.
        sizes: norms to add; a negative one subtracts the mask.
        repeats: of the noise.
        seed: of the noise.

    Raises:
        ValueError: the mask does not fit the images, or is zero.
        FloatingPointError: logits that are not finite.
    """
    if mask.shape != images.shape[1:] or not mask.norm() > 0:
        raise ValueError(
            f"expected a mask of shape {tuple(images.shape[1:])}, not zero; "
            f"got shape {tuple(mask.shape)}, norm {mask.norm().item():g}"
        )
    generator = torch.Generator().manual_seed(seed)
    unit = (mask / mask.norm()).to(images)
    others = labels != class_index
    masked: list[Tensor] = []
    towards: list[Tensor] = []
    noisy: list[Tensor] = []
    with torch.no_grad():
        for size in sizes:
            chosen = likeliest(predict(images + size * unit))
            masked.append((chosen == labels).double().mean())
            towards.append((chosen[others] == class_index).double().mean())
            accuracies = []
            for _ in range(repeats):
                noise = torch.randn(images.shape, generator=generator).to(images)
                noise *= abs(size) / noise.norm(dim=1, keepdim=True)
                right = likeliest(predict(images + noise)) == labels
                accuracies.append(right.double().mean())
            noisy.append(torch.stack(accuracies))
    return AttackCurve(
        torch.tensor(sizes, dtype=torch.float64),
        torch.stack(masked),
        torch.stack(noisy, dim=1),
        torch.stack(towards),
    )


def _positive_eigenpairs(form: QuadraticForm) -> list[tuple[Tensor, Tensor]]:
    values, vectors = form.eigh()
    return [(value, vector) for value, vector in zip(values, vectors, strict=True) if value > 0]
