"""The protocol from end to end, by the library and by the script, on a small untrained agent."""

import importlib
import json
import re
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from rlbilinear import agents
from rlbilinear.envs import Maze
from rlbilinear.probes.report import VERDICTS
from rlbilinear.probes.steps.result import Claim
from rlbilinear.probes.study import Sizes
from rlbilinear.probes.validation import by_direction, judge, repeated_mazes, validate
from rlbilinear.statistics import holm

SIZES = {
    "levels": 5,
    "fit_levels": 10,
    "states_per_level": 2,
    "pairs_per_level": 1,
    "controls": 2,
    "steered_mazes": 2,
    "played_levels": 2,
}


@pytest.fixture(scope="module")
def report(bilinear_agent):
    return validate(
        bilinear_agent, layer="block2", sizes=Sizes(**SIZES), seed=3, name="small", progress=False
    )


@pytest.fixture(scope="module")
def folder(report, tmp_path_factory):
    folder = tmp_path_factory.mktemp("validation") / "run"
    report.save(folder)
    return folder


@pytest.fixture(scope="module")
def script():
    return importlib.import_module("rlbilinear.commands.validate_probe")


@pytest.fixture(scope="module")
def agent_folder(bilinear_agent, tmp_path_factory):
    folder = tmp_path_factory.mktemp("agents") / "small"
    bilinear_agent.save(folder)
    return folder


def test_repeated_mazes_are_counted():
    mazes = {level: Maze.from_seed(level) for level in range(40)}
    small = [level for level, maze in mazes.items() if len(maze.free_cells()) == 7]
    large = [level for level, maze in mazes.items() if len(maze.free_cells()) > 90]
    assert len(small) > 4 and len(large) > 2
    assert repeated_mazes(small[:1] + large, large) == len(large)
    assert repeated_mazes(large[:1], large) == 1
    first = mazes[small[0]].free_cells()
    same = [level for level in small if mazes[level].free_cells() == first]
    assert repeated_mazes(small[:1], small) == len(same)


def claim(name, effect, p, **kwargs):
    return Claim(name, effect, effect - 0.1, effect + 0.1, 0.0, p, 0.5, 0.1, "figure", **kwargs)


def test_claims_are_judged_by_corrected_p_values():
    p_values = [0.01, 0.04, 0.03]
    verdict = judge([claim(f"{p}", 0.8, p) for p in p_values])
    assert np.allclose(verdict["p"], holm(p_values)) and np.allclose(
        verdict["p"], [0.03, 0.06, 0.06]
    )
    assert verdict["verdict"].tolist() == ["causal", "not shown", "not shown"]
    assert judge([claim("alone", 0.8, 0.04)])["verdict"].tolist() == ["causal"]
    assert judge([claim("none", -0.5, 0.04)])["verdict"].tolist() == ["contradicted"]


def test_claims_stay_in_order_until_they_are_grouped_by_direction():
    names = ["a: one", "b: one", "a: two", "c: one", "b: two"]
    verdict = judge([claim(name, 0.8, 0.01 * number) for number, name in enumerate(names)])
    assert verdict["claim"].tolist() == names
    grouped = by_direction(verdict)
    assert grouped["claim"].tolist() == ["a: one", "a: two", "b: one", "b: two", "c: one"]
    both = grouped.set_index("claim")["p"], verdict.set_index("claim")["p"]
    assert both[0].sort_index().equals(both[1].sort_index())


def test_verdict_tells_the_claims_apart_for_each_direction(report):
    claims = report.verdict["claim"].str.extract(r"^(.*?): (\w+)")
    assert len(claims) == 15 and not report.verdict["claim"].duplicated().any()
    for direction in ("probe", "pattern", "difference"):
        said = claims.loc[claims[0] == direction, 1].tolist()
        assert said == ["sufficient", "necessary", "specific", "steerable"]
    assert set(report.verdict["verdict"]) <= set(VERDICTS)
    numbers = report.verdict[["effect", "low", "high", "control", "p"]]
    assert np.isfinite(numbers.to_numpy(float)).all()
    assert (report.verdict["low"] <= report.verdict["effect"] + 1e-12).all()
    assert (report.verdict["effect"] <= report.verdict["high"] + 1e-12).all()
    decided_by = {*report.figures, *report.tables}
    assert set(report.verdict["decided_by"]) <= decided_by


def test_everything_is_shown_in_some_section(report):
    saved_only = {"rollouts", "decisions", "cells"}
    saved_only |= {"readers", "partners"}  # no block reads block2: a pool does
    for kind, unshown in (("tables", saved_only), ("figures", set()), ("videos", set())):
        shown = [name for section in report.sections for name in getattr(section, kind)]
        assert len(shown) == len(set(shown))
        assert set(shown) | unshown == set(getattr(report, kind))


def test_a_whole_layer_swapped_is_the_other_maze(report):
    table = report.tables["interchange"]
    whole = table[table["subspace"] == "all"]
    assert whole["layer"].tolist() == [
        "stem", "pool1", "block1", "block2", "pool2", "block3", "block4"
    ]  # fmt: skip
    assert np.allclose(whole["share"], 1, atol=1e-3)
    assert (whole["follow"] == whole["follow_source"]).all()


def test_the_folder_is_complete(report, folder):
    assert {path.name for path in folder.iterdir()} == {
        "report.md", "settings.json", "tables", "figures", "videos", "agents", "tensorboard"
    }  # fmt: skip
    text = (folder / "report.md").read_text()
    links = re.findall(r"\]\((.*?)\)", text)
    assert len(links) == len(report.figures) + len(report.videos)
    for link in links:
        with Image.open(folder / link) as picture:
            assert min(picture.size) > 100
    for name in re.findall(r"`(tables/.*?\.csv)`", text):
        assert not pd.read_csv(folder / name).empty
    assert len(list((folder / "tables").iterdir())) == len(report.tables) + 1
    assert not re.search(r"\bnan\b", text)


def test_the_report_opens_with_three_sentences_and_a_picture(report, folder):
    text = (folder / "report.md").read_text()
    opening = text[: text.index("## Verdict")]
    assert "## In short" in opening and "figures/in-short.png" in opening
    said = report.sections[0].text
    assert said.startswith("cheese_presence ") and len(re.findall(r"\. [A-Z]", said)) == 2
    assert said.count("causal") == 0


def test_settings_are_json_that_says_how_to_repeat_it(folder):
    settings = json.loads((folder / "settings.json").read_text())
    assert (settings["agent"], settings["layer"], settings["seed"]) == ("small", "block2", 3)
    assert settings["sizes"] == SIZES
    assert settings["levels"] == {
        "training": "unknown",
        "fitting": "first 10 of levels 100000 to 199999",
        "evaluation": "first 5 of levels 0 to 99999",
    }
    assert settings["command"].startswith("python ") and settings["versions"]["torch"]


def test_the_saved_edited_agents_are_those_of_the_report(report, folder, bilinear_agent, study):
    observations = study.held_out.observations[:8]
    before = bilinear_agent.logits(observations)
    assert set(report.agents) == {
        "probe-ablated", "pattern-ablated", "difference-ablated", "top-eigenfilter-ablated",
        "top-8-eigenfilters-ablated", "all-eigenfilters-ablated",
    }  # fmt: skip
    for name, edited in report.agents.items():
        loaded = agents.load(folder / "agents" / name, device="cpu")
        assert loaded.config.edits == edited.config.edits
        assert loaded.logits(observations).equal(edited.logits(observations))
        assert not loaded.logits(observations).allclose(before, atol=1e-4)


def run_script(script, monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["validate_probe.py", *map(str, options), "--no-progress"])
    script.main()


def test_script_does_the_same_and_the_same_seed_gives_the_same_tables(
    script, agent_folder, report, folder, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "run"
    shutil.copytree(folder, out)
    (out / "stray").touch()
    sizes = [f"--{name.replace('_', '-')}={size}" for name, size in SIZES.items()]
    options = ["--agent", agent_folder, "--layer", "block2", "--out", out, "--seed", 3, *sizes]
    run_script(script, monkeypatch, *options, "--overwrite")
    printed = capsys.readouterr()
    assert printed.err == ""
    assert report.table() in printed.out
    assert f"Report:       {out / 'report.md'}" in printed.out
    assert f"tensorboard --logdir {out}" in printed.out
    assert not (out / "stray").exists()
    again = {path.name: path.read_bytes() for path in (out / "tables").iterdir()}
    first = {path.name: path.read_bytes() for path in (folder / "tables").iterdir()}
    assert again == first


@pytest.mark.slow
@pytest.mark.parametrize("surrogate", ["beside", "instead"])
def test_a_relu_agent_is_validated_by_its_quadratic_surrogate(
    script, relu_agent, surrogate, tmp_path, monkeypatch
):
    relu_agent.save(tmp_path / "relu")
    sizes = [f"--{name.replace('_', '-')}={size}" for name, size in SIZES.items()]
    options = ["--agent", tmp_path / "relu", "--layer", "block1", "--surrogate", surrogate, *sizes]
    run_script(script, monkeypatch, *options, "--out", tmp_path / "run")
    assert (
        "quadratic surrogate" in json.loads((tmp_path / "run/settings.json").read_text())["agent"]
    )
    tables = {path.stem for path in (tmp_path / "run/tables").iterdir()}
    assert {"explained", "eigenfilters", "eigenfilter-counts", "writers", "edits"} <= tables
    writers = pd.read_csv(tmp_path / "run/tables/writers.csv").writer
    assert set(writers) == {"pool1", "block1.branch"}
    (explained,) = pd.read_csv(tmp_path / "run/tables/explained.csv").itertuples()
    assert explained.r2 < explained.r2_inside < (1 if surrogate == "beside" else 1 + 1e-9)
    assert (explained.r2_inside > 1 - 1e-6) == (surrogate == "instead")
    edited = agents.load(tmp_path / "run/agents/all-eigenfilters-of-block1-ablated", device="cpu")
    relus = [m for m in edited.layer("block1.branch").modules() if isinstance(m, torch.nn.ReLU)]
    assert bool(relus) == (surrogate == "beside")
    text = (tmp_path / "run/report.md").read_text()
    assert ("those of the agent's quadratic surrogate" in text) == (surrogate == "beside")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--agent", "nobody"], r"'nobody' is neither a folder nor an agent of the zoo"),
        (["--layer", "block9"], r"unknown layer 'block9'; choose from auto, stem, pool1, block1"),
        (["--concept", "fame"], r"unknown concept 'fame'; choose from cheese_presence"),
        (["--concept", "mouse_position"], r"no counterfactual pairs for 'mouse_position'; choose"),
        (["--levels", "2"], r"levels must be at least 5, got 2"),
        (
            ["--surrogate", "beside"],
            r"surrogate: the agent has no ReLU blocks to approximate: Agent\(bimpala",
        ),
        (["--device", "abacus"], r"no device 'abacus' here; choose from auto, cpu"),
    ],
)
def test_script_refuses_bad_options_and_writes_nothing(
    script, agent_folder, options, message, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "run"
    with pytest.raises(SystemExit) as stopped:
        run_script(script, monkeypatch, "--agent", agent_folder, "--out", out, *options)
    said = capsys.readouterr()
    assert stopped.value.code == 2 and re.search(message, said.err)
    assert not out.exists() and said.out == ""


def test_script_refuses_an_existing_folder_before_any_work(
    script, folder, tmp_path, monkeypatch, capsys
):
    def no_work(*args):
        raise AssertionError("an agent was loaded")

    monkeypatch.setattr(script, "load", no_work)
    before = sorted(folder.rglob("*"))
    with pytest.raises(SystemExit):
        run_script(script, monkeypatch, "--out", folder)
    assert "run exists" in capsys.readouterr().err
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "dear.jpg").touch()
    with pytest.raises(SystemExit):
        run_script(script, monkeypatch, "--out", tmp_path / "photos", "--overwrite")
    assert "no report.md" in capsys.readouterr().err
    assert sorted(folder.rglob("*")) == before


def test_a_stopped_script_writes_nothing(script, agent_folder, tmp_path, monkeypatch, capsys):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "validate", stop)
    with pytest.raises(SystemExit, match="130"):
        run_script(script, monkeypatch, "--agent", agent_folder, "--out", tmp_path / "run")
    assert "stopped; nothing was written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
