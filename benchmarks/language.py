"""Language layers: closed-form conversion, eigenvectors of many directions, and forward passes."""

from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from rlbilinear.benchmarks.measure import Comparison, measure, measure_in_turns
from rlbilinear.gaussian import Gaussian
from rlbilinear.language.bilinear_models import with_bilinear
from rlbilinear.language.closed_form import quadratic, to_bilinear
from rlbilinear.language.models import layers
from rlbilinear.language.scoring import logits_of
from rlbilinear.layers import BilinearLinear

WIDTH, HIDDEN, LAYERS = 576, 1536, 30
"""Of SmolLM2-135M."""
DIRECTIONS, PAIRS, EIGENVECTORS_TIMES = (1, 100), 16, 50
CONVERSION_SECONDS = 30.0
TOKENS = 512


def comparisons() -> Iterator[Comparison]:
    """Measure layers of SmolLM2's sizes with random weights, with what is asked of each."""
    torch.manual_seed(0)
    yield from map(_directions, DIRECTIONS)
    model = _model(LAYERS)
    converted: dict[int, BilinearLinear] = {}

    def convert() -> None:
        gaussian = Gaussian(torch.zeros(WIDTH).double(), torch.eye(WIDTH).double())
        for index, block in enumerate(layers(model)):
            converted[index] = to_bilinear(quadratic(block.mlp, gaussian)).float()

    cost = measure(convert, repeats=1)
    yield Comparison(
        f"closed form of {LAYERS} layers, {WIDTH} -> {HIDDEN}",
        cost,
        target=f"at most {CONVERSION_SECONDS:g} s",
        met=cost.seconds <= CONVERSION_SECONDS,
    )
    x = torch.randn(TOKENS, WIDTH)
    yield _as_fast("an MLP's forward pass", converted[0], layers(model)[0].mlp, x)
    tokens = torch.randint(100, (1, TOKENS))
    bilinear = logits_of(with_bilinear(model, converted))
    yield _as_fast("a model's forward pass", bilinear, logits_of(model), tokens)


def _directions(count: int) -> Comparison:
    layer = BilinearLinear(WIDTH, WIDTH, hidden_features=HIDDEN)
    directions = torch.randn(count, WIDTH).double()

    def dense() -> None:
        w, v = layer.left.weight.double(), layer.right.weight.double()
        assert layer.down is not None
        outer = torch.stack([(w.T * row) @ v for row in layer.down.weight.double()])
        for matrix in torch.tensordot(directions, outer, 1):
            torch.linalg.eigh((matrix + matrix.T) / 2)

    with torch.no_grad():
        ours = measure(lambda: layer.quadratic_forms(directions).eigh(PAIRS), repeats=3)
        other = measure(dense, repeats=1)
    return Comparison(
        f"{PAIRS} eigenvectors, output directions: {count}, {WIDTH} -> {HIDDEN}",
        ours,
        "dense tensor, eigh",
        other,
        f"{EIGENVECTORS_TIMES} times faster",
        other.seconds >= EIGENVECTORS_TIMES * ours.seconds,
    )


def _as_fast(task: str, bilinear: object, swiglu: object, x: Tensor) -> Comparison:
    assert callable(bilinear) and callable(swiglu)
    with torch.no_grad():
        ours, other = measure_in_turns(lambda: bilinear(x), lambda: swiglu(x))
    return Comparison(
        f"{task}, {TOKENS} tokens",
        ours,
        "SwiGLU",
        other,
        "as fast",
        ours.seconds <= other.seconds,
    )


def _model(count: int) -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=100,
            hidden_size=WIDTH,
            intermediate_size=HIDDEN,
            num_hidden_layers=count,
            num_attention_heads=9,
            num_key_value_heads=3,
        )
    ).eval()
