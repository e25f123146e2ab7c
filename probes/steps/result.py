"""A step of a validation: what it adds to the report, and the claims it decides."""

from dataclasses import dataclass, field

import pandas as pd

from rlbilinear.agents import Agent
from rlbilinear.probes.report import Drawing, Section, Video

ALPHA = 0.05
"""Level of the tests, over the whole family of claims."""


@dataclass(frozen=True)
class Claim:
    """A claim about a direction, with what was measured for it.

    Attributes:
        claim: "DIRECTION: CLAIM", a short name of each.
        effect: measured, with its 95 % interval ``low``, ``high``.
        control: the same of the control, which the effect must exceed.
        p: of the difference from the control, two-sided, not yet corrected.
        shown: the effect must be above this, interval included, to count as shown.
        negligible: below this, interval included, the claim is contradicted.
        smaller: the other way round: shown below ``shown`` and below the control, contradicted
            above ``negligible``.
        decided_by: figure or table.
        meaning: what is done, and what the effect measures.
    """

    claim: str
    effect: float
    low: float
    high: float
    control: float
    p: float
    shown: float
    negligible: float
    decided_by: str
    smaller: bool = False
    meaning: str = ""

    def verdict(self, p: float) -> str:
        """Return causal, not shown or contradicted, given the corrected p-value."""
        if self.smaller:
            shown = self.high < self.shown and self.effect < self.control
            contradicted = self.low > self.negligible
        else:
            shown = self.low > self.shown and self.effect > self.control
            contradicted = self.high < self.negligible
        if shown and p < ALPHA:
            return "causal"
        return "contradicted" if contradicted else "not shown"


@dataclass(frozen=True)
class StepResult:
    """What a step found; the fields are those of `rlbilinear.probes.report.ValidationReport`."""

    section: Section
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    figures: dict[str, Drawing] = field(default_factory=dict)
    videos: dict[str, Video] = field(default_factory=dict)
    agents: dict[str, Agent] = field(default_factory=dict)
    scalars: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
