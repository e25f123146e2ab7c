import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlbilinear import BilinearLinear
from rlbilinear.tensor import BilinearTensor
from rlbilinear.tucker import _input_gram, tucker2

CLOSE = {"atol": 1e-9, "rtol": 0}
layers = st.from_type(BilinearLinear)


@given(layers, st.integers(1, 12))
def test_core_basis_and_error_are_those_of_the_dense_tensor(layer, k):
    tensor = BilinearTensor.of(layer)
    found = tucker2(tensor, k)
    dense, basis = tensor.matrices(), found.basis
    assert len(basis) == min(k, tensor.in_features, 2 * tensor.hidden_features)
    torch.testing.assert_close(basis @ basis.T, torch.eye(len(basis)).double(), **CLOSE)
    core = basis @ dense @ basis.T
    torch.testing.assert_close(found.core.matrices(), core, **CLOSE)
    error = (basis.T @ core @ basis - dense).norm()
    torch.testing.assert_close(found.error, error, atol=1e-7, rtol=0)
    torch.testing.assert_close(found.share, core.norm() ** 2 / dense.norm() ** 2, **CLOSE)
    x = torch.randn(3, layer.in_features).double()
    affine = x @ tensor.linear.T + tensor.constant
    torch.testing.assert_close(found.tensor()(x), found.core(x @ basis.T) + affine, **CLOSE)
    torch.testing.assert_close(found.tensor().as_layer(layer)(x), found.tensor()(x), **CLOSE)
    if k >= min(tensor.in_features, 2 * tensor.hidden_features):
        torch.testing.assert_close(found.tensor()(x), layer(x), **CLOSE)


@given(layers)
def test_the_input_side_gram_matrix(layer):
    tensor = BilinearTensor.of(layer)
    directions = torch.randn(3, layer.in_features).double()
    gram = _input_gram(tensor, tensor.down.T @ tensor.down, directions)
    seen = tensor.matrices() @ directions.T
    torch.testing.assert_close(gram, (seen @ seen.mT).sum(0), **CLOSE)


def test_it_finds_the_subspace_a_layer_lives_in():
    torch.manual_seed(0)
    hidden = torch.linalg.qr(torch.randn(30, 4).double()).Q.T
    tensor = BilinearTensor.of(BilinearLinear(4, 6, hidden_features=20).double())
    found = tucker2(tensor.with_inputs(hidden), 4)
    assert found.share.item() == pytest.approx(1)
    torch.testing.assert_close(found.basis.T @ found.basis, hidden.T @ hidden, **CLOSE)


def test_it_beats_every_direction_tried_and_its_own_start():
    """A single direction holds ``sum_o (uᵀ B_o u)²``: compared with a fine grid of directions."""
    torch.manual_seed(3)
    tensor = BilinearTensor.of(BilinearLinear(2, 3, hidden_features=4).double())
    angle = torch.linspace(0, torch.pi, 2001).double()
    grid = torch.stack([angle.cos(), angle.sin()], 1)
    held = torch.einsum("ni,oij,nj->on", grid, tensor.matrices(), grid).norm(dim=0).amax()
    found = tucker2(tensor, 1)
    assert found.core.matrices().norm() > held * (1 - 1e-5)
    wide = BilinearTensor.of(BilinearLinear(30, 5, hidden_features=20).double())
    assert tucker2(wide, 5, sweeps=100).share > tucker2(wide, 5, sweeps=0).share


def test_no_direction_is_refused():
    with pytest.raises(ValueError, match="k must be a whole number, 1 or more"):
        tucker2(BilinearTensor.of(BilinearLinear(4, 2)), 0)
