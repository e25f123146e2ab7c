"""Bilinear layers one after the other: the exact polynomial they make, evaluated implicitly.

Between two max-pools (or other steps that are not polynomial) a network of bilinear layers *is* a
polynomial of its input, of a degree that doubles with every bilinear layer. It has far too many
coefficients to write down; along any line through the inputs, though, it is a polynomial of one
variable, and that one is computed exactly: every layer acts on the coefficients themselves.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rlbilinear.edits.functional import PositionBias
from rlbilinear.layers import BilinearConv2d, BilinearLinear

AFFINE = (nn.Linear, nn.Conv2d, nn.AvgPool2d, nn.Flatten, nn.Identity)
POLYNOMIAL = (BilinearLinear, BilinearConv2d, PositionBias, nn.Sequential, *AFFINE)


@dataclass(frozen=True, eq=False)
class Stage:
    """One layer of a stack: ``main(x)``, or ``skip(x) + main(x)``.

    Raises:
        TypeError: a module that is not a polynomial of its input, or a skip that is not affine.
    """

    main: nn.Module
    skip: nn.Module | None = None
    """``nn.Identity()`` or a linear map for a residual connection, None for no connection"""

    def __post_init__(self) -> None:
        _check(self.main)
        if self.skip is not None and not isinstance(self.skip, AFFINE):
            raise TypeError(f"expected an affine skip connection, got {type(self.skip).__name__}")

    @property
    def degree(self) -> int:
        """The degree as a polynomial: 2 for a bilinear layer, 1 for an affine one."""
        return _degree(self.main)


class BilinearStack:
    """Stages in sequence, as one polynomial of the input. Everything is computed in float64.

    The weights are copied: the stack stays what it is when the network trains on.

    Args:
        stages: in the order of the forward pass; a module stands for a stage without a skip.

    Raises:
        TypeError: a module that is not a polynomial of its input; the message lists those that are.
        ValueError: there is no stage.
    """

    def __init__(self, stages: Iterable[Stage | nn.Module]) -> None:
        if not isinstance(stages, Iterable):
            raise TypeError(f"expected stages, such as layers, got {type(stages).__name__}")
        as_stages = [s if isinstance(s, Stage) else Stage(s) for s in stages]
        if not as_stages:
            raise ValueError("expected at least one stage")
        self.stages = tuple(
            Stage(_double(s.main), None if s.skip is None else _double(s.skip)) for s in as_stages
        )

    @property
    def degree(self) -> int:
        """The degree of the polynomial: the product of the stages', 2 for each bilinear layer."""
        degree = 1
        for stage in self.stages:
            degree *= stage.degree
        return degree

    def __call__(self, x: Float[Tensor, "n *inputs"]) -> Float[Tensor, "n *outputs"]:
        """Evaluate the polynomial; gradients flow to ``x``."""
        return self.outputs(x)[-1]

    def outputs(self, x: Float[Tensor, "n *inputs"]) -> list[Float[Tensor, "n *outputs"]]:
        """Return what goes into the first stage and comes out of each."""
        found = [_as_double(x)]
        for stage in self.stages:
            y = stage.main(found[-1])
            found.append(y if stage.skip is None else stage.skip(found[-1]) + y)
        return found

    def gradient(
        self, x: Float[Tensor, "n *inputs"], functional: Float[Tensor, "*outputs"]
    ) -> Float[Tensor, "n *inputs"]:
        """Return the gradient of ``<functional, y(x)>`` at every input.

        Raises:
            ValueError: the functional has another shape than one output.
        """
        x = _as_double(x).detach().requires_grad_()
        y = self(x)
        if functional.shape != y.shape[1:]:
            raise ValueError(
                f"expected a functional of shape {tuple(y.shape[1:])}, "
                f"got {tuple(functional.shape)}"
            )
        (gradient,) = torch.autograd.grad((y * functional.to(y)).sum(), x)
        return gradient

    def along(
        self, x: Float[Tensor, "n *inputs"], direction: Float[Tensor, "#n *inputs"]
    ) -> Float[Tensor, "coefficients n *outputs"]:
        """Return the coefficients of ``y(x + t direction)``, a polynomial of t, ``degree + 1``.

        Coefficient m is the m-th derivative along the direction over m!; all are exact.
        """
        x = _as_double(x)
        series = torch.stack([x, _as_double(direction).expand_as(x)])
        with torch.no_grad():
            for stage in self.stages:
                y = _series(stage.main, series)
                if stage.skip is not None:
                    y = _add(y, _affine_series(stage.skip, series))
                series = y
        return series

    def homogeneous_parts(
        self, x: Float[Tensor, "n *inputs"]
    ) -> Float[Tensor, "coefficients n *outputs"]:
        """Split ``y(x)`` by degree: part m is what is of degree m in x; they add up to ``y(x)``."""
        return self.along(torch.zeros_like(x), x)


def _check(module: nn.Module) -> None:
    if not isinstance(module, POLYNOMIAL):
        names = ", ".join(kind.__name__ for kind in POLYNOMIAL)
        raise TypeError(
            f"{type(module).__name__} is not known as a polynomial of its input; known are {names}"
        )
    if isinstance(module, nn.Sequential | PositionBias):
        for child in module.children():
            _check(child)


def _degree(module: nn.Module) -> int:
    if isinstance(module, nn.Sequential | PositionBias):
        degree = 1
        for child in module.children():
            degree *= _degree(child)
        return degree
    return 2 if isinstance(module, BilinearLinear | BilinearConv2d) else 1


def _series(module: nn.Module, x: Float[Tensor, "m n *inputs"]) -> Float[Tensor, "k n *outputs"]:
    """Apply a module to a polynomial of t, given by its coefficients."""
    if isinstance(module, nn.Sequential):
        for child in module:
            x = _series(child, x)
        return x
    if isinstance(module, PositionBias):
        y = _series(module.layer, x)
        return torch.cat([y[:1] + module.bias, y[1:]])
    if isinstance(module, BilinearLinear | BilinearConv2d):
        y = _multiply(_affine_series(module.left, x), _affine_series(module.right, x))
        return y if module.down is None else _affine_series(module.down, y)
    return _affine_series(module, x)


def _affine_series(
    module: nn.Module, x: Float[Tensor, "m n *inputs"]
) -> Float[Tensor, "m n *outputs"]:
    y = module(x.flatten(0, 1)).unflatten(0, x.shape[:2])
    offset = module(torch.zeros_like(x[0, :1]))  # what is constant belongs to the first alone
    return torch.cat([y[:1], y[1:] - offset])


def _multiply(a: Float[Tensor, "m n *d"], b: Float[Tensor, "k n *d"]) -> Float[Tensor, "l n *d"]:
    product = a.new_zeros(len(a) + len(b) - 1, *a.shape[1:])
    for i, coefficient in enumerate(a):
        product[i : i + len(b)] += coefficient * b
    return product


def _add(a: Float[Tensor, "m n *d"], b: Float[Tensor, "k n *d"]) -> Float[Tensor, "l n *d"]:
    longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
    return torch.cat([longer[: len(shorter)] + shorter, longer[len(shorter) :]])


def _double(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).to("cpu").double().requires_grad_(False).eval()


def _as_double(x: Tensor) -> Tensor:
    return x.to(device="cpu", dtype=torch.float64)
