import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from rlbilinear import BilinearConv2d, channel_spatial_svd, eigenfilters
from rlbilinear.figures import (
    Excitation,
    channel_spatial,
    channel_spatial_over,
    component_card,
    contributions,
    depth,
    eigenvector_images,
    filter_strip,
    singular_card,
    spectrum,
    sweep,
)
from rlbilinear.hosvd import hosvd
from rlbilinear.tensor import BilinearTensor

PICTURE = np.full((3, 20, 30), 128, np.uint8)


@pytest.fixture
def found():
    torch.manual_seed(0)
    return eigenfilters(BilinearConv2d(12, 4, (3, 5)), torch.ones(4))


def images(figure):
    return [image for axes in figure.axes for image in axes.get_images()]


def draws(figure, tmp_path):
    path = tmp_path / "figure.png"
    figure.savefig(path)
    return path.stat().st_size > 5_000


def test_spectrum_draws_the_values_and_counts_the_energy(tmp_path):
    figure = spectrum(torch.tensor([3.0, -2.0, 1.0]), title="Direction 7", unit="eigenfilter")
    bars, energy = figure.axes
    assert [bar.get_height() for bar in bars.patches] == [3, -2, 1]
    assert bars.patches[0].get_facecolor() != bars.patches[1].get_facecolor()
    assert [text.get_text() for text in energy.texts] == ["1: 64%", "2: 93%", "3: 100%"]
    assert figure.get_suptitle() == "Direction 7: rank 3"
    assert draws(figure, tmp_path)
    assert len(spectrum(torch.arange(90.0, 0, -1), shown=10).axes[0].patches) == 10


def test_filter_strip_shows_the_strongest_channels_on_one_scale(found, tmp_path):
    figure = filter_strip(found, k=2, channels=3)
    shown = images(figure)
    assert len(shown) == 6
    energy = (found.values[:2].abs()[:, None] * (found.filters[:2] ** 2).sum((2, 3))).sum(0)
    top = energy.argsort(descending=True)[:3].tolist()
    assert [axes.get_title() for axes in figure.axes[:3]] == [f"ch {channel}" for channel in top]
    np.testing.assert_array_equal(shown[4].get_array(), found.filters[1, top[1]].numpy())
    (scale,) = {image.get_clim() for image in shown}
    assert scale[0] == -scale[1] == -found.filters[:2, top].abs().max().item()
    assert draws(figure, tmp_path)


def test_channel_spatial_draws_patterns_and_maps(tmp_path):
    svd = channel_spatial_svd(torch.randn(6, 4, 5))
    figure = channel_spatial(svd, 2, title="Probe")
    shown = images(figure)
    np.testing.assert_array_equal(shown[1].get_array(), svd.maps[1].numpy())
    assert len({image.get_clim() for image in shown}) == 1
    heights = [bar.get_height() for bar in figure.axes[2].patches]
    np.testing.assert_allclose(heights, svd.channels[1].numpy())
    assert f"{svd.share[1].item():.1%}" in figure.axes[2].get_title("left")
    assert draws(figure, tmp_path)


def test_eigenvector_images_show_either_sign(tmp_path):
    values, vectors = torch.tensor([1.0, -3.0, 2.0, -0.5]), torch.randn(4, 5, 6)
    figure = eigenvector_images(values, vectors, shown=1, title="Digit 3")
    shown = images(figure)
    np.testing.assert_array_equal(shown[0].get_array(), vectors[2].numpy())
    np.testing.assert_array_equal(shown[1].get_array(), vectors[1].numpy())
    assert figure.axes[0].get_title() == "#2  λ +2" and figure.axes[1].get_title() == "#1  λ -3"
    assert draws(eigenvector_images(values[:3], vectors[:3]), tmp_path)


def test_component_card_shows_filters_and_what_excites_them(found, tmp_path):
    top = int((found.values > 0).nonzero()[0])
    excitations = {top: [Excitation(PICTURE, (1, 2, 5, 9), 0.25, reach=(0, 1, 7, 8))]}
    figure = component_card(
        found, torch.tensor([1.0, -2, 0, 0]), excitations, per_sign=1, channels=3
    )
    axes = figure.axes
    assert [bar.get_height() for bar in axes[1].patches] == [1, -2, 0, 0]
    assert [bar.get_height() for bar in axes[0].patches] == found.values.tolist()[:64]
    titles = [each.get_title() for each in axes]
    assert "+0.25" in titles and sum(title.startswith("ch ") for title in titles) == 6
    (patch,) = [each for each in axes if each.get_title() == "+0.25"]
    assert (patch.patches[0].get_xy(), patch.patches[0].get_height()) == ((2, 1), 4)
    dotted = patch.patches[-1]
    assert (dotted.get_xy(), dotted.get_height(), dotted.get_linestyle()) == ((1, 0), 7, ":")
    assert draws(figure, tmp_path)


def test_singular_card_shows_a_component(tmp_path):
    torch.manual_seed(0)
    svd = hosvd(BilinearTensor.of(BilinearConv2d(3, 4, 3)))
    figure = singular_card(svd, 1, (3, 3, 3))
    left, middle, right = figure.axes[:3]
    np.testing.assert_allclose([b.get_height() for b in left.patches], svd.singular_values)
    np.testing.assert_allclose([b.get_height() for b in middle.patches], svd.outputs[1])
    values = svd.component(1).eigh().values
    np.testing.assert_allclose([b.get_height() for b in right.patches], values)
    assert [bar.get_alpha() for bar in left.patches] == [0.3, 1, 0.3, 0.3]
    assert f"{float(svd.share[1]):.1%}" in figure.get_suptitle()
    assert draws(figure, tmp_path)


def test_contributions_add_up(tmp_path):
    terms = torch.tensor([1.0, -4.0, 2.0, 0.5])
    figure = contributions(
        terms,
        PICTURE,
        others={"biases": 0.25},
        maps=torch.randn(4, 2, 3),
        box=(0, 0, 4, 4),
        shown=2,
    )
    bars = next(axes for axes in figure.axes if axes.get_xlabel() == "contribution")
    assert [bar.get_width() for bar in bars.patches] == [-4, 2, 1.5, 0.25, -0.25]
    names = [label.get_text() for label in bars.get_yticklabels()]
    assert names == ["eigenvector 1", "eigenvector 2", "2 others", "biases", "sum"]
    assert figure.get_suptitle() == "An input explained: -0.25"
    assert draws(figure, tmp_path) and draws(contributions(terms, PICTURE), tmp_path)


def test_long_titles_fit(tmp_path):
    title = "the leading channel pattern of the leading eigenvector for right against the others"
    figure = contributions(torch.ones(3), PICTURE, title=f"{title} at row 3")
    figure.draw_without_rendering()
    text = figure._suptitle
    box = text.get_window_extent()
    assert "\n" in figure.get_suptitle() and box.x0 >= 0 and box.x1 <= figure.bbox.x1


def test_maps_of_contributions_lie_where_they_are_said_to():
    height, width = PICTURE.shape[1:]
    for place, edges in (((1, 2, 5, 9), (2, 9, 5, 1)), (None, (0, width, height, 0))):
        figure = contributions(torch.ones(3), PICTURE, maps=torch.randn(3, 2, 3), place=place)
        drawn = [image for image in images(figure) if image.get_array().shape[:2] == (2, 3)]
        assert [tuple(image.get_extent()) for image in drawn] == [edges] * 3


def test_depth_draws_what_is_explained_cut_below(tmp_path):
    names = ["block2", "block1"]
    chains = pd.DataFrame(
        {
            "filters": [1, 1, 4, 4],
            "down_through": 2 * names,
            "r2": [0.5, -3.0, 0.8, 0.2],
            "correlation": [0.7, 0.1, 0.9, 0.5],
            "skip_r2": [-0.5] * 4,
        }
    )
    components = pd.DataFrame({"part": "a to b", "kept": [0, 1, 32], "r2": [-9.0, 0.1, 1.0]})
    degrees = pd.DataFrame({"part": "a to b", "degree": [0, 1], "r2": [0.0, 1.0]})
    figure = depth(chains, components, degrees)
    left, middle, right = figure.axes
    lines = [[*line.get_ydata()] for line in left.lines]
    assert lines[0] == [0.5, -1] and lines[2] == [0.8, 0.2] and lines[4] == [-0.5, -0.5]
    assert [label.get_text() for label in left.get_xticklabels()] == names
    assert [*middle.lines[0].get_ydata()] == [-1, 0.1, 1]
    assert [*right.lines[0].get_ydata()] == [0, 1]
    assert draws(figure, tmp_path)
    with pytest.raises(ValueError, match="columns part, degree, r2; got"):
        depth(chains, components, degrees.drop(columns="r2"))


def test_components_over_an_input_add_up(tmp_path):
    vector, y = torch.randn(4, 3, 5), torch.randn(4, 3, 5)
    svd = channel_spatial_svd(vector)
    figure = channel_spatial_over(svd, y, PICTURE, 2)
    assert f"{float((vector * y).sum()):+.3g}" in figure.get_suptitle()
    pattern = torch.einsum("c,chw->hw", svd.channels[0], y.double())
    added = svd.singular_values[0] * svd.maps[0] * pattern
    np.testing.assert_allclose(figure.axes[1].images[1].get_array(), pattern.numpy())
    np.testing.assert_allclose(figure.axes[3].images[1].get_array(), added.numpy())
    assert f"adds {float(added.sum()):+.3g}" in figure.axes[0].get_title()
    assert draws(figure, tmp_path)


def test_sweep_draws_intervals_beside_the_whole_agent(tmp_path):
    columns = {
        "success": [0.5, 0.9, 1.0],
        "success_low": [0.4, 0.8, 0.95],
        "success_high": [0.6, 1, 1],
    }
    table = pd.DataFrame({"k": [1, 8, "all"], **columns})
    figure = sweep(table, ("success",), rank=64)
    (axes,) = figure.axes
    assert axes.get_xlabel() == "eigenvectors kept (rank 64)"
    np.testing.assert_allclose(axes.containers[0][0].get_ydata(), [0.5, 0.9])
    np.testing.assert_allclose(axes.lines[-1].get_ydata(), [1, 1])
    assert draws(figure, tmp_path)
    with pytest.raises(ValueError, match="lacks return, return_low, return_high"):
        sweep(table)
    with pytest.raises(ValueError, match="at least one row with a number"):
        sweep(table[2:], ("success",))


def test_nothing_to_draw_is_refused(found):
    with pytest.raises(ValueError, match="not all zero"):
        spectrum(torch.zeros(0))
    with pytest.raises(ValueError, match="k must be a whole number, 1 or more; got 0"):
        filter_strip(found, k=0)
    with pytest.raises(ValueError, match="0 components"):
        channel_spatial(channel_spatial_svd(torch.zeros(2, 3, 3)))
    with pytest.raises(ValueError, match="expected maps"):
        channel_spatial_over(channel_spatial_svd(torch.ones(2, 3, 3)), torch.ones(2, 3, 4), PICTURE)
    with pytest.raises(ValueError, match="uint8 picture"):
        contributions(torch.ones(2), PICTURE.astype(float))
    with pytest.raises(ValueError, match="a map for each of 2 terms"):
        contributions(torch.ones(2), PICTURE, maps=torch.ones(3, 2, 2))
    with pytest.raises(ValueError, match="shown 0"):
        eigenvector_images(torch.ones(2), torch.ones(2, 3, 3), shown=0)
    with pytest.raises(ValueError, match="per_sign"):
        component_card(found, torch.ones(4), {}, per_sign=0)


def test_importing_the_package_loads_neither_pyplot_nor_other_packages():
    command = (
        "import sys, rlbilinear, rlbilinear.figures;"
        "print([m for m in ('matplotlib.pyplot', 'envs', 'agents', 'probes', 'stable_baselines3')"
        " if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
