"""What replacing MLPs costs: each alone, and more and more of them together, in several ways."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedModel

from rlbilinear.agents.folder import new_file
from rlbilinear.approximation import refit
from rlbilinear.convert import to_module
from rlbilinear.gaussian import Gaussian
from rlbilinear.language.closed_form import quadratic, recording, to_bilinear
from rlbilinear.language.devices import Precision, autocast
from rlbilinear.language.models import layers
from rlbilinear.language.scoring import Score, batched, logits_of, replay, score

Replacements = Mapping[int, nn.Module]
"""Modules that stand in for MLPs, by the layer's index."""

LAYERS_AT_ONCE = 10
"""Layers whose inputs are kept in memory together; every such group costs a pass of the model."""


class Constant(nn.Module):
    """Gives the same vector for every token: zero, or the mean of what an MLP gives."""

    def __init__(self, value: Float[Tensor, "features"]) -> None:
        super().__init__()
        self.value = nn.Buffer(value)

    def forward(self, x: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch features"]:
        """Return it."""
        return self.value.to(x).expand_as(x)


def closed_forms(
    model: PreTrainedModel,
    statistics: Mapping[int, Gaussian],
    batches: Sequence[Int[Tensor, "batch context"]],
    *,
    skip: int = 1,
    progress: bool = True,
) -> dict[str, dict[int, nn.Module]]:
    """Return the replacements of every MLP that need no training, by method.

    Methods: ``zero``; ``mean``, the mean output under the Gaussian; ``linear`` and ``quadratic``,
    the best polynomials of degree one and two under it; ``least squares``, the quadratic whose
    units are fitted on the model's own inputs (`rlbilinear.approximation.refit`).

    Args:
        model: the original.
        statistics: of what goes into every MLP, by the layer's index.
        batches: windows of tokens on which least squares are fitted.
        skip: tokens at the start of every window that do not count there.
        progress: show a bar.
    """
    names = ("zero", "mean", "linear", "quadratic", "least squares")
    found: dict[str, dict[int, nn.Module]] = {name: {} for name in names}
    for index, inputs in tqdm(
        mlp_inputs(model, batches, skip), "closed form", len(statistics), disable=not progress
    ):
        polynomial = quadratic(layers(model)[index].mlp, statistics[index])
        mean = polynomial.coefficients(0)
        found["zero"][index] = Constant(torch.zeros_like(mean))
        found["mean"][index] = Constant(mean)
        found["linear"][index] = to_module(polynomial.truncate(1), model.dtype)
        found["quadratic"][index] = to_bilinear(polynomial).to(model.dtype)
        fitted = refit(polynomial, (x.double() for x in inputs))
        found["least squares"][index] = to_bilinear(fitted).to(model.dtype)
    return found


@torch.no_grad()
def mlp_inputs(
    model: PreTrainedModel, batches: Sequence[Int[Tensor, "batch context"]], skip: int
) -> Iterator[tuple[int, list[Float[Tensor, "tokens features"]]]]:
    """Yield every layer's index, and what goes into its MLP in every batch."""
    blocks = layers(model)
    for first in range(0, len(blocks), LAYERS_AT_ONCE):
        chosen = range(first, min(first + LAYERS_AT_ONCE, len(blocks)))
        inputs: dict[int, list[Tensor]] = {index: [] for index in chosen}
        for tokens in batches:
            with recording({index: blocks[index].mlp for index in chosen}) as kept:
                model.model(input_ids=tokens, use_cache=False)
            for index in chosen:
                inputs[index].append(kept[index].inputs[:, skip:].flatten(0, 1))
        yield from ((index, inputs.pop(index)) for index in chosen)


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


@torch.no_grad()
def explained(
    model: PreTrainedModel,
    methods: Mapping[str, Replacements],
    batches: Sequence[Int[Tensor, "batch context"]],
    *,
    skip: int = 1,
) -> pd.DataFrame:
    """Return the share of the variance of each MLP's output that its replacements explain.

    The sum over outputs, on the original's own inputs, without the first ``skip`` tokens of every
    window. Where few tokens have large outputs they rule it, so that ``largest_tokens``, the share
    of the variance that is of the twentieth of the tokens with the largest outputs, stands beside.

    Returns:
        Columns ``layer``, ``method``, ``explained``, ``largest_tokens``.
    """
    rows = []
    for index, inputs in mlp_inputs(model, batches, skip):
        x = torch.cat(inputs)
        wanted = layers(model)[index].mlp(x).double()
        around = (wanted - wanted.mean(0)).square().sum(1)
        largest = around.topk(max(1, len(around) // 20)).values.sum() / around.sum()
        for name, of in methods.items():
            left = (of[index](x).double() - wanted).square().sum() / around.sum()
            rows.append(
                {
                    "layer": index,
                    "method": name,
                    "explained": 1 - left.item(),
                    "largest_tokens": largest.item(),
                }
            )
    return pd.DataFrame(rows)


def each_alone(
    model: PreTrainedModel,
    methods: Mapping[str, Replacements],
    windows: Int[Tensor, "n context"],
    original: Sequence[Float[Tensor, "batch context vocabulary"]],
    *,
    precision: Precision = "auto",
    file: Path | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Score the replacement of each MLP alone.

    Args:
        model: the original.
        methods: the replacements of every method.
        windows: held-out tokens.
        original: the original's logits on them.
        precision: in which the model computes.
        file: a table in which every score is kept; scores that are in it are not made again.
        progress: show a bar.

    Returns:
        Columns ``layer``, ``method``, ``loss``, ``perplexity``, ``kl``.
    """

    def scored(index: int, name: str) -> Score:
        chosen = {index: methods[name][index]}
        return score_replaced(model, chosen, windows, original, precision)

    keys = [(index, name) for name, of in methods.items() for index in of]
    return _scores("layer", keys, scored, file, "each alone", progress)


def cumulative(
    model: PreTrainedModel,
    methods: Mapping[str, Replacements],
    order: Sequence[int],
    counts: Sequence[int],
    windows: Int[Tensor, "n context"],
    original: Sequence[Float[Tensor, "batch context vocabulary"]],
    *,
    precision: Precision = "auto",
    file: Path | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Score the replacement of the first so many MLPs of an order, together.

    Args: as `each_alone`'s, and

        order: the layers, the first to be replaced first.
        counts: how many are replaced together.

    Returns:
        Columns ``layers``, ``method``, ``loss``, ``perplexity``, ``kl``.
    """

    def scored(count: int, name: str) -> Score:
        chosen = {index: methods[name][index] for index in order[:count]}
        return score_replaced(model, chosen, windows, original, precision)

    keys = [(count, name) for name in methods for count in counts]
    return _scores("layers", keys, scored, file, "together", progress)


def _scores(
    of: str,
    keys: Sequence[tuple[int, str]],
    scored: Callable[[int, str], Score],
    file: Path | None,
    title: str,
    progress: bool,
) -> pd.DataFrame:
    """Return a row for each number and method, and keep each in a file as soon as it is made."""
    known = file is not None and file.is_file()
    table = pd.read_csv(file, float_precision="round_trip") if known else pd.DataFrame()
    rows = {(row[of], row["method"]): row for row in table.to_dict("records")}
    for number, method in tqdm(keys, title, disable=not progress):
        if (number, method) not in rows:
            found = scored(number, method)
            columns = {"loss": found.loss, "perplexity": found.perplexity, "kl": found.kl}
            rows[number, method] = {of: number, "method": method, **columns}
            if file is not None:
                with new_file(file) as partial:
                    pd.DataFrame(rows.values()).to_csv(partial, index=False)
    return pd.DataFrame([rows[key] for key in keys])


def cheapest_first(alone: pd.DataFrame, method: str) -> list[int]:
    """Return the layers in order of what replacing each alone costs, by its divergence."""
    of = alone[alone["method"] == method].sort_values("kl")
    return [int(index) for index in of["layer"]]
