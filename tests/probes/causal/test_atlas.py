"""An atlas: the same answers as one by one, all fields, and nothing lost on the way."""

import importlib
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from blobs import GREEN, RED, SIDE, as_class, data_of, in_places, reading
from rlbilinear.agents import Agent
from rlbilinear.probes.causal.atlas import AtlasSizes, atlas
from rlbilinear.probes.causal.atlas_cells import USES, gathered
from rlbilinear.probes.causal.protocol import Questions, answer
from rlbilinear.probes.causal.remembering import remembering
from rlbilinear.probes.steps.result import Claim
from rlbilinear.probes.subject import as_subject
from rlbilinear.statistics import holm

SIZES = AtlasSizes(fit_levels=6, levels=6, states_per_level=2, pairs_per_level=1, controls=1)


@pytest.fixture(scope="module")
def subject():
    return as_subject(reading(RED), name="red policy")


@pytest.fixture(scope="module")
def concepts():
    return [data_of(in_places(RED, "red"), 14), data_of(in_places(GREEN, "green"), 14)]


@pytest.fixture(scope="module")
def made(subject, concepts, tmp_path_factory):
    out = tmp_path_factory.mktemp("atlas") / "atlas"
    return out, atlas(subject, concepts, ranks=(1, 2), out=out, sizes=SIZES, progress=False)


def test_what_is_used_and_what_is_only_carried_are_told_apart(made):
    _, found = made
    status = found.cells.set_index("concept")["status"].to_dict()
    assert status == {"red": "used", "green": "readable"}
    red = found.cells.set_index("concept").loc["red"]
    assert red["least_rank"] == 1 and set(red["shown"].split(", ")) == {*USES}
    assert red["score"] > 0.9 > red["base_rate"]
    assert not len(found.not_asked)


def test_a_cell_is_the_answer_alone(made, subject, concepts):
    _, found = made
    alone = answer(subject, concepts[1], "mix", 2, controls=SIZES.controls, seed=SIZES.seed)
    claims = found.claims[found.claims["concept"] == "green"]
    ours = claims[(claims["rank"] == 2) | (claims["direction"] != "difference")]
    for column in ("effect", "low", "high", "control"):
        np.testing.assert_allclose(ours[column], alone.effects[column], atol=1e-12)
    reading_there = found.cells.set_index("concept").loc["green"]
    assert reading_there["score"] == pytest.approx(alone.readable["score"].iloc[0], abs=1e-12)


def test_p_values_are_corrected_within_a_concept_and_layer(made):
    out, found = made
    (folder,) = (out / "cells").glob("*/red")
    raw = [
        Claim(**claim)
        for file in sorted(folder.glob("*.json"))
        for claim in json.loads(file.read_text())["claims"]
        if claim["claim"].startswith("difference") or file.name == "mix.1.json"
    ]
    own = found.claims[found.claims["concept"] == "red"]
    assert len(raw) == len(own) == 9 + 3, "of what has no rank, once"
    corrected = holm([claim.p for claim in raw])
    np.testing.assert_allclose(own["effect"], [claim.effect for claim in raw])
    np.testing.assert_allclose(own["p"], corrected)
    said = [claim.verdict(p) for claim, p in zip(raw, corrected, strict=True)]
    assert own["verdict"].tolist() == said and len({*said}) > 1


def test_an_interrupted_atlas_goes_on(made, subject, concepts, tmp_path, monkeypatch):
    _, whole = made
    asked_at = []

    def stopping(questions, rank):
        if len(asked_at) == 3:
            raise KeyboardInterrupt
        asked_at.append(rank)
        return whole_answer(questions, rank)

    options = {"ranks": (1, 2), "out": tmp_path / "atlas", "sizes": SIZES, "progress": False}
    whole_answer = Questions.answer
    monkeypatch.setattr(Questions, "answer", stopping)
    with pytest.raises(KeyboardInterrupt):
        atlas(subject, concepts, **options)
    assert len([*(tmp_path / "atlas").rglob("mix.*.json")]) == 3, "none is lost, none is half"
    with pytest.raises(FileExistsError, match="has an atlas; resume it"):
        atlas(subject, concepts, **options)
    asked_at.clear()
    again = atlas(subject, concepts, **options, resume=True)
    assert asked_at == [2], "one was missing"
    pd.testing.assert_frame_equal(again.claims, whole.claims)
    with pytest.raises(ValueError, match="an atlas with other seed;"):
        changed = {**options, "sizes": replace(SIZES, seed=1)}
        atlas(subject, concepts, **changed, resume=True)
    with pytest.raises(ValueError, match="an atlas with other agents;"):
        other = as_subject(reading(GREEN), name="red policy")
        atlas(other, concepts, **options, resume=True)


def test_a_concept_that_changes_nothing_is_not_asked_about_and_the_report_says_why(
    subject, concepts, tmp_path
):
    silent = data_of(
        replace(
            as_class(GREEN, "unknown green"),
            behaviour=None,  # so that what the policy does counts
            counterfactual=lambda state, _: state.moved(
                GREEN, ((state[GREEN][0] + SIDE // 2) % SIDE, state[GREEN][1])
            ),
        ),
        14,
    )
    found = atlas(
        subject, [silent, concepts[0]], ranks=(1,), out=tmp_path / "a", sizes=SIZES, progress=False
    )
    assert found.not_asked["concept"].tolist() == ["unknown green"]
    assert "behaviour changes with the concept in pairs of 0 groups" in found.not_asked["reason"][0]
    assert found.cells["concept"].tolist() == ["red"]
    found.report.save(tmp_path / "report")
    assert [*(tmp_path / "report" / "figures").glob("atlas_red_policy*.png")]
    assert "unknown green" in (tmp_path / "report" / "tables" / "not_asked.csv").read_text()


def test_what_is_remembered_is_what_the_policy_gives(concepts):
    agent = Agent.new("bimpala-small", game="maze", channels=2, blocks=(1, 1), features=4)
    plain = as_subject(agent)
    ours = remembering(plain, ["pool1", "dense"])
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 64, 64)).astype(np.uint8)
    for given, expected in ((ours, plain), (ours.untrained(3), plain.untrained(3))):
        for layer in ("pool1", "dense", "stem", "pool1"):
            got = given.activations(images, [layer])[layer]
            wanted = expected.activations(images, [layer])[layer]
            torch.testing.assert_close(got, wanted, atol=0, rtol=0)
    assert ours.untrained(3) is ours.untrained(3)
    other = images[::-1].copy()
    assert not torch.equal(*(ours.activations(x, ["dense"])["dense"] for x in (images, other)))


def test_bad_questions_are_refused_before_work(subject, concepts, tmp_path):
    out = tmp_path / "atlas"
    for arguments, said in (
        (([], concepts), "agents: expected at least one"),
        (([subject, subject], concepts), "two have the name 'red policy'"),
        ((subject, []), "concepts: expected at least one"),
        ((subject, "cheese"), "give ConceptData"),
        ((subject, concepts, ["nowhere"]), "unknown layer 'nowhere'; choose from mix"),
        ((subject, concepts, "mix"), "layers: expected all, or a list of names, got 'mix'"),
        ((subject, concepts, "all", (0,)), "ranks: expected numbers from 1 on"),
    ):
        with pytest.raises(ValueError, match=said):
            atlas(*arguments, out=out, sizes=SIZES, progress=False)
    with pytest.raises(ValueError, match="controls: expected at least 1, got 0"):
        atlas(subject, concepts, out=out, sizes=AtlasSizes(controls=0), progress=False)
    assert not out.exists()


def test_layers_at_which_nothing_can_be_asked_are_refused_and_nothing_is_left(tmp_path):
    agent = Agent.new("bimpala-small", game="maze", channels=2, blocks=(1, 1), features=4)
    sizes = replace(SIZES, fit_levels=5, levels=5)
    said = "layers: none of dense can be asked about; cheese: stem, pool1, block1, pool2, block2$"
    with pytest.raises(ValueError, match=said):
        atlas(agent, "cheese", ["dense"], out=tmp_path / "a", sizes=sizes, progress=False)
    with pytest.raises(ValueError, match="levels: expected at least 5, got 2"):
        few = replace(sizes, levels=2)
        atlas(agent, "cheese", out=tmp_path / "a", sizes=few, progress=False)
    assert not (tmp_path / "a").exists()


def test_a_concept_without_a_layer_to_ask_at_is_said_to_be_left_out(tmp_path):
    settings = {"agents": {"one": ""}, "ranks": [1]}
    found = gathered(tmp_path, {("one", "cheese"): []}, settings)
    assert not len(found.cells) and not len(found.claims)
    assert found.not_asked["reason"].tolist() == [
        "none of the layers asked for has maps fine enough for its labels"
    ]


def test_the_command_line(tmp_path, capsys):
    agent = Agent.new("bimpala-small", game="maze", channels=2, blocks=(1, 1), features=4)
    agent.save(tmp_path / "agent")
    command = importlib.import_module("rlbilinear.commands.atlas").main
    options = (
        f"--agents {tmp_path / 'agent'} --concepts mouse --layers pool1 --ranks 1 --fit-levels 6 "
        f"--levels 6 --states 2 --pairs 1 --controls 1 --out {tmp_path / 'out'} --no-progress"
    ).split()
    command(options)
    first = capsys.readouterr().out
    assert "pool1" in first and (tmp_path / "out" / "report" / "report.md").exists()
    with pytest.raises(SystemExit) as refused:
        command(options)
    assert refused.value.code == 2
    command([*options, "--resume"])
    assert capsys.readouterr().out == first
    with pytest.raises(SystemExit) as refused:
        command([*options[:2], "--concepts", "queen", "--out", str(tmp_path / "other")])
    assert refused.value.code == 2 and "choose from cheese, mouse" in capsys.readouterr().err
