"""All concepts at all layers of agents: what can be read where, and what of it is used.

atlas(["maze-bimpala-compact"], ["cheese", "wall"], out="runs/atlas").report.save("runs/report")

Each cell (an agent, a concept, a layer, a rank) is a file, written whole: an interrupted atlas goes
on with ``resume=True``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from tqdm import tqdm

from rlbilinear.agents.folder import locked, provenance, write_json
from rlbilinear.probes.causal.atlas_figure import atlas_figure
from rlbilinear.probes.causal.choosing import asked, candidate_layers
from rlbilinear.probes.causal.data import ConceptData, Counterfactuals
from rlbilinear.probes.causal.games import causal_concept, causal_concepts, game_data, game_of
from rlbilinear.probes.causal.protocol import Answer, answer
from rlbilinear.probes.causal.remembering import remembering
from rlbilinear.probes.causal.report import MEANINGS, Policy
from rlbilinear.probes.report import Drawing, Section, ValidationReport
from rlbilinear.probes.steps.result import ALPHA, Claim
from rlbilinear.probes.subject import Subject, as_subject
from rlbilinear.probes.validation import judge
from rlbilinear.statistics import holm

SETTINGS, CELLS, NOT_ASKED = "atlas.json", "cells", "not-asked.json"
USES = ("sufficient", "necessary", "steerable")
"""Claims that say a concept is used; that an edit is specific alone says nothing."""


@dataclass(frozen=True)
class AtlasSizes:
    """How much is drawn and compared.

    Attributes:
        fit_levels: levels to fit on.
        levels: held-out levels.
        states_per_level: labelled states of each.
        pairs_per_level: pairs of each.
        controls: random subspaces that each effect is compared with.
        seed: of everything random.
    """

    fit_levels: int = 100
    levels: int = 60
    states_per_level: int = 4
    pairs_per_level: int = 2
    controls: int = 3
    seed: int = 0


class Cell(NamedTuple):
    """A place of the atlas, and what is asked there."""

    agent: str
    concept: str
    layer: str
    rank: int

    def file(self, folder: Path) -> Path:
        """Return where its result is kept."""
        return _folder(folder, self.agent, self.concept) / f"{_plain(self.layer)}.{self.rank}.json"


@dataclass(frozen=True, eq=False)
class Atlas:
    """What was found.

    Attributes:
        cells: a row for each agent, concept and layer: ``status`` (used, readable, neither), the
            held-out ``score`` of the reading with ``base_rate``, ``permuted`` and ``untrained``
            beside it and ``reading_p`` (Holm over the concept's layers); for each claim the best
            effect of all directions and ranks; ``shown``, the claims of use that are causal, and
            ``least_rank``, the smallest rank with one.
        claims: a row for each claim of each direction and rank, with effect, interval, control and
            verdict; p-values are corrected (Holm) over all claims of the same agent, concept and
            layer.
        not_asked: agents and concepts that could not be asked about, with the ``reason``.
        report: the same as figures, tables and TensorBoard.
    """

    cells: pd.DataFrame
    claims: pd.DataFrame
    not_asked: pd.DataFrame
    report: ValidationReport


def atlas(
    agents: Policy | Subject | Sequence[Policy | Subject],
    concepts: str | ConceptData | Sequence[str | ConceptData] = "all",
    layers: str | Sequence[str] = "all",
    ranks: Sequence[int] = (1, 2, 4),
    *,
    out: str | Path,
    sizes: AtlasSizes | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Atlas:
    """Ask about concepts at layers of agents; see `answer`.

    Args:
        agents: one or several, as `ask` takes them.
        concepts: names of concepts of the agents' game, ``all`` of them, or data.
        layers: names, or ``all`` at which a concept can be asked about.
        ranks: of the difference subspace.
        out: folder in which each cell's result is kept as soon as it is there.
        sizes: how much is drawn; as `AtlasSizes` has it if None.
        resume: take what the folder has, of an atlas with the same settings.
        progress: show a bar.

    Raises:
        ValueError: an argument that is not accepted, or a folder of an atlas of other settings.
        FileExistsError: the folder has an atlas, and is not resumed.
    """
    sizes = sizes or AtlasSizes()
    subjects = _subjects(agents)
    ranks = _checked_ranks(ranks)
    if sizes.controls < 1:
        raise ValueError(f"controls: expected at least 1, got {sizes.controls}")
    wanted = _concepts(subjects, concepts)
    if not isinstance(layers, str):
        for subject, layer in product(subjects.values(), layers):
            subject.check_layer(layer)
    elif layers != "all":
        raise ValueError(f"layers: expected all, or a list of names, got {layers!r}")
    out = Path(out)
    with locked(out):
        settings = _settings(subjects, wanted, layers, ranks, sizes)
        _begin(out, settings, resume)
        data = _drawn(subjects, wanted, sizes, progress)
        grid = {
            (agent, concept): [
                layer
                for layer in candidate_layers(subject, data[agent, concept])
                if layers == "all" or layer in layers
            ]
            for agent, subject in subjects.items()
            for concept in wanted[agent]
        }
        total = sum(map(len, grid.values())) * len(ranks)
        with tqdm(total=total, disable=not progress, desc="atlas", unit="cell") as bar:
            for (agent, concept), at in grid.items():
                bar.set_postfix_str(f"{agent}: {concept}")
                places = [Cell(agent, concept, *each) for each in product(at, ranks)]
                _fill(out, subjects[agent], data[agent, concept], places, sizes, bar)
        return _gathered(out, grid, settings)


def _fill(
    out: Path,
    subject: Subject,
    data: ConceptData,
    places: Sequence[Cell],
    sizes: AtlasSizes,
    bar: tqdm,
) -> None:
    """Ask what is missing about one concept of one agent, and write each answer at once."""
    missing = [cell for cell in places if not cell.file(out).exists()]
    bar.update(len(places) - len(missing))
    if not missing:
        return
    refused = _folder(out, missing[0].agent, missing[0].concept) / NOT_ASKED
    refused.parent.mkdir(parents=True, exist_ok=True)
    subject = remembering(subject, dict.fromkeys(cell.layer for cell in missing))
    try:
        data = _decided(subject, data)
    except ValueError as error:
        write_json(refused, {"reason": str(error)})
        bar.update(len(missing))
        return
    for cell in missing:
        dimension = subject.layers[cell.layer]
        most = dimension[0] if data.kind == "map" else int(torch.Size(dimension).numel())
        if cell.rank <= most:
            found = answer(
                subject, data, cell.layer, cell.rank, controls=sizes.controls, seed=sizes.seed
            )
            write_json(cell.file(out), _as_json(found))
        bar.update()


def _decided(subject: Subject, data: ConceptData) -> ConceptData:
    """Return data that say what should follow in each pair, found once for all layers."""

    def decided(pairs: Counterfactuals) -> Counterfactuals:
        if pairs.base_behaviour is not None:
            return pairs
        what = asked(subject, data, pairs)
        return replace(what.pairs, base_behaviour=what.base, source_behaviour=what.source)

    return replace(data, fit_pairs=decided(data.fit_pairs), pairs=decided(data.pairs))


def _as_json(found: Answer) -> dict[str, Any]:
    return {
        "readable": json.loads(found.readable.to_json(orient="records", double_precision=15)),
        "effects": json.loads(found.effects.to_json(orient="records", double_precision=15)),
        "claims": [asdict(claim) for claim in found.claims],
        "left_out": dict(found.left_out),
        "weights": dict(found.weights),
        "not_finite": found.not_finite,
    }


def _subjects(agents: Policy | Subject | Sequence[Policy | Subject]) -> dict[str, Subject]:
    given: list[Policy | Subject] = [*agents] if isinstance(agents, list | tuple) else [agents]  # type: ignore[list-item]
    if not given:
        raise ValueError("agents: expected at least one")
    found: dict[str, Subject] = {}
    for each in given:
        subject = each if isinstance(each, Subject) else as_subject(each)
        if subject.name in found:
            raise ValueError(f"agents: two have the name {subject.name!r}; name the subjects apart")
        found[subject.name] = subject
    return found


def _checked_ranks(ranks: Iterable[int]) -> tuple[int, ...]:
    ranks = tuple(ranks)
    if not ranks or any(isinstance(r, bool) or not isinstance(r, int) or r < 1 for r in ranks):
        raise ValueError(f"ranks: expected numbers from 1 on, got {ranks}")
    return tuple(sorted({*ranks}))


def _concepts(
    subjects: Mapping[str, Subject], concepts: str | ConceptData | Sequence[str | ConceptData]
) -> dict[str, dict[str, str | ConceptData]]:
    """Return for each agent what is asked about, by name."""
    one = isinstance(concepts, str | ConceptData)
    given: list[str | ConceptData] = [concepts] if one else [*concepts]  # type: ignore[list-item,misc]
    if not given:
        raise ValueError("concepts: expected at least one")
    found: dict[str, dict[str, str | ConceptData]] = {}
    for agent, subject in subjects.items():
        own: dict[str, str | ConceptData] = {}
        for each in given:
            if isinstance(each, ConceptData):
                own[each.name] = each
            elif each == "all":
                own |= {name: name for name in causal_concepts(game_of(subject))}
            else:
                own[causal_concept(game_of(subject), each).name] = each
        found[agent] = own
    return found


def _drawn(
    subjects: Mapping[str, Subject],
    wanted: Mapping[str, Mapping[str, str | ConceptData]],
    sizes: AtlasSizes,
    progress: bool,
) -> dict[tuple[str, str], ConceptData]:
    """Draw the data of each concept once, for all agents of a game."""
    own = asdict(sizes)
    del own["controls"]
    by_game: dict[tuple[str, str], ConceptData] = {}
    found = {}
    asked_for = [(agent, name) for agent, names in wanted.items() for name in names]
    for agent, name in tqdm(asked_for, disable=not progress, desc="states and pairs"):
        given = wanted[agent][name]
        if isinstance(given, str):
            game = game_of(subjects[agent])
            if (game, name) not in by_game:
                by_game[game, name] = game_data(game, name, **own)
            given = by_game[game, name]
        found[agent, name] = given
    return found


def _settings(
    subjects: Mapping[str, Subject],
    wanted: Mapping[str, Mapping[str, str | ConceptData]],
    layers: str | Sequence[str],
    ranks: Sequence[int],
    sizes: AtlasSizes,
) -> dict[str, Any]:
    return {
        "agents": {name: _digest(subject) for name, subject in subjects.items()},
        "concepts": {
            agent: {
                name: given if isinstance(given, str) else _digest_of(given)
                for name, given in names.items()
            }
            for agent, names in wanted.items()
        },
        "layers": layers if isinstance(layers, str) else [*layers],
        "ranks": [*ranks],
        **asdict(sizes),
    }


def _digest(subject: Subject) -> str:
    """Tell weights apart."""
    digest = hashlib.sha256()
    for name, values in subject.policy.state_dict().items():
        digest.update(name.encode())
        digest.update(values.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _digest_of(data: ConceptData) -> str:
    digest = hashlib.sha256()
    for part in (data.fit, data.held_out, data.fit_pairs, data.pairs):
        for values in vars(part).values():
            digest.update(b"" if values is None else values.tobytes())
    return digest.hexdigest()


def _begin(out: Path, settings: dict[str, Any], resume: bool) -> None:
    """Refuse a folder with another atlas, and note the settings in a new one."""
    file = out / SETTINGS
    if not file.exists():
        write_json(file, settings)
        return
    if not resume:
        raise FileExistsError(f"{out} has an atlas; resume it, or choose another folder")
    before = json.loads(file.read_text())
    other = [name for name in settings if before.get(name) != settings[name]]
    if other:
        raise ValueError(
            f"{out} has an atlas with other {', '.join(other)}; give the same, or another folder"
        )


def _gathered(
    out: Path, grid: Mapping[tuple[str, str], Sequence[str]], settings: dict[str, Any]
) -> Atlas:
    """Read the cells and decide."""
    rows, claims, reasons = [], [], []
    for (agent, concept), layers in grid.items():
        refused = _folder(out, agent, concept) / NOT_ASKED
        if refused.exists():
            reason = json.loads(refused.read_text())["reason"]
            reasons.append({"agent": agent, "concept": concept, "reason": reason})
            continue
        own = []
        for layer in layers:
            found = [*_found(out, agent, concept, layer, settings["ranks"])]
            decided = _decide(found).assign(agent=agent, concept=concept, layer=layer)
            claims.append(decided)
            own.append({"agent": agent, "concept": concept, "layer": layer} | _row(found, decided))
        corrected = holm([row["reading_p"] for row in own]).tolist() if own else []
        for row, p in zip(own, corrected, strict=True):
            readable = p < ALPHA
            row |= {"reading_p": p, "readable": readable}
            row["status"] = "used" if row.pop("used") else "readable" if readable else "neither"
        rows += own
    cells = pd.DataFrame(rows)
    all_claims = pd.concat(claims) if claims else pd.DataFrame()
    not_asked = pd.DataFrame(reasons, columns=["agent", "concept", "reason"])
    return Atlas(cells, all_claims, not_asked, _report(cells, all_claims, not_asked, settings))


def _found(
    out: Path, agent: str, concept: str, layer: str, ranks: Sequence[int]
) -> Iterator[tuple[int, dict[str, Any]]]:
    for rank in ranks:
        file = Cell(agent, concept, layer, rank).file(out)
        if file.exists():
            yield rank, json.loads(file.read_text())


def _decide(found: Sequence[tuple[int, dict[str, Any]]]) -> pd.DataFrame:
    """Judge all claims of a concept at a layer together."""
    claims = [Claim(**each) for _, cell in found for each in cell["claims"]]
    effects = pd.concat([pd.DataFrame(cell["effects"]).assign(rank=rank) for rank, cell in found])
    judged = judge(claims)
    effects = effects.reset_index(drop=True)
    return effects.assign(verdict=judged["verdict"], p=judged["p"])


def _row(found: Sequence[tuple[int, dict[str, Any]]], decided: pd.DataFrame) -> dict[str, Any]:
    reading = pd.DataFrame(found[0][1]["readable"]).set_index("name")
    # Of an edit that is specific the smallest effect is the best.
    best = {
        claim: rows["effect"].min() if claim == "specific" else rows["effect"].max()
        for claim, rows in decided.groupby("claim")
    }
    causal = decided[(decided["verdict"] == "causal") & decided["claim"].isin(USES)]
    return {
        "used": len(causal) > 0,
        "score": reading.loc["probe", "score"],
        "base_rate": reading.loc["base rate", "score"],
        "permuted": reading.loc["permuted labels", "score"],
        "untrained": reading.loc["untrained network", "score"],
        "reading_p": reading.loc["probe", "p"],
        **{claim: best.get(claim) for claim in MEANINGS},
        "shown": ", ".join(dict.fromkeys(causal["claim"])),
        "least_rank": causal["rank"].min() if len(causal) else None,
    }


def _report(
    cells: pd.DataFrame,
    claims: pd.DataFrame,
    not_asked: pd.DataFrame,
    settings: dict[str, Any],
) -> ValidationReport:
    figures = {
        f"atlas_{_plain(agent)}": Drawing(
            atlas_figure(cells[cells["agent"] == agent], agent),
            f"{agent}: what is used where (blue), what can be read only (orange), neither (grey).",
        )
        for agent in dict.fromkeys(cells.get("agent", []))
    }
    text = (
        "Blue: at least one of the tested directions is shown to be "
        f"{', '.join(USES[:-1])} or {USES[-1]}; p-values are corrected over all claims of the same "
        "agent, concept and layer, so of the fields in which nothing is used at most "
        f"{ALPHA:.0%} are expected to be blue. Orange: it can be read there, better than without "
        "looking and than with other groups' labels, but no tested direction is shown to be used. "
        "Numbers: the held-out score of the reading, and below it the share of pairs that follow "
        "when the best of the tested subspaces is exchanged. The verdicts above are of the layer, "
        "direction and rank where that share is largest, so it is a little too large; `ask` "
        "chooses them on the fitting pairs."
    )
    if len(not_asked):
        text += " Some concepts could not be asked about."
    tables = {"cells": cells, "claims": claims, "not_asked": not_asked}
    section = Section("What is used where", text, ("cells", "not_asked"), tuple(figures))
    return ValidationReport(
        title=f"Atlas of {', '.join(settings['agents'])}",
        settings={**provenance(), **settings},
        verdict=_best(claims),
        sections=(section,),
        tables=tables,
        figures=figures,
    )


def _best(claims: pd.DataFrame) -> pd.DataFrame:
    """Return for each agent and concept the place where most pairs follow an exchange."""
    columns = ["claim", "verdict", "effect", "low", "high", "control", "p", "decided_by"]
    if not len(claims):
        return pd.DataFrame(columns=columns)
    own = claims[claims["claim"] == "sufficient"]
    own = own.sort_values("effect", ascending=False, kind="stable")
    best = own.groupby(["agent", "concept"], sort=False).head(1)
    name = best["agent"] + ": " + best["concept"] + " at " + best["layer"]
    name += ", " + best["direction"] + " " + best["rank"].astype(str)
    return best.assign(claim=name, decided_by="cells")[columns].reset_index(drop=True)


def _folder(out: Path, agent: str, concept: str) -> Path:
    return out / CELLS / _plain(agent) / _plain(concept)


def _plain(name: str) -> str:
    """Return a name as a file name; names that would be alike are told apart."""
    plain = re.sub(r"[^\w.-]", "_", name).lstrip(".-")
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
