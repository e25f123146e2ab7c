import copy
import inspect
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.type_aliases import PolicyPredictor
from torch import nn

from rlbilinear.agents import Agent, AgentConfig, AgentPolicy, load
from rlbilinear.envs import ProcgenVecEnv


@pytest.fixture(scope="module")
def agent():
    return Agent.new("bimpala-compact", seed=1)


@pytest.fixture(scope="module")
def observations():
    return np.random.default_rng(0).integers(0, 256, (5, 3, 64, 64), dtype=np.uint8)


def test_activations_are_the_layers_outputs(agent, observations):
    got = agent.activations(
        observations, ["stem", "block1.bilinear", "dense", "value_net"], batch=2
    )
    x = torch.as_tensor(observations) / 255
    stem = agent.layer("stem")(x)
    torch.testing.assert_close(got["stem"], stem, rtol=1e-4, atol=1e-5)
    bilinear = agent.layer("block1.bilinear")(agent.layer("pool1")(stem))
    torch.testing.assert_close(got["block1.bilinear"], bilinear, rtol=1e-3, atol=1e-4)
    assert got["dense"].shape == (5, 256)
    assert got["value_net"].shape == (5, 1)
    assert not got["dense"].requires_grad


def test_logits_are_the_policys_own(agent, observations):
    distribution = agent.policy.get_distribution(torch.as_tensor(observations)).distribution
    expected = distribution.logits
    torch.testing.assert_close(agent.logits(observations).log_softmax(1), expected.detach())


def test_predictions_follow_the_policy_and_the_seed(agent, observations):
    many = np.repeat(observations[:1], 1000, axis=0)
    head = nn.Linear(256, 15)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.linspace(0, 3, 15))
    agent = agent.with_layer("action_net", head)
    actions, _ = agent.predict(many, generator=torch.Generator().manual_seed(0))
    again, _ = agent.predict(many, generator=torch.Generator().manual_seed(0))
    assert np.array_equal(actions, again)
    share = np.bincount(actions, minlength=15) / 1000
    assert np.abs(share - head.bias.softmax(0).detach().numpy()).max() < 0.05
    assert (agent.predict(many[:3], deterministic=True)[0] == 14).all()


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((1, 64, 64, 3), np.uint8),
        np.zeros((3, 64, 64), np.uint8),
        np.zeros((1, 3, 64, 64), np.float32),
        np.zeros((0, 3, 64, 64), np.uint8),
    ],
)
def test_observations_of_another_kind_are_refused(agent, wrong):
    with pytest.raises(ValueError, match=r"expected uint8 observations \(batch, 3, 64, 64\)"):
        agent.logits(wrong)


def test_unknown_layers_and_silent_ones_are_refused(agent, observations):
    with pytest.raises(ValueError, match="choose from stem"):
        agent.activations(observations, ["nonsense"])
    with pytest.raises(ValueError, match="no output of its own"):
        agent.activations(observations, ["block1.bilinear.left"])
    assert agent.layer("block1.bilinear.left").weight.shape == (32, 32, 3, 3)


def test_with_layer_refuses_what_does_not_fit(agent):
    with pytest.raises(ValueError, match=r"Conv2d does not fit block1"):
        agent.with_layer("block1", nn.Conv2d(5, 32, 1))
    with pytest.raises(ValueError, match=r"unknown layer 'block9'.*stem, pool1, block1"):
        agent.with_layer("block9", nn.Identity())


# --- in Stable-Baselines3's hands


def test_predict_takes_and_returns_what_theirs_does(agent, observations):
    theirs = [*inspect.signature(PolicyPredictor.predict).parameters.values()]
    ours = [*inspect.signature(agent.predict).parameters.values()]
    assert [p.name for p in ours[:4]] == [p.name for p in theirs[1:]]
    assert [p.default for p in ours[:4]] == [p.default for p in theirs[1:]]
    state, starts = (np.zeros((1, 4)),), np.zeros(5, bool)
    for given in (observations, observations.transpose(0, 2, 3, 1)):
        for seen in (given, given[2]):
            expected, _ = agent.policy.predict(seen, deterministic=True)
            actions, same = agent.predict(seen, state, starts, True)
            assert np.array_equal(actions, expected) and same is state
            assert actions.shape == expected.shape and actions.dtype == expected.dtype


@pytest.mark.parametrize("vectorised", [True, False])
def test_evaluate_policy_plays_an_agent_as_its_policy(agent, vectorised):
    def play(model):
        seen = []
        if vectorised:
            env = ProcgenVecEnv("maze", 2, num_levels=3, seed=0)
        else:
            env = gymnasium.make("rlbilinear/procgen-maze-v0", num_levels=3)
            env.reset(seed=0)
        torch.manual_seed(0)
        results = evaluate_policy(
            model,
            env,
            n_eval_episodes=2,
            deterministic=False,
            return_episode_rewards=True,
            warn=False,
            callback=lambda now, _: seen.append(int(now["actions"][now["i"]])),
        )
        env.close()
        return results, seen

    assert play(agent) == play(agent.policy)


def test_a_callback_can_ask_an_agent(agent):
    """As their evaluation callback does, another agent is played while a model learns."""

    class Play(BaseCallback):
        def __init__(self, played, env):
            super().__init__()
            self.played, self.env = played, env

        def _on_step(self):
            return True

        def _on_rollout_end(self):
            self.mean, _ = evaluate_policy(self.played, self.env, 2, warn=False)

    env, held_out = (ProcgenVecEnv("maze", 2, num_levels=2, seed=seed) for seed in (0, 1))
    model = PPO(
        AgentPolicy,
        env,
        n_steps=2,
        batch_size=4,
        n_epochs=1,
        policy_kwargs={"architecture": "bimpala-compact", "architecture_kwargs": {"channels": 4}},
    )
    played = Play(agent, held_out)
    model.learn(4, callback=played)
    assert played.mean in (0.0, 5.0, 10.0)
    env.close()
    held_out.close()


# --- copies


def test_an_agent_that_has_learned_is_copied(agent, observations):
    """A policy's distribution holds the graph of its last call, which PyTorch cannot copy."""
    trained = copy.deepcopy(agent)
    trained.policy.evaluate_actions(
        torch.as_tensor(observations), torch.zeros(5, dtype=torch.long)
    )[1].sum().backward()
    assert trained.policy.action_dist.distribution.logits.grad_fn is not None
    again = copy.deepcopy(trained)
    edited = trained.with_layer("dense", trained.layer("dense"))
    before = agent.logits(observations)
    assert trained.double().dtype == torch.float64
    with torch.no_grad():
        trained.layer("action_net").bias.add_(1)
    assert not torch.equal(trained.logits(observations), before)
    assert torch.equal(again.logits(observations), before)
    assert torch.equal(edited.logits(observations), before)
    optimiser = again.policy.optimizer
    optimised = {id(weight) for group in optimiser.param_groups for weight in group["params"]}
    assert optimised == {id(weight) for weight in again.policy.parameters()}


def answer(agent, observations):
    return agent.logits(observations).numpy()


def test_an_agent_answers_alike_in_another_process(agent, observations):
    """Edited, trained and hooked: it is pickled for a process that shares nothing with this one."""
    sent = agent.with_layer("dense", agent.layer("dense"), edit="nothing")
    sent.policy.evaluate_actions(torch.as_tensor(observations), torch.zeros(5, dtype=torch.long))
    expected = answer(sent, observations)
    sent.layer("dense").register_forward_hook(lambda *_: None)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        again = pool.submit(answer, sent, observations).result()
    np.testing.assert_array_equal(again, expected)
    assert pickle.loads(pickle.dumps(sent)).config == sent.config


def test_edited_agents_have_none_of_the_hooks_on_this_one(agent, observations):
    """A user's hook changes this agent as long as it is there, and never what was made of it."""

    class Doubling:
        def __deepcopy__(self, memo):
            raise AssertionError("a hook was copied")

        def __call__(self, module, inputs, output):
            return 2 * output

    plain = agent.logits(observations)
    handles = [
        agent.layer("block1").register_forward_hook(Doubling()),
        agent.layer("block2.bilinear").register_forward_pre_hook(lambda m, x: (2 * x[0],)),
        agent.layer("dense").register_forward_hook(
            lambda m, x, kwargs, y: 2 * y, with_kwargs=True, always_call=True
        ),
        agent.layer("dense").register_full_backward_hook(lambda *_: None),
    ]
    assert not torch.allclose(agent.logits(observations), plain)
    made = [
        agent.with_layer("dense", agent.layer("dense")),
        agent.with_layer("stem", agent.layer("stem")),
        copy.deepcopy(agent),
    ]
    for each in made:
        assert torch.equal(each.logits(observations), plain)
        assert not any(
            hooks
            for module in each.policy.modules()
            for name, hooks in vars(module).items()
            if ("forward" in name and "hooks" in name) or ("backward" in name and "hooks" in name)
        )
    for handle in handles:
        handle.remove()
    assert torch.equal(agent.logits(observations), plain)


# --- at the door


def policy(architecture="bimpala-small", shape=None, *, space=None, actions=15, **options):
    space = gymnasium.spaces.Box(0, 255, (3, 64, 64), np.uint8) if space is None else space
    if isinstance(actions, int):
        actions = gymnasium.spaces.Discrete(actions)
    return AgentPolicy(
        space,
        actions,
        lambda _: 0.0,
        architecture=architecture,
        architecture_kwargs={"channels": 4, "features": 8, **(shape or {})},
        **options,
    )


def config(**options):
    kwargs = {"channels": 4, "features": 8}
    return AgentConfig("bimpala-small", "maze", architecture_kwargs=kwargs, **options)


def four_outputs():
    given = policy()
    given.action_net = nn.Linear(8, 4)
    return given


def three_values():
    given = policy()
    given.value_net = nn.Linear(8, 3)
    return given


Box = gymnasium.spaces.Box
REFUSED = {
    "normalised observations": (
        lambda: policy(space=Box(-10, 10, (3, 64, 64), np.float32)),
        r"uint8 images from 0 to 255, got Box\(-10.*VecNormalize",
    ),
    "another range": (lambda: policy(space=Box(0, 200, (3, 64, 64), np.uint8)), "0 to 255"),
    "undivided images": (lambda: policy(normalize_images=False), "normalize_images=False"),
    "two bodies": (
        lambda: policy(share_features_extractor=False),
        "share_features_extractor=False: the critic's own body would be lost",
    ),
    "a network between": (lambda: policy(net_arch=[16]), r"net_arch=\[\]"),
    "another body": (
        lambda: policy("bimpala-full", {"channels": (4, 4, 4)}),
        "body is a BimpalaFull, not a bimpala-small",
    ),
    "twelve channels": (
        lambda: policy(space=Box(0, 255, (12, 64, 64), np.uint8)),
        r"observations \(12, 64, 64\) and has 15 actions, its configuration says \(3, 64, 64\)",
    ),
    "other actions": (lambda: policy(actions=4), "has 4 actions, its configuration says"),
    "continuous actions": (lambda: policy(actions=Box(-1, 1, (2,))), "discrete actions"),
    "four outputs": (four_outputs, "action_net has 4 outputs, expected 15"),
    "three values": (three_values, "value_net has 3 outputs, expected 1"),
}


@pytest.mark.parametrize(("make", "reason"), REFUSED.values(), ids=REFUSED)
def test_policies_that_would_act_differently_as_agents_are_refused(make, reason):
    given = make()
    with pytest.raises(ValueError, match=reason):
        Agent(given, config())


def test_what_fits_is_taken_and_what_is_changed_later_is_not_saved(tmp_path):
    stacked = Agent(
        policy(space=Box(0, 255, (12, 64, 64), np.uint8), actions=4),
        config(observation_shape=(12, 64, 64), actions=4),
    )
    stacked.save(tmp_path / "stacked")
    assert load(tmp_path / "stacked").config == stacked.config
    for name, outputs in (("action_net", 4), ("value_net", 3)):
        agent = Agent(policy(), config())
        setattr(agent.policy, name, nn.Sequential(nn.Linear(8, outputs)))
        with pytest.raises(ValueError, match=rf"{name} has outputs of shape \({outputs},\)"):
            agent.save(tmp_path / "changed")
    agent = Agent(policy(), config())
    agent.policy.normalize_images = False
    with pytest.raises(ValueError, match="normalize_images=False"):
        agent.save(tmp_path / "changed")
    assert [folder.name for folder in tmp_path.iterdir()] == ["stacked"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"game": "chess"}, "unknown game 'chess'; choose one of bigfish"),
        ({"game": 5}, "game must be the name of one, got 5"),
        ({"game": ["maze"]}, "game must be the name of one"),
        ({"architecture": "vgg"}, "unknown architecture 'vgg'; choose from impala"),
        ({"architecture": ["impala"]}, "unknown architecture"),
        ({"architecture_kwargs": []}, "architecture_kwargs must be a dictionary"),
        ({"architecture_kwargs": {3: 3}}, "names as keys"),
        ({"architecture_kwargs": {"depth": 3}}, "bimpala has no option depth"),
        ({"architecture_kwargs": {"name": 3}}, "bimpala has no option name"),
        ({"architecture_kwargs": {"channels": np.int64(8)}}, "must be what JSON holds"),
        ({"observation_shape": [3, 64, 64]}, "must be a tuple"),
        ({"observation_shape": (64, 64)}, r"\(channels, height, width\), got \(64, 64\)"),
        ({"observation_shape": (3, 64, 0)}, r"observation_shape\[2\] must be a whole number"),
        ({"actions": True}, "actions must be a whole number"),
        ({"actions": 0}, "actions must be a whole number, 1 or more; got 0"),
        ({"made": {"score": float("nan")}}, "made must be what JSON holds"),
        ({"made": None}, "made must be a dictionary"),
        ({"edits": "abc"}, "edits must be a tuple of texts, got 'abc'"),
        ({"edits": (1,)}, "edits must be a tuple of texts"),
    ],
)
def test_a_configuration_says_what_there_is(options, message):
    with pytest.raises(ValueError, match=message):
        AgentConfig(**{"architecture": "bimpala", "game": "maze", **options})


def test_wrong_arguments_say_what_is_expected(agent, observations):
    with pytest.raises(ValueError, match="unknown game 'chess'; choose one of bigfish"):
        Agent.new("impala-small", game="chess")
    for seed in (-1, 1.5, "3", True, None):
        with pytest.raises(ValueError, match="seed must be a whole number, 0 or more"):
            Agent.new("impala-small", seed=seed)
    for device in (None, 3, "gpu"):
        with pytest.raises(ValueError, match=r"choose from auto, cpu, cuda, cuda:N, mps"):
            Agent.new("impala-small", device=device)
    for batch in (0, -1, 1.5, None):
        with pytest.raises(ValueError, match="batch must be a whole number, 1 or more"):
            agent.logits(observations, batch=batch)
    for module in (None, "block1", 3):
        with pytest.raises(TypeError, match="expected a module in the place of block1, got"):
            agent.with_layer("block1", module)
    with pytest.raises(TypeError, match="modules by the names of layers"):
        agent.with_layers(None)
    for layers in (None, 3):
        with pytest.raises(ValueError, match="expected the names of layers"):
            agent.activations(observations, layers)
    for given in (None, "abc", {"image": observations}, [None], object()):
        with pytest.raises(ValueError, match=r"uint8 observations \(batch, 3, 64, 64\), got a"):
            agent.predict(given)
    with pytest.raises(ValueError, match=r"got torch.uint8 of shape \(3, 64\)"):
        agent.predict(observations[0, :, 0])


def test_flipped_observations_are_taken(agent, observations):
    flipped = observations[..., ::-1]
    assert flipped.strides[-1] < 0
    assert torch.equal(agent.logits(flipped), agent.logits(flipped.copy()))
