from dataclasses import replace

import pytest
import torch

from rlbilinear.language import distillation, replacing
from rlbilinear.language.closed_form import convert, input_statistics, mlp_activity
from rlbilinear.language.distillation import Distillation, FadingMLP, distil, faded, fading, regress
from rlbilinear.language.models import layers
from rlbilinear.language.scoring import batched, logits_of, score
from rlbilinear.language.text import windows

HOW = Distillation(
    regression_steps=40, steps=40, batch=4, context=16, evaluate_every=20, learning_rate=3e-3
)


@pytest.fixture
def start(llama, batches):
    return fading(llama, convert(llama, batches))


def divergence_from(original, model, tokens):
    held_out = windows(tokens, 16)[-24:]
    found = score(logits_of(model), batched(held_out, 8, "cpu"), original=logits_of(original))
    return found.kl


def test_a_student_begins_as_the_original(llama, start, batches):
    distillation.set_all_shares(start, 0.0)
    with torch.no_grad():
        torch.testing.assert_close(start(batches[0]).logits, llama(batches[0]).logits)


def test_share_one_is_bilinear_and_shares_between_are_between(llama, start):
    mlp = layers(start)[1].mlp
    x = torch.randn(7, 16)
    with torch.no_grad():
        original, bilinear = mlp.original(x), mlp.bilinear(x)
        for share in (0.0, 0.25, 1.0):
            mlp.share = share
            torch.testing.assert_close(mlp(x), (1 - share) * original + share * bilinear)


def test_regression_brings_every_layer_nearer(llama, tokens, batches):
    found = convert(llama, batches)

    def errors():
        unseen = windows(tokens, 16)[-16:].long()
        losses = []
        with torch.no_grad():
            for index, layer in found.items():
                x = next(mlp_activity(llama, index, [unseen]))
                losses.append(distillation.regression_loss(layer(x), layers(llama)[index].mlp(x)))
        return torch.stack(losses)

    before = errors()
    how = replace(HOW, regression_steps=150, regression_rate=3e-3, batch=8)
    rows = regress(llama, found, tokens, how, progress=False)
    assert (errors() < 0.9 * before).all()
    assert {row["layer"] for row in rows} == {0, 1, 2}


def test_no_token_rules_the_regression():
    """One output that is a thousand times larger counts as much as any other."""
    wanted = torch.ones(10, 4)
    wanted[0] *= 1000
    loss = distillation.regression_loss(0.9 * wanted, wanted)
    assert loss.item() == pytest.approx(0.01, rel=1e-4)


def test_distillation_brings_predictions_nearer(llama, start, tokens):
    distillation.set_all_shares(start, 1.0)
    before = divergence_from(llama, start, tokens)
    how = replace(HOW, steps=120)
    rows = distil(llama, start, tokens, how, held_out=windows(tokens, 16)[-8:], progress=False)
    converted = faded(start, torch.float32)
    assert divergence_from(llama, converted, tokens) < 0.8 * before
    assert rows[0]["share"] == 0 and rows[-1]["share"] == 1
    assert {"held_out_loss", "held_out_kl"} <= rows[-1].keys()
    assert converted.config.bilinear_sizes == {"0": 24, "1": 24, "2": 24}
    assert not any(isinstance(m, FadingMLP) for m in converted.modules())


def test_the_original_is_not_trained(llama, start, tokens):
    before = {name: p.clone() for name, p in llama.state_dict().items()}
    distil(llama, start, tokens, replace(HOW, steps=3), progress=False)
    assert all(torch.equal(p, before[name]) for name, p in llama.state_dict().items())


def test_only_bilinear_layers_are_trained_when_asked(llama, start, tokens):
    distil(llama, start, tokens, replace(HOW, steps=5, train_all=False), progress=False)
    assert torch.equal(start.model.embed_tokens.weight, llama.model.embed_tokens.weight)


class Stop(Exception):
    """Ends a run in the middle."""


def test_a_resumed_run_ends_with_the_same_weights(llama, batches, tokens, tmp_path, monkeypatch):
    replacements = convert(llama, batches)
    how = replace(HOW, steps=6, save_every=0.0)
    whole = fading(llama, replacements)
    distil(llama, whole, tokens, how, progress=False)

    stopped = fading(llama, replacements)
    original = distillation.random_windows

    def until(*arguments):
        if arguments[3] == distillation.FIRST_BATCH + 4:
            raise Stop
        return original(*arguments)

    monkeypatch.setattr(distillation, "random_windows", until)
    with pytest.raises(Stop):
        distil(llama, stopped, tokens, how, run=tmp_path, progress=False)
    monkeypatch.undo()
    resumed = fading(llama, replacements)
    distil(llama, resumed, tokens, how, run=tmp_path, resume=True, progress=False)
    for name, parameter in whole.named_parameters():
        assert torch.equal(parameter, resumed.get_parameter(name)), name


def test_nothing_to_resume_from_is_refused(llama, start, tokens, tmp_path):
    with pytest.raises(ValueError, match="no state to resume from"):
        distil(llama, start, tokens, HOW, run=tmp_path, resume=True, progress=False)


def test_a_state_of_another_model_is_refused(llama, batches, tokens, tmp_path):
    found = convert(llama, batches)
    how = replace(HOW, steps=2)
    distil(llama, fading(llama, found), tokens, how, run=tmp_path, progress=False)
    other = fading(llama, {0: found[0]})
    with pytest.raises(ValueError, match="of another shape"):
        distil(llama, other, tokens, how, run=tmp_path, resume=True, progress=False)


def test_explained_variance_is_that_of_the_outputs(llama, batches):
    statistics = input_statistics(llama, batches)
    methods = replacing.closed_forms(llama, statistics, batches, progress=False)
    found = replacing.explained(llama, methods, batches, skip=1).set_index(["layer", "method"])
    for index, block in enumerate(layers(llama)):
        inputs = torch.cat([x[:, 1:].flatten(0, 1) for x in mlp_activity(llama, index, batches)])
        with torch.no_grad():
            y, given = block.mlp(inputs), methods["least squares"][index](inputs)
        variance = (y - y.mean(0)).square().sum()
        share = 1 - (given - y).square().sum() / variance
        row = found.loc[(index, "least squares")]
        assert row["explained"] == pytest.approx(share.item(), abs=1e-4)
        sizes = (y - y.mean(0)).square().sum(1).sort(descending=True).values
        largest = sizes[: len(sizes) // 20].sum() / variance
        assert row["largest_tokens"] == pytest.approx(largest.item(), rel=1e-4)


def test_least_squares_is_fitted_layer_by_layer_however_many_fit_in_memory(
    llama, batches, monkeypatch
):
    statistics = input_statistics(llama, batches)
    together = replacing.closed_forms(llama, statistics, batches, progress=False)
    monkeypatch.setattr(replacing, "LAYERS_AT_ONCE", 2)
    found = replacing.closed_forms(llama, statistics, batches, progress=False)
    alone = convert(llama, batches, fit="inputs", skip=0)
    x = torch.randn(9, 16)
    for index in statistics:
        with torch.no_grad():
            wanted = together["least squares"][index](x)
            torch.testing.assert_close(found["least squares"][index](x), wanted)
            assert not torch.allclose(alone[index](x), wanted, rtol=1e-3)  # has the first tokens
