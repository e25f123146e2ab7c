import json
from dataclasses import asdict

import pandas as pd
import pytest

from rlbilinear.agents import Agent
from rlbilinear.commands.atlas import AtlasOptions, subjects
from rlbilinear.commands.main import main
from rlbilinear.commands.verdicts import kind
from rlbilinear.probes.causal.atlas import AtlasSizes
from rlbilinear.probes.surrogate import has_relu_blocks

AGENTS = ("maze-bimpala-compact", "maze-impala-compact")


def write_atlas(folder, effects, levels=1):
    """Write what an atlas of these agents says, of two layers."""
    rows = [
        {"agent": agent, "concept": "cheese", "layer": layer, "rank": 1, "direction": "probe"}
        | {"claim": "sufficient", "verdict": "causal", "effect": effect, "control": 0.1}
        for agent, effect in effects.items()
        for layer in ("block1", "block2")
    ]
    place = folder / "report" / "tables"
    place.mkdir(parents=True)
    pd.DataFrame(rows).to_csv(place / "claims.csv", index=False)
    (folder / "atlas.json").write_text(json.dumps(asdict(AtlasSizes(levels=levels))))
    return folder


def write_report(folder, agent, effect):
    """Write what a report of `rlbilinear validate` says of one agent."""
    (folder / "tables").mkdir(parents=True)
    row = {"claim": "top eigenfilter: necessary", "verdict": "not shown", "effect": effect}
    pd.DataFrame([row | {"control": 0.1}]).to_csv(folder / "tables/verdict.csv", index=False)
    settings = {"agent": agent, "concept": "cheese_presence", "layer": "block2"}
    (folder / "settings.json").write_text(json.dumps({**settings, "sizes": {"levels": 1}}))
    return str(folder)


@pytest.fixture
def atlas(tmp_path):
    return write_atlas(tmp_path / "atlas", dict(zip(AGENTS, (0.5, 0.25), strict=True)))


def test_agents_are_gathered_by_architecture(atlas, tmp_path, capsys):
    out = tmp_path / "over.csv"
    main(["verdicts", str(atlas), "--layers", "block2", "--out", str(out)])
    printed = capsys.readouterr().out
    assert "block2" in printed and "block1" not in printed
    found = pd.read_csv(out).set_index(["kind", "layer"])
    assert found["effect"].to_dict() == {
        (kind, layer): effect
        for kind, effect in (("bimpala-compact", 0.5), ("impala-compact", 0.25))
        for layer in ("block1", "block2")
    }
    assert (found["claim"] == "probe: sufficient").all() and (found["causal"] == 1).all()


def test_surrogates_are_a_kind_of_their_own(atlas, tmp_path):
    more = write_atlas(tmp_path / "more", {"maze-impala-compact's quadratic surrogate": 0.75})
    out = tmp_path / "over.csv"
    main(["verdicts", str(atlas), str(more), "--out", str(out)])
    found = pd.read_csv(out).query("layer == 'block1'").set_index("kind")["effect"].to_dict()
    assert found == {
        "bimpala-compact": 0.5,
        "impala-compact": 0.25,
        "impala-compact's quadratic surrogate": 0.75,
    }


def test_an_atlas_asks_surrogates_after_the_agents(tmp_path):
    relu, other = (str(tmp_path / name) for name in ("relu", "other"))
    Agent.new("impala-compact", game="maze", channels=[2, 2], features=8).save(relu)
    Agent.new("bimpala-compact", game="maze", channels=2, features=8).save(other)
    first, second, made = subjects(AtlasOptions(agents=(relu, other), surrogates=True))
    assert (first, second) == (relu, other)
    assert made.name == f"{relu}'s quadratic surrogate" and kind(made.name).endswith("surrogate")
    assert not has_relu_blocks(made.agent) and "block1" in made.layers
    assert subjects(AtlasOptions(agents=(relu, other))) == [relu, other]
    with pytest.raises(ValueError, match="--surrogates: no ReLU blocks in"):
        subjects(AtlasOptions(agents=(other,), surrogates=True))


def test_reports_of_several_agents_are_gathered(tmp_path):
    reports = [
        write_report(tmp_path / "one", "maze-bimpala-compact", 0.2),
        write_report(tmp_path / "two", "agents/zoo/maze-bimpala-compact", 0.4),
        write_report(tmp_path / "relu", "maze-impala-compact (by its quadratic surrogate)", 0.1),
    ]
    out = tmp_path / "over.csv"
    main(["verdicts", *reports, "--out", str(out)])
    found = pd.read_csv(out).set_index("kind")
    assert found["agents"].to_dict() == {
        "bimpala-compact": 2,
        "impala-compact (by its quadratic surrogate)": 1,
    }
    assert found["effect"]["bimpala-compact"] == pytest.approx(0.3)
    assert (found["claim"] == "top eigenfilter: necessary").all()


def test_the_same_or_other_sizes_are_refused_together(atlas, tmp_path, capsys):
    write_atlas(tmp_path / "larger", {"maze-bimpala-compact's": 0.5}, levels=2)
    for other, why in (("larger", "'levels': 2, "), ("atlas", "answers again: maze-")):
        with pytest.raises(SystemExit) as ended:
            main(["verdicts", str(atlas), str(tmp_path / other)])
        assert ended.value.code == 2 and why in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["{}"], "holds no finished atlas"),
        (["{}/atlas", "--layers", "blok"], "no layer blok; there are block1, block2"),
    ],
)
def test_bad_usage(given, why, atlas, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["verdicts", *(word.format(tmp_path) for word in given)])
    assert ended.value.code == 2 and why in capsys.readouterr().err
