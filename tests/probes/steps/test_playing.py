import pytest

from rlbilinear.envs import EVALUATION, Maze, decision_square
from rlbilinear.probes.behaviour import decision, field
from rlbilinear.probes.effects import edit_direction
from rlbilinear.probes.steps.playing import decisions


def test_decisions_are_those_of_the_whole_field(study):
    edited = edit_direction(study, study.directions["difference"], -2.0)
    table = decisions({"original": study.agent, "edited": edited}, 4)
    assert table.groupby("agent").size().to_dict() == {"original": 4, "edited": 4}
    levels = table.loc[table["agent"] == "original", "level"].tolist()
    mazes = [Maze.from_seed(level) for level in EVALUATION.first(max(levels) + 1)]
    assert levels == [maze.level_seed for maze in mazes if decision_square(maze) is not None]
    for name, agent in (("original", study.agent), ("edited", edited)):
        rows = table[table["agent"] == name].set_index("level")
        for level in levels:
            found = decision(field(agent, mazes[level]))
            row = rows.loc[level]
            assert row["towards cheese"] == pytest.approx(found.towards_cheese, abs=1e-5)
            assert row["towards top right"] == pytest.approx(found.towards_corner, abs=1e-5)
    assert table["towards cheese"].nunique() == len(table)
