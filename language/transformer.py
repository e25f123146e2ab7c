"""A small transformer with bilinear, SwiGLU or ReLU MLPs of the same number of parameters."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from rlbilinear.layers import BilinearLinear
from rlbilinear.one_hidden_layer import GatedLinear

MLP = Literal["bilinear", "swiglu", "relu"]
CONFIG, WEIGHTS = "transformer.json", "transformer.safetensors"


@dataclass(frozen=True)
class TransformerConfig:
    """The sizes of a `BilinearTransformer`."""

    vocabulary: int = 4096
    context: int = 256
    width: int = 192
    layers: int = 6
    heads: int = 6
    hidden: int = 512
    """of a bilinear or SwiGLU MLP; a ReLU MLP has half as much again, and so as many parameters"""
    mlp: MLP = "bilinear"
    tied: bool = True
    """the unembedding is the embedding"""

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit.

        Raises:
            ValueError: they do not.
        """
        if self.mlp not in get_args(MLP):
            raise ValueError(f"mlp: unknown {self.mlp!r}; choose from {', '.join(get_args(MLP))}")
        for name in ("vocabulary", "context", "width", "layers", "heads", "hidden"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}: expected a positive whole number, got {value!r}")
        if self.width % (2 * self.heads):
            raise ValueError(
                f"heads: width {self.width} must be an even number of times {self.heads} heads"
            )


class Attention(nn.Module):
    """Causal self-attention with rotary positions."""

    cosines: Tensor
    sines: Tensor

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.queries_keys_values = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)
        size = config.width // config.heads
        frequencies = 10_000.0 ** (-torch.arange(0, size, 2) / size)
        angles = torch.arange(config.context)[:, None] * frequencies
        angles = torch.cat([angles, angles], 1)
        self.register_buffer("cosines", angles.cos(), persistent=False)
        self.register_buffer("sines", angles.sin(), persistent=False)

    def forward(
        self, x: Float[Tensor, "batch context width"]
    ) -> Float[Tensor, "batch context width"]:
        """Attend."""
        n, length, width = x.shape
        parts = self.queries_keys_values(x).reshape(n, length, 3, self.heads, -1)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(self._rotate(q), self._rotate(k), v, is_causal=True)
        return self.out(found.transpose(1, 2).reshape(n, length, width))

    def _rotate(self, x: Tensor) -> Tensor:
        one, two = x.chunk(2, -1)
        length = x.shape[-2]
        turned = torch.cat([-two, one], -1)
        return x * self.cosines[:length].to(x) + turned * self.sines[:length].to(x)


class Block(nn.Module):
    """Attention and an MLP, each after an RMS norm and added to the residual stream."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.width, eps=1e-6)
        self.attention = Attention(config)
        self.mlp_norm = nn.RMSNorm(config.width, eps=1e-6)
        self.mlp = _mlp(config)

    def forward(
        self, x: Float[Tensor, "batch context width"]
    ) -> Float[Tensor, "batch context width"]:
        """Apply the block."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class BilinearTransformer(nn.Module):
    """A causal language model: RMS norm, rotary attention, and MLPs of the kind in its config.

    Shapes: tokens ``(batch, context)``, logits ``(batch, context, vocabulary)``.

    Raises:
        ValueError: more tokens than its context.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width, eps=1e-6)
        self.unembedding = nn.Linear(config.width, config.vocabulary, bias=False)
        if config.tied:
            self.unembedding.weight = self.embedding.weight
        self.apply(_initialise)
        block: Any
        for block in self.blocks:
            for out in (block.attention.out, _out(block.mlp)):
                nn.init.normal_(out.weight, std=0.02 / (2 * config.layers) ** 0.5)

    def forward(
        self, tokens: Int[Tensor, "batch context"]
    ) -> Float[Tensor, "batch context vocabulary"]:
        """Return the logits of the next token at every position."""
        if tokens.shape[-1] > self.config.context:
            raise ValueError(f"tokens: {tokens.shape[-1]} are more than {self.config.context}")
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return self.unembedding(self.norm(x))

    @torch.no_grad()
    def generate(
        self,
        tokens: Int[Tensor, "batch context"],
        count: int,
        *,
        temperature: float = 0.8,
        seed: int = 0,
    ) -> Int[Tensor, "batch longer"]:
        """Return tokens with ``count`` sampled ones after them."""
        generator = torch.Generator(tokens.device).manual_seed(seed)
        for _ in range(count):
            logits = self(tokens[:, -self.config.context :])[:, -1].float() / temperature
            new = torch.multinomial(logits.softmax(-1), 1, generator=generator)
            tokens = torch.cat([tokens, new], 1)
        return tokens

    def save(self, folder: Path) -> None:
        """Write config and weights into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).write_text(json.dumps(asdict(self.config), indent=2))
        weights = {k: v.cpu().contiguous() for k, v in self.state_dict().items()}
        if self.config.tied:
            del weights["unembedding.weight"]
        save_file(weights, folder / WEIGHTS)


def load_transformer(folder: str | Path, device: str = "cpu") -> BilinearTransformer:
    """Read what `BilinearTransformer.save` wrote, in evaluation mode.

    Raises:
        ValueError: the folder holds none.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{folder} holds no {CONFIG}")
    model = BilinearTransformer(TransformerConfig(**json.loads((folder / CONFIG).read_text())))
    weights = load_file(folder / WEIGHTS)
    if model.config.tied:
        weights["unembedding.weight"] = weights["embedding.weight"]
    model.load_state_dict(weights)
    return model.to(device).eval()


def _mlp(config: TransformerConfig) -> nn.Module:
    width, hidden = config.width, config.hidden
    if config.mlp == "bilinear":
        return BilinearLinear(width, width, hidden_features=hidden)
    if config.mlp == "swiglu":
        gate, value = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        return GatedLinear(gate, value, nn.Linear(hidden, width, bias=False), nn.SiLU())
    wider = round(1.5 * hidden)
    return nn.Sequential(
        nn.Linear(width, wider, bias=False), nn.ReLU(), nn.Linear(wider, width, bias=False)
    )


def _out(mlp: Any) -> nn.Linear:
    out: Any = mlp[-1] if isinstance(mlp, nn.Sequential) else mlp.down
    return out


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
