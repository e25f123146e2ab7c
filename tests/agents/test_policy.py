import pytest
from stable_baselines3 import DQN

from rlbilinear import agents
from rlbilinear.agents import AgentPolicy, BilinearPolicy
from rlbilinear.agents.bodies import Bimpala
from rlbilinear.envs import ProcgenVecEnv


@pytest.mark.parametrize("policy", [AgentPolicy, BilinearPolicy])
def test_algorithms_of_another_kind_are_told_what_to_take(policy):
    env = ProcgenVecEnv("maze", 2, num_levels=2)
    with pytest.raises(AttributeError) as raised:
        DQN(policy, env, buffer_size=10, policy_kwargs={"architecture": "bimpala-small"})
    env.close()
    assert f"{policy.__name__} has an actor and a critic on one body, for PPO, A2C" in str(
        raised.value
    )
    assert "no q_net" in str(raised.value)


def test_what_they_are_told_to_take_is_taken():
    env = ProcgenVecEnv("maze", 2, num_levels=2)
    with pytest.raises(AttributeError) as raised:
        _ = AgentPolicy(env.observation_space, env.action_space, lambda _: 0.0).q_net
    body, model = str(raised.value).split("extractor: ")[1].split("; ")
    names = {"rlbilinear": agents.__class__("rlbilinear"), "DQN": DQN, "env": env}
    names["rlbilinear"].agents = agents
    exec(body, names)
    made = eval(model.replace("env, ", "env, buffer_size=10, "), names)
    assert isinstance(made.policy.q_net.features_extractor, Bimpala)
    env.close()


def test_other_names_are_missed_as_ever():
    env = ProcgenVecEnv("maze", 1)
    policy = AgentPolicy(env.observation_space, env.action_space, lambda _: 0.0)
    env.close()
    assert not hasattr(policy, "q_net") and not hasattr(policy, "nothing")
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = policy.nothing
