"""CP decomposition: a bilinear layer as few products of two linear features.

``B ~ sum_r outputs_r (x) sym(left_r (x) right_r)``, that is ``y ~ sum_r outputs_r (left_r.x)
(right_r.x)``: the same shape as the layer itself, with fewer hidden units.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from rlbilinear.checks import check_whole
from rlbilinear.spectrum import sign_gauge
from rlbilinear.tensor import BilinearTensor, in_span, unit_products


@dataclass(frozen=True, eq=False)
class CPDecomposition:
    """Terms ``importance_r outputs_r (left_r . x)(right_r . x)``, the most important first.

    Left, right and output vectors have unit norm; a term's importance is the product of the norms
    it would have otherwise. Signs are free: the largest entries of left and right are positive.
    """

    left: Float[Tensor, "r inputs"]
    right: Float[Tensor, "r inputs"]
    outputs: Float[Tensor, "r outputs"]
    importance: Float[Tensor, "r"]
    cosine: float
    """cosine similarity with the decomposed tensor; ``1 - cosine²`` of its energy is missing"""
    converged: bool
    """whether the fit stopped by itself, before its steps were used up"""
    original: BilinearTensor

    def squares(self) -> tuple[Float[Tensor, "r inputs"], Float[Tensor, "r inputs"]]:
        """Return ``plus`` and ``minus`` with ``(left.x)(right.x) = (plus.x)² - (minus.x)²``.

        ``ab = ((a + b)² - (a - b)²) / 4``: a product of two features is shown as the two patterns
        that excite and inhibit it.
        """
        return (self.left + self.right) / 2, (self.left - self.right) / 2

    def truncate(self, k: int) -> "BilinearTensor":
        """Keep the k most important terms, as they are; see `tensor`."""
        return self._tensor(slice(k))

    def tensor(self) -> BilinearTensor:
        """Return the terms as a tensor; ``.as_layer(layer)`` makes weights of it.

        Linear and constant parts are the layer's own.
        """
        return self._tensor(slice(None))

    def _tensor(self, kept: slice) -> BilinearTensor:
        columns = self.outputs[kept] * self.importance[kept, None]
        return BilinearTensor(
            self.left[kept],
            self.right[kept],
            columns.T,
            self.original.linear,
            self.original.constant,
        )


def fit_cp(
    tensor: BilinearTensor,
    rank: int,
    *,
    seed: int = 0,
    starts: int = 1,
    steps: int = 500,
    on_step: Callable[[int, float], None] | None = None,
) -> CPDecomposition:
    """Fit a CP decomposition to a tensor by cosine similarity.

    Everything is computed from products of factors, in the span of the layer's own, in float64. For
    given left and right vectors the best output vectors solve a ``rank x rank`` system (variable
    projection), and L-BFGS moves the left and right ones. The optimum is local: `starts` takes the
    best of several.

    Args:
        tensor: tensor of the layer; its linear and constant parts play no role in the fit.
        rank: the number of terms.
        seed: seed of the starting points; the same seed gives the same result.
        starts: how many starting points, the best result is returned.
        steps: of L-BFGS at most, for each start.
        on_step: called with the step and the cosine, for progress.

    Raises:
        ValueError: rank, starts or steps is not positive, or the tensor is zero.
    """
    check_whole(rank=rank, starts=starts, steps=steps)
    norm = tensor.norm
    if norm == 0:
        raise ValueError("a tensor that is zero has no direction to fit")
    small, span = in_span(tensor)
    generator = torch.Generator().manual_seed(seed)
    best: CPDecomposition | None = None
    for _ in range(starts):
        start = torch.randn(2, rank, small.in_features, generator=generator, dtype=torch.float64)
        factors, converged = _ascend(small, norm, start.to(small.left), steps, on_step)
        left, right = F.normalize(factors @ span, dim=-1)
        left, right = left * sign_gauge(left), right * sign_gauge(right)
        columns = _best_outputs(tensor, left, right)
        sizes = columns.norm(dim=1)
        order = sizes.argsort(descending=True)
        found = BilinearTensor(left, right, columns.T, tensor.linear, tensor.constant)
        result = CPDecomposition(
            left[order],
            right[order],
            F.normalize(columns[order], dim=1),
            sizes[order],
            found.cosine(tensor).item(),
            converged,
            tensor,
        )
        if best is None or result.cosine > best.cosine:
            best = result
    assert best is not None
    return best


def _ascend(
    tensor: BilinearTensor,
    norm: Float[Tensor, ""],
    start: Float[Tensor, "2 rank m"],
    steps: int,
    on_step: Callable[[int, float], None] | None,
) -> tuple[Float[Tensor, "2 rank m"], bool]:
    """Climb to a local maximum of the cosine; also says whether it got there."""
    factors = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [factors],
        max_iter=steps,
        max_eval=3 * steps,
        history_size=20,
        tolerance_grad=1e-9,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )
    evaluations = 0

    def loss() -> Tensor:
        nonlocal evaluations
        optimizer.zero_grad()
        left, right = F.normalize(factors, dim=-1)
        with torch.no_grad():  # at the best outputs their own change does not matter
            columns = _best_outputs(tensor, left, right)
        products = unit_products(left, right, left, right)
        size = ((columns @ columns.T) * products).sum().sqrt()
        cosine = (columns * _along(tensor, left, right)).sum() / (norm * size)
        (-cosine).backward()
        evaluations += 1
        if on_step is not None:
            on_step(evaluations, cosine.item())
        return 1 - cosine

    optimizer.step(loss)
    iterations = optimizer.state[factors]["n_iter"]
    return factors.detach(), iterations < steps and evaluations < 3 * steps


def _along(
    tensor: BilinearTensor, left: Float[Tensor, "r m"], right: Float[Tensor, "r m"]
) -> Float[Tensor, "r outputs"]:
    """Return ``<B_o, sym(left_r right_rᵀ)>``."""
    return unit_products(left, right, tensor.left, tensor.right) @ tensor.down.T


def _best_outputs(
    tensor: BilinearTensor, left: Float[Tensor, "r m"], right: Float[Tensor, "r m"]
) -> Float[Tensor, "r outputs"]:
    """Return the output vectors that minimise the Frobenius distance.

    Terms that are nearly multiples of each other share the least vectors that do it.
    """
    products = unit_products(left, right, left, right)
    return torch.linalg.pinv(products, rtol=1e-12, hermitian=True) @ _along(tensor, left, right)
