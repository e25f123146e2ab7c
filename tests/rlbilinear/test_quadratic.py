import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlbilinear import BilinearLinear, QuadraticForm
from rlbilinear.lanczos import lanczos

CLOSE = {"atol": 1e-10, "rtol": 0}


def make_form(left, right, weight):
    """A pure quadratic form from lists."""
    left, right, weight = (torch.tensor(t).double() for t in (left, right, weight))
    return QuadraticForm(left, right, weight, torch.zeros(left.shape[1]).double(), weight.sum() * 0)


@st.composite
def forms(draw, inputs=None):
    """Random forms, sometimes with unused units and repeated factors."""
    torch.manual_seed(draw(st.integers(0, 2**32)))
    hidden, inputs = draw(st.integers(1, 7)), inputs or draw(st.integers(1, 20))
    left, right = torch.randn(2, hidden, inputs).double()
    if draw(st.booleans()):
        right = left.clone()
    weight = torch.randn(hidden).double() * torch.tensor(
        draw(st.lists(st.booleans(), min_size=hidden, max_size=hidden))
    )
    return QuadraticForm(
        left, right, weight, torch.randn(inputs).double(), torch.randn(()).double()
    )


@given(forms())
def test_value_gradient_and_matrix_agree(form):
    x = torch.randn(3, form.in_features).double().requires_grad_()
    q = sum(
        w * (torch.outer(a, b) + torch.outer(b, a)) / 2
        for w, a, b in zip(form.weight, form.left, form.right, strict=True)
    )
    value = torch.einsum("ni,ij,nj->n", x, q, x) + x @ form.linear + form.constant
    torch.testing.assert_close(form.matrix(), q, **CLOSE)
    torch.testing.assert_close(form(x), value, **CLOSE)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    torch.testing.assert_close(form.gradient(x), gradient, **CLOSE)


@given(forms())
def test_eigenpairs_are_those_of_the_dense_matrix(form):
    values, vectors = form.eigh()
    dense = torch.linalg.eigvalsh(form.matrix())
    dense = dense[dense.abs() > 1e-9]
    torch.testing.assert_close(values.sort().values, dense.sort().values, **CLOSE)
    assert form.rank == len(values) <= min(form.in_features, 2 * len(form.weight))
    assert (values.abs().diff() < 1e-8).all()
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(len(values)).double(), **CLOSE)
    torch.testing.assert_close((vectors.T * values) @ vectors, form.matrix(), **CLOSE)
    assert (vectors.amax(1) > -vectors.amin(1) - 1e-8).all()


@given(forms(), st.integers(0, 20))
def test_truncation_is_the_best_of_its_rank(form, k):
    cut = form.truncate(k)
    assert cut.rank == min(k, form.rank)
    dropped = torch.linalg.eigvalsh(form.matrix()).abs().sort(descending=True).values[k:]
    error = (form.matrix() - cut.matrix()).norm()
    torch.testing.assert_close(error, dropped.norm(), **CLOSE)
    zero = torch.zeros(form.in_features).double()
    torch.testing.assert_close(cut(zero), form(zero), **CLOSE)
    torch.testing.assert_close(cut.gradient(zero), form.gradient(zero), **CLOSE)


@given(forms(inputs=6), forms(inputs=6), st.floats(-3, 3))
def test_sums_products_trace_and_norm(a, b, scale):
    total = a + scale * b
    x = torch.randn(4, 6).double()
    torch.testing.assert_close(total(x), a(x) + scale * b(x), **CLOSE)
    torch.testing.assert_close(total.matrix(), a.matrix() + scale * b.matrix(), **CLOSE)
    torch.testing.assert_close(total.trace, total.matrix().trace(), **CLOSE)
    torch.testing.assert_close(total.norm, total.matrix().norm(), **CLOSE)
    torch.testing.assert_close(a.inner(b), (a.matrix() * b.matrix()).sum(), **CLOSE)


@given(forms(), st.integers(0, 20))
def test_truncation_error_is_that_of_the_dense_matrices(form, k):
    error = form.truncation_error(k)
    difference = form.matrix() - form.truncate(k).matrix()
    assert error.frobenius == pytest.approx(difference.norm().item(), abs=1e-10)
    spectral = torch.linalg.matrix_norm(difference, 2).item()
    assert error.spectral == pytest.approx(spectral, abs=1e-10)
    assert form.truncation_error(form.rank) == (0, 0)


@given(forms(inputs=6), forms(inputs=6))
def test_cosine_and_difference(a, b):
    x = torch.randn(4, 6).double()
    torch.testing.assert_close((a - b)(x), a(x) - b(x), **CLOSE)
    torch.testing.assert_close((-a)(x), -a(x), **CLOSE)
    if a.rank and b.rank:
        dense = torch.nn.functional.cosine_similarity(*(f.matrix().flatten() for f in (a, b)), 0)
        torch.testing.assert_close(a.cosine(b), dense, **CLOSE)
        torch.testing.assert_close(a.cosine(-2.0 * a), -torch.ones(()).double(), **CLOSE)
    assert torch.isnan((0.0 * a).cosine(b))


def test_inner_products_of_many_units_are_those_of_few():
    torch.manual_seed(0)
    few, many = (BilinearLinear(6, 1, hidden_features=h).double() for h in (3, 40))
    a, b = (layer.quadratic_form(torch.ones(1)) for layer in (few, many))
    for one, other in ((a, b), (b, b), (a, a)):
        expected = (one.matrix() * other.matrix()).sum()
        torch.testing.assert_close(one.inner(other), expected, **CLOSE)


@given(forms(), st.integers(1, 9), st.booleans())
def test_change_of_basis_is_exact_with_biases(form, new, moved):
    matrix = torch.randn(form.in_features, new).double()
    offset = torch.randn(form.in_features).double() if moved else None
    pulled = form.pullback(matrix, offset)
    z = torch.randn(3, new).double()
    x = z @ matrix.T + (0 if offset is None else offset)
    torch.testing.assert_close(pulled(z), form(x), atol=1e-9, rtol=1e-12)
    expected = matrix.T @ form.matrix() @ matrix
    torch.testing.assert_close(pulled.matrix(), expected, atol=1e-9, rtol=1e-12)
    restricted = form.restrict(matrix.T)
    torch.testing.assert_close(restricted(z), form(z @ matrix.T), atol=1e-9, rtol=1e-12)
    assert restricted.rank <= min(new, form.rank)


@given(forms())
def test_the_gradient_halfway_is_exact_for_a_difference(form):
    a, b = torch.randn(2, form.in_features).double()
    step = form.gradient((a + b) / 2) @ (b - a)
    torch.testing.assert_close(step, form(b) - form(a), atol=1e-9, rtol=0)


@given(forms())
def test_contributions_add_up_to_the_quadratic_part(form):
    x = torch.randn(3, form.in_features).double()
    total = form.eigh().contributions(x).sum(-1) + x @ form.linear + form.constant
    torch.testing.assert_close(total, form(x), **CLOSE)


def test_rank_with_a_tolerance_counts_what_is_above_a_share_of_the_largest():
    basis = torch.linalg.qr(torch.randn(9, 4, generator=torch.Generator().manual_seed(0))).Q.T
    form = make_form(basis.tolist(), basis.tolist(), [5, -1, 0.04, 1e-9])
    assert [form.numerical_rank(t) for t in (0, 1e-6, 0.01, 0.1, 0.5, 1)] == [4, 3, 2, 2, 1, 0]
    assert form.rank == 4
    with pytest.raises(ValueError, match="tolerance from 0 to 1, got 2"):
        form.numerical_rank(2)


def test_an_affine_form_has_no_quadratic_part():
    form = QuadraticForm.affine(torch.tensor([1.0, -2.0]), 0.5)
    assert form(torch.tensor([3.0, 1.0])) == 1.5
    assert (form.rank, form.norm, form.trace) == (0, 0, 0)
    assert form.truncation_error(0) == (0, 0)


def test_lanczos_finds_what_the_exact_route_does():
    torch.manual_seed(0)
    for inputs, hidden, bias in ((60, 100, True), (300, 10, False), (50, 20, False)):
        layer = BilinearLinear(inputs, 3, hidden_features=hidden, bias=bias)
        form = layer.quadratic_form(torch.randn(3))
        for k in (0, 1, 9):
            exact, krylov = (form.eigh(k, method=method) for method in ("exact", "lanczos"))
            torch.testing.assert_close(krylov.values, exact.values, **CLOSE)
            torch.testing.assert_close(krylov.vectors, exact.vectors, atol=1e-8, rtol=0)
            single = form.eigh(k, method="lanczos", dtype=torch.float32)
            torch.testing.assert_close(single.values, krylov.values.float())
        again = form.eigh(9, method="lanczos")
        assert torch.equal(again.vectors, krylov.vectors)


def test_lanczos_is_chosen_for_few_pairs_of_many(monkeypatch):
    monkeypatch.setattr("rlbilinear.quadratic.CORES_BELOW", 64)
    used = []
    monkeypatch.setattr(QuadraticForm, "_lanczos", lambda form, k, dtype: used.append(k))
    form = BilinearLinear(64, 1, hidden_features=32).quadratic_form(torch.ones(1))
    form.eigh(4)
    form.eigh(5)
    form.eigh()
    form.eigh(4, method="exact")
    BilinearLinear(64, 1, hidden_features=31).quadratic_form(torch.ones(1)).eigh(4)
    assert used == [4]


@pytest.mark.parametrize("sizes", [(80, 100), (300, 40), (400, 40)])
def test_few_pairs_of_a_large_core_come_from_lanczos_on_it(sizes, monkeypatch):
    """The core is the matrix itself, of all inputs, or of what the factors span."""
    monkeypatch.setattr("rlbilinear.factors.KRYLOV_FROM", 80)
    torch.manual_seed(0)
    form = BilinearLinear(sizes[0], 2, hidden_features=sizes[1]).quadratic_form(torch.randn(2))
    exact = form.eigh(5, method="exact")
    used = []
    monkeypatch.setattr(
        "rlbilinear.factors.lanczos", lambda *a, **k: used.append(a[1:]) or lanczos(*a, **k)
    )
    found = form.eigh(5)
    rounded = form.eigh(5, dtype=torch.float32)
    form.eigh(6)
    form.eigh()
    form.eigh(5, method="exact")
    assert used == [(80, 5)] * 2
    torch.testing.assert_close(found.values, exact.values, **CLOSE)
    torch.testing.assert_close(found.vectors, exact.vectors, atol=1e-8, rtol=0)
    assert rounded.vectors.dtype == torch.float32
    torch.testing.assert_close(rounded.values.double(), exact.values, atol=1e-6, rtol=0)


def test_cores_are_added_up_in_chunks(monkeypatch):
    torch.manual_seed(0)
    form = BilinearLinear(9, 2, hidden_features=23).quadratic_form(torch.randn(2))
    monkeypatch.setattr("rlbilinear.factors.CHUNK", 5)
    values = torch.linalg.eigvalsh(form.matrix())
    torch.testing.assert_close(form.eigh().values.sort().values, values, **CLOSE)


def test_boolean_gates():
    """The bilinear layers that compute AND, XOR and OR on {0, 1}, from their known matrices."""
    conjunction = make_form([[1, 0]], [[0, 1]], [1])
    assert conjunction.matrix().tolist() == [[0, 0.5], [0.5, 0]]
    assert conjunction.eigh().values.tolist() == pytest.approx([0.5, -0.5], abs=1e-12)

    exclusive = make_form([[1, -1]], [[1, -1]], [1])
    assert exclusive.matrix().tolist() == [[1, -1], [-1, 1]]
    values, vectors = exclusive.eigh()
    assert values.tolist() == pytest.approx([2], abs=1e-12)
    assert vectors[0].tolist() == pytest.approx([math.sqrt(0.5), -math.sqrt(0.5)])

    either = exclusive + conjunction
    assert either.matrix().tolist() == [[1, -0.5], [-0.5, 1]]
    assert either.eigh().values.tolist() == pytest.approx([1.5, 0.5], abs=1e-12)

    inputs = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]).double()
    assert conjunction(inputs).tolist() == [0, 0, 0, 1]
    assert exclusive(inputs).tolist() == [0, 1, 1, 0]
    assert either(inputs).tolist() == [0, 1, 1, 1]


def test_a_single_unit_has_the_known_eigenpairs():
    torch.manual_seed(0)
    w, v = torch.randn(2, 50).double()
    form = QuadraticForm(w[None], v[None], torch.ones(1).double(), 0 * w, torch.zeros(()).double())
    values, vectors = form.eigh()
    product, dot = w.norm() * v.norm(), w @ v
    for sign in (1, -1):
        value = (dot + sign * product) / 2
        vector = w / w.norm() + sign * v / v.norm()
        i = (values - value).abs().argmin()
        torch.testing.assert_close(values[i], value, **CLOSE)
        torch.testing.assert_close((vectors[i] @ vector).abs(), vector.norm(), **CLOSE)
    assert form.rank == 2


def test_tied_eigenvalues_are_ordered_by_sign_whatever_the_rounding():
    for seed in range(20):
        torch.manual_seed(seed)
        basis = torch.linalg.qr(torch.randn(30, 8).double()).Q.T
        ones = torch.ones(4).double()
        form = QuadraticForm(basis[:4], basis[4:], ones, 0 * basis[0], ones[0] * 0)
        expected = torch.tensor([0.5] * 4 + [-0.5] * 4).double()
        torch.testing.assert_close(form.eigh().values, expected, **CLOSE)


def test_forms_that_cancel_have_rank_zero():
    torch.manual_seed(0)
    form = BilinearLinear(40, 1, hidden_features=6).quadratic_form(torch.ones(1))
    nothing = form + -1.0 * form
    assert nothing.rank == 0
    assert nothing.eigh().vectors.shape == (0, 40)
    assert nothing.truncate(3)(torch.ones(40)) == 0
    assert (0.0 * form).norm == 0


def test_very_wide_layers_stay_in_factors():
    """200,000 inputs: the dense form would take 320 GB."""
    layer = BilinearLinear(200_000, 3, hidden_features=4)
    form = layer.quadratic_form(torch.tensor([1.0, -2.0, 0.5]))
    values, vectors = form.eigh()
    assert len(values) == 8
    x = torch.randn(5, 200_000, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(((x @ vectors.T) ** 2) @ values, form(x), atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(form.trace, values.sum(), **CLOSE)
    torch.testing.assert_close(form.norm, values.norm(), **CLOSE)


def test_unused_hidden_units_are_skipped():
    layer = BilinearLinear(30, 10).double()
    assert layer.quadratic_form(torch.eye(10)[3]).rank == 2


def test_values_follow_the_dtype_of_the_input():
    form = BilinearLinear(5, 2, bias=True).quadratic_form(torch.ones(2))
    x = torch.ones(3, 5)
    assert form(x).dtype == torch.float32
    assert form.gradient(x).dtype == torch.float32
    assert form.eigh().values.dtype == torch.float64
    torch.testing.assert_close(form(x).double(), form(x.double()), atol=1e-5, rtol=1e-5)


def test_bad_input_is_refused():
    form = make_form([[1, 0]], [[0, 1]], [1])
    with pytest.raises(ValueError, match=r"\(\.\.\., 2\)"):
        form(torch.ones(3))
    with pytest.raises(ValueError, match="floating-point"):
        form(torch.ones(2).long())
    with pytest.raises(ValueError, match="k must be a whole number, 0 or more"):
        form.eigh(-1)
    with pytest.raises(ValueError, match=r"float64 or torch.float32, got torch.int64"):
        form.eigh(dtype=torch.int64)
    with pytest.raises(ValueError, match=r"choose from auto, exact, lanczos"):
        form.eigh(method="power")
    with pytest.raises(ValueError, match="expected a k"):
        form.eigh(method="lanczos")
    with pytest.raises(ValueError, match="k must be a whole number, 0 or more"):
        form.truncation_error(-1)
    with pytest.raises(ValueError, match=r"matrix \(2, new\), got \(3, 2\)"):
        form.pullback(torch.ones(3, 2))
    with pytest.raises(ValueError, match=r"offset \(2,\), got \(3,\)"):
        form.pullback(torch.ones(2, 2), torch.ones(3))
    with pytest.raises(ValueError, match=r"\(k, 2\), got \(2, 3\)"):
        form.restrict(torch.ones(2, 3))
    with pytest.raises(ValueError, match="2 and 3 inputs"):
        form + make_form([[1, 0, 0]], [[0, 1, 0]], [1])
    with pytest.raises(ValueError, match="expected left"):
        QuadraticForm(form.left, form.right, form.left, form.linear, form.constant)
