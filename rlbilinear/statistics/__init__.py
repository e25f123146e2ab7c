"""Intervals, tests and divergences.

`levels`: the unit is the level, because states of one level are not independent. `runs`: the unit
is the run, of which several seeds tell. `divergence`: between policies, from log-probabilities.
"""

from rlbilinear.statistics.divergence import grouped, kl_divergence, kl_of_logits
from rlbilinear.statistics.intervals import Interval
from rlbilinear.statistics.levels import (
    PairedDifference,
    Versus,
    against_all,
    bootstrap_interval,
    bootstrap_of_means,
    holm,
    level_means,
    paired_difference,
    smallest_effect,
)
from rlbilinear.statistics.runs import t_interval

__all__ = [
    "Interval",
    "PairedDifference",
    "Versus",
    "against_all",
    "bootstrap_interval",
    "bootstrap_of_means",
    "grouped",
    "holm",
    "kl_divergence",
    "kl_of_logits",
    "level_means",
    "paired_difference",
    "smallest_effect",
    "t_interval",
]
