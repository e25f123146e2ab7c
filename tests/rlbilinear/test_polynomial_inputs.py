import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score

from ordinary_networks import conv_cases, evaluate, gaussian_of, glu, mlp
from rlbilinear import Gaussian, approximate, estimate_gaussian
from rlbilinear.gaussian import GaussianMixture

# Mixtures


@pytest.mark.parametrize("make", [mlp, glu])
def test_linear_fit_of_a_mixture(make):
    network = make("relu", d=3)
    torch.manual_seed(7)
    weights = (0.2, 0.5, 0.3)
    parts = [gaussian_of(3, seed) for seed in range(3)]
    mixture = GaussianMixture(weights, tuple(Gaussian(m, c) for m, c, _ in parts))
    p = approximate(network, 1, mixture=mixture)
    counts = [int(600_000 * w) for w in weights]
    x = torch.cat(
        [m + torch.randn(n, 3).double() @ f.T for n, (m, _, f) in zip(counts, parts, strict=True)]
    )
    y = evaluate(network, x)
    features = torch.cat([x, torch.ones(len(x), 1)], 1)
    fitted = torch.linalg.lstsq(features, y).solution
    torch.testing.assert_close(p.coefficients(1), fitted[:3].T, atol=0.01, rtol=0)
    torch.testing.assert_close(p(x[:50]), features[:50] @ fitted, atol=0.05, rtol=0)
    torch.testing.assert_close(p.variance, y.var(0), rtol=0.02, atol=0)
    torch.testing.assert_close(
        p.r2, p.measured_r2(x, lambda x: evaluate(network, x)), atol=5e-3, rtol=0
    )
    constant = approximate(network, 0, mixture=mixture)
    torch.testing.assert_close(constant(x[0]), y.mean(0), atol=0.02, rtol=0)


def test_mixture_of_one_and_of_singular_components():
    network = mlp("silu", d=3)
    mean, covariance, _ = gaussian_of(3)
    one = approximate(network, 1, mixture=GaussianMixture((1.0,), (Gaussian(mean, covariance),)))
    x = torch.randn(5, 3).double()
    torch.testing.assert_close(one(x), approximate(network, 1, mean, covariance)(x))
    torch.testing.assert_close(one.r2, approximate(network, 1, mean, covariance).r2)
    points = tuple(Gaussian(torch.randn(3).double(), torch.zeros(3)) for _ in range(3))
    through = approximate(network, 1, mixture=GaussianMixture((0.2, 0.5, 0.3), points))
    centres = torch.stack([g.mean for g in points])
    torch.testing.assert_close(through(centres), evaluate(network, centres))
    torch.testing.assert_close(through.r2, torch.ones(3).double())
    with pytest.raises(ValueError, match="does not hold the network's own function"):
        through.measured_r2(x)


def test_what_mixtures_cannot_do_is_refused():
    g = Gaussian(torch.zeros(2), torch.ones(2))
    mixture = GaussianMixture((0.5, 0.5), (g, g))
    with pytest.raises(TypeError, match="mixture: expected a GaussianMixture, got float"):
        approximate(mlp("relu"), 1, mixture=0.5)
    with pytest.raises(ValueError, match="degree: a mixture"):
        approximate(mlp("relu"), 2, mixture=mixture)
    with pytest.raises(ValueError, match="mixture: give either"):
        approximate(mlp("relu"), 1, 0.0, mixture=mixture)
    fields = GaussianMixture((1.0,), (Gaussian(torch.zeros(50), torch.ones(50)),))
    with pytest.raises(ValueError, match="mixture: not for a convolution after"):
        approximate(conv_cases()["conv act conv"], 1, mixture=fields)


# R² on real inputs


def test_measured_r2_is_that_of_scikit_learn():
    network = mlp("relu", d=4)
    torch.manual_seed(2)
    x = torch.rand(3000, 4).double() ** 2
    p = approximate(network, 2, *estimate_gaussian(x))
    y = evaluate(network, x)
    both = p.r2_on(x.split(700))
    for degree in range(3):
        expected = r2_score(y, p.truncate(degree)(x), multioutput="raw_values")
        np.testing.assert_allclose(both.measured[degree], expected, atol=1e-10)
    np.testing.assert_allclose(p.measured_r2(x), both.measured[-1])
    np.testing.assert_allclose(
        p.measured_r2(x.split(10), lambda x: evaluate(network, x)), both.measured[-1]
    )
    np.testing.assert_allclose(both.gaussian[0], 0)
    np.testing.assert_allclose(both.gaussian[2], p.r2)
    table = both.table()
    assert list(table) == ["output", "degree", "gaussian_r2", "measured_r2"]
    assert len(table) == 9
    row = table[(table.output == 2) & (table.degree == 1)].iloc[0]
    assert row.measured_r2 == both.measured[1, 2].item()
    assert row.gaussian_r2 == both.gaussian[1, 2].item()


def test_constant_outputs_have_no_r2():
    first, _, last = mlp("relu", d=4)
    with torch.no_grad():
        last.weight[1] = 0
    p = approximate((first, "relu", last), 2)
    both = p.r2_on(torch.randn(100, 4).double())
    for r2 in (both.gaussian[:, 1], both.measured[:, 1], p.r2[1]):
        assert r2.isnan().all()
    assert torch.isfinite(both.measured[:, [0, 2]]).all()
