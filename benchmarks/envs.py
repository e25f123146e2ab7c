"""States, mazes, levels, environments."""

from collections.abc import Iterable

from rlbilinear.benchmarks import environments, mazes
from rlbilinear.benchmarks.measure import Comparison


def compare() -> Iterable[Comparison]:
    """Measure one part after the other."""
    yield from mazes.compare()
    yield from environments.compare()
