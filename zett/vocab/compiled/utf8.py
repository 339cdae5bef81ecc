"""Reading UTF-8 as Python's decoder does, but going on after bytes that are not UTF-8."""

import numpy as np

from zett.vocab.compiled.jit import jit


@jit
def char_at(text, i, end):
    """The character at byte i as (code point, length); (-1, 1) for a byte that begins none."""
    a = np.int64(text[i])
    if a < 0x80:
        return a, 1
    length = 2 if a < 0xE0 else 3 if a < 0xF0 else 4
    if a < 0xC2 or a > 0xF4 or i + length > end:
        return np.int64(-1), 1
    b = np.int64(text[i + 1])
    lowest = 0xA0 if a == 0xE0 else 0x90 if a == 0xF0 else 0x80
    highest = 0x9F if a == 0xED else 0x8F if a == 0xF4 else 0xBF
    if b < lowest or b > highest:
        return np.int64(-1), 1
    point = (a & (0x7F >> length)) << 6 | (b & 0x3F)
    for k in range(2, length):
        c = np.int64(text[i + k])
        if c & 0xC0 != 0x80:
            return np.int64(-1), 1
        point = point << 6 | (c & 0x3F)
    return point, length


@jit
def run_end(text, i, end):
    """Where the valid UTF-8 that begins at byte i ends."""
    while i < end:
        length = 1
        if text[i] >= 0x80:
            point, length = char_at(text, i, end)
            if point < 0:
                break
        i += length
    return i


@jit
def after_char(text, i, end):
    i += 1
    while i < end and text[i] & 0xC0 == 0x80:
        i += 1
    return i
