"""Published methods beside ours, on the same pairs: one table of reach, specificity and cost.

print(baselines("maze-bimpala-compact", "cheese").to_string())
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from rlbilinear.probes.causal.choosing import asked, choose, where_to_ask
from rlbilinear.probes.causal.data import ConceptData, Examples
from rlbilinear.probes.causal.games import FIT_LEVELS, LEVELS, game_data, game_of
from rlbilinear.probes.causal.interventions import (
    Layer,
    LogBehaviour,
    follows,
    log_behaviour,
    moved,
)
from rlbilinear.probes.causal.methods import METHODS, Method, NotAskedError, Setting
from rlbilinear.probes.causal.report import Policy
from rlbilinear.probes.causal.subspaces import Rows, rows_of
from rlbilinear.probes.subject import Subject, as_subject
from rlbilinear.statistics import Interval, bootstrap_interval

GAINS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""What is added is multiplied by the one of these that most fitting pairs follow."""


def baselines(
    policy: Policy | Subject,
    data: ConceptData | str,
    *,
    layer: str = "auto",
    rank: int | Literal["auto"] = "auto",
    seed: int = 0,
    fit_levels: int = FIT_LEVELS,
    levels: int = LEVELS,
    progress: bool = True,
) -> pd.DataFrame:
    """Put published methods beside ours: all fitted to the same states, tried on the same pairs.

    Args:
        policy: as `ask` takes it.
        data: the concept; or the name of one of `causal_concepts` of the agent's game.
        layer: where; ``auto`` chooses it on the fitting pairs, as `ask` does.
        rank: of our difference subspace; ``auto`` chooses it with the layer.
        seed: of everything random.
        fit_levels: of a concept given by name, how many levels to fit on.
        levels: and how many to decide on.
        progress: show a bar.

    Returns:
        A row a method: ``method``; ``family``, whether it moves the concept or removes it;
        ``needs``, what must be known when it is used; ``layer``; ``reach`` with its interval
        ``low`` and ``high`` by level: of what moves, the share of pairs in which the policy does
        what is right in the counterpart, of what removes, the probability that the right
        behaviour loses; ``specificity``, 1 minus the probability that goes elsewhere than it
        should: of what moves, the total variation from the policy in the counterpart, of what
        removes, from the unedited policy in states without the concept (NaN when there are none);
        and the cost: ``size``, the root mean square change of the layer's output relative to
        exchanging all of it, and ``seconds`` for fitting and editing, beyond the layer's outputs.
        ``gain``: what is added is multiplied by it, chosen from `GAINS` on the fitting pairs;
        ``finite``: the share of pairs with finite outputs, in which the reach is measured;
        ``not_asked``, the reason why a method has no numbers.

    Raises:
        ValueError: as of `ask`.
        SubjectError: a policy that cannot be studied.
    """
    subject = policy if isinstance(policy, Subject) else as_subject(policy)
    if isinstance(data, str):
        data = game_data(game_of(subject), data, fit_levels=fit_levels, levels=levels, seed=seed)
    layers, ranks = where_to_ask(subject, data, layer, rank)
    _, chosen, chosen_rank = choose(subject, data, layers, ranks, seed=seed)
    given = setting(subject, data, chosen, chosen_rank, seed)
    rows = [
        _row(name, method, given)
        for name, method in tqdm(METHODS.items(), desc="methods", disable=not progress)
    ]
    return pd.DataFrame(rows)


def setting(subject: Subject, data: ConceptData, layer: str, rank: int, seed: int) -> Setting:
    """Run the policy on all that methods fit to and are tried on."""
    fit_outputs = subject.activations(data.fit.observations, [layer])[layer]
    mean = rows_of(fit_outputs, data.kind).mean(0)
    fitting, what = (asked(subject, data, pairs) for pairs in (data.fit_pairs, data.pairs))
    at_fit, here = (
        Layer.of(subject, layer, data.kind, data.behaviours, each.pairs, mean)
        for each in (fitting, what)
    )
    return Setting(data, what, fitting, fit_outputs, at_fit, here, rank, seed)


def _row(name: str, method: Method, shared: Setting) -> dict[str, object]:
    given = replace(shared)  # which has nothing fitted yet, so that each method pays for its own
    here, what = given.here, given.what
    row: dict[str, object] = {
        "method": name,
        "family": method.family,
        "needs": method.needs,
        "layer": here.name,
        "not_asked": "",
    }
    started = time.perf_counter()
    try:
        gain = _gain(method, given) if method.needs == "where to" else 1.0
        edit = method.edit(given)
    except (NotAskedError, ImportError) as error:
        return row | {"not_asked": str(error)}
    change = gain * edit if isinstance(edit, Tensor) else edit(here.base) - here.base
    seconds = time.perf_counter() - started
    after = here.behaviour(here.base + change)
    aside: Float[np.ndarray, "n"] | None
    if isinstance(edit, Tensor):
        reach, aside = follows(after, what.source), _from_counterpart(given, after)
    else:
        own, states = here.behaviour(here.base), np.arange(len(what.base))
        reach = (own[states, what.base].exp() - after[states, what.base].exp()).numpy()
        there = given.data.unrelated
        aside = None if there is None else _without(given, there, edit)
    known = np.isfinite(reach)
    interval = Interval(np.nan, np.nan, np.nan)
    if known.any():
        interval = bootstrap_interval(reach[known], what.pairs.groups[known], seed=given.seed)
    return row | {
        "reach": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "specificity": np.nan if aside is None else 1 - np.nan_to_num(aside, nan=1.0).mean(),
        "size": float((change.square().mean() / here.change.square().mean()).sqrt()),
        "seconds": seconds,
        "gain": gain,
        "finite": known.mean(),
    }


def _from_counterpart(given: Setting, after: LogBehaviour) -> Float[np.ndarray, "n"]:
    """Return how far an edited policy is from what it does in the counterpart."""
    source = given.here.subject.logits(given.what.pairs.source)
    return moved(log_behaviour(source, given.data.behaviours), after)


def _without(
    given: Setting, unrelated: Examples, edit: Callable[[Rows], Rows]
) -> Float[np.ndarray, "n"]:
    """Return how far an edit moves the policy in states without the concept."""
    layer = given.here
    outputs = layer.subject.activations(unrelated.observations, [layer.name])[layer.name]
    rows = rows_of(outputs, given.data.kind)
    return moved(layer.behaviour(rows), layer.behaviour(edit(rows)))


def _gain(method: Method, given: Setting) -> float:
    """Choose by how much to multiply what is added, on the fitting pairs."""
    fitting = replace(given, what=given.fitting, here=given.at_fit)
    change = method.edit(fitting)
    assert isinstance(change, Tensor)
    followed = {
        gain: np.nan_to_num(follows(fitting.here.add(gain * change), fitting.what.source)).mean()
        for gain in GAINS
    }
    return max(followed, key=lambda gain: followed[gain])


def table_of(found: pd.DataFrame) -> str:
    """Return the table of `baselines` as text of at most 100 columns."""
    shown = pd.DataFrame(
        {
            "method": found["method"],
            "needs": found["needs"].where(found["needs"] != "nothing", ""),
            "reach": [
                f"{row.reach:.2f} [{row.low:.2f}, {row.high:.2f}]" for row in found.itertuples()
            ],
            **{
                name: found[name].map(form.format).replace("nan", "")
                for name, form in (
                    ("specificity", "{:.2f}"),
                    ("size", "{:.2f}"),
                    ("gain", "{:g}"),
                    ("seconds", "{:.2f}"),
                )
            },
        }
    )
    text = shown.to_string(index=False)
    reasons = found[found["not_asked"] != ""]
    return "\n".join([text, *(f"{r.method}: {r.not_asked}" for r in reasons.itertuples())])
