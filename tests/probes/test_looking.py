import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from browser import after
from rlbilinear.envs import Maze, observe
from rlbilinear.envs.fields import vector_field
from rlbilinear.probes.looking import (
    ChannelPatch,
    channel_maps,
    map_layers,
    patched_field,
    write_page,
)
from rlbilinear.probes.moves import move_probabilities

MAZE = Maze.from_seed(3)


def test_maps_are_the_layers_own(bilinear_agent):
    expected = bilinear_agent.activations(observe([MAZE]), ["pool1"])["pool1"][0]
    assert np.array_equal(channel_maps(bilinear_agent, MAZE, "pool1"), expected.numpy())
    assert {"pool1", "block1"} <= set(map_layers(bilinear_agent, MAZE))
    assert "dense" not in map_layers(bilinear_agent, MAZE)


def test_the_field_is_that_of_an_agent_with_a_bias(bilinear_agent):
    """The patch as a position's bias in the weights, in place of a hook."""
    patch = ChannelPatch("pool1", 2, (1, 3), 40.0)
    shape = channel_maps(bilinear_agent, MAZE, "pool1").shape
    bias = torch.zeros(shape)
    bias[2, 1, 3] = 40.0

    class Biased(torch.nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return self.layer(x) + bias

    edited = bilinear_agent.with_layer("pool1", Biased(bilinear_agent.layer("pool1")))
    own, expected = (
        vector_field(MAZE, lambda seen, agent=agent: move_probabilities(agent, seen))
        for agent in (bilinear_agent, edited)
    )
    found = patched_field(bilinear_agent, MAZE, patch)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.nanmax(np.abs(found - own)) > 1e-3
    none = patched_field(bilinear_agent, MAZE, ChannelPatch("pool1", 0, (0, 0), 0.0))
    np.testing.assert_allclose(none, own, atol=1e-6)


def test_the_page_holds_everything(bilinear_agent, tmp_path):
    page = write_page(
        tmp_path / "page.html", bilinear_agent, MAZE, "pool1", [2],
        places=[(1, 3)], strengths=[40.0], title="Look <here>",
    )  # fmt: skip
    text = page.read_text()
    assert "<h1>Look &lt;here&gt;</h1>" in text and "://" not in text
    data = json.loads(re.search(r'id="data">(.*)</script>', text)[1])
    np.testing.assert_allclose(data["maps"], channel_maps(bilinear_agent, MAZE, "pool1"), atol=1e-4)
    field = patched_field(bilinear_agent, MAZE, ChannelPatch("pool1", 2, (1, 3), 40.0))
    for row, column, *step in data["fields"]["2,1,3,40"]:
        assert step == pytest.approx(field[row, column], abs=1e-3)
    with pytest.raises(FileExistsError):
        write_page(page, bilinear_agent, MAZE, "pool1", [2])


def test_dragging_on_the_page_adds_the_number(bilinear_agent, tmp_path):
    page = write_page(
        tmp_path / "page.html", bilinear_agent, MAZE, "pool1", [2],
        places=[(1, 3), (12, 12)], strengths=[-40.0, 40.0],
    )  # fmt: skip
    own, field = (
        patched_field(bilinear_agent, MAZE, ChannelPatch("pool1", 2, (1, 3), strength))
        for strength in (0.0, 40.0)
    )
    change = np.nanmean(np.linalg.norm(field - own, axis=2))
    script = """
      const map = get("map"), box = map.getBoundingClientRect();
      const at = { clientX: box.left + 60, clientY: box.top + 30 };
      map.dispatchEvent(new PointerEvent("pointerdown", at));
      const said = [get("strength").value, get("says").textContent];
      get("channel").value = "1"; get("channel").dispatchEvent(new Event("change"));
      return [...said, get("strength").disabled, get("says").textContent];"""
    failures, (strength, says, disabled, then) = json.loads(after(tmp_path, page, script))
    assert not failures and strength == "40" and disabled and "no fields were computed" in then
    assert "channel 2 at row 1, column 3" in says
    assert float(re.search(r"changes by ([\d.]+) cells", says)[1]) == pytest.approx(
        change, abs=0.01
    )


def test_refusals(bilinear_agent, tmp_path):
    for nothing in ({"places": []}, {"strengths": []}):
        with pytest.raises(ValueError, match="a place and a strength"):
            write_page(tmp_path / "page.html", bilinear_agent, MAZE, "pool1", [2], **nothing)
    assert not [*tmp_path.iterdir()]
    with pytest.raises(ValueError, match="dense gives no maps; choose from"):
        channel_maps(bilinear_agent, MAZE, "dense")
    with pytest.raises(ValueError, match="pool1 has 6 channels of"):
        patched_field(bilinear_agent, MAZE, ChannelPatch("pool1", 6, (0, 0), 1.0))


def test_the_viewer_draws_what_is_chosen(bilinear_agent):
    pytest.importorskip("ipywidgets", reason="the viewer needs the extra `notebook`")
    from rlbilinear.probes.notebook import ActivationViewer

    viewer = ActivationViewer(bilinear_agent, MAZE)
    first = viewer.image.value
    assert Image.open(io.BytesIO(first)).size[0] > 500
    viewer.strength.value = 4.0
    patched = viewer.image.value
    assert patched != first
    viewer.row.value = 2
    assert viewer.image.value != patched and viewer.patch.place == (2, 0)
    last = viewer.layer.options[-1]
    viewer.layer.value = last
    assert viewer.patch.layer == last
    assert viewer.channel.max == channel_maps(bilinear_agent, MAZE, last).shape[0] - 1
