import pytest
import torch

from rlbilinear.language.bilinear_models import with_bilinear
from rlbilinear.language.bpe import END
from rlbilinear.language.circuits import (
    Circuit,
    contexts,
    eigen_circuit,
    pair_circuit,
    promoted_tokens,
    strongest_tokens,
    validate,
    window_activity,
)
from rlbilinear.language.closed_form import convert
from rlbilinear.language.pretraining import Pretraining, build, pretrain
from rlbilinear.language.reading import open_model
from rlbilinear.language.scoring import score
from rlbilinear.language.text import token_text, windows
from rlbilinear.language.transformer import TransformerConfig
from rlbilinear.language.truncation import truncation_losses

CONFIG = TransformerConfig(300, context=16, width=32, layers=2, heads=2, hidden=48)


@pytest.fixture(scope="module")
def reading(tokens, tokenizer):
    """A small bilinear model that has learned the grammar."""
    model = build(CONFIG, 0)
    how = Pretraining(steps=250, batch=16, learning_rate=1e-2, evaluate_every=250)
    pretrain(model, tokens, windows(tokens, 16)[:8], how, progress=False)
    return open_model(model, tokenizer)


@pytest.fixture(scope="module")
def unseen(tokens):
    return windows(tokens, 16)[-120:]


def test_logit_directions_are_those_of_the_logits(reading):
    """Their product with the normalised stream is the logit, the gain of the norm included."""
    stream = torch.randn(5, 32)
    logits = reading.model.unembedding(reading.model.norm(stream))
    size = stream.square().mean(1, keepdim=True).add(1e-6).rsqrt()
    one, two = reading.token("e"), reading.token("s")
    direction = reading.logit_direction("e", "s").float()
    found = (stream * size) @ direction
    torch.testing.assert_close(found, logits[:, one] - logits[:, two], atol=1e-5, rtol=1e-4)


def test_tokens_alone_go_through_all_earlier_layers(reading):
    x = reading.token_inputs(1, batch=70)
    block = reading.blocks[1]
    stream = reading.blocks[0](reading.model.embedding(torch.tensor([[7]])))
    stream = stream + block.attention(block.attention_norm(stream))
    torch.testing.assert_close(x[7], block.mlp_norm(stream)[0, 0])
    assert x.shape == (300, 32)


def test_tokens_of_llamas_stand_after_the_token_that_begins_texts(llama, tokenizer):
    reading = open_model(llama, tokenizer)
    (first,) = tokenizer(END, add_special_tokens=False)["input_ids"]
    assert reading.first == first
    x = reading.token_inputs(1, torch.tensor([7, 200]))
    kept = {}
    handle = llama.model.layers[1].mlp.register_forward_hook(
        lambda _, arguments, output: kept.update(x=arguments[0])
    )
    llama(torch.tensor([[first, 200]]))
    handle.remove()
    torch.testing.assert_close(x[1], kept["x"][0, 1], atol=1e-5, rtol=1e-5)
    assert reading.token_inputs(1).shape == (300, 16)


@pytest.mark.parametrize("kind", ["ours", "llama"])
def test_a_paused_model_goes_on_to_the_same_logits(kind, reading, llama, tokenizer, unseen):
    """Also with another layer in place, and at chosen places only."""
    opened = reading if kind == "ours" else open_model(llama, tokenizer)
    tokens = unseen[:4].long()
    paused = opened.pause(1, tokens)
    with torch.no_grad():
        torch.testing.assert_close(paused.logits(), opened.logits(tokens), atol=1e-5, rtol=1e-5)
        with opened.edited(1, torch.nn.Identity()):
            whole, edited = opened.logits(tokens), paused.logits(torch.tensor([[3, 9]] * 4))
    torch.testing.assert_close(edited, whole[:, [3, 9]], atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(paused.logits(), opened.logits(tokens), atol=1e-5, rtol=1e-5)


def test_bytes_that_are_no_character_are_shown_as_bytes(tokenizer):
    (e, *rest) = tokenizer("é", add_special_tokens=False)["input_ids"]
    assert [token_text(tokenizer, token) for token in (e, *rest)] == ["\\xc3", "\\xa9"]
    assert token_text(tokenizer, tokenizer("t")["input_ids"][0]) == "t"


def test_a_circuits_activity_is_its_share_of_the_output(reading, unseen):
    """All eigenvectors together are all of the direction's quadratic part."""
    direction = torch.randn(32, generator=torch.Generator().manual_seed(0)).double()
    circuit = eigen_circuit(reading, 1, direction, "all", k=32)
    x = next(iter(reading.mlp_inputs(1, [unseen.long()])))[1].double()
    wanted = reading.mlp(1).double()(x) @ direction
    reading.mlp(1).float()
    torch.testing.assert_close(circuit.activity(x), wanted, atol=1e-8, rtol=1e-8)
    activity = window_activity(reading, circuit, unseen, batch=50).double()
    torch.testing.assert_close(activity, wanted, atol=1e-3, rtol=1e-3)


def test_ablation_removes_the_circuit_and_nothing_else(reading, unseen):
    direction = reading.logit_direction("e")
    circuit = eigen_circuit(reading, 1, direction, "e", k=2)
    mlp = reading.mlp(1).double()
    x = torch.randn(30, 32).double()
    with torch.no_grad():
        change = circuit.scaled(mlp, 0.0)(x) - mlp(x)
    reading.mlp(1).float()
    wanted = -circuit.activity(x)[:, None] * direction / (direction @ direction)
    torch.testing.assert_close(change, wanted, atol=1e-9, rtol=1e-9)


def test_pairs_are_what_the_form_does_in_their_plane(reading):
    direction, one, two = torch.randn(3, 32, generator=torch.Generator().manual_seed(1)).double()
    circuit = pair_circuit(reading, 0, direction, torch.stack([one, two]), "pair")
    form = reading.mlp(0).quadratic_form(direction)
    x = 0.7 * one - 1.3 * two
    matrix = form.matrix()
    torch.testing.assert_close(circuit.activity(x), x @ matrix @ x)
    across = torch.randn(32).double()
    across -= circuit.vectors.T @ (circuit.vectors @ across)
    assert circuit.activity(across).abs() < 1e-12


def test_signs_choose_eigenvectors(reading):
    direction = reading.logit_direction("e")
    assert (eigen_circuit(reading, 0, direction, "", k=5, sign=1).values > 0).all()
    assert (eigen_circuit(reading, 0, direction, "", k=5, sign=-1).values < 0).all()


def test_strongest_tokens_are_those_farthest_along(reading):
    circuit = eigen_circuit(reading, 0, reading.logit_direction("e"), "e")
    along = (reading.token_inputs(0).double() @ circuit.vectors[0]).tolist()
    best = max(range(300), key=along.__getitem__)
    assert strongest_tokens(reading, circuit, 3)[0]["positive"][0] == reading.tokenizer.decode(best)


def test_promoted_tokens_are_those_with_the_highest_logits(reading):
    direction = torch.randn(32, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        logits = reading.model.unembedding(reading.model.norm(direction))
    wanted = logits.topk(6).indices
    assert promoted_tokens(reading, direction.double(), 6).tolist() == wanted.tolist()


def test_contexts_show_where_a_circuit_is_most_active(reading, unseen):
    circuit = eigen_circuit(reading, 1, reading.logit_direction("e"), "e", sign=1)
    activity = window_activity(reading, circuit, unseen)[:, 1:]
    found = contexts(reading, circuit, unseen, count=3)
    assert found[0].activity == pytest.approx(activity.max().item())
    assert [context.activity for context in found] == sorted(
        (context.activity for context in found), reverse=True
    )
    assert all(context.text.count("[[") == 1 for context in found)
    least = contexts(reading, circuit, unseen, count=1, sign=-1)[0]
    assert least.activity == pytest.approx(activity.min().item())


def planted(reading, token):
    """The model with one strong term in its last layer: it promotes a token after " the"."""
    (the,) = reading.tokenizer(" the", add_special_tokens=False)["input_ids"]
    direction = reading.logit_direction(token)
    vector = reading.token_inputs(1)[the].double()
    vector = (vector / vector.norm())[None]
    size = 0.1 * direction.norm()
    return Circuit("planted", 1, direction, size[None], vector)


def test_a_planted_circuit_is_validated(reading, unseen):
    circuit = planted(reading, "q")
    targets = torch.tensor([reading.token("q")])
    with reading.edited(1, circuit.scaled(reading.mlp(1), 2.0)):
        result = validate(reading, circuit, unseen[:60], targets, places=30, controls=19)
    assert result.verdict == "validated", result.p
    assert result.p == {0.0: 1 / 20, 2.0: 1 / 20}
    own = result.table[result.table["control"] == ""].set_index("factor")["effect"]
    assert own[0.0] < 0 < own[2.0]
    assert len(result.table) == 2 * 20


def test_a_random_circuit_is_not_validated_but_by_chance(reading, unseen):
    """Of ten circuits that are drawn as half of their controls are, few pass."""
    direction = reading.logit_direction("e")
    passed = 0
    for seed in range(10):
        generator = torch.Generator().manual_seed(100 + seed)
        circuit = eigen_circuit(reading, 1, direction, "random", k=1)
        vector = torch.nn.functional.normalize(torch.randn(1, 32, generator=generator), dim=1)
        random = type(circuit)("random", 1, direction, circuit.values, vector.double())
        targets = torch.tensor([reading.token("e")])
        result = validate(reading, random, unseen[:12], targets, places=8, controls=19, seed=seed)
        passed += result.verdict == "validated"
    assert passed <= 4  # binomial (10, .05): more than 4 has a chance of 6e-5


def test_edits_are_taken_back(reading, unseen):
    before = reading.logits(unseen[:2].long())
    mlp = reading.mlp(0)
    circuit = eigen_circuit(reading, 0, reading.logit_direction("e"), "e")
    with pytest.raises(RuntimeError, match="inside"), reading.edited(0, circuit.scaled(mlp, 0)):
        raise RuntimeError("inside")
    assert torch.equal(reading.logits(unseen[:2].long()), before)


def test_a_converted_llama_is_read_in_the_same_way(llama, batches, tokenizer, unseen):
    converted = open_model(with_bilinear(llama, convert(llama, batches)), tokenizer)
    circuit = eigen_circuit(converted, 2, converted.logit_direction("e"), "e")
    assert window_activity(converted, circuit, unseen[:5]).shape == (5, 16)
    assert converted.token_inputs(0).shape == (300, 16)


def test_layers_that_are_not_bilinear_are_refused(llama, tokenizer, reading):
    with pytest.raises(ValueError, match="layer 0 is a LlamaMLP, not bilinear"):
        open_model(llama, tokenizer).mlp(0)
    with pytest.raises(ValueError, match="expected 0 to 1, got 2"):
        reading.mlp(2)
    with pytest.raises(ValueError, match="a BilinearTransformer or a Llama-class model, got a Lin"):
        open_model(torch.nn.Linear(2, 2), tokenizer)


def test_texts_of_several_tokens_are_refused(reading):
    with pytest.raises(ValueError, match=r"'xyz' is 3 tokens: \['x', 'y', 'z'\]"):
        reading.token("xyz")


def test_fewer_windows_than_places_are_refused(reading, unseen):
    circuit = eigen_circuit(reading, 0, reading.logit_direction("e"), "e")
    with pytest.raises(ValueError, match="5 are fewer than 10 places"):
        validate(reading, circuit, unseen[:5], torch.tensor([1]), places=10)


def test_truncation_ends_at_the_whole_layer(reading, unseen):
    table = truncation_losses(
        reading,
        1,
        unseen[:20],
        components=(1, 8, 31, 64),
        eigenvectors=(1, 32),
        progress=False,
    ).set_index(["kept", "count"])
    whole = score(reading.logits, [unseen[:20].long()]).loss
    assert table.loc[("all", 32), "loss"] == pytest.approx(whole)
    assert table.loc[("eigenvectors", 32), "loss"] == pytest.approx(whole, abs=1e-4)
    assert table.loc[("eigenvectors", 32), "kl"] < 1e-6
    errors = table.loc["components", "error"]
    assert list(errors.index) == [1, 8, 31] and errors.is_monotonic_decreasing
    kl = table.loc["components", "kl"]
    assert kl[31] < kl[1]
