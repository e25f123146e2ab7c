"""Truncated agents: only a few eigenvectors of the dense layer or of a convolution are left.

They are agents as any other: the truncation is in their weights, they are saved and loaded.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple, cast, get_args

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from rlbilinear import BilinearConv2d, BilinearLinear, compress, keep_eigenfilters
from rlbilinear.agents.agent import Agent, Observations
from rlbilinear.agents.evaluation import evaluate, summary
from rlbilinear.agents.heads import policy_forms
from rlbilinear.agents.named import AgentLike, as_agent
from rlbilinear.agents.network import HEADS
from rlbilinear.checks import check_whole
from rlbilinear.composition import group_directions
from rlbilinear.edits.functional.parts import bias_or_zeros, matrix_of
from rlbilinear.envs import ACTIONS_OF_MOVE
from rlbilinear.family import FormFamily
from rlbilinear.hosvd import hosvd
from rlbilinear.statistics import grouped, kl_divergence
from rlbilinear.tensor import BilinearTensor

Of = Literal["action", "group", "joint"]
MOVES = tuple(ACTIONS_OF_MOVE.values())
"""Groups of actions with the same effect in a maze: left, down, up, right, stay."""
DENSE = "dense"


class DenseForms(NamedTuple):
    """What the policy reads of the dense layer's input, as forms.

    ``logits = spread @ forms(x)``, exactly for single actions; for groups up to what tells the
    actions of a group apart, and centred forms up to what is added to all logits alike.
    """

    forms: FormFamily
    spread: Float[Tensor, "actions n"]


def dense_forms(
    agent: AgentLike,
    of: Of = "action",
    *,
    centred: bool = False,
    groups: Iterable[Iterable[int]] = MOVES,
) -> DenseForms:
    """Return the policy's forms of the dense layer's input: of each action or group of actions.

    Args:
        agent: an agent whose last layer is bilinear and dense.
        of: ``action`` (each logit), ``group`` (the mean logit of each group of actions), or
            ``joint`` (each logit too; all are truncated to the same vectors).
        centred: subtract the forms' mean, which the policy does not see.
        groups: all actions, by groups.

    Raises:
        TypeError: the agent has no bilinear dense layer.
        ValueError: another choice, or groups that are not all actions, each once.
    """
    agent = as_agent(agent)
    if of not in get_args(Of):
        raise ValueError(f"unknown choice {of!r}; choose from {', '.join(get_args(Of))}")
    actions = _dense(agent)[1].out_features
    spread = torch.eye(actions, dtype=torch.float64, device=agent.device)
    directions = spread
    if of == "group":
        members = [tuple(group) for group in groups]
        if sorted(action for group in members for action in group) != [*range(actions)]:
            raise ValueError(f"expected groups of the actions 0 to {actions - 1}, got {members}")
        directions = group_directions(members, actions).to(spread)
        spread = (directions != 0).to(spread).T
    if centred:
        directions = directions - directions.mean(0)
    return DenseForms(policy_forms(agent, directions), spread)


def truncate_dense(
    agent: AgentLike,
    k: int,
    *,
    of: Of = "action",
    centred: bool = False,
    groups: Iterable[Iterable[int]] = MOVES,
    observations: Observations | None = None,
) -> Agent:
    """Keep ``k`` eigenvectors of what the policy reads of the dense layer's input.

    The new dense layer's features are the kept ``(v . x)²`` themselves, and the policy's head holds
    their eigenvalues; the value reads the old features, which stay beside them.

    Args:
        agent: an agent whose last layer is bilinear and dense.
        k: eigenvectors of each action's or group's form (all, where a form has fewer). With
            ``joint``: vectors that all actions share, the principal ones of the forms' squares.
        of: ``action``, ``group`` or ``joint``, as in `dense_forms`. With ``group`` the actions of a
            group get the same logit.
        centred: truncate the forms less their mean, which the policy does not see.
        groups: all actions, by groups.
        observations: when given, what is dropped is replaced by its mean over them.

    Raises:
        TypeError: the agent has no bilinear dense layer.
        ValueError: k beyond every form's rank, or negative; another choice; wrong groups.
    """
    agent = as_agent(agent)
    forms, spread = dense_forms(agent, of, centred=centred, groups=groups)
    rank = max(_ranks(forms, of))
    check_whole(0, k=k)
    if k > rank:
        raise ValueError(f"expected k from 0 to {rank}, the rank of the policy's forms; got {k}")
    policy = _joint_policy(forms, k) if of == "joint" else _separate_policy(forms, k)
    if observations is not None:
        x = dense_inputs(agent, observations).to(forms.left)
        policy = policy._replace(constants=policy.constants + (forms(x) - policy(x)).mean(0))
    what = {"action": "each action", "group": "each group of actions", "joint": "all actions"}[of]
    extra = ", centred" * centred + ", the rest at its mean" * (observations is not None)
    return agent.with_layers(
        _network(agent, policy, spread),
        edit=f"dense: top {k} eigenvectors of {what} kept{extra}",
    )


def dense_ranks(
    agent: AgentLike,
    of: Of = "action",
    *,
    centred: bool = False,
    groups: Iterable[Iterable[int]] = MOVES,
) -> list[int]:
    """Return the numerical rank of each of the policy's forms; of ``joint``, of all together.

    Beyond the largest of them, a larger k changes nothing.

    Raises:
        TypeError: the agent has no bilinear dense layer.
        ValueError: another choice, or wrong groups.
    """
    agent = as_agent(agent)
    return _ranks(dense_forms(agent, of, centred=centred, groups=groups).forms, of)


def dense_inputs(agent: AgentLike, observations: Observations) -> Float[Tensor, "n inputs"]:
    """Return what the dense layer reads, in float64."""
    agent = as_agent(agent)
    steps = [name for name in agent.layer_names if "." not in name]
    before = steps[steps.index(DENSE) - 1]
    return agent.activations(observations, [before])[before].flatten(1).double()


def truncate_convolution(
    agent: AgentLike,
    layer: str,
    k: int,
    directions: Float[Tensor, "*several channels"] | None = None,
) -> Agent:
    """Keep ``k`` eigenfilters of each of some channel directions of a bilinear convolution.

    Args:
        agent: the agent.
        layer: the convolution's name, such as ``block2.bilinear``.
        k: eigenfilters of each direction (all, where one has fewer).
        directions: one, or linearly independent ones as rows; what is written otherwise stays. When
            None all directions of the layer's tensor (`hosvd`): nothing else is left.

    Raises:
        TypeError: the layer is not a bilinear convolution.
        ValueError: k beyond every direction's rank, or negative; directions that do not fit.
    """
    agent = as_agent(agent)
    conv = agent.layer(layer)
    if not isinstance(conv, BilinearConv2d):
        raise TypeError(f"{layer} is a {type(conv).__name__}, not a bilinear convolution")
    whole = directions is None
    rows = hosvd(BilinearTensor.of(conv)).outputs if directions is None else directions
    edited = keep_eigenfilters(conv, torch.atleast_2d(rows), k)
    if whole:  # nothing is left for the old hidden units to write
        edited = compress(edited).layer
    count = len(torch.atleast_2d(rows))
    what = "all singular directions" if whole else f"{count} direction{'s' * (count > 1)}"
    return agent.with_layer(layer, edited, edit=f"{layer}: top {k} eigenfilters of {what} kept")


def sweep(
    agent: AgentLike,
    truncate: Callable[[int], Agent],
    ks: Sequence[int],
    levels: Sequence[int],
    *,
    observations: Observations | None = None,
    groups: Iterable[Iterable[int]] = MOVES,
    mode: str = "easy",
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Play truncated agents and the whole one on the same levels, with the same sampling noise.

    Args:
        agent: the whole agent.
        truncate: gives the agent with k kept, such as ``partial(truncate_dense, agent)``.
        ks: which k; up to the rank, beyond which `truncate` refuses.
        levels: seeds.
        observations: when given, on which policies are compared.
        groups: actions with the same effect; policies are compared by effects.
        mode: the game's distribution mode.
        seed: seed of the sampled actions and of the intervals.
        progress: show a bar.

    Returns:
        A row for each k, the whole agent last (``k`` is "all"): ``not_finite``, the share of
        episodes that ended, without success, where the agent's logits were not finite; the mean
        ``return``, ``success``, ``solved`` (mazes, heists) and ``steps``, each with its 95 %
        interval by level in ``_low`` and ``_high``; and with observations ``kl`` (of the truncated
        from the whole policy, in nats) and ``agreement`` (how often the most likely effect is the
        same), NaN if the truncated agent's logits are not all finite.

    Raises:
        ValueError: as `truncate` and `rlbilinear.agents.evaluation.evaluate`.
    """
    agent = as_agent(agent)
    agents: dict[int | str, Agent] = {k: truncate(k) for k in sorted(set(ks))}
    groups = [tuple(group) for group in groups]
    rows = []
    for k, each in tqdm((agents | {"all": agent}).items(), desc="truncated", disable=not progress):
        played = evaluate(each, levels, mode=mode, seed=seed, progress=False, not_finite="count")
        row: dict[str, int | str | float] = {"k": k, "not_finite": played["not_finite"].mean()}
        for metric, found in summary(played, seed=seed).iterrows():
            row |= {str(metric): found["mean"]}
            row |= {f"{metric}_{end}": found[end] for end in ("low", "high")}
        if observations is not None:
            row |= _compared(agent, each, observations, groups)
        rows.append(row)
    return pd.DataFrame(rows)


class _Policy(NamedTuple):
    """Forms ``readout @ ((left x) * (right x)) + linears x + constants``."""

    left: Float[Tensor, "units inputs"]
    right: Float[Tensor, "units inputs"]
    readout: Float[Tensor, "n units"]
    linears: Float[Tensor, "n inputs"]
    constants: Float[Tensor, "n"]

    def __call__(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch n"]:
        products = (x @ self.left.T) * (x @ self.right.T)
        return products @ self.readout.T + x @ self.linears.T + self.constants


def _separate_policy(forms: FormFamily, k: int) -> _Policy:
    """Keep k eigenvectors of each form."""
    spectra = forms.eigh(k)
    vectors = torch.cat([each.vectors for each in spectra])
    readout = torch.block_diag(*(each.values[None] for each in spectra)).to(vectors)
    return _Policy(vectors, vectors, readout, forms.linears, forms.constants)


def _joint_policy(forms: FormFamily, k: int) -> _Policy:
    """Project what the forms' products read on the k principal vectors of all forms."""
    _, vectors = _principal(forms)
    kept = vectors[:k]
    left, right = (factor @ kept.T @ kept for factor in (forms.left, forms.right))
    return _Policy(left, right, forms.weights, forms.linears, forms.constants)


def _principal(forms: FormFamily) -> tuple[Float[Tensor, "m"], Float[Tensor, "m inputs"]]:
    """Return the eigenvalues and eigenvectors of the sum of the forms' squares, largest first."""
    basis = torch.linalg.qr(torch.cat([forms.left, forms.right]).T).Q
    small = forms.pullback(basis)
    squares = torch.stack([(q := form.matrix()) @ q for form in small]).sum(0)
    values, vectors = torch.linalg.eigh(squares)
    return values.flip(0), (basis @ vectors.flip(1)).T


def _ranks(forms: FormFamily, of: Of) -> list[int]:
    if of == "joint":
        values, _ = _principal(forms)
        eps = torch.finfo(values.dtype).eps
        return [int((values > len(values) * eps * values.amax()).sum())]
    return [len(each.values) for each in forms.eigh()]


def _network(
    agent: Agent, policy: _Policy, spread: Float[Tensor, "actions n"]
) -> dict[str, nn.Module]:
    """Build the dense layer and the heads: new units for the policy, the old ones for the value."""
    dense, _, value = _dense(agent)
    left, right, readout = policy.left, policy.right, spread @ policy.readout
    ones = left.new_zeros(len(left))
    if dense.left.bias is not None:  # (linear . x)(0 . x + 1)
        left = torch.cat([left, policy.linears])
        right = torch.cat([right, 0 * policy.linears])
        ones = torch.cat([ones, ones.new_ones(len(policy.linears))])
        readout = torch.cat([readout, spread], dim=1)
    new, old = len(left), dense.out_features
    weights = {
        "left.weight": torch.cat([left, matrix_of(dense.left)]),
        "right.weight": torch.cat([right, matrix_of(dense.right)]),
    }
    if dense.left.bias is not None:
        weights["left.bias"] = torch.cat([0 * ones, bias_or_zeros(dense.left)])
        weights["right.bias"] = torch.cat([ones, bias_or_zeros(dense.right)])
    hidden = None
    if dense.down is not None:
        hidden = new + dense.hidden_features
        identity = torch.eye(new).to(left)
        weights["down.weight"] = torch.block_diag(identity, matrix_of(dense.down))
        if dense.down.bias is not None:
            weights["down.bias"] = torch.cat([0 * ones, bias_or_zeros(dense.down)])
    unread = {"action": readout.new_zeros(len(readout), old), "value": left.new_zeros(1, new)}
    heads = {
        "action_net": (torch.cat([readout, unread["action"]], dim=1), spread @ policy.constants),
        "value_net": (torch.cat([unread["value"], matrix_of(value)], dim=1), bias_or_zeros(value)),
    }
    with torch.device("meta"):  # no random numbers drawn
        grown = BilinearLinear(
            dense.in_features, new + old, hidden_features=hidden, bias=dense.left.bias is not None
        )
        linear = {name: nn.Linear(new + old, len(bias)) for name, (_, bias) in heads.items()}
    grown.load_state_dict(weights, assign=True)
    for name, (weight, bias) in heads.items():
        linear[name].load_state_dict({"weight": weight, "bias": bias}, assign=True)
    return {DENSE: grown, **linear}


def _dense(agent: Agent) -> tuple[BilinearLinear, nn.Linear, nn.Linear]:
    """Return the dense layer, the policy's head and the value's.

    Raises:
        TypeError: the dense layer is not bilinear.
    """
    dense = agent.layer(DENSE)
    if not isinstance(dense, BilinearLinear):
        raise TypeError(f"expected a bilinear dense layer, got a {type(dense).__name__}")
    heads = [agent.layer(name) for name in HEADS]
    assert all(isinstance(head, nn.Linear) for head in heads)
    return dense, cast(nn.Linear, heads[0]), cast(nn.Linear, heads[1])


def _compared(
    agent: Agent, other: Agent, observations: Observations, groups: Iterable[Iterable[int]]
) -> dict[str, float]:
    """Compare two policies by what their actions do: KL from the agent's, and the most likely."""
    effects = [[*group] for group in groups]
    whole, truncated = agent.logits(observations), other.logits(observations, check_finite=False)
    if not truncated.isfinite().all():
        return {"kl": float("nan"), "agreement": float("nan")}
    ours, theirs = (
        grouped(logits.double().log_softmax(1), effects) for logits in (whole, truncated)
    )
    return {
        "kl": float(kl_divergence(ours, theirs).mean()),
        "agreement": float((ours.argmax(1) == theirs.argmax(1)).double().mean()),
    }
