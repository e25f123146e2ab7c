import pytest
import torch

from rlbilinear.edits.functional import span
from rlbilinear.probes.subspaces import (
    candidates,
    component,
    difference_subspace,
    random_subspace,
)


def projector(basis):
    return basis.T @ basis


def test_span_is_an_orthonormal_basis_of_what_is_given():
    rows = torch.tensor([[3.0, 0, 0, 0], [1, 2, 0, 0], [4, 2, 0, 0]])
    basis = span(rows)
    assert basis.shape == (2, 4)
    assert torch.allclose(basis @ basis.T, torch.eye(2).double(), atol=1e-12)
    assert torch.allclose(projector(basis), torch.diag(torch.tensor([1.0, 1, 0, 0])).double())


def test_difference_subspace_is_that_of_the_svd_over_positions():
    torch.manual_seed(0)
    scales = torch.tensor([3.0, 0.1, 5, 1, 0.2])[:, None, None]
    differences = torch.randn(300, 5, 3, 2) * scales + 0.5  # 300: more than one part
    rows = differences.permute(0, 2, 3, 1).reshape(-1, 5).double()
    expected = torch.linalg.svd(rows, full_matrices=False).Vh[:2]
    found = difference_subspace(differences, 2)
    assert torch.allclose(projector(found), projector(expected), atol=1e-10)


def test_difference_subspace_finds_a_planted_direction_in_flat_features():
    torch.manual_seed(0)
    planted = torch.nn.functional.normalize(torch.randn(20), dim=0)
    differences = torch.randn(50, 1) * planted + 1e-4 * torch.randn(50, 20)
    (found,) = difference_subspace(differences, 1).float()
    assert abs(found @ planted) > 0.999


def test_random_subspace_is_orthonormal_and_seeded():
    basis = random_subspace(12, 4, seed=3)
    assert torch.allclose(basis @ basis.T, torch.eye(4).double(), atol=1e-12)
    assert torch.equal(basis, random_subspace(12, 4, seed=3))
    assert not torch.allclose(basis, random_subspace(12, 4, seed=4))


def test_component_of_channels_and_of_whole_maps():
    x = torch.arange(24.0).reshape(2, 3, 2, 2)
    channel = torch.tensor([[0.0, 1, 0]])
    kept = component(x, channel)
    assert torch.equal(kept[:, 1], x[:, 1]) and not kept[:, [0, 2]].any()
    whole = torch.zeros(1, 3, 2, 2)
    whole[0, 2, 1, 0] = 1
    assert torch.equal(component(x, whole), x * whole)
    assert torch.equal(component(x.flatten(1), torch.eye(12)), x.flatten(1))


def test_candidates_name_every_subspace_with_its_rank():
    found = candidates(torch.randn(30, 4, 2, 2), [1, 3, 9], directions={"probe": torch.ones(4)})
    ranks = [(s.name, None if s.basis is None else len(s.basis)) for s in found]
    assert ranks == [
        ("all", None),
        ("probe", 1),
        ("difference", 1),
        ("difference", 3),
        ("random", 1),
        ("random", 3),
    ]
    assert torch.allclose(found[1].basis.abs(), torch.full((1, 4), 0.5).double())


@pytest.mark.parametrize("k", [0, 6])
def test_impossible_ranks_are_refused(k):
    with pytest.raises(ValueError, match="from 1 to 5"):
        random_subspace(5, k, seed=0)
    with pytest.raises(ValueError, match="from 1 to 5"):
        difference_subspace(torch.randn(3, 5), k)
    with pytest.raises(ValueError, match="does not fit"):
        component(torch.zeros(1, 4, 2, 2), torch.eye(5))
