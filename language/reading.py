"""What circuits are read from: a model's residual stream, its bilinear layers and its tokens."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rlbilinear.language.scoring import Logits, logits_of
from rlbilinear.language.transformer import BilinearTransformer
from rlbilinear.layers import BilinearLinear


@dataclass(frozen=True, eq=False)
class Reading:
    """A language model opened up: one of our own, or of the Llama class.

    Make it by `open_model`. Blocks add ``mlp(norm(stream))`` to the residual stream.
    """

    model: nn.Module
    tokenizer: Any
    blocks: nn.ModuleList
    embedding: Float[Tensor, "vocabulary width"]
    unembedding: Float[Tensor, "vocabulary width"]
    gain: Float[Tensor, "width"]
    """of the last norm"""
    logits: Logits

    def mlp(self, layer: int) -> BilinearLinear:
        """Return a bilinear layer; the original one, not a copy.

        Raises:
            ValueError: no such layer, or it is not bilinear.
        """
        if not 0 <= layer < len(self.blocks):
            raise ValueError(f"layer: expected 0 to {len(self.blocks) - 1}, got {layer}")
        mlp = self.blocks[layer].mlp
        if not isinstance(mlp, BilinearLinear):
            raise ValueError(
                f"layer: the MLP of layer {layer} is a {type(mlp).__name__}, not bilinear; "
                "convert the model first"
            )
        return mlp

    def token(self, text: str) -> int:
        """Return the number of a text that is one token.

        Raises:
            ValueError: it is another number of tokens; they are listed.
        """
        found = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(found) != 1:
            pieces = [self.tokenizer.decode([i]) for i in found]
            raise ValueError(f"token: {text!r} is {len(found)} tokens: {pieces}")
        return int(found[0])

    def logit_direction(self, token: str, minus: str | None = None) -> Float[Tensor, "width"]:
        """Return the direction of the residual stream that raises a token's logit.

        The last norm's gain is part of it; the norm's scale, a positive number for each position,
        is not.

        Args:
            token: a text that is one token.
            minus: another; the direction is then of the difference of the two logits.
        """
        row = self.unembedding[self.token(token)]
        if minus is not None:
            row = row - self.unembedding[self.token(minus)]
        return (row * self.gain).detach().double()

    @torch.no_grad()
    def mlp_inputs(
        self, layer: int, batches: Iterable[Int[Tensor, "batch context"]]
    ) -> Iterator[tuple[Int[Tensor, "batch context"], Float[Tensor, "batch context width"]]]:
        """Yield tokens, and what goes into an MLP at each of them."""
        kept: list[Tensor] = []
        mlp: Any = self.blocks[layer].mlp
        handle = mlp.register_forward_pre_hook(lambda _, arguments: kept.append(arguments[0]))
        try:
            for tokens in batches:
                kept.clear()
                self.logits(tokens)
                yield tokens, kept[0]
        finally:
            handle.remove()

    @torch.no_grad()
    def token_inputs(self, layer: int, batch: int = 1024) -> Float[Tensor, "vocabulary width"]:
        """Return what goes into an MLP when a token stands alone, for every token.

        It is the token's embedding through all earlier layers: attention has nothing but the token
        itself to attend to, so nothing is left out, and nothing is approximated.
        """
        device = self.embedding.device
        every = torch.arange(len(self.embedding), device=device)[:, None].split(batch)
        return torch.cat([x[:, 0] for _, x in self.mlp_inputs(layer, every)])

    @contextmanager
    def edited(self, layer: int, mlp: nn.Module) -> Iterator[None]:
        """Put another MLP in a layer's place for the length of a block."""
        block = self.blocks[layer]
        before = block.mlp
        block.mlp = mlp
        try:
            yield
        finally:
            block.mlp = before


def open_model(model: nn.Module, tokenizer: Any) -> Reading:
    """Open a `BilinearTransformer` or a Llama-class model, in evaluation mode.

    Raises:
        ValueError: a model of another kind.
    """
    model.eval()
    if isinstance(model, BilinearTransformer):
        parts: Any = (model.blocks, model.embedding, model.unembedding, model.norm, model)
    else:
        inner: Any = getattr(model, "model", None)
        if not all(hasattr(inner, name) for name in ("layers", "embed_tokens", "norm")):
            raise ValueError(
                "model: expected a BilinearTransformer or a Llama-class model, got a "
                f"{type(model).__name__}"
            )
        parts = (inner.layers, inner.embed_tokens, model.lm_head, inner.norm, logits_of(model))
    blocks, embedding, unembedding, norm, logits = parts
    return Reading(
        model,
        tokenizer,
        blocks,
        embedding.weight.detach(),
        unembedding.weight.detach(),
        norm.weight.detach(),
        logits,
    )
