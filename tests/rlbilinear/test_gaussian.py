import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlbilinear import Gaussian, estimate_gaussian
from rlbilinear.gaussian import GaussianMixture, LowRankCovariance, as_gaussian

CPU = torch.device("cpu")


def samples(n=60, d=5, rank=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    factor = torch.randn(d, rank, generator=generator, dtype=torch.float64)
    return torch.randn(n, rank, generator=generator, dtype=torch.float64) @ factor.T + 3


@given(st.lists(st.integers(0, 60), max_size=5), st.integers(0, 3))
def test_any_split_into_batches_gives_the_whole(cuts, seed):
    x = samples(seed=seed)
    whole = np.cov(x.numpy().T, bias=True)
    pieces = torch.tensor_split(x, sorted(cuts))
    full = estimate_gaussian(iter(pieces))
    np.testing.assert_allclose(full.mean, x.mean(0), atol=1e-12)
    np.testing.assert_allclose(full.covariance, whole, atol=1e-12)
    diagonal = estimate_gaussian(iter(pieces), "diagonal")
    np.testing.assert_allclose(diagonal.covariance, whole.diagonal(), atol=1e-12)


@pytest.mark.parametrize("covariance", ["full", "diagonal", 3])
def test_a_large_mean_does_not_cancel(covariance):
    x = samples(4000)
    near = estimate_gaussian(x.split(500), covariance)
    far = estimate_gaussian((x + 1e6).split(500), covariance)
    np.testing.assert_allclose(far.matrix(), near.matrix(), rtol=1e-8, atol=1e-8)


def test_float32_batches_are_added_up_in_float64():
    x = samples(4000).float()
    found = estimate_gaussian(x.split(100))
    np.testing.assert_allclose(
        found.covariance, np.cov(x.double().numpy().T, bias=True), rtol=1e-12
    )


def test_low_rank_is_exact_where_the_rank_is_low():
    x = samples(500, d=20, rank=3)
    found = estimate_gaussian(x.split(37), 3)
    assert found.covariance.factor.shape == (20, 3)
    np.testing.assert_allclose(found.matrix(), np.cov(x.numpy().T, bias=True), atol=1e-12)
    np.testing.assert_allclose(found.covariance.diagonal, 0, atol=1e-12)


def test_low_rank_keeps_every_variance_and_never_exceeds_the_covariance():
    x = samples(2000, d=20, rank=20)
    whole = torch.as_tensor(np.cov(x.numpy().T, bias=True))
    found = estimate_gaussian(x.split(250), 5)
    np.testing.assert_allclose(found.diagonal(), whole.diagonal(), rtol=1e-10)
    left = whole - found.covariance.factor @ found.covariance.factor.T
    assert torch.linalg.eigvalsh(left).min() > -1e-10
    best = torch.linalg.eigvalsh(whole)[:-5].sum()
    assert left.trace() < 1.1 * best


@pytest.mark.parametrize("kind", ["full", "diagonal", "low rank"])
def test_products_with_a_covariance(kind):
    torch.manual_seed(0)
    factor, diagonal = torch.randn(6, 2).double(), torch.rand(6).double()
    covariance, dense = {
        "full": (factor @ factor.T, factor @ factor.T),
        "diagonal": (diagonal, diagonal.diag()),
        "low rank": (
            LowRankCovariance(factor, diagonal),
            factor @ factor.T + diagonal.diag(),
        ),
    }[kind]
    gaussian = as_gaussian(None, covariance, 6, CPU)
    rows, others = torch.randn(2, 3000, 6).double()
    torch.testing.assert_close(gaussian.matrix(), dense)
    torch.testing.assert_close(gaussian.diagonal(), dense.diagonal())
    torch.testing.assert_close(gaussian.times(rows), rows @ dense)
    torch.testing.assert_close(gaussian.cross(rows, others), (rows @ dense * others).sum(1))
    torch.testing.assert_close(gaussian.variance(rows), (rows @ dense * rows).sum(1))


def test_directions_that_do_not_vary_have_variance_zero():
    x = samples(500, d=12, rank=3)
    gaussian = estimate_gaussian(x)
    null = torch.linalg.eigh(gaussian.covariance).eigenvectors[:, :9].T
    assert (gaussian.variance(1e6 * null) == 0).all()
    tiny = Gaussian(gaussian.mean, gaussian.covariance * 1e-12)
    assert (tiny.variance(torch.eye(12).double()) > 0).all()


def test_numbers_are_taken_in_full_precision():
    gaussian = as_gaussian(0.1, 0.3, 2, CPU)
    assert gaussian.mean.tolist() == [0.1, 0.1]
    assert gaussian.covariance.tolist() == [0.3, 0.3]
    low = as_gaussian(None, LowRankCovariance(torch.ones(2, 1), 0.7), 2, CPU)
    assert low.covariance.diagonal.tolist() == [0.7, 0.7]


NAN = float("nan")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: as_gaussian(torch.zeros(2), None, 3, CPU), r"mean: expected shape \(3,\)"),
        (lambda: as_gaussian(torch.full((3,), NAN), None, 3, CPU), "mean: expected finite"),
        (lambda: as_gaussian(None, torch.eye(2), 3, CPU), r"covariance: expected .* \(2, 2\)"),
        (lambda: as_gaussian(None, torch.full((3, 3), NAN), 3, CPU), "covariance: .*finite"),
        (lambda: as_gaussian(None, -1.0, 3, CPU), "covariance: a variance is negative"),
        (
            lambda: as_gaussian(None, torch.tensor([1.0, 1, -1]), 3, CPU),
            "covariance: a variance is negative",
        ),
        (
            lambda: as_gaussian(None, torch.tensor([[1.0, 0.5], [0, 1]]), 2, CPU),
            "covariance: not symmetric",
        ),
        (
            lambda: as_gaussian(None, torch.tensor([[1.0, 2], [2, 1]]), 2, CPU),
            "covariance: not positive semi-definite, its lowest eigenvalue is -1",
        ),
        (lambda: as_gaussian(None, LowRankCovariance(torch.ones(4, 1)), 3, CPU), "covariance: .*3"),
        (lambda: LowRankCovariance(torch.ones(4)), "covariance: expected a factor"),
        (lambda: LowRankCovariance(torch.ones(4, 1), torch.ones(3)), "covariance: expected"),
        (lambda: LowRankCovariance(torch.ones(4, 1), -0.1), "covariance: the diagonal is neg"),
        (lambda: LowRankCovariance(torch.full((4, 1), NAN)), "covariance: .*finite"),
        (lambda: estimate_gaussian([]), "batches: no samples"),
        (lambda: estimate_gaussian(torch.zeros(0, 3)), "batches: no samples"),
        (lambda: estimate_gaussian(torch.zeros(3)), "batches: expected"),
        (
            lambda: estimate_gaussian([torch.zeros(3, 2), torch.zeros(3, 4)]),
            r"batches: expected \(batch, 2\), got \(3, 4\)",
        ),
        (lambda: estimate_gaussian(torch.full((3, 2), NAN)), "batches: expected finite"),
        (lambda: estimate_gaussian(torch.zeros(3, 2), "banded"), "covariance: expected 'full'"),
        (lambda: estimate_gaussian(torch.zeros(3, 2), 0), "covariance: expected 'full'"),
        (lambda: GaussianMixture((1.0,), ()), "mixture: expected one weight"),
        (
            lambda: GaussianMixture((0.5, 0.2), (Gaussian(torch.zeros(1), torch.ones(1)),) * 2),
            "mixture: the weights",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_what_is_not_numbers_is_named():
    with pytest.raises(TypeError, match="covariance: expected numbers, got 'full'"):
        as_gaussian(None, "full", 3, CPU)
    with pytest.raises(TypeError, match="mean: expected numbers"):
        as_gaussian("zero", None, 3, CPU)
