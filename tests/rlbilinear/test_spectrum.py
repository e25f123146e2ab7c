import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlbilinear.spectrum import by_size, fix_signs, sign_gauge


@given(
    st.lists(st.floats(-2, 2), min_size=1, max_size=12),
    st.sampled_from([torch.float64, torch.float32]),
)
def test_the_first_of_the_largest_entries_is_made_positive(entries, dtype):
    row = torch.tensor(entries, dtype=dtype)
    slack = 2.0**-30 if dtype == torch.float64 else 2.0**-17
    largest = row.abs().max()
    first = next(i for i, x in enumerate(row) if abs(x) >= (1 - slack) * largest)
    fixed = fix_signs(torch.stack([row, -row, 0 * row]))
    assert fixed.dtype == dtype
    assert fixed[0, first] == fixed[1, first] == row[first].abs()
    assert torch.equal(fixed[0], fixed[1]) and not fixed[2].any()


@pytest.mark.parametrize("error", [0.0, 1e-12, -1e-12])
def test_entries_of_one_size_but_for_rounding_go_by_their_place(error):
    row = torch.tensor([[0.1, 0.6 + error, -0.6, 0.2], [0.1, -0.6 + error, 0.6, 0.2]])
    assert sign_gauge(row.double()).flatten().tolist() == [1, -1]


@pytest.mark.parametrize("error", [0.0, 3e-12, -3e-12])
def test_values_of_one_size_but_for_rounding_go_by_sign(error):
    values = np.array([[-2.0, -0.7, -0.5 + error, 0.0, 0.5, 2.0 - error]])
    assert by_size(values).tolist() == [[5, 0, 1, 4, 2, 3]]
    single = np.array([-2.0, -0.5 + 1e-7, 0.0, 0.5], dtype=np.float32)
    assert by_size(single).tolist() == [0, 3, 1, 2]
