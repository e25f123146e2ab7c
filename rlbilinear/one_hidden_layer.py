"""Networks with one hidden layer, in the one form that approximants are computed from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rlbilinear.layers import BilinearConv2d, BilinearLinear
from rlbilinear.moments import Activation, as_activation
from rlbilinear.spectrum import to_double

Affine = nn.Linear | nn.Conv2d

ACCEPTED = (
    "a torch.nn.Sequential or a tuple of (affine, activation), (affine, activation, affine), "
    "(activation, affine) or (affine,), where affine is nn.Linear or nn.Conv2d; "
    "a GatedLinear, a BilinearLinear or a BilinearConv2d"
)
"""What `approximate` takes as a network, in words."""


class GatedLinear(nn.Module):
    """Gated linear unit ``y = down(g(gate(x)) * value(x))``: SwiGLU, GeGLU, ReGLU, bilinear.

    Made of layers that exist already (they are not copied), dense or convolutional.

    Args:
        gate: what the activation is applied to.
        value: of the same kind and sizes as ``gate``.
        down: after the product, dense or a convolution as ``gate``; the identity when None.
        activation: g; a name of `rlbilinear.moments.ACTIVATIONS` ("silu" for SwiGLU, "gelu" for
            GeGLU, "relu" for ReGLU, "identity" for a bilinear layer), a module, or a function.

    Raises:
        TypeError: a layer is not nn.Linear or nn.Conv2d, or the layers are of two kinds.
        ValueError: the sizes do not fit, or the activation is unknown.
    """

    def __init__(
        self,
        gate: Affine,
        value: Affine,
        down: Affine | None = None,
        activation: "str | nn.Module | Callable[[Tensor], Tensor] | Activation" = "silu",
    ) -> None:
        super().__init__()
        for name, layer in (("gate", gate), ("value", value), ("down", down)):
            if not (layer is None and name == "down") and type(layer) is not type(gate):
                raise TypeError(
                    f"network: gate, value and down must all be nn.Linear or all nn.Conv2d; "
                    f"gate is {type(gate).__name__}, {name} is {type(layer).__name__}"
                )
        _check_affine(gate)
        _check_affine(value)
        if gate.weight.shape != value.weight.shape or _geometry(gate) != _geometry(value):
            raise ValueError(
                f"network: gate and value must have the same sizes, got {gate} and {value}"
            )
        self.gate, self.value, self.down = gate, value, down
        self.activation = as_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        hidden = self.activation(self.gate(x)) * self.value(x)
        return hidden if self.down is None else self.down(hidden)


@dataclass(frozen=True)
class ConvGeometry:
    """How a convolution over a convolution reads an image; pairs are (height, width).

    The second convolution, ``down``, has kernel 1, stride 1 and no padding where there is none.
    What one output sees, its receptive field, is the first convolution's patch, dilated as it is,
    or, where ``down`` has several taps, the whole rectangle that they cover.
    """

    channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    down_kernel: tuple[int, int] = (1, 1)
    down_stride: tuple[int, int] = (1, 1)
    down_padding: tuple[int, int] = (0, 0)
    down_dilation: tuple[int, int] = (1, 1)

    @property
    def receptive(self) -> tuple[int, int]:
        """The height and width of a receptive field, in pixels that are `spread` apart."""
        if self.taps == 1:
            return self.kernel
        height, width = (
            self.dilation[i] * (self.kernel[i] - 1)
            + self.stride[i] * self.down_dilation[i] * (self.down_kernel[i] - 1)
            + 1
            for i in range(2)
        )
        return height, width

    @property
    def spread(self) -> tuple[int, int]:
        """The dilation of a receptive field."""
        return self.dilation if self.taps == 1 else (1, 1)

    @property
    def field_stride(self) -> tuple[int, int]:
        """The pixels from one receptive field to the next."""
        return self.stride[0] * self.down_stride[0], self.stride[1] * self.down_stride[1]

    @property
    def taps(self) -> int:
        """The places of the hidden map that one output sees."""
        return self.down_kernel[0] * self.down_kernel[1]

    @property
    def inputs(self) -> int:
        """The numbers in a receptive field."""
        return self.channels * self.receptive[0] * self.receptive[1]

    def rows(self, weight: Float[Tensor, "hidden patch"]) -> Float[Tensor, "units inputs"]:
        """Lay the hidden kernels out over the receptive field: a row for each channel and tap."""
        if self.taps == 1:
            return weight
        kernels = weight.reshape(len(weight), self.channels, *self.kernel)
        rows = weight.new_zeros(len(weight), *self.down_kernel, self.channels, *self.receptive)
        for i in range(self.down_kernel[0]):
            for j in range(self.down_kernel[1]):
                top = i * self.stride[0] * self.down_dilation[0]
                left = j * self.stride[1] * self.down_dilation[1]
                field = rows[:, i, j, :, top :: self.dilation[0], left :: self.dilation[1]]
                field[:, :, : self.kernel[0], : self.kernel[1]] = kernels
        return rows.reshape(len(weight) * self.taps, -1)


@dataclass(frozen=True, eq=False)
class HiddenLayer:
    """``x -> down (g(weight x + bias) * (value x + value_bias)) + down_bias``, in float64.

    Without ``value`` the factor is one; without ``down`` it is the identity. A convolution
    has flat kernels here, and ``down`` has a column for each hidden channel and tap.
    """

    weight: Float[Tensor, "hidden patch"]
    bias: Float[Tensor, "hidden"]
    activation: Activation
    value: tuple[Float[Tensor, "hidden patch"], Float[Tensor, "hidden"]] | None
    """weight and bias of the linear factor"""
    down: Float[Tensor, "outputs units"] | None
    down_bias: Float[Tensor, "outputs"]
    geometry: ConvGeometry | None

    @property
    def inputs(self) -> int:
        """The size of the vector it is a function of: a receptive field, for a convolution."""
        return self.geometry.inputs if self.geometry else self.weight.shape[1]


Network = (
    nn.Sequential
    | GatedLinear
    | BilinearLinear
    | BilinearConv2d
    | Sequence["Affine | str | nn.Module | Callable[[Tensor], Tensor] | Activation"]
)


def as_hidden_layer(network: Network) -> HiddenLayer:
    """Read a network's weights.

    Raises:
        TypeError: not a network of those accepted; the message lists them.
        ValueError: unknown activation, layers that do not fit, weights that are not finite, or
            a convolution with groups or padding other than by zeros.
    """
    if isinstance(network, GatedLinear):
        return _hidden_layer(network.gate, network.activation, network.down, network.value)
    if isinstance(network, BilinearLinear | BilinearConv2d):
        identity = as_activation("identity")
        return _hidden_layer(network.left, identity, network.down, network.right)
    if not isinstance(network, nn.Sequential | tuple | list):
        raise TypeError(f"network: expected {ACCEPTED}; got {type(network).__name__}")
    parts = list(network)
    affine = [isinstance(part, Affine) for part in parts]
    if affine == [True]:
        return _hidden_layer(parts[0], as_activation("identity"), None)
    if affine == [True, False]:
        return _hidden_layer(parts[0], as_activation(parts[1]), None)
    if affine == [True, False, True]:
        return _hidden_layer(parts[0], as_activation(parts[1]), parts[2])
    if affine == [False, True]:
        return _hidden_layer(_identity_before(parts[1]), as_activation(parts[0]), parts[1])
    given = ", ".join(type(part).__name__ for part in parts)
    raise TypeError(f"network: expected {ACCEPTED}; got ({given})")


def receptive_fields(
    network: Network, images: Float[Tensor, "batch channels height width"]
) -> Float[Tensor, "fields inputs"]:
    """Return every receptive field of a convolution, as `approximate` wants their statistics.

    With one convolution these are its zero-padded patches, at every output. With a second one
    after it, the fields whose hidden positions all lie on the map.
    Stream them: ``estimate_gaussian(receptive_fields(network, x) for x in batches)``.

    Raises:
        TypeError: the network is not convolutional, or not one of those accepted.
        ValueError: the images have other channels, or are smaller than a receptive field.
    """
    geometry = as_hidden_layer(network).geometry
    if geometry is None:
        raise TypeError("network: it is dense, so its inputs have no patches")
    check_images(images, geometry)
    kernel, spread = geometry.receptive, geometry.spread
    padded = [n + 2 * p for n, p in zip(images.shape[2:], geometry.padding, strict=True)]
    if any(n < s * (k - 1) + 1 for n, k, s in zip(padded, kernel, spread, strict=True)):
        raise ValueError(
            f"images: {tuple(images.shape[2:])} with padding {geometry.padding} do not hold a "
            f"receptive field of {kernel}, dilation {spread}"
        )
    fields = F.unfold(
        images, kernel, dilation=spread, padding=geometry.padding, stride=geometry.field_stride
    )
    return fields.transpose(1, 2).flatten(0, 1)


def check_images(images: Tensor, geometry: ConvGeometry) -> None:
    """Refuse what is not a batch of images with the network's channels."""
    if images.ndim != 4 or images.shape[1] != geometry.channels:
        raise ValueError(
            f"images: expected (batch, {geometry.channels}, height, width), "
            f"got {tuple(images.shape)}"
        )


def _hidden_layer(
    first: Affine, activation: Activation, down: Affine | None, value: Affine | None = None
) -> HiddenLayer:
    _check_affine(first)
    weight, bias = _weight_and_bias(first, "the first layer")
    linear = None if value is None else _weight_and_bias(value, "the value layer")
    geometry = None
    if isinstance(first, nn.Conv2d):
        geometry = ConvGeometry(first.in_channels, *_geometry(first))
    if down is None:
        none = weight.new_zeros(len(weight))
        return HiddenLayer(weight, bias, activation, linear, None, none, geometry)
    _check_affine(down)
    if type(down) is not type(first) or down.weight.shape[1] != len(weight):
        raise ValueError(f"network: {down} does not fit after {first}")
    down_weight, down_bias = _weight_and_bias(down, "the last layer")
    if isinstance(first, nn.Conv2d):
        geometry = ConvGeometry(first.in_channels, *_geometry(first), *_geometry(down))
    return HiddenLayer(weight, bias, activation, linear, down_weight, down_bias, geometry)


def _weight_and_bias(affine: Affine, name: str) -> tuple[Tensor, Tensor]:
    weight = to_double(affine.weight).flatten(1)
    bias = weight.new_zeros(len(weight)) if affine.bias is None else to_double(affine.bias)
    if not (torch.isfinite(weight).all() and torch.isfinite(bias).all()):
        raise ValueError(f"network: {name} has weights that are nan or infinite")
    return weight, bias


def _identity_before(affine: Affine) -> Affine:
    """Return the layer whose hidden units are the inputs themselves."""
    with torch.device("meta"):  # no random numbers drawn
        identity: Affine
        if isinstance(affine, nn.Conv2d):
            size = affine.in_channels
            identity = nn.Conv2d(size, size, 1, bias=False)
        else:
            size = affine.in_features
            identity = nn.Linear(size, size, bias=False)
    weight = torch.eye(size).to(affine.weight).reshape(identity.weight.shape)
    identity.load_state_dict({"weight": weight}, assign=True)
    return identity


def _check_affine(affine: Affine) -> None:
    if not isinstance(affine, Affine):
        raise TypeError(f"network: expected nn.Linear or nn.Conv2d, got {type(affine).__name__}")
    if isinstance(affine, nn.Conv2d) and (
        affine.groups != 1 or affine.padding_mode != "zeros" or isinstance(affine.padding, str)
    ):
        raise ValueError(
            "network: expected a convolution without groups, padded by a number of zeros; "
            f"got {affine}"
        )


def _geometry(affine: Affine) -> tuple[tuple[int, int], ...]:
    """Kernel, stride, padding and dilation of a convolution; nothing for a dense layer."""
    if isinstance(affine, nn.Linear):
        return ()
    pairs = affine.kernel_size, affine.stride, affine.padding, affine.dilation
    return tuple((int(pair[0]), int(pair[1])) for pair in pairs)
