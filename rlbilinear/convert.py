"""Polynomials as torch modules that replace the network they approximate, and as files."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from rlbilinear.coefficients import unit_quadratics
from rlbilinear.layers import BilinearConv2d, BilinearLinear
from rlbilinear.moments import ACTIVATIONS
from rlbilinear.one_hidden_layer import ConvGeometry
from rlbilinear.polynomial import Polynomial

FORMAT = "rlbilinear polynomial 1"


class PolynomialLayer(nn.Module):
    """A polynomial of any degree as a module: its factors are buffers, none is trained."""

    def __init__(self, polynomial: Polynomial) -> None:
        super().__init__()
        self._template = polynomial
        self._names = {}
        for name, tensor in polynomial.tensors().items():
            if not name.startswith(("mean", "covariance", "known_variance", "best")):
                self._names[name] = name.replace(".", "_")
                self.register_buffer(self._names[name], tensor.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Evaluate the polynomial; images for a convolution."""
        own = {name: getattr(self, buffer) for name, buffer in self._names.items()}
        return self._template.with_tensors(self._template.tensors() | own)(x)


def to_module(polynomial: Polynomial, dtype: torch.dtype | None = None) -> nn.Module:
    """Return a module that computes the polynomial and can stand in its network's place.

    Args:
        polynomial: of any degree.
        dtype: of the module; torch's default when None.

    Returns:
        Degree 2: a `BilinearLinear`, or for one convolution a `BilinearConv2d`, biases included,
        to read and edit as any other; of a convolution after a convolution, a `BilinearConv2d`
        and an `nn.Conv2d` in sequence. Degree 0 or 1: an `nn.Linear`, an `nn.Conv2d`, or two of
        these in sequence. Else a `PolynomialLayer`. On the device of the polynomial.
    """
    dtype = torch.get_default_dtype() if dtype is None else dtype
    g = polynomial.geometry
    if polynomial.degree > 2:
        return PolynomialLayer(polynomial).to(dtype)
    if g is not None and not (g.taps == 1 and g.down_stride == (1, 1) and g.down_padding == (0, 0)):
        return _maps_then_conv(polynomial).to(dtype)
    return (_bilinear if polynomial.degree == 2 else _affine)(polynomial).to(dtype)


def _affine(p: Polynomial) -> nn.Linear | nn.Conv2d:
    g, u = p.geometry, p.units
    of = unit_quadratics(p)
    down = torch.eye(p.out_features).to(p.bias) if p.down is None else p.down
    weight = (down * of.linear) @ u.weight
    if u.factor is not None:
        weight = weight + (down * of.factor) @ u.factor.weight
    with torch.device("meta"):
        layer: nn.Linear | nn.Conv2d
        if g is None:
            layer = nn.Linear(p.in_features, p.out_features)
        else:
            layer = nn.Conv2d(g.channels, p.out_features, g.kernel, g.stride, g.padding, g.dilation)
    return _with_weights(layer, {"weight": weight, "bias": p.bias + down @ of.constant})


def _bilinear(p: Polynomial) -> BilinearLinear | BilinearConv2d:
    """Write every unit's quadratic as products ``t (a t + c)`` and, gated, ``xi (b t + d)``."""
    u = p.units
    a0, a1, a2 = p.values
    t = u.weight * u.inverse_std[:, None]
    minus = -u.shift * u.inverse_std
    half = 2**-0.5
    left, left_bias = t, minus
    right, right_bias = (a2 * half)[:, None] * t, a2 * half * minus + a1
    down = torch.eye(p.out_features).to(p.bias) if p.down is None else p.down
    constant = p.bias + down @ (a0 - a2 * half)
    if u.factor is not None and p.products is not None:
        slope = u.factor.slope
        b0, b1 = p.products
        left = torch.cat([left, u.factor.weight - slope[:, None] * t])
        left_bias = torch.cat([left_bias, -u.factor.shift - slope * minus])
        right = torch.cat([right, b1[:, None] * t])
        right_bias = torch.cat([right_bias, b1 * minus + b0])
        down = torch.cat([down, down], 1)
    g = p.geometry
    with torch.device("meta"):  # no memory, no random numbers drawn
        layer: BilinearLinear | BilinearConv2d
        if g is None:
            layer = BilinearLinear(
                p.in_features, p.out_features, hidden_features=len(left), bias=True
            )
        else:
            layer = BilinearConv2d(
                g.channels,
                p.out_features,
                g.kernel,
                hidden_channels=len(left),
                stride=g.stride,
                padding=g.padding,
                dilation=g.dilation,
                bias=True,
            )
    return _with_weights(
        layer,
        {
            "left.weight": left,
            "left.bias": left_bias,
            "right.weight": right,
            "right.bias": right_bias,
            "down.weight": down,
            "down.bias": constant,
        },
    )


def _maps_then_conv(p: Polynomial) -> nn.Sequential:
    """Build maps ``y²``, ``y`` (``y z``, ``z``) and 1 of each channel, then weigh the taps.

    The map of ones gives each tap its constant only where it lies on the hidden map. Up to degree
    1 there are no products, and the maps come from an `nn.Conv2d`.
    """
    g, u = p.geometry, p.units
    assert g is not None and p.down is not None
    down, kernel = p.down, g.down_kernel
    hidden = len(u.weight)
    # centred and scaled by the channel, so that the maps are of size one
    centre = u.shift.reshape(hidden, -1).mean(1)
    scale = u.std.reshape(hidden, -1).mean(1)
    scale = torch.where(scale > 0, scale, 1.0)
    at_centre, at_scale = (v.repeat_interleave(g.taps) for v in (centre, scale))
    of = unit_quadratics(p)
    zero, zeros = torch.zeros_like(u.weight), torch.zeros_like(centre)
    y, one = (u.weight / scale[:, None], -centre / scale), (zero, zeros + 1)
    # y = scale y' + centre
    products = [(y, y, of.squares * at_scale**2)]
    singles = [(y, one, (2 * of.squares * at_centre + of.linear) * at_scale)]
    constant = of.constant + (of.squares * at_centre + of.linear) * at_centre
    if u.factor is not None:
        z = (u.factor.weight, zeros)
        products.append((z, y, of.crossed * at_scale))
        singles.append((z, one, of.crossed * at_centre + of.factor))
    chosen = [*(products if p.degree == 2 else []), *singles]
    first_of_one = (zero[:1], zeros[:1] + 1)
    left = [*(each[0] for each in chosen), first_of_one]
    right = [*(each[1] for each in chosen), first_of_one]
    maps = [(down * term).reshape(p.out_features, hidden, *kernel) for *_, term in chosen]
    maps.append((down * constant).reshape(p.out_features, hidden, *kernel).sum(1, keepdim=True))
    count = hidden * len(chosen) + 1
    sides = {"left": left, "right": right} if p.degree == 2 else {"": left}
    weights = {
        f"{side}.{name}".lstrip("."): torch.cat([each[index] for each in rows])
        for side, rows in sides.items()
        for index, name in enumerate(("weight", "bias"))
    }
    with torch.device("meta"):
        first: BilinearConv2d | nn.Conv2d
        if p.degree == 2:
            first = BilinearConv2d(
                g.channels,
                count,
                g.kernel,
                stride=g.stride,
                padding=g.padding,
                dilation=g.dilation,
                bias=True,
            )
        else:
            first = nn.Conv2d(g.channels, count, g.kernel, g.stride, g.padding, g.dilation)
        conv = nn.Conv2d(
            count, p.out_features, kernel, g.down_stride, g.down_padding, g.down_dilation
        )
    _with_weights(first, weights)
    _with_weights(conv, {"weight": torch.cat(maps, 1), "bias": p.bias})
    return nn.Sequential(first, conv)


def _with_weights(layer: Any, weights: dict[str, Tensor]) -> Any:
    sizes = {name: weight.shape for name, weight in layer.state_dict().items()}
    layer.load_state_dict(
        {name: weight.clone().reshape(sizes[name]) for name, weight in weights.items()},
        assign=True,
    )
    return layer


def save_polynomial(polynomial: Polynomial, path: str | Path) -> None:
    """Write a polynomial to one safetensors file, by way of a temporary name.

    A function of your own cannot be written: the network's variance is computed instead, so that
    R² is known when it is read back; measuring on real inputs then needs the network.
    """
    path = Path(path)
    activation = polynomial.activation
    tensors = polynomial.tensors()
    if (activation is not None and not activation.name) or "variance" in vars(polynomial):
        tensors["known_variance"] = polynomial.variance
    metadata = {
        "format": FORMAT,
        "geometry": json.dumps(polynomial.geometry and asdict(polynomial.geometry)),
        "activation": json.dumps(
            [activation.name, activation.parameters] if activation and activation.name else None
        ),
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, metadata)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_polynomial(path: str | Path, device: str = "cpu") -> Polynomial:
    """Read a polynomial written by `save_polynomial`.

    Raises:
        ValueError: the file is not such a polynomial.
    """
    with safe_open(path, "pt", device=device) as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise ValueError(f"{path} is not a polynomial written by save_polynomial")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    geometry = json.loads(metadata["geometry"])
    activation = json.loads(metadata["activation"])
    return Polynomial.from_tensors(
        tensors,
        None if geometry is None else ConvGeometry(**{k: _pair(v) for k, v in geometry.items()}),
        None if activation is None else ACTIVATIONS[activation[0]](*activation[1]),
    )


def _pair(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
