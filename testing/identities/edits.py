"""Edits of weights against the network patched in its forward pass."""

import copy
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rlbilinear import BilinearConv2d, compress
from rlbilinear.agents import Agent
from rlbilinear.agents.agent import Observations
from rlbilinear.agents.edits.whole import SWAPPED_ACTIONS, Mirror
from rlbilinear.agents.truncate import dense_ranks, truncate_dense
from rlbilinear.edits import (
    AddBias,
    KeepEigenfilters,
    RotateFilters,
    RotateInput,
    RotateOutput,
    ScaleEigenfilters,
    ScaleInput,
    ScaleOutput,
    Transplant,
    WriteFilters,
)
from rlbilinear.edits.functional import Axis
from rlbilinear.testing.identities.identity import Identity, exact_outputs, patches_of, worst

ABLATED = "block2"
"""The agent's block of which eigenfilters are ablated."""


def _scaled(layer: Any, x: Tensor) -> float:
    u = _output(layer, x)
    (value,), (filter_,) = layer.quadratic_form(u).eigh(1)
    expected = _write(layer(x), u, -1.5 * value * _responses(layer, filter_, x) ** 2)
    return worst(ScaleEigenfilters(u, {0: -0.5})(layer)(x), expected)


def _ablated(layer: Any, x: Tensor) -> float:
    u = _output(layer, x)
    (value,), (filter_,) = layer.quadratic_form(u).eigh(1)
    expected = _write(layer(x), u, -value * _responses(layer, filter_, x) ** 2)
    return worst(ScaleEigenfilters(u, {0: 0.0})(layer)(x), expected)


def _kept(layer: Any, x: Tensor) -> float:
    u = _output(layer, x)
    values, filters = layer.quadratic_form(u).eigh()
    y = layer(x)
    for value, filter_ in zip(values[1:], filters[1:], strict=True):
        y = _write(y, u, -value * _responses(layer, filter_, x) ** 2)
    return worst(KeepEigenfilters(u, 1)(layer)(x), y)


def _written(layer: Any, x: Tensor) -> float:
    u, filter_ = _output(layer, x), torch.randn(layer.left.weight[0].shape).to(x)
    expected = _write(layer(x), u, 2 * _responses(layer, filter_.flatten(), x) ** 2)
    return worst(WriteFilters(u, torch.tensor([2.0]), filter_[None])(layer)(x), expected)


def _turned_filters(layer: Any, x: Tensor) -> float:
    """Rotate what the direction's form reads: the rest of the output stays."""
    u = _output(layer, x)
    a, b = torch.randn(2, layer.left.weight[0].numel()).to(x)
    form = layer.quadratic_form(u)
    turned = form.pullback(_rotation(a, b).T)
    read = patches_of(layer, x)
    change = (turned(read) - form(read)).reshape(_map_shape(layer(x)))
    return worst(RotateFilters(u, a, b)(layer)(x), _write(layer(x), u, change))


def _turned_output(layer: Any, x: Tensor) -> float:
    u, w = _output(layer, x), _output(layer, x)
    expected = torch.einsum("pc,nc...->np...", _rotation(u, w), layer(x))
    return worst(RotateOutput(u, w)(layer)(x), expected)


def _turned_input(layer: Any, x: Tensor) -> float:
    a, b = torch.randn(2, x.shape[1]).to(x)
    seen = torch.einsum("pc,nc...->np...", _rotation(a, b).T, x)
    return worst(RotateInput(a, b)(layer)(x), layer(seen))


def _scaled_ends(layer: Any, x: Tensor) -> float:
    u, a = _output(layer, x), torch.randn(x.shape[1]).to(x)
    seen = x - 0.7 * _along(a, x)
    y = layer(seen)
    return worst((ScaleInput(a, 0.3) | ScaleOutput(u, 0.0))(layer)(x), y - _along(u, y))


def _transplanted(layer: Any, x: Tensor) -> float:
    donor, u = copy.deepcopy(layer), _output(layer, x)
    with torch.no_grad():
        donor.left.weight.copy_(donor.left.weight.flip(0))
    y = layer(x)
    return worst(Transplant(donor, u)(layer)(x), y - _along(u, y) + _along(u, donor(x)))


def _biased(layer: Any, x: Tensor) -> float:
    y = layer(x)
    bias = torch.randn_like(y[0])
    return worst(AddBias(bias)(layer)(x), y + bias)


def _compressed(layer: Any, x: Tensor) -> float:
    u = _output(layer, x)
    edited = (ScaleEigenfilters(u, {0: 0.0}) | ScaleOutput(u, 2.0) | KeepEigenfilters(u, 1))(layer)
    return worst(compress(edited).layer(x), edited(x))


def _undone(layer: Any, x: Tensor) -> float:
    u, w = _output(layer, x), _output(layer, x)
    a = torch.randn(x.shape[1]).to(x)
    bias = torch.randn_like(layer(x)[0])
    edit = ScaleEigenfilters(u, {0: -2.0}).on(layer) | RotateOutput(u, w) | ScaleInput(a, 0.5)
    edit = edit | AddBias(bias)
    return worst(edit.inverse()(edit(layer))(x), layer(x))


def _patched(agent: Agent, observations: Observations) -> float:
    """Ablate in the weights, and by a hook that takes the filter's map off the block's output."""
    part = f"{ABLATED}.bilinear"
    layer: Any = copy.deepcopy(agent.layer(part)).double()
    u = _output(layer, torch.zeros(1).double())
    (value,), (filter_,) = layer.quadratic_form(u).eigh(1)
    exact = _exact(agent)
    edited = ScaleEigenfilters(u, {0: 0.0}).at(part)(exact)

    def hook(module: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        return _write(output, u, -value * _responses(layer, filter_, inputs[0]) ** 2)

    patched = _exact(agent)
    patched.layer(part).register_forward_hook(hook)
    found, expected = (exact_outputs(each, observations) for each in (edited, patched))
    assert worst(expected["action_net"], exact_outputs(agent, observations)["action_net"]) > 1e-6
    return max(worst(found[name], expected[name]) for name in ("action_net", "value_net"))


def _mirrored(agent: Agent, observations: Observations) -> float:
    images = torch.as_tensor(observations).double() / 255
    errors = []
    sides: dict[Axis, int] = {"horizontal": -1, "vertical": -2}
    for axis, side in sides.items():
        mirrored = exact_outputs(Mirror(axis)(_exact(agent)), images.flip(side))
        outputs = exact_outputs(agent, images)
        swapped = outputs["action_net"][:, list(SWAPPED_ACTIONS[axis])]
        errors += [
            worst(mirrored["action_net"], swapped),
            worst(mirrored["value_net"], outputs["value_net"]),
        ]
    return max(errors)


def _whole(agent: Agent, observations: Observations) -> float:
    """Truncate to all eigenvectors there are: nothing changes."""
    rank = max(dense_ranks(agent))
    found, expected = (
        exact_outputs(each, observations) for each in (truncate_dense(_exact(agent), rank), agent)
    )
    return max(worst(found[name], expected[name]) for name in ("action_net", "value_net"))


IDENTITIES = [
    *(
        Identity(name, of, error)
        for of in ("dense", "convolution")
        for name, error in (
            ("an eigenfilter scaled", _scaled),
            ("an eigenfilter ablated", _ablated),
            ("only the top one kept", _kept),
            ("a filter written", _written),
            ("what a direction reads, rotated", _turned_filters),
            ("what is written, rotated", _turned_output),
            ("what is read, rotated", _turned_input),
            ("directions read and written, scaled", _scaled_ends),
            ("a direction transplanted", _transplanted),
            ("a bias at each place", _biased),
            ("several edits, compressed", _compressed),
            ("several edits, undone", _undone),
        )
    ),
    Identity("ablated in weights, or patched in the forward pass", "agent", _patched),
    Identity("a mirrored agent in a mirrored world", "agent", _mirrored),
    Identity("a dense layer of all its eigenvectors", "agent", _whole),
]


def _output(layer: Any, like: Tensor) -> Tensor:
    """Draw an output direction."""
    outputs = layer.out_channels if isinstance(layer, BilinearConv2d) else layer.out_features
    return torch.randn(outputs).to(like)


def _map_shape(y: Tensor) -> tuple[int, ...]:
    return (len(y), *y.shape[2:])


def _responses(layer: Any, filter_: Tensor, x: Tensor) -> Tensor:
    """Return ``filter * x`` at every position, by convolving, or the product of a dense layer."""
    if not isinstance(layer, BilinearConv2d):
        return x @ filter_
    conv = layer.left
    kernel = filter_.reshape(1, *conv.weight.shape[1:])
    return F.conv2d(x, kernel, None, conv.stride, conv.padding, conv.dilation)[:, 0]


def _write(y: Tensor, u: Tensor, change: Tensor) -> Tensor:
    """Add to ``u . y`` at every position."""
    return y + torch.einsum("o,n...->no...", u / (u @ u), change)


def _along(u: Tensor, y: Tensor) -> Tensor:
    """Return the part of y along a direction."""
    return torch.einsum("c,d,nd...->nc...", u, u, y) / (u @ u)


def _rotation(source: Tensor, target: Tensor) -> Tensor:
    """Return the matrix that turns source to target: the exponential of their plane's generator."""
    a = source / source.norm()
    b = target - (target @ a) * a
    b = b / b.norm()
    angle = math.atan2((target @ b).item(), (target @ a).item())
    return torch.linalg.matrix_exp(angle * (torch.outer(b, a) - torch.outer(a, b)))


def _exact(agent: Agent) -> Agent:
    """Return a copy in float64; `exact_outputs` runs it."""
    exact = agent.with_layers({}, edit="in float64")
    exact.policy.double()
    return exact
