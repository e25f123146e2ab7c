import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlbilinear import BilinearConv2d, BilinearLinear
from rlbilinear.hosvd import hosvd
from rlbilinear.tensor import BilinearTensor

CLOSE = {"atol": 1e-9, "rtol": 0}
layers = st.from_type(BilinearLinear)


def seeded(*sizes, bias=False, hidden=None, seed=0):
    torch.manual_seed(seed)
    return BilinearLinear(*sizes, hidden_features=hidden, bias=bias).double()


def sizes_of(tensor):
    """What the hidden units add up to without their signs: rounding is a share of it."""
    sizes = tensor.left.norm(dim=1) * tensor.right.norm(dim=1)
    return (tensor.down.abs() @ sizes).amax()


@given(layers)
def test_it_is_the_svd_of_the_dense_tensor_in_either_storage(layer):
    tensor = BilinearTensor.of(layer)
    found = hosvd(tensor)
    for dense in (tensor.matrices().flatten(1), tensor.triangle()):
        expected = torch.linalg.svdvals(dense)
        torch.testing.assert_close(
            found.singular_values, expected[: len(found.singular_values)], atol=1e-7, rtol=0
        )
        assert (expected[len(found.singular_values) :] < 1e-6 * sizes_of(tensor)).all()
    r = len(found.outputs)
    torch.testing.assert_close(found.outputs @ found.outputs.T, torch.eye(r).double(), **CLOSE)
    assert found.share.sum().item() == pytest.approx(1)
    # Without the square root of two the upper triangle has another spectrum.
    if tensor.in_features > 2:
        i, j = torch.triu_indices(tensor.in_features, tensor.in_features)
        naive = torch.linalg.svdvals(tensor.matrices()[:, i, j])
        assert (naive[0] - found.singular_values[0]).abs() > 1e-6


@given(layers)
def test_components_are_orthonormal_forms_that_add_up_to_the_layer(layer):
    tensor = BilinearTensor.of(layer)
    found = hosvd(tensor)
    forms = [found.component(s) for s in range(len(found.outputs))]
    gram = torch.tensor([[a.inner(b).item() for a in forms] for b in forms]).double()
    # A form is divided by its size, and so is its rounding.
    rounding = 1e-13 * sizes_of(tensor) ** 2 / found.singular_values.outer(found.singular_values)
    assert ((gram - torch.eye(len(forms))).abs() <= rounding + 1e-12).all()
    x = torch.randn(5, layer.in_features).double()
    along = torch.stack([form(x) for form in forms], 1) * found.singular_values
    y = along @ found.outputs + x @ tensor.linear.T + tensor.constant
    torch.testing.assert_close(y, layer(x), **CLOSE)


@given(layers, st.integers(0, 5))
def test_truncation_has_the_error_it_says_and_is_a_layer(layer, k):
    tensor = BilinearTensor.of(layer)
    found = hosvd(tensor)
    k = min(k, len(found.outputs))
    cut = found.truncate(k)
    error = (cut.matrices() - tensor.matrices()).norm()
    torch.testing.assert_close(found.error(k), error, atol=1e-7, rtol=0)
    dropped = torch.linalg.svdvals(tensor.matrices().flatten(1))[k:].norm()
    torch.testing.assert_close(found.error(k), dropped, atol=1e-7, rtol=0)
    x = torch.randn(5, layer.in_features).double()
    torch.testing.assert_close(cut.as_layer(layer)(x), cut(x), **CLOSE)
    torch.testing.assert_close(found.truncate(len(found.outputs))(x), layer(x), **CLOSE)


@given(layers, st.sampled_from(["value", "pairs", "activation"]), st.integers(0, 4), st.booleans())
def test_interactions_add_up_and_what_is_dropped_is_the_exact_error(layer, by, count, each):
    tensor = BilinearTensor.of(layer)
    whole = hosvd(tensor).interactions()
    x = torch.randn(6, layer.in_features).double()
    torch.testing.assert_close(whole.tensor()(x), layer(x), **CLOSE)
    assert whole.error < 1e-7
    along = whole.activations(x)
    y = along @ whole.outputs[whole.components] + x @ tensor.linear.T + tensor.constant
    torch.testing.assert_close(y, layer(x), **CLOSE)

    kept = whole.keep(count, by, per_component=each, x=x if by == "activation" else None)
    _, sizes = whole.components.unique(return_counts=True)
    expected = sizes.clamp_max(count).sum() if each else min(count, len(whole))
    assert len(kept) == expected
    error = (kept.tensor().matrices() - tensor.matrices()).norm()
    torch.testing.assert_close(kept.error, error, atol=1e-7, rtol=0)
    if by == "value" and not each:
        least = whole.values.abs().sort().values[: len(whole) - len(kept)].norm()
        torch.testing.assert_close(kept.error, least, atol=1e-7, rtol=0)
    torch.testing.assert_close(kept.tensor().as_layer(layer)(x), kept.tensor()(x), **CLOSE)


def test_pairs_take_both_signs_in_turn_and_activation_asks_the_data():
    layer = seeded(20, 3, hidden=12)
    whole = hosvd(BilinearTensor.of(layer)).interactions([1])
    assert set(whole.components.tolist()) == {1}
    values = whole.values.tolist()
    positive = sorted([v for v in values if v > 0], reverse=True)
    negative = sorted(v for v in values if v < 0)
    assert sorted(whole.keep(4, "pairs").values.tolist()) == sorted(positive[:2] + negative[:2])
    only = whole.keep(len(positive + negative), "value")
    assert len(only) == len(whole)

    vector = whole.vectors[-1]
    found = whole.keep(1, "activation", x=vector[None])
    assert found.vectors[0].equal(vector)


def test_a_convolution_is_truncated_to_a_convolution():
    torch.manual_seed(0)
    conv = BilinearConv2d(3, 4, 3, hidden_channels=5, padding=1, stride=2, bias=True).double()
    x = torch.randn(2, 3, 8, 8).double()
    found = hosvd(BilinearTensor.of(conv))
    whole = found.interactions().tensor().as_layer(conv)
    torch.testing.assert_close(whole(x), conv(x), **CLOSE)
    cut = found.truncate(2).as_layer(conv)
    difference = (conv(x) - cut(x)).permute(1, 0, 2, 3).flatten(1)
    assert torch.linalg.matrix_rank(difference) == 2


def test_a_layer_that_repeats_itself_has_its_rank():
    layer = seeded(10, 2, hidden=4)
    doubled = BilinearTensor.of(layer).with_outputs(torch.tensor([[1.0, 0], [0, 1], [1, 1]]))
    assert len(hosvd(doubled).outputs) == 2
    assert len(hosvd(doubled.with_outputs(torch.zeros(4, 3))).outputs) == 0


def test_a_wide_layer_stays_in_factors():
    """64 outputs of 50,000 inputs: the dense tensor would take 1.3 TB."""
    layer = seeded(50_000, 64, hidden=8)
    found = hosvd(BilinearTensor.of(layer))
    assert len(found.outputs) == 8
    x = torch.randn(3, 50_000, generator=torch.Generator().manual_seed(0)).double()
    terms = found.interactions()
    torch.testing.assert_close(terms.tensor()(x), layer(x), atol=1e-8, rtol=1e-8)


def test_bad_choices_are_refused():
    found = hosvd(BilinearTensor.of(seeded(6, 3)))
    with pytest.raises(ValueError, match="there are 3 components"):
        found.truncate(4)
    with pytest.raises(ValueError, match="there are 3 components"):
        found.component(-1)
    terms = found.interactions(2)
    with pytest.raises(ValueError, match="value, pairs, activation"):
        terms.keep(2, "size")
    with pytest.raises(ValueError, match="missing"):
        terms.keep(2, "activation")
    with pytest.raises(ValueError, match="given"):
        terms.keep(2, "value", x=torch.ones(1, 6))
