"""What replacing MLPs costs: each alone, and more and more of them together, in several ways."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedModel

from rlbilinear.convert import to_module
from rlbilinear.gaussian import Gaussian
from rlbilinear.language.closed_form import quadratic, to_bilinear
from rlbilinear.language.devices import Precision, autocast
from rlbilinear.language.models import layers
from rlbilinear.language.scoring import Score, batched, logits_of, replay, score

Replacements = Mapping[int, nn.Module]
"""Modules that stand in for MLPs, by the layer's index."""


class Constant(nn.Module):
    """Gives the same vector for every token: zero, or the mean of what an MLP gives."""

    def __init__(self, value: Float[Tensor, "features"]) -> None:
        super().__init__()
        self.value = nn.Buffer(value)

    def forward(self, x: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch features"]:
        """Return it."""
        return self.value.to(x).expand_as(x)


def closed_forms(
    model: PreTrainedModel, statistics: Mapping[int, Gaussian], *, progress: bool = True
) -> dict[str, dict[int, nn.Module]]:
    """Return the replacements of every MLP that need no training, by method.

    Methods: ``zero``; ``mean``, the mean output under the Gaussian; ``linear`` and ``quadratic``,
    the best polynomials of degree one and two.
    """
    found: dict[str, dict[int, nn.Module]] = {
        name: {} for name in ("zero", "mean", "linear", "quadratic")
    }
    for index, gaussian in tqdm(statistics.items(), "closed form", disable=not progress):
        polynomial = quadratic(layers(model)[index].mlp, gaussian)
        mean = polynomial.coefficients(0)
        found["zero"][index] = Constant(torch.zeros_like(mean))
        found["mean"][index] = Constant(mean)
        found["linear"][index] = to_module(polynomial.truncate(1), model.dtype)
        found["quadratic"][index] = to_bilinear(polynomial).to(model.dtype)
    return found


@contextmanager
def replaced(model: PreTrainedModel, replacements: Replacements) -> Iterator[PreTrainedModel]:
    """Put modules in place of MLPs for the length of a block."""
    blocks = layers(model)
    originals = {index: blocks[index].mlp for index in replacements}
    for index, module in replacements.items():
        blocks[index].mlp = module
    try:
        yield model
    finally:
        for index, module in originals.items():
            blocks[index].mlp = module


@torch.no_grad()
def original_logits(
    model: PreTrainedModel,
    windows: Int[Tensor, "n context"],
    batch: int,
    precision: Precision = "auto",
) -> list[Float[Tensor, "batch context vocabulary"]]:
    """Return the original's logits of every batch, kept for many comparisons."""
    with autocast(model, precision):
        return [logits_of(model)(tokens) for tokens in batched(windows, batch, model.device)]


def score_replaced(
    model: PreTrainedModel,
    replacements: Replacements,
    windows: Int[Tensor, "n context"],
    original: Sequence[Float[Tensor, "batch context vocabulary"]],
    precision: Precision = "auto",
) -> Score:
    """Score a model with modules in place of MLPs, against the original's logits."""
    batch = len(original[0])
    with replaced(model, replacements), autocast(model, precision):
        return score(
            logits_of(model),
            batched(windows, batch, model.device),
            original=replay(original),
        )


def each_alone(
    model: PreTrainedModel,
    methods: Mapping[str, Replacements],
    windows: Int[Tensor, "n context"],
    original: Sequence[Float[Tensor, "batch context vocabulary"]],
    *,
    precision: Precision = "auto",
    progress: bool = True,
) -> pd.DataFrame:
    """Score the replacement of each MLP alone.

    Returns:
        Columns ``layer``, ``method``, ``loss``, ``perplexity``, ``kl``.
    """
    pairs = [(index, name) for name, of in methods.items() for index in of]
    rows = []
    for index, name in tqdm(pairs, "each alone", disable=not progress):
        found = score_replaced(model, {index: methods[name][index]}, windows, original, precision)
        rows.append({"layer": index, "method": name, **_columns(found)})
    return pd.DataFrame(rows)


def cumulative(
    model: PreTrainedModel,
    methods: Mapping[str, Replacements],
    order: Sequence[int],
    counts: Sequence[int],
    windows: Int[Tensor, "n context"],
    original: Sequence[Float[Tensor, "batch context vocabulary"]],
    *,
    precision: Precision = "auto",
    progress: bool = True,
) -> pd.DataFrame:
    """Score the replacement of the first so many MLPs of an order, together.

    Returns:
        Columns ``layers``, ``method``, ``loss``, ``perplexity``, ``kl``.
    """
    pairs = [(count, name) for name in methods for count in counts]
    rows = []
    for count, name in tqdm(pairs, "together", disable=not progress):
        chosen = {index: methods[name][index] for index in order[:count]}
        found = score_replaced(model, chosen, windows, original, precision)
        rows.append({"layers": count, "method": name, **_columns(found)})
    return pd.DataFrame(rows)


def cheapest_first(alone: pd.DataFrame, method: str) -> list[int]:
    """Return the layers in order of what replacing each alone costs, by its divergence."""
    of = alone[alone["method"] == method].sort_values("kl")
    return [int(index) for index in of["layer"]]


def _columns(found: Score) -> dict[str, float | None]:
    return {"loss": found.loss, "perplexity": found.perplexity, "kl": found.kl}
