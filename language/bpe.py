"""A byte-level BPE tokenizer of our own, trained on the text at hand."""

from collections.abc import Sequence
from pathlib import Path

from rlbilinear.language.extra import require

require()

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402

END = "<|endoftext|>"
BYTES = 256


def train_bpe(documents: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a tokenizer.

    Args:
        documents: text.
        vocabulary: its tokens, all bytes and `END` among them.

    Raises:
        ValueError: the vocabulary is smaller than the bytes, or the text too short for it.
    """
    if vocabulary <= BYTES + 1:
        raise ValueError(f"vocabulary: expected more than {BYTES + 1}, got {vocabulary}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    if tokenizer.get_vocab_size() < vocabulary:
        raise ValueError(
            f"vocabulary: the text gives {tokenizer.get_vocab_size()} tokens, not {vocabulary}"
        )
    return wrap(tokenizer)


def load_bpe(file: Path) -> PreTrainedTokenizerFast:
    """Read a tokenizer from its ``tokenizer.json``.

    Raises:
        ValueError: it is not there.
    """
    if not file.is_file():
        raise ValueError(f"{file} is not there: the folder holds no tokenizer")
    return wrap(Tokenizer.from_file(str(file)))


def wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """Return a tokenizer as transformers has them."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, bos_token=END, pad_token=END
    )
