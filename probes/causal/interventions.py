"""What a policy does when a subspace of a layer's output is exchanged, ablated or moved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from rlbilinear.probes.causal.data import Counterfactuals, Kind
from rlbilinear.probes.causal.subspaces import Basis, Rows, outputs_of, part_along, rows_of
from rlbilinear.probes.subject import Subject

LogBehaviour = Float[Tensor, "n behaviours"]
Shift = Callable[[Basis], Float[Tensor, "n positions rank"]]
"""From a subspace to what moves the concept of each pair along it."""
RADIUS = 4
"""How far from its place, in positions of the map, a concept is taken to change it."""


def log_behaviour(
    logits: Float[Tensor, "n actions"], behaviours: Int[np.ndarray, "actions"] | None
) -> LogBehaviour:
    """Return the log-probability of each behaviour, in float64; NaN where a logit is not finite.

    Raises:
        ValueError: not one behaviour for each action.
    """
    broken = ~logits.isfinite().all(1)
    log_p = logits.detach().double().cpu().log_softmax(1)
    if behaviours is not None:
        if len(behaviours) != logits.shape[1]:
            raise ValueError(
                f"behaviours: expected one for each of the {logits.shape[1]} actions, "
                f"got {len(behaviours)}"
            )
        groups = torch.as_tensor(np.asarray(behaviours), dtype=torch.int64)
        parts = [log_p[:, groups == each].logsumexp(1) for each in range(int(groups.max()) + 1)]
        log_p = torch.stack(parts, 1)
    log_p[broken.cpu()] = torch.nan
    return log_p


def follows(log_p: LogBehaviour, wanted: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Return whether the most likely behaviour is the wanted one; NaN where nothing is finite."""
    right = (log_p.argmax(1).numpy() == wanted).astype(float)
    return np.where(log_p.isnan().any(1).numpy(), np.nan, right)


def moved(before: LogBehaviour, after: LogBehaviour) -> Float[np.ndarray, "n"]:
    """Return the total variation between two policies, state by state."""
    return ((before.exp() - after.exp()).abs().sum(1) / 2).numpy()


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer of a policy on pairs, ready to be intervened on.

    Attributes:
        base: rows of the layer's output in the base.
        change: source minus base.
        mean: over the fitting states, of one output's rows.
    """

    subject: Subject
    name: str
    kind: Kind
    behaviours: np.ndarray | None
    base: Rows
    change: Rows
    mean: Float[Tensor, "positions dimension"]

    @classmethod
    def of(
        cls,
        subject: Subject,
        name: str,
        kind: Kind,
        behaviours: np.ndarray | None,
        pairs: Counterfactuals,
        mean: Float[Tensor, "positions dimension"],
    ) -> Layer:
        """Run the policy on both sides of the pairs."""
        base, source = (
            rows_of(subject.activations(side, [name])[name], kind)
            for side in (pairs.base, pairs.source)
        )
        return cls(subject, name, kind, behaviours, base, source - base, mean)

    def behaviour(self, rows: Rows) -> LogBehaviour:
        """Return what the policy does when the layer gives these rows."""
        outputs = outputs_of(rows, self.subject.layers[self.name], self.kind)
        return log_behaviour(self.subject.logits_after(self.name, outputs), self.behaviours)

    def exchange(self, basis: Basis, like: Basis | None = None) -> LogBehaviour:
        """Exchange the component in a subspace for that of the source.

        Args:
            basis: of the subspace.
            like: when given, the change is scaled, pair by pair, to be as large as that in this
                other subspace: a control of equal size.
        """
        moved = part_along(self.change, basis)
        if like is not None:
            size, wanted = (
                each.flatten(1).norm(dim=1) for each in (moved, part_along(self.change, like))
            )
            moved = moved * torch.where(size > 0, wanted / size, 0.0)[:, None, None]
        return self.behaviour(self.base + moved)

    def ablate(
        self, basis: Basis, rows: Rows | None = None, *, factor: float = 0.0
    ) -> LogBehaviour:
        """Scale the departure from the mean in a subspace; 0 takes it away."""
        rows = self.base if rows is None else rows
        return self.behaviour(rows + (factor - 1) * part_along(rows - self.mean, basis))

    def add(self, rows: Rows) -> LogBehaviour:
        """Add to the layer's output in the base."""
        return self.behaviour(self.base + rows)


def spread(rows: Rows, mean: Float[Tensor, "positions dimension"], basis: Basis) -> float:
    """Return the root mean square departure from the mean in a subspace."""
    return float(((rows - mean) @ basis.T).square().sum(-1).mean().sqrt())


def ablated_in_weights(
    subject: Subject, layer: str, basis: Basis, mean: Float[Tensor, "positions dimension"]
) -> Subject | None:
    """Return the policy with a subspace held at its mean in the weights; None where none can.

    The output ``h`` becomes ``h - P (h - mean)``, ``P`` the projector on the subspace of channels.
    A subspace of whole feature maps is not an edit of that kind.
    """
    shape = subject.layers[layer]
    if not subject.can_edit(layer) or basis.shape[1] != shape[0]:
        return None
    projector = basis.T @ basis
    bias = (mean @ projector).T.reshape(shape)
    return subject.edited(
        layer,
        torch.eye(len(projector), dtype=torch.float64) - projector,
        bias,
        edit=f"{layer}: {len(basis)} directions held at their mean",
    )


class PlaceTemplate:
    """What a concept adds around its place, along each direction of a subspace.

    Fitted by least squares to what moving the concept changes: a template of ``2 RADIUS + 1``
    positions a side, put at the place by bilinear weights, since places lie between positions.
    """

    def __init__(
        self,
        change: Float[Tensor, "n positions dimension"],
        pairs: Counterfactuals,
        size: tuple[int, int],
        basis: Basis,
    ) -> None:
        assert pairs.base_place is not None and pairs.source_place is not None
        self.size, self.basis = size, basis
        side = 2 * RADIUS + 1
        gram = torch.zeros(side**2, side**2, dtype=torch.float64)
        target = torch.zeros(side**2, len(basis), dtype=torch.float64)
        for index in range(len(change)):
            design = self._design(pairs.source_place[index]) - self._design(pairs.base_place[index])
            gram += design.T @ design
            target += design.T @ (change[index] @ basis.T)
        # What no pair tells of stays zero: a small ridge.
        ridge = 1e-3 * gram.diagonal().mean() * torch.eye(side**2, dtype=torch.float64)
        self.template = torch.linalg.solve(gram + ridge, target)

    def at(self, places: Float[np.ndarray, "n 2"]) -> Float[Tensor, "n positions rank"]:
        """Return what the concept adds along each direction, when it is at these places."""
        return torch.stack([self._design(place) @ self.template for place in places])

    def _design(self, place: Float[np.ndarray, "2"]) -> Float[Tensor, "positions offsets"]:
        side, (height, width) = 2 * RADIUS + 1, self.size
        along = []
        for at, length in zip(place, (height, width), strict=True):
            offset = torch.arange(length, dtype=torch.float64) - (float(at) * length - 0.5)
            offsets = torch.arange(side, dtype=torch.float64) - RADIUS
            along.append((1 - (offset[:, None] - offsets).abs()).clamp(min=0))
        return torch.einsum("ya,xb->yxab", *along).reshape(height * width, side**2)


def shifts(at_fit: Layer, fitting: Counterfactuals, pairs: Counterfactuals) -> Shift | None:
    """Return how to move the concept of pairs along a subspace, by what fitting pairs tell.

    None when the pairs do not say where the concept is, or which value it has.
    """
    if at_fit.kind != "map":
        if pairs.base_value is None or pairs.source_value is None:
            return None
        return lambda basis: value_shift(at_fit.change, pairs, fitting, basis, at_fit.kind)
    to, away = pairs.source_place, pairs.base_place
    if to is None or away is None:
        return None
    _, height, width = at_fit.subject.layers[at_fit.name]

    def by_place(basis: Basis) -> Tensor:
        template = PlaceTemplate(at_fit.change, fitting, (height, width), basis)
        return template.at(to) - template.at(away)

    return by_place


def value_shift(
    change: Rows, pairs: Counterfactuals, fit: Counterfactuals, basis: Basis, kind: Kind
) -> Float[Tensor, "n positions rank"]:
    """Return what takes the base's value to the source's along a subspace, by fitting pairs.

    Of a class: the mean change of fitting pairs between the same two values (of all pairs to the
    source's value, where no fitting pair has both). Of a scalar: the slope of the change on the
    difference of values, times the difference.
    """
    along = change @ basis.T
    assert fit.base_value is not None and fit.source_value is not None
    assert pairs.base_value is not None and pairs.source_value is not None
    if kind == "scalar":
        gap = torch.from_numpy(np.asarray(fit.source_value - fit.base_value, float))
        slope = torch.einsum("n,npr->pr", gap, along) / gap.square().sum()
        wanted = torch.from_numpy(np.asarray(pairs.source_value - pairs.base_value, float))
        return wanted[:, None, None] * slope
    shifts = []
    for ours, theirs in zip(pairs.base_value, pairs.source_value, strict=True):
        to = torch.from_numpy(np.asarray(fit.source_value == theirs))
        both = to & torch.from_numpy(np.asarray(fit.base_value == ours))
        chosen = both if both.any() else to
        shifts.append(along[chosen].mean(0) if chosen.any() else torch.zeros_like(along[0]))
    return torch.stack(shifts)
