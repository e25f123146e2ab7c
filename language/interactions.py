"""Feature-to-feature interactions of a bilinear layer, exactly from weights."""

from collections.abc import Iterable, Sequence

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from rlbilinear.language.sae import SparseAutoencoder
from rlbilinear.layers import BilinearLinear
from rlbilinear.quadratic import QuadraticForm
from rlbilinear.sparsity import cumulative_energy
from rlbilinear.spectrum import Spectrum


def feature_form(layer: BilinearLinear, sae: SparseAutoencoder, feature: int) -> QuadraticForm:
    """Return an output feature's pre-activation as a quadratic form of the layer's input, exactly.

    The encoder is affine and the layer quadratic: ``encoder_f . (y(x) - bias) + encoder_bias_f``.

    Args:
        layer: bilinear.
        sae: of the layer's outputs.
        feature: of the autoencoder.
    """
    row = sae.encoder[feature].detach().double()
    form = layer.quadratic_form(row)
    shift = (sae.encoder_bias[feature].detach().double() - row @ sae.bias.detach().double()).item()
    return form + QuadraticForm.affine(torch.zeros(form.in_features).double(), shift)


def interaction_matrix(
    form: QuadraticForm, inputs: SparseAutoencoder, features: Sequence[int] | None = None
) -> Float[Tensor, "n n"]:
    """Return how pairs of input features act on one output: ``Q(decoder_i, decoder_j)``.

    With ``x = sum_i a_i decoder_i + bias`` the form's quadratic part in the activations is
    ``sum_ij a_i a_j M_ij``. Half the Hessian of ``a -> form(x(a))``.

    Args:
        form: of an output direction.
        inputs: autoencoder of the layer's inputs.
        features: of the inputs; all when None.
    """
    decoder = inputs.decoder.detach().double()
    chosen = decoder if features is None else decoder[list(features)]
    return chosen @ form.matrix() @ chosen.T


def pair_sparsity(matrix: Float[Tensor, "n n"]) -> dict[str, float]:
    """Return how few pairs carry an interaction matrix.

    Returns:
        ``pairs_for_90``: the share of all pairs that hold 90 % of the sum of squares, and
        ``diagonal``: the share of the squares on the diagonal (a feature with itself).
    """
    energy = matrix.square()
    flat = energy.flatten().sort(descending=True).values
    share = flat.cumsum(0) / flat.sum()
    count = int((share < 0.9 - 1e-12).sum()) + 1
    return {
        "pairs_for_90": count / flat.numel(),
        "diagonal": (energy.diagonal().sum() / energy.sum()).item(),
    }


def rank_correlations(
    forms: Iterable[QuadraticForm],
    x: Float[Tensor, "tokens inputs"],
    active: Float[Tensor, "tokens n"],
    ranks: Sequence[int] = (0, 1, 2, 4, 8, 16),
) -> pd.DataFrame:
    """Correlate features' activations with their forms' approximations of low rank.

    Args:
        forms: of output features (`feature_form`).
        x: what goes into the layer, at many tokens.
        active: the features' true activations there; zero where a feature is not active.
        ranks: numbers of eigenvectors; the linear and constant parts stay, and are all that rank
            zero keeps.

    Returns:
        Columns ``feature``, ``rank``, ``correlation`` (over all tokens, with the activation),
        ``correlation_active`` (over the tokens at which it is active) and ``energy`` (the share of
        the form's squared norm that is kept), and ``active``, the number of those tokens.
    """
    rows = []
    for index, form in enumerate(forms):
        spectrum = form.eigh()
        energy = [0.0, *cumulative_energy(spectrum.values).tolist()]
        leading = Spectrum(spectrum.values[: max(ranks)], spectrum.vectors[: max(ranks)])
        contributions = F.pad(leading.contributions(x).cumsum(-1), (1, 0))
        rest = x @ form.linear.to(x) + form.constant.to(x)
        true = active[:, index]
        on = true > 0
        for rank in ranks:
            kept = min(rank, len(spectrum.values))
            guess = contributions[:, kept] + rest
            rows.append(
                {
                    "feature": index,
                    "rank": rank,
                    "correlation": _correlation(guess.relu(), true),
                    "correlation_active": _correlation(guess[on], true[on]),
                    "energy": energy[kept],
                    "active": int(on.sum()),
                }
            )
    return pd.DataFrame(rows)


def _correlation(a: Float[Tensor, "n"], b: Float[Tensor, "n"]) -> float:
    """Return Pearson's correlation; NaN where there is none, as of a constant."""
    if len(a) < 3:
        return float("nan")
    a, b = a.double() - a.double().mean(), b.double() - b.double().mean()
    return (a @ b / (a.norm() * b.norm())).item()
