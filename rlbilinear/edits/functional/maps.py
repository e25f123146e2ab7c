"""Linear maps of what a layer reads or writes, as weights: scaled, ablated, rotated directions."""

import torch
from jaxtyping import Float
from torch import Tensor

from rlbilinear.checks import as_numbers, check_finite
from rlbilinear.edits.functional.parts import (
    AnyLayer,
    bias_of,
    check_affine,
    explicit_down,
    with_parts,
    with_weights,
)
from rlbilinear.layers import BilinearConv2d, BilinearLinear
from rlbilinear.quadratic import as_direction, to_double


def project_input(
    layer: AnyLayer, direction: Float[Tensor, "*several inputs"], factor: float = 0.0
) -> AnyLayer:
    """Scale what the layer reads of its input along a direction, or in the span of several.

    ``x -> (I + (factor - 1) P) x`` before the layer, ``P`` the orthogonal projector, as weights: of
    ``left`` and ``right`` for a bilinear layer. Factor 0 makes the layer blind to the direction.

    Args:
        layer: BilinearLinear, BilinearConv2d, nn.Linear, or nn.Conv2d.
        direction: ``(inputs,)`` or ``(n, inputs)``, over the input *channels* of a convolution.
        factor: what the component is multiplied by.

    Raises:
        TypeError: another kind of layer.
        ValueError: a grouped convolution, or a direction of another shape, not finite, or zero.
    """
    part = layer.left if isinstance(layer, (BilinearLinear, BilinearConv2d)) else layer
    check_affine(part)
    return map_input(layer, _scaling_for(direction, part.weight.shape[1], factor))


def scale_output(
    layer: AnyLayer, direction: Float[Tensor, "*several outputs"], factor: float
) -> AnyLayer:
    """Scale what the layer writes along an output direction, or in the span of several.

    ``y -> (I + (factor - 1) P) y`` after the layer, ``P`` the orthogonal projector, as weights: of
    ``down`` for a bilinear layer, biases included. Factor 0 stops it from writing the direction.

    Args:
        layer: BilinearLinear, BilinearConv2d, nn.Linear, or nn.Conv2d.
        direction: ``(outputs,)`` or ``(n, outputs)``, over the output *channels* of a convolution.
        factor: what the component is multiplied by.

    Raises:
        TypeError: another kind of layer.
        ValueError: a grouped convolution, or a direction of another shape, not finite, or zero.
    """
    part = explicit_down(layer) if isinstance(layer, (BilinearLinear, BilinearConv2d)) else layer
    check_affine(part)
    return map_output(layer, _scaling_for(direction, len(part.weight), factor))


def map_input(layer: AnyLayer, matrix: Float[Tensor, "new inputs"]) -> AnyLayer:
    """Apply a matrix to the layer's input: ``layer(matrix x)``, as weights.

    To the input channels of a convolution, at every position. A matrix of d rows and e columns
    gives a layer of e inputs.

    Raises:
        TypeError: a layer that is neither bilinear nor nn.Linear nor nn.Conv2d.
        ValueError: a grouped convolution, or a matrix of another number of rows.
    """
    if isinstance(layer, (BilinearLinear, BilinearConv2d)):
        left, right = (map_input(part, matrix) for part in (layer.left, layer.right))
        return with_parts(layer, left=left, right=right)
    check_affine(layer)
    weight = to_double(layer.weight)
    _check_size(matrix, 0, weight.shape[1], "inputs")
    mapped = torch.einsum("oc...,cd->od...", weight, matrix.to(weight))
    return with_weights(layer, mapped, bias_of(layer))


def map_output(layer: AnyLayer, matrix: Float[Tensor, "new outputs"]) -> AnyLayer:
    """Apply a matrix to the layer's output: ``matrix layer(x)``, as weights, biases included.

    To the output channels of a convolution, at every position.

    Raises:
        TypeError: a layer that is neither bilinear nor nn.Linear nor nn.Conv2d.
        ValueError: a grouped convolution, or a matrix of another number of columns.
    """
    if isinstance(layer, (BilinearLinear, BilinearConv2d)):
        return with_parts(layer, down=map_output(explicit_down(layer), matrix))
    check_affine(layer)
    weight, bias = to_double(layer.weight), bias_of(layer)
    _check_size(matrix, 1, len(weight), "outputs")
    matrix = matrix.to(weight)
    mapped = torch.einsum("po,o...->p...", matrix, weight)
    return with_weights(layer, mapped, None if bias is None else matrix @ bias)


def scaling_matrix(direction: Float[Tensor, "*several d"], factor: float) -> Float[Tensor, "d d"]:
    """Build ``I + (factor - 1) P``, ``P`` the orthogonal projector on the direction or the span.

    As a skip connection's weight, it scales the direction in a residual stream. In float64.

    Raises:
        ValueError: a factor or direction that is not finite, or a direction that is zero.
    """
    check_finite(factor=factor)
    rows = torch.atleast_2d(to_double(as_numbers(direction, "a direction")))
    if rows.ndim != 2 or not torch.isfinite(rows).all():
        raise ValueError(
            f"expected finite directions (d,) or (n, d); got shape {tuple(rows.shape)}"
        )
    _, sizes, basis = torch.linalg.svd(rows, full_matrices=False)
    basis = basis[sizes > sizes.sum() * max(rows.shape) * torch.finfo(torch.float64).eps]
    if len(basis) == 0:
        raise ValueError("expected a direction that is not zero")
    identity = torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
    return identity + (factor - 1) * basis.T @ basis


def span(directions: Float[Tensor, "*several channels"]) -> Float[Tensor, "k channels"]:
    """Return an orthonormal basis of what one or several directions span, in float64.

    Raises:
        ValueError: shape other than (channels,) or (n, channels), not finite, or all zero.
    """
    complement = scaling_matrix(directions, 0.0)
    projector = torch.eye(len(complement)).to(complement) - complement
    values, vectors = torch.linalg.eigh(projector)
    return vectors.T[values > 0.5].contiguous()


def rotation_matrix(
    source: Float[Tensor, "d"], target: Float[Tensor, "d"], angle: float | None = None
) -> Float[Tensor, "d d"]:
    """Build the rotation within the plane of two directions that turns ``source`` to ``target``.

    Args:
        source: a direction of any norm.
        target: another.
        angle: in radians; all the way from source to target when None.

    Raises:
        ValueError: directions of different shapes, not finite, zero or parallel, or an angle that
            is not finite.
    """
    basis, turn = plane_rotation(source, target, angle)
    return torch.eye(basis.shape[1]).to(basis) + basis.T @ turn @ basis


def plane_rotation(
    source: Float[Tensor, "d"], target: Float[Tensor, "d"], angle: float | None
) -> tuple[Float[Tensor, "2 d"], Float[Tensor, "2 2"]]:
    """Return an orthonormal basis ``B`` of the plane and ``M``: the rotation is ``I + Bᵀ M B``.

    Raises:
        ValueError: as `rotation_matrix`.
    """
    source = to_double(as_numbers(source, "a source")).flatten()
    size = len(source)
    source = as_direction(source, size, "inputs of a rotation")
    target = as_numbers(target, "a target").flatten()
    target = as_direction(target, size, "numbers of the source").to(source)
    if not (source.any() and target.any()):
        raise ValueError("expected directions that are not zero")
    first, toward = source / source.norm(), target / target.norm()
    across = toward - (toward @ first) * first
    if across.norm() < 1e-7:
        raise ValueError("source and target are parallel: they span no plane to rotate in")
    second = across / across.norm()
    second = second - (second @ first) * first
    basis = torch.stack([first, second / second.norm()])
    full = torch.atan2(basis[1] @ toward, first @ toward)
    if angle is not None:
        check_finite(angle=angle)
    theta = full if angle is None else full.new_tensor(angle)
    cos, sin = theta.cos(), theta.sin()
    return basis, torch.stack([torch.stack([cos - 1, -sin]), torch.stack([sin, cos - 1])])


def _check_size(matrix: Tensor, axis: int, size: int, of: str) -> None:
    if matrix.ndim != 2 or matrix.shape[axis] != size:
        raise ValueError(
            f"expected a matrix with {size} {('rows', 'columns')[axis]}, one for each of the "
            f"{of}; got shape {tuple(matrix.shape)}"
        )


def _scaling_for(direction: Tensor, size: int, factor: float) -> Float[Tensor, "d d"]:
    direction = as_numbers(direction, "a direction")
    if direction.ndim not in (1, 2) or direction.shape[-1] != size:
        raise ValueError(
            f"expected a direction of shape ({size},), or several as (n, {size}); "
            f"got shape {tuple(direction.shape)}"
        )
    return scaling_matrix(direction, factor)
