import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlbilinear import BilinearLinear
from rlbilinear.adversarial import (
    attack_curve,
    quadratic_masks,
    singular_directions,
    without_directions,
)

CLOSE = {"atol": 1e-9, "rtol": 0}


def class_forms(layer):
    return [layer.quadratic_form(row) for row in torch.eye(layer.out_features)]


@given(st.integers(0, 2**32), st.integers(1, 3), st.booleans())
def test_a_mask_excites_its_own_eigenvector_alone(seed, per_class, embedded):
    torch.manual_seed(seed)
    layer = BilinearLinear(20, 4, hidden_features=15, bias=True)
    embedding = torch.randn(20, 30).double() if embedded else None
    forms = class_forms(layer)
    found = quadratic_masks(forms, per_class, embedding=embedding)
    assert found.classes.tolist() == [c for c in range(4) for _ in range(per_class)]
    torch.testing.assert_close(found.masks.norm(dim=1), torch.ones(4 * per_class).double(), **CLOSE)
    for c, form in enumerate(forms):
        values = torch.linalg.eigvalsh(form.matrix()).flip(0)[:per_class]
        torch.testing.assert_close(found.values[found.classes == c], values, **CLOSE)
    inner = quadratic_masks(forms, per_class).masks
    excited = found.vectors @ inner.T
    torch.testing.assert_close(excited, excited.diag().diag(), **CLOSE)
    # It is the smallest such vector: it lies in the span of the eigenvectors.
    rest = without_directions(inner, singular_directions(found.vectors))
    torch.testing.assert_close(rest, torch.zeros_like(rest), **CLOSE)
    if embedding is not None:
        mapped = torch.nn.functional.normalize(inner @ embedding, dim=1)
        torch.testing.assert_close(found.masks, mapped, **CLOSE)
    assert found.of(3, per_class - 1).equal(found.masks[-1])
    with pytest.raises(ValueError, match="no mask for number"):
        found.of(3, per_class)


def test_forms_without_positive_eigenvalues_give_no_mask():
    layer = BilinearLinear(6, 2).double()
    with torch.no_grad():
        layer.right.weight.copy_(-layer.left.weight)
    forms = class_forms(layer)
    with pytest.raises(ValueError, match="no form has a positive eigenvalue"):
        quadratic_masks(forms)
    found = quadratic_masks([*forms, -1.0 * forms[0]], 5)
    assert found.classes.tolist() == [2]


def test_bad_input_is_refused():
    form = BilinearLinear(6, 1).quadratic_form(torch.ones(1))
    with pytest.raises(ValueError, match="no form"):
        quadratic_masks([])
    with pytest.raises(ValueError, match="per_class must be a whole number, 1 or more; got 0"):
        quadratic_masks([form], 0)
    with pytest.raises(ValueError, match=r"embedding \(6, inputs\)"):
        quadratic_masks([form], embedding=torch.zeros(5, 9))
    with pytest.raises(ValueError, match="finite matrix"):
        singular_directions(torch.full((2, 2), torch.nan))
    with pytest.raises(ValueError, match="expected a mask"):
        attack_curve(torch.nn.Identity(), torch.ones(3, 4), torch.zeros(3), torch.zeros(4), 0, [1])


def test_removing_singular_directions_blinds_a_linear_map():
    torch.manual_seed(0)
    linear = torch.randn(5, 30).double()
    x = torch.randn(7, 30).double()
    directions = singular_directions(linear)
    assert directions.shape == (5, 30)
    blind = without_directions(x, directions)
    torch.testing.assert_close(blind @ linear.T, torch.zeros(7, 5).double(), **CLOSE)
    _, sizes, _ = torch.linalg.svd(linear)
    for k in range(5):
        left = torch.linalg.matrix_norm(without_directions(linear, directions[:k]), 2)
        torch.testing.assert_close(left, sizes[k], **CLOSE)


def test_attack_curve_against_a_classifier_known_in_closed_form():
    """Two classes, ``logits = (x_0, 0)``: the mask -e_0 of size s flips what lies in (0, s)."""
    images = torch.tensor([[0.5, 0], [1.5, 0], [2.5, 0], [-1.0, 0]]).double()
    labels = torch.tensor([0, 0, 0, 1])

    def predict(x):
        return torch.stack([x[:, 0], 0 * x[:, 0]], 1)

    mask = torch.tensor([-3.0, 0]).double()
    curve = attack_curve(predict, images, labels, mask, 1, [0, 1, 2, 3, -2], repeats=3)
    assert curve.masked.tolist() == [1, 0.75, 0.5, 0.25, 0.75]
    assert curve.towards.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1, 0])
    assert curve.noisy.shape == (3, 5) and (curve.noisy[:, 0] == 1).all()
    again = attack_curve(predict, images, labels, mask, 1, [0, 1, 2, 3, -2], repeats=3)
    assert again.noisy.equal(curve.noisy)
