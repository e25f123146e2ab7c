"""Concept probes of maze agents, validated by editing the agents' weights.

report = validate(agents.load("maze-bimpala-compact"), layer="block2")
print(report.table())
"""

if __name__ != "rlbilinear.probes":
    raise ImportError("import this package as `rlbilinear.probes`, not as `probes`")

from rlbilinear.probes.concepts import (
    CONCEPTS,
    Concept,
    cheese_position,
    cheese_presence,
    concept,
    mouse_position,
    mouse_presence,
)
from rlbilinear.probes.dataset import ActivationDataset, Pairs, collect, counterfactual_pairs
from rlbilinear.probes.patches import TopActivations, played_frames, top_activations
from rlbilinear.probes.probe import LinearProbe
from rlbilinear.probes.report import ValidationReport
from rlbilinear.probes.study import Sizes
from rlbilinear.probes.validation import validate

__all__ = [
    "CONCEPTS",
    "ActivationDataset",
    "Concept",
    "LinearProbe",
    "Pairs",
    "Sizes",
    "TopActivations",
    "ValidationReport",
    "cheese_position",
    "cheese_presence",
    "collect",
    "concept",
    "counterfactual_pairs",
    "mouse_position",
    "mouse_presence",
    "played_frames",
    "top_activations",
    "validate",
]
