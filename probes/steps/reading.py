"""Is the concept read? A probe at every layer, beside its controls."""

import pandas as pd

from rlbilinear.probes import figures as draw
from rlbilinear.probes.reading import compare_probes, probe_report
from rlbilinear.probes.report import Drawing, Section
from rlbilinear.probes.steps.result import StepResult
from rlbilinear.probes.study import Study


def read_concept(study: Study) -> StepResult:
    """Fit a probe at every layer, and its controls at the study's; score on held-out levels."""
    rows = []
    for layer in study.layers:
        report = probe_report(
            study.probes[layer],
            study.held_out,
            layer,
            study.concept,
            seed=study.seed,
            n_resamples=300,
        )
        rows.append(report.assign(layer=layer))
    by_layer = pd.concat(rows, ignore_index=True)
    controls = compare_probes(
        study.agent,
        study.fit,
        study.held_out,
        study.layer,
        study.concept,
        probe=study.probe,
        seed=study.seed,
        n_resamples=300,
    )
    scores = controls.set_index(controls.columns[0])
    shown = [("trained network", by_layer)]
    for name in ("permuted", "untrained", "pixels"):
        shown.append((f"{name} ({study.layer})", scores.loc[[name]].assign(layer=study.layer)))
    drawn = pd.concat(
        pd.DataFrame(
            {
                "features": name,
                "layer": table["layer"].to_numpy(),
                "value": table["average_precision"].to_numpy(),
                "low": table["average_precision_low"].to_numpy(),
                "high": table["average_precision_high"].to_numpy(),
            }
        )
        for name, table in shown
    )
    best = by_layer.set_index("layer").loc[study.layer]
    base = float(best["base_rate"])
    text = (
        f"A linear probe reads {study.concept.name} from {study.layer}, cell by cell, with average "
        f"precision {best['average_precision']:.3f} "
        f"[{best['average_precision_low']:.3f}, {best['average_precision_high']:.3f}] on held-out "
        f"levels. Chance is {base:.4f}; a probe of its kind has "
        f"{scores.loc['permuted', 'average_precision']:.3f} for the labels of another level, "
        f"{scores.loc['untrained', 'average_precision']:.3f} in an untrained network and "
        f"{scores.loc['pixels', 'average_precision']:.3f} on raw pixels. That the concept can be "
        "read does not say that the agent uses it."
    )
    figure = draw.probe_scores(drawn, base_rate=base)
    return StepResult(
        Section("Can the concept be read?", text, ("probe", "probe-by-layer"), ("probe-scores",)),
        tables={"probe": controls, "probe-by-layer": by_layer},
        figures={
            "probe-scores": Drawing(
                figure, "How well the concept is read at each layer, beside the controls."
            )
        },
    )
