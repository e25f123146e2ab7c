import numpy as np
import torch

from rlbilinear import BilinearConv2d, agents
from rlbilinear.agents import Agent


def test_a_dilated_bilinear_convolution_is_stored(tmp_path):
    torch.manual_seed(0)
    dilated = BilinearConv2d(32, 32, 3, hidden_channels=4, padding=2, dilation=2)
    edited = Agent.new("bimpala-compact").with_layer("block3.bilinear", dilated)
    edited.save(tmp_path / "agent")
    loaded = agents.load(tmp_path / "agent", device="cpu")
    assert loaded.layer("block3.bilinear").left.dilation == (2, 2)
    observations = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64), np.uint8)
    assert torch.equal(loaded.logits(observations), edited.logits(observations))
