"""Every byte of a stored agent counts: one that changes is found, and nothing stored is run."""

import json
import os
import pickle

import numpy as np
import pytest
import torch

from rlbilinear import agents
from rlbilinear.agents import Agent, CheckpointError

MADE = {
    "command": "rlbilinear train --out run",
    "options": {"seed": 0, "learning_rate": 1e-05, "mode": "easy"},
    "frames": 7_000_064,
    "scores": {"sampled": {"return": 9.125}},
}


@pytest.fixture
def folder(tmp_path):
    agent = Agent.new("bimpala-small", channels=4, features=8)
    agent.config.made.clear()
    agent.config.made.update(MADE)
    agent.save(tmp_path / "agent")
    return tmp_path / "agent"


@pytest.fixture(autouse=True)
def nothing_is_run(monkeypatch):
    """Fail where anything could be unpickled or run that a file says."""

    def refuse(*_, **__):
        raise AssertionError("a file was run")

    for owner, name in ((pickle, "load"), (pickle, "loads"), (torch, "load"), (os, "system")):
        monkeypatch.setattr(owner, name, refuse)


@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_flipped_bit_is_found(folder, count):
    """A bit in each of so many bytes, in turn; JSON may say the same: ``1e-05`` and ``1E-05``."""
    files = {name: (folder / name).read_bytes() for name in ("config.json", "model.safetensors")}
    places = [(name, at) for name, data in files.items() for at in range(len(data))]
    rng, found = np.random.default_rng(0), 0
    for place in rng.choice(len(places), count, replace=False):
        (name, at), bit = places[place], int(rng.integers(8))
        data = bytearray(files[name])
        data[at] ^= 1 << bit
        (folder / name).write_bytes(data)
        if name == "config.json" and says(data) == says(files[name]):
            assert agents.load(folder, "cpu").config.made == MADE
        else:
            with pytest.raises(CheckpointError):
                agents.load(folder, "cpu")
                pytest.fail(f"bit {bit} of byte {at} in {name} may change")
            found += 1
        (folder / name).write_bytes(files[name])
    print(f"{found} of {count} flips found; {len(files['config.json'])} bytes are of config.json")
    assert found > 0.99 * count


def says(text):
    """Return what a document says, or nothing."""
    try:
        return json.loads(text)
    except ValueError:
        return None
