"""What the subcommands of ``rlbilinear language`` do."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch.utils.tensorboard import SummaryWriter

from rlbilinear.agents.folder import (
    check_free,
    clear,
    locked,
    provenance,
    write_json,
)
from rlbilinear.commands import outputs
from rlbilinear.commands.language import (
    MARKER,
    ConvertOptions,
    TrainOptions,
    WriteOptions,
)
from rlbilinear.language import pretraining, writing
from rlbilinear.language.bpe import END, load_bpe, train_bpe
from rlbilinear.language.devices import find_device
from rlbilinear.language.figures import draw_training
from rlbilinear.language.models import load
from rlbilinear.language.text import Corpus, read_corpus, spread, tokenize, windows
from rlbilinear.language.training_files import has_state
from rlbilinear.language.transformer import TransformerConfig
from rlbilinear.statistics import t_interval

MAY_CHANGE = {
    *("out", "overwrite", "resume", "progress", "device", "minutes"),
    *("mlps", "seeds", "counts", "curve", "tables", "save_model"),
}
"""Options that a run may be resumed with: they do not change what was learned so far."""


def train(options: TrainOptions) -> None:
    """Train the models one after another, and write their losses with intervals over seeds."""
    device = find_device(options.device)
    config = TransformerConfig(
        options.vocabulary,
        options.context,
        options.width,
        options.layers,
        options.heads,
        options.hidden,
    )
    corpus = read_corpus(options.text)
    with opened(options):
        _train(options, config, corpus, device)


def _train(
    options: TrainOptions, config: TransformerConfig, corpus: Corpus, device: torch.device
) -> None:
    tokenizer_file = options.out / "tokenizer.json"
    if not tokenizer_file.is_file():
        trained = train_bpe(corpus.train, options.vocabulary).backend_tokenizer
        with outputs.new_file(tokenizer_file) as file:
            trained.save(str(file))
    tokenizer = load_bpe(tokenizer_file)
    tokens = tokenize(tokenizer, corpus.train, options.context)
    held_out = windows(tokenize(tokenizer, corpus.held_out, options.context), options.context)
    held_out = spread(held_out, options.held_out_windows)
    print(f"{len(tokens):,} tokens to train on, {held_out.numel():,} held out, on {device}")
    curves: list[pd.DataFrame] = []
    for mlp in options.mlps:
        for seed in range(options.seeds):
            run = options.out / f"{mlp}-{seed}"
            model = pretraining.build(TransformerConfig(**{**asdict(config), "mlp": mlp}), seed)
            model = model.to(device)
            how = pretraining.Pretraining(
                steps=options.steps,
                batch=options.batch,
                learning_rate=options.learning_rate,
                seed=seed,
                precision=options.precision,
            )
            with SummaryWriter(str(run / "tensorboard")) as writer:
                rows = pretraining.pretrain(
                    model,
                    tokens,
                    held_out,
                    how,
                    run=run,
                    writer=writer,
                    resume=options.resume and has_state(run),
                    progress=options.progress,
                )
            model.save(run)
            tokenizer.backend_tokenizer.save(str(run / "tokenizer.json"))
            parameters = sum(p.numel() for p in model.parameters())
            curves.append(pd.DataFrame(rows).assign(mlp=mlp, seed=seed, parameters=parameters))
            pd.concat(curves).to_csv(options.out / "curves.csv", index=False)
    table = final_losses(pd.concat(curves))
    table.to_csv(options.out / "losses.csv", index=False)
    draw_training(pd.concat(curves)).savefig(options.out / "curves.png", dpi=130)
    print(table.to_string(index=False))


def final_losses(curves: pd.DataFrame) -> pd.DataFrame:
    """Return each kind's held-out loss after the last step, and its difference from bilinear.

    Intervals are 95 % intervals of t over the seeds; differences are paired by seed.
    """
    last = curves[curves["step"] == curves["step"].max()]
    by_seed = last.pivot(index="seed", columns="mlp", values="held_out_loss")
    rows = []
    for mlp in by_seed:
        losses = by_seed[mlp].to_numpy()
        row = {"mlp": mlp, "seeds": len(losses), "held_out_loss": losses.mean()}
        if len(losses) > 1:
            low, high = _bounds(losses)
            row |= {"low": low, "high": high}
        if mlp != "bilinear" and "bilinear" in by_seed:
            gaps = (by_seed["bilinear"] - by_seed[mlp]).to_numpy()
            row["bilinear_minus_this"] = gaps.mean()
            if len(gaps) > 1:
                row |= dict(zip(("gap_low", "gap_high"), _bounds(gaps), strict=True))
        rows.append(row)
    return pd.DataFrame(rows)


def write(options: WriteOptions) -> None:
    """Write texts into a file."""
    outputs.check_new_file(options.out)
    device = find_device(options.device)
    model = load(
        options.model, device=str(device), dtype="bfloat16" if device.type == "cuda" else "float32"
    )
    prompts = (writing.story_prompts if options.kind == "stories" else writing.general_prompts)(
        options.count, options.seed
    )
    texts = writing.write(
        model,
        prompts,
        tokens=options.tokens,
        batch=options.batch,
        temperature=options.temperature,
        seed=options.seed,
    )
    with outputs.new_file(options.out, overwrite=False) as file, file.open("w") as stream:
        for text in texts:
            stream.write(f"{text.strip()}\n{END}\n")


def _bounds(values: Any) -> tuple[float, float]:
    interval = t_interval(values)
    return interval.low, interval.high


@contextmanager
def opened(options: TrainOptions | ConvertOptions) -> Iterator[None]:
    """Hold a folder of runs for this process alone, begun or gone on with.

    Raises:
        BlockingIOError: another process holds it.
        FileExistsError: something is there, and neither ``overwrite`` nor ``resume`` is on.
        OSError: it cannot be written; it is named.
        ValueError: there is nothing to resume, or a run with other options.
    """
    marker = options.out / MARKER
    made = json.loads(json.dumps({**asdict(options), "out": options.out.name}, default=str))
    with locked(options.out), outputs.writing(options.out):
        if options.resume:
            if not marker.is_file():
                raise ValueError(f"--resume: {options.out} holds no {MARKER}")
            _check_same(options.out, json.loads(marker.read_text())["options"], made)
        else:
            check_free(options.out, overwrite=options.overwrite, marker=MARKER)
            clear(options.out, marker=MARKER)
        write_json(marker, {"options": made, **provenance()})
        yield


def _check_same(out: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise ValueError where a resumed run has other options than `MAY_CHANGE`."""
    for name in now.keys() - MAY_CHANGE:
        if before.get(name, now[name]) != now[name]:
            raise ValueError(
                f"--resume: {out} was begun with --{name.replace('_', '-')} "
                f"{before[name]!r}, not {now[name]!r}; choose another folder"
            )
