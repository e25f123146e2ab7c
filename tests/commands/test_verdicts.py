import pandas as pd
import pytest

from rlbilinear.commands.main import main

AGENTS = ("maze-bimpala-compact", "maze-impala-compact")


@pytest.fixture
def atlas(tmp_path):
    rows = [
        {"agent": agent, "concept": "cheese", "layer": layer, "rank": 1, "direction": "probe"}
        | {"claim": "sufficient", "verdict": "causal", "effect": effect, "control": 0.1}
        for agent, effect in zip(AGENTS, (0.5, 0.25), strict=True)
        for layer in ("block1", "block2")
    ]
    place = tmp_path / "atlas" / "report" / "tables"
    place.mkdir(parents=True)
    pd.DataFrame(rows).to_csv(place / "claims.csv", index=False)
    return tmp_path / "atlas"


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


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["{}"], "holds no finished atlas"),
        (["{}/atlas", "--layers", "blok"], "no layer blok; the atlas has block1, block2"),
    ],
)
def test_bad_usage(given, why, atlas, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["verdicts", *(word.format(tmp_path) for word in given)])
    assert ended.value.code == 2 and why in capsys.readouterr().err
