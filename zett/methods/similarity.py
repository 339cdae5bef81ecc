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

    That is max(z - t, 0), with t such that it sums up to 1. Newton's steps to t from below are exact after a few: the sum is
    convex and consists of straight parts. The solution for the maxima of blocks is a lower bound, and a close one.
    """
    z = z - z.max(1, keepdims=True)  # which changes nothing but the rounding
    t = _threshold(np.sort(_block_maxima(z), axis=1)[:, ::-1])
    for _ in range(64):
        above = z > t[:, None]
        count = above.sum(1)
        new = (np.where(above, z, 0).sum(1, dtype=np.float64) - 1) / count
        if (new <= t + 1e-7).all():
            break
        t = np.maximum(new, t).astype(np.float32)
    return np.maximum(z - t[:, None], 0)


def _threshold(ordered: np.ndarray) -> np.ndarray:
    """The t of `sparsemax` for rows that are sorted, the largest first."""
    totals, counts = ordered.cumsum(1, dtype=np.float64), np.arange(1, ordered.shape[1] + 1)
    size = (1 + counts * ordered > totals).sum(1)
    return ((totals[np.arange(len(ordered)), size - 1] - 1) / size - 1e-6).astype(np.float32)


def _block_maxima(values: np.ndarray) -> np.ndarray:
    return np.maximum.reduceat(values, np.arange(0, values.shape[1], BLOCK), axis=1)


def _at(values: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return np.take_along_axis(values, columns, 1)
