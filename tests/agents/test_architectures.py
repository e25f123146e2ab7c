import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticCnnPolicy
from torch import nn

from rlbilinear import BilinearConv2d, BilinearLinear, agents, approximate
from rlbilinear.agents import ARCHITECTURES, Agent, architecture
from rlbilinear.agents.architectures import MATCHED
from rlbilinear.agents.blocks import GATES, GatedConv2d, GatedDense
from rlbilinear.envs import ProcgenVecEnv

OPTIONS = [
    *((name, {}) for name in ARCHITECTURES),
    ("impala", {"pool": "average", "kernel_size": 5}),
    ("impala-matched", {"kernel_size": 7}),
    ("bimpala", {"channels": (8, 16, 16), "gate": "silu"}),
    ("bimpala", {"kernel_size": 5, "channels": 8, "pool": "average"}),
    ("bimpala-full", {"channels": [8, 8, 16], "gate": "relu"}),
    ("polynomial", {"kernel_size": 3, "gate": "gelu"}),
    ("polynomial", {"pool": "max", "dense": (16,)}),
]


def parameters(agent):
    return sum(weight.numel() for weight in agent.policy.parameters())


def unusual_images():
    """Noise, black, white, a checkerboard and a single bright pixel."""
    noise = np.random.default_rng(0).integers(0, 256, (1, 3, 64, 64), np.uint8)
    checks = np.broadcast_to(np.indices((64, 64)).sum(0) % 2 * 255, (1, 3, 64, 64))
    black = np.zeros_like(noise)
    pixel = black.copy()
    pixel[..., 30, 30] = 255
    return np.concatenate([noise, black, ~black, checks.astype(np.uint8), pixel])


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("impala", {}, 626_256),
        ("bimpala", {"kernel_size": 3}, 1_164_176),
        ("bimpala", {"kernel_size": 5}, 1_362_320),
        ("bimpala", {"kernel_size": 7}, 1_659_536),
        ("polynomial", {}, 716_400),
    ],
)
def test_parameter_counts_are_the_published_ones(name, options, count):
    assert parameters(Agent.new(name, **options)) == count


@pytest.mark.parametrize(("kernel", "published"), [(3, 1_193_264), (5, 1_439_792), (7, 1_809_584)])
def test_bimpala_full_has_the_published_parameters_but_for_its_second_biases(kernel, published):
    agent = Agent.new("bimpala-full", kernel_size=kernel)
    factors = [
        factor
        for module in agent.policy.features_extractor.modules()
        if isinstance(module, BilinearConv2d | BilinearLinear)
        for factor in (module.left, module.right)
    ]
    redundant = sum(factor.bias.numel() for factor in factors)
    assert redundant == 832
    assert parameters(agent) + redundant == published


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("impala-compact", {}, 669_808),
        ("bimpala-compact", {}, 1_184_144),
        ("impala-small", {}, 595_824),
        ("bimpala-small", {}, 1_110_416),
        ("bimpala", {"channels": (16, 32, 32), "stem_stride": 2}, 354_288),
    ],
)
def test_compact_parameter_counts(name, options, count):
    assert parameters(Agent.new(name, **options)) == count


@pytest.mark.parametrize(
    ("match", "options"),
    [
        *((match, {}) for match in MATCHED),
        *((match, {"kernel_size": kernel}) for match in MATCHED for kernel in (3, 5, 7, 9)),
        ("bimpala", {"kernel_size": 1}),
        ("bimpala", {"channels": 48, "blocks": (3, 2, 1)}),
    ],
)
def test_matched_relu_network_is_within_a_thousandth_of_the_bilinear_one(match, options):
    with torch.device("meta"):
        matched = Agent.new("impala-matched", device="meta", match=match, **options)
        beside = Agent.new(match, device="meta", **options)
    assert abs(parameters(matched) - parameters(beside)) <= 1e-3 * parameters(beside)
    assert not any(
        isinstance(module, BilinearConv2d | BilinearLinear)
        for module in matched.policy.features_extractor.modules()
    )


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_initial_policy_is_near_uniform_and_finite_on_unusual_images(name, options):
    agent = Agent.new(name, **options)
    images = unusual_images()
    assert (agent.logits(images[:1]).softmax(1) - 1 / 15).abs().max() < 0.03
    features = agent.policy.extract_features(torch.as_tensor(images))
    size = features.abs().max()
    assert size > 0
    assert size < (1e26 if name == "polynomial" else 10)
    features.sum().backward()
    gradients = [weight.grad for weight in agent.policy.features_extractor.parameters()]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_every_architecture_saves_and_loads(name, options, tmp_path):
    agent = Agent.new(name, seed=1, **options)
    agent.save(tmp_path / "agent")
    loaded = agents.load(tmp_path / "agent", device="cpu")
    images = unusual_images()
    assert torch.equal(loaded.logits(images), agent.logits(images))


def test_calibrated_polynomial_has_features_of_mean_square_one_on_those_images():
    agent = Agent.new("polynomial", seed=1)
    trunk = agent.policy.features_extractor
    frames = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.2
    trunk.calibrate(frames)
    x = frames
    for module in trunk.layers[:-1]:  # the last layer may be bounded for the sake of white images
        x = module(x)
        if isinstance(module, BilinearConv2d | BilinearLinear):
            assert x.square().mean().item() == pytest.approx(1, rel=1e-4)
    with pytest.raises(ValueError, match="cannot scale conv1"):
        trunk.calibrate(torch.zeros(1, 3, 64, 64))


def test_polynomial_is_homogeneous_of_degree_128():
    trunk = Agent.new("polynomial").policy.features_extractor.double()
    image = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    expected = 1.01**128 * trunk(image)
    torch.testing.assert_close(trunk(1.01 * image), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("gate", GATES[1:])
def test_gated_twin_is_the_activation_of_left_times_right(gate):
    activation = {"relu": torch.relu, "silu": nn.functional.silu, "gelu": nn.functional.gelu}[gate]
    for twin, layer, x in [
        (
            GatedConv2d(3, 5, 3, gate=gate, padding=1, stride=2, bias=True),
            BilinearConv2d(3, 5, 3, padding=1, stride=2, bias=True),
            torch.randn(2, 3, 8, 8),
        ),
        (GatedDense(6, 4, gate=gate), BilinearLinear(6, 4), torch.randn(2, 6)),
    ]:
        layer.left.load_state_dict(twin.gate.state_dict())
        layer.right.load_state_dict(twin.value.state_dict())
        torch.testing.assert_close(twin(x), activation(layer.left(x)) * layer.right(x))
        assert not torch.allclose(twin(x), layer(x))


def test_gated_twins_have_as_many_parameters_and_no_quadratic_form():
    for name in ("bimpala", "bimpala-full", "polynomial"):
        bilinear, gated = Agent.new(name), Agent.new(name, gate="silu")
        assert parameters(gated) == parameters(bilinear)
        twins = 0
        for module in gated.policy.features_extractor.modules():
            assert not isinstance(module, BilinearConv2d | BilinearLinear)
            assert not hasattr(module, "quadratic_form")
            twins += isinstance(module, GatedConv2d | GatedDense)
        assert twins == 7
    assert approximate(GatedDense(4, 3, gate="silu"), 2).r2.shape[-1] == 3


def test_gated_layer_put_into_an_agent_is_stored(tmp_path):
    twin = GatedConv2d(32, 32, 3, gate="gelu", padding=1)
    agent = Agent.new("bimpala-compact").with_layer("block3.bilinear", twin)
    dense = GatedDense(2048, 256, gate="relu")
    agent = agent.with_layer("dense", dense)
    agent.save(tmp_path / "agent")
    loaded = agents.load(tmp_path / "agent", device="cpu")
    assert torch.equal(loaded.logits(unusual_images()), agent.logits(unusual_images()))


@pytest.mark.parametrize("name", ["impala-compact", "bimpala", "bimpala-full", "polynomial"])
def test_any_trunk_is_a_features_extractor_of_stock_ppo(name):
    body, options = architecture(name)
    env = ProcgenVecEnv("maze", 2, num_levels=2)
    model = PPO(
        "CnnPolicy",
        env,
        n_steps=4,
        batch_size=4,
        n_epochs=1,
        seed=0,
        device="cpu",
        policy_kwargs={"features_extractor_class": body, "features_extractor_kwargs": options},
    )
    assert type(model.policy) is ActorCriticCnnPolicy
    before = {name: weight.clone() for name, weight in model.policy.named_parameters()}
    model.learn(8)
    after = dict(model.policy.named_parameters())
    assert all(weight.isfinite().all() for weight in after.values())
    moved = [name for name, weight in after.items() if not torch.equal(weight, before[name])]
    assert any(name.startswith("features_extractor.layers") for name in moved)
    env.close()


def test_bilinear_bodies_keep_their_initial_weights_in_stock_policies():
    body, options = architecture("bimpala-compact")
    kwargs = {"features_extractor_class": body, "features_extractor_kwargs": options}
    env = ProcgenVecEnv("maze", 1, num_levels=1)
    model = PPO("CnnPolicy", env, n_steps=2, batch_size=2, device="cpu", policy_kwargs=kwargs)
    weight = model.policy.features_extractor.layers.block1.bilinear.left.weight.flatten(1)
    orthogonal = 2 * torch.eye(len(weight))
    assert not torch.allclose(weight @ weight.T, orthogonal, atol=0.1)
    assert weight.std().item() == pytest.approx(0.5 / (32 * 9) ** 0.5, rel=0.05)
    counted = []
    model.policy.features_extractor.apply(lambda module: counted.append(module))
    assert weight.shape[0] == 32
    assert len(counted) > 10
    env.close()


def test_relu_bodies_get_the_orthogonal_weights_of_stock_policies():
    body, options = architecture("impala-compact")
    kwargs = {"features_extractor_class": body, "features_extractor_kwargs": options}
    env = ProcgenVecEnv("maze", 1, num_levels=1)
    model = PPO("CnnPolicy", env, n_steps=2, batch_size=2, device="cpu", policy_kwargs=kwargs)
    weight = model.policy.features_extractor.layers.block1.conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    rows = weight.flatten(1)
    torch.testing.assert_close(rows @ rows.T, 2 * torch.eye(len(rows)), rtol=0, atol=1e-4)
    env.close()


def test_unknown_architecture_lists_the_choices():
    with pytest.raises(ValueError, match=r"bimpala2.*impala-compact"):
        Agent.new("bimpala2")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("bimpala", {"kernal_size": 3}, "bimpala has no option kernal_size; .*kernel_size.*gate"),
        ("bimpala", {"gate": "tanh"}, "unknown gate 'tanh'; choose from none, relu, silu, gelu"),
        ("polynomial", {"pool": "min"}, "unknown pool 'min'; choose from max, average"),
        ("bimpala", {"kernel_size": 4}, "kernel_size must be odd"),
        ("bimpala", {"channels": (8, 8)}, "the same stages"),
        ("polynomial", {"kernel_size": (3, 3)}, "a kernel_size for each"),
        ("polynomial", {"pooled": (1, 6)}, "pooled must be among 1 to 5"),
        ("impala-matched", {"match": "impala"}, "cannot match 'impala'; choose from bimpala, "),
        ("impala-matched", {"stem": 3}, "no option stem; choose from match, kernel_size"),
        ("impala-matched", {"match": ["bimpala"]}, r"cannot match \['bimpala'\]; choose from"),
        ("bimpala", {"kernel_size": "3"}, "kernel_size must be odd and positive, got '3'"),
        ("bimpala", {"kernel_size": True}, "kernel_size must be odd and positive, got True"),
        ("bimpala", {"channels": -1}, r"channels\[0\] must be a whole number, 1 or more; got -1"),
        ("bimpala", {"channels": "8"}, "channels must be a sequence of whole numbers; got '8'"),
        ("bimpala", {"blocks": 0}, "blocks must be a sequence of whole numbers; got 0"),
        ("bimpala", {"blocks": (1, -1, 1)}, r"blocks\[1\] must be a whole number, 0 or more"),
        ("bimpala", {"stem_stride": -1}, "stem_stride must be a whole number, 1 or more; got -1"),
        ("bimpala", {"features": 0}, "features must be a whole number, 1 or more; got 0"),
        ("bimpala", {"pool_kernel": 2}, "pool_kernel must be odd"),
        ("bimpala-full", {"channels": 8}, "channels must be a sequence of whole numbers; got 8"),
        ("bimpala-full", {"blocks": None}, "blocks must be a sequence of whole numbers; got None"),
        ("bimpala-full", {"stem_stride": 1.5}, "stem_stride must be a whole number"),
        ("impala", {"channels": (8, 0, 8)}, r"channels\[1\] must be a whole number, 1 or more"),
        ("impala", {"features": "256"}, "features must be a whole number, 1 or more; got '256'"),
        ("impala", {"kernel_size": -3}, "kernel_size must be odd and positive, got -3"),
        ("polynomial", {"dense": 256}, "dense must be a sequence of whole numbers; got 256"),
        ("polynomial", {"dense": ()}, "and dense layers"),
        ("polynomial", {"channels": None}, "channels must be a sequence"),
        ("polynomial", {"kernel_size": "33333"}, r"kernel_size\[0\] must be odd"),
        ("polynomial", {"pooled": 1}, "pooled must be a sequence of whole numbers; got 1"),
    ],
)
def test_wrong_options_say_what_is_accepted(name, options, message):
    with pytest.raises(ValueError, match=message):
        Agent.new(name, **options)
