"""A ReLU agent's polynomial surrogates beside a bilinear agent: fit, play, eigenfilters.

Three sets of levels, of which no two share one: on the first the polynomials are fitted, on the
second the way of fitting is chosen, and on the third, the evaluation levels, everything is
measured.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import UInt8
from matplotlib.figure import Figure
from tqdm import tqdm

from rlbilinear.agents import Agent, load
from rlbilinear.agents.evaluation import evaluate, summary
from rlbilinear.agents.surrogate import (
    Surrogate,
    hidden_layers,
    polynomial_surrogate,
    regrouped,
    units,
    with_polynomials,
)
from rlbilinear.envs import EVALUATION, FITTING
from rlbilinear.figures import filter_strip
from rlbilinear.probes.concepts import cheese_presence
from rlbilinear.probes.dataset import collect
from rlbilinear.statistics import kl_of_logits, paired_difference
from rlbilinear.studies.polynomials import relu_figures as draw
from rlbilinear.studies.polynomials import relu_filters as filters
from rlbilinear.studies.polynomials.tails import tails
from rlbilinear.swapping import Fit

Result = Iterator[tuple[str, tuple[pd.DataFrame | None, Figure | None]]]
PLAYED = 0.6
"""Agreement below which an agent is not played: it would wander to the end of each episode."""


@dataclass(frozen=True)
class Way:
    """How the units' polynomials are found."""

    name: str
    fit: Fit = "gaussian"
    widen: float = 1.0
    reestimate: bool = False

    def surrogate(
        self,
        agent: Agent,
        fitted: UInt8[np.ndarray, "n 3 64 64"],
        layers: Sequence[str] | None = None,
        held_out: UInt8[np.ndarray, "n 3 64 64"] | None = None,
    ) -> Surrogate:
        """Fit quadratics in the place of layers, all when None."""
        return polynomial_surrogate(
            agent,
            fitted,
            layers,
            reestimate=self.reestimate,
            widen=self.widen,
            fit=self.fit,
            held_out=held_out,
        )


CLOSED = Way("closed form")
WAYS = (
    CLOSED,
    Way("closed form, re-estimated", reestimate=True),
    Way("covariance x 2", widen=2.0),
    Way("covariance x 3", widen=3.0),
    Way("fitted on inputs", fit="inputs"),
    Way("fitted on inputs, re-estimated", fit="inputs", reestimate=True),
)


@dataclass(frozen=True, eq=False)
class Candidate:
    """An agent with units replaced by polynomials."""

    kind: str
    """relu or bilinear: which agent it comes from"""
    replaced: str
    """which units, in words"""
    degree: str
    way: str
    """the name of a `Way`"""
    agent: Agent


def results(
    relu: str,
    bilinear: str,
    *,
    levels: int,
    states: int,
    seed: int,
    quick: bool,
    progress: bool,
) -> Result:
    """Measure a ReLU agent's surrogates, and the same of a bilinear agent.

    Raises:
        ValueError: an agent that cannot be loaded, or the first has no ReLUs.
    """
    agents = {"relu": regrouped(load(relu)), "bilinear": load(bilinear)}
    if not any(name.endswith(".branch") for name in units(agents["relu"])):
        raise ValueError(f"--agent: {relu} has no ReLU blocks: {agents['relu']}")
    half = -(-states // 2)
    fitted, selection, held_out = (
        _observations(agents["relu"], chosen, seed + number)
        for number, chosen in enumerate(
            (
                FITTING.first(states),
                FITTING.first(states + half)[states:],
                EVALUATION.first(half),
            )
        )
    )
    ways, own = {}, CLOSED.surrogate(agents["bilinear"], fitted, None, held_out)
    for way in tqdm(WAYS, desc="fitting units", disable=not progress):
        # What is re-estimated depends on which units are replaced: those that are hidden layers.
        layers = hidden_layers(agents["relu"]) if way.reestimate else None
        ways[way.name] = way.surrogate(agents["relu"], fitted, layers, held_out)
    table = pd.concat(
        [
            *(
                ways[way.name].replacement.table().assign(agent="relu", way=way.name)
                for way in WAYS
                if not way.reestimate
            ),
            own.replacement.table().assign(agent="bilinear", way=CLOSED.name),
        ]
    )
    yield "units", (table, draw.units(table))
    branches = {f"{block}.branch": f"{block}.relu" for block in filters.blocks([agents["relu"]])}
    yield "tails", (tails(agents["relu"], branches, fitted), None)

    found = list(_candidates(agents, ways, own))
    together = [each for each in found if each.replaced == "branches + dense"]
    table = _policies(agents, together, selection)
    best = table.way[table.kl.fillna(np.inf).idxmin()]
    yield "ways", (table.assign(chosen=table.way == best), None)
    table = _policies(agents, found, held_out)
    yield "policies", (table, None)
    playable = [
        each
        for each, share in zip(found, table.agreement, strict=True)
        if each.replaced == "nothing" or (share >= PLAYED and each.kind == "relu")
    ]
    table = _play(agents, playable, EVALUATION.first(levels), seed, progress)
    yield "play", (table, draw.play(table))

    polynomials = {
        "relu": ways[best].replacement.polynomials,
        "bilinear": own.replacement.polynomials,
    }
    writers = {
        kind: filters.writers(
            agent,
            kind,
            polynomials[kind],
            filters.blocks(list(agents.values())),
            8 if quick else 60,
            seed,
        )
        for kind, agent in agents.items()
    }
    test_levels = EVALUATION.first(6 if quick else 40)
    tables = []
    for kind, agent in agents.items():
        steps = [writer.before for writer in writers[kind]]
        data = collect(agent, test_levels, steps, [cheese_presence], states_per_level=6, seed=seed)
        tables += [
            filters.describe(writer, polynomials[kind], data).assign(agent=kind)
            for writer in writers[kind]
        ]
    table = pd.concat(tables, ignore_index=True)
    yield "eigenfilters", (table, draw.eigenfilters(table))
    table = pd.concat(
        filters.ablations(agent, polynomials[kind], writers[kind], held_out, seed).assign(
            agent=kind
        )
        for kind, agent in agents.items()
    )
    yield "ablations", (table, draw.ablations(table))
    for kind, each in writers.items():
        writer = each[min(1, len(each) - 1)]
        title = f"{kind} agent, {writer.block}, the cheese probe's direction"
        yield f"eigenfilters_{kind}", (None, filter_strip(writer.filters, 6, title=title))


def summarise(tables: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """Return the numbers worth a line."""
    lines = {}
    fits = tables["units"][tables["units"].agent == "relu"]
    for part in (".branch", ".relu", "dense"):
        of = fits[fits.layer.str.endswith(part) & (fits.degree > 0)]
        for (way, degree), own in of.groupby(["way", "degree"], sort=False):
            if degree == 1 and way != CLOSED.name:
                continue
            for column in ("gaussian_median", "measured_median"):
                name = (
                    f"{column.split('_')[0]} R² of {part.strip('.')} units, degree {degree}, {way}"
                )
                lines[name] = f"{own[column].min():.3f} to {own[column].max():.3f}"
    ways = tables["ways"]
    lines["way chosen on other fitting levels"] = ways.way[ways.chosen].item()
    for row in tables["play"].itertuples():
        lines[f"solved, {row.agent}: {draw.name_of(row)}"] = (
            f"{row.solved:.3f} [{row.solved_low:.3f}, {row.solved_high:.3f}]"
        )
    return lines


def _observations(agent: Agent, levels: Sequence[int], seed: int) -> UInt8[np.ndarray, "n 3 64 64"]:
    """Return states of levels: of each one that the agent visits, and one with edits."""
    return collect(agent, levels, [], [], states_per_level=2, seed=seed).observations


def _candidates(
    agents: Mapping[str, Agent], ways: Mapping[str, Surrogate], bilinear: Surrogate
) -> Iterator[Candidate]:
    """Yield the agents with nothing, each unit, and sets of units replaced."""
    closed = {"relu": ways[CLOSED.name], "bilinear": bilinear}
    for kind, agent in agents.items():
        yield Candidate(kind, "nothing", "-", "-", agent)
        own = closed[kind].replacement.polynomials
        for name, degree in ((name, degree) for degree in (1, 2) for name in own):
            chosen = with_polynomials(agent, {name: own[name].truncate(degree)})
            yield Candidate(kind, name, str(degree), CLOSED.name, chosen)
    agent = agents["relu"]
    layers = hidden_layers(agent)
    own = closed["relu"].replacement.polynomials
    linear = with_polynomials(agent, {name: own[name].truncate(1) for name in layers})
    yield Candidate("relu", "branches + dense", "1", CLOSED.name, linear)
    for way, surrogate in ways.items():
        own = surrogate.replacement.polynomials
        chosen = with_polynomials(agent, {name: own[name] for name in layers})
        yield Candidate("relu", "branches + dense", "2", way, chosen)
        if len(own) > len(layers):
            everything = with_polynomials(agent, own)
            yield Candidate("relu", "branches + dense + ReLUs", "2", way, everything)


def _policies(
    agents: Mapping[str, Agent],
    found: Sequence[Candidate],
    held_out: UInt8[np.ndarray, "n 3 64 64"],
) -> pd.DataFrame:
    """Compare the policies of all candidates with those of the whole agents, on states.

    Returns:
        ``kl`` from the whole agent's policy, mean and median over states, in nats, and
        ``agreement``, how often the most likely action is the same. ``finite`` is the share of
        states in which both give finite numbers; the others are missing where it is below 1, as
        where a polynomial explodes.
    """
    rows = []
    for each in found:
        own, theirs = (agent.logits(held_out) for agent in (agents[each.kind], each.agent))
        finite = torch.stack([own, theirs]).isfinite().all(2).all(0).double().mean().item()
        kl = kl_of_logits(own, theirs)
        measured = {
            "kl": kl.mean().item(),
            "kl_median": kl.median().item(),
            "agreement": (own.argmax(1) == theirs.argmax(1)).double().mean().item(),
        }
        if finite < 1:
            measured = dict.fromkeys(measured, np.nan)
        rows.append({**_about(each), **measured, "finite": finite})
    return pd.DataFrame(rows)


def _play(
    agents: Mapping[str, Agent],
    found: Sequence[Candidate],
    levels: Sequence[int],
    seed: int,
    progress: bool,
) -> pd.DataFrame:
    """Play with units replaced, on the same levels with the same sampling noise.

    Single hidden layers are played at degree 2, sets at every degree.

    Returns:
        Means with 95 % intervals by level of ``return`` and ``solved``, and of ``difference``, the
        change of solved from the whole agent's, paired by level.
    """
    layers = hidden_layers(agents["relu"])
    shown = [
        each
        for each in found
        if each.replaced == "nothing"
        or "+" in each.replaced
        or (each.degree == "2" and each.replaced in layers)
    ]
    rows, whole = [], {}
    for each in tqdm(shown, desc="playing", disable=not progress):
        played = evaluate(each.agent, levels, seed=seed, progress=False)
        if each.replaced == "nothing":
            whole[each.kind] = played
        row: dict[str, Any] = _about(each)
        means = summary(played, seed=seed)
        for metric in ("return", "solved"):
            row |= {metric: means["mean"][metric]}
            row |= {f"{metric}_{end}": means[end][metric] for end in ("low", "high")}
        solved, before = (p.solved.to_numpy(float) for p in (played, whole[each.kind]))
        change = paired_difference(solved, before, played.level.to_numpy(), seed=seed)
        row |= {
            "difference": change.difference,
            "difference_low": change.low,
            "difference_high": change.high,
        }
        rows.append(row)
    return pd.DataFrame(rows)


def _about(each: Candidate) -> dict[str, Any]:
    return {
        "agent": each.kind,
        "replaced": each.replaced,
        "degree": each.degree,
        "way": each.way,
    }
