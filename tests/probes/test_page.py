"""A report as one page: what is on it, that nothing is fetched, and how it is used in a browser."""

import html
import json
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from browser import after, screenshot
from rlbilinear.probes.page import page, read_folder
from rlbilinear.probes.report import COLUMNS, Drawing, Section, ValidationReport, Video

VERDICT = pd.DataFrame(
    [
        ("probe: necessary", "causal", 0.41, 0.3, 0.5, 0.02, 2e-4, "effects"),
        ("probe: sufficient", "not shown", 0.123456789, -0.1, 0.2, 0.1, 0.4, "effects"),
        ("pattern: specific", "contradicted", np.nan, np.nan, np.nan, np.nan, np.nan, "effects"),
    ],
    columns=list(COLUMNS),
)
LONG = pd.DataFrame(
    {
        "level": range(40),
        "kind": ["edit", "control"] * 20,
        "probability": np.linspace(0, 1, 40),
        "infinite": [np.inf] + [1.5] * 39,
        "whole": [True, False] * 20,
    }
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a report with two tables, two figures and a video."""
    figure = Figure(figsize=(6, 4))
    figure.subplots().plot([0, 1])
    frames = np.zeros((3, 3, 20, 30), np.uint8)
    frames[1, :, 5:] = 255
    place = tmp_path_factory.mktemp("report") / "demo"
    ValidationReport(
        "Does it use <the cheese> & walls?",
        {"layer": "block1", "seed": 1},
        VERDICT,
        sections=(
            Section("Read", "It is <script>alert(1)</script> *read*.", ("long_one",), ("a",)),
            Section("Seen", "And seen.", (), (), ("v",)),
        ),
        tables={"long_one": LONG, "aside": LONG.head(2)},
        figures={"a": Drawing(figure, "A line."), "b": Drawing(figure, "Another.")},
        videos={"v": Video(frames, "It moves.")},
    ).save(place)
    return place


@pytest.fixture(scope="module")
def written(folder, tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(page(read_folder(folder)))
    return file


def data_of(text):
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])


def test_everything_of_the_report_is_on_the_page(written):
    text = written.read_text()
    tables = data_of(text)["tables"]
    assert set(tables) == {"verdict", "long_one", "aside"}
    assert len(tables["long_one"]["rows"]) == 40  # report.md has 24
    assert tables["verdict"]["rows"][1][2] == 0.123456789
    assert tables["verdict"]["rows"][2][2] is None
    assert tables["long_one"]["rows"][0][3] == "inf" and tables["long_one"]["rows"][0][4] == "True"
    assert text.count("data:image/png;base64,") == 2 and text.count("data:image/gif;base64,") == 1
    assert re.findall(r'data-table="([\w-]+)"', text) == ["verdict", "long_one", "aside"]
    assert "@@table" not in text and "<em>A line.</em>" in text


def test_text_of_a_report_is_shown_and_not_run(written):
    text = written.read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<script>alert" not in text
    assert "<title>Does it use &lt;the cheese&gt; &amp; walls?</title>" in text


def test_the_page_asks_no_server_for_anything(written):
    text = written.read_text()
    assert "default-src 'none'" in text
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert sources and all(source.startswith("data:image/") for source in sources)


def test_a_table_cannot_end_the_data(folder, tmp_path):
    report = read_folder(folder)
    evil = pd.DataFrame({"a": ["</script><script>alert(1)</script>", "<!--"]})
    text = page(report.__class__(report.title, "", {"evil": evil}, {}, {}))
    assert "alert(1)</script>" not in text
    assert data_of(text)["tables"]["evil"]["rows"] == [[v] for v in evil["a"]]


def test_a_study_without_a_text_is_shown_too(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    LONG.to_csv(folder / "scores.csv", index=False)
    Image.new("RGB", (4, 4)).save(folder / "scores.png")
    Image.new("RGB", (4, 4)).save(folder / "other.png")
    (folder / "images.json").write_text('{"options": {"seeds": 5}}')
    text = page(read_folder(folder))
    assert text.count("data:image/png") == 2 and 'data-table="scores"' in text
    assert html.escape('"seeds": 5') in text and "<h1>images</h1>" in text


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "is not a report: expected report.md, or tables"),
        ({"a.csv": "x\n1\n"}, "is not a report"),
        ({"a.json": "{}"}, "is not a report"),
        ({"a.json": "{", "a.csv": "x\n1\n"}, "a.json is not JSON"),
        ({"a.json": "{}", "a.csv": ""}, "a.csv is not a table"),
    ],
)
def test_other_folders_are_refused(tmp_path, files, words):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=words):
        read_folder(tmp_path)
    with pytest.raises(ValueError, match="is not a folder"):
        read_folder(tmp_path / "nowhere")


# --- in a browser


def test_the_page_looks_like_a_report(written, tmp_path):
    picture = np.asarray(Image.open(screenshot(tmp_path, written)).convert("RGB")).astype(int)
    assert picture.shape == (1600, 1200, 3)
    assert (picture == 255).all(2).mean() > 0.5  # a white page
    blue = (picture[..., 2] - picture[..., 0] > 80).sum()  # effects, and the figure's line
    green = ((picture[..., 1] - picture[..., 0] > 60) & (picture[..., 2] < 120)).sum()  # "causal"
    assert blue > 500 and green > 20


def test_tables_are_sorted_and_shown_whole_by_clicks(written, tmp_path):
    said = after(
        tmp_path,
        written,
        """
        const place = document.querySelector('[data-table="long_one"]');
        const lines = () => [...place.querySelectorAll("tbody tr")];
        const column = i => lines().map(line => line.cells[i].textContent);
        const result = [column(0)];
        place.querySelectorAll("th button")[2].click();
        result.push(column(0));
        place.querySelectorAll("th button")[2].click();
        result.push(column(0));
        [...place.querySelectorAll("button")].find(b => b.textContent === "show all").click();
        result.push(column(0));
        result.push(document.querySelector('[data-table="verdict"] td.number').title);
        return result;
        """,
    )
    failures, (first, down, up, whole, title) = json.loads(said)
    assert failures == []
    assert first == up == [str(level) for level in range(25)]
    assert down == [str(level) for level in range(39, 14, -1)]
    assert whole == [str(level) for level in range(40)]
    assert title == "effect: 0.41"


def test_a_histogram_counts_by_group(written, tmp_path):
    said = after(
        tmp_path,
        written,
        """
        const place = document.querySelector('[data-table="long_one"]');
        [...place.querySelectorAll("button")].find(b => b.textContent === "histogram").click();
        const [values, by, bins] = place.querySelectorAll("select");
        by.value = "kind"; by.dispatchEvent(new Event("change"));
        const bars = [...place.querySelectorAll(".histogram rect title")];
        return [values.value, bars.map(bar => bar.textContent)];
        """,
    )
    failures, (column, bars) = json.loads(said)
    assert failures == [] and column == "probability"
    counts = {}
    for bar in bars:
        kind, count, low = re.match(
            r"(\w+): (\d+) of \d+ with probability from (\S+)", bar
        ).groups()
        counts.setdefault(kind, []).append(int(count))
        assert 0 <= float(low) < 1
    edges = np.linspace(0, 1, 11)
    for kind in ("edit", "control"):
        expected, _ = np.histogram(LONG.probability[LONG.kind == kind], edges)
        assert counts[kind] == expected.tolist()


def test_effects_are_drawn_with_their_values(written, tmp_path):
    said = after(
        tmp_path,
        written,
        """return [...document.querySelectorAll('[data-table="verdict"] svg g title')]
            .map(t => t.textContent);""",
    )
    failures, titles = json.loads(said)
    assert failures == [] and len(titles) == 2  # the third has no effect
    assert "claim: probe: necessary" in titles[0] and "low: 0.3" in titles[0]
