"""Compiled loops over the bytes of tokens. Importing this imports numba; machine code is cached: only a first start compiles.

Strings come packed: all bytes in one array, string t at `starts[t]:starts[t + 1]`. Pieces go out likewise: the ids of all
strings in one array, and the number of pieces of each. `byte_ids[b]` is for byte b where the vocabulary has no piece for it.

Merges are kept in a hash table with open addressing: `[2 * slots]` int64, keys and values side by side, `left << 32 | right` ->
`rank << 32 | merged`. A trie is a hash table of edges, `[slots]` int64 `node << 36 | byte << 28 | next node`, and for each node
the id that ends there.
"""

import contextlib
import functools
import hashlib
import tempfile
from pathlib import Path
from typing import Any

import numba
import numpy as np

from zett.files.cache import cache_folder

NONE = -1  # no id, no value; and the key of an empty slot
NO_MERGE = np.int64(2**63 - 1)
SOURCES = ("kernels", "words")  # the modules here whose functions are compiled


def jit(function):
    """Compile when first called, and keep the machine code, if there is a folder for it."""
    assert function.__module__.rpartition(".")[2] in SOURCES, function.__module__
    folder = _machine_code()
    if folder is None:
        return numba.njit(nogil=True)(function)
    settings: Any = numba.config
    given, settings.CACHE_DIR = settings.CACHE_DIR, folder
    try:
        return numba.njit(cache=True, nogil=True)(function)
    finally:
        settings.CACHE_DIR = given


@functools.cache
def _machine_code() -> str | None:
    """A folder to keep machine code in: in `$NUMBA_CACHE_DIR`, else beside the source, else in zett's cache folder.

    numba compares the source of a function with that of its machine code, but not those of the functions that it calls, which
    may have been inlined from another file: so the folder is named by all of them.
    """
    here = Path(__file__).parent
    digest = hashlib.sha256(b"".join((here / f"{name}.py").read_bytes() for name in SOURCES)).hexdigest()
    given = numba.config.CACHE_DIR  # type: ignore[attr-defined]
    for parent in (Path(given),) if given else (here / "__pycache__", cache_folder() / "numba"):
        folder = parent / f"zett-{digest[:16]}"
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
            return str(folder)
    return None


# ------------------------------------------------------------------------------------------------------------ hash tables


@jit
def _new_table(entries):
    slots = 16
    while slots < 2 * entries:
        slots *= 2
    return np.full(2 * slots, NONE, np.int64)


@jit
def _hash(key):
    return np.int64(np.uint64(key * np.int64(-7046029254386353131)) >> np.uint64(32))


@jit
def _slot(table, key):
    """Where the key is, or where it would be put."""
    mask = len(table) // 2 - 1
    slot = _hash(key) & mask
    while table[2 * slot] != key and table[2 * slot] != NONE:
        slot = (slot + 1) & mask
    return 2 * slot


@jit
def _get(table, key):
    at = _slot(table, key)
    return table[at + 1]  # NONE where the slot is empty


@jit
def merge_table(left, right, merged):
    """The merges, in the order of their ranks; where one comes twice, the last counts."""
    table = _new_table(len(left))
    for rank in range(len(left)):
        key = np.int64(left[rank]) << 32 | np.int64(right[rank])
        at = _slot(table, key)
        table[at] = key
        table[at + 1] = np.int64(rank) << 32 | np.int64(merged[rank])
    return table


@jit
def _edge(edges, node, byte):
    """Where the edge is, or where it would be put."""
    mask = len(edges) - 1
    key = node << 8 | byte
    slot = _hash(key) & mask
    while edges[slot] != NONE and edges[slot] >> 28 != key:
        slot = (slot + 1) & mask
    return slot


@jit
def _next(edges, node, byte):
    """The node that the edge leads to, or NONE."""
    entry = edges[_edge(edges, node, np.int64(byte))]
    return entry & 0xFFFFFFF if entry >= 0 else np.int64(NONE)


@jit
def trie(text, starts, ids, roots):
    """Edges, and `[nodes]` the id that ends there. roots: `[N]` 0 or 1, the node that a string begins at."""
    edges = np.full(32, NONE, np.int64)
    ends = np.full(len(text) + 2, NONE, np.int32)
    nodes = 2
    for n in range(len(ids)):
        node = np.int64(roots[n])
        for i in range(starts[n], starts[n + 1]):
            at = _edge(edges, node, np.int64(text[i]))
            if edges[at] == NONE:
                edges[at] = node << 36 | np.int64(text[i]) << 28 | nodes
                nodes += 1
                if 2 * nodes > len(edges):
                    grown = np.full(2 * len(edges), NONE, np.int64)
                    for entry in edges:
                        if entry != NONE:
                            grown[_edge(grown, entry >> 36, entry >> 28 & 0xFF)] = entry
                    edges = grown
                node = np.int64(nodes - 1)
            else:
                node = edges[at] & 0xFFFFFFF
        ends[node] = ids[n]
    return edges, ends[:nodes].copy()


# ---------------------------------------------------------------------------------------------------------------- UTF-8


@jit
def _char(text, i, end):
    """The character at byte i as (code point, length); (-1, 1) for a byte that begins none. As Python's decoder has it."""
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
def _run_end(text, i, end):
    """Where the valid UTF-8 that begins at byte i ends."""
    while i < end:
        length = 1
        if text[i] >= 0x80:
            point, length = _char(text, i, end)
            if point < 0:
                break
        i += length
    return i


@jit
def _spell(text, start, end, byte_ids, out, k):
    """Append the ids of single bytes."""
    for i in range(start, end):
        out[k] = byte_ids[text[i]]
        k += 1
    return k


# --------------------------------------------------------------------------------------------------------------- models


@jit
def bpe(text, starts, roots, by_byte, chars, fallback, merges, edges, ends, usable, byte_ids):
    """Byte-pair encoding in the order of the merges; of equal ranks the leftmost first.

    roots: `[N]` 1 where a string goes on in a word, 0 where it begins one. by_byte: whether symbols begin as bytes, or else as
    characters. chars: `[4, points]` id of each byte or character; the row is 1 if it is not a word's first, and 2 more if it is
    the last. fallback: `[256]` ids that together spell a character which is not in there. edges, ends: strings that are taken
    whole before any merge. usable: `[size]` bool, whether an id stands for its text. What has no id is not merged.
    """
    longest = np.int64(0)
    for t in range(len(starts) - 1):
        longest = max(longest, starts[t + 1] - starts[t])
    symbols = np.empty(longest + 1, np.int64)
    begins = np.empty(longest + 1, np.int64)
    values = np.empty(longest + 1, np.int64)
    out = np.empty(len(text), np.int32)
    counts = np.empty(len(starts) - 1, np.int64)
    k = 0
    for t in range(len(starts) - 1):
        before = k
        start, stop = starts[t], starts[t + 1]
        while start < stop:
            end = stop if by_byte else _run_end(text, start, stop)
            if end == start:  # a byte that is not UTF-8
                out[k] = byte_ids[text[start]]
                k += 1
                start += 1
                continue
            if len(ends) > 2:
                node = np.int64(0)
                i = start
                while i < end and node >= 0:
                    node = _next(edges, node, text[i])
                    i += 1
                if node >= 0 and ends[node] >= 0:
                    out[k] = ends[node]
                    k += 1
                    start = end
                    continue
            n = 0
            i = start
            while i < end:
                if by_byte or text[i] < 0x80:
                    point, length = np.int64(text[i]), 1
                else:
                    point, length = _char(text, i, end)
                row = (1 if i > starts[t] or roots[t] else 0) + (2 if i + length == end else 0)
                symbol = np.int64(chars[row, point]) if point < chars.shape[1] else np.int64(NONE)
                spelled = symbol < 0
                for j in range(i, i + length):
                    spelled = spelled and fallback[text[j]] >= 0
                if spelled:
                    for j in range(i, i + length):
                        symbols[n] = fallback[text[j]]
                        begins[n] = j
                        n += 1
                else:
                    symbols[n] = symbol
                    begins[n] = i
                    n += 1
                i += length
            begins[n] = end
            for j in range(n - 1):
                values[j] = _merge(merges, symbols[j], symbols[j + 1])
            while n > 1:
                best = 0
                for j in range(1, n - 1):
                    if values[j] < values[best]:
                        best = j
                if values[best] == NO_MERGE:
                    break
                symbols[best] = values[best] & 0xFFFFFFFF
                n -= 1
                for j in range(best + 1, n):
                    symbols[j] = symbols[j + 1]
                    begins[j] = begins[j + 1]
                    values[j - 1] = values[j]
                begins[n] = end
                if best > 0:
                    values[best - 1] = _merge(merges, symbols[best - 1], symbols[best])
                if best < n - 1:
                    values[best] = _merge(merges, symbols[best], symbols[best + 1])
            for j in range(n):
                if symbols[j] >= 0 and usable[symbols[j]]:
                    out[k] = symbols[j]
                    k += 1
                else:
                    k = _spell(text, begins[j], begins[j + 1], byte_ids, out, k)
            start = end
        counts[t] = k - before
    return out[:k].copy(), counts


@jit
def _merge(merges, left, right):
    if left < 0 or right < 0:
        return NO_MERGE
    value = _get(merges, left << 32 | right)
    return NO_MERGE if value < 0 else value


@jit
def unigram(text, starts, by_byte, edges, ends, scores, unknown, byte_ids):
    """The most probable pieces; of equally probable ways, the one whose last piece begins first.

    by_byte: as in `bpe`. scores: `[size]` float64 by id. unknown: the score of a character that no piece is.
    """
    longest = np.int64(0)
    for t in range(len(starts) - 1):
        longest = max(longest, starts[t + 1] - starts[t])
    best = np.empty(longest + 1, np.float64)  # by end, counted from the run's start
    ids = np.empty(longest + 1, np.int32)
    froms = np.empty(longest + 1, np.int64)
    out = np.empty(len(text), np.int32)
    counts = np.empty(len(starts) - 1, np.int64)
    k = 0
    for t in range(len(starts) - 1):
        before = k
        start, stop = starts[t], starts[t + 1]
        while start < stop:
            end = stop if by_byte else _run_end(text, start, stop)
            if end == start:  # a byte that is not UTF-8
                out[k] = byte_ids[text[start]]
                k += 1
                start += 1
                continue
            size = end - start
            froms[: size + 1] = -1
            best[0] = 0.0
            i = start
            while i < end:
                length = 1 if by_byte or text[i] < 0x80 else _char(text, i, end)[1]
                here = best[i - start]
                single = False
                node = np.int64(0)
                j = i
                while j < end:
                    node = _next(edges, node, text[j])
                    if node < 0:
                        break
                    j += 1
                    piece = ends[node]
                    if piece >= 0:
                        score = scores[piece] + here
                        if froms[j - start] < 0 or score > best[j - start]:
                            best[j - start] = score
                            froms[j - start] = i - start
                            ids[j - start] = piece
                        single = single or j - i == length
                if not single:
                    at = i + length - start
                    if froms[at] < 0 or unknown + here > best[at]:
                        best[at] = unknown + here
                        froms[at] = i - start
                        ids[at] = NONE
                i += length
            # Written from the end, then turned round.
            first = k
            at = size
            while at > 0:
                if ids[at] >= 0:
                    out[k] = ids[at]
                    k += 1
                else:
                    for i in range(at - 1, froms[at] - 1, -1):
                        out[k] = byte_ids[text[start + i]]
                        k += 1
                at = froms[at]
            for i in range((k - first) // 2):
                out[first + i], out[k - 1 - i] = out[k - 1 - i], out[first + i]
            start = end
        counts[t] = k - before
    return out[:k].copy(), counts


@jit
def wordpiece(text, starts, roots, edges, ends, byte_ids):
    """Always the longest piece that fits. roots: `[N]` 0 where a string begins a word, 1 where it goes on in one."""
    out = np.empty(len(text), np.int32)
    counts = np.empty(len(starts) - 1, np.int64)
    k = 0
    for t in range(len(starts) - 1):
        before = k
        root = np.int64(roots[t])
        i = starts[t]
        while i < starts[t + 1]:
            node = root
            piece, after = np.int32(NONE), i
            j = i
            while j < starts[t + 1]:
                node = _next(edges, node, text[j])
                if node < 0:
                    break
                j += 1
                if ends[node] >= 0:
                    piece, after = ends[node], j
            if piece >= 0:
                out[k] = piece
                k += 1
            else:
                after = i + _char(text, i, starts[t + 1])[1]
                k = _spell(text, i, after, byte_ids, out, k)
            i = after
            root = np.int64(1)
        counts[t] = k - before
    return out[:k].copy(), counts
