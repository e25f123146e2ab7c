"""Muon: momentum, orthogonalised, for the weight matrices of hidden layers."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

LARGE = 2**16
"""Weights of a matrix from which on bfloat16 is faster: smaller ones take twice the time in it."""


class Muon(torch.optim.Optimizer):
    """Steps of equal size in every singular direction of a weight matrix.

    A convolution's kernel counts as the matrix ``(outputs, inputs * kh * kw)``, which PyTorch's own
    Muon refuses. Each step has the root mean square that Adam's typically has (0.2 times the rate),
    so that rates and weight decay mean the same for both.

    Source: Jordan et al. 2024, "Muon"; the step's size: Liu et al. 2025, "Muon is scalable".

    Args:
        params: weights with two axes or more.
        lr: learning rate.
        momentum: of the (Nesterov) average of gradients.
        weight_decay: decoupled, times the rate.
        dtype: of the orthogonalisation of matrices of `LARGE` weights and more; bfloat16 is as
            good, and faster where it is in hardware. That of smaller ones is in float32.

    Raises:
        ValueError: a weight has fewer than two axes.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 2e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        params = list(params)
        if flat := [tuple(weight.shape) for weight in params if weight.ndim < 2]:
            raise ValueError(f"Muon takes weights with two axes or more, got shapes {flat}")
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one step."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["average"] = torch.zeros_like(weight)
                average = state["average"].lerp_(weight.grad, 1 - group["momentum"])
                update = weight.grad.lerp(average, group["momentum"]).flatten(1)
                dtype = self.dtype if update.numel() >= LARGE else torch.float32
                direction = orthogonalise(update.to(dtype)).to(weight.dtype)
                scale = 0.2 * max(update.shape) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(direction.reshape(weight.shape), alpha=-group["lr"] * scale)
        return loss


def orthogonalise(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """Bring all singular values near 1 (to 0.7..1.2) by five Newton-Schulz iterations.

    Singular vectors stay: the result is near the polar factor U V^T. Singular values below about
    a thousandth of the matrix's norm come out smaller.

    An iteration takes x to Q(G) x, where G = x x^T and Q is a polynomial. The next one's G is
    Q G Q, since all of these commute: two iterations go through the long side of x as often as one.
    """
    wide = len(matrix) <= matrix.shape[1]
    x = matrix if wide else matrix.T
    x = x / (x.norm() + 1e-7)
    for _ in range(2):
        gram = x @ x.T
        first = _polynomial(gram)
        x = _polynomial(first @ gram @ first) @ first @ x
    x = _polynomial(x @ x.T) @ x
    return x if wide else x.T


def _polynomial(gram: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """Return a + b G + c G^2, with Jordan's coefficients."""
    a, b, c = 3.4445, -4.7750, 2.0315
    found = torch.addmm(gram, gram, gram, beta=b, alpha=c)
    found.diagonal().add_(a)
    return found
