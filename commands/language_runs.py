"""What the subcommands of ``rlbilinear language`` do."""

import json
from dataclasses import asdict
from typing import Any

import pandas as pd
from torch.utils.tensorboard import SummaryWriter

from rlbilinear.agents.folder import check_free, clear, new_file, provenance, write_json
from rlbilinear.commands.language import (
    MARKER,
    ConvertOptions,
    TrainOptions,
    WriteOptions,
)
from rlbilinear.commands.outputs import check_new_file
from rlbilinear.language import pretraining, writing
from rlbilinear.language.bpe import END, load_bpe, train_bpe
from rlbilinear.language.devices import find_device
from rlbilinear.language.figures import draw_training
from rlbilinear.language.models import load
from rlbilinear.language.text import read_corpus, spread, tokenize, windows
from rlbilinear.language.training_files import has_state
from rlbilinear.language.transformer import TransformerConfig
from rlbilinear.statistics import t_interval


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
    open_run(options)
    tokenizer_file = options.out / "tokenizer.json"
    if not tokenizer_file.is_file():
        train_bpe(corpus.train, options.vocabulary).backend_tokenizer.save(str(tokenizer_file))
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
    check_new_file(options.out)
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
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with new_file(options.out, overwrite=False) as file, file.open("w") as stream:
        for text in texts:
            stream.write(f"{text.strip()}\n{END}\n")


def _bounds(values: Any) -> tuple[float, float]:
    interval = t_interval(values)
    return interval.low, interval.high


def open_run(options: TrainOptions | ConvertOptions) -> None:
    """Start a folder of runs, or go on with the one that is there."""
    if not (options.resume and (options.out / MARKER).is_file()):
        if options.resume:
            raise ValueError(f"--resume: {options.out} holds no {MARKER}")
        check_free(options.out, overwrite=options.overwrite, marker=MARKER)
        options.out.mkdir(parents=True, exist_ok=True)
        clear(options.out, marker=MARKER)
    made = json.loads(json.dumps({**asdict(options), "out": options.out.name}, default=str))
    write_json(options.out / MARKER, {"options": made, **provenance()})
