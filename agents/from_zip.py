"""Agents from Stable-Baselines3's zip files, which run code when opened."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from stable_baselines3 import PPO
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from rlbilinear.agents.agent import Agent
from rlbilinear.agents.architectures import architecture as lookup
from rlbilinear.agents.finite import check_weights
from rlbilinear.agents.network import (
    AgentConfig,
    build_policy,
    check_shared,
    check_spaces,
    find_device,
    layer_path,
    weights_of,
)
from rlbilinear.envs.games import check_game

FORMER_MODULES = {
    "agents.architectures": "rlbilinear.agents.architectures",
    "agents.policy": "rlbilinear.agents.policy",
    "agents.rollout_buffer": "rlbilinear.agents.rollout_buffer",
    "agents.trunks": "rlbilinear.agents.bodies",
}
"""Where the classes that a zip may name lay when they were installed as ``agents``, and lie now."""


def agent_from_zip(
    path: str | Path,
    architecture: str,
    *,
    game: str,
    run_its_code: bool = False,
    algorithm: type[OnPolicyAlgorithm] = PPO,
    device: str = "cpu",
    **architecture_kwargs: Any,
) -> Agent:
    """Make an agent of a model that ``model.save(path)`` of Stable-Baselines3 wrote.

    **Such a file holds pickles: to open it runs whatever code its author put there.** Open only
    files that you or people you trust have made, once; ``agent.save`` then writes one without code.

    Args:
        path: the zip file.
        architecture: of its body, a name of :data:`rlbilinear.agents.architectures.ARCHITECTURES`.
        game: the ProcGen game it was made for.
        run_its_code: say True to accept that.
        algorithm: of which class the model is: PPO, A2C or another with an actor and a critic.
        device: where to put it.
        **architecture_kwargs: arguments that its body was made with.

    Raises:
        PermissionError: ``run_its_code`` is not True. The file has not been opened.
        FileNotFoundError: no such file.
        TypeError: ``algorithm`` is none with an actor and a critic.
        ValueError: unknown architecture or game; no file that such a model wrote; or the model has
            another body, heads that are not directly on one body (``net_arch=[]``,
            ``share_features_extractor=True``), observations that are not images from 0 to 255
            which its policy divides (normalised ones would be other numbers), other actions than
            discrete ones, or weights that are not finite.
    """
    if run_its_code is not True:
        raise PermissionError(
            f"{path}: a Stable-Baselines3 zip holds pickles, and opening it runs the code in them; "
            "if you trust whoever made it, pass run_its_code=True"
        )
    lookup(architecture, **architecture_kwargs)  # wrong names are found before code is run
    check_game(game)
    if not isinstance(algorithm, type) or not issubclass(algorithm, OnPolicyAlgorithm):
        raise TypeError(f"expected PPO, A2C or another with an actor and a critic: {algorithm!r}")
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no file {file}")
    given = _policy_in(file, algorithm)
    check_spaces(given)
    config = AgentConfig(
        architecture,
        game,
        architecture_kwargs,
        observation_shape=tuple(given.observation_space.shape),
        actions=int(given.action_space.n),
        made={"from": file.name},
    )
    policy = build_policy(config)
    body, wanted = (str(getattr(p.features_extractor, "layers", p)) for p in (given, policy))
    if body != wanted:
        raise ValueError(
            f"the model's body is not {architecture} with {architecture_kwargs or 'its defaults'}, "
            f"but {body}"
        )
    check_shared(given)
    weights = weights_of(given)
    check_weights(weights)
    paths = {layer_path(name): weight for name, weight in weights.items()}
    policy.load_state_dict(paths, strict=False)
    policy.set_training_mode(False)
    return Agent(policy.to(find_device(device)), config)


def _policy_in(file: Path, algorithm: type[OnPolicyAlgorithm]) -> Any:
    """Open a zip, running its code, and return the policy.

    Raises:
        ValueError: it holds no model.
    """
    try:
        with _former_names():
            return algorithm.load(file, device="cpu").policy
    except (
        AssertionError,
        AttributeError,
        ImportError,
        KeyError,
        RuntimeError,
        TypeError,
    ) as error:
        raise ValueError(f"{file} holds no {algorithm.__name__} model: {error!r}") from error


@contextmanager
def _former_names() -> Iterator[None]:
    """Let pickles find classes by the names of their modules before they were in `rlbilinear`.

    A module of that name that the user has loaded stays what it is.
    """
    former = {name: import_module(now) for name, now in FORMER_MODULES.items()}
    former["agents"] = ModuleType("agents")  # what Python asks for before what is in it
    added = {name: module for name, module in former.items() if name not in sys.modules}
    sys.modules.update(added)
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]
