import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from ordinary_networks import SMOOTH, conv_cases, evaluate, gaussian_of, glu, mlp
from rlbilinear import BilinearLinear, GatedLinear, approximate
from rlbilinear.gaussian import LowRankCovariance
from rlbilinear.moments import ACTIVATIONS, Activation


def quadrature(mean, factor, points=120):
    """Points and weights that integrate over ``mean + factor z``: Gauss-Hermite in each z."""
    z, w = np.polynomial.hermite_e.hermegauss(points)
    r = factor.shape[1]
    grid = torch.tensor(list(itertools.product(z, repeat=r)))
    weight = torch.tensor([math.prod(p) for p in itertools.product(w, repeat=r)])
    return mean + grid @ factor.T, weight / weight.sum()


def least_squares(x, weight, y, degree):
    """Fit every monomial up to the degree, as one would without the closed form."""
    d = x.shape[1]
    exponents = [e for e in itertools.product(range(degree + 1), repeat=d) if sum(e) <= degree]
    features = torch.stack(
        [
            math.prod((x[:, i] ** e[i] for i in range(d)), start=torch.ones(len(x)).double())
            for e in exponents
        ],
        1,
    )
    root = weight.sqrt()[:, None]
    solution = torch.linalg.lstsq(features * root, y * root).solution
    return features @ solution


def weighted_variance(y, weight):
    return weight @ (y - weight @ y) ** 2


# Against least squares on features


@pytest.mark.parametrize("make", [mlp, glu])
@pytest.mark.parametrize("activation", [*SMOOTH, "gelu_tanh", "sigmoid", "softplus", torch.sin])
def test_is_the_least_squares_polynomial(make, activation):
    network = make(activation)
    mean, covariance, factor = gaussian_of(2)
    x, weight = quadrature(mean, factor)
    y = evaluate(network, x)
    for degree in range(5):
        p = approximate(network, degree, mean, covariance)
        fitted = least_squares(x, weight, y, degree)
        near = weight > 1e-9
        torch.testing.assert_close(p(x)[near], fitted[near], atol=1e-6, rtol=1e-6)
        explained = 1 - weight @ (y - fitted) ** 2 / weighted_variance(y, weight)
        torch.testing.assert_close(p.r2, explained, atol=1e-8, rtol=0)
    torch.testing.assert_close(p.variance, weighted_variance(y, weight), rtol=1e-8, atol=0)


@pytest.mark.parametrize("make", [mlp, glu])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_kinked_networks_against_simulation(make, activation):
    network = make(activation, d=6, hidden=7)
    mean, covariance, factor = gaussian_of(6)
    x = mean + torch.randn(100_000, 6).double() @ factor.T
    y = evaluate(network, x)
    p = approximate(network, 3, mean, covariance)
    torch.testing.assert_close(p.variance, y.var(0), rtol=0.03, atol=0)
    orders = torch.stack(list(p.orders(x)))
    torch.testing.assert_close(orders[0, 0], y.mean(0), atol=0.02, rtol=0)
    simulated = orders[1:].var(1) / y.var(0)
    torch.testing.assert_close(p.r2_by_order, simulated, atol=0.01, rtol=0)
    torch.testing.assert_close(p.r2, p.measured_r2(x), atol=0.01, rtol=0)
    # what is left is uncorrelated with every monomial of degree two
    left = y - p.truncate(2)(x)
    i, j = torch.triu_indices(6, 6)
    features = torch.cat([x, x[:, i] * x[:, j]], 1)
    correlation = torch.corrcoef(torch.cat([left, features], 1).T)[:3, 3:]
    assert correlation.abs().max() < 0.015


def test_orders_are_uncorrelated():
    for network in (mlp("gelu"), glu("silu")):
        mean, covariance, factor = gaussian_of(2)
        x, weight = quadrature(mean, factor)
        p = approximate(network, 5, mean, covariance)
        orders = torch.stack(list(p.orders(x)))
        gram = torch.einsum("n,ano,bno->oab", weight, orders, orders)
        diagonal = gram.diagonal(dim1=1, dim2=2)
        torch.testing.assert_close(gram, torch.diag_embed(diagonal), atol=1e-11, rtol=0)
        torch.testing.assert_close(diagonal[:, 1:].T / p.variance, p.r2_by_order, atol=1e-9, rtol=0)
        torch.testing.assert_close(orders.sum(0), p(x), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("degree", [1, 2, 3, 5])
@pytest.mark.parametrize("gated", [False, True])
def test_a_polynomial_of_the_degree_is_reproduced(degree, gated):
    power = degree - 1 if gated else degree
    network = (glu if gated else mlp)(lambda y: y**power - 0.5 * y ** min(power, 1), d=4)
    mean, covariance, _ = gaussian_of(4)
    x = 3 * torch.randn(50, 4).double()
    p = approximate(network, degree, mean, covariance)
    y = evaluate(network, x)
    torch.testing.assert_close(p(x), y, atol=1e-9 * y.abs().max().item(), rtol=0)
    torch.testing.assert_close(p.r2, torch.ones(3).double(), atol=1e-11, rtol=0)
    below = approximate(network, degree - 1, mean, covariance)
    assert (below.r2 < 1 - 1e-6).all()


# Published numbers


def test_published_relu_network():
    torch.manual_seed(42)
    network = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))
    p = approximate(network, 4)
    left = (1 - p.r2_by_order.cumsum(0)) * p.variance
    found = (left.sum(1) / p.variance.sum()).tolist()
    assert [found[0], found[1], found[3]] == pytest.approx([0.2690, 0.0335, 0.0138], abs=5e-5)


def test_relu_without_biases_is_half_its_linear_map():
    torch.manual_seed(0)
    first, last = nn.Linear(9, 20, bias=False), nn.Linear(20, 4, bias=False)
    beta = approximate((first, "relu", last), 1).coefficients(1)
    expected = (last.weight.double() @ first.weight.double()) / 2
    torch.testing.assert_close(beta, expected, atol=1e-15, rtol=1e-14)


@pytest.mark.parametrize("s", [1e-3, 0.5, 1.0, 30.0])
def test_best_quadratic_of_relu(s):
    one = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        one.weight.fill_(1.0)
    p = approximate((one, "relu"), 2, 0.0, s**2)
    y = s * torch.linspace(-4, 4, 9).double()[:, None]
    root = math.sqrt(2 * math.pi)
    torch.testing.assert_close(p(y), y / 2 + y**2 / (2 * s * root) + s / (2 * root))
    form = p.quadratic_form(torch.ones(1))
    assert form.matrix().item() == pytest.approx(1 / (2 * s * root))
    assert form.constant.item() == pytest.approx(s / (2 * root))


# Coefficients and forms


@pytest.mark.parametrize("network", [mlp("relu", d=3), glu("silu", d=3), glu("relu", d=3)])
def test_coefficients_are_the_mean_derivatives(network):
    """The tensor of order n is E[f^(n)] / n!: here from moments of x, by Stein's lemma."""
    mean, covariance, factor = gaussian_of(3)
    p = approximate(network, 3, mean, covariance)
    x = mean + torch.randn(400_000, 3).double() @ factor.T
    y, whitened = evaluate(network, x), (x - mean) @ torch.linalg.inv(covariance)
    inverse = torch.linalg.inv(covariance)
    torch.testing.assert_close(p.coefficients(0), y.mean(0), atol=0.01, rtol=0)
    first = y.T @ whitened / len(x)
    torch.testing.assert_close(p.coefficients(1), first, atol=0.03, rtol=0)
    second = torch.einsum("no,ni,nj->oij", y, whitened, whitened) / len(x)
    second = (second - y.mean(0)[:, None, None] * inverse) / 2
    size = inverse.abs().max().item()
    torch.testing.assert_close(p.coefficients(2), second, atol=0.01 * size, rtol=0)
    third = p.coefficients(3)
    for axes in itertools.permutations([1, 2, 3]):
        torch.testing.assert_close(third, third.permute(0, *axes))


@pytest.mark.parametrize("network", [mlp("gelu", d=3), glu("silu", d=3)])
@pytest.mark.parametrize("covariance", [0.7, "full"])
def test_orders_are_wick_powers_of_their_coefficients(network, covariance):
    mean, full, _ = gaussian_of(3)
    covariance = full if covariance == "full" else covariance
    p = approximate(network, 3, mean, covariance)
    sigma = p.gaussian.matrix()
    x = torch.randn(20, 3).double() - mean
    c0, c1, c2, c3 = (p.coefficients(n) for n in range(4))
    orders = list(p.orders(x + mean))
    torch.testing.assert_close(orders[0], c0.expand(20, 3))
    torch.testing.assert_close(orders[1], x @ c1.T)
    second = torch.einsum("oij,ni,nj->no", c2, x, x) - torch.einsum("oij,ij->o", c2, sigma)
    torch.testing.assert_close(orders[2], second)
    third = torch.einsum("oijk,ni,nj,nk->no", c3, x, x, x)
    third = third - 3 * torch.einsum("oijk,ij,nk->no", c3, sigma, x)
    torch.testing.assert_close(orders[3], third)


@given(
    st.sampled_from(["mlp", "glu", "glu no down", "mlp no down", "act first", "affine"]),
    st.sampled_from(sorted(ACTIVATIONS)),
    st.integers(0, 2),
    st.integers(0, 100),
)
def test_quadratic_form_is_the_polynomial(kind, activation, degree, seed):
    first, _, last = mlp(activation, d=5, hidden=6, seed=seed)
    gated = glu(activation, d=5, hidden=6, seed=seed)
    network = {
        "mlp": (first, activation, last),
        "mlp no down": (first, activation),
        "act first": (activation, first),
        "affine": (first,),
        "glu": gated,
        "glu no down": GatedLinear(gated.gate, gated.value, None, activation),
    }[kind]
    mean, covariance, _ = gaussian_of(5, seed, rank=1 + seed % 5)
    p = approximate(network, degree, mean, covariance)
    x = torch.randn(7, 2, 5).double()
    u = torch.randn(p.out_features).double()
    torch.testing.assert_close(p.quadratic_form(u)(x), p(x) @ u, atol=1e-8, rtol=1e-8)
    y = evaluate(network, x)
    assert p(x).shape == y.shape
    torch.testing.assert_close(p.network(x), y, atol=1e-9, rtol=1e-9)


@given(st.from_type(BilinearLinear), st.integers(0, 100))
def test_a_bilinear_layer_is_its_own_quadratic(layer, seed):
    d = layer.in_features
    mean, covariance, _ = gaussian_of(d, seed)
    p = approximate(layer, 2, mean, covariance)
    u = torch.randn(layer.out_features).double()
    mine, own = p.quadratic_form(u), layer.quadratic_form(u)
    torch.testing.assert_close(mine.matrix(), own.matrix(), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(mine.linear, own.linear, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(mine.constant, own.constant, atol=1e-8, rtol=1e-8)
    varies = p.variance > 1e-20
    torch.testing.assert_close(p.r2[varies], torch.ones_like(p.r2[varies]), atol=1e-8, rtol=0)


def test_a_higher_degree_holds_the_lower_ones():
    network = glu("silu", d=4)
    mean, covariance, _ = gaussian_of(4)
    whole = approximate(network, 4, mean, covariance)
    x = torch.randn(10, 4).double()
    for degree in range(5):
        part = approximate(network, degree, mean, covariance)
        torch.testing.assert_close(whole.truncate(degree)(x), part(x))
        torch.testing.assert_close(whole.truncate(degree).r2, part.r2)
    with pytest.raises(ValueError, match="at most 4, got 5"):
        whole.truncate(5)


# Covariances, widths, dtypes


@pytest.mark.parametrize("make", [mlp, glu])
def test_every_form_of_covariance_gives_the_same(make):
    network = make("silu", d=5, hidden=6)
    torch.manual_seed(1)
    mean = torch.randn(5).double()
    factor, diagonal = torch.randn(5, 2).double(), torch.rand(5).double()
    x = torch.randn(9, 5).double()
    dense = factor @ factor.T + diagonal.diag()
    pairs = [
        (LowRankCovariance(factor, diagonal), dense),
        (LowRankCovariance(factor, 0.3), factor @ factor.T + 0.3 * torch.eye(5).double()),
        (diagonal, diagonal.diag()),
        (0.3, 0.3 * torch.eye(5).double()),
        (None, torch.eye(5)),
    ]
    for given_, full in pairs:
        mine, other = (approximate(network, 3, mean, c) for c in (given_, full))
        torch.testing.assert_close(mine(x), other(x), atol=1e-10, rtol=1e-10)
        torch.testing.assert_close(mine.r2, other.r2, atol=1e-9, rtol=0)


@pytest.mark.parametrize("make", [mlp, glu])
@pytest.mark.parametrize("activation", ["relu", "silu", "sigmoid"])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_singular_covariance(make, activation, scale):
    """On one line every unit is a function of one number: all correlations are ±1."""
    network = make(activation, d=6, hidden=5)
    torch.manual_seed(3)
    mean, line = torch.randn(6).double(), scale * torch.randn(6, 1).double()
    p = approximate(network, 3, mean, line @ line.T)
    points, weights = np.polynomial.legendre.leggauss(40)
    edges = np.linspace(-12, 12, 1501)
    half = np.diff(edges) / 2
    z = ((edges[1:] + edges[:-1]) / 2)[:, None] + half[:, None] * points
    weight = torch.tensor((half[:, None] * weights * np.exp(-(z**2) / 2)).flatten())
    weight = weight / weight.sum()
    x = mean + torch.tensor(z.flatten())[:, None] * line.T
    y = evaluate(network, x)
    torch.testing.assert_close(p.variance, weighted_variance(y, weight), rtol=1e-7, atol=0)
    explained = 1 - weight @ (y - p(x)) ** 2 / weighted_variance(y, weight)
    torch.testing.assert_close(p.r2, explained, atol=1e-6, rtol=0)


@pytest.mark.parametrize("spread", [1.0, 0.1, 1e-3, 1e-6, 0.0])
def test_variance_of_relu_networks_is_that_of_the_arc_cosine_kernel(spread):
    """Cho and Saul, 2009: any two units without biases, here from unlike to copies."""
    torch.manual_seed(0)
    first, last = nn.Linear(5, 12, bias=False).double(), nn.Linear(12, 4).double()
    with torch.no_grad():
        first.weight.copy_(first.weight[:1] + spread * first.weight)
        first.weight[6:].neg_()
    w, p = first.weight.detach(), last.weight.detach()
    norm = w.norm(dim=1)
    cosine = (w @ w.T / torch.outer(norm, norm)).clamp(-1, 1)
    angle = cosine.arccos()
    second = torch.outer(norm, norm) * (angle.sin() + (math.pi - angle) * cosine) / (2 * math.pi)
    covariance = second - torch.outer(norm, norm) / (2 * math.pi)
    expected = torch.einsum("oh,hk,ok->o", p, covariance, p)
    found = approximate((first, "relu", last), 2).variance
    torch.testing.assert_close(found, expected, rtol=3e-9, atol=0)


@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_units_that_do_not_vary_are_constants(activation):
    first, _, last = mlp(activation, d=3, hidden=4)
    mean = torch.randn(3).double()
    p = approximate((first, activation, last), 3, mean, torch.tensor([1.0, 0.0, 0.0]))
    with torch.no_grad():
        first.weight[1, 0] = 0
        first.weight[2, 0] = 0
    q = approximate((first, activation, last), 3, mean, torch.tensor([1.0, 0.0, 0.0]))
    assert (q.values[1:, [1, 2]] == 0).all() and (q.values[1:, [0, 3]] != 0).any()
    x = mean + torch.randn(50, 1).double() * torch.tensor([1.0, 0, 0])
    for each in (p, q):
        assert (each.r2 > 0.9).all() and torch.isfinite(each(x)).all()
    dead = approximate((first, activation, last), 2, mean, 0.0)
    torch.testing.assert_close(dead(mean), evaluate((first, activation, last), mean))
    assert dead.r2.isnan().all()
    gated = glu(activation, d=3)
    with torch.no_grad():
        gated.gate.weight[0] = 0
        gated.value.weight[1] = 0
        gated.value.weight[2] = 2 * gated.gate.weight[2]
    r = approximate(gated, 3, mean)
    x = torch.randn(100_000, 3).double() + mean
    torch.testing.assert_close(r.r2, r.measured_r2(x), atol=0.02, rtol=0)


@pytest.mark.parametrize("variance", [1e-20, 1e-12, 1e12, 1e30])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_extreme_widths(variance, activation):
    r2 = approximate(mlp(activation, hidden=20), np.int64(2), 0.0, variance).r2
    # at a width of 1e-10 of the mean, values are known to six digits of their spread
    assert (r2 <= 1 + 1e-5).all() and (r2 > 0.9).all()
    if variance < 1:
        torch.testing.assert_close(r2, torch.ones(3).double(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("scale", [1e-3, 1e-2, 1.0, 10.0, 30.0])
@pytest.mark.parametrize("activation", ["tanh", "silu", "gelu_tanh", "relu"])
def test_widths(scale, activation):
    network = mlp(activation, d=8, hidden=16, scale=scale)
    torch.manual_seed(5)
    x = torch.randn(100_000, 8).double()
    p = approximate(network, 2)
    torch.testing.assert_close(p.r2, p.measured_r2(x), atol=0.01, rtol=0)
    y = evaluate(network, x)
    torch.testing.assert_close(p.variance, y.var(0), rtol=0.03, atol=0)
    if scale == 1e-3 and activation != "relu":  # the Taylor polynomial, nearly
        assert ((y - p(x)).abs() < 1e-7 * y.abs().max()).all()


@pytest.mark.parametrize("network", [mlp("silu", d=30, hidden=40), glu("relu", d=30, hidden=40)])
def test_float32(network):
    mean, covariance, factor = gaussian_of(30)
    x = mean + torch.randn(500, 30).double() @ factor.T
    p = approximate(network, 3, mean.float(), covariance.float())
    single = p(x.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), p(x), atol=1e-3, rtol=1e-4)
    layers = [network] if isinstance(network, nn.Module) else [network[0], network[2]]
    for layer in layers:
        layer.float()
    q = approximate(network, 3, mean, covariance)
    assert q.values.dtype == torch.float64
    torch.testing.assert_close(q(x), p(x), atol=1e-3, rtol=1e-3)


@pytest.mark.cuda
@pytest.mark.parametrize("make", [mlp, glu])
@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_cuda(make, activation):
    network = make(activation, d=6)
    mean, covariance, _ = gaussian_of(6)
    here = approximate(network, 3, mean, covariance)
    for part in [network] if isinstance(network, nn.Module) else [network[0], network[2]]:
        part.cuda()
    there = approximate(network, 3, mean, covariance)
    x = torch.randn(20, 6).double()
    assert there(x.cuda()).is_cuda
    torch.testing.assert_close(there(x.cuda()).cpu(), here(x))
    torch.testing.assert_close(there.r2.cpu(), here.r2)
    torch.testing.assert_close(there.to("cpu")(x), here(x))


def test_gated_layers_compute_their_formula():
    layer = glu("silu")
    x = torch.randn(5, 2).double()
    expected = layer.down(F.silu(layer.gate(x)) * layer.value(x))
    torch.testing.assert_close(layer(x), expected)
    conv = conv_cases()["glu"]
    image = torch.randn(1, 2, 5, 5).double()
    torch.testing.assert_close(conv(image), F.silu(conv.gate(image)) * conv.value(image))


def test_the_network_is_left_alone_and_not_kept():
    first, _, last = mlp("relu")
    before = first.weight.detach().clone()
    p = approximate((first, "relu", last), 2)
    x = torch.randn(5, 2).double()
    y = p(x)
    with torch.no_grad():
        first.weight.zero_()
    torch.testing.assert_close(p(x), y)
    assert (p.units.weight == before).all()
    assert repr(p) == "Polynomial(degree=2, 2 -> 3, 4 units of relu)"
    wrapped = approximate((first, Activation(nn.ELU()), last), 2)
    assert "ELU" in repr(wrapped)
