"""What is not a number where one is expected is named, never taken for another."""

import numpy as np
import pytest
import torch
from torch import nn

from rlbilinear import (
    BilinearConv2d,
    BilinearLinear,
    BilinearTensor,
    channel_spatial_svd,
    eigenfilters,
    keep_eigenfilters,
    scale_eigenfilters,
)
from rlbilinear.adversarial import attack_curve
from rlbilinear.checks import (
    as_numbers,
    check_finite,
    check_pair,
    check_whole,
    check_whole_each,
    is_whole,
    likeliest,
    undecided,
)
from rlbilinear.classifiers import accuracy
from rlbilinear.composition import group_directions
from rlbilinear.edits.functional import (
    add_bias_map,
    project_input,
    rotation_matrix,
    scale_output,
    scaling_matrix,
)
from rlbilinear.hosvd import hosvd

NAN = float("nan")
NO_NUMBERS = [None, "x", "3", {}, {0: None}, [None], object(), b"x", lambda: 1]
NO_NUMBER = [*NO_NUMBERS, NAN, float("inf"), [], (1, 2), torch.zeros(3)]
NOT_WHOLE = [*NO_NUMBER, 1.5, -1, True]
ACCEPTED = {
    check_whole: [1, np.int64(3), 10**9],
    check_pair: [1, (2, 3), [1, 1], np.int64(2)],
    check_finite: [0, -1.5, np.float32(2), np.array(3.0), torch.tensor(4.0)],
    check_whole_each: [(1, 2), [3], (), np.array([1, 2])],
}
REFUSED = {
    check_whole: [*NOT_WHOLE, 0],
    check_pair: [each for each in NOT_WHOLE if each != (1, 2)] + [(1, 0), (1, 2, 3), (1, "2")],
    check_finite: NO_NUMBER,
    check_whole_each: [None, "12", b"12", 3, {1: 1}, object(), (1, 0), [1.5], [True], ["1"]],
}


@pytest.mark.parametrize("check", ACCEPTED)
def test_what_is_accepted(check):
    for value in ACCEPTED[check]:
        check(width=value)


@pytest.mark.parametrize("check", REFUSED)
def test_what_is_refused_is_named_and_shown(check):
    for value in REFUSED[check]:
        with pytest.raises(ValueError, match=r"^width") as raised:
            check(height=next(iter(ACCEPTED[check])), width=value)
        shown = value[-1] if check is check_whole_each and isinstance(value, tuple) else value
        assert isinstance(value, list) or repr(shown) in str(raised.value)


def test_a_bool_is_no_number():
    assert is_whole(0) and is_whole(np.uint8(1))
    assert not is_whole(True) and not is_whole(np.bool_(True)) and not is_whole(1.0)


def test_numbers_of_many_kinds_are_taken():
    array = np.arange(6.0).reshape(2, 3)
    for given in (array, torch.from_numpy(array), array.tolist()):
        assert torch.equal(as_numbers(given, "x").double(), torch.from_numpy(array))
    flipped = as_numbers(array[::-1], "x")
    assert torch.equal(flipped, torch.from_numpy(array).flip(0))


LAYER = BilinearLinear(6, 4, hidden_features=5, bias=True)
CONV = BilinearConv2d(3, 4, 3, padding=1)
U = torch.ones(4)
DIRECTIONS = {
    "quadratic_form": LAYER.quadratic_form,
    "eigenfilters": lambda u: eigenfilters(CONV, u),
    "scale_eigenfilters": lambda u: scale_eigenfilters(LAYER, u, {0: 0.0}),
    "keep_eigenfilters": lambda u: keep_eigenfilters(LAYER, u, 1),
    "scale_output": lambda u: scale_output(LAYER, u, 0.0),
    "project_input": lambda u: project_input(LAYER, u, 0.0),
    "scaling_matrix": lambda u: scaling_matrix(u, 0.0),
    "rotation_matrix": lambda u: rotation_matrix(u, U),
    "channel_spatial_svd": channel_spatial_svd,
    "add_bias_map": lambda u: add_bias_map(LAYER, u),
}
COUNTS = {
    "QuadraticForm.eigh": LAYER.quadratic_form(U).eigh,
    "QuadraticForm.truncate": LAYER.quadratic_form(U).truncate,
    "QuadraticForm.truncation_error": LAYER.quadratic_form(U).truncation_error,
    "FormFamily.eigh": LAYER.quadratic_forms().eigh,
    "eigenfilters": lambda k: eigenfilters(CONV, U, k),
    "keep_eigenfilters": lambda k: keep_eigenfilters(LAYER, U, k),
    "hosvd": hosvd(BilinearTensor.of(LAYER)).truncate,
}


@pytest.mark.parametrize("ask", DIRECTIONS.values(), ids=DIRECTIONS)
def test_a_direction_that_is_none_is_refused(ask):
    for direction in [*NO_NUMBERS, [], NAN, U * NAN, torch.zeros(2, 2, 2, 2)]:
        with pytest.raises(ValueError, match=r"expected|is of shape"):
            built = ask(direction)
            built(torch.zeros(1, 6))  # where a bias of any shape is built, it fits no output


@pytest.mark.parametrize("ask", COUNTS.values(), ids=COUNTS)
def test_a_count_that_is_none_is_refused(ask):
    """Some take several indices too, and None as all."""
    for count in NOT_WHOLE:
        if np.ndim(count) == 0 and count is not None and not isinstance(count, dict):
            with pytest.raises(ValueError, match=r"whole number|indices|components"):
                ask(count)
    ask(2)


@pytest.mark.parametrize("scale", [scale_output, project_input])
def test_a_factor_that_is_none_is_refused(scale):
    size = 4 if scale is scale_output else 6
    for factor in NO_NUMBER:
        with pytest.raises(ValueError, match="factor must be a finite number"):
            scale(LAYER, torch.ones(size), factor)


def test_factors_and_indices_of_eigenfilters():
    for factors in (None, 0, 1.5, "x", [], (1, 2), object(), torch.zeros(2)):
        with pytest.raises(ValueError, match="expected factors by their index"):
            scale_eigenfilters(LAYER, U, factors)
    for factor in NO_NUMBER:
        with pytest.raises(ValueError, match="the factor of eigenfilter 0 must be a finite number"):
            scale_eigenfilters(LAYER, U, {0: factor})
    for index in ("a", 0.0, None, True, (1,)):
        with pytest.raises(ValueError, match="expected indices, whole numbers from 0"):
            scale_eigenfilters(LAYER, U, {index: 0.0})
    for kept in ([0.0], torch.full((2,), NAN), "ab", [None], [True]):
        with pytest.raises(ValueError, match="expected indices, whole numbers from 0"):
            keep_eigenfilters(LAYER, U, kept)
    for group in ([0.5], ["0"], [None], [True], [4], [-1], []):
        with pytest.raises(ValueError, match="expected different outputs from 0 to 3"):
            group_directions([group], 4)


def test_what_is_no_tensor_or_module_is_refused():
    for x in (None, [0.0] * 6, np.zeros(6)):
        with pytest.raises(TypeError, match="expected a tensor x"):
            LAYER.quadratic_form(U)(x)
    with pytest.raises(TypeError, match="expected a module, got None"):
        add_bias_map(None, U)
    assert isinstance(add_bias_map(nn.Identity(), [1.0, 2.0])(torch.zeros(1, 2)), torch.Tensor)


def test_rows_that_name_a_choice():
    rows = torch.zeros(7, 15)
    rows[1, 3] = NAN
    rows[2, 4] = torch.inf
    rows[3, :5] = -torch.inf
    rows[4] = -torch.inf
    rows[6, 14] = 1.0
    assert undecided(rows).tolist() == [False, True, True, False, True, False, False]
    assert likeliest(rows[[0, 3, 5, 6]]).tolist() == [0, 5, 0, 14]
    with pytest.raises(FloatingPointError, match=r"in 3 of 7 rows \(the first is row 1\)"):
        likeliest(rows)


def test_what_is_not_finite_is_no_right_answer():
    """``argmax`` would take NaN for class 0, which is the label."""
    images, labels = torch.rand(3, 4), torch.zeros(3, dtype=torch.long)

    def broken(x):
        return torch.full((len(x), 2), NAN)

    with pytest.raises(FloatingPointError, match="in 3 of 3 rows"):
        accuracy(broken, images, labels)
    with pytest.raises(FloatingPointError, match="in 3 of 3 rows"):
        attack_curve(broken, images, labels, torch.ones(4), 0, [0.0])
