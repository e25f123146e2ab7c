"""What ``rlbilinear language read`` does."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from rlbilinear.commands.language import MARKER, ReadOptions
from rlbilinear.commands.language_pages import (
    Found,
    describe,
    describe_interplay,
    describe_interplay_edits,
)
from rlbilinear.commands.outputs import check_folder, write_study
from rlbilinear.language import circuits, feature_study, figures, interplay
from rlbilinear.language.bpe import load_bpe
from rlbilinear.language.devices import find_device
from rlbilinear.language.interplay import Design
from rlbilinear.language.models import load
from rlbilinear.language.reading import Reading, open_model
from rlbilinear.language.sae import SAETraining, load_sae
from rlbilinear.language.scoring import batched
from rlbilinear.language.text import read_corpus, sample, spread, tokenize, windows
from rlbilinear.language.transformer import CONFIG, load_transformer
from rlbilinear.language.truncation import truncation_losses


@dataclass(frozen=True, eq=False)
class Target:
    """A direction of the layer's output, of a logit or of the difference of two."""

    name: str
    direction: torch.Tensor
    token: int | None = None
    minus: int | None = None


def read(options: ReadOptions) -> None:
    """Read circuits, test them, and write tables, figures and a page of text."""
    check_folder(options.out, overwrite=options.overwrite, marker=MARKER)
    device = find_device(options.device)
    corpus = read_corpus(options.text)
    reading = open_reading(options.model, str(device))
    reading.mlp(options.layer)  # bilinear, before long work
    given = {
        name: None if file is None else load_sae(file)
        for name, file in (("inputs", options.input_sae), ("outputs", options.output_sae))
    }
    named = [_direction(reading, words) for words in options.tokens]
    gating = torch.tensor([reading.token(text) for text in options.gating_tokens])
    design = None if options.interplay is None else Design.read(options.interplay)
    if design and not any(target.minus is not None for target in named):
        raise ValueError('--interplay: give --tokens with a difference, such as " good- bad"')
    if design and len(design.first) < 4:
        raise ValueError(
            f"--interplay: expected at least four pairs, half of them to test on, got "
            f"{len(design.first)}"
        )
    held_out = windows(
        tokenize(reading.tokenizer, corpus.held_out, options.context), options.context
    )
    held_out = spread(held_out, options.windows)
    # Gates are found at every second window, and tested at the others.
    looked_at, unseen = held_out[::2], held_out[1::2]
    if len(unseen) < options.places:
        raise ValueError(
            f"--places: {options.places} are more than {len(unseen)}, half of the windows"
        )
    names = {key: value.name for key, value in asdict(options).items() if isinstance(value, Path)}
    record: dict[str, Any] = {
        "options": {**asdict(options), **names, "model": Path(options.model).name}
    }
    tables: dict[str, pd.DataFrame] = {}
    pictures: dict[str, Figure] = {}
    page: list[str] = []
    found = [
        Found(
            circuits.eigen_circuit(
                reading, options.layer, target.direction, target.name, k=options.eigenvectors
            ),
            torch.tensor([target.token]),
        )
        for target in named
    ]
    summary: dict[str, Any] = {}
    features = None
    if options.features:
        chosen = sample(reading.tokenizer, corpus.train, options.context, options.train_windows)
        how = SAETraining(
            features=options.features, k=options.active, steps=options.sae_steps, seed=options.seed
        )
        features = feature_study.learn_features(
            reading,
            options.layer,
            chosen,
            looked_at,
            how,
            **given,
            precision=options.precision,
            progress=options.progress,
        )
        # What took longest to learn is written before the rest of the work, which may be stopped.
        write_study(
            options.out,
            {},
            {},
            record,
            marker=MARKER,
            overwrite=options.overwrite,
            also=features.save,
        )
        summary |= features.summary(reading.mlp(options.layer))
        shown: Any = {"progress": options.progress}
        tables["correlations"] = feature_study.correlations(
            reading, features, options.studied, **shown
        )
        pictures["correlations"] = figures.draw_correlations(tables["correlations"])
        tables["sparsity"] = feature_study.sparsity(reading, features, options.studied, **shown)
        tables["gates"] = feature_study.gates(reading, features, options.studied, **shown)
        found += gate_circuits(reading, features, tables["gates"], looked_at, options.circuits)
        if options.gating_tokens:
            tables["token_features"], tables["token_gates"] = token_gates(
                reading, features, looked_at, gating, options
            )
            known = {one.circuit.name for one in found}
            found += [
                one
                for one in gate_circuits(
                    reading, features, tables["token_gates"], looked_at, options.circuits
                )
                if one.circuit.name not in known
            ]
    if found:
        tables["validation"], texts = tested(reading, found, unseen, options)
        page += texts
    if design:
        tables["interplay"], tables["interplay_edits"], lines = multiplied(
            reading, design, named, options
        )
        page += lines
    if options.truncation:
        tables["truncation"] = truncation_losses(
            reading,
            options.layer,
            spread(held_out, options.truncation_windows),
            progress=options.progress,
        )
        pictures["truncation"] = figures.draw_truncation(tables["truncation"])
    print("\n\n".join(page))
    for name, value in summary.items():
        print(f"{name:30s} {value:.4f}")
    record |= {"summary": summary, "circuits": page}
    overwrite = options.overwrite or features is not None
    write_study(
        options.out,
        tables,
        pictures,
        record,
        marker=MARKER,
        overwrite=overwrite,
        also=features.save if features else None,
    )
    print(f"\nTables and figures: {options.out}")


def tested(
    reading: Reading, found: list[Found], held_out: torch.Tensor, options: ReadOptions
) -> tuple[pd.DataFrame, list[str]]:
    """Return how circuits did beside their controls, and each as its reader sees it."""
    alone = circuits.alone(reading, options.layer, held_out.unique())
    batches = batched(held_out, 32, reading.embedding.device)
    x = torch.cat([x for _, x in reading.mlp_inputs(options.layer, batches)])
    tables, texts = [], []
    for one in tqdm(found, "circuits", disable=not options.progress):
        activity = one.circuit.activity(x).cpu()
        result = circuits.validate(
            reading,
            one.circuit,
            held_out,
            one.targets,
            places=options.places,
            controls=options.controls,
            seed=options.seed,
            activity=activity,
        )
        tables.append(result.table.assign(verdict=result.verdict))
        texts.append(describe(reading, one, alone, held_out, activity, result))
    return pd.concat(tables), texts


def open_reading(model: str, device: str) -> Reading:
    """Open a run of ``train``, or anything that `load` takes."""
    folder = Path(model)
    if (folder / CONFIG).is_file():
        return open_model(load_transformer(folder, device), load_bpe(folder / "tokenizer.json"))
    found = load(model, device=device)
    return open_model(found.model, found.tokenizer)


def token_gates(
    reading: Reading,
    features: feature_study.Features,
    windows: torch.Tensor,
    tokens: torch.Tensor,
    options: ReadOptions,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the input features that belong to some tokens, and the gates that have one of them."""
    shares = feature_study.features_of(features, windows, tokens)
    gates = feature_study.gates(
        reading, features, options.studied, among=list(shares), progress=options.progress
    )
    return pd.DataFrame({"feature": shares.keys(), "share": shares.values()}), gates


def gate_circuits(
    reading: Reading,
    features: feature_study.Features,
    gates: pd.DataFrame,
    windows: torch.Tensor,
    count: int,
) -> list[Found]:
    """Return the leading gating pairs as circuits, of different output features."""
    found: list[Found] = []
    seen: set[int] = set()
    for gate in gates.itertuples():
        if gate.output in seen or len(found) == count:
            continue
        seen.add(gate.output)
        direction = features.outputs.encoder[gate.output].detach().double()
        pair = features.inputs.decoder[[gate.first, gate.second]].detach().double()
        name = f"{gate.kind}: output {gate.output}, inputs {gate.first} and {gate.second}"
        circuit = circuits.pair_circuit(reading, features.layer, direction, pair, name)
        shown = {
            f"{side} {number}": circuits.marked(
                reading.tokenizer, windows, features.by_window(active, number), count=4
            )
            for side, number, active in (
                ("output", gate.output, features.output_activations),
                ("input", gate.first, features.input_activations),
                ("input", gate.second, features.input_activations),
            )
        }
        found.append(Found(circuit, circuits.promoted_tokens(reading, direction, 5), shown))
    return found


def multiplied(
    reading: Reading, design: Design, named: list[Target], options: ReadOptions
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Measure whether the layer multiplies the two things of a design, on every second pair.

    The other pairs give the plane of the circuit that is edited, and the direction of the layer's
    own output that tells the opposites apart.

    Returns:
        The table of `interplay.table` by direction, that of `interplay.edit_effects`, and a text
        for each direction.
    """
    layer, mlp = options.layer, reading.mlp(options.layer)
    fitted, tested = design.halves()
    x, unseen = (
        half.cells(
            interplay.last_inputs(
                reading, layer, interplay.prompts(reading.tokenizer, half.texts())
            )
        )
        for half in (fitted, tested)
    )
    own = Target("the layer's own output", interplay.output_direction(reading, layer, x))
    tables, edits, lines = [], [], []
    targets = [own, *(target for target in named if target.minus is not None)]
    for target in tqdm(targets, "interplay", disable=not options.progress):
        form = mlp.quadratic_form(target.direction)
        table = interplay.table(form, unseen)
        tables.append(table.assign(direction=target.name))
        text = describe_interplay(target.name, design, table)
        if target.token is None or target.minus is None:
            lines.append(text)
            continue
        circuit = interplay.interplay_circuit(reading, layer, target.direction, x, target.name)
        tokens = target.token, target.minus
        changed = interplay.edit_effects(
            reading, circuit, tested, tokens, controls=options.controls, seed=options.seed
        )
        p, verdict = interplay.verdict(changed)
        edits.append(changed.assign(verdict=verdict))
        lines.append(f"{text}\n{describe_interplay_edits(changed, p, verdict)}")
    return pd.concat(tables), pd.concat(edits), lines


def _direction(reading: Reading, words: str) -> Target:
    """Read ``" happy"`` or ``" he- she"``, a difference."""
    token, _, minus = words.partition("-") if "-" in words[1:] else (words, "", "")
    name = f"logit of {token!r}" + (f" minus {minus!r}" if minus else "")
    return Target(
        name,
        reading.logit_direction(token, minus or None),
        reading.token(token),
        reading.token(minus) if minus else None,
    )
