import pandas as pd
import pytest

from rlbilinear.probes.steering_figure import steering_panels


def table():
    rows = [("real cheese", 1.0, 0.9), ("no cheese", 1.0, 0.2), ("own cheese", 1.0, 0.1)]
    for way, best in (("planted", 0.7), ("moved", 0.8), ("beside", 0.5)):
        rows += [(f"{way}: probe", 1.0, 0.3), (f"{way}: random", 1.0, 0.15)]
        rows += [(f"{way}: difference", gain, best) for gain in (1.0, 2.0)]
    found = pd.DataFrame(rows, columns=["condition", "gain", "right"])
    return found.assign(low=found["right"] - 0.05, high=found["right"] + 0.05)


def test_a_panel_for_each_way_sorted_with_lines_for_real_and_unedited():
    figure = steering_panels(table(), controls=("random",))
    assert len(figure.axes) == 3
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["random", "probe", "difference"]
    for axes, best, unedited in zip(figure.axes, (0.7, 0.8, 0.5), (0.2, 0.1, 0.1), strict=True):
        points = axes.collections[-1].get_offsets()
        assert sorted(points[:, 0].tolist()) == [0.15, 0.3, best]
        lines = {line.get_label(): line.get_xdata()[0] for line in axes.lines}
        assert lines == {"a real cheese there": 0.9, "unedited": unedited}


def test_a_gain_without_rows_is_refused():
    with pytest.raises(ValueError, match="has no rows of gain 3"):
        steering_panels(table(), gain=3.0)
