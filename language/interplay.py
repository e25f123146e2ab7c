"""Whether a layer multiplies two things that a text has: an adjective and a " not" before it.

Texts come in fours: the first thing is one of two opposites (" good", " bad"), the second is there
or not (" not", " very"). What a quadratic form does with the four inputs splits exactly into what
the layer itself makes of the two together, and what is together in its input already.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from rlbilinear.language.circuits import Circuit, pair_circuit, random_circuits
from rlbilinear.language.reading import Reading
from rlbilinear.quadratic import QuadraticForm

SIGNS = torch.tensor([1.0, -1.0], dtype=torch.float64)


@dataclass(frozen=True)
class Design:
    """Texts in fours. A template has ``{first}`` and ``{second}``, and is read at its last token.

    Raises:
        ValueError: a template without them, no templates, no pairs, or what is not two texts.
    """

    templates: tuple[str, ...]
    first: tuple[tuple[str, str], ...]
    """opposites, such as ("good", "bad")"""
    second: tuple[str, str]
    """with it and without it, such as ("not", "very")"""

    def __post_init__(self) -> None:
        for template in self.templates:
            if template.count("{first}") != 1 or template.count("{second}") != 1:
                raise ValueError(
                    f"templates: {template!r} has not one {{first}} and one {{second}}"
                )
        if not self.templates or not self.first:
            raise ValueError("templates, first: expected at least one of each")
        wrong = [pair for pair in (*self.first, self.second) if len(pair) != 2]
        if wrong:
            raise ValueError(f"first, second: expected two texts each, got {wrong[0]}")

    @classmethod
    def read(cls, file: Path) -> "Design":
        """Read the three fields from a JSON file.

        Raises:
            ValueError: it is not such a file.
        """
        try:
            found = json.loads(Path(file).read_text())
            return cls(
                tuple(found["templates"]),
                tuple(tuple(pair) for pair in found["first"]),
                tuple(found["second"]),
            )
        except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(
                f"{file}: expected JSON with templates, first and second: {error!r}"
            ) from error

    def texts(self) -> list[str]:
        """Return all texts, in the order of (pair, template, first, second)."""
        return [
            template.replace("{first}", one).replace("{second}", two)
            for pair in self.first
            for template in self.templates
            for one in pair
            for two in self.second
        ]

    def cells(
        self, values: Float[Tensor, "texts *rest"]
    ) -> Float[Tensor, "pairs templates 2 2 *rest"]:
        """Return numbers of every text, by pair, template, first and second."""
        return values.reshape(len(self.first), len(self.templates), 2, 2, *values.shape[1:])

    def halves(self) -> tuple["Design", "Design"]:
        """Return the design with every second pair, and the one with the others."""
        return replace(self, first=self.first[::2]), replace(self, first=self.first[1::2])


class Prompts(NamedTuple):
    """Texts as tokens, filled up on the right, which earlier tokens do not see."""

    tokens: Int[Tensor, "texts context"]
    last: Int[Tensor, "texts"]
    """the place of each text's last token"""


class Interplay(NamedTuple):
    """What a form makes of the first thing, with and without the second, by cell."""

    without: Float[Tensor, "*cells"]
    """``q(one, without) - q(opposite, without)``"""
    together: Float[Tensor, "*cells"]
    """the same with the second thing: of the other sign when it flips the first"""
    made: Float[Tensor, "*cells"]
    """the part of ``together - without`` that the layer makes: it multiplies the two"""
    passed: Float[Tensor, "*cells"]
    """the rest, which its inputs hold already"""


def prompts(tokenizer: Any, texts: list[str]) -> Prompts:
    """Tokenise texts of different lengths."""
    rows = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    tokens = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for row, found in zip(tokens, rows, strict=True):
        row[: len(found)] = torch.tensor(found)
    return Prompts(tokens, torch.tensor([len(found) - 1 for found in rows]))


def last_inputs(reading: Reading, layer: int, given: Prompts) -> Float[Tensor, "texts width"]:
    """Return what goes into an MLP at the last token of each text, in float64."""
    tokens = given.tokens.to(reading.embedding.device)
    ((_, x),) = reading.mlp_inputs(layer, [tokens])
    return x.cpu()[torch.arange(len(x)), given.last].double()


def parts(x: Float[Tensor, "*cells 2 2 width"]) -> list[Float[Tensor, "*cells width"]]:
    """Split four inputs into their mean, what the first changes, the second, and both together.

    With signs ``p`` and ``s`` (1, then -1) an input is ``mean + p first + s second + p s both``.
    """
    p, s = SIGNS[:, None, None], SIGNS[None, :, None]
    return [(x * sign).mean((-3, -2)) for sign in (torch.ones(2, 2, 1), p, s, p * s)]


def interplay(form: QuadraticForm, x: Float[Tensor, "*cells 2 2 width"]) -> Interplay:
    """Split what a form does with texts in fours, exactly.

    ``together - without = made + passed``, ``made = 8 firstᵀ Q second`` and
    ``passed = 4 both . (2 Q mean + linear)``, with the `parts` of the inputs.

    Args:
        form: of a direction of a layer's output.
        x: the layer's inputs: first thing and its opposite, second thing there and not.
    """
    q = form(x)
    mean, first, second, both = parts(x)
    return Interplay(
        without=q[..., 0, 1] - q[..., 1, 1],
        together=q[..., 0, 0] - q[..., 1, 0],
        made=4 * (first * (form.gradient(second) - form.linear)).sum(-1),
        passed=4 * (both * form.gradient(mean)).sum(-1),
    )


def interplay_circuit(
    reading: Reading,
    layer: int,
    direction: Float[Tensor, "width"],
    x: Float[Tensor, "*cells 2 2 width"],
    name: str,
) -> Circuit:
    """Return what a form does in the plane of the two things, each averaged over all cells."""
    _, first, second, _ = (part.flatten(0, -2).mean(0) for part in parts(x))
    return pair_circuit(reading, layer, direction, torch.stack([first, second]), name)


@torch.no_grad()
def output_direction(
    reading: Reading, layer: int, x: Float[Tensor, "*cells 2 2 width"]
) -> Float[Tensor, "width"]:
    """Return how the layer's output differs between the first thing and its opposite.

    The mean over cells, without the second thing.
    """
    mlp = reading.mlp(layer)
    y = mlp(x.to(next(mlp.parameters()))).cpu().double()
    return (y[..., 0, 1, :] - y[..., 1, 1, :]).flatten(0, -2).mean(0)


def table(form: QuadraticForm, x: Float[Tensor, "pairs templates 2 2 width"]) -> pd.DataFrame:
    """Return an `Interplay` as a table, with columns ``pair`` and ``template``, their numbers."""
    found = interplay(form, x)
    pairs, templates = found.made.shape
    index = pd.MultiIndex.from_product([range(pairs), range(templates)], names=["pair", "template"])
    columns = {name: values.flatten().tolist() for name, values in found._asdict().items()}
    return pd.DataFrame(columns, index=index).reset_index()


@torch.no_grad()
def edit_effects(
    reading: Reading,
    circuit: Circuit,
    design: Design,
    targets: tuple[int, int],
    *,
    controls: int = 39,
    seed: int = 0,
) -> pd.DataFrame:
    """Scale a circuit in the weights, and measure how the second thing then changes the first.

    Args:
        reading: the model.
        circuit: of it, such as `interplay_circuit` of other pairs.
        design: texts that the circuit was not made from.
        targets: two tokens; what is measured is the difference of their logits after each text.
        controls: circuits with the same values and other vectors, as in `circuits.validate`.
        seed: of the controls.

    Returns:
        Columns ``circuit``, ``control`` (empty for the circuit itself), ``factor`` (1 is no edit),
        ``without`` and ``together``, as in `Interplay` but of the model's logits, means over cells.
    """
    given = prompts(reading.tokenizer, design.texts())
    device = reading.embedding.device
    paused = reading.pause(circuit.layer, given.tokens.to(device))
    at = given.last[:, None].to(device)
    mlp = reading.mlp(circuit.layer)
    x = last_inputs(reading, circuit.layer, given)
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for one in (circuit, *random_circuits(circuit, x, controls, generator)):
        for factor in (1.0, 0.0, 2.0) if one is circuit else (0.0, 2.0):
            with reading.edited(circuit.layer, one.scaled(mlp, factor)):
                logits = paused.logits(at)[:, 0].double()
            cells = design.cells(logits[:, targets[0]] - logits[:, targets[1]])
            rows.append(
                {
                    "circuit": circuit.name,
                    "control": "" if one is circuit else one.name,
                    "factor": factor,
                    "without": (cells[..., 0, 1] - cells[..., 1, 1]).mean().item(),
                    "together": (cells[..., 0, 0] - cells[..., 1, 0]).mean().item(),
                }
            )
    return pd.DataFrame(rows)


def verdict(edits: pd.DataFrame) -> tuple[dict[float, float], str]:
    """Judge a circuit by the change of ``together - without`` that its edits cause.

    Returns:
        By factor, the share of circuits, itself counted, whose change is at least as large; and
        ``validated`` if no more than 5 % are, and ablation and boosting have opposite effects.
    """
    flips = (edits["together"] - edits["without"]).to_numpy()
    own = (edits["control"] == "").to_numpy()
    factors = edits["factor"].to_numpy()
    change = flips - flips[own & (factors == 1)]
    p, signs = {}, set()
    for factor in (0.0, 2.0):
        (effect,) = change[own & (factors == factor)]
        rivals = abs(change[~own & (factors == factor)])
        p[factor] = (1 + int((rivals >= abs(effect)).sum())) / (1 + len(rivals))
        signs.add(effect > 0)
    held = max(p.values()) <= 0.05 and len(signs) == 2
    return p, "validated" if held else "not validated"
