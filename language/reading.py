"""What circuits are read from: a model's residual stream, its bilinear layers and its tokens."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rlbilinear.language.bpe import END
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
    norm: nn.Module
    """the last one, between the blocks and the unembedding"""
    head: nn.Module
    """from the normalised stream to logits"""
    logits: Logits
    first: int | None
    """a token that `token_inputs` puts before each; None in our own models"""

    @property
    def unembedding(self) -> Float[Tensor, "vocabulary width"]:
        """Return the matrix of the head."""
        matrix: Any = self.head.weight
        return cast(Tensor, matrix.detach())

    @property
    def gain(self) -> Float[Tensor, "width"]:
        """Return the weight of the last norm."""
        weight: Any = self.norm.weight
        return cast(Tensor, weight.detach())

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
        """Yield tokens, and what goes into an MLP at each of them; nothing after it is computed."""
        kept: list[Tensor] = []

        def stop(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            kept.append(arguments[0])
            raise _Reached

        mlp: Any = self.blocks[layer].mlp
        handle = mlp.register_forward_pre_hook(stop)
        try:
            for tokens in batches:
                with suppress(_Reached):
                    self.logits(tokens)
                yield tokens, kept.pop()
        finally:
            handle.remove()

    @torch.no_grad()
    def token_inputs(
        self,
        layer: int,
        tokens: Int[Tensor, "n"] | None = None,
        *,
        batch: int = 512,
    ) -> Float[Tensor, "n width"]:
        """Return what goes into an MLP when a token stands alone.

        It is the token's embedding through all earlier layers: attention has nothing but the token
        itself to attend to, so nothing is left out, and nothing is approximated.

        In models of the Llama class the token that begins texts stands before it. These give the
        first token of a text a massive activation whatever it is: in layer 20 of SmolLM2 all tokens
        alone have the same input but for 0.2 % of its square, against 43 % after a first token.

        Args:
            layer: of the MLP.
            tokens: some; the whole vocabulary when None.
            batch: tokens at a time.
        """
        device = self.embedding.device
        chosen = torch.arange(len(self.embedding)) if tokens is None else tokens
        columns = [chosen.to(device).long()]
        if self.first is not None:
            columns.insert(0, torch.full_like(columns[0], self.first))
        every = torch.stack(columns, 1).split(batch)
        return torch.cat([x[:, -1] for _, x in self.mlp_inputs(layer, every)])

    @torch.no_grad()
    def pause(self, layer: int, tokens: Int[Tensor, "batch context"]) -> "Paused":
        """Compute a forward pass up to a block; what follows can be computed with edits, often."""
        calls: list[tuple[tuple[Tensor, ...], Mapping[str, Any]]] = []

        def stop(*_: Any) -> None:
            raise _Reached

        handles = [
            block.register_forward_pre_hook(
                lambda _, arguments, options: calls.append((arguments, options)), with_kwargs=True
            )
            for block in self.blocks[layer:]
        ]
        handles.append(self.norm.register_forward_pre_hook(stop))
        try:
            with suppress(_Reached):
                self.logits(tokens)
        finally:
            for handle in handles:
                handle.remove()
        return Paused(self, layer, calls[0][0][0], tuple(options for _, options in calls))

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


@dataclass(frozen=True, eq=False)
class Paused:
    """A forward pass that was stopped before a block. Make it by `Reading.pause`."""

    reading: Reading
    layer: int
    stream: Float[Tensor, "batch context width"]
    """before the block"""
    options: tuple[Mapping[str, Any], ...]
    """what the block, and those after it, are called with besides the stream"""

    @torch.no_grad()
    def logits(
        self, at: Int[Tensor, "batch places"] | None = None
    ) -> Float[Tensor, "batch places vocabulary"]:
        """Go on with the model as it is now, and return logits.

        Args:
            at: places of each window; all of them when None.
        """
        stream: Tensor = self.stream
        for block, options in zip(self.reading.blocks[self.layer :], self.options, strict=True):
            stream = block(stream, **options)
        if at is not None:
            stream = stream[torch.arange(len(stream), device=stream.device)[:, None], at]
        return cast(Tensor, self.reading.head(self.reading.norm(stream)))


class _Reached(Exception):
    """Ends a forward pass whose rest is not needed."""


def open_model(model: nn.Module, tokenizer: Any) -> Reading:
    """Open a `BilinearTransformer` or a Llama-class model, in evaluation mode.

    Raises:
        ValueError: a model of another kind.
    """
    model.eval()
    if isinstance(model, BilinearTransformer):
        parts: Any = (model.blocks, model.embedding, model.norm, model.unembedding, model)
        first = None
    else:
        inner: Any = getattr(model, "model", None)
        if not all(hasattr(inner, name) for name in ("layers", "embed_tokens", "norm")):
            raise ValueError(
                "model: expected a BilinearTransformer or a Llama-class model, got a "
                f"{type(model).__name__}"
            )
        parts = (inner.layers, inner.embed_tokens, inner.norm, model.lm_head, logits_of(model))
        first = tokenizer.get_vocab().get(END, tokenizer.bos_token_id)
    blocks, embedding, norm, head, logits = parts
    return Reading(model, tokenizer, blocks, embedding.weight.detach(), norm, head, logits, first)
