"""A whole bilinear convolution as one quadratic form of the image, applied and never built."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

from rlbilinear.checks import check_whole
from rlbilinear.convolution import Geometry, geometry
from rlbilinear.lanczos import lanczos
from rlbilinear.layers import BilinearConv2d
from rlbilinear.quadratic import QuadraticForm, as_direction
from rlbilinear.spectrum import Spectrum, rounding


@dataclass(frozen=True, eq=False)
class ImageForm:
    """``x -> sum_hp weight_hp (left_h * x)_p (right_h * x)_p + linear . x + constant``, x an image.

    The sum goes over hidden channels h and output positions p. In float64; its eigenpairs take a
    few hundred convolutions and the memory of a few images a pair.
    """

    left: Float[Tensor, "hidden channels kh kw"]
    right: Float[Tensor, "hidden channels kh kw"]
    weight: Float[Tensor, "hidden out_height out_width"]
    linear: Float[Tensor, "channels height width"]
    constant: Float[Tensor, ""]
    geometry: Geometry

    @property
    def shape(self) -> tuple[int, int, int]:
        """The image's ``(channels, height, width)``."""
        channels, height, width = self.linear.shape
        return channels, height, width

    def __call__(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch"]:
        """Evaluate the form at images, in their dtype and on their device."""
        self._check(x)
        left, right = self._responses(x)
        square = (self.weight.to(x) * left * right).sum((1, 2, 3))
        return square + (x * self.linear.to(x)).sum((1, 2, 3)) + self.constant.to(x)

    def apply(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Multiply images by the symmetric matrix: two convolutions and their adjoints."""
        self._check(x)
        left, right = self._responses(x)
        weight, shape = self.weight.to(x), list(x.shape)
        from_left = conv2d_input(shape, self.left.to(x), weight * right, *self.geometry)
        from_right = conv2d_input(shape, self.right.to(x), weight * left, *self.geometry)
        return (from_left + from_right) / 2

    def gradient(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the gradient at images."""
        return 2 * self.apply(x) + self.linear.to(x)

    def eigh(self, k: int) -> Spectrum:
        """Return the ``k`` eigenpairs of largest ``|value|``, by Lanczos.

        Vectors are flat: ``vectors.reshape(-1, *form.shape)`` are images.

        Raises:
            ValueError: ``k`` is negative, or not well below the number of pixels: small images are
                for ``quadratic_form().eigh()``.
            RuntimeError: Lanczos did not converge.
        """
        size = self.linear.numel()
        check_whole(0, k=k)
        if k >= size - 1:
            raise ValueError(
                f"expected 0 <= k < {size - 1} eigenpairs of an image of {size} numbers, got {k}; "
                "all pairs of a small image: quadratic_form().eigh()"
            )

        def apply(x: Float[Tensor, "inputs"]) -> Float[Tensor, "inputs"]:
            return self.apply(x.reshape(1, *self.shape)).flatten()

        sizes = self.left.flatten(1).norm(dim=1) * self.right.flatten(1).norm(dim=1)
        tolerance = rounding(size, (self.weight * sizes[:, None, None]).norm()).item()
        return lanczos(apply, size, k, tolerance=tolerance, like=self.weight)

    @property
    def trace(self) -> Float[Tensor, ""]:
        """The trace of the matrix; at borders only taps inside the image count."""
        inside = self._unfold(self.linear.new_ones(1, 1, *self.shape[1:]))[0]
        taps = (self.left * self.right).sum(1).flatten(1)
        return (self.weight.flatten(1) * (taps @ inside)).sum()

    def quadratic_form(self) -> QuadraticForm:
        """Build the form with a row for every hidden channel and position: for small images."""
        pixels = self.linear.numel()
        each = torch.eye(pixels).to(self.linear).reshape(pixels, *self.shape)
        left, right = (response.flatten(1).T for response in self._responses(each))
        return QuadraticForm(
            left.contiguous(),
            right.contiguous(),
            self.weight.flatten(),
            self.linear.flatten(),
            self.constant,
        )

    def plus(
        self, linear: Float[Tensor, "channels height width"], constant: float | Tensor = 0.0
    ) -> "ImageForm":
        """Add ``linear . x + constant``: with a residual block's identity skip, the vector itself.

        Raises:
            ValueError: the linear part has not the shape of the image.
        """
        if linear.shape != self.linear.shape:
            raise ValueError(f"expected {self.shape}, got {tuple(linear.shape)}")
        return replace(
            self,
            linear=self.linear + linear.detach().to(self.linear),
            constant=self.constant + torch.as_tensor(constant).detach().to(self.constant),
        )

    def _responses(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kernels = torch.cat([self.left, self.right]).to(x)
        left, right = F.conv2d(x, kernels, None, *self.geometry).chunk(2, 1)
        return left, right

    def _unfold(self, x: Tensor) -> Float[Tensor, "batch taps positions"]:
        stride, padding, dilation = self.geometry
        return F.unfold(x, self.left.shape[2:], dilation, padding, stride)

    def _check(self, x: Tensor) -> None:
        if x.ndim != 4 or x.shape[1:] != self.linear.shape or not x.is_floating_point():
            raise ValueError(
                f"expected floating-point images (batch, {', '.join(map(str, self.shape))}), "
                f"got {x.dtype} of shape {tuple(x.shape)}"
            )


def image_form(
    conv: BilinearConv2d,
    vector: Float[Tensor, "outputs out_height out_width"],
    shape: tuple[int, ...],
) -> ImageForm:
    """Return ``x -> <vector, conv(x)>`` as one implicit quadratic form of the whole image.

    A vector ``u (x) m`` weighs the positions of one channel direction: ``sum_p m_p u . y_p``.

    Args:
        conv: the layer.
        vector: over its output maps: a probe's weights, an eigenvector of a later dense layer.
        shape: the image's ``(channels, height, width)``.

    Raises:
        ValueError: the vector or the shape does not fit the layer.
    """
    if len(shape) != 3:
        raise ValueError(f"expected an image's (channels, height, width), got {tuple(shape)}")
    channels, height, width = shape
    stride, padding, dilation = geometry(conv)
    kernel = conv.left.kernel_size
    out = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip((height, width), kernel, stride, padding, dilation, strict=True)
    ]
    wanted = (conv.out_channels, *out)
    if channels != conv.in_channels or tuple(vector.shape) != wanted or min(out) < 1:
        raise ValueError(
            f"images of shape {tuple(shape)} become {wanted} in this layer of {conv.in_channels} "
            f"input channels; got a vector of shape {tuple(vector.shape)}"
        )
    vector = as_direction(vector.flatten(), vector.numel(), "outputs").reshape(wanted)
    # The hidden channels' weights and biases, by the forms of every output channel.
    family = conv.quadratic_forms()
    vector = vector.to(family.left)
    weight = torch.einsum("op,oij->pij", family.weights, vector)
    kernels = (-1, *conv.left.weight.shape[1:])
    taps = torch.einsum("of,oij->fij", family.linears, vector)
    constant = family.constants @ vector.sum((1, 2))
    linear = F.fold(taps.flatten(1)[None], (height, width), kernel, dilation, padding, stride)[0]
    left, right = family.left.reshape(kernels), family.right.reshape(kernels)
    return ImageForm(left, right, weight, linear, constant, geometry(conv))
