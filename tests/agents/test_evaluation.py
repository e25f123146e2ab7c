import numpy as np
import pandas as pd
import pytest
import torch

from rlbilinear.agents import Agent
from rlbilinear.agents.evaluation import (
    BASELINES,
    by_level,
    evaluate,
    start_levels,
    summary,
    uniform_actions,
    uniform_moves,
)
from rlbilinear.envs import Heist, Maze, ProcgenVecEnv, expert_moves, shortest_path, unplayable
from rlbilinear.envs.heist_guide import HeistGuide, expert_actions
from rlbilinear.envs.simulator import import_procgen

LEVELS = range(1_000, 1_016)


@pytest.mark.parametrize("game", ["maze", "heist", "coinrun", "starpilot"])
def test_start_levels_shows_what_a_simulator_of_that_level_shows(game):
    env = ProcgenVecEnv(game, 3, seed=5)
    levels = [777, 12, 777]
    observations = start_levels(env, levels)
    for level, observation in zip(levels, observations, strict=True):
        alone = ProcgenVecEnv(game, 1, num_levels=1, start_level=level)
        assert np.array_equal(alone.reset()[0], observation)
        alone.close()
    env.close()


def test_mazes_are_those_of_their_seeds():
    frame = evaluate(uniform_moves, range(20), game="maze", progress=False)
    for row in frame.itertuples():
        maze = Maze.from_seed(row.level)
        assert row.shortest == len(shortest_path(maze, maze.mouse, maze.cheese[0])) - 1
    assert (frame["steps"] >= frame["shortest"])[frame["success"]].all()
    assert ((frame["return"] == 10) == frame["success"]).all()
    assert (frame["steps"][~frame["success"]] == 500).all()
    solved = frame["success"] & (frame["steps"] <= 2 * frame["shortest"] + 10)
    assert (frame["solved"] == solved).all()


def test_the_shortest_path_expert_solves_every_maze_in_the_shortest_way():
    policy = ExpertPolicy(LEVELS)
    frame = evaluate(policy, LEVELS, game="maze", greedy=True, chunk=16, progress=False)
    assert frame["level"].tolist() == list(LEVELS)
    assert frame["solved"].all()
    assert (frame["steps"] == frame["shortest"]).all()


class ExpertPolicy:
    """Finds the state by its picture: knows the way from every cell of its levels."""

    def __init__(self, levels):
        self.moves = {}
        for level in levels:
            maze = Maze.from_seed(level)
            env = ProcgenVecEnv("maze", len(maze.free_cells()))
            cells = maze.free_cells()
            way = expert_moves(maze, maze.cheese[0])
            for facing in ("left", "right"):
                states = [maze.with_mouse(cell).with_facing(facing).to_bytes() for cell in cells]
                env.set_states(states)
                for cell, picture in zip(cells, env.observe(), strict=True):
                    self.moves[picture.tobytes()] = way[cell]
            env.close()

    def __call__(self, observations):
        action = {0: 1, 1: 3, 2: 5, 3: 7}
        logits = torch.zeros(len(observations), 15)
        for row, picture in enumerate(observations):
            logits[row, action[int(self.moves[picture.tobytes()])]] = 1.0
        return logits


def test_heists_are_measured_by_their_expert():
    frame = evaluate(HeistExpert(LEVELS), LEVELS, game="heist", greedy=True, progress=False)
    assert frame["solved"].all() and (frame["return"] == 10).all()
    assert (frame["steps"] == frame["shortest"]).all()
    aimless = evaluate(uniform_actions, LEVELS, game="heist", progress=False)
    assert (aimless["shortest"] == frame["shortest"]).all()
    assert 0 < aimless["success"].mean() < 1
    soon = aimless["steps"] <= 2 * aimless["shortest"] + 10
    assert (aimless["solved"] == aimless["success"] & soon).all()
    assert "solved" in summary(aimless).index


class HeistExpert:
    """Acts as the expert in levels that it follows from their start."""

    def __init__(self, levels):
        self.playing = np.arange(len(levels))
        self.guide = HeistGuide(len(levels), 9)
        for index, level in enumerate(levels):
            self.guide.put(index, Heist.from_seed(level))

    def __call__(self, observations):
        actions = expert_actions(self.guide.right)
        logits = torch.eye(15)[actions[self.playing]]
        arrived = self.guide.step(actions)
        self.playing = self.playing[~arrived[self.playing]]
        return logits


def test_results_do_not_depend_on_what_is_played_beside():
    wide = evaluate(uniform_actions, LEVELS, game="maze", chunk=16, progress=False)
    narrow = evaluate(uniform_actions, LEVELS, game="maze", chunk=7, progress=False)
    pd.testing.assert_frame_equal(wide, narrow)
    part = evaluate(uniform_actions, list(LEVELS)[5:8], game="maze", progress=False)
    pd.testing.assert_frame_equal(wide.iloc[5:8].reset_index(drop=True), part)
    other = evaluate(uniform_actions, LEVELS, game="maze", seed=1, progress=False)
    assert not (other["steps"] == wide["steps"]).all()


def test_baselines_reach_the_published_returns():
    expected = {"uniform over 15 actions": 3.9, "uniform over 4 moves": 5.6}
    for name, policy in BASELINES.items():
        frame = evaluate(policy, range(10_000, 10_120), game="maze", progress=False)
        table = summary(frame)
        low, high = table.loc["return", ["low", "high"]]
        assert low < expected[name] < high
        assert table.loc["solved", "mean"] < table.loc["success", "mean"]


def test_agents_play_sampled_and_greedy():
    agent = Agent.new("impala-compact", game="leaper")
    sampled = evaluate(agent, range(2), progress=False)
    assert list(sampled.columns) == [
        "level",
        "episode",
        "return",
        "steps",
        "success",
        "unplayable",
    ]
    assert ((sampled["return"] > 0) == sampled["success"]).all()
    greedy = [evaluate(agent, range(1), greedy=True, seed=s, progress=False) for s in (0, 1)]
    pd.testing.assert_frame_equal(*greedy)


def test_each_level_is_played_so_many_times():
    levels = [1_005, 3, 1_001]
    frame = evaluate(uniform_moves, levels, game="maze", episodes=3, progress=False)
    assert frame[["level", "episode"]].values.tolist() == [
        [level, episode] for level in levels for episode in range(3)
    ]
    once = evaluate(uniform_moves, levels, game="maze", progress=False)
    pd.testing.assert_frame_equal(frame[frame["episode"] == 0].reset_index(drop=True), once)
    assert frame.groupby("level")["steps"].nunique().max() > 1, "with chances of their own"
    narrow = evaluate(uniform_moves, levels, game="maze", episodes=3, chunk=2, progress=False)
    pd.testing.assert_frame_equal(frame, narrow)
    table = by_level(frame)
    assert table["level"].tolist() == levels and table["episodes"].tolist() == [3, 3, 3]
    for row in table.itertuples():
        own = frame[frame["level"] == row.level]
        assert row.steps == pytest.approx(own["steps"].mean())
        assert row.success == pytest.approx(own["success"].mean())
    assert by_level(once)["steps"].tolist() == once["steps"].tolist()


def test_intervals_resample_levels_however_many_episodes_each_has():
    frame = pd.DataFrame(
        {
            "level": np.repeat(np.arange(100), 50),
            "return": np.repeat(np.arange(100) % 2 * 10.0, 50),
            "success": np.repeat(np.arange(100) % 2 == 1, 50),
            "unplayable": np.repeat(np.arange(100) < 7, 50),
        }
    )
    table = summary(frame)
    assert (table["levels"] == 100).all() and (table["episodes"] == 5_000).all()
    assert (table["unplayable"] == 7).all()
    pd.testing.assert_frame_equal(
        table.drop(columns="episodes"), summary(frame[::50])[table.columns.drop("episodes")]
    )
    assert table.loc["return", "high"] - table.loc["return", "low"] > 1.5


def test_unplayable_levels_are_marked_and_left_out_for_all_alike():
    levels = [4, 5, 9, 11, 15]
    lost = [5, 11, 15]
    assert unplayable("jumper", levels).tolist() == [level in lost for level in levels]
    for policy, greedy in ((uniform_actions, False), (uniform_moves, True)):
        play = {"game": "jumper", "greedy": greedy, "progress": False}
        frame = evaluate(policy, levels, **play)
        assert frame[frame["unplayable"]]["level"].tolist() == lost
        assert (frame[frame["unplayable"]][["return", "steps"]] == [0, 1]).all(axis=None)
        without = evaluate(policy, levels, skip_unplayable=True, **play)
        kept = frame[~frame["unplayable"]].reset_index(drop=True)
        pd.testing.assert_frame_equal(without, kept)
    with pytest.raises(ValueError, match=r"all levels are unplayable and left out: \[5, 11\]"):
        evaluate(uniform_actions, [5, 11], game="jumper", skip_unplayable=True)


@pytest.mark.parametrize("game", ["miner", "bossfight", "fruitbot", "leaper"])
def test_levels_are_played_as_procgen_itself_begins_them(game):
    """Each episode's return and length, by the same actions in an environment of that level."""
    levels = [5, 7, 300]
    frame = evaluate(uniform_actions, levels, game=game, seed=3, chunk=2, progress=False)
    for row in frame.itertuples():
        stock = import_procgen().ProcgenGym3Env(
            num=1,
            env_name=game,
            start_level=row.level,
            num_levels=1,
            distribution_mode="easy",
            num_threads=0,
        )
        noise = np.random.default_rng([3, row.level])
        reward, steps, over = 0.0, 0, False
        while not over:
            stock.act(noise.gumbel(size=15).argmax(keepdims=True).astype(np.int32))
            rewards, _, first = stock.observe()
            reward, steps, over = reward + float(rewards[0]), steps + 1, bool(first[0])
        assert (frame.loc[row.Index, "return"], row.steps) == (pytest.approx(reward), steps)
        stock.close()


def test_summary_interval_is_the_means():
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "level": range(400),
            "return": random.normal(3, 2, 400),
            "success": random.random(400) < 0.5,
            "unplayable": False,
        }
    )
    table = summary(frame)
    assert table.loc["return", "mean"] == pytest.approx(frame["return"].mean())
    half = 1.96 * frame["return"].std() / 20
    width = (table.loc["return", "high"] - table.loc["return", "low"]) / 2
    assert width == pytest.approx(half, rel=0.1)
    assert (table["levels"] == 400).all()


def test_bad_arguments_are_refused():
    def play(levels=(1,), **arguments):
        return evaluate(uniform_actions, levels, game="maze", **arguments)

    with pytest.raises(ValueError, match=r"different levels, at least one; got 1 twice"):
        play([2, 1, 1])
    with pytest.raises(ValueError, match="different levels, at least one; got none"):
        play([])
    for wrong in (2**31, 2**31 - 1, -1, 1.5, "12", True, None):
        with pytest.raises(ValueError, match=rf"level seeds are 0\.\.2147483646, got {wrong!r}"):
            play([3, wrong])
    for wrong in (7, "345", b"3", None):
        with pytest.raises(ValueError, match="levels are level seeds, such as range"):
            play(wrong)
    for wrong in (0, -1, 1.5, "2", True):
        with pytest.raises(
            ValueError, match=f"episodes must be an integer from 1 on, got {wrong!r}"
        ):
            play(episodes=wrong)
        with pytest.raises(ValueError, match=f"chunk must be an integer from 1 on, got {wrong!r}"):
            play(chunk=wrong)
    for wrong in (-1, 0.5, None):
        with pytest.raises(ValueError, match=f"seed must be an integer from 0 on, got {wrong!r}"):
            play(seed=wrong)
    with pytest.raises(ValueError, match=r"maze has no mode 'extreme'; choose one of easy"):
        play(mode="extreme")
    with pytest.raises(ValueError, match=r"'maze-bimpala' is neither a folder nor an agent of the"):
        evaluate("maze-bimpala", [1], game="maze")
    with pytest.raises(ValueError, match=r"expected an Agent or a function .* got 3"):
        evaluate(3, [1], game="maze")
    with pytest.raises(ValueError, match="needs game="):
        evaluate(uniform_actions, [1])
    with pytest.raises(ValueError, match=r"unknown game 'mazes'.*maze"):
        evaluate(uniform_actions, [1], game="mazes")
    for wrong in ("", 5, ["maze"]):
        with pytest.raises(ValueError, match="unknown game"):
            evaluate(Agent.new("impala-compact", game="leaper"), [1], game=wrong)


def test_an_agent_is_asked_once_about_each_picture(monkeypatch):
    agent = Agent.new("bimpala-compact", seed=1, channels=6, blocks=(1, 1), features=8)
    asked = []
    logits = Agent.logits

    def counted(self, observations, **options):
        asked.extend(each.tobytes() for each in observations)
        return logits(self, observations, **options)

    forgetful = evaluate(agent.logits, range(6), game="maze", progress=False)
    monkeypatch.setattr(Agent, "logits", counted)
    remembered = evaluate(agent, range(6), progress=False)
    pd.testing.assert_frame_equal(remembered, forgetful)
    assert len(asked) == len({*asked}) < remembered["steps"].sum() / 2
