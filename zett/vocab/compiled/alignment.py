"""Walking through two encodings of a text at the same time.

Tokens are packed strings of symbols, token t at `starts[t] : starts[t + 1]`: a byte is its number, a special token one symbol
from 256 on. A text is a row of ids, of which the first `lengths[row]` count.
"""

import numpy as np

from zett.vocab.compiled.jit import jit


@jit
def _is_white(symbol):
    return symbol == 32 or 9 <= symbol <= 13


@jit
def _is_of_word(symbol):
    """Letters, digits, "_", and whatever is not ASCII."""
    if symbol >= 128:
        return symbol < 256
    return 48 <= symbol <= 57 or 65 <= symbol <= 90 or symbol == 95 or 97 <= symbol <= 122


@jit
def _token_from(ids, number, length, starts):
    """The first token from `number` on that is not empty: its number in the row, and where its symbols start and end."""
    while number < length:
        begin, end = starts[ids[number]], starts[ids[number] + 1]
        if begin < end:
            return number, begin, end
        number += 1
    return number, np.int64(0), np.int64(0)


@jit
def shared_boundaries(ids_a, lengths_a, symbols_a, starts_a, skipped_a, ids_b, lengths_b, symbols_b, starts_b):
    """Boundaries that two encodings share: `[B, K, 2]` tokens before each, their number `[B]`, which are in words `[B, K]`.

    Of text a, `skipped_a [B]` symbols are passed over at the beginning. Then both texts are walked through together: equal
    symbols are passed over in both; where they differ, white space is passed over in the text that has it, first in a; else
    the walk ends. A boundary is shared where the walk is between two tokens of both. Of shared boundaries that follow each
    other without a token of both between them the last one counts: what comes after it is the same in both.
    """
    room = min(ids_a.shape[1], ids_b.shape[1]) + 1
    places = np.zeros((len(ids_a), room, 2), np.int32)
    counts = np.zeros(len(ids_a), np.int32)
    inner = np.zeros((len(ids_a), room), np.bool_)
    for row in range(len(ids_a)):
        length_a, length_b, skip, n = lengths_a[row], lengths_b[row], skipped_a[row], 0
        a, i, end_a = _token_from(ids_a[row], 0, length_a, starts_a)
        b, j, end_b = _token_from(ids_b[row], 0, length_b, starts_b)
        new_a, new_b, last = True, True, np.int64(-1)
        while True:
            if new_a and new_b and skip == 0:
                if n > 0 and (places[row, n - 1, 0] == a or places[row, n - 1, 1] == b):
                    n -= 1
                places[row, n, 0], places[row, n, 1] = a, b
                inner[row, n] = a < length_a and _is_of_word(last) and _is_of_word(symbols_a[i])
                n += 1
            if a == length_a and (b == length_b or skip > 0):
                break
            x = np.int64(symbols_a[i]) if a < length_a else np.int64(-1)
            y = np.int64(symbols_b[j]) if b < length_b else np.int64(-1)
            in_a, in_b = x == y or _is_white(x), x == y or (_is_white(y) and not _is_white(x))
            if skip > 0:
                skip, in_a, in_b = skip - 1, True, False
            if not in_a and not in_b:
                break
            if in_a:
                last = x
                i += 1
                new_a = i == end_a
                if new_a:
                    a, i, end_a = _token_from(ids_a[row], a + 1, length_a, starts_a)
            if in_b:
                j += 1
                new_b = j == end_b
                if new_b:
                    b, j, end_b = _token_from(ids_b[row], b + 1, length_b, starts_b)
        counts[row] = n
    return places, counts, inner
