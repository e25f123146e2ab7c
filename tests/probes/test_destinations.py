"""Bias maps for every cell: what they are, and the ways to send that are set beside them."""

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from rlbilinear.agents import Agent
from rlbilinear.agents.edits.directions import steer
from rlbilinear.envs import FITTING, Cell, Maze, expert_moves, observe
from rlbilinear.probes.destinations import (
    Way,
    along_map,
    anywhere,
    by_own_difference,
    first_moves,
    fit_maps,
    in_channels,
    load_maps,
    save_maps,
    turned,
    ways_to_send,
    written_along,
)
from rlbilinear.probes.destinations_table import (
    destinations_figure,
    destinations_summary,
    send_everywhere,
)
from rlbilinear.probes.sending import by_edit, errands

LAYER = "pool1"


@pytest.fixture(scope="module")
def agent():
    return Agent.new("bimpala-compact", seed=1, channels=4, blocks=(1, 1), features=8)


@pytest.fixture(scope="module")
def maps(agent):
    return fit_maps(agent, LAYER, levels=30, per_cell=2)


@pytest.fixture
def errand():
    maze = Maze.from_seed(5)
    return errands(maze)[7]


def test_maps_are_kept_in_a_file(maps, tmp_path):
    save_maps(tmp_path / "maps.safetensors", maps, LAYER)
    found, layer = load_maps(tmp_path / "maps.safetensors")
    assert layer == LAYER and {*found} == {*maps}
    assert all(torch.equal(found[cell], maps[cell]) for cell in maps)
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    (tmp_path / "text").write_text("no tensors")
    for name, said in (("other.safetensors", "has no maps"), ("text", "is not a safetensors file")):
        with pytest.raises(ValueError, match=said):
            load_maps(tmp_path / name)
    with pytest.raises(OSError, match="nowhere"):
        load_maps(tmp_path / "nowhere")


def test_a_map_moves_the_cheese_as_an_edit_of_weights_does(agent, maps, errand):
    """Planted at the target, and the maze's own taken away."""
    (own,) = errand.maze.cheese
    steered = steer(agent, LAYER, 1.5 * (maps[errand.target] - maps[own]))
    sender = by_edit(agent, LAYER, along_map(maps, 1.5))([errand.maze], [errand])
    found = sender(np.array([0]), np.array([0]))
    torch.testing.assert_close(found, steered.logits(observe([errand.maze])), atol=1e-4, rtol=1e-4)


def test_patched_channels_say_the_target_and_nothing_of_the_maze(maps, errand):
    outputs, mean = torch.randn(2, 4, 16, 16), torch.randn(4, 16, 16)
    found = in_channels(maps, [2, 0], mean, 4.0)(outputs, [errand, errand])
    assert torch.equal(found[:, [1, 3]], outputs[:, [1, 3]])
    expected = mean + 4 * maps[errand.target]
    for channel in (0, 2):
        torch.testing.assert_close(found[0, channel], expected[channel])
        assert torch.equal(found[0, channel], found[1, channel])


def test_all_of_the_own_difference_is_the_real_cheese(agent, errand):
    sender = by_own_difference(agent, LAYER, torch.eye(4))([errand.maze], [errand])
    shown = observe([errand.maze.with_cheese(errand.target)])
    found = sender(np.array([0]), np.array([0]))
    torch.testing.assert_close(found, agent.logits(shown), atol=1e-4, rtol=1e-4)


def test_first_moves_are_scored_by_the_experts():
    mazes = [maze.with_cheese() for maze in anywhere(FITTING.first(12), 0)]

    def expert(states, wanted):
        def logits(at, on):
            found = torch.zeros(len(at), 15)
            for row, (state, index) in enumerate(zip(at, on, strict=True)):
                move = expert_moves(states[state], wanted[index].target)[states[state].mouse]
                found[row, {0: 1, 1: 3, 2: 5, 3: 7}[int(move)]] = 9.0
            return found

        return logits

    assert first_moves(expert, mazes) == 1
    assert first_moves(lambda *_: lambda at, on: torch.zeros(len(at), 15), mazes) < 0.6


def test_controls_are_as_large_as_the_maps(maps):
    rotation = torch.linalg.qr(torch.randn(4, 4)).Q
    one, other = torch.linalg.qr(torch.randn(4, 4)).Q.split(2)
    for change in [*maps.values()][::40]:
        sizes = turned(rotation, change).norm(dim=0)
        torch.testing.assert_close(sizes, change.norm(dim=0), atol=1e-5, rtol=1e-5)
        written = written_along(other, one, change)
        torch.testing.assert_close(written.norm(), change.norm())
        assert torch.einsum("kc,chw->khw", one, written).abs().max() < 1e-5 * change.norm()


def test_everything_is_compared_and_kept(agent, maps, tmp_path):
    ways = ways_to_send(agent, LAYER, maps, tuned=20)
    assert ways["maps"].gain in (0.75, 1, 1.25, 1.5) and ways["not sent"].gain is None
    chosen = {name: ways[name] for name in ("a real cheese", "maps", "not sent")}
    sent = send_everywhere(chosen, 2, tmp_path / "sent", {"seed": 0}, progress=False)

    def broken(*_):
        raise AssertionError("it is there already")

    again = {name: Way(broken, way.cheese) for name, way in chosen.items()}
    pd.testing.assert_frame_equal(
        send_everywhere(again, 2, tmp_path / "sent", {"seed": 0}, progress=False), sent
    )
    with pytest.raises(ValueError, match="was made with other settings"):
        send_everywhere(again, 2, tmp_path / "sent", {"seed": 1}, progress=False)
    assert not sent.query("way == 'a real cheese' and maze == 'own cheese'").size
    summary = destinations_summary(sent)
    assert len(summary) == 5 and (summary["mazes"] == 2).all()
    assert destinations_figure(sent, summary).axes


def test_shares_are_of_mazes_and_of_what_a_real_cheese_reaches_on_the_same_errands():
    def rows(way, side, reached):
        return pd.DataFrame(
            {
                "level": [1, 1, 1, 2],
                "row": [1, 2, 3, 1],
                "column": 1,
                "distance": 4,
                "reached": reached,
                "eaten": 0.0,
                "finite": 1.0,
                "way": way,
                "maze": side,
            }
        )

    sent = pd.concat(
        [
            rows("a real cheese", "no cheese", [1.0, 1, 0, 1]),
            rows("maps", "no cheese", [1.0, 0, 0, 1]),
            rows("maps", "own cheese", [1.0, 0, 0, 0]).iloc[[0, 1, 3]],
        ]
    )
    found = destinations_summary(sent).set_index(["maze", "way"])
    assert found.loc[("no cheese", "maps"), "reached"] == pytest.approx((1 / 3 + 1) / 2)
    assert found.loc[("no cheese", "maps"), "of_real"] == pytest.approx(2 / 3)
    assert found.loc[("own cheese", "maps"), "of_real"] == pytest.approx(1 / 3)
    low, high = found.loc[("no cheese", "maps"), ["of_real_low", "of_real_high"]]
    assert low == pytest.approx(1 / 2) and high == 1  # the share of one maze, and of the other


def test_the_mouse_is_put_anywhere_but_on_the_cheese():
    mazes = anywhere(FITTING.first(40), 3)
    assert all(maze.mouse not in maze.cheese for maze in mazes)
    assert sum(maze.mouse != Maze.from_seed(maze.level_seed).mouse for maze in mazes) > 20
    assert isinstance(mazes[0].mouse, Cell)
