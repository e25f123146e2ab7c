"""Forms through what stands around a bilinear layer: residuals, embeddings before, heads after."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rlbilinear.checks import is_whole
from rlbilinear.convolution import geometry
from rlbilinear.family import FormFamily
from rlbilinear.layers import BilinearConv2d, BilinearLinear
from rlbilinear.quadratic import QuadraticForm, as_direction, as_directions
from rlbilinear.spectrum import Spectrum, to_double

Forms = TypeVar("Forms", QuadraticForm, FormFamily)


def residual_form(
    layer: BilinearLinear | BilinearConv2d,
    direction: Float[Tensor, "outputs"],
    skip: nn.Linear | nn.Conv2d | None = None,
) -> QuadraticForm:
    """Return the form ``x -> direction . (skip(x) + layer(x))``, of a patch for a convolution.

    The skip connection adds to the linear and constant parts: for a convolution at the tap of the
    kernel that lies on the position itself.

    Args:
        layer: the bilinear branch.
        direction: a vector over its outputs.
        skip: a linear map, 1x1 for a convolution; the identity when None.

    Raises:
        ValueError: the direction or the skip does not fit the layer.
    """
    form = layer.quadratic_form(direction)
    matrix, offset = _skip(layer, skip)
    direction = as_direction(direction, len(offset), "outputs").to(form.linear)
    read = direction @ matrix.to(direction)
    if isinstance(layer, BilinearConv2d):
        linear = torch.zeros_like(form.linear).reshape(layer.left.weight.shape[1:])
        y, x = position_tap(layer)
        linear[:, y, x] = read
        read = linear.flatten()
    return form + QuadraticForm.affine(read, direction @ offset.to(direction))


def position_tap(conv: BilinearConv2d) -> tuple[int, int]:
    """Return the tap of the kernel that reads input ``p * stride`` for output position p.

    Raises:
        ValueError: no tap does, with the layer's padding and dilation.
    """
    _, padding, dilation = geometry(conv)
    sizes = conv.left.kernel_size
    taps = [divmod(p, d) for p, d in zip(padding, dilation, strict=True)]
    if any(rest or tap >= size for (tap, rest), size in zip(taps, sizes, strict=True)):
        raise ValueError(
            f"no tap of a {sizes[0]}x{sizes[1]} kernel with padding {padding} and dilation "
            f"{dilation} lies on the position itself"
        )
    return taps[0][0], taps[1][0]


def head_forms(
    layer: BilinearLinear, head: nn.Linear, directions: Float[Tensor, "n logits"] | None = None
) -> FormFamily:
    """Return the forms ``x -> direction . head(layer(x))``, of every output of the head when None.

    Raises:
        ValueError: the head does not read the layer's outputs, or directions of another shape.
    """
    if head.in_features != layer.out_features:
        raise ValueError(
            f"the head reads {head.in_features} features, the layer has {layer.out_features}"
        )
    matrix, offset = _affine(head)
    directions = as_directions(directions, head.out_features, "outputs of the head").to(matrix)
    family = layer.quadratic_forms(directions @ matrix)
    return replace(family, constants=family.constants + directions @ offset)


def embedded(forms: Forms, embedding: nn.Linear | nn.Embedding) -> Forms:
    """Return the forms as functions of what the embedding before them reads, exactly.

    An `nn.Embedding` is read as the linear map of one-hot vectors, or of weights over its entries.

    Raises:
        ValueError: the embedding's outputs are not the forms' inputs.
    """
    return forms.pullback(*_affine(embedding))


@dataclass(frozen=True, eq=False)
class EmbeddedSpectrum:
    """Eigenpairs of a layer's input space, read in the space before its embedding ``E z + e``.

    ``value (vector . z + offset)²`` is exactly what the eigenpair contributes. The vectors ``Eᵀ v``
    are not orthonormal, and the offsets are ``v . e``.
    """

    values: Float[Tensor, "k"]
    vectors: Float[Tensor, "k inputs"]
    offsets: Float[Tensor, "k"]

    def contributions(self, z: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch k"]:
        """Return each pair's contribution, in the dtype and on the device of ``z``."""
        return self.values.to(z) * (z @ self.vectors.to(z).T + self.offsets.to(z)) ** 2


def embedded_spectrum(spectrum: Spectrum, embedding: nn.Linear | nn.Embedding) -> EmbeddedSpectrum:
    """Map eigenpairs of a layer's form back through the embedding before the layer.

    Raises:
        ValueError: the embedding's outputs are not the form's inputs.
    """
    matrix, offset = (each.to(spectrum.vectors) for each in _affine(embedding))
    if len(matrix) != spectrum.vectors.shape[1]:
        raise ValueError(
            f"the embedding has {len(matrix)} outputs, the vectors {spectrum.vectors.shape[1]}"
        )
    return EmbeddedSpectrum(spectrum.values, spectrum.vectors @ matrix, spectrum.vectors @ offset)


def group_directions(
    groups: Iterable[Iterable[int]],
    outputs: int,
    *,
    reduce: Literal["mean", "sum"] = "mean",
    against: Literal["others"] | None = None,
) -> Float[Tensor, "groups outputs"]:
    """Return a direction over the outputs for each group of them, in float64.

    Args:
        groups: the outputs of each group.
        outputs: how many there are.
        reduce: the mean of the group's outputs, or their sum.
        against: ``others`` subtracts from every output of the group the mean of all outputs that
            are not in it; such a direction does not see what is added to all outputs alike, as a
            softmax does not.

    Raises:
        ValueError: an empty group, an output that does not exist or is given twice, a group of all
            outputs against the others, or another choice.
    """
    if reduce not in ("mean", "sum") or against not in ("others", None):
        raise ValueError(
            f"expected reduce mean or sum, against others or None; got {reduce!r} and {against!r}"
        )
    rows = []
    for group in (list(group) for group in groups):
        there = all(is_whole(output) and 0 <= output < outputs for output in group)
        if not group or not there or len({*group}) < len(group):
            raise ValueError(f"expected different outputs from 0 to {outputs - 1}, got {group}")
        row = torch.zeros(outputs, dtype=torch.float64)
        row[group] = 1.0
        if against == "others":
            if len(group) == outputs:
                raise ValueError(f"the group has all {outputs} outputs: there are no others")
            row[row == 0] = -len(group) / (outputs - len(group))
        rows.append(row / len(group) if reduce == "mean" else row)
    return torch.stack(rows) if rows else torch.zeros(0, outputs, dtype=torch.float64)


def _affine(
    module: nn.Linear | nn.Embedding,
) -> tuple[Float[Tensor, "outputs inputs"], Float[Tensor, "outputs"]]:
    weight = to_double(module.weight)
    if isinstance(module, nn.Embedding):
        return weight.T, weight.new_zeros(weight.shape[1])
    return weight, weight.new_zeros(len(weight)) if module.bias is None else to_double(module.bias)


def _skip(
    layer: BilinearLinear | BilinearConv2d, skip: nn.Linear | nn.Conv2d | None
) -> tuple[Float[Tensor, "outputs inputs"], Float[Tensor, "outputs"]]:
    """Return the skip connection's matrix and bias, over channels for a convolution."""
    dense = isinstance(layer, BilinearLinear)
    inputs, outputs = (
        (layer.in_features, layer.out_features)
        if isinstance(layer, BilinearLinear)
        else (layer.in_channels, layer.out_channels)
    )
    stride = (1, 1) if isinstance(layer, BilinearLinear) else geometry(layer).stride
    if skip is None:
        if inputs != outputs or stride != (1, 1):
            raise ValueError(
                f"an identity skip needs as many outputs as inputs and stride 1, got {inputs} "
                f"inputs, {outputs} outputs, stride {stride}"
            )
        return torch.eye(outputs, dtype=torch.float64), torch.zeros(outputs, dtype=torch.float64)
    pointwise = isinstance(skip, nn.Conv2d) and (
        skip.kernel_size == (1, 1)
        and skip.stride == stride
        and skip.padding == (0, 0)
        and skip.groups == 1
    )
    if tuple(skip.weight.shape[:2]) != (outputs, inputs) or dense == isinstance(skip, nn.Conv2d):
        raise ValueError(f"expected a skip of {inputs} to {outputs}, got {skip}")
    if not dense and not pointwise:
        raise ValueError(f"expected a 1x1 convolution of stride {stride}, unpadded; got {skip}")
    weight = to_double(skip.weight).flatten(1)
    return weight, weight.new_zeros(outputs) if skip.bias is None else to_double(skip.bias)
