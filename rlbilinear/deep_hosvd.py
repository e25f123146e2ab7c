"""HOSVD of a deep network: every layer in the singular basis of the layer before it.

The first layer's output is ``sum_s r_s sigma_s z_s`` with coordinates ``z_s = M_s(x)``, quadratic
forms of unit norm. The next layer's weights, pulled through ``r_s sigma_s``, are a tensor of the
``z``; decomposing it gives the next coordinates, and so on up. Dropping components of one layer
makes every later one smaller. Biases and skip connections go through a coordinate that is always 1.

Source: Pearce et al., "Weight-based decomposition: a case for bilinear MLPs".
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rlbilinear.checks import is_whole
from rlbilinear.hosvd import HigherOrderSVD, hosvd
from rlbilinear.layers import BilinearLinear
from rlbilinear.spectrum import to_double
from rlbilinear.stack import BilinearStack, Stage
from rlbilinear.tensor import BilinearTensor


@dataclass(frozen=True, eq=False)
class DeepHOSVD:
    """The components of every bilinear layer, in coordinates of the layer before.

    ``layers[l].tensor`` maps ``(z_1 .. z_k, 1)`` of layer ``l - 1`` (``(x, 1)`` for the first) to
    the layer's output; its components, the first ``kept[l]`` of them, are the next coordinates.
    """

    layers: tuple[HigherOrderSVD, ...]
    kept: tuple[int, ...]
    head: Float[Tensor, "outputs coordinates"]
    """of the last layer's ``(z_1 .. z_k, 1)``"""

    def coordinates(self, x: Float[Tensor, "n inputs"]) -> list[Float[Tensor, "n kept"]]:
        """Return every layer's coordinates ``z``, in float64."""
        found = []
        state = _with_one(x.double())
        for layer, kept in zip(self.layers, self.kept, strict=True):
            scaled = layer.outputs[:kept] / layer.singular_values[:kept, None]
            z = layer.tensor.with_outputs(scaled)(state)
            found.append(z)
            state = _with_one(z)
        return found

    def __call__(self, x: Float[Tensor, "n inputs"]) -> Float[Tensor, "n outputs"]:
        """Predict the network's output from the components kept, in float64."""
        return _with_one(self.coordinates(x)[-1]) @ self.head.T


def deep_hosvd(stack: BilinearStack, kept: Sequence[int | None] | int | None = None) -> DeepHOSVD:
    """Decompose a stack of dense layers, from the first to the last.

    Linear stages (an embedding, a head) become part of the layer after or before. With every
    component kept the result computes what the network does; what fewer of them leave out is, for
    each layer, `HigherOrderSVD.error` in its own coordinates, and on data the prediction's R².

    Args:
        stack: `BilinearLinear` and `nn.Linear` stages, at least one bilinear, with or without
            skip connections.
        kept: components kept of each bilinear layer, the largest; one number for all; None for all
            of them.

    Raises:
        TypeError: another kind of stage.
        ValueError: a number of components for more or fewer layers, or none kept of a layer.
    """
    mains = [stage.main for stage in stack.stages]
    bilinear = sum(isinstance(main, BilinearLinear) for main in mains)
    counts = [*kept] if isinstance(kept, Iterable) else [kept] * bilinear
    fits = all(count is None or (is_whole(count) and count > 0) for count in counts)
    if not bilinear or len(counts) != bilinear or not fits:
        raise ValueError(
            f"expected at least one bilinear layer, and how many components to keep of each of "
            f"the {bilinear}, at least one; got {kept}"
        )
    pull: Tensor | None = None
    layers: list[HigherOrderSVD] = []
    numbers: list[int] = []
    for stage in stack.stages:
        if isinstance(stage.main, nn.Linear):
            affine = _homogeneous(stage.main)
            if stage.skip is not None:
                affine = affine + _skip(stage, stage.main.in_features, affine)
            pull = affine if pull is None else affine @ pull
            continue
        tensor = _whole(stage)
        found = hosvd(tensor if pull is None else tensor.with_inputs(pull))
        count = min(counts[len(layers)] or len(found.outputs), len(found.outputs))
        columns = found.outputs[:count] * found.singular_values[:count, None]
        pull = torch.block_diag(columns.T, columns.new_ones(1, 1))
        layers.append(found)
        numbers.append(count)
    assert pull is not None
    return DeepHOSVD(tuple(layers), tuple(numbers), pull[:-1])


def _whole(stage: Stage) -> BilinearTensor:
    """Return a stage as a tensor of ``(x, 1)``, its skip connection included."""
    if not isinstance(stage.main, BilinearLinear):
        raise TypeError(
            f"expected stages that are BilinearLinear or Linear, got {type(stage.main).__name__}"
        )
    tensor = BilinearTensor.of(stage.main)
    if stage.skip is not None:
        skip = _skip(stage, tensor.in_features, tensor.linear)
        linear, constant = skip[:-1, :-1], skip[:-1, -1]
        tensor = BilinearTensor(
            tensor.left,
            tensor.right,
            tensor.down,
            tensor.linear + linear,
            tensor.constant + constant,
        )
    return tensor.homogeneous()


def _skip(stage: Stage, size: int, like: Tensor) -> Float[Tensor, "outputs+1 inputs+1"]:
    """Return a skip connection as a matrix on ``(x, 1)`` that leaves the 1 to the main branch."""
    if isinstance(stage.skip, nn.Linear):
        matrix = _homogeneous(stage.skip)
    elif isinstance(stage.skip, nn.Identity):
        matrix = torch.eye(size + 1).to(like)
    else:
        raise TypeError(f"expected an identity or linear skip, got {type(stage.skip).__name__}")
    matrix[-1] = 0
    return matrix


def _homogeneous(linear: nn.Linear) -> Float[Tensor, "outputs+1 inputs+1"]:
    weight = to_double(linear.weight)
    bias = weight.new_zeros(len(weight)) if linear.bias is None else to_double(linear.bias)
    top = torch.cat([weight, bias[:, None]], dim=1)
    last = torch.zeros_like(top[:1])
    last[0, -1] = 1
    return torch.cat([top, last])


def _with_one(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d+1"]:
    return torch.cat([x, x.new_ones(len(x), 1)], dim=1)
