"""Closed-form polynomial approximants, against a least-squares fit on features."""

import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from rlbilinear import approximate, estimate_gaussian
from rlbilinear.benchmarks.measure import Comparison, Cost, measure, peak_memory

DIGITS = (784, 256, 10)
DIGITS_SECONDS, DIGITS_MB = 0.2, 100
WIDE = (4096, 16384, 4096)
WIDE_SECONDS, WIDE_MB = 60.0, 4000
FITTED = (96, 256, 10)
"""The largest inputs whose quadratic features, 4,753, are fitted in about a minute on one core."""
SAMPLES_PER_FEATURE = 4
BATCH = 1024


def comparisons() -> Iterator[Comparison]:
    """Measure the fit at two sizes, its R², its evaluation, and the fit on features."""
    torch.manual_seed(0)
    yield from _digits()
    yield _against_features()
    yield _statistics()
    yield _wide()


def _digits() -> Iterator[Comparison]:
    network, covariance = _network(*DIGITS), _covariance(DIGITS[0])
    cost = measure(lambda: approximate(network, 2, None, covariance))
    yield Comparison(
        f"{_name(DIGITS)}, degree 2, full covariance",
        cost,
        target=f"{DIGITS_SECONDS} s, {DIGITS_MB} MB",
        met=cost.seconds <= DIGITS_SECONDS and cost.megabytes <= DIGITS_MB,
    )
    polynomial = approximate(network, 2, None, covariance)
    # a copy has not the answer that the value remembers
    yield Comparison(
        f"{_name(DIGITS)}: R² of every output and order", measure(lambda: polynomial.to("cpu").r2)
    )
    for degree in (2, 10):
        x = torch.randn(BATCH, DIGITS[0])
        fitted = approximate(network, degree, None, covariance)
        with torch.inference_mode():
            yield Comparison(
                f"{_name(DIGITS)}: {BATCH} samples at degree {degree}, float32",
                measure(partial(fitted, x)),
                "the network itself",
                measure(partial(network, x)),
            )


def _against_features() -> Comparison:
    """Fit every monomial to samples, by normal equations gathered batch by batch."""
    inputs = FITTED[0]
    network, covariance = _network(*FITTED), _covariance(inputs)
    factor = torch.linalg.cholesky(covariance)
    fits: list[Tensor] = []
    other = _once(lambda: fits.append(_fit_features(network, factor)))
    x = torch.randn(10_000, inputs).double() @ factor.T
    with torch.no_grad():
        y = network(x.float()).double()
    fitted = torch.cat([_monomials(batch) @ fits[0] for batch in x.split(BATCH)])
    theirs = 1 - (y - fitted).square().sum(0) / (y - y.mean(0)).square().sum(0)
    ours = approximate(network, 2, None, covariance).measured_r2(x)
    return Comparison(
        f"{_name(FITTED)}, degree 2, full covariance; R² on fresh samples {ours.mean():.4f}",
        measure(lambda: approximate(network, 2, None, covariance)),
        f"least squares on {len(fits[0]):,} features, {SAMPLES_PER_FEATURE} times as many samples; "
        f"R² {theirs.mean():.4f}",
        other,
    )


def _fit_features(network: nn.Module, factor: Tensor) -> Tensor:
    """Return the least-squares weights of all monomials up to degree two."""
    inputs = len(factor)
    features = 1 + inputs + inputs * (inputs + 1) // 2
    gram, crossed = torch.zeros(features, features).double(), torch.zeros(features, 1).double()
    for _ in range(0, SAMPLES_PER_FEATURE * features, BATCH):
        x = torch.randn(BATCH, inputs).double() @ factor.T
        with torch.no_grad():
            y = network(x.float()).double()
        monomials = _monomials(x)
        gram.addmm_(monomials.T, monomials)
        crossed = crossed + monomials.T @ y
    return torch.linalg.solve(gram, crossed, left=True)


def _monomials(x: Tensor) -> Tensor:
    i, j = torch.triu_indices(x.shape[1], x.shape[1])
    return torch.cat([torch.ones(len(x), 1).to(x), x, x[:, i] * x[:, j]], 1)


def _statistics() -> Comparison:
    x = torch.randn(16 * BATCH, DIGITS[0])
    return Comparison(
        f"mean and covariance of {len(x):,} inputs of {DIGITS[0]} numbers, streamed",
        measure(lambda: estimate_gaussian(iter(x.split(BATCH)))),
        "torch.cov of all at once, in float64",
        measure(lambda: torch.cov(x.double().T)),
    )


def _wide() -> Comparison:
    network, covariance = _network(*WIDE), _covariance(WIDE[0])
    ours = _once(lambda: approximate(network, 2, None, covariance))
    return Comparison(
        f"{_name(WIDE)}, degree 2, full covariance",
        ours,
        target=f"{WIDE_SECONDS:g} s, {WIDE_MB} MB",
        met=ours.seconds <= WIDE_SECONDS and ours.megabytes <= WIDE_MB,
    )


def _network(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def _covariance(inputs: int) -> Tensor:
    factor = torch.randn(inputs, inputs).double()
    return factor @ factor.T / inputs


def _name(sizes: tuple[int, int, int]) -> str:
    return "-".join(map(str, sizes))


def _once(call: Callable[[], object]) -> Cost:
    """Time a long call in the run whose memory is taken."""
    seconds: list[float] = []

    def timed() -> None:
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)

    megabytes = peak_memory(timed)
    return Cost(seconds[0], megabytes)
