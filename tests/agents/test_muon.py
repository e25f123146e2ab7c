import copy

import pytest
import torch
from torch import nn

from rlbilinear.agents.muon import Muon, orthogonalise


def with_singular_values(rows, columns, values, seed=0):
    generator = torch.Generator().manual_seed(seed)
    left, _ = torch.linalg.qr(torch.randn(rows, len(values), generator=generator))
    right, _ = torch.linalg.qr(torch.randn(columns, len(values), generator=generator))
    return left @ torch.diag(torch.as_tensor(values)) @ right.T


def weight_with_gradient(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight = nn.Parameter(torch.randn(*shape, generator=generator))
    weight.grad = torch.randn(*shape, generator=generator)
    return weight


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "columns"), [(16, 90), (90, 16), (24, 24)])
def test_orthogonalise_is_near_the_polar_factor(rows, columns, dtype):
    rank = min(rows, columns)
    matrix = with_singular_values(rows, columns, torch.logspace(0, -1, rank).tolist())
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalise(matrix.to(dtype)).float()

    values = torch.linalg.svdvals(found)
    assert values.min() > 0.6 and values.max() < 1.3
    turned = u.T @ found @ vt.T  # diagonal: the singular vectors are the matrix's own
    off = turned - turned.diag().diag()
    assert off.abs().max() < (1e-4 if dtype == torch.float32 else 0.05)
    assert (turned.diag() > 0.6).all()
    assert nn.functional.cosine_similarity(found.flatten(), (u @ vt).flatten(), 0) > 0.98


def test_orthogonalise_does_not_depend_on_scale():
    matrix = torch.randn(8, 20, generator=torch.Generator().manual_seed(0))
    small, large = orthogonalise(matrix * 1e-2), orthogonalise(matrix * 1e3)
    assert torch.allclose(small, large, atol=1e-4)


@pytest.mark.parametrize("shape", [(32, 32, 3, 3), (64, 16), (16, 64)])
def test_a_steps_root_mean_square_is_a_fifth_of_the_rate(shape):
    weight = weight_with_gradient(*shape)
    before = weight.detach().clone()
    Muon([weight], lr=0.01, weight_decay=0.0).step()
    size = (weight - before).square().mean().sqrt().item()
    assert size == pytest.approx(0.2 * 0.01, rel=0.15)


def test_a_step_goes_down_the_gradient():
    weight = weight_with_gradient(8, 30)
    before = weight.detach().clone()
    Muon([weight], lr=0.01, weight_decay=0.0).step()
    assert ((weight - before) * weight.grad).sum() < 0


def test_a_convolution_is_stepped_as_a_matrix():
    convolution = weight_with_gradient(8, 4, 3, 3)
    matrix = nn.Parameter(convolution.detach().flatten(1).clone())
    channels_last = nn.Parameter(
        convolution.detach().clone().contiguous(memory_format=torch.channels_last)
    )
    matrix.grad = convolution.grad.flatten(1).clone()
    channels_last.grad = convolution.grad.contiguous(memory_format=torch.channels_last)
    for weight in (convolution, matrix, channels_last):
        Muon([weight]).step()
    assert torch.equal(convolution.flatten(1), matrix)
    assert torch.allclose(convolution, channels_last, atol=1e-6)


def test_weight_decay_is_apart_from_the_gradient():
    weight = weight_with_gradient(4, 6)
    before = weight.detach().clone()
    weight.grad.zero_()
    Muon([weight], lr=0.1, weight_decay=0.5).step()
    assert torch.allclose(weight, before * (1 - 0.1 * 0.5))


def test_momentum_averages_gradients_as_nesterov_does():
    weight = weight_with_gradient(4, 6)
    optimiser = Muon([weight], lr=0.1, momentum=0.9, weight_decay=0.0)
    first, second = weight.grad.clone(), torch.randn(4, 6, generator=torch.manual_seed(5))
    optimiser.step()
    before = weight.detach().clone()
    weight.grad = second
    optimiser.step()
    average = 0.9 * (0.1 * first) + 0.1 * second
    look_ahead = 0.1 * second + 0.9 * average
    step = -0.1 * 0.2 * 6**0.5 * orthogonalise(look_ahead)
    assert torch.allclose(weight - before, step, atol=1e-6)


def test_weights_without_a_gradient_stay():
    weight = nn.Parameter(torch.ones(3, 3))
    Muon([weight]).step()
    assert torch.equal(weight, torch.ones(3, 3))


def test_a_restored_optimiser_goes_on_as_the_first():
    one = weight_with_gradient(6, 10)
    first = Muon([one])
    first.step()
    two = nn.Parameter(one.detach().clone())
    second = Muon([two], lr=123.0)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    one.grad = torch.randn(6, 10, generator=torch.manual_seed(5))
    two.grad = one.grad.clone()
    first.step()
    second.step()
    assert torch.equal(one, two)


def test_an_ill_conditioned_quadratic_is_solved():
    scales = torch.logspace(0, -1.5, 12)[:, None]
    target = torch.randn(12, 8, generator=torch.Generator().manual_seed(1))
    weight = nn.Parameter(torch.zeros(12, 8))
    optimiser = Muon([weight], lr=0.1, weight_decay=0.0)

    def closure():
        optimiser.zero_grad()
        loss = (scales * (weight - target)).square().sum()
        loss.backward()
        return loss

    start = closure().item()
    for step in range(200):
        optimiser.param_groups[0]["lr"] = 0.1 * (1 - step / 200)
        assert optimiser.step(closure).isfinite()
    assert closure() < 0.01 * start


def test_vectors_are_refused():
    with pytest.raises(ValueError, match=r"two axes.*\(5,\)"):
        Muon([nn.Parameter(torch.zeros(5)), nn.Parameter(torch.zeros(2, 2))])
