"""Cosine similarities of many tokens with many others, and weights made from them."""

import numpy as np

BLOCK = 64  # columns; the maxima of blocks say where the large values of a row are


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1, float32; rows of zeros stay."""
    rows = rows.astype(np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)


def softmax(x: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def largest(values: np.ndarray, k: int) -> np.ndarray:
    """`[n, k]` the columns of the k largest of each row of `values [n, m]`, the largest first.

    They lie in the k blocks of columns whose maxima are largest, so few columns have to be compared with each other.
    """
    k = min(k, values.shape[1])
    blocks = np.argpartition(-_block_maxima(values), k - 1, axis=1)[:, :k] if values.shape[1] > k * BLOCK else None
    if blocks is None:
        columns = np.broadcast_to(np.arange(values.shape[1]), values.shape)
    else:
        columns = (blocks[:, :, None] * BLOCK + np.arange(BLOCK)).reshape(len(values), -1)
    found = np.where(columns < values.shape[1], _at(values, np.minimum(columns, values.shape[1] - 1)), -np.inf)
    some = np.argpartition(-found, k - 1, axis=1)[:, :k]
    order = np.argsort(-_at(found, some), axis=1, kind="stable")
    return _at(columns, _at(some, order))


def sparsemax(z: np.ndarray) -> np.ndarray:
    """The point of the simplex that is nearest to each row of `z [n, m]` (Martins and Astudillo, arXiv 1602.02068).

    That is max(z - t, 0), with t such that it sums up to 1. The t for the maxima of blocks is a lower bound, and close, so
    few values are left to be looked at. Newton's steps to t from below are exact after a few: the sum is convex and consists of
    straight parts.
    """
    maxima = _block_maxima(z)
    top = maxima.max(1, keepdims=True)  # differences to it are what is computed with, for the rounding
    t = _threshold(np.sort(maxima - top, axis=1)[:, ::-1])
    lines, columns = np.nonzero(z > t[:, None] + top)
    values = (z[lines, columns] - top[lines, 0]).astype(np.float64)
    for _ in range(64):
        above = values > t[lines]
        new = (np.bincount(lines, values * above, len(z)) - 1) / np.bincount(lines, above, len(z))
        if (new <= t).all():
            break
        t = np.maximum(new, t)
    out = np.zeros_like(z)
    out[lines, columns] = np.maximum(values - t[lines], 0)
    return out


def _threshold(ordered: np.ndarray) -> np.ndarray:
    """The t of `sparsemax` for rows that are sorted, the largest first."""
    totals, counts = ordered.cumsum(1, dtype=np.float64), np.arange(1, ordered.shape[1] + 1)
    size = (1 + counts * ordered > totals).sum(1)
    return (totals[np.arange(len(ordered)), size - 1] - 1) / size - 1e-6


def _block_maxima(values: np.ndarray) -> np.ndarray:
    return np.maximum.reduceat(values, np.arange(0, values.shape[1], BLOCK), axis=1)


def _at(values: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return np.take_along_axis(values, columns, 1)
