"""Boolean gates learned by a bilinear layer, against the interaction matrices they must have.

On inputs of 0 and 1 the products ``x_i x_j`` (with ``x_i² = x_i``) are independent functions, so a
gate has one symmetric interaction matrix only, and a network that computes it must have found it.
"""

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from rlbilinear import BilinearLinear
from rlbilinear.classifiers import Training, train_classifier
from rlbilinear.tensor import BilinearTensor

BITS = 5
GATES: dict[str, tuple[tuple[int, int], tuple[tuple[float, float], tuple[float, float]]]] = {
    "and": ((0, 1), ((0, 0.5), (0.5, 0))),
    "xor": ((2, 3), ((1, -1), (-1, 1))),
    "or": ((0, 4), ((1, -0.5), (-0.5, 1))),
}
"""Each gate's bits, of five, and its interaction matrix on them."""


def known_matrices() -> Float[Tensor, "gates bits bits"]:
    """Return the gates' interaction matrices over all bits."""
    matrices = torch.zeros(len(GATES), BITS, BITS, dtype=torch.float64)
    for matrix, (bits, values) in zip(matrices, GATES.values(), strict=True):
        rows = torch.tensor(bits)
        matrix[rows[:, None], rows] = torch.tensor(values, dtype=torch.float64)
    return matrices


def all_inputs() -> Float[Tensor, "inputs bits"]:
    """Return every combination of bits."""
    return torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * BITS)


def gate_outputs(x: Float[Tensor, "n bits"]) -> Float[Tensor, "n gates"]:
    """Compute the gates by logic."""
    compute = {"and": torch.logical_and, "xor": torch.logical_xor, "or": torch.logical_or}
    return torch.stack(
        [
            compute[gate](x[:, a].bool(), x[:, b].bool()).float()
            for gate, ((a, b), _) in GATES.items()
        ],
        dim=1,
    )


def learn_gates(
    weight_decay: float, *, seed: int = 0, epochs: int = 1000
) -> tuple[Float[Tensor, "gates bits bits"], float]:
    """Train one layer on all gates; return its interaction matrices and its mean squared error."""
    torch.manual_seed(seed)
    layer = BilinearLinear(BITS, len(GATES), hidden_features=12)
    x = all_inputs()
    training = Training(
        epochs=epochs, batch=len(x), learning_rate=2e-2, weight_decay=weight_decay, seed=seed
    )
    history = train_classifier(layer, x, gate_outputs(x), training, loss=F.mse_loss)
    return BilinearTensor.of(layer).matrices(), history[-1].loss


def compare_gates(
    decays: tuple[float, ...], seeds: int, epochs: int
) -> tuple[pd.DataFrame, dict[float, Tensor]]:
    """Compare learned matrices with the known ones, for several weight decays.

    Returns:
        A row for each decay, seed and gate: the loss, the largest error of the matrix, its two
        outermost eigenvalues, learned and known; and the first seed's matrices by decay.
    """
    rows: list[dict[str, object]] = []
    matrices: dict[float, Tensor] = {}
    for decay in decays:
        for seed in range(seeds):
            learned, loss = learn_gates(decay, seed=seed, epochs=epochs)
            matrices.setdefault(decay, learned)
            for gate, found, known in zip(GATES, learned, known_matrices(), strict=True):
                ends = [torch.linalg.eigvalsh(m)[[0, -1]].tolist() for m in (found, known)]
                rows.append(
                    {
                        "weight_decay": decay,
                        "seed": seed,
                        "gate": gate,
                        "loss": loss,
                        "largest_error": (found - known).abs().max().item(),
                        "lowest": ends[0][0],
                        "highest": ends[0][1],
                        "known_lowest": ends[1][0],
                        "known_highest": ends[1][1],
                    }
                )
    return pd.DataFrame(rows), matrices
