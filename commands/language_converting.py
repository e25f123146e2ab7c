"""What ``rlbilinear language convert`` does."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from rlbilinear.agents.folder import write_json
from rlbilinear.commands.language import ConvertOptions
from rlbilinear.commands.language_runs import opened
from rlbilinear.language import distillation, replacing, writing
from rlbilinear.language.closed_form import input_statistics
from rlbilinear.language.devices import find_device
from rlbilinear.language.distillation import Distillation
from rlbilinear.language.figures import draw_replaced
from rlbilinear.language.models import LanguageModel, load
from rlbilinear.language.scoring import Score, batched, logits_of, score
from rlbilinear.language.text import read_corpus, spread, tokenize, windows
from rlbilinear.language.training_files import has_state

Methods = Mapping[str, replacing.Replacements]


@dataclass(frozen=True, eq=False)
class Conversion:
    """A model to convert, the text it is fitted and scored on, and how."""

    language_model: LanguageModel
    tokens: Int[Tensor, "tokens"]
    held_out: Int[Tensor, "n context"]
    how: Distillation
    writer: SummaryWriter
    options: ConvertOptions

    @property
    def best(self) -> str:
        """The method whose layers are fine-tuned, and whose cost gives the layers' order."""
        return "regressed" if self.options.regression_steps else "least squares"


def convert(options: ConvertOptions) -> None:
    """Compare the ways to make a model bilinear, fine-tune, and write tables, curves and models."""
    device = find_device(options.device)
    corpus = read_corpus(options.text)
    unseen = (
        read_corpus(options.held_out_text).held_out if options.held_out_text else corpus.held_out
    )
    found = load(options.model, device=str(device))
    count = found.model.config.num_hidden_layers
    wrong = [n for n in options.counts if n > count]
    if wrong:
        raise ValueError(f"--counts: the model has {count} layers, got {wrong}")
    tokens = tokenize(found.tokenizer, corpus.train, options.context)
    held_out = windows(tokenize(found.tokenizer, unseen, options.context), options.context)
    held_out = spread(held_out, options.held_out_windows)
    with opened(options):
        print(f"{len(tokens):,} tokens to train on, {held_out.numel():,} held out, on {device}")
        _convert(found, tokens, held_out, options)


def _convert(
    language_model: LanguageModel,
    tokens: Int[Tensor, "tokens"],
    held_out: Int[Tensor, "n context"],
    options: ConvertOptions,
) -> None:
    with SummaryWriter(str(options.out / "tensorboard")) as writer:
        how = _distillation(options)
        conversion = Conversion(language_model, tokens, held_out, how, writer, options)
        methods = fit(conversion)
        order, rows = compare(conversion, methods)
        layers = methods[conversion.best]
        del methods  # most of what is in memory, and fine-tuning needs much
        for n in options.counts:
            chosen = {index: layers[index] for index in order[:n]}
            rows.append(fine_tune(conversion, n, chosen))
            pd.DataFrame(rows).to_csv(options.out / "together.csv", index=False)
    draw_replaced(pd.DataFrame(rows)).savefig(options.out / "together.png", dpi=130)
    write_json(options.out / "order.json", order)


def fit(conversion: Conversion) -> Methods:
    """Return the layers of every method: the closed forms, and those regressed on activity."""
    options, model = conversion.options, conversion.language_model.model
    fitted = spread(windows(conversion.tokens, options.context), options.statistics_windows)
    batches = list(batched(fitted, options.batch, model.device))
    statistics = input_statistics(model, batches)
    methods: dict[str, Any] = replacing.closed_forms(
        model, statistics, batches, progress=options.progress
    )
    if options.regression_steps:
        methods["regressed"] = copy.deepcopy(methods["least squares"])
        run = options.out / "regression"
        rows = distillation.regress(
            model,
            methods["regressed"],
            conversion.tokens,
            conversion.how,
            run=run,
            writer=conversion.writer,
            resume=options.resume and has_state(run),
            progress=options.progress,
        )
        pd.DataFrame(rows).to_csv(options.out / "regression.csv", index=False)
    return methods


def compare(conversion: Conversion, methods: Methods) -> tuple[list[int], list[dict[str, Any]]]:
    """Score each layer alone and the cheapest together, and write the tables.

    Returns:
        The order in which layers are replaced, and the rows of ``together.csv``.
    """
    options, model = conversion.options, conversion.language_model.model
    held_out = conversion.held_out
    original = replacing.original_logits(model, held_out, options.batch, options.precision)
    scored = held_out, original
    how: Any = {"precision": options.precision, "progress": options.progress}
    plain = replacing.score_replaced(model, {}, *scored, options.precision)
    print(f"the original: perplexity {plain.perplexity:.3f}")
    rows = [_row(0, "original", plain)]
    count = model.config.num_hidden_layers
    if not options.tables:
        return list(reversed(range(count))), rows
    batches = list(batched(held_out, options.batch, model.device))
    replacing.explained(model, methods, batches).to_csv(options.out / "explained.csv", index=False)
    alone = replacing.each_alone(model, methods, *scored, file=options.out / "alone.csv", **how)
    order = replacing.cheapest_first(alone, conversion.best)
    counts = [n for n in options.curve if n <= count]
    file = options.out / "together.csv"
    together = replacing.cumulative(model, methods, order, counts, *scored, file=file, **how)
    rows += together.to_dict("records")
    pd.DataFrame(rows).to_csv(file, index=False)
    table = together.pivot(index="layers", columns="method", values="perplexity")
    print(table.round(2).to_string())
    return order, rows


def fine_tune(
    conversion: Conversion, n: int, replacements: replacing.Replacements
) -> dict[str, Any]:
    """Distil a model with n bilinear layers, write it with its curve, and return its score."""
    options, model = conversion.options, conversion.language_model.model
    run = options.out / f"layers{n}"
    student = distillation.fading(model, replacements)  # type: ignore[arg-type]
    rows = distillation.distil(
        model,
        student,
        conversion.tokens,
        conversion.how,
        run=run,
        held_out=conversion.held_out,
        writer=conversion.writer,
        resume=options.resume and has_state(run),
        progress=options.progress,
    )
    pd.DataFrame(rows).to_csv(options.out / f"distillation{n}.csv", index=False)
    converted = distillation.faded(student, torch.float32)
    with torch.no_grad():
        final = score(
            logits_of(converted),
            batched(conversion.held_out, options.batch, model.device),
            original=logits_of(model),
        )
    print(f"{n} layers bilinear: perplexity {final.perplexity:.3f}, KL {final.kl:.4f}")
    result = LanguageModel(options.model, converted, conversion.language_model.tokenizer)
    write_json(options.out / f"samples{n}.json", writing.continuations(result))
    if options.save_model:
        result.save(options.out / f"model{n}")
    return _row(n, "fine-tuned", final)


def _row(layers: int, method: str, found: Score) -> dict[str, Any]:
    return {"layers": layers, "method": method, **found._asdict(), "perplexity": found.perplexity}


def _distillation(options: ConvertOptions) -> Distillation:
    return Distillation(
        regression_steps=options.regression_steps,
        steps=options.steps,
        minutes=options.minutes,
        fade=options.fade,
        batch=options.batch,
        context=options.context,
        regression_rate=options.regression_rate,
        learning_rate=options.learning_rate,
        train_all=options.train_all,
        seed=options.seed,
        precision=options.precision,
    )
