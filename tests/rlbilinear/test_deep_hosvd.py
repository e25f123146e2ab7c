import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rlbilinear import BilinearConv2d, BilinearLinear
from rlbilinear.chains import r_squared
from rlbilinear.deep_hosvd import deep_hosvd
from rlbilinear.hosvd import hosvd
from rlbilinear.stack import BilinearStack, Stage
from rlbilinear.tensor import BilinearTensor

CLOSE = {"atol": 1e-7, "rtol": 1e-7}


def network(seed=0, bias=True, residual=True):
    torch.manual_seed(seed)
    skip = nn.Linear(7, 5, bias=bias) if residual else None
    return BilinearStack(
        [
            nn.Linear(9, 7, bias=bias),
            Stage(BilinearLinear(7, 5, hidden_features=8, bias=bias), skip),
            Stage(nn.Linear(5, 5, bias=bias), nn.Identity()),
            Stage(BilinearLinear(5, 5, bias=bias), nn.Identity() if residual else None),
            BilinearLinear(5, 4, hidden_features=6, bias=bias),
            nn.Linear(4, 3, bias=bias),
        ]
    )


@given(st.integers(0, 999), st.booleans(), st.booleans())
def test_with_every_component_it_is_the_network(seed, bias, residual):
    stack, x = network(seed, bias, residual), torch.randn(6, 9)
    found = deep_hosvd(stack)
    torch.testing.assert_close(found(x), stack(x), **CLOSE)
    assert [len(layer.outputs) for layer in found.layers] == list(found.kept)


def test_a_single_layer_is_its_own_hosvd():
    torch.manual_seed(0)
    layer, x = BilinearLinear(6, 4, hidden_features=5), torch.randn(7, 6).double()
    found, flat = deep_hosvd(BilinearStack([layer])), hosvd(BilinearTensor.of(layer))
    torch.testing.assert_close(found.layers[0].singular_values, flat.singular_values)
    (z,) = found.coordinates(x)
    for s in range(4):
        torch.testing.assert_close(z[:, s], flat.component(s)(x), **CLOSE)


def test_a_layer_is_a_small_tensor_of_what_is_kept_below():
    stack = network()
    found = deep_hosvd(stack, [2, None, 1])
    assert found.kept == (2, len(found.layers[1].outputs), 1)
    assert found.layers[0].tensor.in_features == 10  # the network's inputs, and 1
    assert found.layers[1].tensor.in_features == 3
    x = torch.randn(50, 9)
    assert found(x).shape == (50, 3)
    quality = [r_squared(stack(x), deep_hosvd(stack, [k, None, None])(x)) for k in (1, 3, 5)]
    assert quality[-1] == pytest.approx(1) and quality[0] < 1 - 1e-6


def test_other_stages_and_numbers_are_refused():
    with pytest.raises(TypeError, match="BilinearConv2d"):
        deep_hosvd(BilinearStack([BilinearLinear(2, 2), BilinearConv2d(2, 2, 1)]))
    with pytest.raises(ValueError, match="at least one bilinear layer"):
        deep_hosvd(BilinearStack([nn.Linear(2, 2)]))
    with pytest.raises(ValueError, match="each of the 3"):
        deep_hosvd(network(), [1, 1])
    with pytest.raises(ValueError, match="at least one"):
        deep_hosvd(network(), 0)
