"""Whole networks layer by layer: any subset of layers replaced by polynomial approximants."""

import copy
import itertools
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from rlbilinear.approximation import approximate, refit
from rlbilinear.convert import to_module
from rlbilinear.explained import R2
from rlbilinear.gaussian import Gaussian, LowRankCovariance, estimate_gaussian
from rlbilinear.layers import BilinearConv2d, BilinearLinear
from rlbilinear.moments import as_activation
from rlbilinear.one_hidden_layer import (
    Affine,
    GatedLinear,
    Network,
    as_hidden_layer,
    receptive_fields,
)
from rlbilinear.polynomial import Polynomial

Inputs = Float[Tensor, "batch *shape"] | Sequence[Float[Tensor, "batch *shape"]]
"""What a network is given: in one tensor, or in batches, which are read several times."""

CovarianceKind = Literal["full", "diagonal"] | int
"""As `estimate_gaussian` takes it."""

Fit = Literal["gaussian", "inputs"]
"""Whether units have their best polynomials under the Gaussian, or on the inputs themselves."""

_WHOLE = (nn.Sequential, GatedLinear, BilinearLinear, BilinearConv2d)


@dataclass(frozen=True, eq=False)
class Replacement:
    """A network some of whose layers are polynomials; the original is as it was."""

    network: nn.Module
    """a copy, with the approximants in it, in evaluation mode"""
    polynomials: dict[str, Polynomial]
    """by layer, in the order of the forward pass"""
    r2: dict[str, R2]
    """of each layer on its own: in closed form, and measured on what really goes into it"""

    def table(self) -> pd.DataFrame:
        """Return each layer's R² for every degree up to its own, over its outputs.

        Every output is centred on its own; `r2` has them one by one.

        Returns:
            Columns ``layer``, ``degree``, ``gaussian_r2`` and ``measured_r2`` (means over the
            outputs that vary, under the Gaussian and as measured), ``gaussian_median`` and
            ``measured_median``, and ``outputs``, how many vary.
        """
        rows = []
        for name, r2 in self.r2.items():
            both = torch.stack([r2.gaussian, r2.measured])
            varies = both.isfinite().all(0).all(0)
            for degree, (gaussian, measured) in enumerate(both[..., varies].unbind(1)):
                rows.append(
                    {
                        "layer": name,
                        "degree": degree,
                        "gaussian_r2": gaussian.mean().item(),
                        "measured_r2": measured.mean().item(),
                        "gaussian_median": gaussian.quantile(0.5).item() if varies.any() else None,
                        "measured_median": measured.quantile(0.5).item() if varies.any() else None,
                        "outputs": int(varies.sum()),
                    }
                )
        return pd.DataFrame(rows)


def group_layers(network: nn.Sequential) -> nn.Sequential:
    """Return the same network with each affine layer and the activation after it as one layer.

    Groups are named ``layer1``, ``layer2``, ...; what stands alone keeps its class as a name
    (``linear3``). The modules are the network's own, not copies.

    Raises:
        TypeError: not an ``nn.Sequential``.
    """
    if not isinstance(network, nn.Sequential):
        raise TypeError(f"network: expected an nn.Sequential, got {type(network).__name__}")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    modules = list(network)
    while modules:
        first, number = modules.pop(0), len(layers) + 1
        if modules and isinstance(first, Affine) and _is_activation(modules[0]):
            layers[f"layer{number}"] = nn.Sequential(first, modules.pop(0))
        else:
            layers[f"{type(first).__name__.lower()}{number}"] = first
    return nn.Sequential(layers)


def replaceable(network: nn.Module) -> list[str]:
    """Return the outermost submodules that `replace_layers` accepts and that are not affine."""
    found: list[str] = []
    for name, module in network.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if name and not inside and (_is_activation(module) or _is_nonlinear(module)):
            found.append(name)
    return found


def replace_layers(
    network: nn.Module,
    layers: Iterable[str],
    degree: int | Mapping[str, int],
    inputs: Inputs,
    *,
    reestimate: bool = True,
    covariance: CovarianceKind = "full",
    widen: float = 1.0,
    fit: Fit = "gaussian",
    held_out: Inputs | None = None,
) -> Replacement:
    """Replace layers of a network by their best polynomials under what goes into them.

    A layer's mean and covariance are estimated from the network's real inputs. A layer is a
    submodule that `approximate` accepts (an ``nn.Sequential`` of affine layers and one activation,
    `GatedLinear`, a bilinear layer), or an elementwise activation alone, which is approximated in
    every channel (or feature) from that channel's mean and variance.

    Args:
        network: it is copied; what goes into its layers is that of evaluation mode.
        layers: names of submodules, in any order; each is called once in a forward pass.
        degree: of all, or of each layer by its name.
        inputs: to the network: statistics are estimated from them.
        reestimate: estimate a layer's inputs after the layers before it were replaced; else they
            are those of the original network.
        covariance: full, diagonal, or of a rank.
        widen: what every covariance is multiplied by. Real inputs have heavier tails than a
            Gaussian, on which quadratics explode when several follow one another; fitted under a
            wider Gaussian they bend less. The closed-form R² is then under the wider one.
        fit: ``inputs`` gives every hidden unit its least squares on the real inputs (`refit`).
        held_out: inputs on which R² is measured; ``inputs`` when None. R² is measured where the
            statistics are estimated: in the replaced network, or in the original.

    Raises:
        ValueError: a layer that does not exist (the names are listed) or is not called once, a
            layer inside another, a degree missing, ``widen`` not positive, an unknown ``fit``, or
            as `approximate`.
        TypeError: a layer is of no kind that can be approximated, or inputs that can be read only
            once.
    """
    if not 0 < widen < float("inf"):
        raise ValueError(f"widen: expected a positive number, got {widen}")
    if fit not in get_args(Fit):
        raise ValueError(f"fit: unknown {fit!r}; choose from {', '.join(get_args(Fit))}")
    original, replaced = (copy.deepcopy(network).eval() for _ in range(2))
    wanted = _forward_order(original, list(dict.fromkeys(layers)), inputs)
    degrees = _degrees(degree, wanted)
    polynomials: dict[str, Polynomial] = {}
    r2: dict[str, R2] = {}
    for name in wanted:
        source = replaced if reestimate else original
        layer = original.get_submodule(name)
        unit, enough = as_approximable(name, layer, next(layer_inputs(source, name, inputs)))
        fields = (_flat(unit, x) for x in layer_inputs(source, name, inputs))
        gaussian = _widened(estimate_gaussian(fields, enough or covariance), widen)
        polynomial = approximate(unit, degrees[name], *gaussian)
        if fit == "inputs":
            polynomial = refit(polynomial, layer_inputs(source, name, inputs))
        measured_on = layer_inputs(source, name, inputs if held_out is None else held_out)
        polynomials[name] = polynomial
        r2[name] = polynomial.r2_on(measured_on, layer)
        dtype = next((p.dtype for p in network.parameters()), torch.get_default_dtype())
        _set_submodule(replaced, name, to_module(polynomial, dtype))
    return Replacement(replaced, polynomials, r2)


def layer_inputs(
    network: nn.Module, layer: str, inputs: Inputs
) -> Iterator[Float[Tensor, "batch *shape"]]:
    """Yield what goes into a layer, batch by batch.

    Raises:
        ValueError: no such layer, or it is not called in a forward pass.
    """
    module = _submodule(network, layer)
    for x in batches(inputs):
        with torch.no_grad(), _recording({layer: module}) as calls:
            network(x)
        if len(calls) != 1:
            raise ValueError(f"layers: {layer} is called {len(calls)} times, expected once")
        yield calls[0][1]


def as_approximable(
    name: str, layer: nn.Module, x: Float[Tensor, "batch *shape"]
) -> tuple[Network, Literal["diagonal"] | None]:
    """Return what `approximate` takes for a layer, and the covariance that is all it needs.

    Raises:
        TypeError: the layer is of no kind that can be approximated.
    """
    if isinstance(layer, _WHOLE):
        return layer, None
    if not _is_activation(layer):
        raise TypeError(
            f"layers: {name} is a {type(layer).__name__}; expected an activation, or one of "
            f"{', '.join(kind.__name__ for kind in _WHOLE)}"
        )
    channels = x.shape[1 if x.ndim == 4 else -1]
    with torch.device("meta"):  # no random numbers drawn
        identity = (
            nn.Conv2d(channels, channels, 1, bias=False)
            if x.ndim == 4
            else nn.Linear(channels, channels, bias=False)
        )
    eye = torch.eye(channels).to(x).reshape(identity.weight.shape)
    identity.load_state_dict({"weight": eye}, assign=True)
    return (identity, layer), "diagonal"


def _widened(gaussian: Gaussian, factor: float) -> Gaussian:
    covariance = gaussian.covariance
    if isinstance(covariance, LowRankCovariance):
        wider = LowRankCovariance(covariance.factor * factor**0.5, covariance.diagonal * factor)
        return Gaussian(gaussian.mean, wider)
    return Gaussian(gaussian.mean, covariance * factor)


def _flat(unit: Network, x: Float[Tensor, "batch *shape"]) -> Float[Tensor, "n inputs"]:
    """Return the vectors whose mean and covariance the approximant is fitted under."""
    if as_hidden_layer(unit).geometry is None:
        return x.flatten(0, -2)
    return receptive_fields(unit, x)


def _forward_order(network: nn.Module, layers: list[str], inputs: Inputs) -> list[str]:
    modules = {name: _submodule(network, name) for name in layers}
    for inner, outer in itertools.permutations(layers, 2):
        if inner.startswith(f"{outer}."):
            raise ValueError(f"layers: {inner} lies inside {outer}; choose one of them")
    first = next(batches(inputs), None)
    if first is None:
        raise ValueError("inputs: expected at least one batch")
    with torch.no_grad(), _recording(modules) as calls:
        network(first)
    order = [name for name, _ in calls]
    for name in layers:
        if order.count(name) != 1:
            raise ValueError(f"layers: {name} is called {order.count(name)} times, expected once")
    return order


def _degrees(degree: int | Mapping[str, int], layers: Sequence[str]) -> dict[str, int]:
    if not isinstance(degree, Mapping):
        return dict.fromkeys(layers, degree)
    if {*degree} != {*layers}:
        raise ValueError(
            f"degree: expected one for each of {', '.join(layers)}; got {', '.join(degree)}"
        )
    return dict(degree)


def batches(inputs: Inputs) -> Iterator[Float[Tensor, "batch *shape"]]:
    """Yield inputs batch by batch.

    Raises:
        TypeError: they can be read only once.
    """
    if isinstance(inputs, Iterator):
        raise TypeError("inputs: they are read several times; give a tensor or a list of batches")
    return iter(inputs.split(512) if isinstance(inputs, Tensor) else inputs)


def _submodule(network: nn.Module, name: str) -> nn.Module:
    names = [each for each, _ in network.named_modules() if each]
    if name not in names:
        raise ValueError(f"layers: unknown layer {name!r}; choose from {', '.join(names)}")
    return network.get_submodule(name)


def _set_submodule(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, module)


def _is_activation(module: nn.Module) -> bool:
    try:
        as_activation(module)
    except ValueError:
        return False
    return not isinstance(module, nn.Identity)


def _is_nonlinear(module: nn.Module) -> bool:
    """Whether it is one hidden layer: affine layers around one activation, or a gated one."""
    if isinstance(module, GatedLinear | BilinearLinear | BilinearConv2d):
        return True
    if type(module) is not nn.Sequential or not any(map(_is_activation, module)):
        return False
    try:
        as_hidden_layer(module)
    except (TypeError, ValueError):
        return False
    return True


@contextmanager
def _recording(modules: Mapping[str, nn.Module]) -> Iterator[list[tuple[str, Tensor]]]:
    """Keep the first argument of every call of the modules, in order."""
    calls: list[tuple[str, Tensor]] = []

    def keep(name: str) -> Any:
        return lambda module, arguments: calls.append((name, arguments[0]))

    handles = [module.register_forward_pre_hook(keep(name)) for name, module in modules.items()]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
