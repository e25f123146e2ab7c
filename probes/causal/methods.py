"""Published methods, and ours, as edits of a layer's output on the same pairs.

Some *move* a concept: the policy should then do what is right in the counterpart. Others *remove*
it: the right behaviour should be lost, and states without the concept should not change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rlbilinear.probes.causal.choosing import Asked
from rlbilinear.probes.causal.data import ConceptData
from rlbilinear.probes.causal.erasing import inlp, leace
from rlbilinear.probes.causal.interventions import (
    Layer,
    shifts,
)
from rlbilinear.probes.causal.readings import Features, fit_reading, per_label
from rlbilinear.probes.causal.subspaces import (
    Basis,
    Rows,
    difference_subspace,
    orthonormal,
    outputs_of,
    part_along,
    rows_of,
)
from rlbilinear.probes.concepts import area_weights

POINTS = 16
"""Of the integration of gradients."""
ATTRIBUTED = 128
"""Fitting pairs that gradients are integrated on, at most."""

Family = Literal["moves", "removes"]
Needs = Literal["counterpart", "where to", "nothing"]


class NotAskedError(ValueError):
    """The data do not have what a method needs; the message says what."""


@dataclass(frozen=True, eq=False)
class Setting:
    """A layer, its outputs, and what a method may fit to.

    Attributes:
        data: the concept.
        what: the held-out pairs, and what is right in them.
        fitting: the same of the fitting levels.
        fit_outputs: the layer's outputs on the fitting states.
        at_fit: the layer on the fitting pairs.
        here: the layer on the held-out pairs.
        rank: rank of our difference subspace.
        seed: seed of what is drawn.
    """

    data: ConceptData
    what: Asked
    fitting: Asked
    fit_outputs: Float[Tensor, "n *output"]
    at_fit: Layer
    here: Layer
    rank: int
    seed: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one output."""
        return tuple(self.fit_outputs.shape[1:])

    @cached_property
    def fit_rows(self) -> Rows:
        """The outputs on the fitting states, as rows."""
        return rows_of(self.fit_outputs, self.data.kind)

    @cached_property
    def difference(self) -> Basis:
        """What changes most when only the concept does: ours."""
        return difference_subspace(
            self.at_fit.change, self.fitting.pairs, self.data.kind, self.rank
        )

    @cached_property
    def probe(self) -> Basis:
        """What a reading of the concept weighs."""
        reading = fit_reading(Features(self.fit_outputs, self.data.kind), self.data.fit)
        return orthonormal(torch.from_numpy(np.atleast_2d(reading.weights)).double())

    @cached_property
    def samples(self) -> tuple[Float[Tensor, "m dimension"], Float[Tensor, "m targets"]]:
        """What is read, and the labels: of a map each cell; of a class one column a value."""
        labels = np.asarray(self.data.fit.labels)
        if self.data.kind == "map":
            cells = per_label(self.fit_outputs.double().cpu().numpy(), labels)
            x = torch.from_numpy(cells).flatten(2).movedim(1, 2).flatten(0, 1)
            return x.double(), torch.from_numpy(labels).double().reshape(-1, 1)
        z = labels[:, None] == np.unique(labels) if self.data.kind == "class" else labels[:, None]
        return self.fit_rows[:, 0], torch.from_numpy(z.astype(float))


def patch_correlated(given: Setting) -> Rows:
    """Take over the channel that goes most with the labels from the counterpart.

    Of a class or scalar at maps: the channel with the position that does. The one channel of
    activation patching, as in the published work on mazes (Turner et al. 2023).
    """
    x, z = given.samples
    centred = x - x.mean(0)
    span = orthonormal((z - z.mean(0)).T)
    share = (span @ centred).square().sum(0) / centred.square().sum(0).clamp(min=1e-30)
    if given.data.kind != "map":
        share = share.reshape(given.shape[0], -1).amax(1)
    return _channel(given, int(share.argmax()))


def patch_attributed(given: Setting) -> Rows:
    """Take over the channel with the largest attribution: integrated gradients by captum.

    Of the log odds of the counterpart's behaviour against the base's, along the straight way from
    the base's output to the counterpart's (Sundararajan et al. 2017), over fitting pairs.

    Raises:
        ImportError: captum is not installed.
    """
    try:
        from captum.attr import IntegratedGradients
    except ImportError as error:
        raise ImportError(
            f"attribution needs captum ({error}): pip install 'rlbilinear[attribution]'"
        ) from error
    layer, fitting = given.at_fit, given.fitting
    chosen = np.random.default_rng(given.seed).permutation(len(fitting.base))[:ATTRIBUTED]
    rest = layer.subject.after(layer.name)
    behaviours = given.data.behaviours
    of_action = torch.as_tensor(
        np.arange(layer.subject.actions) if behaviours is None else np.asarray(behaviours)
    )

    def odds(outputs: Tensor, base: Tensor, source: Tensor) -> Tensor:
        logits = rest(outputs)
        gains = [
            logits.masked_fill(of_action != wanted[:, None], -torch.inf).logsumexp(1)
            for wanted in (source, base)
        ]
        return gains[0] - gains[1]

    like = next(layer.subject.policy.parameters())
    base = outputs_of(layer.base[chosen], given.shape, given.data.kind).to(like)
    source = outputs_of((layer.base + layer.change)[chosen], given.shape, given.data.kind).to(like)
    found = IntegratedGradients(odds).attribute(
        source,
        base,
        additional_forward_args=(
            torch.as_tensor(fitting.base[chosen]),
            torch.as_tensor(fitting.source[chosen]),
        ),
        n_steps=POINTS,
        method="gausslegendre",
        internal_batch_size=256,
    )
    by_channel = found.reshape(len(found), given.shape[0], -1).sum(2).mean(0)
    return _channel(given, int(by_channel.argmax()))


def exchange(given: Setting) -> Rows:
    """Take over the difference directions from the counterpart: ours."""
    return part_along(given.here.change, given.difference)


def exchange_all(given: Setting) -> Rows:
    """Take over the whole layer: the most that is possible there."""
    return given.here.change


def move_difference(given: Setting) -> Rows:
    """Move the concept along the difference directions by what fitting pairs tell: ours."""
    along = shifts(given.at_fit, given.fitting.pairs, given.what.pairs)
    if along is None:
        raise NotAskedError("the pairs do not say where the concept is, or which value it has")
    return along(given.difference) @ given.difference


def add_means(given: Setting) -> Rows:
    """Add the difference of means with and without the concept (or of two values)."""
    pairs, kind = given.what.pairs, given.data.kind
    x, z = given.samples
    if kind == "map":
        there = z[:, 0] > 0
        vector = x[there].mean(0) - x[~there].mean(0)
        return _marks(given)[:, :, None] * vector
    if pairs.base_value is None or pairs.source_value is None:
        raise NotAskedError("the pairs do not say the concept's values")
    if kind == "scalar":
        gap = torch.from_numpy(np.asarray(pairs.source_value - pairs.base_value, float))
        upper = z[:, 0] > z[:, 0].median()
        slope = (x[upper].mean(0) - x[~upper].mean(0)) / (z[upper].mean() - z[~upper].mean())
        return (gap[:, None] * slope)[:, None]
    values = np.unique(given.data.fit.labels)
    means = torch.stack([x[z[:, index] > 0].mean(0) for index in range(len(values))])
    ours, theirs = (
        means[np.searchsorted(values, side)] for side in (pairs.base_value, pairs.source_value)
    )
    return (theirs - ours)[:, None]


def add_probe(given: Setting) -> Rows:
    """Add along the probe's weights, so that its reading changes as by the difference of means."""
    return part_along(add_means(given), given.probe)


def hold_difference(given: Setting) -> Callable[[Rows], Rows]:
    """Hold the difference directions at their mean: ours."""
    return lambda rows: rows - part_along(rows - given.here.mean, given.difference)


def hold_probe(given: Setting) -> Callable[[Rows], Rows]:
    """Hold the probe's direction at its mean."""
    return lambda rows: rows - part_along(rows - given.here.mean, given.probe)


def zero_probe(given: Setting) -> Callable[[Rows], Rows]:
    """Set the probe's direction to zero."""
    return lambda rows: rows - part_along(rows, given.probe)


def resample_probe(given: Setting) -> Callable[[Rows], Rows]:
    """Take the probe's direction from a fitting state drawn at random."""

    def edit(rows: Rows) -> Rows:
        drawn = np.random.default_rng(given.seed).integers(len(given.fit_rows), size=len(rows))
        return rows + part_along(given.fit_rows[drawn] - rows, given.probe)

    return edit


def erase_inlp(given: Setting) -> Callable[[Rows], Rows]:
    """Project on the nullspace of readings fitted one after another; see `inlp`."""
    basis = inlp(given.fit_outputs, given.data.fit, given.data.kind)
    return lambda rows: rows - part_along(rows, basis)


def erase_leace(given: Setting) -> Callable[[Rows], Rows]:
    """Erase all that a linear reading can tell, by the least change; see `leace`."""
    return leace(*given.samples)


class Method(NamedTuple):
    """A way to edit a layer's output.

    Attributes:
        family: whether it moves a concept or removes it.
        needs: what must be known when it is used.
        change: for a setting, what is added to the held-out pairs' rows; or the edit of any rows.
    """

    family: Family
    needs: Needs
    edit: Callable[[Setting], Rows | Callable[[Rows], Rows]]


METHODS = {
    "whole layer exchanged": Method("moves", "counterpart", exchange_all),
    "difference exchanged (ours)": Method("moves", "counterpart", exchange),
    "most correlated channel patched": Method("moves", "counterpart", patch_correlated),
    "most attributed channel patched": Method("moves", "counterpart", patch_attributed),
    "difference moved (ours)": Method("moves", "where to", move_difference),
    "difference of means added": Method("moves", "where to", add_means),
    "probe weights added": Method("moves", "where to", add_probe),
    "difference held at mean (ours)": Method("removes", "nothing", hold_difference),
    "probe held at mean": Method("removes", "nothing", hold_probe),
    "probe set to zero": Method("removes", "nothing", zero_probe),
    "probe resampled": Method("removes", "nothing", resample_probe),
    "INLP": Method("removes", "nothing", erase_inlp),
    "LEACE": Method("removes", "nothing", erase_leace),
}
"""By name."""


def _channel(given: Setting, channel: int) -> Rows:
    """Return the change that takes one channel over from the counterpart."""
    change = outputs_of(given.here.change, given.shape, given.data.kind)
    only = torch.zeros_like(change)
    only[:, channel] = change[:, channel]
    return rows_of(only, given.data.kind)


def _marks(given: Setting) -> Float[Tensor, "n positions"]:
    """Return how much of each position the source's cell covers, minus the base's."""
    pairs, (height, width) = given.what.pairs, given.shape[1:]
    if pairs.base_place is None or pairs.source_place is None:
        raise NotAskedError("the pairs do not say where the concept is")
    rows, columns = given.data.fit.labels.shape[1:]
    down, across = area_weights(rows, height), area_weights(columns, width)

    def covered(places: Float[np.ndarray, "n 2"]) -> Tensor:
        y, x = (np.minimum((places * (rows, columns)).astype(int), (rows - 1, columns - 1))).T
        both = np.einsum("hn,wn->nhw", down[:, y], across[:, x])
        return torch.from_numpy(both.reshape(len(places), -1)).double()

    return covered(pairs.source_place) - covered(pairs.base_place)
