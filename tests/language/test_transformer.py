from dataclasses import replace

import pytest
import torch

from rlbilinear.language import pretraining
from rlbilinear.language.pretraining import Pretraining, build, pretrain
from rlbilinear.language.text import windows
from rlbilinear.language.transformer import TransformerConfig, load_transformer

SMALL = TransformerConfig(300, context=16, width=16, layers=2, heads=2, hidden=24)
KINDS = ("bilinear", "swiglu", "relu")


@pytest.mark.parametrize("mlp", KINDS)
@pytest.mark.parametrize("tied", [True, False])
def test_kinds_have_as_many_parameters(mlp, tied):
    counts = [
        sum(p.numel() for p in build(replace(SMALL, mlp=kind, tied=tied), 0).parameters())
        for kind in (mlp, "bilinear")
    ]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("mlp", KINDS)
def test_predictions_depend_on_earlier_tokens_only(mlp):
    model = build(replace(SMALL, mlp=mlp), 0)
    one = torch.randint(300, (2, 12), generator=torch.Generator().manual_seed(0))
    two = one.clone()
    two[:, 8:] = 0
    with torch.no_grad():
        torch.testing.assert_close(model(one)[:, :8], model(two)[:, :8])
        assert not torch.allclose(model(one)[:, 8:], model(two)[:, 8:])


def test_attention_sees_distances_not_places():
    """Rotary positions: the same tokens elsewhere attend to one another in the same way."""
    attention = build(SMALL, 0).blocks[0].attention.double()
    q, k = (torch.randn(8).double() for _ in range(2))

    def product(i, j):
        rows = torch.zeros(1, 1, 16, 8).double()
        rows[0, 0, i] = q
        left = attention._rotate(rows)[0, 0, i]
        rows[0, 0, j] = k
        return left @ attention._rotate(rows)[0, 0, j]

    torch.testing.assert_close(product(5, 2), product(12, 9))
    assert not torch.isclose(product(5, 2), product(5, 3))


@pytest.mark.parametrize("tied", [True, False])
def test_saved_models_give_the_same_logits(tied, tmp_path):
    model = build(replace(SMALL, mlp="swiglu", tied=tied), 0).eval()
    model.save(tmp_path)
    tokens = torch.arange(10)[None]
    with torch.no_grad():
        assert torch.equal(load_transformer(tmp_path)(tokens), model(tokens))
    assert (load_transformer(tmp_path).unembedding.weight is model.embedding.weight) is False


def test_sizes_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match="bilinear, swiglu, relu"):
        replace(SMALL, mlp="gelu")
    with pytest.raises(ValueError, match="even number of times 3 heads"):
        replace(SMALL, heads=3)
    with pytest.raises(ValueError, match="layers: expected a positive whole number"):
        replace(SMALL, layers=0)
    with pytest.raises(ValueError, match="17 are more than 16"):
        build(SMALL, 0)(torch.zeros(1, 17, dtype=torch.long))
    with pytest.raises(ValueError, match=r"holds no transformer\.json"):
        load_transformer(tmp_path)


def test_generated_text_is_the_same_for_the_same_seed():
    model = build(SMALL, 0)
    one, two = (model.generate(torch.zeros(1, 1, dtype=torch.long), 20, seed=3) for _ in range(2))
    assert one.shape == (1, 21) and torch.equal(one, two)


HOW = Pretraining(steps=40, batch=8, evaluate_every=20, learning_rate=1e-2)


@pytest.mark.parametrize("mlp", KINDS)
def test_training_lowers_the_held_out_loss(mlp, tokens):
    model = build(replace(SMALL, mlp=mlp), 0)
    rows = pretrain(model, tokens, windows(tokens, 16)[:16], HOW, progress=False)
    scored = [row["held_out_loss"] for row in rows if "held_out_loss" in row]
    assert len(scored) == 3
    assert scored[-1] < 0.8 * scored[0]


class Stop(Exception):
    """Ends a run in the middle."""


def test_a_resumed_run_ends_with_the_same_weights(tokens, tmp_path, monkeypatch):
    how = replace(HOW, steps=6, save_every=0.0)
    held_out = windows(tokens, 16)[:4]
    whole, stopped, resumed = (build(SMALL, 0) for _ in range(3))
    pretrain(whole, tokens, held_out, how, progress=False)
    original = pretraining.random_windows

    def until(*arguments):
        if arguments[3] == 4:
            raise Stop
        return original(*arguments)

    monkeypatch.setattr(pretraining, "random_windows", until)
    with pytest.raises(Stop):
        pretrain(stopped, tokens, held_out, how, run=tmp_path, progress=False)
    monkeypatch.undo()
    pretrain(resumed, tokens, held_out, how, run=tmp_path, resume=True, progress=False)
    for name, parameter in whole.named_parameters():
        assert torch.equal(parameter, resumed.get_parameter(name)), name
