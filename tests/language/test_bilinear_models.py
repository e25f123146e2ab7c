import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from rlbilinear.language.bilinear_models import with_bilinear
from rlbilinear.language.closed_form import convert
from rlbilinear.language.models import layers
from rlbilinear.language.scoring import logits_of
from rlbilinear.layers import BilinearLinear


def test_other_weights_are_shared_and_the_original_is_as_it_was(llama, batches):
    with torch.no_grad():
        before = logits_of(llama)(batches[0])
        converted = with_bilinear(llama, convert(llama, batches))
        assert torch.equal(logits_of(llama)(batches[0]), before)
        assert not torch.allclose(logits_of(converted)(batches[0]), before)
    assert layers(converted)[0].self_attn.q_proj.weight is layers(llama)[0].self_attn.q_proj.weight
    assert not isinstance(layers(llama)[0].mlp, BilinearLinear)
    assert converted.config.bilinear_sizes == {"0": 24, "1": 24, "2": 24}


def test_layers_are_made_bilinear_step_by_step(llama, batches):
    found = convert(llama, batches)
    first = with_bilinear(llama, {0: found[0]})
    both = with_bilinear(first, {2: found[2]})
    assert both.config.bilinear_sizes == {"0": 24, "2": 24}
    assert [isinstance(block.mlp, BilinearLinear) for block in layers(both)] == [True, False, True]


def test_layers_out_of_range_are_refused(llama, batches):
    with pytest.raises(ValueError, match="0 to 2"):
        with_bilinear(llama, {3: convert(llama, batches)[0]})


def test_other_classes_are_refused():
    model = GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2))
    with pytest.raises(ValueError, match=r"LlamaForCausalLM.*got a GPT2LMHeadModel"):
        with_bilinear(model, {})
