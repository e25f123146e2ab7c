"""Drawings of a decomposed direction in play: what excites it, and one state explained."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from rlbilinear import (
    BilinearConv2d,
    BilinearLinear,
    BilinearTensor,
    Eigenfilters,
    channel_spatial_svd,
    eigenfilters,
)
from rlbilinear.agents import Agent
from rlbilinear.convolution import as_convolution
from rlbilinear.envs import ACTIONS_OF_MOVE, Move
from rlbilinear.figures import (
    Excitation,
    channel_spatial,
    channel_spatial_over,
    component_card,
    contributions,
    filter_strip,
    singular_card,
    spectrum,
)
from rlbilinear.hosvd import hosvd
from rlbilinear.probes.dataset import ActivationDataset
from rlbilinear.probes.directions import NamedDirection
from rlbilinear.probes.patches import TopActivations
from rlbilinear.probes.receptive import Grid, grid_before
from rlbilinear.probes.report import Drawing
from rlbilinear.receptive import Rectangle, Window
from rlbilinear.sparsity import count_for_energy

PER_SIGN = 2
"""Filters of either sign on a card."""


@dataclass(frozen=True, eq=False)
class View:
    """What the drawings are made of: a layer as a convolution, and what it reads in some states."""

    step: str
    before: str
    """the step whose maps it reads"""
    conv: BilinearConv2d
    found: Eigenfilters
    named: NamedDirection
    inputs: Float[Tensor, "n channels height width"]
    outputs: np.ndarray
    states: ActivationDataset
    grid: Grid
    dense: bool

    @classmethod
    def of(
        cls, agent: Agent, step: str, part: str, named: NamedDirection, states: ActivationDataset
    ) -> "View":
        """Decompose a direction of a part of a step, and look at states with their activations."""
        module = agent.layer(part)
        before = maps_before(agent, step)
        inputs = torch.as_tensor(states.activations[before]).double()
        if isinstance(module, BilinearLinear):
            shape = (inputs.shape[1], inputs.shape[2], inputs.shape[3])
            conv, dense = as_convolution(module, shape), True
        else:
            assert isinstance(module, BilinearConv2d)
            conv, dense = module, False
        grid = grid_before(agent, "flatten" if dense else step)
        found = eigenfilters(conv, named.vector)
        outputs = states.activations[step]
        return cls(step, before, conv, found, named, inputs, outputs, states, grid, dense)

    @property
    def chosen(self) -> list[int]:
        """The indices of the filters on the card: those of largest |value| of either sign."""
        values = self.found.values
        order = values.abs().argsort(descending=True, stable=True)
        positive, negative = order[values[order] > 0], order[values[order] < 0]
        return [*positive[:PER_SIGN].tolist(), *negative[:PER_SIGN].tolist()]

    @property
    def foremost(self) -> Eigenfilters:
        """Those filters alone."""
        found = self.found
        return replace(found, values=found.values[self.chosen], filters=found.filters[self.chosen])


def figures(
    agent: Agent, view: View, strongest: TopActivations, filters: int
) -> dict[str, Drawing]:
    """Draw a direction: its spectrum and filters, what excites them, and one state explained.

    Args:
        agent: whose layer it is.
        view: the direction, and states.
        strongest: what excites the view's leading filters.
        filters: drawn as strips.
    """
    found, what = view.found, view.named.what
    unit = "eigenvector" if view.dense else "eigenfilter"
    half = count_for_energy(found.values, 0.5)
    ninety = count_for_energy(found.values, 0.9)
    drawn = {
        "spectrum": Drawing(
            spectrum(found.values, title=f"{view.step}: {what}", unit=unit),
            f"Rank {len(found.values)} of {found.filters[0].numel()} inputs; {half} {unit}s carry "
            f"half of the squared eigenvalues, {ninety} carry 90 %.",
        ),
        "filters": Drawing(
            filter_strip(found, filters, title=f"{view.step}: {what}"),
            f"The {unit}s with the largest |eigenvalue|, in the channels they weigh most. The sign "
            "of a whole filter is free, as only squares count.",
        ),
        "card": _card(view, strongest),
        "explained": _explained(view),
        **_interest(agent, view),
    }
    svd = hosvd(BilinearTensor.of(view.conv))
    patch = view.conv.left.weight.shape[1:]
    for index in range(2):
        drawn[f"singular_{index}"] = Drawing(
            singular_card(
                svd, index, (patch[0], patch[1], patch[2]), title=f"{view.step}: singular component"
            ),
            f"Component {index} of the layer's own tensor, whatever the direction: "
            f"{float(svd.share[index]):.1%} of its squared norm, written along one direction.",
        )
    return drawn


def _card(view: View, strongest: TopActivations) -> Drawing:
    excitations = {
        index: [
            Excitation(
                patch.observation,
                None if view.dense else _box(view, patch.window),
                patch.contribution,
                None if view.dense else patch.pixels,
            )
            for patch in patches
        ]
        for index, patches in zip(view.chosen, strongest.patches, strict=True)
    }
    figure = component_card(
        view.found,
        view.named.vector,
        excitations,
        per_sign=PER_SIGN,
        title=f"{view.step}: {view.named.what}",
    )
    where = (
        ""
        if view.dense
        else " The box is what the filter covers of the maps; dotted, all of the picture that can "
        "have changed its response."
    )
    return Drawing(
        figure,
        "The spectrum, what the filters write, the largest filters of either sign, and where, in "
        f"{strongest.frames:,} frames of play, at most once a level, each adds most to the "
        f"direction.{where}",
    )


def _box(view: View, window: Rectangle) -> tuple[float, float, float, float]:
    """Return where a part of the maps that the filters read lies in the picture."""
    top, left, _, _ = view.grid.box((window.top, window.left))
    _, _, bottom, right = view.grid.box((window.bottom - 1, window.right - 1))
    size = view.states.observations.shape[-1]
    return max(top, 0), max(left, 0), min(bottom, size), min(right, size)


def _covered(view: View, position: tuple[int, int]) -> Rectangle:
    """Return what the filters cover at a position of the layer's output."""
    found, (y, x) = view.found, position
    height, width = found.filters.shape[2:]
    window = Window((height, width), found.stride, found.padding, found.dilation)
    return window.reads(Rectangle(y, x, y + 1, x + 1))


def _explained(view: View) -> Drawing:
    """Explain the position, of all states, where the direction is written most."""
    total = view.found.total(view.inputs)
    where = int(total.abs().argmax())
    state, y, x = np.unravel_index(where, total.shape)
    one = view.inputs[state : state + 1]
    maps = view.found.maps(one)[0]
    terms = maps[:, y, x]
    constant = float(total[state, y, x] - terms.sum())
    if view.dense:  # where in the maps each eigenvector finds its product with the input
        read = (view.found.filters * one).sum(1)
        over = view.found.values[:, None, None] * read * read.sum((1, 2), keepdim=True)
        place = ""
    else:
        over, place = maps, f" at row {y}, column {x} of the map"
    figure = contributions(
        terms,
        view.states.observations[state],
        others={"biases": constant if abs(constant) > 1e-9 else 0.0},
        box=None if view.dense else _box(view, _covered(view, (int(y), int(x)))),
        maps=over,
        maps_are="where it comes from" if view.dense else "its term at all positions",
        place=_place(view, over.shape[1:]),
        title=f"{view.step}: {view.named.what}{place}",
        unit="eigenvector" if view.dense else "filter",
    )
    level = view.states.levels[state]
    return Drawing(
        figure,
        f"Level {level}: of all states, the one in which most is written{place or ' along it'}. "
        + (
            "The maps are where the products with the input come from; each sums to its term."
            if view.dense
            else "The maps are the filters' terms at all positions."
        ),
    )


def _interest(agent: Agent, view: View) -> dict[str, Drawing]:
    """Split a vector over maps into channel patterns and their maps, and show it over a state."""
    if view.dense:
        vector, what = view.found.filters[0], f"eigenvector 0 for {view.named.what}"
        maps = view.inputs
    elif view.named.interest is not None:
        vector, what = view.named.interest, "the vector of interest"
        maps = torch.as_tensor(view.outputs).double()
    else:
        vector, what = _policy_gradient(agent, view)
        maps = torch.as_tensor(view.outputs).double()
    split = channel_spatial_svd(vector)
    state = _largest_maze(view)
    share = float(split.share[:3].sum())
    return {
        "channel_space": Drawing(
            channel_spatial(split, title=f"{view.step}: {what}"),
            f"Channel patterns, and the maps that say where they count: the first three hold "
            f"{share:.0%} of the vector's squared norm.",
        ),
        "channel_space_over": Drawing(
            channel_spatial_over(
                split,
                maps[state],
                view.states.observations[state],
                place=_place(view, maps.shape[2:]),
                title=f"{view.step}: {what}",
            ),
            f"The same over a state of level {view.states.levels[state]}: where each pattern is "
            "found, where it counts, and their product, which adds up to the vector's product with "
            "the layer's output.",
        ),
    }


def _place(view: View, shape: Sequence[int]) -> tuple[float, float, float, float]:
    """Return where maps lie in the picture; blocks keep their input's positions."""
    first, last = view.grid.box((0, 0)), view.grid.box((shape[0] - 1, shape[1] - 1))
    return first[0], first[1], last[2], last[3]


def _policy_gradient(agent: Agent, view: View) -> tuple[Float[Tensor, "c h w"], str]:
    """Return what the policy reads of the layer's output in one state, to first order."""
    policy = agent.policy
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
        output.retain_grad()
        kept.append(output)

    handle = agent.layer(view.step).register_forward_hook(keep)
    try:
        with torch.enable_grad():
            image = view.states.observations[_largest_maze(view)]
            images = torch.as_tensor(image[None]).to(agent.device)
            logits = policy.action_net(policy.extract_features(images))[0]
            moves = {
                move: logits[list(actions)].logsumexp(0)
                for move, actions in ACTIONS_OF_MOVE.items()
            }
            best = max(moves, key=lambda move: moves[move].item())
            rest = [value for move, value in moves.items() if move != best]
            (moves[best] - torch.stack(rest).logsumexp(0)).backward()
    finally:
        handle.remove()
        policy.zero_grad(set_to_none=True)
    assert kept[0].grad is not None
    name = Move(best).name.lower()
    return kept[0].grad[0].detach().cpu().double(), f"the gradient of the log odds of {name} here"


def _largest_maze(view: View) -> int:
    """Return the state with most free cells, to show maps over."""
    return max(range(len(view.states)), key=lambda i: len(view.states.mazes[i].free_cells()))


def maps_before(agent: Agent, step: str) -> str:
    """Return the step whose maps a step reads, of the dense layer those before flattening."""
    steps = [name for name in agent.layer_names if "." not in name]
    before = steps[steps.index(step) - 1]
    return maps_before(agent, before) if isinstance(agent.layer(before), nn.Flatten) else before
