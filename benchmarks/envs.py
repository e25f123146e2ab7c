"""States, mazes, levels, environments."""

from collections.abc import Iterable

from rlbilinear.benchmarks import environments, mazes
from rlbilinear.benchmarks.measure import Comparison


def comparisons() -> Iterable[Comparison]:
    """Measure one part after the other."""
    yield from mazes.comparisons()
    yield from environments.comparisons()
