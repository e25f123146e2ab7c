import subprocess
import sys

import numpy as np
import pytest
import torch

from rlbilinear import BilinearConv2d, channel_spatial_svd, eigenfilters
from rlbilinear.figures import channel_spatial, filter_strip, spectrum


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


def test_nothing_to_draw_is_refused(found):
    with pytest.raises(ValueError, match="not all zero"):
        spectrum(torch.zeros(0))
    with pytest.raises(ValueError, match="k 0"):
        filter_strip(found, k=0)
    with pytest.raises(ValueError, match="0 components"):
        channel_spatial(channel_spatial_svd(torch.zeros(2, 3, 3)))


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
