"""Cross terms: what a bilinear convolution multiplies one direction of its input channels with.

With ``x = s u + rest`` (``u`` a unit channel direction, ``s`` its map, ``rest`` orthogonal to ``u``
at every position) the product ``(W * x)(V * x)`` splits exactly into a part quadratic in ``s``, a
cross part that multiplies ``s`` with ``rest``, and a part of ``rest`` alone. The cross part says
what the concept along ``u`` is multiplied with.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from rlbilinear.convolution import convolve, geometry
from rlbilinear.layers import BilinearConv2d
from rlbilinear.quadratic import as_direction
from rlbilinear.spectrum import sign_gauge


@dataclass(frozen=True, eq=False)
class SplitOutput:
    """A bilinear convolution's output in three parts, which add up to it.

    ``square`` is quadratic in the read direction's map ``s``, ``cross`` is ``s`` times the rest
    (biases included, as they multiply ``s`` too), ``rest`` does not contain ``s``.
    """

    square: Float[Tensor, "batch outputs out_height out_width"]
    cross: Float[Tensor, "batch outputs out_height out_width"]
    rest: Float[Tensor, "batch outputs out_height out_width"]


def split_by_direction(
    conv: BilinearConv2d,
    x: Float[Tensor, "batch channels height width"],
    direction: Float[Tensor, "channels"],
) -> SplitOutput:
    """Split the layer's output on ``x`` by what an input channel direction has in it.

    Args:
        conv: the reading layer.
        x: its input; the parts have its dtype.
        direction: a vector over the input channels; its norm does not matter.

    Raises:
        ValueError: the direction is not ``(in_channels,)``, not finite, or zero.
    """
    unit = unit_direction(direction, conv.in_channels).to(x)
    s = torch.einsum("c,nchw->nhw", unit, x)[:, None]
    rest = x - unit[:, None, None] * s
    shape = geometry(conv)
    left_s, right_s = (
        F.conv2d(s, torch.einsum("hcij,c->hij", layer.weight, unit)[:, None], None, *shape)
        for layer in (conv.left, conv.right)
    )
    left_rest, right_rest = conv.left(rest), conv.right(rest)
    products = left_s * right_s, left_s * right_rest + left_rest * right_s, left_rest * right_rest
    if conv.down is None:
        return SplitOutput(*products)
    square, cross = (F.conv2d(product, conv.down.weight) for product in products[:2])
    return SplitOutput(square, cross, conv.down(products[2]))


@dataclass(frozen=True, eq=False)
class CrossForm:
    """What a bilinear convolution multiplies an input direction with, seen in an output direction.

    At every position, with ``s`` the input direction's map:

        ``output . cross = sum_r values_r (patterns_r * s)(partners_r * x) + linear * s``

    Patterns (where the concept lies) and partners (what it is multiplied with) are orthonormal;
    every tap of a partner is orthogonal to the input direction. Values are positive, descending.
    """

    values: Float[Tensor, "r"]
    patterns: Float[Tensor, "r kh kw"]
    partners: Float[Tensor, "r channels kh kw"]
    linear: Float[Tensor, "kh kw"]
    input_direction: Float[Tensor, "channels"]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)

    def maps(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch r out_height out_width"]:
        """Return ``value * (pattern * s)(partner * x)`` for every component, in the dtype of x."""
        concept = self._convolve(self._concept(x), self.patterns[:, None])
        return self.values.to(x)[:, None, None] * concept * self._convolve(x, self.partners)

    def total(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch out_height out_width"]:
        """Sum the maps and add the linear part: what `SplitOutput.cross` has of the direction."""
        linear = self._convolve(self._concept(x), self.linear[None, None]).squeeze(1)
        return self.maps(x).sum(1) + linear

    def _concept(self, x: Tensor) -> Tensor:
        return torch.einsum("c,nchw->nhw", self.input_direction.to(x), x)[:, None]

    def _convolve(self, x: Tensor, filters: Tensor) -> Tensor:
        return convolve(x, filters, self.stride, self.padding, self.dilation)


def cross_form(
    conv: BilinearConv2d,
    input_direction: Float[Tensor, "channels"],
    output_direction: Float[Tensor, "outputs"],
) -> CrossForm:
    """Decompose the cross part of a reader by the singular value decomposition of its form.

    In float64, up to the numerical rank, which is at most ``kh * kw``.

    Args:
        conv: the reading layer.
        input_direction: a vector over its input channels; its norm does not matter.
        output_direction: a vector over its output channels, of any norm.

    Raises:
        ValueError: a direction of another size, not finite, or a zero input direction.
    """
    form = conv.quadratic_form(output_direction)
    unit = unit_direction(input_direction, conv.in_channels).to(form.weight)
    channels, height, width = conv.left.weight.shape[1:]
    left, right = (f.reshape(-1, channels, height * width) for f in (form.left, form.right))
    left_s, right_s = (torch.einsum("hct,c->ht", factor, unit) for factor in (left, right))
    matrix = torch.einsum("h,ht,hcq->tcq", form.weight, left_s, right)
    matrix += torch.einsum("h,ht,hcq->tcq", form.weight, right_s, left)
    # Within what is orthogonal to u, or rounding turns partners of small values towards u.
    others = torch.linalg.qr(unit[:, None], mode="complete").Q[:, 1:]
    within = torch.einsum("tcq,cd->tdq", matrix, others)
    patterns, values, found = torch.linalg.svd(within.flatten(1), full_matrices=False)
    partners = torch.einsum("cd,rdq->rcq", others, found.reshape(len(found), *within.shape[1:]))
    size = (left.norm() * right.norm() * form.weight.abs().amax()).item()
    kept = values > size * channels * height * width * torch.finfo(torch.float64).eps
    patterns, partners = patterns.T[kept], partners[kept].flatten(1)
    signs = sign_gauge(patterns)
    return CrossForm(
        values[kept],
        (signs * patterns).reshape(-1, height, width),
        (signs * partners).reshape(-1, channels, height, width),
        torch.einsum("ct,c->t", form.linear.reshape(channels, -1), unit).reshape(height, width),
        unit,
        *geometry(conv),
    )


def unit_direction(direction: Tensor, channels: int) -> Float[Tensor, "channels"]:
    """Check a direction over input channels and scale it to norm 1, in float64."""
    direction = as_direction(direction, channels, "input channels")
    norm = direction.norm()
    if norm == 0:
        raise ValueError("expected a direction that is not zero")
    return direction / norm
