"""The third-order tensor of a bilinear layer, kept in factors.

`BilinearTensor` holds all outputs of a layer at once, as `QuadraticForm` holds one direction of
them. What is asked of it (inner products, decompositions in `hosvd`, `cp` and `tucker`) is computed
from products of the factors: nothing of size ``outputs x inputs²`` is built but by `matrices` and
`triangle`, which are for small layers and for tests.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rlbilinear.convolution import geometry
from rlbilinear.family import FormFamily
from rlbilinear.layers import BilinearConv2d, BilinearLinear
from rlbilinear.quadratic import QuadraticForm, as_direction, as_directions
from rlbilinear.spectrum import to_double

Bilinear = TypeVar("Bilinear", bound=BilinearLinear | BilinearConv2d)
_BLOCK = 2048
"""Hidden units whose products are held at once, in `BilinearTensor.gram` and `inner`."""


@dataclass(frozen=True, eq=False)
class BilinearTensor:
    """The function ``x -> down ((left x) * (right x)) + linear x + constant``, in float64.

    Its tensor is ``B_o = sum_r down_or sym(left_r right_rᵀ)``, a symmetric matrix for each output.
    Norms and inner products are Frobenius', of the full ``outputs x inputs x inputs`` tensor; the
    linear and constant parts are kept apart, and decompositions leave them as they are. Where they
    shall take part, `homogeneous` makes them part of the tensor.

    Raises:
        ValueError: the shapes do not fit each other.
    """

    left: Float[Tensor, "hidden inputs"]
    right: Float[Tensor, "hidden inputs"]
    down: Float[Tensor, "outputs hidden"]
    linear: Float[Tensor, "outputs inputs"]
    constant: Float[Tensor, "outputs"]

    def __post_init__(self) -> None:
        given = [tuple(t.shape) for t in vars(self).values()]
        sizes = (*given[0], *given[2])
        fits = len(sizes) == 4 and given == [
            sizes[:2],
            sizes[:2],
            (sizes[2], sizes[0]),
            (sizes[2], sizes[1]),
            (sizes[2],),
        ]
        if not fits:
            raise ValueError(
                "expected left (hidden, inputs), right (hidden, inputs), down (outputs, hidden), "
                f"linear (outputs, inputs), constant (outputs,); got {given}"
            )

    @classmethod
    def of(cls, layer: BilinearLinear | BilinearConv2d) -> "BilinearTensor":
        """Read a layer's tensor; a convolution's inputs are its flattened zero-padded patches.

        Raises:
            TypeError: the layer is not bilinear.
        """
        _check_bilinear(layer)
        w, b = _weight_and_bias(layer.left)
        v, c = _weight_and_bias(layer.right)
        if layer.down is None:
            p, e = torch.eye(len(w)).to(w), torch.zeros(len(w)).to(w)
        else:
            p, e = _weight_and_bias(layer.down)
        return cls(w, v, p, (p * c) @ w + (p * b) @ v, p @ (b * c) + e)

    @property
    def in_features(self) -> int:
        """The number of inputs."""
        return self.left.shape[1]

    @property
    def out_features(self) -> int:
        """The number of outputs."""
        return len(self.down)

    @property
    def hidden_features(self) -> int:
        """The number of products ``(left x) * (right x)``."""
        return len(self.left)

    def __call__(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        """Evaluate at ``x``, in the dtype and on the device of ``x``.

        Raises:
            ValueError: ``x`` has another number of inputs, or is not floating-point.
        """
        if x.ndim == 0 or x.shape[-1] != self.in_features or not x.is_floating_point():
            raise ValueError(
                f"expected floating-point x (..., {self.in_features}), "
                f"got {x.dtype} of shape {tuple(x.shape)}"
            )
        left, right, down, linear, constant = (t.to(x) for t in vars(self).values())
        return ((x @ left.T) * (x @ right.T)) @ down.T + x @ linear.T + constant

    def quadratic_form(self, direction: Float[Tensor, "outputs"]) -> QuadraticForm:
        """Return the form ``x -> direction . y(x)``, linear and constant parts included.

        Raises:
            ValueError: the direction is not ``(out_features,)`` or not finite.
        """
        u = as_direction(direction, self.out_features, "outputs").to(self.down)
        return QuadraticForm(
            self.left, self.right, u @ self.down, u @ self.linear, u @ self.constant
        )

    def quadratic_forms(self, directions: Float[Tensor, "n outputs"] | None = None) -> FormFamily:
        """Return the forms of several directions, of every output when None.

        Raises:
            ValueError: the directions are not ``(n, out_features)`` or not finite.
        """
        down, linear, constant = self.down, self.linear, self.constant
        if directions is not None:
            mix = as_directions(directions, self.out_features, "outputs").to(down)
            down, linear, constant = mix @ down, mix @ linear, mix @ constant
        return FormFamily(self.left, self.right, down, linear, constant)

    def matrices(self) -> Float[Tensor, "outputs inputs inputs"]:
        """Build the dense tensor: for small layers and the curious."""
        half = torch.einsum("or,ri,rj->oij", self.down, self.left, self.right)
        return (half + half.mT) / 2

    def triangle(self) -> Float[Tensor, "outputs pairs"]:
        """Build the dense tensor as its upper triangles, ``inputs (inputs + 1) / 2`` numbers each.

        Off-diagonal entries, which stand for two, are multiplied by ``sqrt(2)``: norms, inner
        products and singular values are then those of the full tensor.
        """
        i, j = torch.triu_indices(self.in_features, self.in_features)
        scale = torch.where(i == j, 1.0, 2.0).to(self.down).sqrt()
        return self.matrices()[:, i, j] * scale

    @property
    def gram(self) -> Float[Tensor, "outputs outputs"]:
        """The inner products ``<B_a, B_b>`` between outputs, from products of the factors."""
        gram = self.down.new_zeros(self.out_features, self.out_features)
        for rows, products in _unit_products(self, self):
            gram += self.down[:, rows] @ products @ self.down.T
        return (gram + gram.T) / 2

    @property
    def norm(self) -> Float[Tensor, ""]:
        """The Frobenius norm of the tensor."""
        return self.inner(self).clamp_min(0).sqrt()

    def inner(self, other: "BilinearTensor") -> Float[Tensor, ""]:
        """Return the Frobenius inner product of two tensors of the same inputs and outputs.

        Raises:
            ValueError: they have others.
        """
        mine, theirs = ((t.out_features, t.in_features) for t in (self, other))
        if mine != theirs:
            raise ValueError(f"cannot compare tensors of (outputs, inputs) {mine} and {theirs}")
        total = self.down.new_zeros(())
        for rows, products in _unit_products(self, other):
            total += ((self.down[:, rows].T @ other.down) * products).sum()
        return total

    def cosine(self, other: "BilinearTensor") -> Float[Tensor, ""]:
        """Return the cosine similarity of two tensors: 1 when they are multiples of each other."""
        return self.inner(other) / (self.norm * other.norm)

    def distance(self, other: "BilinearTensor") -> Float[Tensor, ""]:
        """Return the Frobenius norm of the difference.

        It is computed through inner products, and so resolves down to about ``1e-8`` of the norms.
        """
        squared = self.inner(self) - 2 * self.inner(other) + other.inner(other)
        return squared.clamp_min(0).sqrt()

    def with_inputs(self, matrix: Float[Tensor, "inputs new"]) -> "BilinearTensor":
        """Substitute ``x = matrix z``: an embedding before the layer, another basis, a subspace."""
        m = matrix.to(self.left)
        return BilinearTensor(
            self.left @ m, self.right @ m, self.down, self.linear @ m, self.constant
        )

    def with_outputs(self, matrix: Float[Tensor, "new outputs"]) -> "BilinearTensor":
        """Apply a linear map to the output: a head after the layer, another basis."""
        m = matrix.to(self.down)
        return BilinearTensor(
            self.left, self.right, m @ self.down, m @ self.linear, m @ self.constant
        )

    def bilinear_part(self) -> "BilinearTensor":
        """Return the tensor without its linear and constant parts."""
        return BilinearTensor(self.left, self.right, self.down, 0 * self.linear, 0 * self.constant)

    def homogeneous(self) -> "BilinearTensor":
        """Make linear and constant parts bilinear ones, of inputs with a 1 appended.

        ``tensor.homogeneous()(cat([x, 1])) == tensor(x)``; the symmetric matrices are
        ``[[B_o, linear_o / 2], [linear_o / 2, constant_o]]``. A linear part of rank r costs r
        units, a constant one.
        """
        left, left_bias, right, right_bias, down = self._units()
        if self.constant.any():
            zero, one = torch.zeros_like(left[:1]), torch.ones_like(left[0, :1])
            left, right = torch.cat([left, zero]), torch.cat([right, zero])
            left_bias, right_bias = torch.cat([left_bias, one]), torch.cat([right_bias, one])
            down = torch.cat([down, self.constant[:, None]], dim=1)
        left = torch.cat([left, left_bias[:, None]], dim=1)
        right = torch.cat([right, right_bias[:, None]], dim=1)
        nothing = torch.zeros_like(self.constant)
        return BilinearTensor(left, right, down, torch.outer(nothing, left[0]), nothing)

    def as_layer(self, like: Bilinear) -> Bilinear:
        """Write the tensor as weights: a layer of the same kind and geometry as ``like``.

        It has an explicit ``down``, and biases when there is a linear or constant part; dtype and
        device are those of ``like``.

        Raises:
            TypeError: ``like`` is not bilinear.
            ValueError: ``like`` has another number of inputs.
        """
        _check_bilinear(like)
        if like.left.weight[0].numel() != self.in_features:
            raise ValueError(
                f"a layer of {like.left.weight[0].numel()} inputs cannot hold a tensor of "
                f"{self.in_features}"
            )
        biased = bool(self.linear.any() or self.constant.any())
        left, left_bias, right, right_bias, down = self._units()
        layer = _empty(like, len(left), self.out_features, biased)
        weights = {"left.weight": left, "right.weight": right, "down.weight": down}
        if biased:
            weights |= {
                "left.bias": left_bias,
                "right.bias": right_bias,
                "down.bias": self.constant,
            }
        sizes = {name: weight.shape for name, weight in layer.state_dict().items()}
        layer.load_state_dict(
            {name: w.to(like.left.weight).reshape(sizes[name]) for name, w in weights.items()},
            assign=True,
        )
        return cast(Bilinear, layer.train(like.training))

    def _units(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return left, its bias, right, its bias, down: all but the constant as hidden units.

        The linear part's are ``(s v . x)(0 . x + 1)``, from its singular value decomposition. There
        is always a unit, as torch refuses convolutions without one.
        """
        u, sizes, v = torch.linalg.svd(self.linear, full_matrices=False)
        eps = torch.finfo(sizes.dtype).eps
        used = sizes > sizes.sum() * max(self.linear.shape) * eps
        if not used.any() and not self.hidden_features:
            used[:1] = True  # of size zero
        rows, columns = v[used], u[:, used] * sizes[used]
        none, one = self.left.new_zeros(self.hidden_features), self.left.new_ones(len(rows))
        return (
            torch.cat([self.left, rows]),
            torch.cat([none, 0 * one]),
            torch.cat([self.right, 0 * rows]),
            torch.cat([none, one]),
            torch.cat([self.down, columns], dim=1),
        )


def in_span(tensor: BilinearTensor) -> tuple[BilinearTensor, Float[Tensor, "m inputs"]]:
    """Return the bilinear part over the span of the factors, and that span's orthonormal basis.

    With rows ``basis``, ``tensor.bilinear_part()(x) == small(basis @ x)``; ``m`` is at most
    ``min(inputs, 2 hidden)``. Norms, inner products and spectra stay what they are.
    """
    factors = torch.cat([tensor.left, tensor.right]).T
    if factors.shape[1] >= factors.shape[0]:
        return tensor.bilinear_part(), torch.eye(tensor.in_features).to(factors)
    basis, corner = torch.linalg.qr(factors)
    left, right = corner.T.tensor_split(2)
    nothing = tensor.linear.new_zeros(tensor.out_features, basis.shape[1])
    small = BilinearTensor(left, right, tensor.down, nothing, 0 * tensor.constant)
    return small, basis.T


def unit_products(
    left: Float[Tensor, "a inputs"],
    right: Float[Tensor, "a inputs"],
    other_left: Float[Tensor, "b inputs"],
    other_right: Float[Tensor, "b inputs"],
) -> Float[Tensor, "a b"]:
    """Return the Frobenius inner products of ``sym(left_a right_aᵀ)`` and ``sym(..._b ..._bᵀ)``."""
    same = (left @ other_left.T) * (right @ other_right.T)
    crossed = (left @ other_right.T) * (right @ other_left.T)
    return (same + crossed) / 2


def _unit_products(
    tensor: BilinearTensor, other: BilinearTensor
) -> Iterator[tuple[slice, Float[Tensor, "rows hidden"]]]:
    """Go through the products of all pairs of hidden units, some rows at a time."""
    for start in range(0, tensor.hidden_features, _BLOCK):
        rows = slice(start, start + _BLOCK)
        left, right = tensor.left[rows], tensor.right[rows]
        yield rows, unit_products(left, right, other.left, other.right)


def _check_bilinear(layer: nn.Module) -> None:
    if not isinstance(layer, BilinearLinear | BilinearConv2d):
        raise TypeError(f"expected a BilinearLinear or BilinearConv2d, got {type(layer).__name__}")


def _weight_and_bias(
    affine: nn.Linear | nn.Conv2d,
) -> tuple[Float[Tensor, "outputs inputs"], Float[Tensor, "outputs"]]:
    weight = to_double(affine.weight).flatten(1)
    bias = weight.new_zeros(len(weight)) if affine.bias is None else to_double(affine.bias)
    return weight, bias


def _empty(
    like: BilinearLinear | BilinearConv2d, hidden: int, outputs: int, bias: bool
) -> BilinearLinear | BilinearConv2d:
    """Make a layer of the kind and geometry of another, without memory or random numbers drawn."""
    with torch.device("meta"):
        if isinstance(like, BilinearLinear):
            return BilinearLinear(like.in_features, outputs, hidden_features=hidden, bias=bias)
        height, width = like.left.kernel_size
        stride, padding, dilation = geometry(like)
        return BilinearConv2d(
            like.in_channels,
            outputs,
            (height, width),
            hidden_channels=hidden,
            stride=stride,
            padding=padding,
            dilation=dilation,
            bias=bias,
        )
