"""Sums as modules: residual blocks with anything in their branch, and layers side by side."""

from jaxtyping import Float
from torch import Tensor, nn


class Residual(nn.Sequential):
    """``y = x + branch(x)``, the branch being the modules inside, one after another."""

    def forward(self, x: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch *shape"]:
        """Apply the block."""
        return x + super().forward(x)


class Sum(nn.Sequential):
    """``y = first(x) + second(x) + ...``: layers side by side, their outputs added."""

    def forward(self, x: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch *outputs"]:
        """Apply every layer to the same inputs."""
        first, *others = self
        return sum((other(x) for other in others), start=first(x))
