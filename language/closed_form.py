"""A model's gated MLPs approximated in closed form, by layers of the same size."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlbilinear.approximation import approximate, refit
from rlbilinear.gaussian import Gaussian
from rlbilinear.language.models import gated_layer, layers
from rlbilinear.layers import BilinearLinear
from rlbilinear.polynomial import Polynomial

Fit = Literal["gaussian", "inputs"]
MOST_CANCELLED = 8.0
"""A unit whose one product holds a constant this many times larger than what the unit gives keeps
two products: the constant is subtracted again, and with it the digits, first of all bfloat16's."""


class Activity(NamedTuple):
    """What goes into an MLP and comes out, for tokens one after another."""

    inputs: Float[Tensor, "tokens features"]
    outputs: Float[Tensor, "tokens features"]


@contextmanager
def recording(modules: Mapping[int, nn.Module]) -> Iterator[dict[int, Activity]]:
    """Keep the latest input and output of modules, by their index."""
    kept: dict[int, Activity] = {}

    def keep(index: int) -> Callable[..., None]:
        def hook(_: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
            kept[index] = Activity(arguments[0].detach(), output.detach())

        return hook

    handles = [m.register_forward_hook(keep(index)) for index, m in modules.items()]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def mlp_activity(
    model: PreTrainedModel, index: int, batches: Iterable[Int[Tensor, "batch context"]]
) -> Iterator[Float[Tensor, "batch context features"]]:
    """Yield what goes into one MLP, batch by batch."""
    mlp = layers(model)[index].mlp
    for tokens in batches:
        with recording({index: mlp}) as kept:
            model.model(input_ids=tokens, use_cache=False)
        yield kept[index].inputs


@torch.no_grad()
def input_statistics(
    model: PreTrainedModel,
    batches: Iterable[Int[Tensor, "batch context"]],
    *,
    skip: int = 1,
) -> dict[int, Gaussian]:
    """Estimate mean and covariance of what goes into every MLP, in one pass, in float64.

    Args:
        model: of the Llama class.
        batches: windows of tokens.
        skip: tokens at the start of every window that do not count. The first token gets
            activations of another size, which no Gaussian describes.
    """
    blocks = layers(model)
    modules = {index: block.mlp for index, block in enumerate(blocks)}
    sums: dict[int, tuple[int, Tensor, Tensor]] = {}
    for tokens in batches:
        with recording(modules) as kept:
            model.model(input_ids=tokens, use_cache=False)
        for index, activity in kept.items():
            x = activity.inputs[:, skip:].flatten(0, 1).double()
            # Inputs are RMS-normalised: of size one, so that sums of squares do not cancel.
            width = x.shape[1]
            nothing = (0, x.new_zeros(width), x.new_zeros(width, width))
            count, total, squares = sums.get(index, nothing)
            sums[index] = (count + len(x), total + x.sum(0), squares + x.T @ x)
    if not sums:
        raise ValueError("batches: expected at least one")
    found = {}
    for index, (count, total, squares) in sums.items():
        mean = total / count
        covariance = squares / count - mean[:, None] * mean
        found[index] = Gaussian(mean, (covariance + covariance.T) / 2)
    return found


def quadratic(
    mlp: nn.Module,
    gaussian: Gaussian,
    *,
    inputs: Iterable[Float[Tensor, "*batch features"]] | None = None,
    degree: int = 2,
) -> Polynomial:
    """Return the least-squares polynomial of a gated MLP.

    Args:
        mlp: of a Llama-class model.
        gaussian: of its inputs.
        inputs: real ones, for the least squares of every unit on them (`refit`).
        degree: 2, or less.
    """
    polynomial = approximate(gated_layer(mlp), degree, *gaussian)
    return polynomial if inputs is None else refit(polynomial, inputs)


def to_bilinear(polynomial: Polynomial) -> BilinearLinear:
    """Return a quadratic of a gated layer as a bilinear layer of the layer's own size.

    Every unit is a quadratic without the square of ``xi``, so it is one product and a constant,
    ``a0 + a1 t + a2 (t² - 1)/√2 + b0 xi + b1 t xi = (t + s)(b1 xi + a2 t/√2 + c) + const`` with
    ``s = b0 / b1``. `rlbilinear.convert.to_module` takes two products a unit. A unit whose product
    has a constant ``s c`` above `MOST_CANCELLED` times ``|a0| + |a1| + |a2|`` keeps two; in
    SmolLM2 these are one or two in a hundred.

    Raises:
        ValueError: not a quadratic of a dense gated layer.
    """
    u, down = polynomial.units, polynomial.down
    if polynomial.degree != 2 or u.factor is None or polynomial.products is None or down is None:
        raise ValueError(f"polynomial: expected a quadratic of a gated layer, got {polynomial!r}")
    if polynomial.geometry is not None:
        raise ValueError("polynomial: it is of a convolution")
    a0, a1, a2 = polynomial.values
    b0, b1 = polynomial.products
    half = 2**-0.5
    t, t_bias = u.weight * u.inverse_std[:, None], -u.shift * u.inverse_std
    slope = u.factor.slope
    xi, xi_bias = u.factor.weight - slope[:, None] * t, -u.factor.shift - slope * t_bias
    s = b0 / torch.where(b1 == 0, 1.0, b1)
    c = a1 - s * a2 * half
    one = (s * c).abs() <= MOST_CANCELLED * (a0.abs() + a1.abs() + a2.abs())
    one &= (b1 != 0) | (b0 == 0)
    s = torch.where(one, s, 0.0)
    c = torch.where(one, c, a1)
    left, left_bias = t, t_bias + s
    right = b1[:, None] * xi + (a2 * half)[:, None] * t
    right_bias = b1 * xi_bias + a2 * half * t_bias + c
    constant = a0 - a2 * half - s * c
    two = ~one
    # b0 xi, which did not go into the product, as the product of xi and the constant b0
    left, left_bias = torch.cat([left, xi[two]]), torch.cat([left_bias, xi_bias[two]])
    right = torch.cat([right, torch.zeros_like(xi[two])])
    right_bias = torch.cat([right_bias, b0[two]])
    columns = torch.cat([down, down[:, two]], 1)
    sides = (left, right), (left_bias, right_bias)
    # Both sides of a product get the same size: nothing changes but how they train.
    sizes = [torch.hypot(rows.norm(dim=1), bias) for rows, bias in zip(*sides, strict=True)]
    size = (sizes[1] / sizes[0].clamp_min(1e-30)).sqrt().clamp(1e-4, 1e4)
    with torch.device("meta"):
        layer = BilinearLinear(
            polynomial.in_features, polynomial.out_features, hidden_features=len(left), bias=True
        )
    weights = {
        "left.weight": left * size[:, None],
        "left.bias": left_bias * size,
        "right.weight": right / size[:, None],
        "right.bias": right_bias / size,
        "down.weight": columns,
        "down.bias": polynomial.bias + down @ constant,
    }
    layer.load_state_dict(weights, assign=True)
    return layer


def convert(
    model: PreTrainedModel,
    batches: Sequence[Int[Tensor, "batch context"]],
    *,
    fit: Fit = "gaussian",
    skip: int = 1,
) -> dict[int, BilinearLinear]:
    """Return the closed-form bilinear layer of every MLP, in the model's dtype.

    Args:
        model: of the Llama class; it is not changed.
        batches: windows of tokens whose statistics are taken.
        fit: ``gaussian``, or ``inputs``: least squares of every unit on the real inputs.
        skip: as in `input_statistics`.
    """
    found = {}
    for index, gaussian in input_statistics(model, batches, skip=skip).items():
        real = mlp_activity(model, index, batches) if fit == "inputs" else None
        mlp = layers(model)[index].mlp
        found[index] = to_bilinear(quadratic(mlp, gaussian, inputs=real)).to(model.dtype)
    return found
