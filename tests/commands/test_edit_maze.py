import importlib

import numpy as np
import pytest
from PIL import Image

from rlbilinear.agents import Agent
from rlbilinear.envs import Maze, vector_field
from rlbilinear.envs.editor import picture
from rlbilinear.envs.render import human_view
from rlbilinear.envs.text_overlays import arrows_text
from rlbilinear.probes.moves import move_probabilities


@pytest.fixture(scope="module")
def script():
    return importlib.import_module("rlbilinear.commands.edit_maze")


def drawn(path):
    return np.asarray(Image.open(path))


def names(folder):
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize("mode", ["easy", "memory"])
def test_a_level_becomes_text_and_the_edited_text_a_picture(script, tmp_path, capsys, mode):
    out = tmp_path / "maze.txt"
    script.edit(script.MazeOptions(out, seed=3, mode=mode))
    level = Maze.from_seed(3, mode)
    assert Maze.load(out) == level and str(level) in capsys.readouterr().out
    np.testing.assert_array_equal(drawn(tmp_path / "maze.png"), human_view(level))
    text = out.read_text()
    out.write_text(text.replace("C ", "  ", 1).replace("M ", "MC"))
    script.edit(script.MazeOptions(out, seed=5))
    assert f"{out} exists and is not changed" in capsys.readouterr().out
    edited = level.with_cheese(level.mouse)
    assert Maze.load(out) == edited
    np.testing.assert_array_equal(drawn(tmp_path / "maze.png"), human_view(edited))
    assert names(tmp_path) == ["maze.png", "maze.txt"]


def test_an_agent_is_asked_in_every_cell(script, tmp_path, capsys):
    agent = Agent.new("bimpala-compact", seed=1, channels=4, blocks=(1, 1), features=8)
    agent.save(tmp_path / "agent")
    out, png = tmp_path / "maze.txt", tmp_path / "field.png"
    script.edit(script.MazeOptions(out, seed=3, picture=png, agent=str(tmp_path / "agent")))
    maze = Maze.from_seed(3)

    def policy(observations):
        return move_probabilities(agent, observations)

    np.testing.assert_array_equal(drawn(png), picture(maze, policy))
    assert (drawn(png) != human_view(maze)).any()
    assert arrows_text(maze, vector_field(maze, policy)) in capsys.readouterr().out


def test_watching_draws_each_change_and_survives_bad_text(script, tmp_path, capsys):
    out, png = tmp_path / "maze.txt", tmp_path / "maze.png"
    level = Maze.from_seed(3)
    seen = []

    def first(_):
        seen.append(drawn(png))
        level.with_cheese().save(out)

    def second(_):
        seen.append(drawn(png))
        out.write_text("##\nC?\n")

    def third(_):
        seen.append(drawn(png))
        out.unlink()

    def fourth(_):
        level.with_mouse(level.free_cells()[4]).save(out)

    def last(_):
        seen.append(drawn(png))
        raise KeyboardInterrupt

    steps = iter([lambda _: None, first, second, third, fourth, last])
    with pytest.raises(KeyboardInterrupt):
        script.edit(
            script.MazeOptions(out, seed=3, watch=True), lambda seconds: next(steps)(seconds)
        )
    expected = [
        level,
        level.with_cheese(),
        level.with_cheese(),
        level.with_mouse(level.free_cells()[4]),
    ]
    for picture_then, maze in zip(seen, expected, strict=True):
        np.testing.assert_array_equal(picture_then, human_view(maze))
    said = capsys.readouterr()
    assert "line 2" in said.err and "'C?'" in said.err and "was not changed" in said.err
    assert said.out.count("is drawn as") == 3


def test_watching_begins_with_text_that_is_to_be_mended(script, tmp_path, capsys):
    out = tmp_path / "maze.txt"
    out.write_text("no maze")

    def mend(_):
        Maze.from_seed(3).save(out)

    def stop(_):
        raise KeyboardInterrupt

    steps = iter([mend, stop])
    with pytest.raises(KeyboardInterrupt):
        script.edit(script.MazeOptions(out, watch=True), lambda seconds: next(steps)(seconds))
    assert "cells of two characters" in capsys.readouterr().err
    np.testing.assert_array_equal(drawn(tmp_path / "maze.png"), human_view(Maze.from_seed(3)))


def test_bad_input_is_named_and_leaves_no_file(script, tmp_path, ends):
    out = tmp_path / "maze.txt"
    for options, message in (
        (["--mode", "extreme"], "easy, hard, memory"),
        (["--agent", "no-such-agent"], "no-such-agent"),
        (["--agent", "coinrun-impala-small"], "coinrun-impala-small plays coinrun; give an agent"),
        (["--picture", out], "another name"),
        (["--seed", "-1"], "--seed: expected 0 or more, got -1"),
    ):
        assert message in ends(2, script.main, ["--out", str(out), *map(str, options)])
        assert names(tmp_path) == []
    out.write_text("####\n##M.\n")
    assert "maze.txt: " in ends(2, script.main, ["--out", str(out)])


def test_cells_cut_off_need_to_be_allowed(script, tmp_path):
    out = tmp_path / "maze.txt"
    out.write_text("C ##..\n######\n####M \n")
    with pytest.raises(ValueError, match="Cell"):
        script.edit(script.MazeOptions(out))
    script.edit(script.MazeOptions(out, allow_disconnected=True))
    assert drawn(tmp_path / "maze.png").shape == (512, 512, 3)
