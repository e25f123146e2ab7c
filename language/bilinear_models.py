"""Llama-class models some of whose MLPs are bilinear, as models that ``from_pretrained`` loads."""

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from rlbilinear.language.extra import require
from rlbilinear.layers import BilinearLinear

require()

from transformers import (  # noqa: E402
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

KINDS: dict[type[PreTrainedModel], type] = {
    LlamaForCausalLM: LlamaConfig,
    MistralForCausalLM: MistralConfig,
    Qwen2ForCausalLM: Qwen2Config,
}
"""Classes of models that have a bilinear variant."""


def _variant(base: type[PreTrainedModel], base_config: Any) -> type[PreTrainedModel]:
    """Make the classes of a model and of its configuration."""

    class Config(base_config):
        """Adds ``bilinear_sizes``: hidden features of every bilinear layer, by its index."""

        model_type = f"bilinear_{base_config.model_type}"
        bilinear_sizes: dict | None = None

    class Model(base):  # type: ignore[misc,valid-type]
        config_class = Config

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            for index, hidden in (config.bilinear_sizes or {}).items():
                size = config.hidden_size
                self.model.layers[int(index)].mlp = BilinearLinear(
                    size, size, hidden_features=hidden, bias=True
                )

    Config.__name__ = Config.__qualname__ = f"Bilinear{base_config.__name__}"
    Model.__name__ = Model.__qualname__ = f"Bilinear{base.__name__}"
    Model.__doc__ = f"A {base.__name__} some of whose MLPs are `BilinearLinear`."
    return Model


VARIANTS = {base: _variant(base, config) for base, config in KINDS.items()}


def register() -> None:
    """Let ``AutoModelForCausalLM.from_pretrained`` load saved models with bilinear layers."""
    for variant in VARIANTS.values():
        config: Any = variant.config_class
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoModelForCausalLM.register(config, variant, exist_ok=True)


def with_bilinear(
    model: PreTrainedModel, replacements: Mapping[int, BilinearLinear]
) -> PreTrainedModel:
    """Return a model with bilinear layers in place of MLPs; other weights are shared, not copied.

    Args:
        model: of one of `KINDS`, or one of ours.
        replacements: by the layer's index.

    Raises:
        ValueError: a model of another class, or an index out of range.
    """
    variant = VARIANTS.get(type(model)) or type(model)
    if variant not in VARIANTS.values():
        known = ", ".join(base.__name__ for base in KINDS)
        raise ValueError(f"model: expected one of {known}, got a {type(model).__name__}")
    count = model.config.num_hidden_layers
    wrong = [index for index in replacements if not 0 <= index < count]
    if wrong:
        raise ValueError(f"layers: {wrong} out of range; the model has layers 0 to {count - 1}")
    values = {
        k: v for k, v in model.config.to_dict().items() if k not in ("model_type", "architectures")
    }
    sizes = dict(values.pop("bilinear_sizes", None) or {})
    sizes |= {str(index): layer.hidden_features for index, layer in replacements.items()}
    config_class: Any = variant.config_class
    made = _shallow_copy(model)
    made.__class__ = variant
    made.config = config_class(**values, bilinear_sizes=sizes)
    for index, layer in replacements.items():
        made.model.layers[index].mlp = layer
    return made


def _shallow_copy(module: Any) -> Any:
    """Copy the modules, not their tensors."""
    made = copy.copy(module)
    made._parameters = dict(module._parameters)
    made._buffers = dict(module._buffers)
    made._modules = {
        name: _shallow_copy(child) if isinstance(child, nn.Module) else child
        for name, child in module._modules.items()
    }
    return made
