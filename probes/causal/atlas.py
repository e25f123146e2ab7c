"""All concepts at all layers of agents: what can be read, and what of it is used.

atlas(["maze-bimpala-compact"], ["cheese", "wall"], out="runs/atlas").report.save("runs/report")

Each cell (an agent, a concept, a layer, a rank) is a file, written whole: an interrupted atlas is
continued with ``resume=True``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby, product
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from rlbilinear.agents.folder import locked, write_json
from rlbilinear.probes.causal.atlas_cells import NOT_ASKED, Atlas, Cell, folder_of, gathered
from rlbilinear.probes.causal.choosing import asked, candidate_layers
from rlbilinear.probes.causal.data import ConceptData, Counterfactuals
from rlbilinear.probes.causal.games import causal_concept, causal_concepts, game_data, game_of
from rlbilinear.probes.causal.protocol import Answer, Questions
from rlbilinear.probes.causal.remembering import remembering
from rlbilinear.probes.causal.report import Policy
from rlbilinear.probes.subject import Subject, as_subject

SETTINGS = "atlas.json"


@dataclass(frozen=True)
class AtlasSizes:
    """How much is drawn and compared.

    Attributes:
        fit_levels: levels to fit on.
        levels: held-out levels.
        states_per_level: labelled states of each.
        pairs_per_level: pairs of each.
        controls: random subspaces that each effect is compared with.
        seed: seed of everything random.
    """

    fit_levels: int = 100
    levels: int = 60
    states_per_level: int = 4
    pairs_per_level: int = 2
    controls: int = 3
    seed: int = 0


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
    """Ask about concepts at layers of agents; see `Questions`.

    Args:
        agents: one or several, as `ask` takes them.
        concepts: names of concepts of the agents' game, ``all`` of them, or data.
        layers: names, or ``all`` at which a concept can be asked about.
        ranks: ranks of the difference subspace.
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
        _check_free(out, settings, resume)
        data = _drawn(subjects, wanted, sizes, progress)
        allowed = {
            (agent, concept): candidate_layers(subject, data[agent, concept])
            for agent, subject in subjects.items()
            for concept in wanted[agent]
        }
        grid = {
            key: [layer for layer in own if layers == "all" or layer in layers]
            for key, own in allowed.items()
        }
        if not any(grid.values()):
            asked_for = "; ".join(f"{name}: {', '.join(own)}" for (_, name), own in allowed.items())
            raise ValueError(f"layers: none of {', '.join(layers)} can be asked about; {asked_for}")
        write_json(out / SETTINGS, settings)
        total = sum(map(len, grid.values())) * len(ranks)
        with tqdm(total=total, disable=not progress, desc="atlas", unit="cell") as bar:
            for (agent, concept), at in grid.items():
                bar.set_postfix_str(f"{agent}: {concept}")
                places = [Cell(agent, concept, *each) for each in product(at, ranks)]
                _fill(out, subjects[agent], data[agent, concept], places, sizes, bar)
        return gathered(out, grid, settings)


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
    refused = folder_of(out, missing[0].agent, missing[0].concept) / NOT_ASKED
    refused.parent.mkdir(parents=True, exist_ok=True)
    subject = remembering(subject, dict.fromkeys(cell.layer for cell in missing))
    try:
        data = _decided(subject, data)
    except ValueError as error:
        write_json(refused, {"reason": str(error)})
        bar.update(len(missing))
        return
    for layer, cells in groupby(missing, key=lambda cell: cell.layer):
        questions = Questions(subject, data, layer, controls=sizes.controls, seed=sizes.seed)
        dimension = subject.layers[layer]
        most = dimension[0] if data.kind == "map" else int(torch.Size(dimension).numel())
        for cell in cells:
            if cell.rank <= most:
                write_json(cell.file(out), _as_json(questions.answer(cell.rank)))
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


def _check_free(out: Path, settings: dict[str, Any], resume: bool) -> None:
    """Refuse a folder with another atlas."""
    file = out / SETTINGS
    if not file.exists():
        return
    if not resume:
        raise FileExistsError(f"{out} has an atlas; resume it, or choose another folder")
    before = json.loads(file.read_text())
    other = [name for name in settings if before.get(name) != settings[name]]
    if other:
        raise ValueError(
            f"{out} has an atlas with other {', '.join(other)}; give the same, or another folder"
        )
