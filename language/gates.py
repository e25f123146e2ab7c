"""Pairs of input features that gate each other: one that switches another's effect off, or on."""

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from rlbilinear.language.interactions import feature_form, interaction_matrix
from rlbilinear.language.sae import SparseAutoencoder
from rlbilinear.layers import BilinearLinear


def find_gates(
    layer: BilinearLinear,
    inputs: SparseAutoencoder,
    outputs: SparseAutoencoder,
    activations: Float[Tensor, "tokens features"],
    features: list[int],
    *,
    each: int = 2,
    least: int = 20,
    among: Sequence[int] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Look for gating among pairs of input features, output feature by output feature.

    With activations ``a_i`` an output feature is ``sum_i M_ii a_i² + 2 sum_{i<j} M_ij a_i a_j``
    besides linear parts. The pair (i, j) *inhibits* when ``M_ii > 0`` and ``M_ij < 0``: i alone
    promotes the output, less so when j is there, as a negation would. It is an *and* when
    ``M_ij > 0`` is more than both ``|M_ii|`` and ``|M_jj|``: together they promote it, alone not.
    Pairs are ordered by what they add over the tokens at which both are active.

    Args:
        layer: bilinear.
        inputs: autoencoder of its inputs.
        outputs: autoencoder of its outputs.
        activations: of the input features, at many tokens.
        features: of the outputs, to look at.
        each: pairs of each kind for every output feature.
        least: tokens at which both are active.
        among: input features one of which is in every pair; any when None.
        progress: show a bar.

    Returns:
        Columns ``kind``, ``output``, ``first``, ``second``, ``first_alone`` (M_ii),
        ``second_alone``, ``together`` (M_ij), ``tokens``, ``added`` (mean of ``2 M_ij a_i a_j``
        over these tokens, in units of the output feature's activation).
    """
    on = (activations > 0).float()
    both = on.T @ on
    product = activations.T @ activations
    enough = both >= least
    enough.fill_diagonal_(False)
    if among is not None:
        chosen = torch.zeros(len(enough), dtype=torch.bool, device=enough.device)
        chosen[list(among)] = True
        enough &= chosen[:, None] | chosen[None]
    mean = torch.where(enough, product / both.clamp_min(1), 0.0).double()
    rows: list[Mapping[str, float | int | str]] = []
    for feature in tqdm(features, "gates", disable=not progress):
        matrix = interaction_matrix(feature_form(layer, outputs, feature), inputs)
        alone = matrix.diagonal()
        added = 2 * matrix * mean
        largest = torch.maximum(alone.abs()[:, None], alone.abs()[None])
        for kind, score in (
            ("inhibits", torch.where(alone[:, None] > 0, -added, 0.0)),
            ("and", torch.where(matrix > largest, added, 0.0).triu(1)),
        ):
            values, places = score.flatten().topk(each)
            for value, place in zip(values.tolist(), places.tolist(), strict=True):
                first, second = divmod(place, len(matrix))
                if value <= 0:
                    continue
                rows.append(
                    {
                        "kind": kind,
                        "output": feature,
                        "first": first,
                        "second": second,
                        "first_alone": alone[first].item(),
                        "second_alone": alone[second].item(),
                        "together": matrix[first, second].item(),
                        "tokens": int(both[first, second]),
                        "added": added[first, second].item(),
                    }
                )
    columns = list(rows[0]) if rows else ["kind", "output", "first", "second", "added"]
    table = pd.DataFrame(rows, columns=columns)
    return table.sort_values("added", key=abs, ascending=False, ignore_index=True)
