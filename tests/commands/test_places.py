"""Every command refuses a place that it could not write to, before it looks for its agent."""

import importlib

import pytest

from rlbilinear.commands.main import SUBCOMMANDS

WORDS = {
    "train": ["--out={}"],
    "distill": ["--out={}"],
    "compare": ["--out={}", "--games", "maze", "--architectures", "impala-small", "--seeds", "0"],
    "evaluate": ["nobody", "--out={}"],
    "validate": ["--agent", "nobody", "--out={}"],
    "atlas": ["--agents", "nobody", "--out={}"],
    "baselines": ["--agents", "nobody", "--out={}"],
    "verdicts": ["nowhere", "--out={}"],
    "along": ["nowhere", "--out={}"],
    "decompose": ["--agent", "nobody", "--out={}"],
    "send": ["--agent", "nobody", "--out={}"],
    "steer": ["--agent", "nobody", "--out={}"],
    "polynomial": ["--out={}"],
    "images": ["--out={}"],
    "maze": ["--out={}"],
    "publish": ["nobody", "--out={}", "--about=a", "--hardware=b"],
    "exactness": ["--agent", "nobody", "--out={}"],
    "benchmark": ["startup", "--out={}"],
    "gpu": ["--out={}", "--tiny", "--minutes=0.001"],
}
ELSEWHERE = {"view", "language", "agents", "doctor", "fuzz"}
"""Commands that write nothing, or read first what they write about."""


def command(name):
    return importlib.import_module(f"rlbilinear.commands.{SUBCOMMANDS[name].module}").main


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")


def test_every_command_is_tried():
    assert WORDS.keys() | ELSEWHERE >= SUBCOMMANDS.keys()


@pytest.mark.parametrize("place", ["file/out", "/dev/null/out"])
@pytest.mark.parametrize("name", WORDS)
def test_a_place_below_a_file_is_refused(ends, tmp_path, name, place):
    words = [word.format(place) for word in WORDS[name]]
    said = ends(1, command(name), words, f"rlbilinear {name}")
    assert "not a folder" in said or "Not a directory" in said
    assert place in said
    assert {path.name for path in tmp_path.iterdir()} == {"file"}
