"""Strings that are packed one after the other in an array: where each starts, and how to take some of them."""

import numpy as np


def starts_of(lengths: np.ndarray) -> np.ndarray:
    """`[N + 1]` int64: where ranges of these lengths start that are packed one after the other; and where the last ends."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def gather(data: np.ndarray, begins: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The ranges `begins[i] : begins[i] + lengths[i]` of an array, one after the other; read-only."""
    starts = starts_of(lengths)
    found = np.asarray(data)[np.arange(starts[-1]) + np.repeat(begins - starts[:-1], lengths)]
    found.flags.writeable = (
        False  # for numba, a writable array is another type, for which it would compile everything once more
    )
    return found
