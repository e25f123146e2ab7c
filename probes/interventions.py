"""Interventions in activation space, as values: where, how, and in which subspace.

Each one turns a layer's output ``x`` into ``x + P (r - x)``: the component of ``x`` in a subspace
(``P`` projects onto it; the identity when there is none) becomes that of a replacement ``r``. What
``r`` is, is the intervention's "how": `Scale`, `Replace`, `Add`, `Interchange` or `Resample`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rlbilinear.agents import Agent
from rlbilinear.agents.agent import Observations
from rlbilinear.agents.network import HEADS
from rlbilinear.checks import as_numbers
from rlbilinear.probes.named import AgentLike, LayerLike, as_agent, as_layers
from rlbilinear.probes.subspaces import Basis, check_basis, component, coordinates, spread

Change = Callable[[Tensor], Tensor]
Part = Literal["all", "positive", "negative"]


@dataclass(frozen=True)
class Rows:
    """Which of all observations run now."""

    start: int
    stop: int
    total: int

    def of(self, values: Tensor | np.ndarray, what: str) -> Tensor | np.ndarray:
        """Return these rows of something that has one row for each observation.

        Raises:
            ValueError: it has another number of rows.
        """
        if len(values) != self.total:
            raise ValueError(f"{what}: {len(values)} for {self.total} observations")
        return values[self.start : self.stop]


@dataclass(frozen=True)
class Scale:
    """``r = factor x``: 0 ablates, 1 keeps, -1 flips.

    Attributes:
        factor: what numbers are multiplied by.
        part: multiply only the positive, or only the negative numbers; the others stay. In a
            subspace those are the coordinates along the basis's directions.

    Raises:
        ValueError: another part.
    """

    factor: float
    part: Part = "all"

    def __post_init__(self) -> None:
        if self.part not in get_args(Part):
            raise ValueError(f"unknown part {self.part!r}; choose from {', '.join(get_args(Part))}")

    def bind(self, agent: Agent, layer: str, rows: Rows) -> Change:
        """Return ``x -> r`` for these rows."""
        return self.of

    def of(self, x: Tensor) -> Tensor:
        """Multiply numbers, or coordinates."""
        if self.part == "all":
            return self.factor * x
        return torch.where(x > 0 if self.part == "positive" else x < 0, self.factor * x, x)


@dataclass(frozen=True, eq=False)
class Replace:
    """``r = value``: a vector over channels, one output, or one output for each observation.

    The mean over other observations is one: ``Replace(agent.activations(o, [l])[l].mean(0))``.
    """

    value: Float[Tensor, "channels"] | Float[Tensor, "*output"] | Float[Tensor, "n *output"]

    def bind(self, agent: Agent, layer: str, rows: Rows) -> Change:
        """Return ``x -> r`` for these rows."""
        return lambda x: _fit(self.value, x, rows).expand_as(x)


@dataclass(frozen=True, eq=False)
class Add:
    """``r = x + value``, shaped as for `Replace`: steering."""

    value: Float[Tensor, "channels"] | Float[Tensor, "*output"] | Float[Tensor, "n *output"]

    def bind(self, agent: Agent, layer: str, rows: Rows) -> Change:
        """Return ``x -> r`` for these rows."""
        return lambda x: x + _fit(self.value, x, rows)


@dataclass(frozen=True, eq=False)
class Interchange:
    """``r`` = the layer's output on another observation, one for each (no other intervention)."""

    source: Observations

    def bind(self, agent: Agent, layer: str, rows: Rows) -> Change:
        """Return ``x -> r`` for these rows."""
        source = agent.activations(rows.of(self.source, "sources"), [layer])[layer]
        return lambda x: source


@dataclass(frozen=True, eq=False)
class Resample:
    """``r`` = the layer's output on an observation drawn at random from a pool.

    Attributes:
        pool: of observations.
        seed: of the draws.
        allowed: which of the pool may be drawn for each observation; all when None.
            `rlbilinear.probes.pools.resample` makes it from a rule.
    """

    pool: Observations
    seed: int
    allowed: Bool[np.ndarray, "n pool"] | None = None

    def drawn(self, total: int) -> Int[np.ndarray, "n"]:
        """Return which of the pool is drawn for each of all observations.

        Raises:
            ValueError: ``allowed`` has another shape, or allows nothing for an observation.
        """
        rng = np.random.default_rng(self.seed)
        if self.allowed is None:
            return rng.integers(len(self.pool), size=total)
        if self.allowed.shape != (total, len(self.pool)):
            raise ValueError(
                f"expected allowed of shape {(total, len(self.pool))}, got {self.allowed.shape}"
            )
        if len(empty := np.flatnonzero(~self.allowed.any(1))):
            raise ValueError(f"nothing of the pool is allowed for observations {empty.tolist()}")
        return np.array([rng.choice(np.flatnonzero(row)) for row in self.allowed], np.int64)

    def bind(self, agent: Agent, layer: str, rows: Rows) -> Change:
        """Return ``x -> r`` for these rows."""
        drawn = self.drawn(rows.total)
        chosen = self.pool[drawn[rows.start : rows.stop]]
        return Interchange(chosen).bind(agent, layer, Rows(0, len(chosen), len(chosen)))


How = Scale | Replace | Add | Interchange | Resample


@dataclass(frozen=True, eq=False)
class Intervention:
    """Where, how, and in which subspace.

    Attributes:
        layer: whose output changes; a name the agent knows.
        how: what the component is replaced by.
        basis: orthonormal channel directions ``(k, channels)``, used at every position, or
            directions over the whole map ``(k, channels, height, width)``; None is everything.

    Raises:
        ValueError: the basis is not orthonormal.
    """

    layer: str
    how: How
    basis: Basis | None = None

    def __post_init__(self) -> None:
        if self.basis is not None:
            check_basis(self.basis)

    def bind(self, agent: Agent, rows: Rows) -> Change:
        """Return the change of the layer's output for these rows."""
        replacement, basis = self.how.bind(agent, self.layer, rows), self.basis
        if basis is None:
            return replacement
        if isinstance(self.how, Scale) and self.how.part != "all":
            of = self.how.of

            def scaled(x: Tensor) -> Tensor:
                along = coordinates(x, basis)
                return x + spread(of(along) - along, basis)

            return scaled
        return lambda x: x + component(replacement(x) - x, basis)


def logits_under(
    agent: AgentLike,
    observations: Observations,
    interventions: Iterable[Intervention] = (),
    *,
    batch: int = 128,
) -> Float[Tensor, "n actions"]:
    """Return the agent's action logits under interventions.

    A strong one may drive a bilinear network, a polynomial of high degree, beyond what floats hold:
    such states keep logits that are not finite, which `rlbilinear.probes.moves` takes as missing.
    `rlbilinear.probes.finite.finite_by_layer` counts them by layer.

    Raises:
        ValueError: see `activations`.
    """
    return activations(agent, observations, ["action_net"], interventions, batch=batch)[
        "action_net"
    ]


def activations(
    agent: AgentLike,
    observations: Observations,
    layers: LayerLike | Iterable[LayerLike],
    interventions: Iterable[Intervention] = (),
    *,
    batch: int = 128,
) -> dict[str, Float[Tensor, "n *output"]]:
    """Return the outputs of layers (``action_net`` and ``value_net`` too) under interventions.

    Interventions on one layer are made in the order given. The agent is left as it is, also when
    this raises.

    Args:
        agent: whose layers.
        observations: what it sees.
        layers: whose outputs are returned, changed where they are intervened on.
        interventions: what is changed.
        batch: observations run at a time.

    Raises:
        ValueError: unknown layer, one without an output of its own, or a value, basis or number of
            sources that does not fit.
    """
    agent = as_agent(agent)
    names, changes = as_layers(agent, layers), _several(interventions)
    observations = as_numbers(observations, "observations")
    if not observations.ndim:
        raise ValueError(f"expected observations, got one number: {observations}")
    for name in (change.layer for change in changes):
        agent.layer(name)
    total = len(observations)
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    for start in range(0, total, batch):
        rows = Rows(start, min(start + batch, total), total)
        bound = [(change.layer, change.bind(agent, rows)) for change in changes]
        with _hooked(agent, bound):
            outputs = agent.activations(
                observations[rows.start : rows.stop], names, batch=batch, check_finite=False
            )
        for name in names:
            parts[name].append(outputs[name])
    return {name: torch.cat(part) for name, part in parts.items()}


def _several(interventions: Iterable[Intervention]) -> list[Intervention]:
    given = list(interventions) if isinstance(interventions, Iterable) else [interventions]
    for each in given:
        if not isinstance(each, Intervention):
            raise TypeError(f"expected interventions, got {type(each).__name__}")
    return given


def logits_after(
    agent: AgentLike, layer: str, outputs: Float[Tensor, "n *output"], *, batch: int = 128
) -> Float[Tensor, "n actions"]:
    """Return the logits when a layer gives these outputs: only what comes after it runs.

    The same as `logits_under` with the outputs in place of the layer's own, by `Replace`.

    Args:
        agent: whose layers.
        layer: a step of the forward pass.
        outputs: of the layer, one for each observation.
        batch: outputs run at a time.

    Raises:
        ValueError: the layer is not a step of the forward pass; the message lists them.
    """
    agent, outputs = as_agent(agent), as_numbers(outputs, "outputs")
    if outputs.ndim < 2:
        raise ValueError(f"expected outputs of the layer, a row each; got {tuple(outputs.shape)}")
    steps = [name for name in agent.layer_names if "." not in name and name not in HEADS]
    if layer not in steps:
        raise ValueError(
            f"{layer!r} is not a step of the forward pass; choose from {', '.join(steps)}"
        )
    rest = [agent.layer(name) for name in (*steps[steps.index(layer) + 1 :], "action_net")]
    parts = []
    with torch.no_grad():
        for x in outputs.to(agent.device).split(batch):
            if x.ndim == 4:  # the format in which bodies run fast
                x = x.contiguous(memory_format=torch.channels_last)
            for step in rest:
                x = step(x)
            parts.append(x)
    return torch.cat(parts)


@contextmanager
def _hooked(agent: Agent, changes: Sequence[tuple[str, Change]]) -> Iterator[None]:
    """Change outputs by forward hooks, which are removed in the end whatever happens."""
    ran: set[str] = set()

    def hook(name: str, change: Change) -> Callable[[nn.Module, tuple, Tensor], Tensor]:
        def changed(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
            ran.add(name)
            return change(output)

        return changed

    handles = [agent.layer(n).register_forward_hook(hook(n, change)) for n, change in changes]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    if idle := {name for name, _ in changes} - ran:
        raise ValueError(f"layer {', '.join(sorted(idle))} has weights but no output of its own")


def _fit(value: Tensor, x: Tensor, rows: Rows) -> Tensor:
    """Shape a value so that it broadcasts over a batch of outputs, in their dtype and place."""
    given = tuple(value.shape)
    if value.ndim == x.ndim:
        value = torch.as_tensor(rows.of(value, "values"))
    elif value.ndim == 1:
        value = value.reshape(-1, *(1,) * (x.ndim - 2))
    single = value.shape[1:] if value.ndim == x.ndim else value.shape
    if single != x.shape[1:] and single != (x.shape[1], *(1,) * (x.ndim - 2)):
        raise ValueError(
            f"a value of shape {given} does not fit outputs of shape {tuple(x.shape[1:])}: "
            "expected that, or one number a channel, or one output for each observation"
        )
    return value.to(x)
