"""Circuits of one bilinear layer: what an output direction reads, and whether that is so.

A circuit is an output direction with some eigenvectors of its quadratic form. It is read from
weights alone (`strongest_tokens`), shown on text (`contexts`), and tested by editing the weights
(`validate`) beside random circuits of the same size.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from rlbilinear.edits.functional.filters import write_eigenfilters
from rlbilinear.language.reading import Reading
from rlbilinear.language.scoring import divergence
from rlbilinear.language.text import token_text
from rlbilinear.layers import BilinearLinear


@dataclass(frozen=True, eq=False)
class Circuit:
    """Terms ``values_i (vectors_i . x)²`` that a layer adds along one output direction."""

    name: str
    layer: int
    direction: Float[Tensor, "width"]
    """of the layer's output"""
    values: Float[Tensor, "k"]
    vectors: Float[Tensor, "k width"]
    """of the layer's input"""

    def activity(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch"]:
        """Return what the circuit adds to ``direction . y``."""
        return (self.values.to(x) * (x @ self.vectors.to(x).T) ** 2).sum(-1)

    def scaled(self, mlp: BilinearLinear, factor: float) -> BilinearLinear:
        """Return the layer with the circuit scaled, in its weights: 0 ablates it, 2 doubles it."""
        return write_eigenfilters(mlp, self.direction, (factor - 1) * self.values, self.vectors)


class Context(NamedTuple):
    """A place in a text where a circuit is active."""

    activity: float
    text: str
    """the token is between ``[[`` and ``]]``"""


def eigen_circuit(
    reading: Reading,
    layer: int,
    direction: Float[Tensor, "width"],
    name: str,
    *,
    k: int = 1,
    sign: int = 0,
) -> Circuit:
    """Return the ``k`` largest eigenvectors of an output direction's form.

    Args:
        reading: the model.
        layer: of a bilinear MLP.
        direction: of its output: a logit's, a feature's, any.
        name: in tables.
        k: eigenvectors.
        sign: 1 or -1 for those with values of this sign only; 0 for all.
    """
    values, vectors = reading.mlp(layer).quadratic_form(direction).eigh()
    if sign:
        chosen = values.sign() == sign
        values, vectors = values[chosen], vectors[chosen]
    return Circuit(name, layer, direction, values[:k], vectors[:k])


def pair_circuit(
    reading: Reading,
    layer: int,
    direction: Float[Tensor, "width"],
    pair: Float[Tensor, "2 width"],
    name: str,
) -> Circuit:
    """Return what a form does in the plane of two input directions: how two features interact.

    Args:
        reading: the model.
        layer: of a bilinear MLP.
        direction: of its output.
        pair: of its input; such as two decoder rows of an autoencoder.
        name: in tables.
    """
    basis = torch.linalg.qr(pair.double().T)[0].T
    form = reading.mlp(layer).quadratic_form(direction)
    values, vectors = torch.linalg.eigh(basis @ form.matrix() @ basis.T)
    return Circuit(name, layer, direction, values, vectors.T @ basis)


class Alone(NamedTuple):
    """Tokens, and what goes into a layer when each stands alone (`Reading.token_inputs`)."""

    tokens: Int[Tensor, "n"]
    inputs: Float[Tensor, "n width"]


def alone(reading: Reading, layer: int, tokens: Int[Tensor, "n"] | None = None) -> Alone:
    """Return what each token gives a layer; all tokens of the vocabulary when None."""
    chosen = torch.arange(len(reading.embedding)) if tokens is None else tokens
    return Alone(chosen, reading.token_inputs(layer, chosen).cpu())


def strongest_tokens(
    reading: Reading, circuit: Circuit, count: int = 8, among: Alone | None = None
) -> list[dict[str, list[str]]]:
    """Return the tokens that lie farthest along each eigenvector, at both its ends.

    Tokens go through all earlier layers alone; the sign of an eigenvector is free, and both ends
    act in the same way.

    Args:
        reading: the model.
        circuit: of it.
        count: tokens at each end.
        among: which tokens, at the circuit's layer; the whole vocabulary when None.
    """
    among = alone(reading, circuit.layer) if among is None else among
    along = among.inputs @ circuit.vectors.to(among.inputs).T
    count = min(count, len(along))
    return [
        {
            end: [token_text(reading.tokenizer, int(token)) for token in among.tokens[places]]
            for end, places in (
                ("positive", column.topk(count).indices),
                ("negative", (-column).topk(count).indices),
            )
        }
        for column in along.T
    ]


def promoted_tokens(
    reading: Reading, direction: Float[Tensor, "width"], count: int = 8
) -> Int[Tensor, "count"]:
    """Return the tokens whose logits a direction of the residual stream raises most."""
    # In the model's dtype: in float64 the unembedding alone would be hundreds of megabytes.
    logits = reading.unembedding @ (reading.gain * direction.to(reading.gain))
    return (logits - logits.mean()).topk(count).indices


def contexts(
    reading: Reading,
    circuit: Circuit,
    windows: Int[Tensor, "n context"],
    *,
    count: int = 8,
    before: int = 14,
    after: int = 4,
    sign: int = 1,
    skip: int = 1,
    activity: Float[Tensor, "n context"] | None = None,
) -> list[Context]:
    """Return the places of a text where a circuit adds most (or least), at most one of a window.

    Args:
        reading: the model.
        circuit: of it.
        windows: of tokens that it was not trained on.
        count: places.
        before: tokens shown before each.
        after: tokens shown after it.
        sign: -1 for the places where it subtracts most.
        skip: tokens at the start of every window that do not count.
        activity: of the circuit (`window_activity`), where it is known already.
    """
    if activity is None:
        activity = window_activity(reading, circuit, windows)
    activity = sign * activity
    activity[:, :skip] = -torch.inf
    found = marked(reading.tokenizer, windows, activity, count=count, before=before, after=after)
    return [context._replace(activity=sign * context.activity) for context in found]


def marked(
    tokenizer: Any,
    windows: Int[Tensor, "n context"],
    activity: Float[Tensor, "n context"],
    *,
    count: int = 8,
    before: int = 14,
    after: int = 4,
) -> list[Context]:
    """Return the places of a text with the largest of given numbers, at most one of a window."""
    best, places = activity.max(1)
    found = []
    for row in best.topk(min(count, len(best))).indices.tolist():
        at = int(places[row])
        tokens = windows[row].tolist()
        text = (
            tokenizer.decode(tokens[max(0, at - before) : at])
            + f"[[{token_text(tokenizer, tokens[at])}]]"
            + tokenizer.decode(tokens[at + 1 : at + 1 + after])
        )
        found.append(Context(best[row].item(), " ".join(text.split())))
    return found


def window_activity(
    reading: Reading, circuit: Circuit, windows: Int[Tensor, "n context"], batch: int = 32
) -> Float[Tensor, "n context"]:
    """Return a circuit's activity at every token."""
    device = reading.embedding.device
    batches = (part.to(device).long() for part in windows.split(batch))
    found = [circuit.activity(x) for _, x in reading.mlp_inputs(circuit.layer, batches)]
    return torch.cat(found).cpu()


class Validation(NamedTuple):
    """A circuit's edits beside those of random circuits."""

    table: pd.DataFrame
    """``circuit``, ``control`` (empty for the circuit itself), ``factor``, ``effect`` (change of
    the targets' log-probability where the circuit is active, nats), ``elsewhere`` (the same at
    other places), ``kl`` (of all predictions where it is active)"""
    p: dict[float, float]
    """by factor: the share of circuits, itself counted, whose effect is at least as large"""
    verdict: str


@torch.no_grad()
def validate(
    reading: Reading,
    circuit: Circuit,
    windows: Int[Tensor, "n context"],
    targets: Int[Tensor, "targets"],
    *,
    factors: Sequence[float] = (0.0, 2.0),
    places: int = 64,
    controls: int = 39,
    seed: int = 0,
    activity: Float[Tensor, "n context"] | None = None,
) -> Validation:
    """Scale a circuit in the weights, and measure what the model then predicts.

    Controls are circuits with the same values along the same direction, so that the edits are as
    large in Frobenius norm, but other vectors: half are random directions, half are how inputs of
    the layer, at random places of the text, differ from the mean input. The circuit is *validated*
    if its effects are larger than those of all but 5 % of the controls, for every factor, and
    ablation and boosting have opposite effects.

    Args:
        reading: the model.
        circuit: of it.
        windows: of tokens that it was not trained on.
        targets: tokens whose joint probability is measured.
        factors: 0 ablates, 2 doubles.
        places: tokens at which it is most active, in size; one of a window.
        controls: random circuits.
        seed: of the controls and of the other places.
        activity: of the circuit (`window_activity`), where it is known already.

    Raises:
        ValueError: fewer windows than places.
    """
    if len(windows) < places:
        raise ValueError(f"windows: {len(windows)} are fewer than {places} places")
    if activity is None:
        activity = window_activity(reading, circuit, windows)
    activity = activity.abs()
    activity[:, 0] = 0
    best, at = activity.max(1)
    rows = best.topk(places).indices
    device = reading.embedding.device
    tokens = windows[rows].to(device).long()
    generator = torch.Generator().manual_seed(seed)
    other = torch.randint(1, windows.shape[1], (places,), generator=generator)
    measured = torch.stack([at[rows], other], 1).to(device)
    mlp = reading.mlp(circuit.layer)
    # The edit changes one layer, so all that is before it is computed once.
    paused = reading.pause(circuit.layer, tokens)
    before = paused.logits(measured)
    inputs = next(iter(reading.mlp_inputs(circuit.layer, [tokens])))[1].flatten(0, 1)
    results = []
    for control, one in enumerate(
        [circuit, *random_circuits(circuit, inputs, controls, generator)]
    ):
        for factor in factors:
            with reading.edited(circuit.layer, one.scaled(mlp, factor)):
                after = paused.logits(measured)
            change = _log_probability(after, targets) - _log_probability(before, targets)
            results.append(
                {
                    "circuit": circuit.name,
                    "control": "" if one is circuit else one.name,
                    "factor": factor,
                    "effect": change[:, 0].mean().item(),
                    "elsewhere": change[:, 1].mean().item(),
                    "kl": divergence(before[:, 0], after[:, 0]).mean().item(),
                    "number": control,
                }
            )
    table = pd.DataFrame(results)
    own, rest = table[table["number"] == 0], table[table["number"] > 0]
    p = {}
    for factor in factors:
        effect = own.loc[own["factor"] == factor, "effect"].abs().item()
        rivals = rest.loc[rest["factor"] == factor, "effect"].abs()
        p[factor] = (1 + int((rivals >= effect).sum())) / (1 + len(rivals))
    signs = {effect > 0 for effect in own["effect"]}
    held = max(p.values()) <= 0.05 and (len(factors) == 1 or len(signs) == 2)
    return Validation(table.drop(columns="number"), p, "validated" if held else "not validated")


def random_circuits(
    circuit: Circuit, inputs: Float[Tensor, "n width"], count: int, generator: torch.Generator
) -> list[Circuit]:
    """Return circuits with the same values along the same direction, but other vectors.

    By turns they are random, and how real inputs of the layer differ from their mean.
    """
    k, width = circuit.vectors.shape
    found = []
    for number in range(count):
        if number % 2:
            chosen = torch.randint(len(inputs), (k,), generator=generator)
            rows = (inputs[chosen.to(inputs.device)] - inputs.mean(0)).cpu().double()
            name = "input"
        else:
            rows = torch.randn(k, width, generator=generator).double()
            name = "random"
        vectors = torch.linalg.qr(rows.T)[0].T
        found.append(replace(circuit, name=name, vectors=vectors))
    return found


def _log_probability(
    logits: Float[Tensor, "batch places vocabulary"], targets: Int[Tensor, "targets"]
) -> Float[Tensor, "batch places"]:
    return logits.float().log_softmax(-1)[..., targets.to(logits.device)].logsumexp(-1)
