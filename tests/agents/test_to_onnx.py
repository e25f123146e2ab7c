"""Agents written as ONNX files compute the same under onnxruntime."""

import numpy as np
import pytest
import torch

from rlbilinear.agents import ARCHITECTURES, Agent, load
from rlbilinear.agents import to_onnx as module

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
pytest.importorskip("onnxscript", reason="the extra `onnx` is not installed")


def run(file, observations):
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(["logits", "values"], {"observations": observations})


@pytest.mark.parametrize("architecture", ["bimpala-compact", "impala", "polynomial"])
def test_outputs_are_the_agents_for_any_batch(architecture, tmp_path):
    agent = Agent.new(architecture, seed=1)
    file = agent.to_onnx(tmp_path / "agent.onnx")
    for count in (1, 7):
        observations = np.random.default_rng(count).integers(
            0, 256, (count, 3, 64, 64), dtype=np.uint8
        )
        logits, values = run(file, observations)
        ours = agent.logits(observations).numpy()
        np.testing.assert_allclose(logits, ours, atol=1e-5 * max(1, np.abs(ours).max()))
        assert values.shape == (count, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["agent.onnx"]  # all in one file
    assert architecture in ARCHITECTURES


def test_a_trained_agent_takes_the_same_actions(tmp_path):
    agent = load("maze-bimpala-compact", device="cpu")
    file = agent.to_onnx(tmp_path / "agent.onnx")
    observations = np.random.default_rng(0).integers(0, 256, (8, 3, 64, 64), dtype=np.uint8)
    logits, _ = run(file, observations)
    ours = agent.logits(observations).numpy()
    np.testing.assert_allclose(logits, ours, atol=1e-4 * np.abs(ours).max())
    np.testing.assert_array_equal(
        logits.argmax(1), agent.predict(observations, deterministic=True)[0]
    )


def test_other_names_and_places_are_refused_before_the_work(tmp_path):
    agent = Agent.new("bimpala-compact", channels=4)
    (tmp_path / "there.onnx").touch()
    for name, kind, words in (
        ("agent", ValueError, "ends in .onnx"),
        ("there.onnx", FileExistsError, "exists"),
        ("no/agent.onnx", FileNotFoundError, "no folder"),
    ):
        with pytest.raises(kind, match=words):
            agent.to_onnx(tmp_path / name)


def test_a_file_that_computes_something_else_is_not_written(tmp_path, monkeypatch):
    agent = Agent.new("bimpala-compact", channels=4)
    monkeypatch.setattr(module, "TOLERANCE", -1.0)  # nothing is near enough
    with pytest.raises(FloatingPointError, match="other logits than the agent"):
        agent.to_onnx(tmp_path / "agent.onnx")
    assert list(tmp_path.iterdir()) == []
    assert torch.is_grad_enabled()
