"""Transplants: a layer, or what it writes along directions, taken from another layer."""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rlbilinear.edits.functional.maps import map_output, scaling_matrix
from rlbilinear.edits.functional.parts import (
    AnyLayer,
    append_units,
    bias_of,
    bias_or_zeros,
    check_affine,
    explicit_down,
    matrix_of,
    what,
    with_parts,
    with_weights,
)
from rlbilinear.layers import BilinearConv2d, BilinearLinear
from rlbilinear.quadratic import to_double


def transplant(
    layer: AnyLayer, donor: AnyLayer, direction: Float[Tensor, "*several outputs"] | None = None
) -> AnyLayer:
    """Take what a layer writes along a direction, or all of it, from another layer.

    ``y = (I - P) layer(x) + P donor(x)`` with ``P`` the orthogonal projector on the direction or
    the span of several, biases included: to a bilinear layer the donor's hidden units are appended.

    Args:
        layer: BilinearLinear, BilinearConv2d, nn.Linear, or nn.Conv2d.
        donor: of the same kind, inputs, outputs and geometry; its hidden units may be others.
        direction: ``(outputs,)`` or ``(n, outputs)``; the whole of the donor when None.

    Raises:
        TypeError: another kind of layer, or a donor of another kind.
        ValueError: a donor of another shape, or a direction of another shape, not finite, or zero.
    """
    _check_alike(layer, donor)
    if direction is None:
        whole = copy.deepcopy(donor)
        whole.to(next(layer.parameters()))
        return whole
    kept = scaling_matrix(direction, 0.0)
    taken = torch.eye(len(kept)).to(kept) - kept
    if isinstance(layer, (BilinearLinear, BilinearConv2d)):
        assert isinstance(donor, (BilinearLinear, BilinearConv2d))
        ours, theirs = (
            map_output(explicit_down(layer), kept),
            map_output(explicit_down(donor), taken),
        )
        grown = append_units(
            with_parts(layer, down=ours),
            matrix_of(donor.left),
            matrix_of(donor.right),
            matrix_of(theirs),
            (bias_or_zeros(donor.left), bias_or_zeros(donor.right)),
        )
        down = explicit_down(grown)
        return with_parts(
            grown, down=with_weights(down, to_double(down.weight), _summed_bias(ours, theirs))
        )
    assert isinstance(layer, (nn.Linear, nn.Conv2d)) and isinstance(donor, (nn.Linear, nn.Conv2d))
    mixed = map_output(layer, kept), map_output(donor, taken)
    weight = to_double(mixed[0].weight) + to_double(mixed[1].weight)
    return with_weights(layer, weight, _summed_bias(*mixed))


def _summed_bias(
    first: nn.Linear | nn.Conv2d, second: nn.Linear | nn.Conv2d
) -> Float[Tensor, "outputs"] | None:
    bias = bias_of(first)
    return None if bias is None else bias + bias_or_zeros(second)


def _check_alike(layer: nn.Module, donor: nn.Module) -> None:
    if not isinstance(layer, (BilinearLinear, BilinearConv2d)):
        check_affine(layer)
    if type(donor) is not type(layer):
        raise TypeError(f"expected a donor of kind {type(layer).__name__}, got {what(donor)}")
    shapes = _shape(layer), _shape(donor)
    if shapes[0] != shapes[1]:
        raise ValueError(f"the donor has another shape: {shapes[1]} in the place of {shapes[0]}")


def _shape(layer: nn.Module) -> dict[str, object]:
    """Return all that two layers must share for their outputs to be mixed."""
    if isinstance(layer, (BilinearLinear, BilinearConv2d)):
        outputs = len(explicit_down(layer).weight)
        return _shape(layer.left) | {"outputs": outputs}
    assert isinstance(layer, (nn.Linear, nn.Conv2d))
    shape: dict[str, object] = {
        "inputs": layer.weight.shape[1],
        "outputs": len(layer.weight),
        "bias": layer.bias is not None,
    }
    if isinstance(layer, nn.Conv2d):
        names = ("kernel_size", "stride", "padding", "dilation")
        shape |= {name: getattr(layer, name) for name in names}
    return shape
