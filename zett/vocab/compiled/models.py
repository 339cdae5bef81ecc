"""The models of tokenizers: byte-pair encoding, Unigram and WordPiece, over packed strings.

`byte_ids[b]` is the id for byte b where the vocabulary has no piece for it.
"""

import numpy as np

from zett.vocab.compiled.jit import jit
from zett.vocab.compiled.table import NONE, get, next_node
from zett.vocab.compiled.utf8 import char_at, run_end

NO_MERGE = np.int64(2**63 - 1)


@jit
def bpe(text, starts, roots, by_byte, chars, fallback, merges, edges, ends, usable, byte_ids):
    """Byte-pair encoding: merges in the order of their ranks, and of equal ranks the leftmost first.

    roots: `[N]` 1 for a string that goes on in a word, 0 for one that begins a word. by_byte: whether the first symbols are
    bytes; else they are characters. chars: `[4, points]` the id of each byte or character: row 0 for the first of a word, 1 for
    a later one, and 2 more for the last. fallback: `[256]` ids of bytes, which together spell a character without an id. edges,
    ends: a trie of strings that are taken whole, before any merge. usable: `[size]` bool, whether an id stands for its text.
    Symbols without an id are not merged.
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
            end = stop if by_byte else run_end(text, start, stop)
            if end == start:  # a byte that is not UTF-8
                out[k] = byte_ids[text[start]]
                k += 1
                start += 1
                continue
            if len(ends) > 2:
                node = np.int64(0)
                i = start
                while i < end and node >= 0:
                    node = next_node(edges, node, text[i])
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
                    point, length = char_at(text, i, end)
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
    value = get(merges, left << 32 | right)
    return NO_MERGE if value < 0 else value


@jit
def unigram(text, starts, by_byte, edges, ends, scores, unknown, byte_ids):
    """The most probable pieces; of equally probable ways, the one whose last piece begins first.

    by_byte: as in `bpe`. scores: `[size]` float64 by id. unknown: the score of a character that is no piece.
    """
    longest = np.int64(0)
    for t in range(len(starts) - 1):
        longest = max(longest, starts[t + 1] - starts[t])
    best = np.empty(
        longest + 1, np.float64
    )  # the best score of a way to spell the run up to each end; ends count from the run's start
    ids = np.empty(longest + 1, np.int32)
    froms = np.empty(longest + 1, np.int64)
    out = np.empty(len(text), np.int32)
    counts = np.empty(len(starts) - 1, np.int64)
    k = 0
    for t in range(len(starts) - 1):
        before = k
        start, stop = starts[t], starts[t + 1]
        while start < stop:
            end = stop if by_byte else run_end(text, start, stop)
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
                length = 1 if by_byte or text[i] < 0x80 else char_at(text, i, end)[1]
                here = best[i - start]
                single = False
                node = np.int64(0)
                j = i
                while j < end:
                    node = next_node(edges, node, text[j])
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
    """Always the longest piece that fits. roots: `[N]` 0 for a string that begins a word, 1 for one that goes on in a word."""
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
                node = next_node(edges, node, text[j])
                if node < 0:
                    break
                j += 1
                if ends[node] >= 0:
                    piece, after = ends[node], j
            if piece >= 0:
                out[k] = piece
                k += 1
            else:
                after = i + char_at(text, i, starts[t + 1])[1]
                k = _spell(text, i, after, byte_ids, out, k)
            i = after
            root = np.int64(1)
        counts[t] = k - before
    return out[:k].copy(), counts


@jit
def _spell(text, start, end, byte_ids, out, k):
    """Append the ids of single bytes."""
    for i in range(start, end):
        out[k] = byte_ids[text[i]]
        k += 1
    return k
