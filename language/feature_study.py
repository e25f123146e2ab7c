"""A layer's features: autoencoders of what goes in and comes out, and what weights say of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from rlbilinear.language.devices import Precision, autocast
from rlbilinear.language.gates import find_gates
from rlbilinear.language.interactions import (
    feature_form,
    interaction_matrix,
    pair_sparsity,
    rank_correlations,
)
from rlbilinear.language.reading import Reading
from rlbilinear.language.sae import SAETraining, SparseAutoencoder, explained, train_sae
from rlbilinear.language.scoring import batched

Log = Callable[[str, int, dict[str, float]], None]


@dataclass(frozen=True, eq=False)
class Features:
    """Autoencoders of a layer's inputs and outputs, and both at tokens they were not trained on."""

    layer: int
    inputs: SparseAutoencoder
    outputs: SparseAutoencoder
    x: Float[Tensor, "tokens width"]
    """what goes into the layer"""
    input_activations: Float[Tensor, "tokens features"]
    output_activations: Float[Tensor, "tokens features"]
    context: int
    """tokens of a window"""

    def most_active(self, count: int, least: int = 30) -> list[int]:
        """Return output features in order of the tokens at which they are active, if enough."""
        tokens = (self.output_activations > 0).sum(0)
        order = tokens.argsort(descending=True).tolist()
        return [feature for feature in order if tokens[feature] >= least][:count]

    def save(self, folder: Path) -> None:
        """Write both autoencoders into a folder, for `load_sae`."""
        self.inputs.save(folder / "inputs.safetensors")
        self.outputs.save(folder / "outputs.safetensors")

    def by_window(
        self, activations: Float[Tensor, "tokens features"], feature: int
    ) -> Float[Tensor, "windows context"]:
        """Return a feature's activations by window; zero at the first token, which is left out."""
        return F.pad(activations[:, feature].reshape(-1, self.context - 1), (1, 0)).cpu()

    def summary(self, layer: torch.nn.Module) -> dict[str, float]:
        """Return the shares of the variance that the autoencoders explain on unseen tokens."""
        with torch.no_grad():
            y = layer(self.x)
        alive = (self.output_activations > 0).any(0).float().mean().item()
        return {
            "explained_inputs": explained(self.inputs, self.x),
            "explained_outputs": explained(self.outputs, y),
            "alive_outputs": alive,
        }


def learn_features(
    reading: Reading,
    layer: int,
    train: Int[Tensor, "n context"],
    held_out: Int[Tensor, "m context"],
    options: SAETraining,
    *,
    inputs: SparseAutoencoder | None = None,
    outputs: SparseAutoencoder | None = None,
    precision: Precision = "float32",
    log: Log | None = None,
    progress: bool = True,
) -> Features:
    """Train both autoencoders of a bilinear layer, or look at those that are given.

    Args:
        reading: the model.
        layer: its index.
        train: windows whose activations they are trained on.
        held_out: windows at which the features are looked at.
        options: of those that are trained.
        inputs: an autoencoder of what goes in; trained when None.
        outputs: of what comes out.
        precision: of the layers before this one.
        log: is given a name, a step, and numbers.
        progress: show bars.

    Raises:
        ValueError: a given autoencoder is of another width.
    """
    mlp = reading.mlp(layer)
    for name, given in (("inputs", inputs), ("outputs", outputs)):
        if given is not None and given.decoder.shape[1] != mlp.in_features:
            raise ValueError(
                f"{name}: the autoencoder is of width {given.decoder.shape[1]}, "
                f"layer {layer} of {mlp.in_features}"
            )

    def trained(name: str, activations: Tensor) -> SparseAutoencoder:
        each = None if log is None else (lambda step, numbers: log(name, step, numbers))
        return train_sae(activations, options, log=each, progress=progress)

    if inputs is None or outputs is None:
        x = _inputs(reading, layer, train, precision, progress)
        inputs = trained("inputs", x) if inputs is None else inputs
        if outputs is None:
            with torch.no_grad():
                x = mlp(x)  # the inputs are not needed any more
            outputs = trained("outputs", x)
    unseen = _inputs(reading, layer, held_out, precision, progress)
    inputs, outputs = inputs.to(unseen.device), outputs.to(unseen.device)
    with torch.no_grad():
        return Features(
            layer,
            inputs,
            outputs,
            unseen,
            inputs.encode(unseen),
            outputs.encode(mlp(unseen)),
            held_out.shape[1],
        )


def correlations(
    reading: Reading, features: Features, count: int, *, progress: bool = True
) -> pd.DataFrame:
    """Correlate the activations of the most active output features with forms of low rank."""
    mlp = reading.mlp(features.layer)
    chosen = features.most_active(count)
    bar = tqdm(chosen, "eigenvectors", disable=not progress)
    forms = (feature_form(mlp, features.outputs, feature) for feature in bar)
    table = rank_correlations(forms, features.x, features.output_activations[:, chosen])
    return table.assign(feature=table["feature"].map(dict(enumerate(chosen))))


def sparsity(
    reading: Reading, features: Features, count: int, *, progress: bool = True
) -> pd.DataFrame:
    """Say how sparse the interactions of the most active output features are, beside rotated ones.

    The comparison is the same form over random directions in place of the input features.
    """
    mlp = reading.mlp(features.layer)
    generator = torch.Generator().manual_seed(0)
    count_of, width = features.inputs.decoder.shape
    random = SparseAutoencoder(width, count_of, None)
    rows = torch.randn(features.inputs.decoder.shape, generator=generator)
    random.decoder.data = torch.nn.functional.normalize(rows, dim=1)
    found = []
    for feature in tqdm(features.most_active(count), "sparsity", disable=not progress):
        form = feature_form(mlp, features.outputs, feature)
        own = pair_sparsity(interaction_matrix(form, features.inputs))
        other = pair_sparsity(interaction_matrix(form, random))
        renamed = {f"{name}_random": value for name, value in other.items()}
        found.append({"feature": feature, **own, **renamed})
    return pd.DataFrame(found)


def features_of(
    features: Features,
    windows: Int[Tensor, "n context"],
    tokens: Int[Tensor, "m"],
    *,
    share: float = 1 / 3,
    least: int = 20,
) -> dict[int, float]:
    """Return the input features that belong to some tokens: active at them, or right after them.

    Args:
        features: at the windows.
        windows: of tokens.
        tokens: such as those of " not" and " never".
        share: of a feature's activation, at least, that is at such places.
        least: places at which a feature is active.

    Returns:
        By feature, this share; largest first.
    """
    here = torch.isin(windows.long(), tokens.long())
    places = (here[:, 1:] | here[:, :-1]).flatten().to(features.input_activations.device)
    active = features.input_activations
    found = active[places].sum(0) / active.sum(0)
    found[(active > 0).sum(0) < least] = 0.0
    order = found.argsort(descending=True).tolist()
    return {feature: found[feature].item() for feature in order if found[feature] >= share}


def gates(
    reading: Reading,
    features: Features,
    count: int,
    *,
    among: Sequence[int] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Look for gating pairs of input features under the most active output features.

    With ``among``, one of these input features is in every pair.
    """
    return find_gates(
        reading.mlp(features.layer),
        features.inputs,
        features.outputs,
        features.input_activations,
        features.most_active(count),
        among=among,
        progress=progress,
    )


def _inputs(
    reading: Reading,
    layer: int,
    windows: Int[Tensor, "n context"],
    precision: Precision,
    progress: bool,
) -> Float[Tensor, "tokens width"]:
    """Return what goes into a layer, without the first token of every window."""
    batches = list(batched(windows, 32, reading.embedding.device))
    found = reading.mlp_inputs(layer, tqdm(batches, "layer's inputs", disable=not progress))
    with autocast(reading.model, precision):
        return torch.cat([x[:, 1:].flatten(0, 1).float() for _, x in found])
