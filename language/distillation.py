"""Fine-tuning into bilinear: layers regressed one by one, then the whole model distilled.

A student starts as the original with closed-form bilinear layers. First every bilinear layer is
regressed on the original's own inputs and outputs. Then the student's logits are trained to be the
original's, while each MLP is faded from the original one to the bilinear one.
"""

import copy
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm
from transformers import PreTrainedModel

from rlbilinear.language.bilinear_models import with_bilinear
from rlbilinear.language.closed_form import recording
from rlbilinear.language.devices import Precision, autocast
from rlbilinear.language.models import layers
from rlbilinear.language.scoring import batched, divergence, logits_of, score, windows_at_once
from rlbilinear.language.text import random_windows
from rlbilinear.language.training_files import load_state, save_state
from rlbilinear.layers import BilinearLinear

FIRST_BATCH = 1_000_000
"""Number of the distillation's first batch: its windows are not the regression's."""
WARM_UP = 0.05
"""Share of the training over which the learning rate rises."""


@dataclass(frozen=True)
class Distillation:
    """How a model is fine-tuned into bilinear."""

    regression_steps: int = 500
    """of every layer on the original's inputs and outputs"""
    steps: int = 2000
    """of the distillation of the logits"""
    minutes: float | None = None
    """end the distillation after so long, with its schedules fitted to it; then not reproducible"""
    fade: float = 0.3
    """share of these steps over which the MLPs fade from the original ones to the bilinear ones"""
    batch: int = 16
    """windows a step"""
    context: int = 256
    """tokens of a window"""
    regression_rate: float = 3e-4
    """learning rate of the regression"""
    learning_rate: float = 4e-4
    """learning rate of the distillation, at its highest"""
    train_all: bool = True
    """train attention, norms and embedding too, not the bilinear layers only"""
    seed: int = 0
    """of the windows"""
    save_every: float = 600.0
    """seconds between two states written"""
    evaluate_every: int = 250
    """steps between two scores on held-out text"""
    precision: Precision = "auto"
    """in which is computed; weights stay as they are"""


class FadingMLP(nn.Module):
    """``(1 - share) original(x) + share bilinear(x)``; the original one is not trained."""

    def __init__(self, original: nn.Module, bilinear: BilinearLinear) -> None:
        super().__init__()
        self.original = original.requires_grad_(False)
        self.bilinear = bilinear
        self.share = 0.0

    def forward(self, x: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch features"]:
        """Apply the layer."""
        if self.share >= 1:
            return self.bilinear(x)
        return torch.lerp(self.original(x), self.bilinear(x), self.share)


def regression_loss(
    predicted: Float[Tensor, "*batch features"], wanted: Float[Tensor, "*batch features"]
) -> Tensor:
    """Return the squared error of every token in units of its own size, so that no token rules.

    Massive activations of a few tokens are thousands of times larger than all others. A token's
    size is its squared norm, at least a tenth of the batch's median.
    """
    predicted, wanted = predicted.float(), wanted.float()
    size = wanted.square().sum(-1)
    floor = size.median() / 10
    return ((predicted - wanted).square().sum(-1) / size.clamp_min(floor)).mean()


def regress(
    model: PreTrainedModel,
    replacements: Mapping[int, BilinearLinear],
    tokens: Int[Tensor, "tokens"],
    options: Distillation,
    *,
    run: Path | None = None,
    writer: SummaryWriter | None = None,
    resume: bool = False,
    progress: bool = True,
) -> list[dict[str, float]]:
    """Train bilinear layers, each on what goes into the original MLP and what comes out of it.

    Args:
        model: the original; not changed.
        replacements: by the layer's index; trained in place, in float32 or wider.
        tokens: of the training text.
        options: steps, batch, rate.
        run: folder in which the state is written now and then; nothing is written when None.
        writer: for TensorBoard.
        resume: go on from the state in ``run``.
        progress: show a bar.

    Returns:
        The loss of every layer at every twentieth of the way: ``step``, ``layer``, ``loss``.

    Raises:
        ValueError: nothing to resume from, or the state of other layers.
    """
    trained = nn.ModuleDict({str(i): layer.train() for i, layer in replacements.items()})
    optimizer = adamw(trained, options.regression_rate)
    modules = {index: layers(model)[index].mlp for index in replacements}
    first, _, rows = _resumed(run, trained, optimizer) if resume else (0, 0.0, [])
    every = max(1, options.regression_steps // 20)
    saved = time.monotonic()
    steps = _bar("regression", first, options.regression_steps, progress)
    for step in steps:
        set_rate(optimizer, options.regression_rate, step / options.regression_steps)
        batch = _batch(tokens, options, step, model)
        with torch.no_grad(), recording(modules) as kept, autocast(model, options.precision):
            model.model(input_ids=batch, use_cache=False)
        losses = {}
        for index, (inputs, outputs) in kept.items():  # the layers do not know of each other
            layer = replacements[index]
            with autocast(model, options.precision):
                loss = regression_loss(layer(inputs), outputs)
            loss.backward()
            nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
            losses[index] = loss.detach()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        last = step == options.regression_steps - 1
        if step % every == 0 or last:
            mean = torch.stack(list(losses.values())).mean().item()
            steps.set_postfix(loss=f"{mean:.4f}")
            for index, loss in losses.items():
                rows.append({"step": step, "layer": index, "loss": loss.item()})
                if writer:
                    writer.add_scalar(f"regression/layer{index}", loss.item(), step)
        now = time.monotonic()
        if run is not None and (last or now - saved > options.save_every):
            save_state(run, trained, optimizer, {"step": step + 1, "seconds": 0.0, "rows": rows})
            saved = now
    return rows


def fading(model: PreTrainedModel, replacements: Mapping[int, BilinearLinear]) -> PreTrainedModel:
    """Return a copy of a model, of weights of its own, with `FadingMLP` in place of MLPs."""
    student = copy.deepcopy(model)
    for index, layer in replacements.items():
        layers(student)[index].mlp = FadingMLP(layers(model)[index].mlp, copy.deepcopy(layer))
    return student


def faded(student: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Return a student at the end of its fading as an ordinary model with bilinear layers."""
    found = {
        index: block.mlp.bilinear
        for index, block in enumerate(layers(student))
        if isinstance(block.mlp, FadingMLP)
    }
    made: Any = with_bilinear(student, found)
    made.to(dtype).eval()
    return cast(PreTrainedModel, made)


def distil(
    model: PreTrainedModel,
    student: PreTrainedModel,
    tokens: Int[Tensor, "tokens"],
    options: Distillation,
    *,
    run: Path | None = None,
    held_out: Int[Tensor, "n context"] | None = None,
    writer: SummaryWriter | None = None,
    resume: bool = False,
    progress: bool = True,
) -> list[dict[str, float]]:
    """Train a student of `fading` to predict what the original predicts.

    Args:
        model: the original, in evaluation mode.
        student: changed in place.
        tokens: of the training text.
        options: steps, batch, rates.
        run: folder in which the state is written now and then; nothing is written when None.
        held_out: windows, scored now and then.
        writer: for TensorBoard.
        resume: go on from the state in ``run``.
        progress: show a bar.

    Returns:
        What was measured on the way: ``step``, ``seconds``, ``share``, ``kl`` of the training
        batch, and on held-out text ``held_out_loss``, ``held_out_kl`` (all MLPs bilinear).

    Raises:
        ValueError: nothing to resume from, or the state of another model.
        FloatingPointError: the loss is not finite.
    """
    for name, parameter in student.named_parameters():
        parameter.requires_grad_(
            ".original." not in name and (options.train_all or ".bilinear." in name)
        )
    optimizer = adamw(student, options.learning_rate)
    first, before, rows = _resumed(run, student, optimizer) if resume else (0, 0.0, [])
    student.train()
    started = saved = time.monotonic()
    steps = _bar("distillation", first, options.steps, progress)
    for step in steps:
        seconds = before + time.monotonic() - started
        done = step / options.steps
        if options.minutes is not None:
            done = max(done, min(1.0, seconds / (60 * options.minutes)))
        share = set_share(student, done, options.fade)
        set_rate(optimizer, options.learning_rate, done)
        batch = _batch(tokens, options, step + FIRST_BATCH, model)
        loss = _backward(model, student, batch, options.precision)
        nn.utils.clip_grad_norm_([p for p in student.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        last = done >= 1 or step == options.steps - 1
        scored = step % options.evaluate_every == 0 or last
        if step % 10 == 0 or scored:
            row = {"step": step, "seconds": round(seconds, 1), "share": share, "kl": loss.item()}
            if not math.isfinite(row["kl"]):
                raise FloatingPointError(f"step {step}: the loss is {row['kl']}")
            if held_out is not None and scored:
                row |= _held_out(model, student, held_out, options)
                set_all_shares(student, share)
                student.train()
            rows.append(row)
            steps.set_postfix(kl=f"{row['kl']:.3f}", share=f"{share:.2f}")
            if writer:
                for key in row.keys() - {"step", "seconds"}:
                    writer.add_scalar(f"distillation/{key}", row[key], step)
        now = time.monotonic()
        if run is not None and (last or now - saved > options.save_every):
            numbers = {"step": step + 1, "seconds": seconds, "rows": rows}
            save_state(run, student, optimizer, {**numbers, "options": asdict(options)})
            saved = now
        if last:
            break
    set_all_shares(student, 1.0)
    student.eval()
    return rows


def set_share(student: nn.Module, done: float, fade: float) -> float:
    """Set how far the fading is when a share of the training is done, and return it."""
    share = min(1.0, done / fade) if fade > 0 else 1.0
    set_all_shares(student, share)
    return share


def set_all_shares(student: nn.Module, share: float) -> None:
    """Set the share of the bilinear layers in every `FadingMLP`."""
    for module in student.modules():
        if isinstance(module, FadingMLP):
            module.share = share


def adamw(modules: nn.Module, rate: float, weight_decay: float = 0.0) -> torch.optim.AdamW:
    """Return AdamW over what is trained; matrices decay, the rest does not."""
    parameters = [p for p in modules.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=rate,
        betas=(0.9, 0.95),
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float, done: float) -> None:
    """Set the learning rate when a share of the training is done.

    It rises over the first twentieth, then follows a cosine to a tenth of its highest.
    """
    factor = (done + 1e-3) / (WARM_UP + 1e-3)
    if done >= WARM_UP:
        factor = 0.1 + 0.45 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))
    for group in optimizer.param_groups:
        group["lr"] = rate * factor


def _resumed(
    run: Path | None, modules: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, float, list[dict[str, float]]]:
    """Read a run's state; return the steps done, the seconds they took, and what was measured."""
    if run is None:
        raise ValueError("resume: give the folder of the run")
    numbers = load_state(run, modules, optimizer)
    return numbers["step"], numbers["seconds"], numbers["rows"]


def _bar(name: str, first: int, steps: int, progress: bool) -> "tqdm[int]":
    return tqdm(range(first, steps), name, initial=first, total=steps, disable=not progress)


def _batch(
    tokens: Int[Tensor, "tokens"], options: Distillation, step: int, model: PreTrainedModel
) -> Int[Tensor, "batch context"]:
    batch = random_windows(tokens, options.context, options.batch, step, options.seed)
    return batch.to(model.device).long()


def _backward(
    model: PreTrainedModel,
    student: PreTrainedModel,
    batch: Int[Tensor, "batch context"],
    precision: Precision,
) -> Float[Tensor, ""]:
    """Add the gradients of a batch's mean divergence, and return it.

    Few windows go through at a time: at a vocabulary of 49,152 their logits are the largest tensors
    of the training.
    """
    size = windows_at_once(batch.shape[1], model.config.vocab_size)
    total = torch.zeros((), device=batch.device)
    for part in batch.split(size):
        with torch.no_grad(), autocast(model, precision):
            wanted = model(input_ids=part, use_cache=False).logits
        with autocast(model, precision):
            given = student(input_ids=part, use_cache=False).logits
        loss = divergence(wanted, given).mean() * (len(part) / len(batch))
        loss.backward()
        total += loss.detach()
    return total


def _held_out(
    model: PreTrainedModel,
    student: PreTrainedModel,
    windows: Int[Tensor, "n context"],
    options: Distillation,
) -> dict[str, float]:
    set_all_shares(student, 1.0)
    student.eval()
    with autocast(model, options.precision):
        found = score(
            logits_of(student),
            batched(windows, options.batch, model.device),
            original=logits_of(model),
        )
    assert found.kl is not None
    return {"held_out_loss": found.loss, "held_out_kl": found.kl}
