"""Text from files, folders, packages or the Hugging Face hub, split, and cut into windows."""

import gzip
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from rlbilinear.language.bpe import END
from rlbilinear.language.extra import require

require()

from transformers.convert_slow_tokenizer import bytes_to_unicode  # noqa: E402

ENDINGS = (".txt", ".md", ".text", ".rst")
PIECE = 1 << 16
"""Characters that are tokenised at a time."""

CHARACTERS = 8
"""Characters for each token of a window in `sample`; English text has about four."""


@dataclass(frozen=True)
class Corpus:
    """Text in two parts that share nothing: the end of every document is held out."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]


def read_corpus(sources: Iterable[str | Path], *, held_out: float = 0.05) -> Corpus:
    """Read text.

    Args:
        sources: files, folders (files ending in `ENDINGS`, also with ``.gz``, in order of their
            names), ``debian:NAME``, the text files of an installed Debian package, or ``hf:NAME``,
            a dataset as `datasets.load_dataset` finds it: on the Hugging Face hub, or in a folder.
            ``hf:NAME:COLUMN`` names its column of text if that is not ``text``. Its training split
            is one document.
        held_out: share of every document, at its end, that is held out.

    Raises:
        ValueError: nothing is found, a file is not UTF-8, or the share is not within (0, 1).
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out: expected a share between 0 and 1, got {held_out}")
    documents = [text for source in sources for text in _documents(str(source))]
    cuts = [round(len(text) * (1 - held_out)) for text in documents]
    return Corpus(
        tuple(text[:cut] for text, cut in zip(documents, cuts, strict=True)),
        tuple(text[cut:] for text, cut in zip(documents, cuts, strict=True)),
    )


def tokenize(tokenizer: Any, documents: Sequence[str], context: int) -> Int[Tensor, "tokens"]:
    """Return the tokens of documents, one after another.

    Raises:
        ValueError: fewer than a context.
    """
    pieces = [text[i : i + PIECE] for text in documents for i in range(0, len(text), PIECE)]
    if not pieces:
        raise ValueError("text: there is none")
    rows = tokenizer(pieces, add_special_tokens=False)["input_ids"]
    tokens = torch.tensor([token for row in rows for token in row], dtype=torch.int32)
    if len(tokens) < context:
        raise ValueError(f"text: {len(tokens)} tokens are shorter than one context of {context}")
    return tokens


def windows(tokens: Int[Tensor, "tokens"], context: int) -> Int[Tensor, "n context"]:
    """Cut tokens into windows, one after another; what is left at the end is dropped.

    Raises:
        ValueError: fewer tokens than one window.
    """
    count = len(tokens) // context
    if not count:
        raise ValueError(f"text: {len(tokens)} tokens are shorter than one context of {context}")
    return tokens[: count * context].reshape(count, context)


def random_windows(
    tokens: Int[Tensor, "tokens"], context: int, batch: int, step: int, seed: int
) -> Int[Tensor, "batch context"]:
    """Return the batch of a step: windows from random places, the same for the same arguments."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    starts = torch.randint(len(tokens) - context + 1, (batch,), generator=generator)
    return torch.stack([tokens[start : start + context] for start in starts.tolist()])


def spread(windows: Int[Tensor, "n context"], count: int) -> Int[Tensor, "m context"]:
    """Return at most so many windows, evenly from all of them."""
    if len(windows) <= count:
        return windows
    return windows[torch.linspace(0, len(windows) - 1, count).round().long()]


def sample(
    tokenizer: Any, documents: Sequence[str], context: int, count: int
) -> Int[Tensor, "m context"]:
    """Return at most so many windows, evenly from all documents; other text is not tokenised.

    Where that is most of the text, they are those of `spread`. Else each is the beginning of a
    piece of text; a piece of fewer tokens than a window gives none.

    Raises:
        ValueError: fewer tokens than one window.
    """
    piece = CHARACTERS * context
    if 2 * count * piece > sum(map(len, documents)):
        return spread(windows(tokenize(tokenizer, documents, context), context), count)
    starts = [(text, i) for text in documents for i in range(0, len(text) - piece + 1, piece)]
    chosen = torch.linspace(0, len(starts) - 1, count).round().long().tolist()
    pieces = [text[i : i + piece] for text, i in map(starts.__getitem__, chosen)]
    rows = tokenizer(pieces, add_special_tokens=False)["input_ids"]
    kept = [row[:context] for row in rows if len(row) >= context]
    if not kept:
        raise ValueError(f"text: {count} pieces of {piece} characters have no {context} tokens")
    return torch.tensor(kept, dtype=torch.int32)


def token_text(tokenizer: Any, token: int) -> str:
    r"""Return a token as text; bytes that are no whole character are written ``\xe2``."""
    text: str = tokenizer.decode([token])
    if "\ufffd" not in text:
        return text
    raw: str = tokenizer.convert_ids_to_tokens(int(token))
    values = {character: byte for byte, character in bytes_to_unicode().items()}
    if not set(raw) <= values.keys():
        return raw
    return bytes(values[character] for character in raw).decode("utf-8", "backslashreplace")


def _documents(source: str) -> list[str]:
    if source.startswith("hf:"):
        return [_dataset(source)]
    if source.startswith("debian:"):
        found = _package_files(source.removeprefix("debian:"))
    elif Path(source).is_dir():
        found = [file for file in Path(source).rglob("*") if _is_text(file)]
    elif Path(source).is_file():
        found = [Path(source)]
    else:
        raise ValueError(
            f"text: {source} is neither a file, a folder, debian:PACKAGE nor hf:DATASET"
        )
    if not found:
        raise ValueError(f"text: {source} holds no files ending in {', '.join(ENDINGS)}")
    return [_read(file) for file in sorted(found)]


def _dataset(source: str) -> str:
    try:
        import datasets
    except ImportError:
        raise ValueError(f"text: {source} needs a package; pip install datasets") from None
    name, _, column = source.removeprefix("hf:").partition(":")
    column = column or "text"
    try:
        found = datasets.load_dataset(name, split="train")
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(f"text: cannot load the dataset {name}: {error}") from error
    if column not in found.column_names:
        raise ValueError(
            f"text: the dataset {name} has no column {column!r}; choose from "
            f"{', '.join(found.column_names)} by hf:{name}:COLUMN"
        )
    return f"\n{END}\n".join(found[column])


def _package_files(package: str) -> list[Path]:
    try:
        done = subprocess.run(["dpkg", "-L", package], capture_output=True, text=True)
    except FileNotFoundError:
        raise ValueError("text: debian:PACKAGE needs dpkg, which is not installed") from None
    if done.returncode:
        raise ValueError(f"text: the Debian package {package!r} is not installed")
    return [file for file in map(Path, done.stdout.splitlines()) if _is_text(file)]


def _is_text(file: Path) -> bool:
    name = file.name.removesuffix(".gz")
    return file.is_file() and name.endswith(ENDINGS)


def _read(file: Path) -> str:
    opener: Any = gzip.open if file.suffix == ".gz" else open
    try:
        with opener(file, "rt", encoding="utf-8") as text:
            return text.read()
    except UnicodeDecodeError as error:
        raise ValueError(f"text: {file} is not UTF-8: {error}") from error
    except gzip.BadGzipFile as error:
        raise ValueError(f"text: {file} is not gzip: {error}") from error
