"""What ``rlbilinear language read`` does."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure

from rlbilinear.commands.language import MARKER, ReadOptions
from rlbilinear.commands.outputs import check_folder, write_study
from rlbilinear.language import circuits, feature_study, figures
from rlbilinear.language.bpe import load_bpe
from rlbilinear.language.circuits import Circuit
from rlbilinear.language.devices import find_device
from rlbilinear.language.models import load
from rlbilinear.language.reading import Reading, open_model
from rlbilinear.language.sae import SAETraining, load_sae
from rlbilinear.language.text import read_corpus, spread, tokenize, windows
from rlbilinear.language.transformer import CONFIG, load_transformer
from rlbilinear.language.truncation import truncation_losses


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
    pairs = [_direction(reading, token) for token in options.tokens]
    held_out = windows(
        tokenize(reading.tokenizer, corpus.held_out, options.context), options.context
    )
    held_out = spread(held_out, options.windows)
    if len(held_out) < options.places:
        raise ValueError(f"--places: {options.places} are more than {len(held_out)} windows")
    tables: dict[str, pd.DataFrame] = {}
    pictures: dict[str, Figure] = {}
    page: list[str] = []
    found: list[tuple[Circuit, torch.Tensor]] = []
    for name, direction, targets in pairs:
        found.append(
            (circuits.eigen_circuit(reading, options.layer, direction, name, k=1), targets)
        )
    summary: dict[str, Any] = {}
    features = None
    if options.features:
        tokens = tokenize(reading.tokenizer, corpus.train, options.context)
        chosen = spread(windows(tokens, options.context), options.train_windows)
        how = SAETraining(
            features=options.features, k=options.active, steps=options.sae_steps, seed=options.seed
        )
        features = feature_study.learn_features(
            reading, options.layer, chosen, held_out, how, **given, progress=options.progress
        )
        summary |= features.summary(reading.mlp(options.layer))
        tables["correlations"] = feature_study.correlations(reading, features, options.studied)
        pictures["correlations"] = figures.draw_correlations(tables["correlations"])
        tables["sparsity"] = feature_study.sparsity(reading, features, options.studied)
        tables["gates"] = feature_study.gates(
            reading, features, options.studied, progress=options.progress
        )
        found += gate_circuits(reading, features, tables["gates"], options.circuits)
    results = []
    for circuit, targets in found:
        result = circuits.validate(
            reading,
            circuit,
            held_out,
            targets,
            places=options.places,
            controls=options.controls,
            seed=options.seed,
        )
        results.append(result.table.assign(verdict=result.verdict))
        page.append(describe(reading, circuit, targets, held_out, result))
    if results:
        tables["validation"] = pd.concat(results)
    if options.truncation:
        tables["truncation"] = truncation_losses(
            reading, options.layer, spread(held_out, 64), progress=options.progress
        )
        pictures["truncation"] = figures.draw_truncation(tables["truncation"])
    print("\n\n".join(page))
    for name, value in summary.items():
        print(f"{name:30s} {value:.4f}")
    names = {key: value.name for key, value in asdict(options).items() if isinstance(value, Path)}
    made = {**asdict(options), **names, "model": Path(options.model).name}
    record = {"options": made, "summary": summary, "circuits": page}
    write_study(options.out, tables, pictures, record, marker=MARKER, overwrite=options.overwrite)
    if features:
        features.inputs.save(options.out / "inputs.safetensors")
        features.outputs.save(options.out / "outputs.safetensors")
    print(f"\nTables and figures: {options.out}")


def open_reading(model: str, device: str) -> Reading:
    """Open a run of ``train``, or anything that `load` takes."""
    folder = Path(model)
    if (folder / CONFIG).is_file():
        return open_model(load_transformer(folder, device), load_bpe(folder / "tokenizer.json"))
    found = load(model, device=device)
    return open_model(found.model, found.tokenizer)


def gate_circuits(
    reading: Reading, features: feature_study.Features, gates: pd.DataFrame, count: int
) -> list[tuple[Circuit, torch.Tensor]]:
    """Return the leading gating pairs as circuits, of different output features."""
    found: list[tuple[Circuit, torch.Tensor]] = []
    seen: set[int] = set()
    for gate in gates.itertuples():
        if gate.output in seen or len(found) == count:
            continue
        seen.add(gate.output)
        direction = features.outputs.encoder[gate.output].detach().double()
        pair = features.inputs.decoder[[gate.first, gate.second]].detach().double()
        name = f"{gate.kind}: output {gate.output}, inputs {gate.first} and {gate.second}"
        circuit = circuits.pair_circuit(reading, features.layer, direction, pair, name)
        found.append((circuit, circuits.promoted_tokens(reading, direction, 5)))
    return found


def describe(
    reading: Reading,
    circuit: Circuit,
    targets: torch.Tensor,
    held_out: torch.Tensor,
    result: circuits.Validation,
) -> str:
    """Return a circuit as its reader sees it: values, tokens, contexts, edits and controls."""
    lines = [f"{circuit.name} (layer {circuit.layer}): {result.verdict}"]
    promoted = [reading.tokenizer.decode([token]) for token in targets.tolist()]
    lines.append(f"  promotes {promoted}")
    ends = circuits.strongest_tokens(reading, circuit)
    for value, end in zip(circuit.values.tolist(), ends, strict=True):
        lines.append(f"  eigenvalue {value:+.3f}: {end['positive']} | {end['negative']}")
    for context in circuits.contexts(reading, circuit, held_out, count=5):
        lines.append(f"  {context.activity:+8.2f}  {context.text}")
    for context in circuits.contexts(reading, circuit, held_out, count=3, sign=-1):
        lines.append(f"  {context.activity:+8.2f}  {context.text}")
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


def _direction(reading: Reading, words: str) -> tuple[str, torch.Tensor, torch.Tensor]:
    """Read ``" happy"`` or ``" he- she"``, a difference."""
    token, _, minus = words.partition("-") if "-" in words[1:] else (words, "", "")
    direction = reading.logit_direction(token, minus or None)
    name = f"logit of {token!r}" + (f" minus {minus!r}" if minus else "")
    return name, direction, torch.tensor([reading.token(token)])
