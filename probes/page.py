"""A report as one HTML page: figures, sortable tables, videos and a maze to click in, offline.

The page holds everything itself, asks no server for anything (its policy forbids it), and runs no
code from the report: HTML in a report's text is shown as text.
"""

import base64
import html
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import markdown
import numpy as np
import pandas as pd

from rlbilinear.probes.report import REPORT

TEMPLATE = Path(__file__).parent / "page.html"
KINDS = {".png": "image/png", ".gif": "image/gif", ".jpg": "image/jpeg", ".svg": "image/svg+xml"}
"""Pictures that a page takes in, by the ending of their files."""
ROWS = 5000
"""Of the longest table on a page; the CSV has the others."""
NOT_SHOWN = ("agents", "tensorboard")
"""Folders of a report with files for programs."""

_MARK = re.compile(r"<p>@@table:([0-9a-f]*)@@</p>")
_PICTURE = re.compile(r'<img alt="([^"]*)" src="([^"]*)" ?/>')
_TABLE = re.compile(r"^\|[^\n]*(?:\n\|[^\n]*)*\n\n\*`tables/([\w.-]+)\.csv`[^\n]*\*$", re.M)


@dataclass(frozen=True)
class ReportFolder:
    """The parts of a report's folder that people look at.

    Attributes:
        title: of the page.
        text: Markdown, if the folder has a report to read.
        tables: by name.
        pictures: figures and videos, by their place in the folder.
        settings: how it was made, if the folder says.
    """

    title: str
    text: str
    tables: Mapping[str, pd.DataFrame]
    pictures: Mapping[str, Path]
    settings: Mapping[str, Any]


def read_folder(folder: str | Path) -> ReportFolder:
    """Read the folder of a report or a study.

    That is one with ``report.md``, as `validate` writes it; or one with tables (CSV) or figures
    (PNG) and a record of how they were made (JSON), as ``rlbilinear images`` and others do.

    Raises:
        ValueError: it is not such a folder; or a table or record in it cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; give the folder of a report")
    files = [file for file in sorted(folder.rglob("*")) if _is_shown(file.relative_to(folder))]
    report = folder / REPORT
    records = [file for file in files if file.suffix == ".json" and file.parent == folder]
    tables = {_name(folder, file): _read_table(file) for file in files if file.suffix == ".csv"}
    pictures = {str(f.relative_to(folder)): f for f in files if f.suffix in KINDS}
    if not report.is_file() and not (records and (tables or pictures)):
        raise ValueError(
            f"{folder} is not a report: expected {REPORT}, or tables (.csv) or figures (.png) and "
            "a record of how they were made (.json)"
        )
    text = report.read_text(errors="replace") if report.is_file() else ""
    heading = re.match(r"# (.+)", text)
    title = heading[1] if heading else folder.absolute().name
    return ReportFolder(title, text, tables, pictures, _settings(records))


def page(report: ReportFolder, steering: Mapping[str, Any] | None = None) -> str:
    """Return a report as one HTML page.

    Args:
        report: its parts.
        steering: a maze to click in, of `rlbilinear.probes.page_steering.steered_maze`.
    """
    mentioned: set[str] = set()
    parts = [*_from_text(report, mentioned)] or [f"<h1>{html.escape(report.title)}</h1>"]
    if steering is not None:
        parts.append(
            "<h2>Steer the agent yourself</h2><p>Click a cell: a cheese is planted there, in the "
            "weights. Arrows are the mean step from each cell; hover over one for the "
            'probabilities.</p><div id="steering"></div>'
        )
    parts += _rest(report, mentioned)
    data = {
        "tables": {name: _as_json(table) for name, table in report.tables.items()},
        "steering": steering,
    }
    # In a script element nothing but "</" and "<!--" could end it; no "<" is left.
    written = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return Template(TEMPLATE.read_text()).substitute(
        title=html.escape(report.title), body="\n".join(parts), data=written
    )


def _from_text(report: ReportFolder, mentioned: set[str]) -> Iterator[str]:
    """Yield the report's text as HTML, its tables as places for whole ones, its pictures inside."""
    if not report.text:
        return
    whole = report.text
    if "verdict" in report.tables:
        verdict = f"## Verdict\n\n{_mark('verdict')}\n"
        whole = re.sub(r"## Verdict\n\n(?:\|[^\n]*\n)+", verdict, whole, count=1)

    def table(found: re.Match[str]) -> str:
        return _mark(found[1]) if found[1] in report.tables else found[0]

    def picture(found: re.Match[str]) -> str:
        file = report.pictures.get(html.unescape(found[2]))
        if file is None:
            return f"<em>{found[1]} (not in this folder)</em>"
        mentioned.add(html.unescape(found[2]))
        return _embedded(file, html.unescape(found[1]))

    def place(found: re.Match[str]) -> str:
        name = bytes.fromhex(found[1]).decode()
        mentioned.add(name)
        return _table_place(name)

    converter = markdown.Markdown(extensions=["tables", "fenced_code"])
    converter.preprocessors.deregister("html_block")
    converter.inlinePatterns.deregister("html")
    text = _PICTURE.sub(picture, converter.convert(_TABLE.sub(table, whole)))
    yield _MARK.sub(place, text)


def _mark(table: str) -> str:
    """Return what stands for a table while text becomes HTML; nothing in it is Markdown."""
    return f"@@table:{table.encode().hex()}@@"


def _rest(report: ReportFolder, mentioned: set[str]) -> Iterator[str]:
    """Yield what the text does not mention: all there is, where there is no text."""
    pictures = [name for name in report.pictures if name not in mentioned]
    tables = [name for name in report.tables if name not in mentioned]
    if report.text and (pictures or tables):
        yield "<h2>More</h2>"
    for name in tables if report.text else []:
        yield f"<h3>{html.escape(name)}</h3>{_table_place(name)}"
    for name in pictures:
        title = Path(name).stem
        yield f"<h3>{html.escape(title)}</h3>{_embedded(report.pictures[name], title)}"
        if not report.text and title in tables:
            tables.remove(title)
            yield _table_place(title)
    for name in [] if report.text else tables:
        yield f"<h3>{html.escape(name)}</h3>{_table_place(name)}"
    if not report.text and report.settings:
        settings = json.dumps(report.settings, indent=2)
        yield f"<h2>How it was made</h2><pre>{html.escape(settings)}</pre>"


def _table_place(name: str) -> str:
    return f'<div data-table="{html.escape(name)}"></div>'


def _embedded(file: Path, caption: str) -> str:
    content = base64.b64encode(file.read_bytes()).decode()
    alternative = html.escape(caption, quote=True)
    return f'<img alt="{alternative}" src="data:{KINDS[file.suffix]};base64,{content}">'


def _as_json(table: pd.DataFrame) -> dict[str, Any]:
    rows = table.head(ROWS).astype(object).to_numpy().tolist()
    return {"columns": [str(c) for c in table.columns], "rows": [[*map(_value, r)] for r in rows]}


def _value(value: Any) -> Any:
    """Return a cell as JSON has it: numbers that are not finite as text, missing ones as null."""
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        if math.isnan(value):
            return None
        return float(value) if math.isfinite(value) else str(value)
    return None if value is None or value is pd.NA else str(value)


def _is_shown(file: Path) -> bool:
    return not any(part in NOT_SHOWN or part.startswith(".") for part in file.parts)


def _name(folder: Path, file: Path) -> str:
    """Return a table's name: its file's, with its folder's unless that is ``tables``."""
    inner = file.relative_to(folder).with_suffix("")
    return str(inner.relative_to("tables") if inner.parts[0] == "tables" else inner)


def _read_table(file: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(file)
    except (ValueError, OSError) as error:  # of pandas, parser errors are among the former
        raise ValueError(f"{file} is not a table: {error}") from error


def _settings(records: list[Path]) -> Mapping[str, Any]:
    """Return what the record says; the settings of a validation, or the one file of a study."""
    for file in records:
        try:
            found = json.loads(file.read_text())
        except ValueError as error:
            raise ValueError(f"{file} is not JSON: {error}") from error
        if isinstance(found, dict):
            return found
    return {}
