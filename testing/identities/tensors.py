"""The third-order tensor of a layer, its decompositions, and layers in depth."""

from typing import Any

import torch
from torch import Tensor

from rlbilinear import BilinearLinear, BilinearStack
from rlbilinear.agents import Agent
from rlbilinear.agents.agent import Observations
from rlbilinear.agents.polynomial_parts import inputs_of, polynomial_parts
from rlbilinear.chains import as_convolutional, chain
from rlbilinear.cp import fit_cp
from rlbilinear.deep_hosvd import deep_hosvd
from rlbilinear.hosvd import hosvd
from rlbilinear.stack import Stage
from rlbilinear.tensor import BilinearTensor
from rlbilinear.testing.identities.identity import Identity, exact_outputs, patches_of, worst
from rlbilinear.tucker import tucker2

SHOWN = 3
"""Outputs whose dense matrices are built, components and terms kept."""


def _tensor(layer: Any, x: Tensor) -> float:
    patches, y = _patches(layer, x)
    return worst(BilinearTensor.of(layer)(patches), y)


def _gram(layer: Any, x: Tensor) -> float:
    tensor = BilinearTensor.of(layer)
    matrices = _matrices(tensor).flatten(1)
    return worst(tensor.gram[:SHOWN, :SHOWN], matrices @ matrices.T)


def _components(layer: Any, x: Tensor) -> float:
    tensor = BilinearTensor.of(layer)
    patches, y = _patches(layer, x)
    svd = hosvd(tensor)
    total = patches @ tensor.linear.T + tensor.constant
    for index, (size, output) in enumerate(zip(svd.singular_values, svd.outputs, strict=True)):
        total = total + size * svd.component(index)(patches)[..., None] * output
    return worst(total, y)


def _singular_values(layer: Any, x: Tensor) -> float:
    """Compare with the dense SVD, of the first outputs alone: of the whole it is too large."""
    tensor = BilinearTensor.of(layer)
    first = tensor.with_outputs(torch.eye(tensor.out_features).to(tensor.down)[:SHOWN])
    expected = torch.linalg.svdvals(_matrices(tensor).flatten(1))
    found = torch.zeros_like(expected)
    values = hosvd(first).singular_values
    found[: len(values)] = values
    return worst(found**2, expected**2)


def _interactions(layer: Any, x: Tensor) -> float:
    svd = hosvd(BilinearTensor.of(layer))
    kept = range(min(SHOWN, len(svd.outputs)))
    patches, _ = _patches(layer, x)
    return worst(svd.interactions(kept).tensor()(patches), svd.truncate(kept)(patches))


def _dropped(layer: Any, x: Tensor) -> float:
    """Compare the stated errors with what the norms leave: squares add up."""
    tensor = BilinearTensor.of(layer)
    svd = hosvd(tensor)
    kept = range(min(SHOWN, len(svd.outputs)))
    terms = svd.interactions(kept).keep(SHOWN)
    basis = tucker2(tensor, SHOWN)
    parts = [
        (svd.truncate(kept), svd.error(kept)),
        (terms.tensor(), terms.error),
        (basis.tensor(), basis.error),
    ]
    squares = torch.stack([short.norm**2 + error**2 for short, error in parts])
    return worst(squares, (tensor.norm**2).expand(len(parts)))


def _tucker(layer: Any, x: Tensor) -> float:
    tensor = BilinearTensor.of(layer)
    patches, y = _patches(layer, x)
    whole = tucker2(tensor, min(tensor.in_features, 2 * tensor.hidden_features))
    return worst(whole.tensor()(patches), y)


def _cosine(layer: Any, x: Tensor) -> float:
    tensor = BilinearTensor.of(layer)
    found = fit_cp(tensor, SHOWN, steps=5)
    a, b = tensor.matrices().flatten(), found.tensor().matrices().flatten()
    return abs(found.cosine - (a @ b / a.norm() / b.norm()).item())


def _chain(layer: Any, x: Tensor) -> float:
    stage = as_convolutional(Stage(layer))
    stack, maps = BilinearStack([stage]), x if x.ndim == 4 else x[:, :, None, None]
    outputs = layer(x).shape[1]
    u = torch.randn(outputs).to(x)
    whole = chain(stack, u, filters=None, patterns=None)
    return worst(whole(maps), torch.einsum("o,nohw->nhw", u, stack(maps)))


def _pulled(layer: Any, x: Tensor) -> float:
    """Stack a second layer on the first, with a skip, and decompose both, all components kept."""
    size = layer.out_features
    second = BilinearLinear(size, 5, hidden_features=7, bias=True).to(x)
    skip = torch.nn.Linear(layer.in_features, size).to(x)
    stack = BilinearStack([Stage(layer, skip), Stage(second)])
    return worst(deep_hosvd(stack)(x), stack(x))


def _between_pools(agent: Agent, observations: Observations) -> float:
    """Compare each part's polynomial with the agent's own layers, in float64."""
    outputs = exact_outputs(agent, observations)
    return max(
        worst(part.stack(outputs[part.source]).flatten(1), outputs[part.layers[-1]].flatten(1))
        for part in polynomial_parts(agent)
    )


def _along(agent: Agent, observations: Observations) -> float:
    """Compare the coefficients along a line between two inputs with values on it."""
    errors = []
    for part in polynomial_parts(agent):
        x = inputs_of(agent, part, observations).double()[:2]
        step = x[1:] - x[:1]
        coefficients = part.stack.along(x[:1], step)
        for t in (0.3, 1.0):
            powers = t ** torch.arange(len(coefficients)).double()
            found = torch.tensordot(powers, coefficients, 1)
            errors.append(worst(found, part.stack(x[:1] + t * step)))
    return max(errors)


IDENTITIES = [
    *(
        Identity(name, of, error)
        for of in ("dense", "convolution")
        for name, error in (
            ("the tensor computes the layer", _tensor),
            ("Gram matrix of outputs without inputs²", _gram),
            ("all HOSVD components add up to the layer", _components),
            ("singular values squared are the dense SVD's", _singular_values),
            ("interactions add up to their components", _interactions),
            ("errors of HOSVD, interactions and Tucker-2", _dropped),
            ("Tucker-2 with a whole basis is the layer", _tucker),
        )
    ),
    Identity("a CP fit's cosine without the dense tensor", "convolution", _cosine),
    Identity("a chain that keeps everything", "convolution", _chain),
    Identity("pulled through a layer's singular basis, all kept", "dense", _pulled),
    Identity("polynomials between pools are the agent's layers", "agent", _between_pools),
    Identity("their coefficients along a line", "agent", _along),
]


def _patches(layer: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the inputs of a layer's tensor, and its outputs, the last axis over outputs."""
    y = layer(x).detach()
    return patches_of(layer, x), y if y.ndim == 2 else y.flatten(2).mT


def _matrices(tensor: BilinearTensor) -> Tensor:
    """Build the dense matrices of the first outputs."""
    first = torch.eye(tensor.out_features).to(tensor.down)[:SHOWN]
    return torch.stack([tensor.quadratic_form(row).matrix() for row in first])
