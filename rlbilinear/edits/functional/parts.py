"""Bilinear and affine layers with other weights: what every edit is put together from."""

import copy
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rlbilinear.edits.functional.position import PositionBias
from rlbilinear.layers import BilinearConv2d, BilinearLinear
from rlbilinear.quadratic import to_double

Bilinear = TypeVar("Bilinear", bound=BilinearLinear | BilinearConv2d)
Affine = TypeVar("Affine", bound=nn.Linear | nn.Conv2d)
AnyLayer = TypeVar("AnyLayer", bound=BilinearLinear | BilinearConv2d | nn.Linear | nn.Conv2d)

Biases = tuple[Float[Tensor, "units"], Float[Tensor, "units"]]
"""Of hidden units: those of ``left`` and those of ``right``."""


def append_units(
    layer: Bilinear,
    left: Float[Tensor, "new inputs"],
    right: Float[Tensor, "new inputs"],
    columns: Float[Tensor, "outputs new"],
    biases: Biases | None = None,
) -> Bilinear:
    """Add ``columns @ ((left x + b) * (right x + c))`` to the layer, as new hidden units.

    Without ``biases`` they are zero; a layer without biases cannot be given any.
    """
    new = biases or (left.new_zeros(len(left)),) * 2
    old = (matrix_of(layer.left), matrix_of(layer.right), matrix_of(explicit_down(layer)))
    return with_units(
        layer,
        torch.cat([old[0], left]),
        torch.cat([old[1], right]),
        torch.cat([old[2], columns], dim=1),
        (
            torch.cat([bias_or_zeros(layer.left), new[0]]),
            torch.cat([bias_or_zeros(layer.right), new[1]]),
        ),
    )


def with_units(
    layer: Bilinear,
    left: Float[Tensor, "units inputs"],
    right: Float[Tensor, "units inputs"],
    columns: Float[Tensor, "outputs units"],
    biases: Biases,
) -> Bilinear:
    """Copy the layer with these hidden units in the place of its own; the bias of ``down`` stays.

    A layer without biases takes none.
    """
    down = explicit_down(layer)
    patch, biased = layer.left.weight.shape[1:], layer.left.bias is not None
    left_bias, right_bias = biases if biased else (None, None)
    return with_parts(
        layer,
        left=with_weights(layer.left, left.reshape(-1, *patch), left_bias),
        right=with_weights(layer.right, right.reshape(-1, *patch), right_bias),
        down=with_weights(
            down, columns.reshape(*columns.shape, *down.weight.shape[2:]), bias_of(down)
        ),
    )


def explicit_down(layer: BilinearLinear | BilinearConv2d) -> nn.Linear | nn.Conv2d:
    """Return the layer's ``down``, or the identity as one (with a bias when the layer has them)."""
    if layer.down is not None:
        return layer.down
    like, biased = layer.left.weight, layer.left.bias is not None
    hidden = len(like)
    down: nn.Linear | nn.Conv2d
    with torch.device("meta"):  # no random numbers drawn
        if isinstance(layer, BilinearLinear):
            down = nn.Linear(hidden, hidden, bias=biased)
        else:
            down = nn.Conv2d(hidden, hidden, 1, bias=biased)
    identity = torch.eye(hidden).reshape(down.weight.shape).to(like)
    weights = {"weight": identity} | ({"bias": like.new_zeros(hidden)} if biased else {})
    down.load_state_dict(weights, assign=True)
    return down


def with_parts(layer: Bilinear, **parts: nn.Module) -> Bilinear:
    """Copy the layer, with others in the place of some of ``left``, ``right``, ``down``."""
    edited = copy.deepcopy(layer)
    for name, part in parts.items():
        setattr(edited, name, part)
    return edited


def with_weights(layer: Affine, weight: Tensor, bias: Tensor | None) -> Affine:
    """Copy the layer, with other weights of possibly other sizes."""
    edited = copy.deepcopy(layer)
    trains = layer.weight.requires_grad
    weight = weight.to(layer.weight).clone(memory_format=torch.contiguous_format)
    edited.weight = nn.Parameter(weight, requires_grad=trains)
    if bias is not None:
        edited.bias = nn.Parameter(bias.to(layer.weight), requires_grad=trains)
    if isinstance(edited, nn.Linear):
        edited.out_features, edited.in_features = weight.shape
    else:
        edited.out_channels, edited.in_channels = weight.shape[:2]
        edited.kernel_size = tuple(weight.shape[2:])
    return edited


def matrix_of(layer: nn.Linear | nn.Conv2d) -> Float[Tensor, "outputs inputs"]:
    """Return the weights in float64, a convolution's kernels flattened."""
    return to_double(layer.weight).flatten(1)


def bias_of(layer: nn.Linear | nn.Conv2d) -> Float[Tensor, "outputs"] | None:
    """Return the bias in float64, if there is one."""
    return None if layer.bias is None else to_double(layer.bias)


def bias_or_zeros(layer: nn.Linear | nn.Conv2d) -> Float[Tensor, "outputs"]:
    """Return the bias in float64, zeros where there is none."""
    bias = bias_of(layer)
    return to_double(layer.weight).new_zeros(len(layer.weight)) if bias is None else bias


def check_bilinear(layer: nn.Module) -> None:
    """Refuse a layer that is not bilinear.

    Raises:
        TypeError: it is not; the message says where a bilinear one may lie inside.
    """
    if not isinstance(layer, (BilinearLinear, BilinearConv2d)):
        raise TypeError(f"expected a BilinearLinear or BilinearConv2d, got {what(layer)}")


def check_affine(layer: nn.Module) -> None:
    """Refuse a layer that is not a dense layer or convolution of one group.

    Raises:
        TypeError: another kind of layer.
        ValueError: a grouped convolution.
    """
    if not isinstance(layer, (nn.Linear, nn.Conv2d)):
        raise TypeError(
            f"expected a BilinearLinear, BilinearConv2d, nn.Linear or nn.Conv2d, got {what(layer)}"
        )
    if isinstance(layer, nn.Conv2d) and layer.groups != 1:
        raise ValueError(f"expected a convolution of one group, got {layer.groups} groups")


def what(layer: object) -> str:
    """Name a layer of the wrong kind, and what of it can be edited."""
    inner = ""
    if isinstance(layer, PositionBias):
        inner = "; edit its .layer and wrap the result"
    elif isinstance(layer, nn.Module):
        parts = [
            f".{name}"
            for name, part in layer.named_children()
            if isinstance(part, (BilinearLinear, BilinearConv2d))
        ]
        inner = f"; edit its {' or '.join(parts)}" if parts else ""
    return type(layer).__name__ + inner
