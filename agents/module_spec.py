"""A network's modules as plain data, so that edited agents are stored without pickle.

An architecture's name says how a network starts. Edits change modules: more hidden units, an
explicit ``down``, a ``skip`` that became a convolution, a position-dependent bias. `differences`
writes what changed as a list of replacements of whitelisted types, and `apply` makes them again.
Weights are not part of it.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from rlbilinear.agents.blocks import GatedConv2d, GatedDense
from rlbilinear.agents.residual import Residual, Sum
from rlbilinear.edits.functional import PositionBias
from rlbilinear.layers import BilinearConv2d, BilinearLinear

Entry = dict[str, Any]
"""``{"layer": dotted name, "type": a name of `STORABLE`, or None, "arguments": {...}}``.

A ``PositionBias`` or ``Sequential`` is put around the module in its place; the other types replace
it.
"""


def _conv2d(module: nn.Conv2d) -> dict[str, Any]:
    if module.groups != 1 or module.padding_mode != "zeros":
        raise ValueError(f"cannot store {module}: only convolutions of one group, zero-padded")
    return {
        "in_channels": module.in_channels,
        "out_channels": module.out_channels,
        "kernel_size": tuple(module.kernel_size),
        "stride": tuple(module.stride),
        "padding": _pixels(module.padding),
        "dilation": tuple(module.dilation),
        "bias": module.bias is not None,
    }


def _linear(module: nn.Linear) -> dict[str, Any]:
    return {
        "in_features": module.in_features,
        "out_features": module.out_features,
        "bias": module.bias is not None,
    }


def _bilinear_conv2d(module: BilinearConv2d) -> dict[str, Any]:
    return {
        "in_channels": module.in_channels,
        "out_channels": module.out_channels,
        "kernel_size": tuple(module.left.kernel_size),
        "hidden_channels": None if module.down is None else module.hidden_channels,
        "stride": tuple(module.left.stride),
        "padding": _pixels(module.left.padding),
        "dilation": tuple(module.left.dilation),
        "bias": module.left.bias is not None,
    }


def _bilinear_linear(module: BilinearLinear) -> dict[str, Any]:
    return {
        "in_features": module.in_features,
        "out_features": module.out_features,
        "hidden_features": None if module.down is None else module.hidden_features,
        "bias": module.left.bias is not None,
    }


def _gated_conv2d(module: GatedConv2d) -> dict[str, Any]:
    assert isinstance(module.gate, nn.Conv2d)
    return {**_conv2d(module.gate), "gate": module.kind}


def _gated_dense(module: GatedDense) -> dict[str, Any]:
    assert isinstance(module.gate, nn.Linear)
    return {**_linear(module.gate), "gate": module.kind}


def _pool(module: nn.MaxPool2d | nn.AvgPool2d) -> dict[str, Any]:
    if getattr(module, "dilation", 1) != 1:
        raise ValueError(f"cannot store {module}: only pools without dilation")
    return {
        "kernel_size": module.kernel_size,
        "stride": module.stride,
        "padding": module.padding,
    } | ({"ceil_mode": True} if module.ceil_mode else {})


def _position_bias(module: PositionBias) -> dict[str, Any]:
    return {"shape": tuple(module.bias.shape)}


def _none(module: nn.Module) -> dict[str, Any]:
    return {}


STORABLE: dict[str, tuple[type[nn.Module], Callable[[Any], dict[str, Any]]]] = {
    "Conv2d": (nn.Conv2d, _conv2d),
    "Linear": (nn.Linear, _linear),
    "BilinearConv2d": (BilinearConv2d, _bilinear_conv2d),
    "BilinearLinear": (BilinearLinear, _bilinear_linear),
    "GatedConv2d": (GatedConv2d, _gated_conv2d),
    "GatedDense": (GatedDense, _gated_dense),
    "MaxPool2d": (nn.MaxPool2d, _pool),
    "AvgPool2d": (nn.AvgPool2d, _pool),
    "PositionBias": (PositionBias, _position_bias),
    "Sequential": (nn.Sequential, _none),
    "Residual": (Residual, _none),
    "Sum": (Sum, _none),
    "Identity": (nn.Identity, _none),
    "Flatten": (nn.Flatten, _none),
    "ReLU": (nn.ReLU, _none),
}
"""The module types a checkpoint may name: each one's class and its arguments read back."""


def differences(reference: nn.Module, actual: nn.Module) -> list[Entry]:
    """Return the replacements that turn ``reference``'s modules into ``actual``'s.

    They are to be made in order: a later one may lie inside an earlier one. ``reference`` itself
    is changed by them: afterwards it has the modules of ``actual``, new ones on the meta device.

    Raises:
        ValueError: a changed module is of a type that cannot be stored.
    """
    entries = [*_differences(reference, actual, "")]
    got, expected = _shapes(reference), _shapes(actual)
    if got != expected:
        names = sorted(got.items() ^ expected.items())
        raise ValueError(f"cannot store weights that their modules do not describe: {names}")
    return entries


def apply(network: nn.Module, entries: Iterable[Entry]) -> None:
    """Make the replacements in the network, in place; new weights are on the meta device.

    They are to be loaded next: nothing is allocated for what a malicious file may ask.

    Raises:
        ValueError: a malformed entry, an unknown type, or a layer that is not there.
    """
    for entry in entries:
        try:
            parent_name, _, leaf = entry["layer"].rpartition(".")
            parent = network.get_submodule(parent_name)
            current = getattr(parent, leaf, None)
            setattr(parent, leaf, _build(entry["type"], entry["arguments"], current))
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            raise ValueError(f"cannot rebuild {entry}: {error}") from error


def _differences(reference: nn.Module, actual: nn.Module, prefix: str) -> Iterable[Entry]:
    wanted, present = dict(actual.named_children()), dict(reference.named_children())
    for name in sorted(present.keys() - wanted.keys()):
        yield _replace(reference, f"{prefix}{name}", None, {})
    for name, module in wanted.items():
        if not _alike(present.get(name), module):
            yield _replace(reference, f"{prefix}{name}", *_describe(module, f"{prefix}{name}"))
        yield from _differences(reference.get_submodule(name), module, f"{prefix}{name}.")


def _replace(parent: nn.Module, layer: str, kind: str | None, arguments: dict[str, Any]) -> Entry:
    leaf = layer.rpartition(".")[2]
    setattr(parent, leaf, _build(kind, arguments, getattr(parent, leaf, None)))
    return {"layer": layer, "type": kind, "arguments": arguments}


def _alike(reference: nn.Module | None, actual: nn.Module) -> bool:
    """Whether two modules are the same apart from their children and weights."""
    if reference is None or type(reference) is not type(actual):
        return False
    if type(actual).__name__ not in STORABLE:
        return reference.extra_repr() == actual.extra_repr()
    return _describe(reference, "") == _describe(actual, "")


def _describe(module: nn.Module, layer: str) -> tuple[str, dict[str, Any]]:
    kind = type(module).__name__
    known, arguments = STORABLE.get(kind, (None, _none))
    if known is not type(module):
        raise ValueError(
            f"layer {layer} is a {kind}, which cannot be stored; choose from {', '.join(STORABLE)}"
        )
    return kind, arguments(module)


def _build(
    kind: str | None, arguments: dict[str, Any], current: nn.Module | None
) -> nn.Module | None:
    """Make a module; one that wraps another is put around what is in its place."""
    if kind is None:
        return None
    if kind not in STORABLE:
        raise ValueError(f"unknown type {kind!r}; choose from {', '.join(STORABLE)}")
    arguments = {name: tuple(a) if isinstance(a, list) else a for name, a in arguments.items()}
    made: nn.Module
    with torch.device("meta"):
        if kind == "PositionBias":
            made = PositionBias(current or nn.Identity(), torch.zeros(arguments["shape"]))
        elif kind == "Sequential":
            made = nn.Sequential(*([] if current is None else [current]))
        else:
            made = STORABLE[kind][0](**arguments)
    described = STORABLE[kind][1](made)
    for name, given in arguments.items():
        if name not in described or described[name] != given:
            raise ValueError(f"a {kind} has no {name} {given!r}")
    return made


def _shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in network.state_dict().items()}


def _pixels(padding: str | tuple[int, ...]) -> tuple[int, ...]:
    if isinstance(padding, str):
        raise ValueError(f"cannot store padding {padding!r}: give it in pixels")
    return tuple(padding)
