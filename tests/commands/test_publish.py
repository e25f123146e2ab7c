import importlib
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from rlbilinear.agents import Agent, load
from rlbilinear.agents.evaluation import evaluate
from rlbilinear.envs import EVALUATION

LEFT, RIGHT = 1, 7


@pytest.fixture(scope="module")
def publish():
    return importlib.import_module("rlbilinear.commands.publish")


@pytest.fixture
def trained(tmp_path):
    """The folder of an agent as training leaves it: its levels, frames and command are known.

    It plays alike on every machine, for it looks at nothing: it prefers right to left by less than
    half precision can tell, and what is stored goes left, the first of the two.
    """
    agent = Agent.new(
        "bimpala-small", game="fruitbot", seed=1, channels=4, blocks=(1, 1), features=8
    )
    head = agent.layer("action_net")
    with torch.no_grad():
        head.weight.zero_()
        head.bias[LEFT], head.bias[RIGHT] = 1.0, 1.0 + 2**-12
    made = {
        "options": {"levels": 3, "seed": 5},
        "command": "python train.py --out a --resume",
        "frames": 4096,
    }
    folder = tmp_path / "run" / "agent"
    Agent(agent.policy, replace(agent.config, made=made)).save(folder)
    return folder


def options(publish, source, out, **changes):
    settings = {"about": "It plays.", "hardware": "one core", "levels": 4, "progress": False}
    return publish.PublishOptions(str(source), out, **(settings | changes))


def means(agent, *, greedy):
    played = evaluate(agent, EVALUATION.first(4), greedy=greedy, progress=False)
    return {name: played[name].mean() for name in ("return", "success", "steps")}


def test_a_published_agent_has_the_scores_of_what_is_stored(publish, trained, tmp_path):
    out = tmp_path / "fruitbot-tiny"
    text = publish.publish(options(publish, trained, out))
    stored = load_file(out / "model.safetensors")
    assert all(weight.dtype == torch.float16 for weight in stored.values())
    made = json.loads((out / "config.json").read_text())["made"]
    assert made["frames"] == 4096 and made["hardware"]["training"] == "one core"
    assert made["scores"]["command"] == "rlbilinear evaluate fruitbot-tiny --levels 4"
    scores = made["scores"]
    assert scores["sampled"] == pytest.approx(means(load(out), greedy=False), abs=1e-4)
    assert scores["greedy"] == pytest.approx(means(load(out), greedy=True), abs=1e-4)
    unrounded = means(load(trained), greedy=True)
    returns = {scores["sampled"]["return"], scores["greedy"]["return"], unrounded["return"]}
    assert len(returns) == 3
    assert (out / "card.md").read_text() == text
    assert (
        text.startswith("# fruitbot-tiny\n\nIt plays. ") and "    python train.py --out a\n" in text
    )
    rows = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")]
    assert rows[2:] == [
        "| sampled",
        "| greedy",
        "| sampled, on 3 levels it was trained on",
        "| uniform over 15 actions",
        "| uniform over 4 moves",
    ]


def test_what_is_there_stays_unless_it_is_to_be_replaced(publish, trained, tmp_path):
    out = tmp_path / "agent"
    publish.publish(options(publish, trained, out))
    before = (out / "card.md").read_text()
    with pytest.raises(FileExistsError, match="agent"):
        publish.publish(options(publish, trained, out, about="Another."))
    assert (out / "card.md").read_text() == before
    publish.publish(options(publish, trained, out, about="Another.", overwrite=True))
    assert "Another." in (out / "card.md").read_text()


def test_weights_beyond_half_precision_are_refused_before_anything_is_written(
    publish, trained, tmp_path
):
    agent = load(trained)
    with torch.no_grad():
        agent.layer("action_net").weight[0, 0] = 1e6
    agent.save(tmp_path / "large")
    with pytest.raises(ValueError, match=r"not finite as torch\.float16.*action_net"):
        publish.publish(options(publish, tmp_path / "large", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_card_has_the_agents_own_mode_and_what_it_started_from(publish, trained, tmp_path):
    agent = load(trained)
    first = {"command": "python distill.py", "frames": 7000, "options": {"seed": 2}}
    before = {**agent.config.made, "from": first}
    made = {"options": {"mode": "hard", "seed": 8}, "command": "python train.py", "from": before}
    Agent(agent.policy, replace(agent.config, made=made)).save(tmp_path / "continued")
    out = tmp_path / "two"
    text = publish.publish(options(publish, tmp_path / "continued", out, levels=2))
    assert "`rlbilinear evaluate two --levels 2 --mode hard` computes" in text
    made = text[text.index("## How it was made") :]
    steps = ["python train.py", "It started", "python train.py --out a", "4,096 frames, seed 5."]
    steps += ["    python distill.py", "7,000 frames, seed 2."]
    places = [made.index(step) for step in steps]
    assert places == sorted(places)
    scores = json.loads((out / "config.json").read_text())["made"]["scores"]
    played = evaluate(load(out), EVALUATION.first(2), mode="hard", progress=False)
    assert scores["sampled"]["return"] == pytest.approx(played["return"].mean(), abs=1e-4)
