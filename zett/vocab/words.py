"""Compiled passes over text: cutting it into words as the regexes do, counting words and their substrings.

Text comes as UTF-8, all texts in one array, text t at `starts[t]:starts[t + 1]`; a word is a range of bytes in it.
"""

import functools
from collections.abc import Sequence

import numpy as np

from zett.vocab.build import PIECE_REGEX, WORD_REGEX
from zett.vocab.kernels import NONE, _char, _get, _new_table, _slot, jit

# Tokenizers in use cut words in several ways: like cl100k, like GPT-2 (digits with their word), with single digits; runs of "▁"
# with what follows, as SentencePiece; words and single signs, as BERT, whose spaces are kept here.
GPT2_REGEX = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
DIGIT_REGEX = WORD_REGEX.replace(r"\p{N}{1,3}", r"\p{N}")
BERT_REGEX = r" ?[\p{L}\p{M}\p{N}]+|[^\s\p{L}\p{M}\p{N}]|\s+(?!\S)|\s+"
STYLES = (WORD_REGEX, GPT2_REGEX, DIGIT_REGEX, PIECE_REGEX, BERT_REGEX)
WORDS, GPT2, DIGITS, PIECES, BERT = range(5)

_OTHER, _LETTER, _MARK, _NUMBER, _NEWLINE, _SPACE, _WHITE = range(7)
_LONGEST = 64  # characters of a word whose substrings are counted


@functools.cache
def character_classes() -> np.ndarray:
    """`[0x110000]` uint8: what the regexes tell apart, of every character."""
    import regex

    classes = np.zeros(0x110000, np.uint8)
    # Surrogates are no characters; any other keeps the places.
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
def _classify(text, table):
    """The class of the character that each byte belongs to."""
    classes = np.empty(len(text), np.uint8)
    i = 0
    while i < len(text):
        point, length = _char(text, i, len(text))
        classes[i : i + length] = table[point]  # of a surrogate, which is no character: as of the last code point
        i += length
    return classes


@jit
def _after_char(text, i, end):
    i += 1
    while i < end and text[i] & 0xC0 == 0x80:
        i += 1
    return i


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
            j = _after_char(text, j, end)
        return j
    return j if j > i else _run(classes, i, end, 1 << _NEWLINE | 1 << _WHITE)


@jit
def _number_end(text, classes, i, end, digits):
    for _ in range(digits):
        if i < end and classes[i] == _NUMBER:
            i = _after_char(text, i, end)
    return i


@jit
def _blank_end(text, classes, i, end):
    r"""`\s+(?!\S)|\s+`: a run of white space, but for its last character if something follows."""
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
    j = i + 1 if classes[i] == _SPACE else i
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
        return _after_char(text, i, end) if classes[i] == _OTHER else _blank_end(text, classes, i, end)
    if (_LETTERS >> classes[i]) & 1:
        return _run(classes, i, end, _LETTERS)
    if classes[i] == _NUMBER:
        return _number_end(text, classes, i, end, 1 if style == DIGITS else 3)
    after = _after_char(text, i, end)
    if classes[i] != _NEWLINE and after < end and (_LETTERS >> classes[after]) & 1:
        return _run(classes, after, end, _LETTERS)
    if j < end and classes[j] == _OTHER:
        return _run(classes, _run(classes, j, end, _SIGNS), end, _LINES)
    stop = _run(classes, i, end, _BLANK)
    while stop > i and classes[stop - 1] != _NEWLINE:
        stop -= 1
    return stop if stop > i else _blank_end(text, classes, i, end)


@jit
def _words(text, starts, classes, style):
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
                    begins, ends, hashes = _doubled(begins), _doubled(ends), _doubled(hashes)
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


@jit
def _doubled(array):
    larger = np.zeros(2 * len(array), array.dtype)
    larger[: len(array)] = array
    return larger


def distinct_words(text: np.ndarray, starts: np.ndarray, style: int = WORDS):
    """Words of packed texts: where each distinct one first begins and ends `[W]`, the word of every occurrence `[N]`, and where
    each text's occurrences end `[T]`.
    """
    return _words(text, starts, _classify(text, character_classes()), style)


# -------------------------------------------------------------------------------------------------------- substrings


@jit
def _step(table, node, byte):
    return _get(table, np.int64(node) << 8 | byte)


@jit
def _substrings(text, begins, ends, weights, max_bytes):
    """A trie of the substrings of words: (table, count of each node, where it first begins, its length)."""
    table = _new_table(1 << 12)
    counts, where, lengths = np.zeros(1 << 12), np.zeros(1 << 12, np.int64), np.zeros(1 << 12, np.int32)
    nodes = 1
    for w in range(len(begins)):
        stop = begins[w]
        for _ in range(_LONGEST):
            if stop < ends[w]:
                stop = _after_char(text, stop, ends[w])
        for start in range(begins[w], stop):
            if text[start] & 0xC0 == 0x80:
                continue
            node = np.int64(0)
            for i in range(start, min(stop, start + max_bytes)):
                if nodes == len(counts):
                    counts, where, lengths = _doubled(counts), _doubled(where), _doubled(lengths)
                    table = _regrown(table)
                key = node << 8 | text[i]
                at = _slot(table, key)
                if table[at] == NONE:
                    table[at], table[at + 1] = key, nodes
                    where[nodes], lengths[nodes] = start, i + 1 - start
                    nodes += 1
                node = table[at + 1]
                if i > start and (i + 1 == stop or text[i + 1] & 0xC0 != 0x80):
                    counts[node] += weights[w]
    return table, counts[:nodes].copy(), where[:nodes].copy(), lengths[:nodes].copy()


@jit
def _regrown(table):
    larger = _new_table(len(table) // 2)
    for at in range(0, len(table), 2):
        if table[at] != NONE:
            new = _slot(larger, table[at])
            larger[new], larger[new + 1] = table[at], table[at + 1]
    return larger


@jit
def _per_cell(table, number, text, begins, ends, cells, max_bytes, out):
    """Add each word's counts `cells [W, C]` to those of its numbered substrings `out [C, N]`."""
    for w in range(len(begins)):
        stop = begins[w]
        for _ in range(_LONGEST):
            if stop < ends[w]:
                stop = _after_char(text, stop, ends[w])
        for start in range(begins[w], stop):
            if text[start] & 0xC0 == 0x80:
                continue
            node = np.int64(0)
            for i in range(start, min(stop, start + max_bytes)):
                node = _step(table, node, text[i])
                if number[node] >= 0 and i > start and (i + 1 == stop or text[i + 1] & 0xC0 != 0x80):
                    for c in range(cells.shape[1]):
                        out[c, number[node]] += cells[w, c]


def count_substrings(text, begins, ends, cells, *, max_bytes: int, limit: int, skip: Sequence[bytes]):
    """The best substrings of words by count x length: (packed bytes, starts `[N + 1]`, counts `[C, N]` float32).

    Substrings are runs of whole characters of 2 to `max_bytes` bytes in the first 64 characters of a word; cells `[W, C]` says
    how often each word occurs in each of C parts of the text. `limit` of them are kept, behind those of `skip`, which
    are always there, in their order.
    """
    totals = cells.sum(1)
    table, counts, where, lengths = _substrings(text, begins, ends, totals.astype(np.float64), max_bytes)
    number = np.full(len(counts), -1, np.int32)
    required = []
    for i, token in enumerate(skip):
        node = 0
        for byte in token:
            node = _step(table, node, byte) if node != NONE else NONE
        if node != NONE and counts[node]:
            number[node] = i
            required.append(node)
    scores = counts * lengths
    scores[required] = 0
    # Nodes are numbered as they are met, which decides ties.
    order = np.argsort(-scores, kind="stable")[:limit]
    order = order[scores[order] > 0]
    number[order] = np.arange(len(order)) + len(skip)
    out = np.zeros((cells.shape[1], len(skip) + len(order)), np.float32)
    _per_cell(table, number, text, begins, ends, np.ascontiguousarray(cells, np.float32), max_bytes, out)
    head = np.frombuffer(b"".join(skip), np.uint8)
    starts = starts_of(np.concatenate([[len(token) for token in skip], lengths[order]]))
    return np.concatenate([head, gather(text, where[order], lengths[order])]), starts, out


def gather(data: np.ndarray, begins: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The ranges `begins[i] : begins[i] + lengths[i]` of an array, one after the other; read-only."""
    starts = starts_of(lengths)
    found = np.asarray(data)[np.arange(starts[-1]) + np.repeat(begins - starts[:-1], lengths)]
    found.flags.writeable = False  # to numba another type, for which it would compile everything once more
    return found


def starts_of(lengths: np.ndarray) -> np.ndarray:
    """`[N + 1]` int64, where ranges of these lengths start that lie one after the other."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


@jit
def _extensions(data, starts, backwards):
    table = _new_table(len(data) + 1)
    parent, below = np.zeros(len(data) + 1, np.int64), np.zeros(len(data) + 1, np.int64)
    own = np.zeros(len(data) + 1, np.bool_)
    node_of = np.zeros(len(starts) - 1, np.int64)
    nodes = 1
    for t in range(len(starts) - 1):
        node = np.int64(0)
        for k in range(starts[t + 1] - starts[t]):
            byte = data[starts[t + 1] - 1 - k] if backwards else data[starts[t] + k]
            key = node << 8 | byte
            at = _slot(table, key)
            if table[at] == NONE:
                table[at], table[at + 1] = key, nodes
                parent[nodes] = node
                nodes += 1
            node = table[at + 1]
        node_of[t] = node
        if not own[node]:
            own[node] = True
            while node:
                node = parent[node]
                below[node] += 1
    below[0] = 0
    return below[node_of]


def extensions(data: np.ndarray, starts: np.ndarray, *, backwards: bool = False) -> np.ndarray:
    """For each packed token, how many longer ones begin (`backwards`: end) with it."""
    return _extensions(data, starts, backwards)
