"""A language layer cut down to few singular components or few eigenvectors, against the loss."""

from collections.abc import Sequence

import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor
from tqdm import tqdm

from rlbilinear.hosvd import hosvd
from rlbilinear.language.reading import Reading
from rlbilinear.language.scoring import batched, divergence, token_losses, windows_at_once
from rlbilinear.tensor import BilinearTensor


def truncation_losses(
    reading: Reading,
    layer: int,
    windows: Int[Tensor, "n context"],
    *,
    components: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128),
    eigenvectors: Sequence[int] = (1, 2, 4, 8, 16, 32),
    progress: bool = True,
) -> pd.DataFrame:
    """Measure the loss when a layer keeps its largest singular components, or eigenvectors of each.

    Linear and constant parts stay.

    Args:
        reading: the model.
        layer: of a bilinear MLP.
        windows: of held-out tokens.
        components: numbers of the tensor's singular components (outputs) that are kept.
        eigenvectors: numbers of eigenvectors that are kept of every component.
        progress: show a bar.

    Returns:
        Columns ``kept`` (``all``, ``components``, ``eigenvectors``, ``none``), ``count``, ``loss``
        in nats a token, ``kl`` from the whole model, and ``error``, the dropped share of the
        tensor's norm.
    """
    mlp = reading.mlp(layer)
    tensor = BilinearTensor.of(mlp)
    decomposed = hosvd(tensor)
    norm = decomposed.singular_values.norm()
    cases: list[tuple[str, int, BilinearTensor, float]] = [("none", 0, decomposed.truncate(0), 1.0)]
    rank = len(decomposed.singular_values)
    for count in (count for count in components if count < rank):
        error = (decomposed.error(count) / norm).item()
        cases.append(("components", count, decomposed.truncate(count), error))
    terms = decomposed.interactions()
    for count in eigenvectors:
        kept = terms.keep(count)
        cases.append(("eigenvectors", count, kept.tensor(), (kept.error / norm).item()))
    layers = [cut.as_layer(mlp) for _, _, cut, _ in cases]
    totals = torch.zeros(1 + len(cases), 2, dtype=torch.float64)
    size = windows_at_once(windows.shape[1], len(reading.embedding))
    batches = list(batched(windows, size, reading.embedding.device))
    for tokens in tqdm(batches, "truncation", disable=not progress):
        paused = reading.pause(layer, tokens)
        original = paused.logits()
        for number, cut in enumerate([mlp, *layers]):
            with reading.edited(layer, cut):
                logits = paused.logits()
            loss = token_losses(logits, tokens).double().mean()
            kl = divergence(original, logits)[:, :-1].double().mean()
            totals[number] += len(tokens) * torch.stack([loss, kl]).cpu()
    rows = [("all", rank, 0.0)] + [(kept_of, count, error) for kept_of, count, _, error in cases]
    table = pd.DataFrame(rows, columns=["kept", "count", "error"])
    table[["loss", "kl"]] = (totals / len(windows)).numpy()
    return table
