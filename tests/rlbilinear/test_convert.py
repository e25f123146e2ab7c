import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from rlbilinear import (
    BilinearConv2d,
    BilinearLinear,
    GatedLinear,
    Gaussian,
    approximate,
    eigenfilters,
    estimate_gaussian,
)
from rlbilinear.convert import PolynomialLayer, load_polynomial, save_polynomial, to_module
from rlbilinear.gaussian import GaussianMixture, LowRankCovariance
from rlbilinear.one_hidden_layer import receptive_fields


def networks():
    torch.manual_seed(0)
    conv, other = (nn.Conv2d(2, 4, 3, padding=1).double() for _ in range(2))
    odd = nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)).double()
    last, point = nn.Conv2d(4, 3, 3, padding=1).double(), nn.Conv2d(4, 3, 1).double()
    strided = nn.Conv2d(4, 3, (2, 3), stride=(1, 2), padding=(0, 1), dilation=(2, 1)).double()
    first, value = nn.Linear(5, 6).double(), nn.Linear(5, 6, bias=False).double()
    head = nn.Linear(6, 3).double()
    return {
        "mlp": (first, "relu", head),
        "mlp no down": (first, "silu"),
        "act first": ("relu", first),
        "glu": GatedLinear(first, value, head, "silu"),
        "glu no down": GatedLinear(first, value, None, "relu"),
        "conv": (conv, "relu"),
        "conv odd": (odd, "gelu"),
        "conv pointwise": (odd, "relu", point),
        "conv conv": (conv, "relu", last),
        "conv conv odd": (odd, "silu", strided),
        "act conv": ("relu", other),
        "conv glu": GatedLinear(conv, other, None, "silu"),
        "conv glu pointwise": GatedLinear(conv, other, point, "gelu"),
        "conv glu conv": GatedLinear(conv, other, last, "relu"),
    }


def fitted(kind, degree):
    network = networks()[kind]
    torch.manual_seed(1)
    if kind.startswith(("conv", "act conv")):
        x = torch.randn(4, 2, 9, 8).double() + 0.3
        return approximate(network, degree, *estimate_gaussian(receptive_fields(network, x))), x
    x = torch.randn(50, 5).double() + 0.3
    return approximate(network, degree, *estimate_gaussian(x)), x


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("kind", networks())
def test_modules_compute_the_polynomial(kind, degree):
    p, x = fitted(kind, degree)
    module = to_module(p, torch.float64)
    torch.testing.assert_close(module(x).detach(), p(x), atol=1e-10, rtol=1e-10)
    single = to_module(p)
    assert {t.dtype for t in single.state_dict().values()} == {torch.float32}
    torch.testing.assert_close(single(x.float()).double().detach(), p(x), atol=1e-4, rtol=1e-4)
    assert all(torch.isfinite(t).all() for t in single.state_dict().values())


@pytest.mark.parametrize(
    ("kind", "degree", "cls"),
    [
        ("mlp", 1, nn.Linear),
        ("mlp", 2, BilinearLinear),
        ("glu no down", 2, BilinearLinear),
        ("conv odd", 2, BilinearConv2d),
        ("conv glu pointwise", 2, BilinearConv2d),
        ("conv conv", 2, nn.Sequential),
        ("mlp", 3, PolynomialLayer),
        ("mlp", 0, nn.Linear),
        ("conv", 1, nn.Conv2d),
        ("conv glu", 0, nn.Conv2d),
        ("conv conv", 1, nn.Sequential),
        ("conv", 3, PolynomialLayer),
    ],
)
def test_which_module(kind, degree, cls):
    assert type(to_module(fitted(kind, degree)[0])) is cls


@pytest.mark.parametrize("kind", ["mlp", "glu", "glu no down"])
def test_bilinear_layers_have_the_polynomials_forms(kind):
    p, _ = fitted(kind, 2)
    u = torch.randn(p.out_features).double()
    layer = to_module(p, torch.float64)
    mine, theirs = p.quadratic_form(u), layer.quadratic_form(u)
    torch.testing.assert_close(mine.matrix(), theirs.matrix())
    torch.testing.assert_close(mine.linear, theirs.linear)
    torch.testing.assert_close(mine.constant, theirs.constant)


@pytest.mark.parametrize("kind", ["conv", "conv odd", "conv pointwise", "conv glu"])
def test_bilinear_convolutions_have_the_polynomials_eigenfilters(kind):
    p, _ = fitted(kind, 2)
    u = torch.randn(p.out_features).double()
    mine, theirs = p.eigenfilters(u), eigenfilters(to_module(p, torch.float64), u)
    torch.testing.assert_close(mine.values, theirs.values)
    torch.testing.assert_close(mine.filters, theirs.filters, atol=1e-6, rtol=1e-6)
    assert (mine.stride, mine.padding, mine.dilation) == (
        theirs.stride,
        theirs.padding,
        theirs.dilation,
    )


@pytest.mark.parametrize("kind", ["mlp", "conv conv", "glu"])
def test_modules_of_degree_two_train_and_their_weights_are_their_own(kind):
    p, x = fitted(kind, 2)
    before = p(x)
    module = to_module(p, torch.float64)
    module(x).square().mean().backward()
    assert all(w.grad is not None and w.grad.abs().sum() > 0 for w in module.parameters())
    with torch.no_grad():
        for weight in module.parameters():
            weight.zero_()
    torch.testing.assert_close(p(x), before)


def test_a_module_stands_in_its_networks_place():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 4), nn.GELU(), nn.Linear(4, 2))
    x = torch.randn(10, 5)
    p = approximate(network[:3], 2)
    swapped = nn.Sequential(to_module(p), *network[3:])
    torch.testing.assert_close(swapped(x), network[3:](p(x)), atol=1e-5, rtol=1e-5)
    layer = to_module(approximate(network[:3], 5))
    again = to_module(approximate(network[:3], 5))
    again.load_state_dict(layer.state_dict())
    torch.testing.assert_close(again(x), layer(x))
    assert not list(layer.parameters())


@pytest.mark.parametrize("degree", [0, 2, 3])
@pytest.mark.parametrize("kind", networks())
def test_saved_and_loaded(kind, degree, tmp_path):
    p, x = fitted(kind, degree)
    save_polynomial(p, tmp_path / "p.safetensors")
    q = load_polynomial(tmp_path / "p.safetensors")
    assert repr(q) == repr(p)
    assert q.tensors().keys() == p.tensors().keys()
    assert all(torch.equal(q.tensors()[name], tensor) for name, tensor in p.tensors().items())
    # where a tensor lies in memory decides how products round
    near = {"atol": 1e-13, "rtol": 1e-13}
    torch.testing.assert_close(q(x), p(x), **near)
    torch.testing.assert_close(q.r2_by_order, p.r2_by_order, **near)
    torch.testing.assert_close(q.network(x), p.network(x), **near)
    torch.testing.assert_close(q.measured_r2(x), p.measured_r2(x), **near)
    assert [file.name for file in tmp_path.iterdir()] == ["p.safetensors"]


@pytest.mark.parametrize(
    "covariance", [0.5, torch.rand(5), LowRankCovariance(torch.randn(5, 2), 0.1)]
)
def test_every_covariance_is_saved(covariance, tmp_path):
    network = (nn.Linear(5, 4), nn.LeakyReLU(0.2), nn.Linear(4, 3))
    p = approximate(network, 2, 0.2, covariance)
    save_polynomial(p, tmp_path / "p.safetensors")
    q = load_polynomial(tmp_path / "p.safetensors")
    torch.testing.assert_close(q.gaussian.matrix(), p.gaussian.matrix())
    torch.testing.assert_close(q.r2, p.r2)
    assert str(q.activation) == "leaky_relu(0.2)"


def test_what_a_file_cannot_hold(tmp_path):
    torch.manual_seed(0)
    first, last = nn.Linear(5, 4).double(), nn.Linear(4, 3).double()
    x = torch.randn(50, 5).double()
    p = approximate((first, torch.sin, last), 2)
    save_polynomial(p, tmp_path / "p.safetensors")
    q = load_polynomial(tmp_path / "p.safetensors")
    torch.testing.assert_close(q.r2, p.r2)
    torch.testing.assert_close(q(x), p(x))
    with pytest.raises(ValueError, match="give its outputs, or the network"):
        q.measured_r2(x)
    network = lambda x: last(torch.sin(first(x)))  # noqa: E731
    torch.testing.assert_close(q.measured_r2(x, network), p.measured_r2(x))
    mixture = GaussianMixture((0.5, 0.5), (Gaussian(torch.zeros(5), torch.ones(5)),) * 2)
    p = approximate((first, "relu", last), 1, mixture=mixture)
    save_polynomial(p, tmp_path / "p.safetensors")
    torch.testing.assert_close(load_polynomial(tmp_path / "p.safetensors").r2, p.r2)


def test_other_files_are_refused_and_a_failed_write_leaves_nothing(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "other.safetensors", {"format": json.dumps("pt")})
    with pytest.raises(ValueError, match="not a polynomial written by save_polynomial"):
        load_polynomial(tmp_path / "other.safetensors")
    p, _ = fitted("mlp", 2)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        save_polynomial(p, tmp_path / "folder")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder", "other.safetensors"]
