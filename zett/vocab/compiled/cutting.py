"""Cutting text into words, as regexes of tokenizers do.

Text comes as UTF-8, all texts in one array, text t at `starts[t]:starts[t + 1]`; a word is a range of bytes in it.
"""

import functools
from collections.abc import Sequence

import numpy as np

from zett.vocab.compiled.jit import jit
from zett.vocab.compiled.ranges import starts_of
from zett.vocab.compiled.table import NONE, doubled
from zett.vocab.compiled.utf8 import after_char, char_at
from zett.vocab.regexes import BERT, DIGITS, GPT2, PIECES, SENTENCES, SUPERWORDS, WORDS

_OTHER, _LETTER, _MARK, _NUMBER, _NEWLINE, _SPACE, _WHITE = range(7)


@functools.cache
def character_classes() -> np.ndarray:
    """`[0x110000]` uint8, the class of every code point; the regexes tell no more classes apart than these."""
    import regex

    classes = np.zeros(0x110000, np.uint8)
    # Surrogates are no characters. U+FFFF stands in their place, so that every code point is at its own index.
    every = "".join(chr(c) if not 0xD800 <= c < 0xE000 else "\uffff" for c in range(0x110000))
    for pattern, number in ((r"\p{L}+", _LETTER), (r"\p{M}+", _MARK), (r"\p{N}+", _NUMBER), (r"\s+", _WHITE)):
        for match in regex.finditer(pattern, every):
            classes[match.start() : match.end()] = number
    classes[[10, 13]], classes[32] = _NEWLINE, _SPACE
    return classes


def packed_texts(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """All texts as UTF-8 in one array, and where each starts `[T + 1]`."""
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    return np.frombuffer(b"".join(encoded), np.uint8), starts_of(np.asarray([len(e) for e in encoded], np.int64))


@jit
def classify(text, table):
    """The class of the character that each byte belongs to."""
    classes = np.empty(len(text), np.uint8)
    i = 0
    while i < len(text):
        point, length = char_at(text, i, len(text))
        classes[i : i + length] = table[
            point
        ]  # -1 for a surrogate, which is no character: it gets the class of the last code point
        i += length
    return classes


@jit
def _run(classes, i, end, mask):
    """The end of the run of characters from `i` on whose class is in `mask`."""
    while i < end and (mask >> classes[i]) & 1:
        i += 1
    return i


_LETTERS, _NUMBERS, _SIGNS, _LINES = 1 << _LETTER | 1 << _MARK, 1 << _NUMBER, 1 << _OTHER, 1 << _NEWLINE
_BLANK = 1 << _NEWLINE | 1 << _SPACE | 1 << _WHITE


@jit
def _contraction(text, i, end):
    """The end of 's, 't, 're, 've, 'm, 'll or 'd at `i`, or `i`."""
    if text[i] != 39 or i + 1 >= end:
        return i
    one = text[i + 1]
    if one == 115 or one == 116 or one == 109 or one == 100:
        return i + 2
    if i + 2 < end:
        two = text[i + 2]
        if (one == 114 and two == 101) or (one == 118 and two == 101) or (one == 108 and two == 108):
            return i + 3
    return i


@jit
def _mark_run(text, classes, i, end):
    """The end of the run of spaces and "▁" from `i` on."""
    while i < end:
        if classes[i] == _SPACE:
            i += 1
        elif text[i] == 0xE2 and text[i + 1] == 0x96 and text[i + 2] == 0x81:
            i += 3
        else:
            break
    return i


@jit
def _piece_end(text, classes, i, end):
    j = _mark_run(text, classes, i, end)
    if j < end and (_LETTERS >> classes[j]) & 1:
        return _run(classes, j, end, _LETTERS)
    if j < end and classes[j] == _NUMBER:
        return _number_end(text, classes, j, end, 3)
    if j < end and classes[j] == _OTHER:
        while j < end and classes[j] == _OTHER and _mark_run(text, classes, j, end) == j:
            j = after_char(text, j, end)
        return j
    return j if j > i else _run(classes, i, end, 1 << _NEWLINE | 1 << _WHITE)


@jit
def _joined_end(text, classes, i, end):
    """The end of the words from `i` on that single spaces or apostrophes join; `i` if no word begins there."""
    stop = _run(classes, i, end, _LETTERS)
    while stop > i and stop < end:
        if text[stop] == 32 or text[stop] == 39:
            after = stop + 1
        elif text[stop] == 0xE2 and text[stop + 1] == 0x80 and text[stop + 2] == 0x99:
            after = stop + 3
        else:
            break
        if after == end or not (_LETTERS >> classes[after]) & 1:
            break
        stop = _run(classes, after, end, _LETTERS)
    return stop


@jit
def _sentence_end(text, classes, i, end):
    """The end of a sentence's part, with the signs that end it, or of digits, or of line ends."""
    if classes[i] == _NUMBER:
        return _number_end(text, classes, i, end, 3)
    if classes[i] == _NEWLINE:
        return _run(classes, i, end, _LINES)
    while i < end and classes[i] != _NUMBER and classes[i] != _NEWLINE and not _ends_sentence(text[i]):
        i += 1
    while i < end and _ends_sentence(text[i]):
        i += 1
    return i


@jit
def _ends_sentence(byte):
    return byte == 46 or byte == 33 or byte == 63


@jit
def _number_end(text, classes, i, end, digits):
    for _ in range(digits):
        if i < end and classes[i] == _NUMBER:
            i = after_char(text, i, end)
    return i


@jit
def _blank_end(text, classes, i, end):
    r"""The end of what `\s+(?!\S)|\s+` matches: a run of white space, without its last character if something follows."""
    stop = _run(classes, i, end, _BLANK)
    if stop == end:
        return end
    last = stop - 1
    while text[last] & 0xC0 == 0x80:
        last -= 1
    return last if last > i else stop


@jit
def word_end(text, classes, i, end, style):
    """Where the word that begins at `i` ends, as the regex `STYLES[style]` matches there."""
    if style == PIECES:
        return _piece_end(text, classes, i, end)
    if style == SENTENCES:
        return _sentence_end(text, classes, i, end)
    j = i + 1 if classes[i] == _SPACE else i
    if style == SUPERWORDS:
        stop = _joined_end(text, classes, j, end)
        if stop > j:
            return stop
    if style == GPT2:
        stop = _contraction(text, i, end)
        for mask in (1 << _LETTER, _NUMBERS, _SIGNS | 1 << _MARK):
            if stop == i and j < end and (mask >> classes[j]) & 1:
                stop = _run(classes, j, end, mask)
        return stop if stop > i else _blank_end(text, classes, i, end)
    if style == BERT:
        mask = _LETTERS | _NUMBERS
        if j < end and (mask >> classes[j]) & 1:
            return _run(classes, j, end, mask)
        return after_char(text, i, end) if classes[i] == _OTHER else _blank_end(text, classes, i, end)
    if (_LETTERS >> classes[i]) & 1:
        return _run(classes, i, end, _LETTERS)
    if classes[i] == _NUMBER:
        return _number_end(text, classes, i, end, 1 if style == DIGITS else 3)
    after = after_char(text, i, end)
    if style != SUPERWORDS and classes[i] != _NEWLINE and after < end and (_LETTERS >> classes[after]) & 1:
        return _run(classes, after, end, _LETTERS)
    if j < end and classes[j] == _OTHER:
        return _run(classes, _run(classes, j, end, _SIGNS), end, _LINES)
    stop = _run(classes, i, end, _BLANK)
    while stop > i and classes[stop - 1] != _NEWLINE:
        stop -= 1
    return stop if stop > i else _blank_end(text, classes, i, end)


@jit
def _distinct(text, starts, classes, style):
    """See `distinct_words`."""
    slots = np.full(1 << 12, NONE, np.int64)
    begins, ends, hashes = np.empty(1 << 11, np.int64), np.empty(1 << 11, np.int64), np.empty(1 << 11, np.uint64)
    occurrences = np.empty(len(text), np.int32)
    stops = np.empty(len(starts) - 1, np.int64)
    found, n = 0, 0
    for t in range(len(starts) - 1):
        i, end = starts[t], starts[t + 1]
        while i < end:
            j = word_end(text, classes, i, end, style)
            code = np.uint64(0xCBF29CE484222325)
            for k in range(i, j):
                code = (code ^ np.uint64(text[k])) * np.uint64(0x100000001B3)
            at = np.int64(code >> np.uint64(20)) & (len(slots) - 1)
            while True:
                word = slots[at]
                if word == NONE or (
                    hashes[word] == code and ends[word] - begins[word] == j - i and _equal(text, begins[word], i, j - i)
                ):
                    break
                at = (at + 1) & (len(slots) - 1)
            if word == NONE:
                word = found
                slots[at], begins[word], ends[word], hashes[word] = word, i, j, code
                found += 1
                if found == len(begins):
                    begins, ends, hashes = doubled(begins), doubled(ends), doubled(hashes)
                    slots = np.full(2 * len(slots), NONE, np.int64)
                    for w in range(found):
                        at = np.int64(hashes[w] >> np.uint64(20)) & (len(slots) - 1)
                        while slots[at] != NONE:
                            at = (at + 1) & (len(slots) - 1)
                        slots[at] = w
            occurrences[n] = word
            n += 1
            i = j
        stops[t] = n
    return begins[:found].copy(), ends[:found].copy(), occurrences[:n].copy(), stops


@jit
def _equal(text, a, b, length):
    for k in range(length):
        if text[a + k] != text[b + k]:
            return False
    return True


def distinct_words(text: np.ndarray, starts: np.ndarray, style: int = WORDS):
    """The distinct words of packed texts: where each first begins and ends `[W]`; the texts as numbers of words `[N]`; and
    where in these each text ends `[T]`.
    """
    return _distinct(text, starts, classify(text, character_classes()), style)
