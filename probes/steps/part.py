"""A step of a validation: what it adds to the report, and the claims it decides."""

from dataclasses import dataclass, field

import pandas as pd

from agents import Agent
from probes.report import Drawing, Section, Video


@dataclass(frozen=True)
class Claim:
    """A claim about a direction, with what was measured for it.

    Attributes:
        claim: in words.
        effect: measured, with its 95 % interval ``low``, ``high``.
        control: the same of the control.
        p: of the difference from the control, not yet corrected; None where no test applies.
        shown: the effect must be above this, interval included, to count as shown.
        negligible: below this, interval included, the claim is contradicted.
        smaller: the other way round: shown below ``shown``, contradicted above ``negligible``.
        decided_by: figure or table.
    """

    claim: str
    effect: float
    low: float
    high: float
    control: float
    p: float | None
    shown: float
    negligible: float
    decided_by: str
    smaller: bool = False

    def verdict(self, p: float | None) -> str:
        """Return causal, not shown or contradicted, given the corrected p-value."""
        if self.smaller:
            shown, contradicted = self.high < self.shown, self.low > self.negligible
        else:
            shown, contradicted = self.low > self.shown, self.high < self.negligible
        if shown and (p is None or p < 0.05):
            return "causal"
        return "contradicted" if contradicted else "not shown"


@dataclass(frozen=True)
class Part:
    """What a step found; the fields are those of `probes.report.ValidationReport`."""

    section: Section
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    figures: dict[str, Drawing] = field(default_factory=dict)
    videos: dict[str, Video] = field(default_factory=dict)
    agents: dict[str, Agent] = field(default_factory=dict)
    scalars: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
