"""Play against the number of eigenvectors kept, added to a decomposition as table and figure."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch

from rlbilinear import BilinearTensor
from rlbilinear.agents import Agent
from rlbilinear.agents.edits.directions import bilinear_part
from rlbilinear.agents.truncate import Of, dense_ranks, sweep, truncate_convolution, truncate_dense
from rlbilinear.envs import EVALUATION, FITTING, Maze, observe
from rlbilinear.figures import sweep as draw
from rlbilinear.hosvd import hosvd
from rlbilinear.probes.decomposition import Decomposition
from rlbilinear.probes.report import Drawing

COMPARED = 128
"""Fitting levels at whose starts the truncated policy is compared with the whole one."""


def with_sweep(
    found: Decomposition,
    agent: Agent,
    ks: Sequence[int],
    *,
    of: Of = "action",
    whole: bool = False,
    centred: bool = False,
    levels: int = 100,
    seed: int = 0,
    progress: bool = True,
) -> Decomposition:
    """Play with k eigenvectors kept, for each k, and add what comes of it to a decomposition.

    Of the dense layer the policy's own forms are truncated (all actions, not the one direction);
    of a convolution the direction's eigenfilters, or with ``whole`` k of each singular direction
    of its tensor.

    Args:
        found: the decomposition.
        agent: its agent.
        ks: how many are kept, up to the rank.
        of: whose forms in the dense layer: see `rlbilinear.agents.truncate.truncate_dense`.
        whole: of a convolution, truncate all that it writes.
        centred: the forms less their mean.
        levels: held-out levels played.
        seed: of the sampled actions and of the intervals.
        progress: show a bar.

    Raises:
        ValueError: a k beyond the rank, before anything is played.
    """
    name, module = bilinear_part(agent, str(found.settings["layer"]))
    truncate: Callable[[int], Agent]
    if name == "dense":
        truncate = partial(truncate_dense, agent, of=of, centred=centred)
        rank = max(dense_ranks(agent, of, centred=centred))
        kept = {"action": "of each action", "group": "of each group of actions", "joint": "jointly"}
        what = f"dense layer, eigenvectors {kept[of]}{', centred' * centred}"
    else:
        direction = torch.tensor(found.settings["direction"]["vector"])
        truncate = partial(_truncate, agent, name, None if whole else direction)
        rows = hosvd(BilinearTensor.of(module)).outputs if whole else direction[None]
        rank = max(form.rank for form in module.quadratic_forms(rows))
        of_what = "each direction" if whole else found.settings["direction"]["what"]
        what = f"{name}, eigenfilters of {of_what}"
    if not ks or min(ks) < 0 or max(ks) > rank:
        raise ValueError(f"expected numbers of eigenvectors from 0 to {rank}, the rank; got {ks}")
    observations = observe([Maze.from_seed(seed) for seed in FITTING.first(COMPARED)])
    table = sweep(
        agent, truncate, ks, EVALUATION.first(levels), observations=observations, seed=seed,
        progress=progress,
    )  # fmt: skip
    figure = draw(table, ("success", "solved"), rank=rank, title=what)
    drawing = Drawing(
        figure,
        f"Play on {levels} held-out levels with k of at most {rank} kept, 95 % intervals by level; "
        "solved is success within twice the shortest path plus 10 steps.",
    )
    return replace(
        found,
        figures={**found.figures, "sweep": drawing},
        tables={**found.tables, "sweep": table},
    )


def _truncate(agent: Agent, name: str, direction: torch.Tensor | None, k: int) -> Agent:
    return truncate_convolution(agent, name, k, direction)
