"""Text written by a model, to train small models on: simple stories, or ordinary text."""

import random
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch

from rlbilinear.language.models import LanguageModel

WHO = (
    "a cat|a dog|a little girl named Lily|a boy named Tom|a small bird|an old man|"
    "a brave mouse|a bear|a frog|a rabbit|a little robot|a fish|a farmer|a king|"
    "a baby elephant|two friends|a mother and her son|a duck|a fox|a shy turtle|"
    "a horse|a teacher|a baker|a girl named Mia|a boy named Ben|a lion|a snail|"
    "a grandmother|twins|a lost puppy"
)
WHERE = (
    "in the park|at the beach|in the forest|on a farm|in a small house|at school|"
    "in the garden|by a lake|on a hill|in the snow|in the kitchen|at the market|"
    "on a boat|under a big tree|in a castle|at night|on a rainy day|in a cave|"
    "at a birthday party|in a library"
)
THING = (
    "a red ball|a cake|a lost key|a kite|a box|a book|a boat|an apple|a blue hat|"
    "a drum|a toy car|a flower|a star|a bell|a blanket|a pie|a puddle|a ladder|"
    "a broken cup|a secret|a letter|a coin|a stick|a rope|a lamp|a shoe|a bucket|"
    "honey|a shell|a map"
)
HOW = (
    "learns to share|is afraid at first|says no|makes a mistake and says sorry|"
    "finds a friend|gets lost and comes home|helps someone|does not listen|"
    "waits a long time|tells the truth|is sad and then happy|wants what others have|"
    "tries again and again|keeps a promise"
)
OPENINGS = (
    "",
    "The",
    "In",
    "How to",
    "What is",
    "Introduction:",
    "Once upon a time",
    "History of",
    "A",
    "Why",
    "I",
    "Chapter 1",
)
"""First words of general text."""
BEGINNINGS = (
    "Once upon a time there was a little girl who",
    "The capital of France is",
    "Water boils when",
    "He did not want to go, because",
)
"""Beginnings that show whether a model still writes sense."""


def story_prompts(count: int, seed: int) -> list[str]:
    """Return requests for simple stories, in the chat format of SmolLM2."""
    draw = random.Random(seed)
    prompts = []
    for _ in range(count):
        who, where, thing, how = (draw.choice(of.split("|")) for of in (WHO, WHERE, THING, HOW))
        prompts.append(
            "<|im_start|>user\nWrite a short and simple story for a small child. It is about "
            f"{who} {where}, with {thing}. Someone {how}.<|im_end|>\n<|im_start|>assistant\n"
        )
    return prompts


def general_prompts(count: int, seed: int) -> list[str]:
    """Return beginnings of ordinary text."""
    draw = random.Random(seed)
    return [f"<|endoftext|>{draw.choice(OPENINGS)}" for _ in range(count)]


@torch.no_grad()
def write(
    model: LanguageModel,
    prompts: Sequence[str],
    *,
    tokens: int,
    batch: int,
    temperature: float = 1.0,
    top_p: float = 0.95,
    seed: int = 0,
) -> Iterator[str]:
    """Yield what the model writes after each prompt, without the prompt.

    Args:
        model: it writes.
        prompts: one for each text.
        tokens: at most so many new ones.
        batch: texts written at the same time.
        temperature: of the sampling.
        top_p: mass of the tokens that may be sampled.
        seed: of the sampling.
    """
    torch.manual_seed(seed)
    tokenizer, network = model.tokenizer, cast(Any, model.model)
    end = network.config.eos_token_id
    tokenizer.padding_side = "left"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.convert_ids_to_tokens(end)
    for start in range(0, len(prompts), batch):
        given = tokenizer(
            list(prompts[start : start + batch]),
            return_tensors="pt",
            padding=True,
            add_special_tokens=False,
        ).to(model.device)
        found = network.generate(
            **given,
            max_new_tokens=tokens,
            do_sample=True,
            temperature=temperature,
            top_p=top_p,
            top_k=0,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=end,
        )
        new = found[:, given.input_ids.shape[1] :]
        yield from tokenizer.batch_decode(new, skip_special_tokens=True)


@torch.no_grad()
def continuations(
    model: LanguageModel, beginnings: Sequence[str] = BEGINNINGS, tokens: int = 40
) -> dict[str, str]:
    """Return what a model finds most likely after each beginning, token by token."""
    found = {}
    network = cast(Any, model.model)
    for beginning in beginnings:
        given = model.tokenizer(beginning, return_tensors="pt", add_special_tokens=False)
        written = network.generate(
            input_ids=given.input_ids.to(model.device),
            attention_mask=given.attention_mask.to(model.device),
            max_new_tokens=tokens,
            do_sample=False,
            eos_token_id=network.config.eos_token_id,
            pad_token_id=network.config.eos_token_id,
        )
        found[beginning] = model.tokenizer.decode(written[0, given.input_ids.shape[1] :])
    return found
