import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch import nn

from rlbilinear import replace_layers
from rlbilinear.layer_subsets import compare_outputs, subsets, sweep_subsets
from rlbilinear.swapping import group_layers, replaceable


@pytest.fixture
def mlp():
    torch.manual_seed(0)
    layers = [nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 8), nn.GELU(), nn.Linear(8, 7), nn.Tanh()]
    return group_layers(nn.Sequential(*layers, nn.Linear(7, 4)).double())


def inputs(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2)).double()


def test_comparison_against_scipy(mlp):
    x, labels = inputs(70, 6), torch.arange(70) % 4
    other = replace_layers(mlp, ["layer1"], 1, x).network
    found = compare_outputs(mlp, other, list(x.split(20)), labels)
    ours, theirs = (each(x).detach() for each in (mlp, other))
    kl = np.mean([entropy(p, q) for p, q in zip(ours.softmax(1), theirs.softmax(1), strict=True)])
    assert found.kl == pytest.approx(kl)
    assert found.accuracy == (theirs.argmax(1) == labels).double().mean().item()
    assert found.agreement == (theirs.argmax(1) == ours.argmax(1)).double().mean().item()
    unexplained = ((ours - theirs) ** 2).mean(0) / ours.var(0, correction=0)
    assert found.r2 == pytest.approx(1 - unexplained.mean().item())
    itself = compare_outputs(mlp, mlp, x)
    assert (itself.kl, itself.agreement, itself.r2) == (0, 1, 1) and np.isnan(itself.accuracy)


def test_outputs_that_are_not_finite_are_no_prediction(mlp):
    x = inputs(50, 6)

    def explodes(batch):
        return mlp(batch).detach().where(batch[:, :1] > 0, torch.nan)

    found = compare_outputs(mlp, explodes, x, torch.zeros(50))
    assert found.finite == (x[:, 0] > 0).double().mean().item() < 1
    assert np.isnan([found.kl, found.agreement, found.r2, found.accuracy]).all()
    assert compare_outputs(mlp, mlp, x).finite == 1


def test_every_subset_is_swept(mlp):
    x = inputs(80, 6)
    layers = replaceable(mlp)
    assert len({*subsets(layers)}) == 7
    table = sweep_subsets(mlp, layers, (1, 2), x, x, torch.zeros(80, dtype=torch.long))
    assert len(table) == 1 + 7 * 2 * 2
    (row,) = table.query("layers == 'layer1+layer3' and degree == 2 and reestimated").itertuples()
    direct = compare_outputs(mlp, replace_layers(mlp, ["layer1", "layer3"], 2, x).network, x)
    assert (row.kl, row.replaced) == (pytest.approx(direct.kl), 2)
    single = table[table.replaced == 1].groupby(["layers", "degree"]).kl
    assert (single.max() == single.min()).all()  # nothing comes before it


def test_bad_arguments_are_named(mlp):
    x = inputs(10, 6)
    with pytest.raises(ValueError, match="labels: expected 10, got 3"):
        compare_outputs(mlp, mlp, x, torch.zeros(3))
    with pytest.raises(ValueError, match="expected outputs"):
        compare_outputs(mlp, mlp[:-1], x)
