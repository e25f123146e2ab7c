"""An estimate with its interval."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

CONFIDENCE = 0.95
"""Of the intervals, where nothing else is asked for."""


class Interval(NamedTuple):
    """An estimate with its confidence interval; nan where there is none."""

    estimate: float
    low: float
    high: float


def percentiles(
    estimate: float | np.ndarray,
    resampled: Float[np.ndarray, "resamples"],
    confidence: float = CONFIDENCE,
) -> Interval:
    """Return an estimate with the percentile interval of its bootstrap samples."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, (tail, 1 - tail))
    return Interval(float(estimate), float(low), float(high))
