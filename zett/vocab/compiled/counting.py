"""Counting the substrings of words, and for each token the longer tokens that begin or end with it.

A word is a range of bytes in packed texts, as zett/vocab/compiled/cutting.py finds them.
"""

from collections.abc import Sequence

import numpy as np

from zett.vocab.compiled.jit import jit
from zett.vocab.compiled.ranges import gather, starts_of
from zett.vocab.compiled.table import NONE, doubled, get, new_table, regrown, slot_of
from zett.vocab.compiled.utf8 import after_char

_LONGEST = 64  # characters of a word whose substrings are counted


@jit
def _step(table, node, byte):
    return get(table, np.int64(node) << 8 | byte)


@jit
def _substrings(text, begins, ends, weights, max_bytes):
    """A trie of the substrings of words: (table; of each node its count, where its substring first begins, and its length)."""
    table = new_table(1 << 12)
    counts, where, lengths = np.zeros(1 << 12), np.zeros(1 << 12, np.int64), np.zeros(1 << 12, np.int32)
    nodes = 1
    for w in range(len(begins)):
        stop = begins[w]
        for _ in range(_LONGEST):
            if stop < ends[w]:
                stop = after_char(text, stop, ends[w])
        for start in range(begins[w], stop):
            if text[start] & 0xC0 == 0x80:
                continue
            node = np.int64(0)
            for i in range(start, min(stop, start + max_bytes)):
                if nodes == len(counts):
                    counts, where, lengths = doubled(counts), doubled(where), doubled(lengths)
                    table = regrown(table)
                key = node << 8 | text[i]
                at = slot_of(table, key)
                if table[at] == NONE:
                    table[at], table[at + 1] = key, nodes
                    where[nodes], lengths[nodes] = start, i + 1 - start
                    nodes += 1
                node = table[at + 1]
                if i > start and (i + 1 == stop or text[i + 1] & 0xC0 != 0x80):
                    counts[node] += weights[w]
    return table, counts[:nodes].copy(), where[:nodes].copy(), lengths[:nodes].copy()


@jit
def _per_cell(table, number, text, begins, ends, cells, max_bytes, out):
    """Add each word's counts `cells [W, C]` to those of its numbered substrings `out [C, N]`."""
    for w in range(len(begins)):
        stop = begins[w]
        for _ in range(_LONGEST):
            if stop < ends[w]:
                stop = after_char(text, stop, ends[w])
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

    A substring is a run of whole characters, of 2 to `max_bytes` bytes, in the first 64 characters of a word. cells `[W, C]`:
    how often each word occurs in each of C parts of the text. skip: tokens that come first in the result in any case, in
    their order; the `limit` best other substrings follow.
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
    # A stable sort, so that of equal scores the substring that was met first comes first.
    order = np.argsort(-scores, kind="stable")[:limit]
    order = order[scores[order] > 0]
    number[order] = np.arange(len(order)) + len(skip)
    out = np.zeros((cells.shape[1], len(skip) + len(order)), np.float32)
    _per_cell(table, number, text, begins, ends, np.ascontiguousarray(cells, np.float32), max_bytes, out)
    head = np.frombuffer(b"".join(skip), np.uint8)
    starts = starts_of(np.concatenate([[len(token) for token in skip], lengths[order]]))
    return np.concatenate([head, gather(text, where[order], lengths[order])]), starts, out


@jit
def _extensions(data, starts, backwards):
    table = new_table(len(data) + 1)
    parent, below = np.zeros(len(data) + 1, np.int64), np.zeros(len(data) + 1, np.int64)
    own = np.zeros(len(data) + 1, np.bool_)
    node_of = np.zeros(len(starts) - 1, np.int64)
    nodes = 1
    for t in range(len(starts) - 1):
        node = np.int64(0)
        for k in range(starts[t + 1] - starts[t]):
            byte = data[starts[t + 1] - 1 - k] if backwards else data[starts[t] + k]
            key = node << 8 | byte
            at = slot_of(table, key)
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
