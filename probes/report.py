"""What a validation found, as one value: to read, to see in TensorBoard, to save as a folder."""

import io
import json
import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from rlbilinear.agents import Agent, events
from rlbilinear.agents.folder import check_free, new_folder, write_json
from rlbilinear.envs.videos import gif_bytes
from rlbilinear.probes.videos import Frames

REPORT = "report.md"
VERDICTS = ("causal", "not shown", "contradicted")
COLUMNS = ("claim", "verdict", "effect", "low", "high", "control", "p", "decided_by")
IN_SHORT = "In short"
"""Title of the section that a report opens with, before the verdict."""
SHOWN_ROWS = 24
"""Rows of a table that report.md and TensorBoard show; the CSV has them all."""


@dataclass(frozen=True)
class Drawing:
    """A figure, and one sentence saying what one sees."""

    figure: Figure
    caption: str


@dataclass(frozen=True)
class Video:
    """Frames, and one sentence saying what one sees."""

    frames: Frames
    caption: str
    frames_per_second: float = 8.0


@dataclass(frozen=True)
class Section:
    """A part of the report: text, then the named tables, figures and videos."""

    title: str
    text: str
    tables: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    videos: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class ValidationReport:
    """The verdict on each claim about a probe, with all it rests on.

    Names of tables, figures, videos and agents become file names: letters, digits, ``_ . -``.

    Attributes:
        title: the report's, such as ``Does maze-bimpala-compact use the cheese?``.
        settings: how to repeat it, as JSON: command, seeds, levels used for training, fitting and
            evaluation, versions, agent, layer, concept, wall time.
        verdict: a row a claim. Columns ``claim``, as "DIRECTION: CLAIM"; ``verdict``: causal,
            not shown, contradicted; ``effect`` with its 95 % interval ``low``, ``high``;
            ``control``: the control's effect; ``p``, corrected for the number of claims;
            ``decided_by``: the figure or table that decides. The numbers may be missing.
        sections: the report from top to bottom; the verdict comes before them, and after one
            that is called `IN_SHORT`.
        tables: by name; those in no section are saved all the same, as are figures and videos.
        figures: by name.
        videos: by name.
        agents: the edited agents, by name.
        scalars: by tag, the (step, value) pairs of a curve in TensorBoard.

    Raises:
        ValueError: settings that are no JSON; a verdict with other columns or words; a section
            that names what is not there; a name that is not a file name.
    """

    title: str
    settings: dict[str, Any]
    verdict: pd.DataFrame
    sections: tuple[Section, ...] = ()
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    figures: Mapping[str, Drawing] = field(default_factory=dict)
    videos: Mapping[str, Video] = field(default_factory=dict)
    agents: Mapping[str, Agent] = field(default_factory=dict)
    scalars: Mapping[str, list[tuple[int, float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            json.dumps(self.settings, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"the settings are no JSON: {error}") from error
        if missing := [column for column in COLUMNS if column not in self.verdict]:
            raise ValueError(f"the verdict lacks {', '.join(missing)}; it needs {COLUMNS}")
        if unknown := set(self.verdict["verdict"]) - set(VERDICTS):
            raise ValueError(f"verdicts are {', '.join(VERDICTS)}; got {unknown}")
        for kind in ("tables", "figures", "videos", "agents"):
            for name in getattr(self, kind):
                if not re.fullmatch(r"\w[\w.-]*", name):
                    raise ValueError(f"a name in {kind} is letters, digits, _ . -; got {name!r}")
        if "verdict" in self.tables:
            raise ValueError("the table named 'verdict' is the verdict itself; name others apart")
        for section in self.sections:
            for kind in ("tables", "figures", "videos"):
                if unknown := set(getattr(section, kind)) - set(getattr(self, kind)):
                    raise ValueError(f"section {section.title!r} names unknown {kind}: {unknown}")

    def table(self) -> str:
        """Return the verdict as text, at most 100 columns wide."""
        rows, before = [], None
        for claim in self.verdict.itertuples():
            direction, _, name = str(claim.claim).partition(": ")
            effect = f"{_number(claim.effect, '+.3f')} {_interval(claim.low, claim.high)}".strip()
            control, p = _number(claim.control, "+.3f"), _number(claim.p, ".2g")
            shown = direction if direction != before else ""
            rows.append((shown, name, effect, control, p, claim.verdict))
            before = direction
        head = ("direction", "claim", "effect [95% interval]", "control", "p", "verdict")
        return _text_table(head, rows, limits=(30, 12, 24, 8, 8, 12))

    def to_tensorboard(self, writer: SummaryWriter) -> None:
        """Write everything but the agents: scalars, images, animated images, text, hparams."""
        assert writer.file_writer is not None
        for tag, curve in self.scalars.items():
            for step, value in curve:
                writer.add_scalar(tag, value, step)
        for path, encoded in self._pictures.items():
            tag = path.rpartition(".")[0]
            kind, name = tag.split("/")
            caption = getattr(self, kind)[name].caption
            writer.file_writer.add_summary(events.picture(tag, encoded, caption))
        writer.add_text("00 verdict", f"# {self.title}\n\n{_block(self.table())}")
        for index, section in enumerate(self.sections, 1):
            parts = [section.text, *(self._table_markdown(name) for name in section.tables)]
            writer.add_text(f"{index:02} {section.title}", "\n\n".join(parts))
        settings = json.dumps(self.settings, indent=2)
        writer.add_text(f"{len(self.sections) + 1:02} settings", _block(settings))
        measured = {f"effect/{row.claim}": row.effect for row in self.verdict.itertuples()}
        measured = {tag: float(value) for tag, value in measured.items() if pd.notna(value)}
        for summary in hparams(dict(events.flat(self.settings)), measured):
            writer.file_writer.add_summary(summary)
        for tag, value in measured.items():
            writer.add_scalar(tag, value, 0)
        writer.flush()

    def save(self, directory: str | Path, overwrite: bool = False) -> None:
        """Write a folder: report.md, settings.json, tables, figures, videos, agents, tensorboard.

        It is written under another name and moved when it is whole.

        Raises:
            FileExistsError: see `check_output`.
        """
        with new_folder(directory, overwrite=overwrite, marker=REPORT) as folder:
            for kind in ("tables", "figures", "videos", "agents"):
                (folder / kind).mkdir()
            self.verdict.to_csv(folder / "tables" / "verdict.csv", index=False)
            for name, table in self.tables.items():
                table.to_csv(folder / "tables" / f"{name}.csv", index=False)
            for path, picture in self._pictures.items():
                (folder / path).write_bytes(picture)
            for name, agent in self.agents.items():
                agent.save(folder / "agents" / name)
            write_json(folder / "settings.json", self.settings)
            with SummaryWriter(str(folder / "tensorboard")) as writer:
                self.to_tensorboard(writer)
            (folder / REPORT).write_text(self.markdown())

    def markdown(self) -> str:
        """Return the report as a text to read from top to bottom; it links to the saved files."""
        parts = [f"# {self.title}"]
        for section in self.sections:
            if section.title == IN_SHORT:
                parts += self._section_markdown(section)
        parts += ["## Verdict", self._verdict_markdown()]
        for section in self.sections:
            if section.title != IN_SHORT:
                parts += self._section_markdown(section)
        if self.agents:
            edited = [
                f"- `agents/{name}`: {'; '.join(agent.config.edits) or 'no edits'}"
                for name, agent in self.agents.items()
            ]
            parts += ["## The agents", "\n".join(edited)]
        settings = json.dumps(self.settings, indent=2)
        parts += ["## To repeat it", _block(settings)]
        return "\n\n".join(parts) + "\n"

    def _section_markdown(self, section: Section) -> list[str]:
        parts = [f"## {section.title}", section.text]
        for name in section.figures:
            parts += _picture(f"figures/{name}.png", self.figures[name].caption)
        for name in section.videos:
            parts += _picture(f"videos/{name}.gif", self.videos[name].caption)
        return [*parts, *(self._table_markdown(name) for name in section.tables)]

    @cached_property
    def _pictures(self) -> dict[str, bytes]:
        """Figures and videos, encoded, by their place in the folder."""
        drawn = {f"figures/{name}.png": _png(drawing) for name, drawing in self.figures.items()}
        return drawn | {f"videos/{name}.gif": _gif(video) for name, video in self.videos.items()}

    def _verdict_markdown(self) -> str:
        return markdown_table(self.verdict[list(COLUMNS)])

    def _table_markdown(self, name: str) -> str:
        table = self.tables[name]
        shown = markdown_table(table.head(SHOWN_ROWS))
        rest = len(table) - SHOWN_ROWS
        note = f"; {rest} more rows there" if rest > 0 else ""
        return f"{shown}\n\n*`tables/{name}.csv`{note}*"


def check_output(directory: str | Path, overwrite: bool = False) -> None:
    """Refuse a place where `ValidationReport.save` would: call it before the work starts.

    Raises:
        FileExistsError: the directory exists and ``overwrite`` is off, or it holds no report.
    """
    check_free(directory, overwrite=overwrite, marker=REPORT)


def markdown_table(table: pd.DataFrame) -> str:
    """Return a table in Markdown: numbers with three digits after the point, missing ones empty."""
    numeric = [pd.api.types.is_numeric_dtype(dtype) for dtype in table.dtypes]
    rule = ["---:" if number else "---" for number in numeric]
    rows = [[_cell(value) for value in row] for row in table.itertuples(index=False, name=None)]
    lines = [[_cell(str(column)) for column in table.columns], rule, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, float | np.floating):
        return _number(float(value), ".3f")
    if value is None or value is pd.NA:
        return ""
    return str(value).replace("|", "\\|").replace("\n", " ")


def _number(value: float, form: str) -> str:
    """Format a number; those too large or small for the form in scientific notation."""
    if pd.isna(value):
        return ""
    plain = form.endswith("g") or value == 0 or 1e-3 <= abs(value) < 1e5
    return format(value, form if plain else ".1e")


def _interval(low: float, high: float) -> str:
    if pd.isna(low) or pd.isna(high):
        return ""
    return f"[{low:+.3f}, {high:+.3f}]"


def _text_table(head: Iterable[str], rows: Iterable[Iterable[str]], limits: Iterable[int]) -> str:
    """Set a table in columns as wide as needed, cells longer than the limit broken into lines."""
    broken = [
        [textwrap.wrap(cell, limit) or [""] for cell, limit in zip(row, limits, strict=True)]
        for row in (head, *rows)
    ]
    columns = zip(*broken, strict=True)
    widths = [max(len(line) for cell in column for line in cell) for column in columns]
    lines = []
    for row in broken:
        for index in range(max(map(len, row))):
            parts = [cell[index] if index < len(cell) else "" for cell in row]
            padded = [part.ljust(width) for part, width in zip(parts, widths, strict=True)]
            lines.append("  ".join(padded).rstrip())
    rule = "  ".join("-" * width for width in widths)
    after_head = max(map(len, broken[0]))
    return "\n".join([*lines[:after_head], rule, *lines[after_head:]])


def _picture(path: str, caption: str) -> list[str]:
    return [f"![{caption}]({path})", f"*{caption}*"]


def _block(text: str) -> str:
    return f"```\n{text}\n```"


def _png(drawing: Drawing) -> bytes:
    buffer = io.BytesIO()
    drawing.figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def _gif(video: Video) -> bytes:
    frames = video.frames.transpose(0, 2, 3, 1)
    return gif_bytes(frames, frames_per_second=video.frames_per_second)
