"""The largest eigenpairs of a symmetric operator that is only ever applied, by Lanczos."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh
from torch import Tensor

from rlbilinear.spectrum import Spectrum, by_size, fix_signs

Apply = Callable[[Float[Tensor, "inputs"]], Float[Tensor, "inputs"]]
"""A symmetric matrix times a vector, in float64."""


ROUNDS = 20
"""Searches for copies of eigenvalues; one finds all where none is multiple."""


def lanczos(apply: Apply, size: int, k: int, *, tolerance: float, like: Tensor) -> Spectrum:
    """Return the ``k`` eigenpairs of largest ``|value|`` of a symmetric operator.

    ARPACK's implicitly restarted Lanczos, to machine precision, from start vectors that are always
    the same; memory is that of about ``2 k`` vectors. Krylov spaces can miss copies of a multiple
    eigenvalue, so what is left after taking out the pairs found is searched as well, until nothing
    in it is larger than what was kept.

    Args:
        apply: the matrix, as a function of a float64 vector on the device of ``like``.
        size: of the matrix.
        k: at most how many pairs, ``0 <= k < size - 1``.
        tolerance: values up to it are rounding errors of zero, and left out.
        like: gives the device.

    Raises:
        RuntimeError: Lanczos did not converge.
    """
    rng = np.random.default_rng(0)
    values, vectors = np.zeros(0), np.zeros((size, 0))

    def rest(x: Float[np.ndarray, "inputs"]) -> Float[np.ndarray, "inputs"]:
        x = x.reshape(size)  # ARPACK gives (size,), scipy's own checks (size, 1)
        y = apply(torch.from_numpy(x.copy()).to(like)).cpu().numpy()
        return y - vectors @ (values * (vectors.T @ x))

    def search(count: int, accuracy: float) -> tuple[np.ndarray, np.ndarray]:
        # A new vector each time: the last one has no part in the copies that it did not find.
        start = rng.standard_normal(size)
        if np.linalg.norm(rest(start)) <= tolerance * np.linalg.norm(start):
            return np.zeros(0), np.zeros((size, 0))  # nothing is left, which ARPACK refuses
        operator = LinearOperator((size, size), matvec=rest, dtype=np.float64)
        try:
            return eigsh(operator, count, which="LM", v0=start, tol=accuracy)
        except ArpackError as error:
            raise RuntimeError(f"Lanczos found no {count} eigenpairs of {size}: {error}") from error

    for _ in range(ROUNDS):
        found = search(k + 1, 0.0)  # one more: of the last two of one size the first is kept
        values = np.concatenate([values, found[0]])
        vectors = np.concatenate([vectors, found[1]], 1)
        kept = np.argsort(-np.abs(values), kind="stable")[: k + 1]
        values, vectors = values[kept], vectors[:, kept]
        # A missed copy of a kept eigenvalue is far above the rest: a rough look at that shows it.
        left = np.abs(search(1, 1e-3)[0]).max(initial=0.0)
        if left <= max(np.abs(values[-1:]).sum() * (1 + 1e-9), tolerance):
            break
    else:
        raise RuntimeError(f"Lanczos still finds larger eigenvalues after {ROUNDS} rounds")
    order = np.argsort(values, kind="stable")
    order = order[by_size(values[order])]
    order = order[np.abs(values[order]) > tolerance][:k]
    rows = torch.from_numpy(vectors.T[order]).to(like)
    return Spectrum(torch.from_numpy(values[order]).to(like), fix_signs(rows))
