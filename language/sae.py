"""Sparse autoencoders: a TopK one of our own, and others' from safetensors."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from rlbilinear.agents.folder import new_file

LAYOUTS = {
    "sae_lens": ("W_enc", "b_enc", "W_dec", "b_dec"),
    "eleuther": ("encoder.weight", "encoder.bias", "W_dec", "b_dec"),
}
"""Names of encoder, its bias, decoder and its bias. An encoder of SAELens is (inputs, features)."""


@dataclass(frozen=True)
class SAETraining:
    """How a sparse autoencoder is trained."""

    features: int = 1024
    k: int = 16
    """active features of an input"""
    steps: int = 3000
    batch: int = 1024
    learning_rate: float = 2e-3
    seed: int = 0


class SparseAutoencoder(nn.Module):
    """``x -> decoder(activations) + bias``, where the ``k`` largest positive activations are kept.

    With ``k = None`` all positive ones are (a ReLU autoencoder). Inputs are centred by the
    decoder's bias before the encoder, and decoder rows have norm one.

    Source: Gao et al., "Scaling and evaluating sparse autoencoders" (TopK).
    """

    def __init__(self, inputs: int, features: int, k: int | None) -> None:
        super().__init__()
        self.k = k
        self.encoder = nn.Parameter(torch.empty(features, inputs))
        self.encoder_bias = nn.Parameter(torch.zeros(features))
        self.decoder = nn.Parameter(torch.empty(features, inputs))
        self.bias = nn.Parameter(torch.zeros(inputs))

    def preactivations(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch features"]:
        """Return the encoder's output: an affine function of the input."""
        return (x - self.bias) @ self.encoder.T + self.encoder_bias

    def encode(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch features"]:
        """Return the features' activations; most are zero."""
        active = self.preactivations(x).relu()
        if self.k is None:
            return active
        values, indices = active.topk(self.k, dim=-1)
        return torch.zeros_like(active).scatter(-1, indices, values)

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch inputs"]:
        """Reconstruct the input."""
        return self.encode(x) @ self.decoder + self.bias

    def save(self, file: Path) -> None:
        """Write it in the layout of SAELens."""
        weights = {
            "W_enc": self.encoder.detach().T.contiguous().cpu(),
            "b_enc": self.encoder_bias.detach().cpu(),
            "W_dec": self.decoder.detach().cpu(),
            "b_dec": self.bias.detach().cpu(),
        }
        with new_file(Path(file)) as unfinished:
            save_file(weights, unfinished, metadata={} if self.k is None else {"k": str(self.k)})


def load_sae(file: str | Path, k: int | None = None) -> SparseAutoencoder:
    """Read a sparse autoencoder, ours or another's.

    Args:
        file: safetensors, named as in one of `LAYOUTS`.
        k: active features; those in the file's metadata when None, all when it has none.

    Raises:
        ValueError: not such a file; the tensors that were found are listed.
    """
    from safetensors import safe_open

    try:
        tensors = load_file(file)
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ValueError(f"sae: cannot read {file}: {error}") from error
    for layout, names in LAYOUTS.items():
        if all(name in tensors for name in names):
            encoder, encoder_bias, decoder, bias = (tensors[name].float() for name in names)
            encoder = encoder.T if layout == "sae_lens" else encoder
            break
    else:
        expected = " or ".join(", ".join(names) for names in LAYOUTS.values())
        raise ValueError(f"sae: {file} holds {', '.join(sorted(tensors))}; expected {expected}")
    if encoder.shape != decoder.shape or bias.shape != decoder.shape[1:]:
        raise ValueError(f"sae: encoder {tuple(encoder.shape)} and decoder {tuple(decoder.shape)}")
    stored = int(metadata["k"]) if "k" in metadata else None
    sae = SparseAutoencoder(decoder.shape[1], len(decoder), stored if k is None else k)
    sae.load_state_dict(
        {"encoder": encoder, "encoder_bias": encoder_bias, "decoder": decoder, "bias": bias}
    )
    return sae.eval()


def train_sae(
    activations: Float[Tensor, "tokens inputs"],
    options: SAETraining,
    *,
    log: Callable[[int, dict[str, float]], None] | None = None,
    progress: bool = True,
) -> SparseAutoencoder:
    """Train a TopK autoencoder on activations.

    A feature that was not active for a while gets a share of the gradient: the 64 largest of those
    reconstruct what the active ones leave (the auxiliary loss of Gao et al.).

    Args:
        activations: of many tokens, in any order.
        options: features, steps, rate.
        log: is given the step and ``unexplained``, the share of the variance that is left, and
            ``dead``, the share of the features that were not active lately.
        progress: show a bar.

    Raises:
        ValueError: fewer tokens than a batch, or k above the features.
    """
    if len(activations) < options.batch:
        raise ValueError(f"activations: {len(activations)} are fewer than a batch")
    if not 1 <= options.k <= options.features:
        raise ValueError(f"k: expected 1 to {options.features}, got {options.k}")
    generator = torch.Generator().manual_seed(options.seed)
    inputs = activations.shape[1]
    sae = SparseAutoencoder(inputs, options.features, options.k)
    rows = F.normalize(torch.randn(options.features, inputs, generator=generator), dim=1)
    size = (activations - activations.mean(0)).square().sum(1).mean().sqrt().item()
    with torch.no_grad():
        sae.encoder.copy_(rows)
        sae.decoder.copy_(rows)
        sae.bias.copy_(activations.mean(0))
    sae.to(activations.device)
    optimizer = torch.optim.Adam(sae.parameters(), options.learning_rate)
    silent = torch.zeros(options.features, dtype=torch.long, device=activations.device)
    for step in tqdm(range(options.steps), "autoencoder", disable=not progress):
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * min(1, 5 * (1 - step / options.steps))
        chosen = torch.randint(len(activations), (options.batch,), generator=generator)
        x = activations[chosen.to(activations.device)]
        before = sae.preactivations(x).relu()
        values, indices = before.topk(options.k, dim=-1)
        found = torch.zeros_like(before).scatter(-1, indices, values)
        left = (x - found @ sae.decoder - sae.bias) / size
        unexplained = left.square().sum(1).mean()
        loss = unexplained + _dead_loss(before, silent, left.detach() * size, sae) / size**2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            sae.decoder.copy_(F.normalize(sae.decoder, dim=1))
            silent += len(x)
            silent[(found > 0).any(0)] = 0
        if log and (step % 100 == 0 or step == options.steps - 1):
            dead = (silent > DEAD_AFTER).float().mean().item()
            log(step, {"unexplained": unexplained.item(), "dead": dead})
    return sae.eval()


DEAD_AFTER = 50_000
"""Inputs after which a feature that was active for none counts as dead."""


def _dead_loss(
    before: Float[Tensor, "batch features"],
    silent: Tensor,
    left: Float[Tensor, "batch inputs"],
    sae: SparseAutoencoder,
) -> Tensor:
    dead = silent > DEAD_AFTER
    if not dead.any():
        return before.new_zeros(())
    values, indices = before[:, dead].topk(min(64, int(dead.sum())), dim=-1)
    found = torch.zeros_like(before[:, dead]).scatter(-1, indices, values) @ sae.decoder[dead]
    return (left - found).square().sum(1).mean() / 32


def explained(sae: SparseAutoencoder, x: Float[Tensor, "tokens inputs"]) -> float:
    """Return the share of the inputs' variance that the reconstruction explains."""
    with torch.no_grad():
        left = (x - sae(x)).square().sum()
        return 1 - (left / (x - x.mean(0)).square().sum()).item()
