import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlbilinear import BilinearConv2d, BilinearLinear, channel_spatial_svd, eigenfilters
from rlbilinear.convolution import as_convolution

CLOSE = {"atol": 1e-10, "rtol": 0}
convs = st.from_type(BilinearConv2d)


@given(convs)
def test_eigenfilters_add_up_to_the_direction_everywhere(conv):
    u = torch.randn(conv.out_channels).double()
    x = torch.randn(2, conv.in_channels, 7, 6).double()
    found = eigenfilters(conv, u)
    expected = torch.einsum("o,nohw->nhw", u, conv(x))
    torch.testing.assert_close(found.total(x), expected, **CLOSE)
    assert found.filters.shape[1:] == conv.left.weight.shape[1:]
    if conv.left.bias is None:
        torch.testing.assert_close(found.maps(x).sum(1), expected, **CLOSE)


@given(convs)
def test_eigenfilters_are_the_eigenvectors_of_the_dense_form(conv):
    u = torch.randn(conv.out_channels).double()
    weight = u if conv.down is None else conv.down.weight[:, :, 0, 0].T @ u
    left, right = conv.left.weight.flatten(1), conv.right.weight.flatten(1)
    dense = torch.einsum("h,hi,hj->ij", weight, left, right)
    dense = (dense + dense.T) / 2
    found = eigenfilters(conv, u)
    rows = found.filters.flatten(1)
    torch.testing.assert_close(rows @ dense, found.values[:, None] * rows, **CLOSE)
    torch.testing.assert_close((found.values**2).sum(), (dense**2).sum(), **CLOSE)


def test_a_map_is_a_value_times_a_squared_response():
    torch.manual_seed(0)
    conv = BilinearConv2d(3, 5, 3, hidden_channels=4, stride=2, padding=1).double()
    found = eigenfilters(conv, torch.randn(5), k=2)
    x = torch.randn(1, 3, 8, 8).double()
    patch = x[0, :, 1:4, 3:6]  # under output position (1, 2) of a padded, stride-2 convolution
    for i in range(2):
        expected = found.values[i] * (found.filters[i] * patch).sum() ** 2
        torch.testing.assert_close(found.maps(x)[0, i, 1, 2], expected, **CLOSE)


def test_float32_layers_decompose_in_float64_and_answer_in_float32():
    torch.manual_seed(0)
    conv = BilinearConv2d(32, 32, 7, padding=3)
    u = torch.randn(32)
    found = eigenfilters(conv, u)
    assert len(found.values) == 64
    assert found.values.dtype == torch.float64
    x = torch.randn(2, 32, 9, 9)
    expected = torch.einsum("o,nohw->nhw", u, conv(x))
    assert found.maps(x).dtype == torch.float32
    torch.testing.assert_close(found.total(x), expected, atol=1e-4, rtol=1e-4)


def test_eigenfilters_refuse_other_layers():
    with pytest.raises(TypeError, match="BilinearConv2d, got Conv2d"):
        eigenfilters(torch.nn.Conv2d(2, 2, 3), torch.ones(2))


@given(st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 4)), st.integers(0, 2**32))
def test_channel_spatial_components_rebuild_the_vector(shape, seed):
    vector = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()
    svd = channel_spatial_svd(vector)
    torch.testing.assert_close(svd.vector(), vector, **CLOSE)
    expected = torch.linalg.svdvals(vector.flatten(1))
    torch.testing.assert_close(svd.singular_values, expected, **CLOSE)
    torch.testing.assert_close(svd.share.sum(), torch.ones(()).double(), **CLOSE)
    error = (vector - svd.vector(1)).norm() ** 2 / vector.norm() ** 2
    torch.testing.assert_close(1 - svd.share[0], error, **CLOSE)
    assert (svd.channels.amax(1) >= -svd.channels.amin(1)).all()


@given(convs)
def test_vector_of_interest_through_channel_patterns_and_eigenfilters(conv):
    """<v, y> = sum_r s_r sum_p maps_r[p] (channels_r . y[p]), the last by eigenfilters."""
    x = torch.randn(2, conv.in_channels, 7, 6).double()
    y = conv(x)
    v = torch.randn(y.shape[1:]).double()
    svd = channel_spatial_svd(v)
    total = sum(
        s * (spatial * eigenfilters(conv, channels).total(x)).sum((1, 2))
        for s, channels, spatial in zip(svd.singular_values, svd.channels, svd.maps, strict=True)
    )
    torch.testing.assert_close(total, (v * y).flatten(1).sum(1), **CLOSE)


def test_rank_one_vector_has_one_component():
    channels, spatial = torch.tensor([1.0, -3.0, 2.0]), torch.arange(6.0).reshape(2, 3)
    svd = channel_spatial_svd(torch.einsum("c,hw->chw", channels, spatial))
    assert svd.singular_values.shape == (1,)
    torch.testing.assert_close(svd.channels[0], -channels.double() / channels.double().norm())
    assert channel_spatial_svd(torch.zeros(3, 2, 2)).maps.shape == (0, 2, 2)


def test_channel_spatial_svd_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"\(channels, height, width\), got \(3, 4\)"):
        channel_spatial_svd(torch.ones(3, 4))
    with pytest.raises(ValueError, match="finite"):
        channel_spatial_svd(torch.full((1, 2, 2), float("inf")))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("hidden", [None, 6])
def test_dense_layer_as_convolution(bias, hidden):
    dense = BilinearLinear(3 * 4 * 5, 7, hidden_features=hidden, bias=bias).double()
    state = torch.random.get_rng_state()
    conv = as_convolution(dense, (3, 4, 5))
    assert torch.equal(torch.random.get_rng_state(), state)
    x = torch.randn(2, 3, 4, 5).double()
    torch.testing.assert_close(conv(x).flatten(1), dense(x.flatten(1)), **CLOSE)
    torch.nn.init.zeros_(conv.left.weight)
    assert dense.left.weight.abs().sum() > 0
    with pytest.raises(ValueError, match="60 inputs"):
        as_convolution(dense, (3, 4, 4))
