import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from rlbilinear.probes import figures
from rlbilinear.probes.figures import CONTROL

INTERCHANGE = pd.DataFrame(
    [
        ("block2", "difference", 2, 0.9),
        ("block1", "difference", 1, 0.5),
        ("block1", "difference", 2, 0.75),
        ("block2", "random", 2, -0.02),
        ("block1", "all", np.nan, 1.0),
        ("block1", "unpatched", np.nan, np.nan),
    ],
    columns=["layer", "subspace", "rank", "share"],
)
EFFECTS = pd.DataFrame(
    [
        ("ablate", "necessity", -0.4, -0.5, -0.3),
        ("ablate", "control", 0.01, -0.02, 0.03),
        ("plant", "steering", 0.7, 0.6, 0.8),
        ("plant", "control", 0.0, -0.1, 0.1),
    ],
    columns=["intervention", "kind", "effect", "low", "high"],
)
DOSE = pd.DataFrame(
    [
        (name, kind, factor, metric, slope * factor, slope * factor - 0.1, slope * factor + 0.1)
        for name, kind, slope in (("writers", "edit", 0.5), ("random", "control", 0.0))
        for metric in ("success", "KL")
        for factor in (2.0, -1.0, 0.0, 1.0)
    ],
    columns=["intervention", "kind", "factor", "metric", "value", "low", "high"],
)
SCORES = pd.DataFrame(
    [
        ("trained", "block1", 0.9, 0.8, 0.95),
        ("trained", "block2", 0.7, 0.6, 0.75),
        ("raw pixels", None, 0.4, 0.3, 0.5),
    ],
    columns=["features", "layer", "value", "low", "high"],
)
SHARES = pd.DataFrame(
    [("skip", "variance", 0.8), ("skip", "difference", 0.7), ("block1", "variance", -0.1)],
    columns=["writer", "quantity", "share"],
)
CURVES = pd.DataFrame(
    {"features": "trained", "recall": [1.0, 0.0, 0.5], "precision": [0.2, 1.0, 0.9]}
)
DRAWN = [
    (figures.interchange_grid, INTERCHANGE, {}),
    (figures.dose_response, DOSE, {}),
    (figures.forest, EFFECTS, {}),
    (figures.probe_scores, SCORES, {"base_rate": 0.01}),
    (figures.precision_recall, CURVES, {"base_rate": 0.01}),
    (figures.writer_shares, SHARES, {}),
]


def lines(axes):
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


@pytest.mark.parametrize(("draw", "table", "arguments"), DRAWN)
def test_titles_are_written_and_the_picture_fits_tensorboard(draw, table, arguments):
    figure = draw(table, title="What is seen", **arguments)
    assert figure.get_suptitle() == "What is seen"
    assert all(axes.get_xlabel() for axes in figure.axes if axes.get_label() != "<colorbar>")
    assert 600 <= figure.get_figwidth() * 100 <= 900
    buffer = io.BytesIO()
    figure.savefig(buffer)
    assert buffer.getvalue().startswith(b"\x89PNG")


@pytest.mark.parametrize(("draw", "table", "arguments"), DRAWN)
def test_a_table_without_a_column_or_without_rows_is_refused(draw, table, arguments):
    with pytest.raises(ValueError, match=rf"lacks {table.columns[0]}.*expected"):
        draw(table.drop(columns=table.columns[0]), **arguments)
    with pytest.raises(ValueError, match="no rows"):
        draw(table.head(0), **arguments)


def test_interchange_grid_shows_the_table_with_its_numbers():
    figure = figures.interchange_grid(INTERCHANGE)
    panels = {axes.get_title(): axes for axes in figure.axes if axes.get_title()}
    assert list(panels) == ["difference", "random", "all"]
    difference = panels["difference"]
    shown = difference.images[0].get_array().filled(np.nan)
    np.testing.assert_equal(shown, [[np.nan, 0.9], [0.5, 0.75]])
    assert [label.get_text() for label in difference.get_yticklabels()] == ["block2", "block1"]
    assert [label.get_text() for label in difference.get_xticklabels()] == ["1", "2"]
    written = {text.get_position(): text.get_text() for text in difference.texts}
    assert written == {(1, 0): "0.90", (0, 1): "0.50", (1, 1): "0.75"}
    assert [label.get_text() for label in panels["all"].get_xticklabels()] == ["-"]
    assert all(axes.images[0].get_clim() == (0, 1) for axes in panels.values())


def test_dose_response_draws_a_panel_a_metric_and_controls_in_grey():
    figure = figures.dose_response(DOSE)
    assert [axes.get_title() for axes in figure.axes] == ["success", "KL"]
    for axes in figure.axes:
        drawn = lines(axes)
        np.testing.assert_allclose(drawn["writers"].get_xdata(), [-1, 0, 1, 2])
        np.testing.assert_allclose(drawn["writers"].get_ydata(), [-0.5, 0, 0.5, 1])
        assert drawn["random"].get_color() == CONTROL
        assert drawn["writers"].get_color() != CONTROL


def test_forest_writes_no_interval_that_is_not_there():
    (axes,) = figures.forest(EFFECTS.assign(low=EFFECTS["effect"], high=EFFECTS["effect"])).axes
    assert {text.get_text() for text in axes.texts} == {"-0.400", "+0.010", "+0.700", "+0.000"}


def test_forest_draws_each_effect_beside_its_control():
    (axes,) = figures.forest(EFFECTS).axes
    drawn = lines(axes)
    assert drawn["control"].get_color() == CONTROL
    np.testing.assert_allclose(drawn["control"].get_xdata(), [0.01, 0.0])
    np.testing.assert_allclose(np.round(drawn["control"].get_ydata()), [0, 1])
    spans = np.concatenate([part.get_segments() for part in axes.collections])[:, :, 0]
    assert sorted(map(tuple, spans)) == [(-0.5, -0.3), (-0.1, 0.1), (-0.02, 0.03), (0.6, 0.8)]
    assert "-0.400 [-0.500, -0.300]" in [text.get_text() for text in axes.texts]


def test_probe_scores_draws_what_has_no_layer_across_all():
    (axes,) = figures.probe_scores(SCORES, base_rate=0.01).axes
    drawn = lines(axes)
    np.testing.assert_allclose(drawn["trained"].get_ydata(), [0.9, 0.7])
    np.testing.assert_allclose(drawn["raw pixels"].get_ydata(), [0.4, 0.4])
    np.testing.assert_allclose(drawn["base rate 0.010"].get_ydata(), [0.01, 0.01])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["block1", "block2"]


def test_precision_recall_goes_from_left_to_right():
    (axes,) = figures.precision_recall(CURVES, base_rate=0.2).axes
    np.testing.assert_allclose(lines(axes)["trained"].get_xydata(), [[0, 1], [0.5, 0.9], [1, 0.2]])


def test_writer_shares_draws_a_bar_a_row():
    (axes,) = figures.writer_shares(SHARES).axes
    bars = {bars.get_label(): [bar.get_width() for bar in bars] for bars in axes.containers}
    assert bars == {"variance": [0.8, -0.1], "difference": [0.7]}
    colours = {to_hex(bars[0].get_facecolor()) for bars in axes.containers}
    assert len(colours) == 2
