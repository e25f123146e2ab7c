"""Tucker-2: one small basis of the inputs, shared by both sides of a bilinear layer."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from rlbilinear.checks import check_whole
from rlbilinear.spectrum import fix_signs
from rlbilinear.tensor import BilinearTensor, in_span


@dataclass(frozen=True, eq=False)
class Tucker2:
    """``B_o ~ basisᵀ core_o basis``: the layer seen through k directions of its inputs.

    ``core`` is a tensor of ``basis @ x``; off its diagonal is what the directions do to each other.
    """

    core: BilinearTensor
    basis: Float[Tensor, "k inputs"]
    error: Float[Tensor, ""]
    """Frobenius norm of what the basis leaves out of the layer's tensor"""
    share: Float[Tensor, ""]
    """the share of the tensor's squared norm inside the basis"""
    original: BilinearTensor

    def tensor(self) -> BilinearTensor:
        """Map the core back to the inputs; ``.as_layer(layer)`` makes weights of it.

        Linear and constant parts are the layer's own.
        """
        back = self.core.with_inputs(self.basis)
        return BilinearTensor(
            back.left, back.right, back.down, self.original.linear, self.original.constant
        )


def tucker2(tensor: BilinearTensor, k: int, *, sweeps: int = 100) -> Tucker2:
    """Find k orthonormal input directions that hold as much of a tensor as possible.

    Starts from the top eigenvectors of ``sum_o B_o²`` (the higher-order SVD of the input side) and
    improves them by higher-order orthogonal iteration, ``sum_o B_o U Uᵀ B_o``, until a sweep gains
    nothing more. The optimum found is local. The matrices are in the span of the factors, with at
    most ``2 hidden`` inputs; nothing of size ``inputs²`` is built while that is less.

    Args:
        tensor: tensor of the layer; its linear and constant parts play no role.
        k: directions, at most ``min(inputs, 2 hidden)`` are found.
        sweeps: number of sweeps of the iteration at most.

    Raises:
        ValueError: ``k`` is not positive.
    """
    check_whole(k=k)
    small, span = in_span(tensor)
    mixing = small.down.T @ small.down
    identity = torch.eye(small.in_features).to(small.left)
    directions = _top(_input_gram(small, mixing, identity), k)
    held = _held(small, directions)
    for _ in range(sweeps):
        better = _top(_input_gram(small, mixing, directions), k)
        gain = _held(small, better) - held
        if gain <= 1e-12 * held:
            break
        directions, held = better, held + gain
    total = small.norm**2
    directions = fix_signs(directions @ span)
    return Tucker2(
        tensor.bilinear_part().with_inputs(directions.T),
        directions,
        (total - held).clamp_min(0).sqrt(),
        held / total if total > 0 else total,
        tensor,
    )


def _held(tensor: BilinearTensor, directions: Float[Tensor, "k m"]) -> Float[Tensor, ""]:
    """Return the squared norm of the tensor inside the directions."""
    return tensor.with_inputs(directions.T).norm ** 2


def _top(matrix: Float[Tensor, "m m"], k: int) -> Float[Tensor, "k m"]:
    return torch.linalg.eigh(matrix).eigenvectors.flip(1)[:, :k].T


def _input_gram(
    tensor: BilinearTensor, mixing: Float[Tensor, "hidden hidden"], directions: Tensor
) -> Float[Tensor, "m m"]:
    """Return ``sum_o B_o U Uᵀ B_o``; ``mixing`` is ``downᵀ down``.

    With ``B_o = (Wᵀ D_o V + Vᵀ D_o W) / 2`` and ``sum_o D_o A D_o = mixing * A``.
    """
    w, v = tensor.left, tensor.right
    seen_w, seen_v = w @ directions.T, v @ directions.T
    mixed = mixing * (seen_v @ seen_w.T)
    gram = w.T @ (mixed @ v) + w.T @ ((mixing * (seen_v @ seen_v.T)) @ w)
    gram += v.T @ ((mixing * (seen_w @ seen_w.T)) @ v) + v.T @ (mixed.T @ w)
    return (gram + gram.T) / 8
