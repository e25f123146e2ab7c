import pytest
import torch
from torch import nn

from rlbilinear import BilinearLinear, GatedLinear, Gaussian, approximate, estimate_gaussian
from rlbilinear.approximation import refit
from rlbilinear.moments import hermite_coefficients
from rlbilinear.swapping import (
    group_layers,
    layer_inputs,
    replace_layers,
    replaceable,
)


@pytest.fixture
def mlp():
    torch.manual_seed(0)
    layers = [nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 8), nn.GELU(), nn.Linear(8, 7), nn.Tanh()]
    return group_layers(nn.Sequential(*layers, nn.Linear(7, 4)).double())


@pytest.fixture
def convnet():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Sequential(nn.Conv2d(5, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1)),
        nn.Flatten(),
        nn.Linear(27, 4),
    ).double()


def inputs(*shape, seed=2):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def test_grouping_changes_nothing_but_names():
    plain = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Identity(), nn.Linear(4, 2))
    grouped = group_layers(plain)
    x = torch.randn(5, 3)
    assert torch.equal(grouped(x), plain(x))
    assert [name for name, _ in grouped.named_children()] == ["layer1", "identity2", "linear3"]
    assert replaceable(grouped) == ["layer1"]


def test_layers_of_degree_two_are_replaced_exactly():
    torch.manual_seed(3)
    network = nn.Sequential(
        BilinearLinear(5, 6, hidden_features=7, bias=True),
        GatedLinear(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 4), activation="identity"),
        BilinearLinear(4, 3),
    ).double()
    x = inputs(300, 5)
    found = replace_layers(network, replaceable(network), 2, x)
    assert list(found.polynomials) == ["0", "1", "2"]
    torch.testing.assert_close(found.network(x), network(x), rtol=1e-8, atol=1e-9)
    for r2 in found.r2.values():
        torch.testing.assert_close(r2.gaussian[2], torch.ones_like(r2.gaussian[2]))
        torch.testing.assert_close(r2.measured[2], torch.ones_like(r2.measured[2]))


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_statistics_are_those_before_or_after_the_earlier_replacements(mlp, degree):
    x = inputs(400, 6)
    first, second = mlp.layer1, mlp.layer2
    p = approximate(first, degree, *estimate_gaussian(x))
    for reestimate, hidden in ((True, p(x)), (False, first(x))):
        q = approximate(second, degree, *estimate_gaussian(hidden.detach()))
        found = replace_layers(mlp, ["layer2", "layer1"], degree, x, reestimate=reestimate)
        assert list(found.polynomials) == ["layer1", "layer2"]
        expected = mlp.linear4(mlp.layer3(q(p(x))))
        torch.testing.assert_close(found.network(x), expected, rtol=1e-8, atol=1e-9)
        measured = found.r2["layer2"].measured[degree]
        own = second(hidden)
        residual = ((own - q(hidden)) ** 2).sum(0) / ((own - own.mean(0)) ** 2).sum(0)
        torch.testing.assert_close(measured, 1 - residual)
    assert isinstance(mlp.layer1[1], nn.ReLU)  # the network itself is as it was


@pytest.mark.parametrize("covariance", ["full", "diagonal", 2])
def test_a_wider_gaussian_is_one_of_larger_covariance(mlp, covariance):
    x = inputs(200, 6)
    mean, found = estimate_gaussian(x, covariance)
    wider = Gaussian(mean, found).matrix() * 3
    expected = approximate(mlp.layer1, 2, mean, wider)(x)
    replaced = replace_layers(mlp, ["layer1"], 2, x, covariance=covariance, widen=3.0)
    torch.testing.assert_close(replaced.polynomials["layer1"](x), expected)


def test_units_are_fitted_on_what_goes_into_them(mlp):
    x = inputs(90, 6)
    found = replace_layers(mlp, ["layer1", "layer2"], 2, x, fit="inputs")
    first = refit(approximate(mlp.layer1, 2, *estimate_gaussian(x)), x)
    torch.testing.assert_close(found.polynomials["layer1"].values, first.values)
    hidden = found.network.layer1(x).detach()
    second = refit(approximate(mlp.layer2, 2, *estimate_gaussian(hidden)), hidden)
    torch.testing.assert_close(found.polynomials["layer2"].values, second.values)
    closed = replace_layers(mlp, ["layer1"], 2, x)
    better = found.r2["layer1"].measured[2] >= closed.r2["layer1"].measured[2]
    assert better.all()  # least squares on these inputs: layer1 has no layer after its units


def test_batches_and_one_tensor_give_the_same(mlp):
    x = inputs(90, 6)
    one = replace_layers(mlp, ["layer1", "layer3"], 2, x)
    several = replace_layers(mlp, ["layer1", "layer3"], 2, list(x.split(17)))
    torch.testing.assert_close(one.network(x), several.network(x))


def test_each_layer_has_its_own_degree_and_r2_is_measured_on_held_out_inputs(mlp):
    x, held_out = inputs(200, 6), inputs(50, 6, seed=5)
    found = replace_layers(mlp, ["layer1", "layer2"], {"layer1": 1, "layer2": 3}, x)
    assert [p.degree for p in found.polynomials.values()] == [1, 3]
    other = replace_layers(mlp, ["layer1"], 1, x, held_out=held_out)
    expected = found.polynomials["layer1"].r2_on(held_out, mlp.layer1)
    torch.testing.assert_close(other.r2["layer1"].measured, expected.measured)
    table = other.table()
    assert table.outputs.tolist() == [9, 9]
    assert table.measured_r2[1] == pytest.approx(expected.measured[1].mean().item())
    assert table.gaussian_median[1] == pytest.approx(expected.gaussian[1].median().item())


def test_an_activation_alone_is_fitted_channel_by_channel(convnet):
    x = inputs(30, 2, 6, 6)
    found = replace_layers(convnet, ["1"], 2, x)
    hidden = convnet[0](x).detach()
    mean, std = hidden.mean((0, 2, 3)), hidden.std((0, 2, 3), correction=0)
    c0, c1, c2 = hermite_coefficients("relu", 2, mean, std)
    z = (hidden - mean[:, None, None]) / std[:, None, None]
    c0, c1, c2 = (c[:, None, None] for c in (c0, c1, c2))
    expected = c0 + c1 * z + c2 / 2 * (z**2 - 1)
    torch.testing.assert_close(found.polynomials["1"](hidden), expected)
    torch.testing.assert_close(found.network(x), convnet[2:](expected))


def test_convolutions_are_fitted_on_their_receptive_fields(convnet):
    assert replaceable(convnet) == ["1", "3"]
    x = inputs(40, 2, 6, 6)
    found = replace_layers(convnet, ["3"], 2, x)
    before = convnet[:3](x).detach()
    patches = nn.functional.unfold(before, 5, padding=1).transpose(1, 2).flatten(0, 1)
    mean, covariance = patches.mean(0), patches.T.cov(correction=0)
    expected = approximate(convnet[3], 2, mean, covariance)(before)
    torch.testing.assert_close(found.network[3](before), expected)


def test_a_float32_network_stays_one(mlp):
    network = mlp.float()
    x = inputs(60, 6).float()
    assert replace_layers(network, ["layer1"], 2, x).network(x).dtype == torch.float32


def test_bad_arguments_are_named(mlp, convnet):
    x = inputs(10, 6)
    with pytest.raises(ValueError, match=r"unknown layer 'dense'; choose from layer1, layer1\.0"):
        replace_layers(mlp, ["dense"], 2, x)
    with pytest.raises(ValueError, match=r"layer1\.1 lies inside layer1"):
        replace_layers(mlp, ["layer1", "layer1.1"], 2, x)
    with pytest.raises(ValueError, match="degree: expected one for each of layer1; got layer2"):
        replace_layers(mlp, ["layer1"], {"layer2": 1}, x)
    with pytest.raises(ValueError, match="degree must be a whole number"):
        replace_layers(mlp, ["layer1"], -1, x)
    with pytest.raises(ValueError, match="widen: expected a positive number, got 0"):
        replace_layers(mlp, ["layer1"], 2, x, widen=0)
    with pytest.raises(ValueError, match="fit: unknown 'best'; choose from gaussian, inputs"):
        replace_layers(mlp, ["layer1"], 2, x, fit="best")
    with pytest.raises(TypeError, match="layers: 2 is a MaxPool2d; expected an activation"):
        replace_layers(convnet, ["2"], 2, inputs(4, 2, 6, 6))
    with pytest.raises(ValueError, match="at least one batch"):
        replace_layers(mlp, ["layer1"], 2, [])
    with pytest.raises(TypeError, match=r"expected an nn\.Sequential"):
        group_layers(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="inputs: they are read several times"):
        replace_layers(mlp, ["layer1"], 2, iter([x]))
    twice = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
    twice.append(twice[1])
    with pytest.raises(ValueError, match="1 is called 2 times, expected once"):
        replace_layers(twice.double(), ["1"], 1, x)


def test_what_goes_into_a_layer_comes_batch_by_batch(mlp):
    x = inputs(50, 6)
    batches = list(layer_inputs(mlp, "layer2", list(x.split(20))))
    assert [len(batch) for batch in batches] == [20, 20, 10]
    torch.testing.assert_close(torch.cat(batches), mlp.layer1(x).detach())


def test_a_network_in_training_mode_is_looked_at_in_evaluation_mode():
    torch.manual_seed(4)
    network = nn.Sequential(
        nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Sequential(nn.ReLU())
    )
    network[3].append(nn.Linear(5, 3))
    network.double()
    network[1].running_mean.fill_(0.7)
    x = inputs(100, 6)
    found = replace_layers(network, ["3"], 2, x)
    assert network.training and (network[1].running_mean == 0.7).all()
    hidden = network.eval()[:3](x).detach()
    expected = approximate(network[3], 2, *estimate_gaussian(hidden))(hidden)
    torch.testing.assert_close(found.network(x), expected)


@pytest.mark.cuda
@pytest.mark.parametrize("fit", ["gaussian", "inputs"])
def test_cuda(convnet, fit):
    x = inputs(30, 2, 6, 6)
    here = replace_layers(convnet, ["1", "3"], 2, x, fit=fit)
    there = replace_layers(convnet.cuda(), ["1", "3"], 2, x.cuda(), fit=fit)
    torch.testing.assert_close(there.network(x.cuda()).cpu(), here.network(x))
    for name, r2 in here.r2.items():
        torch.testing.assert_close(there.r2[name].measured.cpu(), r2.measured)
        torch.testing.assert_close(there.r2[name].gaussian.cpu(), r2.gaussian)
