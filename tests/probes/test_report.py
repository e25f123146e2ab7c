import json
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from rlbilinear.agents import Agent, load
from rlbilinear.probes.report import (
    COLUMNS,
    Drawing,
    Section,
    ValidationReport,
    Video,
    check_output,
    markdown_table,
)

VERDICT = pd.DataFrame(
    [
        ("probe: necessary", "causal", -0.4, -0.5, -0.3, 0.0, 2e-4, "e"),
        ("probe: sufficient", "not shown", 0.1, -0.1, 0.2, 0.1, 0.4, "effects"),
        (
            "all eigenfilters: | specific",
            "contradicted",
            0.3,
            np.nan,
            np.nan,
            np.nan,
            np.nan,
            "x" * 40,
        ),
    ],
    columns=list(COLUMNS),
)
SETTINGS = {
    "command": "python scripts/validate_probe.py --agent a --layer block1 --levels 200 --seed 1 -v",
    "layer": "block1",
    "seed": 1,
    "levels": {"fitting": [0, 400], "evaluation": [400, 600]},
}


@pytest.fixture(scope="module")
def agent():
    return Agent.new("bimpala-compact")


@pytest.fixture
def report(agent):
    figure = Figure(figsize=(6, 4))
    figure.subplots().plot([0, 1])
    frames = np.zeros((3, 3, 20, 30), np.uint8)
    frames[1, :, 5:] = 255
    return ValidationReport(
        "Does it use the cheese?",
        SETTINGS,
        VERDICT,
        sections=(
            Section("Question", "What is asked."),
            Section("Effects", "What is seen.", ("effects",), ("effects",), ("episode",)),
        ),
        tables={"effects": pd.DataFrame({"level": range(100), "effect": np.arange(100) / 7})},
        figures={"effects": Drawing(figure, "Both effects.")},
        videos={"episode": Video(frames, "One episode.")},
        agents={"ablated": agent},
        scalars={"dose/success": [(-200, 0.1), (0, 0.5), (100, 0.9)]},
    )


def change(report, **fields):
    settings = {name: getattr(report, name) for name in report.__dataclass_fields__}
    return ValidationReport(**(settings | fields))


def test_table_fits_a_terminal_and_says_everything(report):
    lines = report.table().splitlines()
    assert max(map(len, lines)) <= 100
    words = re.sub(r"\s+", " ", report.table())
    for said in (
        "probe necessary -0.400 [-0.500, -0.300] +0.000 0.0002 causal",
        "not shown",
        "contradicted",
    ):
        assert said in words
    assert "nan" not in words
    assert [line.split("  ")[0].strip() for line in lines] == [
        "direction", "-" * 16, "probe", "", "all eigenfilters",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"settings": {"seed": np.int64(1)}}, "no JSON"),
        ({"settings": {"time": float("nan")}}, "no JSON"),
        ({"verdict": VERDICT.drop(columns="p")}, "verdict lacks p"),
        ({"verdict": VERDICT.assign(verdict="proven")}, "causal, not shown, contradicted; got"),
        ({"sections": (Section("A", "", figures=("gone",)),)}, "'A' names unknown figures"),
        ({"tables": {"verdict": VERDICT}, "sections": ()}, "named 'verdict'"),
        ({"agents": {"../up": None}}, "name in agents"),
    ],
)
def test_what_makes_no_report_is_refused(report, fields, message):
    with pytest.raises(ValueError, match=message):
        change(report, **fields)


def test_saved_folder_is_complete(report, agent, tmp_path):
    report.save(tmp_path / "out" / "run")
    folder = tmp_path / "out" / "run"
    assert [path.name for path in folder.parent.iterdir()] == ["run"]
    assert json.loads((folder / "settings.json").read_text()) == SETTINGS
    pd.testing.assert_frame_equal(pd.read_csv(folder / "tables" / "verdict.csv"), VERDICT)
    effects = pd.read_csv(folder / "tables" / "effects.csv")
    pd.testing.assert_frame_equal(effects, report.tables["effects"])
    assert Image.open(folder / "figures" / "effects.png").size == (600, 400)
    assert Image.open(folder / "videos" / "episode.gif").n_frames == 3
    observations = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64), dtype=np.uint8)
    saved = load(folder / "agents" / "ablated", device="cpu")
    assert saved.logits(observations).equal(agent.logits(observations))


def test_report_reads_from_top_to_bottom_and_its_links_lead_somewhere(report, tmp_path):
    report.save(tmp_path / "run")
    text = (tmp_path / "run" / "report.md").read_text()
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    assert headings == [
        "Does it use the cheese?", "Verdict", "Question", "Effects", "The agents", "To repeat it",
    ]  # fmt: skip
    links = re.findall(r"\]\((.*?)\)", text)
    assert links == ["figures/effects.png", "videos/episode.gif"]
    assert all((tmp_path / "run" / link).is_file() for link in links)
    assert "76 more rows" in text and SETTINGS["command"] in text


def test_tensorboard_gets_all_of_it(report, tmp_path):
    report.save(tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"), {"tensors": 0}).Reload()
    curve = [(event.step, event.value) for event in events.Scalars("dose/success")]
    np.testing.assert_allclose(curve, report.scalars["dose/success"])
    for tag, path, caption in (
        ("figures/effects", "figures/effects.png", "Both effects."),
        ("videos/episode", "videos/episode.gif", "One episode."),
    ):
        assert events.SummaryMetadata(tag).display_name == caption
        assert events.SummaryMetadata(tag).plugin_data.plugin_name == "images"
        width, height, encoded = events.Tensors(tag)[0].tensor_proto.string_val
        assert encoded == (tmp_path / "run" / path).read_bytes()
        assert (int(width), int(height)) == Image.open(tmp_path / "run" / path).size
    texts = {
        tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode()
        for tag in events.Tags()["tensors"]
        if tag.endswith("/text_summary")
    }
    assert list(texts) == [
        f"{tag}/text_summary" for tag in ("00 verdict", "01 Question", "02 Effects", "03 settings")
    ]
    assert report.table() in texts["00 verdict/text_summary"]
    tag = "_hparams_/session_start_info"
    content = events.SummaryMetadata(tag).plugin_data.content
    compared = HParamsPluginData.FromString(content).session_start_info.hparams
    assert sorted(compared) == ["layer", "levels.evaluation", "levels.fitting", "seed"]
    assert compared["layer"].string_value == "block1" and compared["seed"].number_value == 1
    (effect,) = events.Scalars(f"effect/{VERDICT['claim'][0]}")
    assert effect.value == pytest.approx(-0.4)


def test_an_existing_folder_is_refused_unless_overwritten(report, tmp_path):
    run = tmp_path / "run"
    check_output(run)
    report.save(run)
    (run / "stray").touch()
    for refuse in (check_output, report.save):
        with pytest.raises(FileExistsError, match="exists"):
            refuse(run)
    check_output(run, overwrite=True)
    report.save(run, overwrite=True)
    assert not (run / "stray").exists()
    other = tmp_path / "photos"
    other.mkdir()
    (other / "dear.jpg").touch()
    for refuse in (check_output, report.save):
        with pytest.raises(FileExistsError, match=r"no report\.md"):
            refuse(other, overwrite=True)
    assert (other / "dear.jpg").exists()


def test_an_interrupted_save_leaves_what_was_there(report, tmp_path):
    class Interrupting:
        config = None

        def save(self, path):
            raise KeyboardInterrupt

    broken = change(report, agents={"ablated": Interrupting()})
    with pytest.raises(KeyboardInterrupt):
        broken.save(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
    report.save(tmp_path / "old")
    before = (tmp_path / "old" / "report.md").read_text()
    with pytest.raises(KeyboardInterrupt):
        broken.save(tmp_path / "old", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old" / "report.md").read_text() == before


def test_markdown_table():
    table = pd.DataFrame({"name": ["a|b", None], "n": [1, 20], "x": [0.12345, np.nan]})
    table["small"] = [2e-5, -0.0]
    assert markdown_table(table).splitlines() == [
        "| name | n | x | small |",
        "| --- | ---: | ---: | ---: |",
        "| a\\|b | 1 | 0.123 | 2.0e-05 |",
        "|  | 20 |  | -0.000 |",
    ]
