"""Mutual information of pixels and activations: where in the picture an activation is about."""

import numpy as np
from jaxtyping import Float, Shaped

from rlbilinear.checks import check_whole


def pixel_information(
    observations: Shaped[np.ndarray, "n channels height width"],
    activation: Float[np.ndarray, "n"],
    *,
    bins: int = 8,
    shuffles: int = 8,
    seed: int = 0,
) -> Float[np.ndarray, "height width"]:
    """Return the mutual information of each pixel with an activation, in nats.

    Both are cut into bins of equally many observations (a pixel by each colour channel; the largest
    of the three counts). Few observations make the plain estimate too large, so the mean over
    shuffles of the activation is taken off: what is independent scatters around 0.

    Args:
        observations: pictures.
        activation: one number for each: of a channel at a position, a mean over positions.
        bins: of the activation, and at most of a pixel.
        shuffles: from which the bias is estimated.
        seed: of the shuffles.

    Raises:
        ValueError: another number of activations than pictures, activations that are not finite or
            all the same, fewer than two bins, or fewer than ``bins²`` pictures.
    """
    check_whole(2, bins=bins)
    check_whole(shuffles=shuffles)
    pictures, values = np.asarray(observations), np.asarray(activation, float)
    if pictures.ndim != 4 or values.shape != pictures.shape[:1]:
        raise ValueError(
            f"expected pictures (n, channels, height, width) and n activations, got "
            f"{pictures.shape} and {values.shape}"
        )
    if len(values) < bins**2:
        raise ValueError(f"{bins} bins need {bins**2} pictures or more, got {len(values)}")
    if not np.isfinite(values).all() or np.ptp(values) == 0:
        raise ValueError("expected finite activations, not all the same")
    codes = _binned(values[:, None], bins)[:, 0]
    pixels = _binned(pictures.reshape(len(pictures), -1), bins)
    rng = np.random.default_rng(seed)
    orders = [codes, *(rng.permutation(codes) for _ in range(shuffles))]
    own, *shuffled = (_information(pixels, order, bins) for order in orders)
    found = (own - np.mean(shuffled, 0)).reshape(pictures.shape[1:])
    return found.max(0)


def _binned(values: Shaped[np.ndarray, "n m"], bins: int) -> Shaped[np.ndarray, "n m"]:
    """Return each value's bin among its column's quantiles; equal values share one."""
    edges = np.quantile(values, np.arange(1, bins) / bins, axis=0, method="inverted_cdf")
    codes = np.zeros(values.shape, np.uint8)
    for edge in edges:
        codes += values > edge
    return codes


def _information(
    pixels: Shaped[np.ndarray, "n m"], codes: Shaped[np.ndarray, "n"], bins: int
) -> Float[np.ndarray, "m"]:
    """Return the mutual information of each column with the codes, from their joint counts."""
    of_code = (codes == np.arange(bins)[:, None]).astype(np.float32)
    joint = np.stack([of_code @ (pixels == each) for each in range(bins)]) / len(codes)
    apart = joint.sum(0, keepdims=True) * joint.sum(1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(joint > 0, joint * np.log(joint / apart), 0.0)
    return terms.sum((0, 1))
