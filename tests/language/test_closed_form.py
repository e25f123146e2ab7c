import pytest
import torch
from transformers import AutoModelForCausalLM

from rlbilinear.approximation import approximate
from rlbilinear.convert import to_module
from rlbilinear.gaussian import estimate_gaussian
from rlbilinear.language.bilinear_models import register, with_bilinear
from rlbilinear.language.closed_form import (
    convert,
    input_statistics,
    mlp_activity,
    quadratic,
    to_bilinear,
)
from rlbilinear.language.models import gated_layer, layers
from rlbilinear.language.scoring import logits_of
from rlbilinear.one_hidden_layer import GatedLinear


def test_statistics_are_those_of_the_inputs_without_the_first_tokens(llama, batches):
    statistics = input_statistics(llama, batches, skip=2)
    assert list(statistics) == [0, 1, 2]
    inputs = torch.cat([x[:, 2:].flatten(0, 1) for x in mlp_activity(llama, 1, batches)])
    mean, covariance = estimate_gaussian(inputs)
    torch.testing.assert_close(statistics[1].mean, mean, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(statistics[1].covariance, covariance, atol=1e-6, rtol=1e-6)


def test_bilinear_layer_of_the_mlps_own_size_is_the_quadratic(llama, batches):
    for index, gaussian in input_statistics(llama, batches).items():
        mlp = layers(llama)[index].mlp
        polynomial = quadratic(mlp, gaussian)
        layer = to_bilinear(polynomial)
        assert layer.hidden_features == 24
        x = gaussian.mean + torch.randn(50, 16, generator=torch.Generator().manual_seed(index))
        wanted = to_module(polynomial, torch.float64)(x.double())
        torch.testing.assert_close(layer(x.double()), wanted, atol=1e-10, rtol=1e-10)


def test_units_without_a_product_keep_two():
    """Where the gate's slope is zero on average, the unit has no product to complete."""
    torch.manual_seed(0)
    gate, value = (torch.nn.Linear(4, 6).double() for _ in range(2))
    down = torch.nn.Linear(6, 3).double()
    with torch.no_grad():
        gate.weight[0], gate.bias[0] = 0.0, 0.0
        gate.weight[1] *= 1e-12
    polynomial = approximate(GatedLinear(gate, value, down, "silu"), 2)
    layer = to_bilinear(polynomial)
    assert layer.hidden_features > 6
    x = torch.randn(40, 4).double()
    torch.testing.assert_close(layer(x), polynomial(x), atol=1e-10, rtol=1e-10)


def test_forms_of_the_bilinear_layer_give_its_outputs(llama, batches):
    layer = to_bilinear(quadratic(layers(llama)[0].mlp, input_statistics(llama, batches)[0]))
    x = torch.randn(20, 16, generator=torch.Generator().manual_seed(0)).double()
    forms = layer.quadratic_forms()
    torch.testing.assert_close(forms(x), layer(x), atol=1e-10, rtol=1e-10)


def test_conversion_is_approximate_in_every_layer(llama, batches):
    """Without fine-tuning the converted model has, in each MLP, `approximate`'s polynomial."""
    converted = with_bilinear(llama, convert(llama, batches))
    for index, gaussian in input_statistics(llama, batches).items():
        polynomial = approximate(gated_layer(layers(llama)[index].mlp), 2, *gaussian)
        x = next(mlp_activity(llama, index, batches))
        torch.testing.assert_close(
            layers(converted)[index].mlp(x), polynomial(x.double()).float(), atol=1e-5, rtol=1e-6
        )


def test_fit_to_real_inputs_has_a_smaller_error_on_them(llama, batches):
    gaussian = input_statistics(llama, batches)[1]
    mlp = layers(llama)[1].mlp
    x = torch.cat([x.flatten(0, 1) for x in mlp_activity(llama, 1, batches)])
    y = mlp(x)
    errors = []
    for inputs in (None, [x]):
        layer = to_bilinear(quadratic(mlp, gaussian, inputs=inputs)).float()
        gate_errors = (layer(x) - y).square().mean()
        errors.append(gate_errors.item())
    assert errors[1] < errors[0]


def test_no_batches_are_refused(llama):
    with pytest.raises(ValueError, match="at least one"):
        input_statistics(llama, [])


def test_other_polynomials_are_refused():
    polynomial = approximate(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU()), 2)
    with pytest.raises(ValueError, match="quadratic of a gated layer"):
        to_bilinear(polynomial)


def test_saved_and_loaded_models_give_the_same_logits(llama, batches, tokenizer, tmp_path):
    register()
    converted = with_bilinear(llama, {i: m for i, m in convert(llama, batches).items() if i != 1})
    converted.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(logits_of(loaded)(batches[0]), logits_of(converted)(batches[0]))
    written = loaded.generate(batches[0][:1, :4], max_new_tokens=5, do_sample=False)
    assert written.shape[1] > 4
