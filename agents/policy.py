"""Stable-Baselines3 policies over the bodies of `rlbilinear.agents.architectures`."""

from typing import Any

import gymnasium as gym
import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import Schedule
from torch import nn

from rlbilinear.agents.architectures import architecture as lookup

OTHER_NETWORKS = ("q_net", "q_net_target", "quantile_net", "actor", "critic", "critic_target")
"""What algorithms without this actor and critic, such as DQN and SAC, ask their policies for."""


class AgentPolicy(ActorCriticPolicy):
    """Actor and critic as two linear heads on one body.

    ``PPO(AgentPolicy, env, policy_kwargs={"architecture": "impala"})``

    It is for PPO, A2C and other on-policy algorithms. DQN and the like take the bodies as features
    extractors of their own policies, see `architecture`.

    Args:
        observation_space: uint8 images, channels first; the policy divides by 255.
        action_space: discrete.
        lr_schedule: learning rate by remaining progress.
        architecture: a name of :data:`rlbilinear.agents.architectures.ARCHITECTURES`.
        architecture_kwargs: arguments that override the architecture's own.
        **kwargs: passed on to Stable-Baselines3's ``ActorCriticPolicy``.
    """

    def __init__(
        self,
        observation_space: gym.Space,
        action_space: gym.Space,
        lr_schedule: Schedule,
        architecture: str = "impala",
        architecture_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        body, arguments = lookup(architecture, **(architecture_kwargs or {}))
        settings: dict[str, Any] = {
            "net_arch": [],
            "ortho_init": False,
            "optimizer_kwargs": {"eps": 1e-5},
            **kwargs,
            "features_extractor_class": body,
            "features_extractor_kwargs": arguments,
        }
        super().__init__(observation_space, action_space, lr_schedule, **settings)
        with torch.no_grad():
            for head, gain in ((self.action_net, 0.01), (self.value_net, 1.0)):
                assert isinstance(head, nn.Linear)
                nn.init.orthogonal_(head.weight, gain)
                nn.init.zeros_(head.bias)

    def __getattr__(self, name: str) -> Any:
        """Say what to do where another kind of algorithm looks for its networks."""
        if name in OTHER_NETWORKS:
            raise AttributeError(
                f"{type(self).__name__} has an actor and a critic on one body, for PPO, A2C and "
                f"other on-policy algorithms, and no {name}. Give DQN and the like the body as a "
                'features extractor: body, options = rlbilinear.agents.architecture("bimpala"); '
                'DQN("CnnPolicy", env, policy_kwargs={"features_extractor_class": body, '
                '"features_extractor_kwargs": options})'
            )
        return super().__getattr__(name)


class BilinearPolicy(AgentPolicy):
    """:class:`AgentPolicy` whose default body is the bilinear IMPALA.

    ``PPO(BilinearPolicy, env, policy_kwargs={"architecture_kwargs": {"kernel_size": 7}})``
    """

    def __init__(
        self,
        observation_space: gym.Space,
        action_space: gym.Space,
        lr_schedule: Schedule,
        architecture: str = "bimpala",
        architecture_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            architecture=architecture,
            architecture_kwargs=architecture_kwargs,
            **kwargs,
        )
