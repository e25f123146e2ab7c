"""The maze to click in: its numbers are those of agents edited in their weights."""

import base64
import json

import numpy as np
import pytest

from browser import after
from rlbilinear.agents.edits.directions import steer
from rlbilinear.envs import Cell, Maze
from rlbilinear.probes.behaviour import field
from rlbilinear.probes.page import ReportFolder, page
from rlbilinear.probes.page_steering import large_maze, steered_maze
from rlbilinear.probes.planting import along
from rlbilinear.probes.retargeting import cheese_maps

GAINS = (1.0, 2.0)


@pytest.fixture(scope="module")
def maze():
    return next(m for m in map(Maze.from_seed, range(100)) if 8 < len(m.free_cells()) < 30)


@pytest.fixture(scope="module")
def steering(study, maze):
    return steered_maze(study, maze, GAINS)


def blocks(steering):
    count = len(steering["cells"])
    numbers = np.frombuffer(base64.b64decode(steering["probabilities"]), np.uint8)
    return numbers.reshape(-1, count, 5) / 255


def test_probabilities_are_those_of_agents_with_edited_weights(study, maze, steering):
    found, empty = blocks(steering), maze.with_cheese()
    assert len(found) == 1 + 3 * len(GAINS) * len(steering["targets"])
    np.testing.assert_allclose(found[0], field(study.agent, empty).probabilities, atol=3e-3)
    levels = [Maze.from_seed(level) for level in np.unique(study.fit.levels).tolist()]
    maps = cheese_maps(study.agent, study.layer, levels, seed=study.seed)
    for d, name in enumerate(steering["directions"]):
        for g, gain in enumerate(GAINS):
            for t in (0, len(steering["targets"]) - 1):
                target = Cell(*steering["targets"][t])
                bias = gain * along(maps[target].double(), study.directions[name])
                edited = steer(study.agent, study.layer, bias.float())
                expected = field(edited, empty).probabilities
                block = 1 + (d * len(GAINS) + g) * len(steering["targets"]) + t
                np.testing.assert_allclose(found[block], expected, atol=3e-3)


def test_a_maze_without_a_known_target_is_refused(study, monkeypatch):
    monkeypatch.setattr("rlbilinear.probes.page_steering.cheese_maps", lambda *a, **k: {})
    with pytest.raises(ValueError, match="no cell of this maze had cheese"):
        steered_maze(study, Maze.from_seed(0))


def test_a_large_maze_is_held_out_and_large():
    maze = large_maze()
    assert len(maze.free_cells()) > 30 and maze.level_seed < 1000


def test_clicking_a_cell_sends_the_agent_along_its_likeliest_moves(steering, tmp_path):
    file = tmp_path / "page.html"
    file.write_text(page(ReportFolder("Steer", "", {}, {}, {}), steering))
    target = steering["targets"][0]
    said = after(
        tmp_path,
        file,
        f"""
        const place = document.getElementById("steering");
        const [direction, gain] = place.querySelectorAll("select");
        direction.value = "pattern"; direction.dispatchEvent(new Event("change"));
        gain.value = "2"; gain.dispatchEvent(new Event("change"));
        const cell = place.querySelector('[data-cell="{target[0]},{target[1]}"]');
        cell.dispatchEvent(new Event("click"));
        const steered = place.querySelector("p").textContent;
        place.querySelector("button").click();
        return [steered, place.querySelector("p").textContent];
        """,
    )
    failures, (steered, unsteered) = json.loads(said)
    assert failures == []
    t, count = 0, len(steering["targets"])
    block = 1 + (steering["directions"].index("pattern") * len(GAINS) + 1) * count + t
    assert f"row {target[0]}, column {target[1]}, along the pattern direction, 2 times" in steered
    end = walk(steering, blocks(steering)[block], target)
    arrives = "it arrives" if end == target else "it does not arrive"
    assert f"to row {end[0]}, column {end[1]}: {arrives}." in steered
    end = walk(steering, blocks(steering)[0], None)
    assert unsteered.endswith(f"to row {end[0]}, column {end[1]}.")


def walk(steering, probabilities, target):
    """Follow the most likely moves from the start to the target, a wall, or a cell seen before."""
    at, seen = steering["start"], []
    while at not in seen and at != target:
        seen.append(at)
        up, right = steering["moves"][probabilities[steering["cells"].index(at)].argmax()]
        step = [at[0] + up, at[1] + right]
        if step not in steering["cells"]:
            return at
        at = step
    return at
