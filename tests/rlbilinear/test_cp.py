import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlbilinear import BilinearConv2d, BilinearLinear
from rlbilinear.cp import _best_outputs, fit_cp
from rlbilinear.tensor import BilinearTensor

CLOSE = {"atol": 1e-9, "rtol": 0}


def seeded(*sizes, hidden=None, bias=False, seed=0):
    torch.manual_seed(seed)
    return BilinearLinear(*sizes, hidden_features=hidden, bias=bias).double()


def test_it_recovers_the_products_a_layer_is_made_of():
    """Kruskal: with few terms and generic factors the decomposition is unique up to signs."""
    tensor = BilinearTensor.of(seeded(12, 5, hidden=4))
    found = fit_cp(tensor, 4, starts=2)
    assert found.cosine > 1 - 1e-9 and found.converged

    def terms(left, right, down):
        return torch.einsum("ri,rj,or->roij", left, right, down).flatten(1)

    def symmetric(t):
        t = t.reshape(len(t), 5, 12, 12)
        return torch.nn.functional.normalize(((t + t.mT) / 2).flatten(1), dim=1)

    mine = symmetric(terms(found.left, found.right, found.outputs.T))
    true = symmetric(terms(tensor.left, tensor.right, tensor.down))
    matches = (mine @ true.T).abs()
    torch.testing.assert_close(matches.amax(0), torch.ones(4).double(), atol=1e-6, rtol=0)
    sizes = terms(tensor.left, tensor.right, tensor.down).norm(dim=1).sort(descending=True).values
    torch.testing.assert_close(found.importance, sizes, atol=1e-4, rtol=0)


@given(st.integers(0, 99), st.integers(1, 5), st.booleans())
def test_what_it_reports_is_what_the_dense_tensors_say(seed, rank, bias):
    layer = seeded(8, 3, hidden=5, bias=bias, seed=seed)
    tensor = BilinearTensor.of(layer)
    found = fit_cp(tensor, rank, seed=seed, steps=15)
    dense, mine = tensor.matrices(), found.tensor().matrices()
    cosine = (dense * mine).sum() / (dense.norm() * mine.norm())
    assert found.cosine == pytest.approx(cosine.item(), abs=1e-9)
    missing = (dense - mine).norm() ** 2 / dense.norm() ** 2
    assert 1 - found.cosine**2 == pytest.approx(missing.item(), abs=1e-9)
    assert (found.importance.diff() <= 0).all()
    for unit in (found.left, found.right, found.outputs):
        torch.testing.assert_close(unit.norm(dim=1), torch.ones(rank).double(), **CLOSE)

    x = torch.randn(4, 8).double()
    y = found.tensor()(x)
    torch.testing.assert_close(found.tensor().as_layer(layer)(x), y, **CLOSE)
    plus, minus = found.squares()
    products = (x @ plus.T) ** 2 - (x @ minus.T) ** 2
    affine = x @ tensor.linear.T + tensor.constant
    torch.testing.assert_close((products * found.importance) @ found.outputs + affine, y, **CLOSE)
    torch.testing.assert_close(found.truncate(rank)(x), y, **CLOSE)
    assert found.truncate(0)(x).equal(affine)


def test_the_outputs_are_the_least_squares_ones():
    tensor = BilinearTensor.of(seeded(7, 4, hidden=6))
    left, right = torch.randn(2, 3, 7).double()
    terms = torch.einsum("ri,rj->rij", left, right)
    terms = ((terms + terms.mT) / 2).flatten(1)
    expected = torch.linalg.lstsq(terms.T, tensor.matrices().flatten(1).T).solution
    torch.testing.assert_close(_best_outputs(tensor, left, right), expected, **CLOSE)
    twice = _best_outputs(tensor, left[[0, 0]], right[[0, 0]])
    torch.testing.assert_close(twice[0], twice[1], **CLOSE)


def test_more_terms_and_more_starts_are_never_worse_and_the_seed_decides():
    tensor = BilinearTensor.of(seeded(10, 3, hidden=6))
    cosines = [fit_cp(tensor, rank, starts=2, steps=60).cosine for rank in (1, 3, 5)]
    assert cosines == sorted(cosines)
    one, three = (fit_cp(tensor, 3, starts=n, steps=60) for n in (1, 3))
    assert three.cosine >= one.cosine
    assert fit_cp(tensor, 3, steps=60).left.equal(one.left)
    assert not fit_cp(tensor, 3, seed=1, steps=60).left.equal(one.left)


def test_steps_are_counted_and_a_fit_cut_short_says_so():
    seen = []
    tensor = BilinearTensor.of(seeded(16, 4, hidden=12))
    found = fit_cp(tensor, 4, steps=3, on_step=lambda step, cosine: seen.append((step, cosine)))
    assert not found.converged
    assert [step for step, _ in seen] == list(range(1, len(seen) + 1))
    assert seen[-1][1] > seen[0][1]


def test_a_convolution_is_fitted_on_its_patches():
    torch.manual_seed(0)
    conv = BilinearConv2d(2, 3, 3, hidden_channels=2, padding=1, bias=True).double()
    small = fit_cp(BilinearTensor.of(conv), 2, starts=2).tensor().as_layer(conv)
    x = torch.randn(2, 2, 6, 6).double()
    torch.testing.assert_close(small(x), conv(x), atol=1e-4, rtol=0)


def test_bad_input_is_refused():
    tensor = BilinearTensor.of(seeded(6, 3))
    with pytest.raises(ValueError, match="rank must be a whole number, 1 or more; got 0"):
        fit_cp(tensor, 0)
    with pytest.raises(ValueError, match="zero"):
        fit_cp(tensor.with_outputs(torch.zeros(2, 3)), 1)
