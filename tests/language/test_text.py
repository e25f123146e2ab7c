import gzip
import json

import huggingface_hub
import pytest
import torch

from rlbilinear.language.text import (
    random_windows,
    read_corpus,
    sample,
    spread,
    tokenize,
    windows,
)


def test_the_end_of_every_document_is_held_out(tmp_path):
    (tmp_path / "b.txt").write_text("b" * 100)
    (tmp_path / "inner").mkdir()
    with gzip.open(tmp_path / "inner" / "a.md.gz", "wt") as file:
        file.write("a" * 40)
    (tmp_path / "picture.png").write_bytes(b"\xff")
    corpus = read_corpus([tmp_path], held_out=0.1)
    assert corpus.train == ("b" * 90, "a" * 36)
    assert corpus.held_out == ("b" * 10, "a" * 4)


def test_what_is_no_text_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no files ending in"):
        read_corpus([tmp_path])
    with pytest.raises(ValueError, match="neither a file, a folder, debian:PACKAGE nor hf:DATASET"):
        read_corpus([tmp_path / "nothing"])
    with pytest.raises(ValueError, match=r"'no-such-package' is not installed|needs dpkg"):
        read_corpus(["debian:no-such-package"])
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"a\.txt is not UTF-8"):
        read_corpus([tmp_path])
    with pytest.raises(ValueError, match="between 0 and 1"):
        read_corpus([tmp_path], held_out=1.0)


def test_datasets_of_the_hub_are_read_by_name(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    rows = [{"text": "one " * 20, "title": "a" * 40}, {"text": "two", "title": "b"}]
    folder = tmp_path / "stories"
    folder.mkdir()
    (folder / "stories.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = read_corpus([f"hf:{folder}"], held_out=0.1)
    assert corpus.train[0] + corpus.held_out[0] == f"{'one ' * 20}\n<|endoftext|>\ntwo"
    corpus = read_corpus([f"hf:{folder}:title"])
    assert corpus.train[0].startswith("a" * 40)
    with pytest.raises(ValueError, match=r"no column 'body'; choose from text, title"):
        read_corpus([f"hf:{folder}:body"])
    with pytest.raises(ValueError, match="cannot load the dataset nobody/nothing"):
        read_corpus(["hf:nobody/nothing"])


def test_text_shorter_than_a_context_is_refused(tokenizer):
    with pytest.raises(ValueError, match="shorter than one context of 100"):
        tokenize(tokenizer, ["the cat sees"], 100)
    with pytest.raises(ValueError, match="there is none"):
        tokenize(tokenizer, [], 4)
    with pytest.raises(ValueError, match="shorter than one context of 8"):
        windows(torch.arange(7), 8)


def test_tokens_give_the_text_back(tokenizer, text):
    assert tokenizer.decode(tokenize(tokenizer, [text[:500]], 8).tolist()) == text[:500]


def test_windows_follow_one_another():
    assert windows(torch.arange(7), 3).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert spread(torch.arange(10)[:, None], 3).flatten().tolist() in ([0, 4, 9], [0, 5, 9])
    assert len(spread(torch.arange(10)[:, None], 20)) == 10


def test_random_windows_are_the_same_for_the_same_step():
    tokens = torch.arange(100)
    one, two, three = (random_windows(tokens, 5, 8, step, seed=1) for step in (3, 3, 4))
    assert torch.equal(one, two) and not torch.equal(one, three)
    assert torch.equal(one - one[:, :1], torch.arange(5).expand(8, 5))
    assert random_windows(tokens, 100, 2, 0, seed=0).tolist() == [list(range(100))] * 2


def test_few_windows_of_a_long_text_are_sampled_evenly(tokenizer, text):
    """Each is the beginning of its piece of text; most of the text is not tokenised."""
    documents = [text, text.upper()]
    found = sample(tokenizer, documents, 8, 40)
    assert found.shape == (40, 8)
    parts = [tokenizer.decode(row) for row in found.tolist()]
    places = [(text + text.upper()).find(part) for part in parts]
    assert min(places) >= 0
    lower = sum(part in text for part in parts)
    assert 19 <= lower <= 21
    every = sample(tokenizer, documents, 8, 10_000)
    assert every.equal(windows(tokenize(tokenizer, documents, 8), 8))
    with pytest.raises(ValueError, match="3 pieces of 16 characters have no 2 tokens"):
        sample(lambda texts, **_: {"input_ids": [[1] for _ in texts]}, documents, 2, 3)
