"""A language layer cut down to few singular components or few eigenvectors, against the loss."""

from collections.abc import Sequence

import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor
from tqdm import tqdm

from rlbilinear.hosvd import hosvd
from rlbilinear.language.reading import Reading
from rlbilinear.language.scoring import batched, replay, score
from rlbilinear.tensor import BilinearTensor


def truncation_losses(
    reading: Reading,
    layer: int,
    windows: Int[Tensor, "n context"],
    *,
    components: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128),
    eigenvectors: Sequence[int] = (1, 2, 4, 8, 16, 32),
    batch: int = 32,
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
        batch: windows at a time.
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
    device = reading.embedding.device
    own = score(reading.logits, batched(windows, batch, device))
    rows = [{"kept": "all", "count": rank, "loss": own.loss, "kl": 0.0, "error": 0.0}]
    with torch.no_grad():
        original = [reading.logits(tokens) for tokens in batched(windows, batch, device)]
    for kept_of, count, cut, error in tqdm(cases, "truncation", disable=not progress):
        with reading.edited(layer, cut.as_layer(mlp)):
            found = score(
                reading.logits, batched(windows, batch, device), original=replay(original)
            )
        rows.append(
            {"kept": kept_of, "count": count, "loss": found.loss, "kl": found.kl, "error": error}
        )
    return pd.DataFrame(rows)
