"""What an agent is about to do: probes for each of its next moves."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Int
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from rlbilinear.checks import check_whole
from rlbilinear.envs import ACTIONS_OF_MOVE, Maze
from rlbilinear.envs.pairs import NO_MOVE
from rlbilinear.envs.simulator import Simulator
from rlbilinear.probes.dataset import ActivationDataset
from rlbilinear.probes.moves import move_probabilities
from rlbilinear.probes.named import AgentLike, as_agent
from rlbilinear.statistics import bootstrap_interval

_AT_ONCE = 256


def next_moves(agent: AgentLike, mazes: Sequence[Maze], n: int) -> Int[np.ndarray, "mazes n"]:
    """Play on from each maze in the simulator, by the most likely move, and return the next moves.

    Args:
        agent: who plays.
        mazes: states, all of one mode.
        n: how many moves.

    Returns:
        Each `Move`; `NO_MOVE` after the end of the episode.

    Raises:
        ValueError: no mazes, mazes of several modes, or n below 1.
        FloatingPointError: the agent's logits are not finite.
    """
    check_whole(n=n)
    agent = as_agent(agent)
    if not mazes or len({maze.mode for maze in mazes}) > 1:
        raise ValueError(f"expected mazes of one mode, got {sorted({m.mode for m in mazes})}")
    parts = [mazes[start : start + _AT_ONCE] for start in range(0, len(mazes), _AT_ONCE)]
    return np.concatenate([_play(agent, part, n) for part in parts])


def _play(agent: AgentLike, mazes: Sequence[Maze], n: int) -> Int[np.ndarray, "mazes n"]:
    action_of = np.array([ACTIONS_OF_MOVE[move][0] for move in sorted(ACTIONS_OF_MOVE)], np.int32)
    taken = np.full((len(mazes), n), NO_MOVE)
    simulator = Simulator("maze", len(mazes), mode=mazes[0].mode)
    try:
        simulator.set_states([maze.to_bytes() for maze in mazes])
        frame, playing = simulator.observe(), np.ones(len(mazes), bool)
        for step in range(n):
            moves = move_probabilities(agent, frame.images.copy().transpose(0, 3, 1, 2)).argmax(1)
            taken[playing, step] = moves[playing]
            simulator.act(action_of[moves])
            frame = simulator.observe()
            playing &= ~frame.first
            if not playing.any():
                break
    finally:
        simulator.close()
    return taken


def next_move_probes(
    agent: AgentLike,
    fit: ActivationDataset,
    test: ActivationDataset,
    n: int,
    *,
    penalty: float = 100.0,
    seed: int = 0,
) -> pd.DataFrame:
    """Probe every layer of two datasets for each of the agent's next ``n`` moves.

    A multinomial logistic regression on the layer's whole output, standardised. Beside it, what is
    read from nothing: the commonest move of the fitting states, and the same probe fitted to moves
    shuffled over the states.

    Args:
        agent: whose moves.
        fit: states to fit on.
        test: states of other levels.
        n: how many moves.
        penalty: ``penalty / 2 |w|²`` against the sum of the losses.
        seed: of the shuffles and of the bootstrap by level.

    Returns:
        A row for each layer and move: ``layer``, ``move`` (1 is the next), ``accuracy`` with its
        interval ``low`` and ``high``, ``commonest``, ``shuffled``, ``states``. States whose episode
        is over by then are left out.

    Raises:
        ValueError: the datasets share levels or have other layers, or all fitting states have the
            same move, or none.
    """
    if shared := {*fit.levels.tolist()} & {*test.levels.tolist()}:
        raise ValueError(f"levels to fit on and to test on are shared: {sorted(shared)}")
    if set(fit.activations) != set(test.activations):
        raise ValueError(f"layers {set(fit.activations)} to fit, {set(test.activations)} to test")
    rng = np.random.default_rng(seed)
    labels, truth = (next_moves(agent, data.mazes, n) for data in (fit, test))
    rows = []
    for layer, outputs in fit.activations.items():
        x, x_test = (each.reshape(len(each), -1) for each in (outputs, test.activations[layer]))
        for step in range(n):
            known, asked = labels[:, step] != NO_MOVE, truth[:, step] != NO_MOVE
            y, y_test = labels[known, step], truth[asked, step]
            if len(np.unique(y)) < 2 or not len(y_test):
                raise ValueError(
                    f"move {step + 1}: expected two different moves or more to fit on and a state "
                    f"to test on, got {np.unique(y).tolist()} and {len(y_test)} states"
                )
            right, shuffled = (
                _fitted(x[known], target, penalty).predict(x_test[asked]) == y_test
                for target in (y, rng.permutation(y))
            )
            accuracy = bootstrap_interval(right.astype(float), test.levels[asked], seed=seed)
            rows.append(
                {
                    "layer": layer,
                    "move": step + 1,
                    "accuracy": accuracy.estimate,
                    "low": accuracy.low,
                    "high": accuracy.high,
                    "commonest": float((y_test == np.bincount(y).argmax()).mean()),
                    "shuffled": float(shuffled.mean()),
                    "states": len(y_test),
                }
            )
    return pd.DataFrame(rows)


def _fitted(x: np.ndarray, y: np.ndarray, penalty: float) -> LogisticRegression:
    return make_pipeline(StandardScaler(), LogisticRegression(C=1 / penalty, max_iter=1000)).fit(
        x, y
    )
