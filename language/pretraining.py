"""A `BilinearTransformer` trained from scratch on text."""

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from rlbilinear.language.devices import Precision, autocast
from rlbilinear.language.distillation import adamw, set_rate
from rlbilinear.language.scoring import batched, score, token_losses
from rlbilinear.language.text import random_windows
from rlbilinear.language.training_files import load_state, save_state
from rlbilinear.language.transformer import BilinearTransformer, TransformerConfig


@dataclass(frozen=True)
class Pretraining:
    """How a model is trained from scratch."""

    steps: int = 4000
    batch: int = 32
    """windows a step, each as long as the model's context"""
    learning_rate: float = 3e-3
    """of AdamW, at its highest"""
    weight_decay: float = 0.1
    """of matrices"""
    seed: int = 0
    """of the weights and the windows"""
    save_every: float = 300.0
    """seconds between two states written"""
    evaluate_every: int = 250
    """steps between two scores on held-out text"""
    precision: Precision = "auto"
    """in which is computed; weights stay as they are"""


def build(config: TransformerConfig, seed: int) -> BilinearTransformer:
    """Return a model with weights drawn from a seed; the global generator is as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BilinearTransformer(config)


def pretrain(
    model: BilinearTransformer,
    tokens: Int[Tensor, "tokens"],
    held_out: Int[Tensor, "n context"],
    options: Pretraining,
    *,
    run: Path | None = None,
    writer: SummaryWriter | None = None,
    resume: bool = False,
    progress: bool = True,
) -> list[dict[str, float]]:
    """Train a model to predict the next token.

    Args:
        model: changed in place, on its device.
        tokens: of the training text.
        held_out: windows that are scored now and then.
        options: steps, batch, rate, seed.
        run: folder in which the state is written now and then; nothing is written when None.
        writer: for TensorBoard.
        resume: go on from the state in ``run``.
        progress: show a bar.

    Returns:
        ``step``, ``seconds``, ``loss`` of the training batch, and ``held_out_loss``, in nats.

    Raises:
        ValueError: nothing to resume from, or the state of another model.
        FloatingPointError: the loss is not finite.
    """
    device = model.embedding.weight.device
    optimizer = adamw(model, options.learning_rate, options.weight_decay)
    rows: list[dict[str, float]] = []
    first, before = 0, 0.0
    if resume:
        if run is None:
            raise ValueError("resume: give the folder of the run")
        numbers = load_state(run, model, optimizer)
        first, before, rows = numbers["step"], numbers["seconds"], numbers["rows"]
    started = saved = time.monotonic()
    tokens = tokens.to(device) if device.type == "cuda" else tokens
    name = f"{model.config.mlp}, seed {options.seed}"
    steps = tqdm(
        range(first, options.steps), name, initial=first, total=options.steps, disable=not progress
    )
    model.train()
    for step in steps:
        set_rate(optimizer, options.learning_rate, step / options.steps)
        batch = random_windows(tokens, model.config.context, options.batch, step, options.seed)
        batch = batch.to(device).long()
        with autocast(model, options.precision):
            loss = token_losses(model(batch), batch).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        last = step == options.steps - 1
        now = time.monotonic()
        seconds = before + now - started
        scored = step % options.evaluate_every == 0 or last
        if step % 25 == 0 or scored:
            row = {"step": step, "seconds": round(seconds, 1), "loss": loss.item()}
            if not math.isfinite(row["loss"]):
                raise FloatingPointError(f"step {step}: the loss is {row['loss']}")
            if scored:
                row["held_out_loss"] = held_out_loss(
                    model, held_out, options.batch, options.precision
                )
                model.train()
            rows.append(row)
            steps.set_postfix(loss=f"{row['loss']:.3f}")
            if writer:
                for key in row.keys() - {"step", "seconds"}:
                    writer.add_scalar(key, row[key], step)
        if run is not None and (last or now - saved > options.save_every):
            numbers = {
                "step": step + 1,
                "seconds": seconds,
                "rows": rows,
                "options": asdict(options),
            }
            save_state(run, model, optimizer, numbers)
            saved = now
    model.eval()
    return rows


def held_out_loss(
    model: BilinearTransformer,
    windows: Int[Tensor, "n context"],
    batch: int,
    precision: Precision = "auto",
) -> float:
    """Return the cross-entropy on held-out windows, in nats a token."""
    model.eval()
    with autocast(model, precision):
        return score(model, batched(windows, batch, model.embedding.weight.device)).loss
