"""Quadratic forms, eigenfilters, vectors of interest and what stands around a layer."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from rlbilinear import channel_spatial_svd, eigenfilters
from rlbilinear.agents import Agent
from rlbilinear.agents.agent import Observations
from rlbilinear.agents.heads import policy_form, policy_forms, trunk_shape, value_form
from rlbilinear.composition import embedded, embedded_spectrum, head_forms, residual_form
from rlbilinear.eigenmaps import eigenmaps, pull_back, vector_filters
from rlbilinear.implicit import image_form
from rlbilinear.testing.identities.identity import Identity, patches_of, worst

PAIRS = 4
"""Eigenpairs asked of Lanczos."""


def _value(layer: Any, x: Tensor) -> float:
    u = _direction(layer)
    return worst(layer.quadratic_form(u)(x), layer(x) @ u)


def _gradient(layer: Any, x: Tensor) -> float:
    u = _direction(layer)
    x = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad((layer(x) @ u).sum(), x)
    return worst(layer.quadratic_form(u).gradient(x.detach()), expected)


def _eigenpairs(layer: Any, x: Tensor) -> float:
    form = layer.quadratic_form(u := _direction(layer))
    total = form.eigh().contributions(x).sum(-1) + x @ form.linear + form.constant
    return worst(total, layer(x) @ u)


def _eigenvalues(layer: Any, x: Tensor) -> float:
    form = layer.quadratic_form(_direction(layer))
    dense = torch.linalg.eigvalsh(form.matrix())
    found = torch.zeros_like(dense)
    values = form.eigh().values
    found[: len(values)] = values
    return worst(found.sort().values, dense)


def _family(layer: Any, x: Tensor) -> float:
    family = layer.quadratic_forms(torch.randn(2, layer.out_features).to(x))
    found, expected = [], []
    for form, spectrum in zip(family, family.eigh(PAIRS), strict=True):
        dense = torch.linalg.eigvalsh(form.matrix()).abs().sort(descending=True).values
        found.append(spectrum.values.abs())
        expected.append(dense[: len(spectrum.values)])
    return worst(torch.cat(found), torch.cat(expected))


def _inner(layer: Any, x: Tensor) -> float:
    family = layer.quadratic_forms(torch.randn(2, layer.out_features).to(x))
    a, b = family
    expected = torch.stack([(a.matrix() * f.matrix()).sum() for f in (a, b)])
    return max(
        worst(torch.stack([a.inner(a), a.inner(b)]), expected), worst(family.gram()[0], expected)
    )


def _trace(layer: Any, x: Tensor) -> float:
    form = layer.quadratic_form(_direction(layer))
    matrix = form.matrix()
    found = torch.stack([form.trace, form.norm])
    return worst(found, torch.stack([matrix.trace(), matrix.norm()]))


def _truncation(layer: Any, x: Tensor) -> float:
    form = layer.quadratic_form(_direction(layer))
    difference = form.matrix() - form.truncate(1).matrix()
    errors = form.truncation_error(1)
    scale = form.norm.item()  # a form of rank 1 has no error to be a share of
    return abs(errors.frobenius - difference.norm().item()) / scale


def _lanczos(layer: Any, x: Tensor) -> float:
    form = layer.quadratic_form(_direction(layer))
    exact, krylov = (form.eigh(PAIRS, method=method) for method in ("exact", "lanczos"))
    return worst(krylov.values, exact.values)


def _basis(layer: Any, x: Tensor) -> float:
    form = layer.quadratic_form(_direction(layer))
    matrix, offset = torch.randn(x.shape[1], 5).to(x) / x.shape[1] ** 0.5, x[0]
    z = torch.randn(4, 5).to(x)
    return worst(form.pullback(matrix, offset)(z), form(z @ matrix.T + offset))


def _residual_dense(layer: Any, x: Tensor) -> float:
    skip = nn.Linear(layer.in_features, layer.out_features).to(x)
    u = _direction(layer)
    return worst(residual_form(layer, u, skip)(x), (skip(x) + layer(x)) @ u)


def _embedding(layer: Any, x: Tensor) -> float:
    embedding = nn.Linear(7, layer.in_features).to(x)
    z = torch.randn(4, 7).to(x)
    form = layer.quadratic_form(u := _direction(layer))
    inputs = embedding(z)
    expected = layer(inputs) @ u
    mapped = embedded_spectrum(form.eigh(), embedding).contributions(z).sum(-1)
    total = mapped + inputs @ form.linear + form.constant
    return max(worst(embedded(form, embedding)(z), expected), worst(total, expected))


def _head(layer: Any, x: Tensor) -> float:
    head = nn.Linear(layer.out_features, 3).to(x)
    return worst(head_forms(layer, head)(x), head(layer(x)))


def _patches(conv: Any, x: Tensor) -> float:
    u = _direction(conv)
    patches = patches_of(conv, x)
    return worst(conv.quadratic_form(u)(patches), _along(u, conv(x)).flatten(1))


def _eigenfilters(conv: Any, x: Tensor) -> float:
    u = _direction(conv)
    return worst(eigenfilters(conv, u).total(x), _along(u, conv(x)))


def _channel_spatial(conv: Any, x: Tensor) -> float:
    vector = torch.randn_like(conv(x)[0])
    return worst(channel_spatial_svd(vector).vector(), vector)


def _vector(conv: Any, x: Tensor) -> float:
    y = conv(x)
    vector = torch.randn_like(y[0])
    return worst(vector_filters(conv, vector).total(x), (vector * y).sum((1, 2, 3)))


def _image(conv: Any, x: Tensor) -> float:
    y = conv(x)
    vector = torch.randn_like(y[0])
    form = image_form(conv, vector, x.shape[1:])
    value = worst(form(x), (vector * y).sum((1, 2, 3)))
    x = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad((vector * conv(x)).sum(), x)
    return max(value, worst(form.gradient(x.detach()), expected))


def _image_eigenpairs(conv: Any, x: Tensor) -> float:
    if x.shape[1] > 8:  # the dense matrix of an agent's maps, 32 x 16 x 16, would be 0.5 GB
        x = x[..., :5, :5]
    vector = torch.randn_like(conv(x)[0])
    form = image_form(conv, vector, x.shape[1:])
    dense = form.quadratic_form()
    values = form.eigh(PAIRS).values
    return max(
        worst(values, dense.eigh(PAIRS, method="exact").values),
        worst(form.trace[None], dense.trace[None]),
    )


def _residual_conv(conv: Any, x: Tensor) -> float:
    conv = copy.deepcopy(conv)
    for each in (conv.left, conv.right):  # such that a tap lies on the position itself
        sizes = zip(each.kernel_size, each.dilation, strict=True)
        each.padding = tuple((k - 1) // 2 * d for k, d in sizes)
    skip = nn.Conv2d(conv.in_channels, conv.out_channels, 1, conv.left.stride).to(x)
    u = _direction(conv)
    patches = patches_of(conv, x)
    y = conv(x)
    rows, columns = y.shape[2:]
    expected = _along(u, skip(x)[..., :rows, :columns] + y).flatten(1)
    return worst(residual_form(conv, u, skip)(patches), expected)


def _logits(agent: Agent, observations: Observations) -> float:
    h, logits, values = _computed(agent, observations)
    return max(worst(policy_forms(agent)(h), logits), worst(value_form(agent)(h), values))


def _contrasts(agent: Agent, observations: Observations) -> float:
    h, logits, _ = _computed(agent, observations)
    form = policy_form(agent, (0, 1, 2), against="others")
    return worst(form(h), logits[:, :3].mean(1) - logits[:, 3:].mean(1))


def _eigenmaps(agent: Agent, observations: Observations) -> float:
    h, logits, _ = _computed(agent, observations)
    shape, form = trunk_shape(agent), policy_form(agent, 0)
    values, maps = eigenmaps(form, shape)
    squares = torch.einsum("kchw,nchw->nk", maps, h.reshape(-1, *shape)) ** 2
    return worst(squares @ values + h @ form.linear + form.constant, logits[:, 0])


def _pulled(agent: Agent, observations: Observations) -> float:
    h, logits, _ = _computed(agent, observations)
    maps = h.reshape(-1, *trunk_shape(agent))
    found = (pull_back(policy_form(agent, 0), maps[:2]) * (maps[1] - maps[0])).sum()
    return worst(found[None], (logits[1, 0] - logits[0, 0])[None])


IDENTITIES = [
    Identity("u . y is its form, biases included", "dense", _value),
    Identity("its gradient is 2 Q x + l", "dense", _gradient),
    Identity("u . y from all eigenpairs", "dense", _eigenpairs),
    Identity("low-rank eigenvalues are the dense matrix's", "dense", _eigenvalues),
    Identity("a family's eigenvalues, by one QR", "dense", _family),
    Identity("inner products from Gram products", "dense", _inner),
    Identity("trace and norm without the matrix", "dense", _trace),
    Identity("the error of a truncation", "dense", _truncation),
    Identity("Lanczos finds the exact eigenvalues", "dense", _lanczos),
    Identity("change of basis x = A z + a", "dense", _basis),
    Identity("residual layer: the skip is linear", "dense", _residual_dense),
    Identity("embedding before, and eigenvectors mapped back", "dense", _embedding),
    Identity("linear head after", "dense", _head),
    Identity("u . y[p] is the form of the padded patch", "convolution", _patches),
    Identity("eigenfilters add up everywhere, borders too", "convolution", _eigenfilters),
    Identity("channels x maps rebuild a vector", "convolution", _channel_spatial),
    Identity("<v, y> by channels, maps and eigenfilters", "convolution", _vector),
    Identity("the image's implicit form and its gradient", "convolution", _image),
    Identity("its Lanczos eigenvalues are the dense matrix's", "convolution", _image_eigenpairs),
    Identity("residual block on patches", "convolution", _residual_conv),
    Identity("logits and value are forms of the trunk", "agent", _logits),
    Identity("a group of actions minus the others", "agent", _contrasts),
    Identity("a logit from its eigenvectors as maps", "agent", _eigenmaps),
    Identity("pulled back halfway: exact for a difference", "agent", _pulled),
]


def _direction(layer: Any) -> Tensor:
    """Draw an output direction."""
    outputs = layer.out_features if hasattr(layer, "out_features") else layer.out_channels
    return torch.randn(outputs).to(layer.left.weight)


def _along(u: Tensor, y: Tensor) -> Tensor:
    return torch.einsum("o,nohw->nhw", u, y)


def _computed(agent: Agent, observations: Observations) -> tuple[Tensor, Tensor, Tensor]:
    """Return the trunk's output, and logits and values from there on, in float64."""
    h = agent.activations(observations, ["flatten"])["flatten"].double()
    dense, actor, critic = (
        copy.deepcopy(agent.layer(name)).double() for name in ("dense", "action_net", "value_net")
    )
    with torch.no_grad():
        return h, actor(dense(h)), critic(dense(h))[:, 0]
