"""Decompose one direction of one layer, draw it, and write it as a folder."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch.utils.tensorboard import SummaryWriter

from rlbilinear import Eigenfilters
from rlbilinear.agents import Agent
from rlbilinear.agents.edits.directions import bilinear_part
from rlbilinear.agents.folder import check_free, new_folder, write_json
from rlbilinear.envs import EVALUATION, FITTING
from rlbilinear.probes.concepts import cheese_presence
from rlbilinear.probes.dataset import collect, counterfactual_pairs
from rlbilinear.probes.directions import find_direction
from rlbilinear.probes.patches import TopActivations, played_frames, top_activations
from rlbilinear.probes.report import Drawing, markdown_table
from rlbilinear.probes.views import View, figures, maps_before
from rlbilinear.sparsity import effective_rank, participation_ratio

REPORT = "report.md"
EXCITING = 3
"""Patches shown and listed of each filter, of as many levels."""


@dataclass(frozen=True, eq=False)
class Decomposition:
    """A direction's decomposition: figures with captions, tables, and how it was made."""

    title: str
    figures: Mapping[str, Drawing]
    tables: Mapping[str, pd.DataFrame]
    settings: Mapping[str, Any]

    def save(self, directory: str | Path, *, overwrite: bool = False) -> None:
        """Write report.md, settings.json, the figures, the tables, and TensorBoard's events.

        Raises:
            FileExistsError: the folder is there, and may not be replaced.
        """
        with new_folder(directory, overwrite=overwrite, marker=REPORT) as folder:
            for name, drawing in self.figures.items():
                drawing.figure.savefig(folder / f"{name}.png", dpi=110)
            for name, table in self.tables.items():
                table.to_csv(folder / f"{name}.csv", index=False)
            write_json(folder / "settings.json", dict(self.settings))
            with SummaryWriter(str(folder / "tensorboard")) as writer:
                for name, drawing in self.figures.items():
                    writer.add_figure(name, drawing.figure, close=False)
                writer.add_text("report", self.markdown())
            (folder / REPORT).write_text(self.markdown())

    def markdown(self) -> str:
        """Return the figures with their captions, and the tables, as a text."""
        parts = [f"# {self.title}"]
        for name, drawing in self.figures.items():
            parts += [f"![{drawing.caption}]({name}.png)", f"*{drawing.caption}*"]
        for name, table in self.tables.items():
            parts += [f"## {name}", markdown_table(table.head(20)), f"*`{name}.csv`*"]
        parts += ["## To repeat it", f"```\n{json.dumps(self.settings, indent=2)}\n```"]
        return "\n\n".join(parts) + "\n"


def check_output(directory: str | Path, *, overwrite: bool = False) -> None:
    """Refuse a place where `Decomposition.save` would: call it before the work starts.

    Raises:
        FileExistsError: the folder is there, and may not be replaced.
    """
    check_free(directory, overwrite=overwrite, marker=REPORT)


def decompose(
    agent: Agent,
    layer: str,
    direction: str = "probe",
    *,
    filters: int = 6,
    levels: int = 24,
    fit_levels: int = 60,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Decomposition:
    """Decompose a direction of a bilinear layer, and draw what it does in play.

    Args:
        agent: a maze agent.
        layer: a bilinear block or layer.
        direction: by name, as in `rlbilinear.probes.directions.find_direction`.
        filters: eigenfilters drawn.
        levels: held-out levels that are played: what excites the filters most is sought in all
            frames, and one of four states of each level is explained.
        fit_levels: levels on which a probe is fitted, or a difference found.
        seed: seed of states and play.
        settings: what to record besides, such as versions and the command line.
        progress: show bars.

    Raises:
        ValueError: no bilinear layer there, or no such direction.
    """
    part_name, _ = bilinear_part(agent, layer)
    step = layer.split(".")[0]
    fitting, fit, pairs = FITTING.first(fit_levels), None, None
    if direction == "probe":
        fit = collect(agent, fitting, [step], [cheese_presence], seed=seed, progress=progress)
    elif direction == "difference":
        pairs = counterfactual_pairs(fitting, seed=seed, progress=progress)
    named = find_direction(agent, step, direction, fit, pairs)
    seen = collect(
        agent, EVALUATION.first(levels), [step, maps_before(agent, step)], [cheese_presence],
        states_per_level=4, edited=0.0, seed=seed, progress=progress,
    )  # fmt: skip
    view = View.of(agent, step, part_name, named, seen)
    frames = played_frames(agent, EVALUATION.first(levels), seed=seed)
    strongest = top_activations(agent, view.before, view.foremost, frames, count=EXCITING)
    return Decomposition(
        f"{layer}, {named.what}",
        figures(agent, view, strongest, filters),
        {"spectrum": _spectrum_table(view.found), "patches": _patch_table(view, strongest)},
        {
            "layer": layer,
            "direction": {"name": direction, "what": named.what, "vector": named.vector.tolist()},
            "levels": {"states": str(levels), "probe": str(fit_levels), "seed": seed},
            **(settings or {}),
        },
    )


def _spectrum_table(found: Eigenfilters) -> pd.DataFrame:
    values = found.values
    energy = (values**2).cumsum(0) / (values**2).sum()
    summary = {
        "effective_rank": float(effective_rank(values)),
        "participation_ratio": float(participation_ratio(values)),
    }
    table = {"index": range(len(values)), "eigenvalue": values.tolist(), "energy": energy.tolist()}
    return pd.DataFrame(table | summary)


def _patch_table(view: View, strongest: TopActivations) -> pd.DataFrame:
    """Return the patches that excite the leading filters, by the filters' own numbers."""
    table = strongest.table()
    return table.assign(filter=[view.chosen[index] for index in table["filter"]])
