"""Replace every subset of a network's layers by polynomials, and compare the outputs."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor, nn

from rlbilinear.statistics import kl_of_logits
from rlbilinear.swapping import CovarianceKind, Inputs, batches, replace_layers


class Comparison(NamedTuple):
    """A network's outputs beside another's, on the same inputs.

    Where some outputs are not finite, only `finite` is a number: the others would be of the rest.
    """

    kl: float
    """mean of KL(network || other) of the softmax of the outputs, in nats"""
    agreement: float
    """how often the largest output is the same"""
    r2: float
    """share of the network's outputs explained by the other's: centred, mean over outputs"""
    accuracy: float
    """of the other, where labels are given; else NaN"""
    finite: float
    """share of inputs for which all outputs of both are finite"""


def subsets(layers: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield every subset of the layers but the empty one, small ones first: 2^n - 1 of them."""
    for size in range(1, len(layers) + 1):
        yield from itertools.combinations(layers, size)


def compare_outputs(
    network: Callable[[Tensor], Tensor],
    other: Callable[[Tensor], Tensor],
    inputs: Inputs,
    labels: Int[Tensor, "n"] | None = None,
) -> Comparison:
    """Compare the outputs of two networks, or polynomials, that end in logits.

    Raises:
        ValueError: outputs that are not ``(batch, outputs)``, or labels of another number.
    """
    with torch.no_grad():
        ours, theirs = (
            torch.cat([each(x) for x in batches(inputs)]).double() for each in (network, other)
        )
    if ours.ndim != 2 or ours.shape != theirs.shape:
        raise ValueError(
            f"expected outputs (batch, outputs) of both, got {tuple(ours.shape)} and "
            f"{tuple(theirs.shape)}"
        )
    if labels is not None and len(labels) != len(ours):
        raise ValueError(f"labels: expected {len(ours)}, got {len(labels)}")
    finite = (ours.isfinite() & theirs.isfinite()).all(1).double().mean().item()
    if finite < 1:
        missing = float("nan")
        return Comparison(missing, missing, missing, missing, finite)
    scatter = (ours - ours.mean(0)).square().sum(0)
    varies = torch.where(scatter > 0, scatter, torch.nan)
    chosen = theirs.argmax(1)
    return Comparison(
        kl=kl_of_logits(ours, theirs).mean().item(),
        agreement=(ours.argmax(1) == chosen).double().mean().item(),
        r2=(1 - (ours - theirs).square().sum(0) / varies).nanmean().item(),
        accuracy=(float("nan") if labels is None else (chosen == labels).double().mean().item()),
        finite=finite,
    )


def sweep_subsets(
    network: nn.Module,
    layers: Sequence[str],
    degrees: Sequence[int],
    inputs: Inputs,
    held_out: Inputs,
    labels: Int[Tensor, "n"] | None = None,
    *,
    covariance: CovarianceKind = "full",
) -> pd.DataFrame:
    """Replace every subset of layers, with statistics re-estimated and not, and compare.

    Args:
        network: ends in logits.
        layers: their subsets are tried: 2^n - 1 of them.
        degrees: of the approximants.
        inputs: for the statistics.
        held_out: on which the networks are compared.
        labels: of ``held_out``, for the accuracy.
        covariance: as in `replace_layers`.

    Returns:
        A row for each subset, degree, and way: ``layers`` (joined by ``+``), ``replaced`` (how
        many), ``degree``, ``reestimated``, ``kl``, ``agreement``, ``r2``, ``accuracy``,
        ``finite`` (as in `Comparison`). The first row is the network itself, with nothing
        replaced and degree -1.

    Raises:
        ValueError: as `replace_layers` and `compare_outputs`.
    """
    itself = compare_outputs(network, network, held_out, labels)
    rows: list[dict[str, Any]] = [
        {"layers": "", "replaced": 0, "degree": -1, "reestimated": False, **itself._asdict()}
    ]
    for chosen, degree, reestimate in itertools.product(subsets(layers), degrees, (True, False)):
        replaced = replace_layers(
            network, chosen, degree, inputs, reestimate=reestimate, covariance=covariance
        )
        found = compare_outputs(network, replaced.network, held_out, labels)
        rows.append(
            {
                "layers": "+".join(replaced.polynomials),
                "replaced": len(chosen),
                "degree": degree,
                "reestimated": reestimate,
                **found._asdict(),
            }
        )
    return pd.DataFrame(rows)
