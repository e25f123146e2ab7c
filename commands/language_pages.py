"""What ``language read`` finds, as its reader sees it: circuits, and what is multiplied."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd
import torch

from rlbilinear.language import circuits
from rlbilinear.language.circuits import Circuit
from rlbilinear.language.interplay import Design
from rlbilinear.language.reading import Reading
from rlbilinear.language.text import token_text
from rlbilinear.statistics import t_interval


@dataclass(frozen=True, eq=False)
class Found:
    """A circuit, the tokens that it should promote, and examples of what it is made of."""

    circuit: Circuit
    targets: torch.Tensor
    parts: Mapping[str, list[circuits.Context]] = field(default_factory=dict)


def describe_interplay(name: str, design: Design, table: pd.DataFrame) -> str:
    """Return what a layer makes of one thing with and without another, along a direction."""
    means = table.groupby("pair")[["without", "together", "made", "passed"]].mean()
    flipped = int((means["without"] * means["together"] < 0).sum())
    there, without = (text.strip() for text in design.second)
    lines = [f"{there!r} beside {without!r}, along {name}: {len(means)} pairs"]
    for column, words in (
        ("without", f"one - opposite with {without!r}"),
        ("together", f"one - opposite with {there!r}"),
        ("made", "difference that the layer makes"),
        ("passed", "difference that its inputs hold"),
    ):
        interval = t_interval(means[column].to_numpy())
        lines.append(
            f"  {words:34s} {means[column].mean():+.3g} ({interval.low:+.3g}, {interval.high:+.3g})"
        )
    lines.append(f"  of the other sign with {there!r} in {flipped} of {len(means)} pairs")
    return "\n".join(lines)


def describe_interplay_edits(table: pd.DataFrame, p: dict[float, float], verdict: str) -> str:
    """Return what editing the plane of two things changes, beside controls."""
    flips = (table["together"] - table["without"]).to_numpy()
    own, factors = (table["control"] == "").to_numpy(), table["factor"].to_numpy()
    (before,) = flips[own & (factors == 1)]
    plain = table[own & (factors == 1)].iloc[0]
    lines = [
        f"  the model's logits: {plain['without']:+.3f} without, {plain['together']:+.3f} together",
        f"  the circuit of the two, edited: {verdict}",
    ]
    for factor in p:
        (after,) = flips[own & (factors == factor)]
        rivals = abs(flips[~own & (factors == factor)] - before)
        lines.append(
            f"  x {factor:g}: together - without {before:+.4f} -> {after:+.4f}; "
            f"{len(rivals)} controls: largest change {rivals.max():.4f}; p {p[factor]:.3f}"
        )
    return "\n".join(lines)


def describe(
    reading: Reading,
    found: Found,
    alone: circuits.Alone,
    held_out: torch.Tensor,
    activity: torch.Tensor,
    result: circuits.Validation,
) -> str:
    """Return a circuit as its reader sees it: values, tokens, contexts, edits and controls."""
    circuit = found.circuit
    lines = [f"{circuit.name} (layer {circuit.layer}): {result.verdict}"]
    promoted = [token_text(reading.tokenizer, token) for token in found.targets.tolist()]
    lines.append(f"  promotes {_quoted(promoted)}")
    ends = circuits.strongest_tokens(reading, circuit, among=alone)
    for value, end in zip(circuit.values.tolist(), ends, strict=True):
        lines.append(
            f"  eigenvalue {value:+.3g}: {_quoted(end['positive'])} | {_quoted(end['negative'])}"
        )
    for part, examples in found.parts.items():
        lines.append(f"  {part}")
        lines += [f"    {context.activity:9.3g}  {context.text}" for context in examples]
    if found.parts:
        lines.append("  the circuit of the two inputs")
    for count, sign in ((5, 1), (3, -1)):
        examples = circuits.contexts(
            reading, circuit, held_out, count=count, sign=sign, activity=activity
        )
        for context in examples:
            lines.append(f"    {context.activity:+9.3g}  {context.text}")
    table = result.table
    own, others = table[table["control"] == ""], table[table["control"] != ""]
    for row in own.itertuples():
        rivals = others.loc[others["factor"] == row.factor, "effect"].abs()
        lines.append(
            f"  x {row.factor:g}: {row.effect:+.4f} nats where active, {row.elsewhere:+.4f} "
            f"elsewhere; {len(rivals)} controls: largest {rivals.max():.4f}; "
            f"p {result.p[row.factor]:.3f}"
        )
    return "\n".join(lines)


def _quoted(texts: list[str]) -> str:
    return ", ".join(f'"{text}"'.replace("\n", "\\n") for text in texts)
