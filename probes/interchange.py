"""Where a concept is causal: interchange interventions between the members of matched pairs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from rlbilinear.agents import Agent
from rlbilinear.probes.dataset import Pairs
from rlbilinear.probes.interventions import logits_after
from rlbilinear.probes.moves import (
    has_policy,
    kl_divergence,
    log_move_distribution,
    log_move_probabilities,
    right_moves,
)
from rlbilinear.probes.named import AgentLike, LayerLike, as_agent, as_layers
from rlbilinear.probes.subspaces import Subspace, component
from rlbilinear.statistics import bootstrap_of_means


def activation_differences(
    agent: AgentLike, pairs: Pairs, layers: LayerLike | Iterable[LayerLike]
) -> dict[str, Float[Tensor, "pairs *output"]]:
    """Return source minus base of each pair at each layer: what the moved cheese changes there.

    Raises:
        ValueError: unknown layer; the message lists them.
    """
    agent = as_agent(agent)
    names = as_layers(agent, layers)
    base = agent.activations(pairs.base.observations, names)
    source = agent.activations(pairs.source.observations, names)
    return {name: source[name] - base[name] for name in names}


def interchange_table(
    agent: AgentLike,
    pairs: Pairs,
    subspaces: Mapping[str, Sequence[Subspace]],
    *,
    batch: int = 256,
    progress: bool = False,
) -> pd.DataFrame:
    """Patch a subspace of a layer's output with that of the pair's source, and see who is obeyed.

    Args:
        agent: whom to patch.
        pairs: the agent sees the base; the target is its policy on the source.
        subspaces: by layer, what to patch. Fit them on pairs of other levels.
        batch: pairs run at a time.
        progress: show a bar.

    Returns:
        A row for each layer, subspace and pair: ``layer``, ``subspace``, ``rank`` (all of the
        channels or features for the whole output), ``pair``, ``level``; ``kl``, from the target to
        the patched policy over moves, in nats, and ``kl_base``, to the unpatched one; and whether
        the most likely move is the expert's for the source's cheese, 0 or 1: ``follow`` patched,
        ``follow_base`` unpatched, ``follow_source`` where the source is really seen (NaN without
        cheese), and for the base's cheese: ``keep`` patched; ``finite``, 0 where the
        agent's outputs are not finite, patched or not, and what is measured of them is NaN.

    Raises:
        ValueError: a layer that is not a step of the forward pass, or a basis that does not fit it.
    """
    agent = as_agent(agent)
    parts: list[pd.DataFrame] = []
    for start in tqdm(range(0, len(pairs), batch), "interchange", disable=not progress):
        some = np.arange(start, min(start + batch, len(pairs)))
        parts += _interchange(agent, pairs, some, subspaces)
    return pd.concat(parts, ignore_index=True)


def interchange_summary(
    table: pd.DataFrame, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Average over pairs, with intervals by level.

    Args:
        table: from `interchange_table`.
        confidence: confidence level of the intervals.
        resamples: bootstrap samples.
        seed: seed of the resampling.

    Returns:
        A row for each layer and subspace: ``layer``, ``subspace``, ``rank``; ``share``, how much of
        the way to the target the policy goes, ``1 - mean(kl) / mean(kl_base)`` (a ratio of means:
        pairs whose policies hardly differ would make single ratios explode; 1 is all the way,
        negative is away from it); ``follow`` and ``keep``, shares of pairs; each of these three
        with ``_low`` and ``_high``, NaN where one of its values is not finite; ``follow_base``,
        ``follow_source``, ``finite``, the share of pairs whose outputs are all finite, ``pairs``,
        ``levels``.
    """
    rows = []
    for (layer, subspace, rank), group in table.groupby(["layer", "subspace", "rank"], sort=False):
        row = {"layer": layer, "subspace": subspace, "rank": rank}
        for name, values, function in (
            ("share", group[["kl", "kl_base"]].to_numpy(), _share),
            ("follow", group[["follow"]].to_numpy(), _mean),
            ("keep", group[["keep"]].to_numpy(), _mean),
        ):
            if not np.isfinite(values).all():
                row |= {name: np.nan, f"{name}_low": np.nan, f"{name}_high": np.nan}
                continue
            estimate, low, high = bootstrap_of_means(
                values,
                group["level"].to_numpy(),
                function,
                seed=seed,
                n_resamples=resamples,
                confidence=confidence,
            )
            row |= {name: estimate, f"{name}_low": low, f"{name}_high": high}
        row |= group[["follow_base", "follow_source", "finite"]].mean().to_dict()
        rows.append({**row, "pairs": len(group), "levels": group["level"].nunique()})
    return pd.DataFrame(rows)


def _interchange(
    agent: Agent,
    pairs: Pairs,
    some: Int[np.ndarray, "batch"],
    subspaces: Mapping[str, Sequence[Subspace]],
) -> Iterator[pd.DataFrame]:
    """Patch some of the pairs at every layer."""
    base, source = pairs.base.observations[some], pairs.source.observations[some]
    kept, wanted = pairs.base.moves[some], pairs.source.moves[some]
    unpatched, target = (log_move_probabilities(agent, states) for states in (base, source))
    known = has_policy(unpatched) & has_policy(target)
    about = {
        "pair": some,
        "level": pairs.levels[some],
        "kl_base": kl_divergence(target, unpatched),
        "follow_base": right_moves(unpatched, wanted),
        "follow_source": right_moves(target, wanted),
    }
    own, theirs = (agent.activations(states, subspaces) for states in (base, source))
    for layer, candidates in subspaces.items():
        change = theirs[layer] - own[layer]
        for subspace in candidates:
            basis = subspace.basis
            moved = change if basis is None else component(change, basis)
            patched = log_move_distribution(logits_after(agent, layer, own[layer] + moved))
            yield pd.DataFrame(
                {
                    "layer": layer,
                    "subspace": subspace.name,
                    "rank": change.shape[1] if basis is None else len(basis),
                    **about,
                    "kl": kl_divergence(target, patched),
                    "follow": right_moves(patched, wanted),
                    "keep": right_moves(patched, kept),
                    "finite": (known & has_policy(patched)).astype(float),
                }
            )


def _share(kl: Float[np.ndarray, "*batch 2"]) -> Float[np.ndarray, "*batch"]:
    return 1 - kl[..., 0] / kl[..., 1]


def _mean(values: Float[np.ndarray, "*batch 1"]) -> Float[np.ndarray, "*batch"]:
    return values[..., 0]
