"""Statistics by level for measures that are missing where outputs are not finite.

An average of the other states would be of an agent that nobody asked about, so there is none: the
numbers are NaN, and a p-value 1. The share of states that have a measure stands beside them.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float

from rlbilinear.statistics import (
    Interval,
    PairedDifference,
    Versus,
    against_all,
    bootstrap_interval,
    paired_difference,
)
from rlbilinear.statistics.levels import Levels

Values = Float[np.ndarray, "n"]


def mean(values: pd.Series) -> float:
    """Return the mean; NaN where a value is missing."""
    return float(values.mean(skipna=False))


def interval(values: Values, levels: Levels, *, seed: int = 0) -> Interval:
    """Return the mean with its `bootstrap_interval`; NaN where a value is missing."""
    if not np.isfinite(values).all():
        return Interval(np.nan, np.nan, np.nan)
    return bootstrap_interval(values, levels, seed=seed)


def difference(a: Values, b: Values, levels: Levels) -> PairedDifference:
    """Return the `paired_difference`; NaN, with p-value 1, where a value is missing."""
    if not (np.isfinite(a) & np.isfinite(b)).all():
        return PairedDifference(
            difference=np.nan,
            low=np.nan,
            high=np.nan,
            effect_size=np.nan,
            p_value=1.0,
            n_levels=len(np.unique(levels)),
        )
    return paired_difference(a, b, levels)


def versus(
    values: Values, controls: Mapping[str, Values], levels: Levels, *, seed: int = 0
) -> Versus:
    """Compare with all controls (`against_all`); NaN, with p-value 1, where a value is missing.

    A control with missing values is the strongest: what it does is not known.
    """
    for name, control in controls.items():
        if not np.isfinite(control).all():
            return Versus(name, np.nan, 1.0)
    if np.isfinite(values).all():
        return against_all(values, controls, levels, seed=seed)
    strongest = max(controls, key=lambda name: float(controls[name].mean()))
    return Versus(strongest, float(controls[strongest].mean()), 1.0)
