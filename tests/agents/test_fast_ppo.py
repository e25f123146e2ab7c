import copy

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from rlbilinear.agents import AgentPolicy, DeviceRolloutBuffer, FastPPO
from rlbilinear.agents.precision import to_device
from rlbilinear.envs import ProcgenVecEnv

SPACES = {
    "image": spaces.Box(0, 255, (3, 6, 5), np.uint8),
    "floats": spaces.Box(-1, 1, (4,), np.float32),
    "doubles": spaces.Box(-1, 1, (2, 3), np.float64),
    "discrete": spaces.Discrete(5),
    "multi-discrete": spaces.MultiDiscrete([3, 4]),
    "binary": spaces.MultiBinary(3),
}
ACTIONS = {
    "discrete": spaces.Discrete(4),
    "multi-discrete": spaces.MultiDiscrete([3, 2]),
    "binary": spaces.MultiBinary(2),
    "continuous": spaces.Box(-1, 1, (2,), np.float32),
}


class Noise(gymnasium.Env):
    """Random observations; rewards for the actions' sum; episodes end, some by a time limit."""

    def __init__(self, seen, acts, seed, limits):
        self.limits = limits
        self.observation_space, self.action_space = seen, acts
        self.observation_space.seed(seed)
        self.random = np.random.default_rng(seed)

    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample(), {}

    def step(self, action):
        ended, cut = self.random.random(2) < (0.1, 0.1)
        reward = float(np.sum(action)) + self.random.normal()
        if not self.limits:
            ended, cut = ended or cut, False
        return self.observation_space.sample(), reward, bool(ended), bool(cut), {}


def noise(seen, acts, num_envs, limits=True):
    return DummyVecEnv(
        [
            lambda seed=seed: Noise(copy.deepcopy(seen), copy.deepcopy(acts), seed, limits)
            for seed in range(num_envs)
        ]
    )


def learned(algorithm, env, policy="MlpPolicy", **arguments):
    torch.manual_seed(0)
    model = algorithm(policy, env, seed=3, device="cpu", **arguments)
    model.set_logger(Logger(None, []))
    model.learn(1)
    return model


def assert_same(one, two):
    weights, others = one.policy.state_dict(), two.policy.state_dict()
    assert weights.keys() == others.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(others[name], weight, rtol=0, atol=1e-5, msg=name)


SMALL = {"channels": (8, 8), "blocks": (1, 1)}
PPO_SETTINGS = {"n_steps": 16, "n_epochs": 2, "ent_coef": 0.01, "clip_range_vf": 0.2}


@pytest.mark.filterwarnings("ignore:You have specified a mini-batch")
@pytest.mark.parametrize(
    ("seen", "acts", "num_envs", "changes"),
    [
        ("floats", "discrete", 1, {}),
        ("discrete", "multi-discrete", 3, {}),
        ("multi-discrete", "binary", 2, {"normalize_advantage": False, "clip_range_vf": None}),
        ("doubles", "continuous", 3, {"target_kl": 1e-5, "learning_rate": 3e-3}),
        ("binary", "continuous", 2, {"use_sde": True}),
    ],
)
def test_same_weights_as_stock_ppo(seen, acts, num_envs, changes):
    arguments = {**PPO_SETTINGS, "batch_size": 13, **changes}

    def env():
        return noise(SPACES[seen], ACTIONS[acts], num_envs)

    stock = learned(PPO, env(), **arguments)
    assert stock._n_updates == (1 if "target_kl" in changes else 2)  # stopped, or all epochs
    assert_same(stock, learned(PPO, env(), rollout_buffer_class=DeviceRolloutBuffer, **arguments))
    for size in (None, 5, 100):
        fast = learned(FastPPO, env(), micro_batch_size=size, **arguments)
        assert_same(stock, fast)
        assert fast._n_updates == stock._n_updates
        logged, expected = fast.logger.name_to_value, stock.logger.name_to_value
        assert logged.keys() == expected.keys() and "train/approx_kl" in logged
        for name in logged:
            if name.startswith("train/"):
                assert logged[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-5), name


@pytest.mark.filterwarnings("ignore:You have specified a mini-batch")
def test_a_time_limit_can_be_an_end_like_others():
    arguments = {**PPO_SETTINGS, "batch_size": 13}
    kinds = SPACES["floats"], ACTIONS["discrete"], 3
    stock = learned(PPO, noise(*kinds, limits=False), **arguments)
    ends = learned(FastPPO, noise(*kinds), bootstrap_time_limits=False, **arguments)
    assert_same(stock, ends)
    with pytest.raises(AssertionError):
        assert_same(stock, learned(FastPPO, noise(*kinds), **arguments))


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize(("num_envs", "architecture"), [(1, "impala"), (4, "bimpala-compact")])
@pytest.mark.parametrize(
    "more",
    [
        # one pass with Adam as training has it; in two its eps of 1e-5 magnifies the rounding of
        # gradients of that size beyond the tolerance
        {"n_epochs": 1, "eps": 1e-5},
        {"n_epochs": 2, "eps": 1e-3},
    ],
)
def test_same_weights_on_procgen(num_envs, architecture, normalised, more):
    changes = SMALL if architecture == "impala" else {}
    arguments = {
        **PPO_SETTINGS,
        "policy": AgentPolicy,
        "n_epochs": more["n_epochs"],
        "batch_size": 8,
        "policy_kwargs": {
            "architecture": architecture,
            "architecture_kwargs": changes,
            "optimizer_kwargs": {"eps": more["eps"]},
        },
    }

    def env():
        simulator = ProcgenVecEnv("coinrun", num_envs, num_levels=10)
        return VecNormalize(simulator, norm_obs=False) if normalised else simulator

    stock = learned(PPO, env(), **arguments)
    assert_same(stock, learned(PPO, env(), rollout_buffer_class=DeviceRolloutBuffer, **arguments))
    assert_same(stock, learned(FastPPO, env(), micro_batch_size=3, **arguments))


def test_arguments_that_cannot_be_are_refused():
    env = noise(SPACES["floats"], ACTIONS["discrete"], 1)
    with pytest.raises(ValueError, match=r"micro_batch_size must be positive or None, got 0"):
        FastPPO("MlpPolicy", env, micro_batch_size=0)
    with pytest.raises(ValueError, match="'half'; choose from float32, tf32, bfloat16"):
        FastPPO("MlpPolicy", env, precision="half")
    with pytest.raises(ValueError, match="tf32 needs a CUDA device, got device cpu"):
        FastPPO("MlpPolicy", env, precision="tf32", device="cpu")
    several = noise(spaces.Dict(x=SPACES["floats"]), ACTIONS["discrete"], 1)
    with pytest.raises(ValueError, match="FastPPO takes no Dict observations, got Dict"):
        FastPPO("MultiInputPolicy", several, rollout_buffer_class=None)


class Locals(BaseCallback):
    """Keeps the arrays and numbers among a rollout's local variables, as callbacks find them."""

    def __init__(self, steps=10**9):
        super().__init__()
        self.seen, self.steps = [], steps

    def _on_step(self):
        self.seen.append(self.kept())
        return len(self.seen) < self.steps

    def _on_rollout_end(self):
        self.seen.append(self.kept())

    def kept(self):
        arrays = (np.ndarray, torch.Tensor, int)
        return {k: copy.copy(v) for k, v in self.locals.items() if isinstance(v, arrays)}


@pytest.mark.filterwarnings("ignore:You have specified a mini-batch")
@pytest.mark.parametrize("kind", [DeviceRolloutBuffer, None])
@pytest.mark.parametrize(
    ("acts", "changes"),
    [("discrete", {}), ("continuous", {}), ("continuous", {"squash_output": True})],
    ids=["discrete", "clipped", "unscaled"],
)
def test_callbacks_find_what_they_find_in_stock_ppo(acts, changes, kind):
    """Actions as given to the environment too; a callback may end the rollout."""
    kwargs = {"log_std_init": 1.0, **changes} if acts == "continuous" else {}
    seen = []
    for algorithm in (PPO, FastPPO):
        torch.manual_seed(0)
        model = algorithm(
            "MlpPolicy",
            noise(SPACES["floats"], ACTIONS[acts], 2),
            n_steps=6,
            batch_size=12,
            use_sde="squash_output" in changes,
            policy_kwargs=kwargs,
            rollout_buffer_class=kind if algorithm is FastPPO else None,
            seed=3,
            device="cpu",
        )
        model.set_logger(Logger(None, []))
        whole, ended = Locals(), Locals(steps=3)
        model.learn(12, callback=whole)
        model.learn(12, callback=ended)
        assert len(ended.seen) == 3
        seen.append(whole.seen + ended.seen)
    for stock, fast in zip(*seen, strict=True):
        assert "clipped_actions" in stock
        for name in stock.keys() - {"idx", "terminal_obs", "terminal_value"}:  # of a loop there
            np.testing.assert_allclose(fast[name], stock[name], rtol=0, atol=1e-5, err_msg=name)


def test_callbacks_see_the_policy_in_full_precision():
    """They may evaluate, save and change it: only the rollout's own passes are in bfloat16."""

    class Compare(BaseCallback):
        outputs = ()

        def _on_rollout_start(self):
            self.check()

        def _on_step(self):
            self.check()
            return True

        def _on_rollout_end(self):
            self.check()

        def check(self):
            body = self.model.policy.features_extractor
            assert "forward" not in vars(body)
            with torch.no_grad():
                features = body(torch.full((2, 3, 64, 64), 0.5))
            assert not torch.equal(features, features.bfloat16().float())
            self.outputs = (*self.outputs, features)

    arguments = {"architecture": "impala", "architecture_kwargs": SMALL}
    env = ProcgenVecEnv("coinrun", 2, num_levels=10)
    model = FastPPO(
        AgentPolicy,
        env,
        n_steps=3,
        batch_size=6,
        precision="bfloat16",
        policy_kwargs=arguments,
        device="cpu",
    )
    callback = Compare()
    model.set_logger(Logger(None, []))
    model.learn(6, callback=callback)
    assert len(callback.outputs) == 5


@pytest.mark.parametrize("own", [False, True])
def test_the_policy_is_as_it_was_after_an_error(own):
    env = noise(SPACES["floats"], ACTIONS["discrete"], 1)
    model = FastPPO("MlpPolicy", env, precision="bfloat16", device="cpu")
    body = model.policy.features_extractor
    names = list(model.policy.state_dict())
    if own:
        body.forward = lambda observations: observations.flatten(1) * 2
    given, before = torch.full((1, 4), 1 + 2**-12), vars(body).get("forward")
    with pytest.raises(RuntimeError, match="inside"), model.precision_mode.applied_to(model.policy):
        assert vars(body)["forward"] is not before
        assert list(model.policy.state_dict()) == names
        raise RuntimeError("inside")
    assert vars(body).get("forward") is before
    assert torch.equal(body(given), given * (2 if own else 1))


def test_bfloat16_body_is_near_and_gone_afterwards():
    """In one precision the first ratios are 1; heads, weights and later use are float32."""
    arguments = {**PPO_SETTINGS, "policy": AgentPolicy, "batch_size": 16, "n_epochs": 1}
    arguments["policy_kwargs"] = {"architecture": "impala", "architecture_kwargs": SMALL}
    weights, values = [], []
    for precision in ("float32", "bfloat16"):
        env = ProcgenVecEnv("coinrun", 2, num_levels=10)
        model = learned(FastPPO, env, precision=precision, micro_batch_size=5, **arguments)
        observation = torch.full((1, 3, 64, 64), 0.5)
        features = model.policy.features_extractor(observation)
        assert features.dtype == torch.float32
        assert "forward" not in vars(model.policy.features_extractor)
        weights.append(torch.cat([w.flatten() for w in model.policy.parameters()]))
        values.append(torch.as_tensor(model.rollout_buffer.values.copy()))
    assert all(w.dtype == torch.float32 for w in weights)
    assert 0 < (values[0] - values[1]).abs().max() < 0.02 * values[0].abs().max()
    assert (weights[0] - weights[1]).norm() < 0.02 * weights[0].norm()


def test_stock_image_policy_and_a2c():
    space = spaces.Box(0, 255, (36, 36, 3), np.uint8)  # Stable-Baselines3 transposes it
    for algorithm, settings in ((PPO, {"batch_size": 8}), (A2C, {})):
        models = [
            learned(
                algorithm,
                noise(space, ACTIONS["discrete"], 2),
                "CnnPolicy",
                n_steps=8,
                rollout_buffer_class=kind,
                **settings,
            )
            for kind in (RolloutBuffer, DeviceRolloutBuffer)
        ]
        assert_same(*models)


def test_saved_and_loaded(tmp_path):
    env = noise(SPACES["floats"], ACTIONS["discrete"], 2)
    model = learned(FastPPO, env, micro_batch_size=5, n_steps=8, batch_size=16)
    model.save(tmp_path / "model.zip")
    assert_same(model, FastPPO.load(tmp_path / "model.zip", device="cpu"))
    loaded = FastPPO.load(tmp_path / "model.zip", env=env, device="cpu")
    assert loaded.micro_batch_size == 5
    assert isinstance(loaded.rollout_buffer, DeviceRolloutBuffer)
    assert_same(model, loaded)
    loaded.learn(1)


@pytest.mark.slow
def test_compiled_body_has_the_same_weights_and_is_not_saved(tmp_path):
    """A minute of compiling; parts of two sizes, so that it compiles more than once."""
    arguments = {**PPO_SETTINGS, "batch_size": 16, "micro_batch_size": 12, "policy": AgentPolicy}
    arguments["policy_kwargs"] = {"architecture": "bimpala-small"}
    plain, compiled = (
        learned(FastPPO, ProcgenVecEnv("coinrun", 2, num_levels=10), compile=on, **arguments)
        for on in (False, True)
    )
    assert compiled.precision_mode._compiled and not plain.precision_mode._compiled
    assert_same(plain, compiled)
    compiled.save(tmp_path / "model.zip")
    loaded = FastPPO.load(tmp_path / "model.zip", device="cpu")
    assert loaded.compile and not loaded.precision_mode._compiled
    assert_same(plain, loaded)


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


@pytest.mark.parametrize("device", DEVICES)
def test_arrays_go_to_the_device_as_they_lie_in_memory(device):
    images = np.arange(4 * 5 * 6 * 3, dtype=np.uint8).reshape(4, 5, 6, 3).transpose(0, 3, 1, 2)
    expected = images.copy()
    tensor = to_device(images, torch.device(device))
    assert tensor.device.type == device and tensor.dtype == torch.uint8
    assert tensor.is_contiguous(memory_format=torch.channels_last)
    if device == "cuda":
        images[:] = 0  # whoever gave it may use it again
    np.testing.assert_array_equal(tensor.cpu().numpy(), expected)


@pytest.mark.parametrize("bodies", [1, 2])
@pytest.mark.parametrize(
    ("device", "precision", "compiled"),
    [
        ("cpu", "bfloat16", False),
        *(
            pytest.param("cuda", precision, compiled, marks=pytest.mark.cuda)
            for precision in ("float32", "tf32", "bfloat16")
            for compiled in (False, True)
        ),
    ],
)
def test_every_way_is_near_float32_on_the_processor(device, precision, compiled, bodies):
    torch.compiler.reset()
    settings = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.manual_seed(0)
    model = FastPPO(
        AgentPolicy,
        ProcgenVecEnv("coinrun", 2, num_levels=10),
        batch_size=16,
        micro_batch_size=5,
        n_steps=16,
        n_epochs=2,
        policy_kwargs={
            "architecture": "bimpala-small",
            "share_features_extractor": bodies == 1,
        },
        precision=precision,
        compile=compiled,
        device=device,
        seed=3,
    )
    model.set_logger(Logger(None, []))
    plain = FastPPO(AgentPolicy, model.env, policy_kwargs=model.policy_kwargs, device="cpu")
    plain.policy.load_state_dict(model.policy.state_dict())
    _, callback = model._setup_learn(32, None)
    assert model.collect_rollouts(model.env, callback, model.rollout_buffer, 16)
    buffer, gradients = model.rollout_buffer, []
    seen = torch.as_tensor(buffer.observations[3].copy())
    with torch.no_grad():
        values = plain.policy.predict_values(seen).flatten()
    np.testing.assert_allclose(buffer.values[3], values, rtol=0.02, atol=0.02)
    batch = next(buffer.get(16))
    for each in (plain, model):
        each._zero_gradients()
        each.policy.set_training_mode(True)
        with each.precision_mode.applied_to(each.policy):
            each._accumulate(
                batch._replace(**{k: v.to(each.device) for k, v in batch._asdict().items()}),
                0.2,
                None,
            )
        gradients.append(torch.cat([w.grad.flatten().cpu() for w in each.policy.parameters()]))
    assert (gradients[0] - gradients[1]).norm() < 0.05 * gradients[0].norm()
    model.train()
    assert all(w.isfinite().all() and w.device.type == device for w in model.policy.parameters())
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == settings
