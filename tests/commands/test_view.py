"""`rlbilinear view` writes one page, and nothing when it cannot."""

import json
import webbrowser

import numpy as np
import pandas as pd
import pytest

from rlbilinear.commands import view


@pytest.fixture
def study(tmp_path):
    folder = tmp_path / "study"
    folder.mkdir()
    pd.DataFrame({"level": range(3), "return": np.arange(3.0)}).to_csv(folder / "scores.csv")
    (folder / "study.json").write_text(json.dumps({"options": {"seed": 3}}))
    return folder


def test_the_page_is_written_into_the_folder_and_opened(study, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or True)
    view.main([str(study)])
    page = study / view.PAGE
    assert opened == [page.as_uri()] and "<h1>study</h1>" in page.read_text()
    assert capsys.readouterr().out.startswith(str(page))
    view.main([str(study), "--no-open"])  # again: the page is no part of the report
    assert page.read_text().count('data-table="scores"') == 1 and len(opened) == 1


def test_it_goes_where_it_is_told(study, tmp_path):
    view.main([str(study), "--no-open", "--out", str(tmp_path / "new" / "page.html")])
    assert (tmp_path / "new" / "page.html").is_file() and not (study / view.PAGE).exists()


def test_without_a_browser_it_says_so(study, monkeypatch, capsys):
    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    view.main([str(study)])
    assert "no browser could be started" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere is not a folder; give the folder of a report"),
        (["."], "is not a report: expected report.md, or tables"),
        (["study", "--out", "."], "is a folder; give the name of a file"),
        (["study", "--steer"], "--steer needs a report of `rlbilinear validate`"),
        (["study", "--level", "-1"], "--level: expected 0 or more"),
    ],
)
def test_what_it_cannot_show_is_said_and_nothing_is_written(
    arguments, words, study, tmp_path, monkeypatch, ends
):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert words in ends(2, view.main, [*arguments, "--no-open"])
    assert sorted(tmp_path.rglob("*")) == before
