import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rlbilinear import BilinearConv2d, BilinearLinear, eigenfilters
from rlbilinear.chains import LARGEST, _size, as_convolutional, chain, explain_chain, r_squared
from rlbilinear.convolution import as_convolution
from rlbilinear.edits.functional import PositionBias
from rlbilinear.stack import BilinearStack, Stage

CLOSE = {"atol": 1e-8, "rtol": 1e-8}


def residual_stack(seed=0, layers=2, bias=True):
    torch.manual_seed(seed)
    stages = []
    for i in range(layers):
        main = BilinearConv2d(3, 3, 3, hidden_channels=1, padding=1, bias=bias)
        skip = nn.Identity() if i % 2 else nn.Conv2d(3, 3, 1, bias=bias)
        stages.append(Stage(main, skip))
    return BilinearStack(stages)


def mixed_stack(seed=0):
    """No skips, stride, dilation, a bias for every position, a dense layer at the end."""
    torch.manual_seed(seed)
    conv = BilinearConv2d(2, 2, (2, 3), hidden_channels=1, stride=2, padding=1, bias=True)
    second = BilinearConv2d(2, 2, 2, dilation=2)
    dense = BilinearLinear(2 * 2 * 2, 3, hidden_features=1, bias=True)
    offset = torch.randn(2, 4, 4)
    stages = [nn.AvgPool2d(2, 1, 1), nn.Conv2d(3, 2, 2, dilation=2, padding=1)]
    stages += [PositionBias(conv, offset), second, as_convolution(dense, (2, 2, 2))]
    return BilinearStack([*stages, nn.Conv2d(3, 3, 1)])


@settings(max_examples=10)
@given(st.integers(0, 999), st.booleans())
def test_a_chain_that_keeps_everything_is_exact(seed, bias):
    stack = residual_stack(seed, 2, bias)
    x, u = torch.randn(2, 3, 5, 4).double(), torch.randn(3).double()
    whole = chain(stack, u, filters=None, patterns=None)
    torch.testing.assert_close(whole(x), torch.einsum("c,nchw->nhw", u, stack(x)), **CLOSE)
    assert len(list(whole.links())) <= _size(stack.stages, None, None)


def test_strides_dilations_pools_dense_and_linear_layers_and_biases_of_positions():
    stack = mixed_stack()
    x, u = torch.randn(2, 3, 6, 7).double(), torch.randn(3).double()
    whole = chain(stack, u, filters=None, patterns=None)
    assert stack(x).shape == (2, 3, 1, 1)
    torch.testing.assert_close(whole(x), torch.einsum("c,nchw->nhw", u, stack(x)), **CLOSE)


def test_the_greedy_chain_of_dense_layers_is_eigenvectors_of_eigenvectors():
    torch.manual_seed(0)
    lower, upper = (BilinearLinear(6, 6, hidden_features=4).double() for _ in range(2))
    stack = BilinearStack([as_convolution(layer, (6, 1, 1)) for layer in (lower, upper)])
    u = torch.randn(6).double()
    found = chain(stack, u)
    value, vector = (t[0] for t in upper.quadratic_form(u).eigh(1))
    below = lower.quadratic_form(vector).eigh(1)
    (branch,) = found.branches
    ((tap, source),) = branch.patterns
    assert branch.value == pytest.approx(value.item())
    torch.testing.assert_close(tap.abs(), torch.ones(1, 1).double(), **CLOSE)
    torch.testing.assert_close(source.direction, vector, **CLOSE)
    assert source.branches[0].value == pytest.approx(below.values[0].item())
    leaf = source.branches[0].patterns[0].source
    torch.testing.assert_close(leaf.direction, below.vectors[0], **CLOSE)
    x = torch.randn(5, 6).double()
    expected = value * (below.values[0] * (x @ below.vectors[0]) ** 2) ** 2
    torch.testing.assert_close(found(x[:, :, None, None]).flatten(), expected, **CLOSE)
    everything = chain(stack, u, filters=None)
    torch.testing.assert_close(
        everything(x[:, :, None, None]).flatten(), upper(lower(x)) @ u, **CLOSE
    )


def test_dense_stages_are_convolutions_of_one_position():
    torch.manual_seed(0)
    stages = [
        Stage(nn.Linear(12, 5)),
        Stage(PositionBias(BilinearLinear(5, 5, bias=True), torch.randn(5)), nn.Identity()),
        Stage(BilinearLinear(5, 4, hidden_features=3), nn.Linear(5, 4)),
        Stage(nn.Linear(4, 4), nn.Identity()),
    ]
    dense, x = BilinearStack(stages), torch.randn(3, 3, 2, 2)
    first = as_convolutional(stages[0], (3, 2, 2))
    convs = BilinearStack([first, *map(as_convolutional, stages[1:])])
    y = dense(x.flatten(1))
    torch.testing.assert_close(convs(x).flatten(1), y, **CLOSE)
    u = torch.randn(4).double()
    whole = chain(convs, u, filters=None, patterns=None)
    torch.testing.assert_close(whole(x.double()).flatten(), y @ u, **CLOSE)
    with pytest.raises(ValueError, match="not flattened maps"):
        as_convolutional(stages[0], (5, 2, 2))
    with pytest.raises(ValueError, match="to one position"):
        as_convolutional(Stage(nn.Linear(12, 12), nn.Identity()), (3, 2, 2))
    conv = Stage(BilinearConv2d(2, 2, 3))
    assert as_convolutional(conv) is conv


def test_one_layer_is_its_first_eigenfilters():
    torch.manual_seed(0)
    conv = BilinearConv2d(4, 3, 3, padding=1)
    u, x = torch.randn(3), torch.randn(3, 4, 6, 6).double()
    found = chain(BilinearStack([conv]), u, filters=2, patterns=None)
    first = eigenfilters(conv, u, 2)
    torch.testing.assert_close(found(x), first.maps(x).sum(1), **CLOSE)
    values = eigenfilters(conv, u).values
    assert found.rank == len(values)
    assert found.share == pytest.approx((values[:2].norm() ** 2 / values.norm() ** 2).item())


def test_what_is_ignored_is_measured():
    stack, u = residual_stack(0, 3), torch.randn(3).double()
    x = torch.randn(40, 3, 6, 6).double()
    true = torch.einsum("c,nchw->nhw", u, stack(x))
    greedy = explain_chain(stack, u, x)
    assert [row.layers for row in greedy] == [1, 2, 3]
    # By hand, for the deepest: the variance at every position, and the chain's own prediction.
    error = ((true - chain(stack, u)(x)) ** 2).sum() / true.var(0, correction=0).sum() / len(x)
    assert greedy[-1].r2 == pytest.approx(1 - error.item())
    bare = true - chain(stack, u, filters=0)(x)
    skip = (bare**2).sum() / true.var(0, correction=0).sum() / len(x)
    assert greedy[-1].skip_r2 == pytest.approx(1 - skip.item())
    whole = explain_chain(stack, u, x, filters=None, patterns=None)
    assert all(row.r2 == pytest.approx(1) == row.correlation for row in whole)
    assert all(row.share == pytest.approx(1) for row in whole)
    assert all(row.r2 < 1 - 1e-6 for row in greedy)
    assert greedy[-1].directions < whole[-1].directions
    without = explain_chain(mixed_stack(), u, torch.randn(5, 3, 6, 7))
    assert without[0].skip_r2 == pytest.approx(1)  # the last stage is linear
    assert all(math.isnan(row.skip_r2) for row in without[1:4])


def test_r_squared_is_centred_at_every_position():
    true = torch.tensor([[1.0, 10], [3, 10]])
    assert r_squared(true, true) == 1
    assert r_squared(true, torch.tensor([[2.0, 10], [2, 10]])) == 0
    assert r_squared(true, true + 1) == -1
    assert math.isnan(r_squared(true[:1].expand(4, 2), true[:1].expand(4, 2)))


def test_what_cannot_be_followed_is_refused():
    with pytest.raises(TypeError, match="as_convolutional"):
        chain(BilinearStack([BilinearLinear(3, 3)]), torch.ones(3))
    with pytest.raises(ValueError, match="no filter is to be kept"):
        chain(BilinearStack([BilinearConv2d(2, 2, 3)]), torch.ones(2), filters=0)
    with pytest.raises(ValueError, match="the direction is zero"):
        chain(BilinearStack([BilinearConv2d(2, 2, 3)]), torch.zeros(2))
    with pytest.raises(ValueError, match="patterns must be a whole number, 1 or more; got 0"):
        chain(residual_stack(), torch.ones(3), patterns=0)
    with pytest.raises(ValueError, match=r"direction of shape \(3,\)"):
        chain(residual_stack(), torch.ones(4))
    with pytest.raises(ValueError, match=f"32,767 directions, more than {LARGEST:,}"):
        chain(residual_stack(layers=14, bias=False), torch.ones(3))
    with pytest.raises(TypeError, match="1x1 skip"):
        skip = nn.Conv2d(2, 2, 3, padding=1)
        stage = Stage(BilinearConv2d(2, 2, 3, padding=1), skip)
        chain(BilinearStack([stage]), torch.ones(2))
    with pytest.raises(ValueError, match="1 to 2 layers"):
        explain_chain(residual_stack(), torch.ones(3), torch.zeros(2, 3, 4, 4), layers=3)
    with pytest.raises(ValueError, match="at least two"):
        explain_chain(residual_stack(), torch.ones(3), torch.zeros(1, 3, 4, 4))
