"""Evaluating a polynomial, and the network it approximates: hidden units first, order by order."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from rlbilinear.moments import hermite
from rlbilinear.one_hidden_layer import ConvGeometry, check_images
from rlbilinear.polynomial_terms import PolynomialTerms

Size = tuple[int, int] | None
"""Height and width of a convolution's output."""


class HiddenUnits(NamedTuple):
    """The weights applied, biases not; units last, of a convolution places before them."""

    y: Tensor
    z: Tensor | None
    """the linear factor of gated units"""
    mask: Tensor | None
    """1 where a place lies on the hidden map, 0 where the second convolution pads it"""
    size: Size


def like(p: PolynomialTerms, x: Tensor) -> PolynomialTerms:
    """Return what evaluation needs, in the dtype and on the device of ``x``.

    Raises:
        ValueError: ``x`` is not floating-point.
    """
    if not x.is_floating_point():
        raise ValueError(f"x: expected floating-point numbers, got {x.dtype}")
    if (x.dtype, x.device) == (p.bias.dtype, p.bias.device):
        return p
    own = p.tensors()
    return p.with_tensors({k: v if k[:4] in ("mean", "cova") else v.to(x) for k, v in own.items()})


def orders(p: PolynomialTerms, x: Tensor) -> Iterator[Tensor]:
    """Yield the terms of each order at ``x``, as `Polynomial.orders` says."""
    p = like(p, x)
    hidden, size = hidden_orders(p, x)
    for n, order in enumerate(hidden):
        yield outputs(p, order, size, constant=n == 0)


def network(p: PolynomialTerms, x: Tensor) -> Tensor:
    """Evaluate the network that is approximated, as `Polynomial.network` says."""
    if p.activation is None:
        raise ValueError(
            "network: this polynomial does not hold the network's own function; "
            "give its outputs, or the network itself"
        )
    p = like(p, x)
    hidden, size = network_units(p, x)
    return outputs(p, hidden, size, constant=True)


def hidden_orders(p: PolynomialTerms, x: Tensor) -> tuple[Iterator[Tensor], Size]:
    """Return every order of the hidden units, one after another, and the output's size."""
    units = hidden_units(p, x)
    t, xi = _standard(p, units)

    def orders() -> Iterator[Tensor]:
        before = torch.zeros_like(t)
        for n, h in enumerate(hermite(t, p.degree)):
            order = p.values[n] * h
            if n and xi is not None and p.products is not None:
                order = order + p.products[n - 1] * before * xi
            yield order if units.mask is None else order * units.mask
            before = h

    return orders(), units.size


def network_units(p: PolynomialTerms, x: Tensor) -> tuple[Tensor, Size]:
    """Return the hidden units of the network that is approximated, and the output's size."""
    units = hidden_units(p, x)
    hidden = _activated(p, units)
    return hidden if units.mask is None else hidden * units.mask, units.size


def terms_and_units(p: PolynomialTerms, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a polynomial weighs, and the network's hidden units, in float64.

    Returns:
        ``he_0(t), ..., he_degree(t)`` and, gated, ``he_0(t) xi, ...``: (samples, terms, units);
        and the units (samples, units). Zero for taps off the hidden map, where it is padded.
    """
    units = hidden_units(p, x.to(p.bias))
    t, xi = _standard(p, units)
    terms = list(hermite(t, p.degree))
    if xi is not None:
        terms += [h * xi for h in terms[: p.degree]]
    own = _activated(p, units)
    if units.mask is not None:
        terms, own = [term * units.mask for term in terms], own * units.mask
    return torch.stack(terms, -2).reshape(-1, len(terms), t.shape[-1]), own.flatten(0, -2)


def outputs(p: PolynomialTerms, hidden: Tensor, size: Size, *, constant: bool) -> Tensor:
    """Weigh the hidden units, and add the bias if they are to have their constant."""
    y = hidden if p.down is None else hidden @ p.down.T
    y = y + p.bias if constant else y
    return y if size is None else y.transpose(1, 2).unflatten(2, size)


def hidden_units(p: PolynomialTerms, x: Tensor) -> HiddenUnits:
    """Apply the first layer's weights.

    Raises:
        ValueError: ``x`` is not of the shape of the network's inputs.
    """
    weights = [p.units.weight]
    if p.units.factor is not None:
        weights.append(p.units.factor.weight)
    g = p.geometry
    if g is None:
        if x.ndim == 0 or x.shape[-1] != p.in_features:
            raise ValueError(f"x: expected (..., {p.in_features}), got {tuple(x.shape)}")
        maps = [x @ w.T for w in weights]
        return HiddenUnits(maps[0], maps[1] if len(maps) == 2 else None, None, None)
    check_images(x, g)
    kernels = [w.reshape(len(w), g.channels, *g.kernel) for w in weights]
    maps = [F.conv2d(x, k, None, g.stride, g.padding, g.dilation) for k in kernels]
    height, width = (
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, k, s, d in zip(
            maps[0].shape[2:],
            g.down_padding,
            g.down_kernel,
            g.down_stride,
            g.down_dilation,
            strict=True,
        )
    )
    mask = _taps(g, torch.ones_like(maps[0][:1])) if any(g.down_padding) else None
    maps = [_taps(g, m) for m in maps]
    return HiddenUnits(maps[0], maps[1] if len(maps) == 2 else None, mask, (height, width))


def _standard(p: PolynomialTerms, units: HiddenUnits) -> tuple[Tensor, Tensor | None]:
    """Return ``t`` and, for gated units, ``xi``."""
    t = (units.y - p.units.shift) * p.units.inverse_std
    factor = p.units.factor
    if units.z is None or factor is None:
        return t, None
    return t, units.z - factor.shift - factor.slope * t


def _activated(p: PolynomialTerms, units: HiddenUnits) -> Tensor:
    assert p.activation is not None
    hidden = p.activation(units.y - p.units.shift + p.units.mean)
    factor = p.units.factor
    if units.z is None or factor is None:
        return hidden
    return hidden * (units.z - factor.shift + factor.mean)


def _taps(g: ConvGeometry, hidden: Tensor) -> Tensor:
    """Turn maps (batch, hidden, h, w) to what each place sees: (batch, places, units)."""
    if g.taps == 1 and g.down_stride == (1, 1) and not any(g.down_padding):
        return hidden.flatten(2).transpose(1, 2)
    seen = F.unfold(hidden, g.down_kernel, g.down_dilation, g.down_padding, g.down_stride)
    return seen.transpose(1, 2)
