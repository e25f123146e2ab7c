"""Agents from Stable-Baselines3's zip files, which run code when they are opened."""

from pathlib import Path
from typing import Any

from stable_baselines3 import PPO
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from rlbilinear.agents.agent import Agent
from rlbilinear.agents.architectures import architecture as lookup
from rlbilinear.agents.network import AgentConfig, build_policy, find_device, layer_path, weights_of


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
        ValueError: unknown architecture, or the model has another body, heads that are not
            directly on it (``net_arch=[]``), other observations than images or other actions than
            discrete ones.
    """
    if run_its_code is not True:
        raise PermissionError(
            f"{path}: a Stable-Baselines3 zip holds pickles, and opening it runs the code in them; "
            "if you trust whoever made it, pass run_its_code=True"
        )
    lookup(architecture, **architecture_kwargs)  # a wrong name is found before code is run
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no file {file}")
    given: Any = algorithm.load(file, device="cpu").policy
    actions = getattr(given.action_space, "n", None)
    if actions is None or not given.normalize_images:
        raise ValueError(
            f"expected discrete actions and images that the policy divides by 255, got "
            f"{given.action_space} and normalize_images={given.normalize_images}"
        )
    config = AgentConfig(
        architecture,
        game,
        architecture_kwargs,
        observation_shape=tuple(given.observation_space.shape),
        actions=int(actions),
        made={"from": file.name},
    )
    policy = build_policy(config)
    body, wanted = (str(getattr(p.features_extractor, "layers", p)) for p in (given, policy))
    if body != wanted:
        raise ValueError(
            f"the model's body is no {architecture} with {architecture_kwargs or 'its defaults'}, "
            f"but {body}"
        )
    if next(given.mlp_extractor.parameters(), None) is not None:
        raise ValueError("expected a policy with net_arch=[]: heads directly on the body")
    paths = {layer_path(name): weight for name, weight in weights_of(given).items()}
    policy.load_state_dict(paths, strict=False)
    policy.set_training_mode(False)
    return Agent(policy.to(find_device(device)), config)
