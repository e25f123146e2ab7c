"""Refitting on real inputs; the closed form itself is tested in test_polynomial.py."""

import numpy as np
import pytest
import torch
from torch import nn

from rlbilinear import GatedLinear, Gaussian, approximate, estimate_gaussian
from rlbilinear.approximation import refit
from rlbilinear.convert import load_polynomial, save_polynomial, to_module
from rlbilinear.gaussian import GaussianMixture
from rlbilinear.one_hidden_layer import receptive_fields


def networks():
    torch.manual_seed(0)
    first, value = (nn.Linear(4, 6).double() for _ in range(2))
    last = nn.Linear(6, 3).double()
    return {
        "mlp": (first, "relu", last),
        "mlp no down": (first, "gelu"),
        "glu": GatedLinear(first, value, last, "silu"),
        "glu no down": GatedLinear(first, value, None, "relu"),
    }


def heavy(n):
    """Inputs of heavy, skewed tails."""
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(1)).double()
    return x * x.abs() + 0.3 * x.exp()


@pytest.mark.parametrize("kind", networks())
def test_a_unit_is_fitted_by_least_squares(kind):
    network, x = networks()[kind], heavy(500)
    p = approximate(network, 2, *estimate_gaussian(x))
    found = refit(p, [x[:200], x[200:]])
    gate = network.gate if isinstance(network, GatedLinear) else network[0]
    y = gate(x).detach()
    own = p.activation(y)
    for unit in range(6):
        t = y[:, unit].numpy()
        features, wanted = np.vander(t, 3), own[:, unit].numpy()
        if p.units.factor is not None:
            z = network.value(x).detach()[:, unit].numpy()
            features, wanted = np.c_[features, z, z * t], wanted * z
        expected = features @ np.linalg.lstsq(features, wanted, rcond=None)[0]
        alone = found.with_tensors(
            {name: tensor for name, tensor in found.tensors().items() if name != "down"}
            | {"bias": torch.zeros(6).double()}
        )
        assert np.allclose(alone(x)[:, unit].numpy(), expected, atol=1e-8)
    if found.down is None:
        assert (found.measured_r2(x) > p.measured_r2(x)).all()


@pytest.mark.parametrize("kind", networks())
def test_on_gaussian_inputs_it_is_the_closed_form(kind):
    x = torch.randn(100_000, 4).double()
    p = approximate(networks()[kind], 2)
    found = refit(p, x)
    torch.testing.assert_close(found.values, p.values, atol=0.05, rtol=0.05)
    assert (found.r2 <= p.r2).all()
    torch.testing.assert_close(found.r2, p.r2, atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", networks())
def test_its_r2_under_the_gaussian_against_simulation(kind):
    p = approximate(networks()[kind], 3)
    found = refit(p, heavy(400))
    draws = torch.randn(400_000, 4, generator=torch.Generator().manual_seed(2)).double()
    both = found.r2_on(draws)
    torch.testing.assert_close(found.r2, both.measured[-1], atol=0.02, rtol=0.02)
    # cut after any order as well, the constant alone included
    torch.testing.assert_close(both.gaussian, both.measured, atol=0.02, rtol=0.02)
    assert (p.r2 - found.r2 > 0.01).any()
    torch.testing.assert_close(found.truncate(1).r2, both.gaussian[1])
    assert torch.equal(refit(found, heavy(400)).best.values, p.values)


def test_a_convolution_is_fitted_where_its_hidden_places_lie_on_the_map():
    torch.manual_seed(3)
    first, last = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)
    network = nn.Sequential(first, nn.ReLU(), last).double()
    images = heavy(5 * 2 * 6 * 7 // 4).reshape(5, 2, 6, 7)
    p = approximate(network, 2, *estimate_gaussian(receptive_fields(network, images)))
    found = refit(p, images)
    y = network[0](images).detach()
    for channel, tap, seen in (
        (1, 4, y),  # the middle tap sees the whole map
        (2, 0, y[..., :-1, :-1]),  # the upper left one all but the last row and column
        (3, 7, y[..., 1:, :]),
    ):
        unit = channel * 9 + tap
        t = ((seen[:, channel] - p.units.mean[unit]) / p.units.std[unit]).flatten().numpy()
        c2, c1, c0 = np.polyfit(t, seen[:, channel].relu().flatten().numpy(), 2)
        a0, a1, a2 = found.values[:, unit].tolist()
        half = 2**-0.5
        assert np.allclose((a0 - a2 * half, a1, a2 * half), (c0, c1, c2), atol=1e-8)


def test_constant_units_and_rank():
    network = (nn.Linear(3, 4).double(), "relu", nn.Linear(4, 2).double())
    with torch.no_grad():
        network[0].weight[1] = 0
    x = torch.randn(2, 3).double()  # fewer samples than coefficients
    found = refit(approximate(network, 2), x)
    torch.testing.assert_close(found(x), found.network(x))


def test_saved_converted_and_refused(tmp_path):
    network, x = networks()["glu"], heavy(300)
    found = refit(approximate(network, 2), x)
    save_polynomial(found, tmp_path / "p.safetensors")
    again = load_polynomial(tmp_path / "p.safetensors")
    torch.testing.assert_close(again(x), found(x))
    torch.testing.assert_close(again.r2, found.r2)
    torch.testing.assert_close(to_module(found, torch.float64)(x).detach(), found(x))
    cubic = refit(approximate(network, 3), x)
    torch.testing.assert_close(to_module(cubic, torch.float64)(x), cubic(x))
    with pytest.raises(ValueError, match="inputs: expected at least one batch"):
        refit(found, [])
    with pytest.raises(ValueError, match=r"x: expected \(\.\.\., 4\), got \(2, 5\)"):
        refit(found, torch.zeros(2, 5))
    mixture = GaussianMixture((1.0,), (Gaussian(torch.zeros(4), torch.ones(4)),))
    fitted = approximate(networks()["mlp"], 1, mixture=mixture)
    with pytest.raises(ValueError, match="does not hold the network's own function"):
        refit(fitted, x)


@pytest.mark.cuda
@pytest.mark.parametrize("kind", networks())
def test_cuda(kind):
    network, x = networks()[kind], heavy(300)
    here = refit(approximate(network, 2, *estimate_gaussian(x)), x)
    for part in [network] if isinstance(network, nn.Module) else network[::2]:
        part.cuda()
    there = refit(approximate(network, 2, *estimate_gaussian(x.cuda())), x.cuda())
    assert there(x.cuda()).is_cuda and to_module(there, torch.float64)(x.cuda()).is_cuda
    torch.testing.assert_close(there(x.cuda()).cpu(), here(x))
    torch.testing.assert_close(there.r2.cpu(), here.r2)
    torch.testing.assert_close(there.to("cpu")(x), here(x))
