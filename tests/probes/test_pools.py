import numpy as np
import pytest
import torch

from rlbilinear.envs import Maze, observe
from rlbilinear.probes.interventions import Intervention, Resample, activations, logits_under
from rlbilinear.probes.pools import RULES, resample


@pytest.fixture(scope="module")
def mazes():
    starts = [Maze.from_seed(level) for level in range(3)]
    cells = [cell for cell in starts[0].free_cells() if cell not in starts[0].cheese][:4]
    return [starts[0].with_cheese(cell) for cell in cells[:2]] + [
        starts[0].with_cheese(cells[0]).with_mouse(cells[3]),
        *starts[1:],
    ]


@pytest.mark.parametrize("rule", RULES)
def test_only_what_the_rule_allows_is_drawn(mazes, rule):
    kept = [m for m in mazes if any(RULES[rule](m, other) for other in mazes)]
    for seed in range(5):
        drawn = resample(kept, mazes, rule, seed=seed).drawn(len(kept))
        assert all(RULES[rule](m, mazes[i]) for m, i in zip(kept, drawn, strict=True))


def test_the_outputs_are_those_of_the_drawn_mazes(bilinear_agent, mazes):
    how = resample(mazes, mazes, "another cheese cell", seed=3)
    change = Intervention("pool1", how)
    patched = activations(bilinear_agent, observe(mazes), ["pool1"], [change], batch=2)["pool1"]
    pictures = observe([mazes[i] for i in how.drawn(len(mazes))])
    expected = bilinear_agent.activations(pictures, ["pool1"])["pool1"]
    assert torch.allclose(patched, expected, atol=1e-6)


def test_a_function_is_a_rule(mazes):
    drawn = resample(mazes, mazes, lambda maze, other: maze == other).drawn(len(mazes))
    assert [mazes[i] for i in drawn] == mazes


def test_refusals(bilinear_agent, mazes):
    with pytest.raises(ValueError, match="unknown rule 'same'; choose from same cheese cell"):
        resample(mazes, mazes, "same")
    with pytest.raises(ValueError, match=r"nothing of the pool is allowed for observations \[0\]"):
        resample(mazes[:1], mazes[1:2], "same cheese cell")
    with pytest.raises(ValueError, match="expected mazes and a pool, got 0 and 5"):
        resample([], mazes, "same cheese cell")
    how = Resample(observe(mazes), 0, np.ones((2, 5), bool))
    with pytest.raises(ValueError, match=r"expected allowed of shape \(5, 5\), got \(2, 5\)"):
        logits_under(bilinear_agent, observe(mazes), [Intervention("pool1", how)])
