"""A Llama-class model of a few thousand parameters, its tokenizer and text: made on the spot."""

import random

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rlbilinear.language.bpe import train_bpe
from rlbilinear.language.text import tokenize, windows

CONTEXT = 16


def write_words(count, seed):
    """Sentences of a small grammar: what follows can be learned."""
    draw = random.Random(seed)
    who = ["the cat", "the dog", "a bird", "a child"]
    does = ["sees", "likes", "does not like", "finds", "does not see"]
    what = ["the ball", "a tree", "the house", "red apples", "a small fish"]
    return " ".join(
        f"{draw.choice(who)} {draw.choice(does)} {draw.choice(what)}." for _ in range(count)
    )


@pytest.fixture(scope="session")
def text():
    return write_words(1500, seed=0)


@pytest.fixture(scope="session")
def tokenizer(text):
    return train_bpe([text], 300)


@pytest.fixture(scope="session")
def tokens(tokenizer, text):
    return tokenize(tokenizer, [text], CONTEXT)


@pytest.fixture(scope="session")
def batches(tokens):
    return [batch.long() for batch in windows(tokens, CONTEXT)[:32].split(8)]


def make_llama(seed=0, **sizes):
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        initializer_range=0.3,  # far from linear
        **sizes,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


@pytest.fixture
def llama():
    return make_llama()


@pytest.fixture
def folder(llama, tokenizer, tmp_path):
    """The model as ``save_pretrained`` writes it."""
    llama.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"
