"""Hash tables of merges, and tries of tokens.

Merges are kept in a hash table with open addressing: `[2 * slots]` int64, keys and values side by side, `left << 32 | right` ->
`rank << 32 | merged`. A trie is a hash table of edges, `[slots]` int64 `node << 36 | byte << 28 | next node`, and for each node
the id that ends there.
"""

import numpy as np

from zett.vocab.compiled.jit import jit

NONE = -1  # no id, no value; and the key of an empty slot


@jit
def new_table(entries):
    slots = 16
    while slots < 2 * entries:
        slots *= 2
    return np.full(2 * slots, NONE, np.int64)


@jit
def _hash(key):
    return np.int64(np.uint64(key * np.int64(-7046029254386353131)) >> np.uint64(32))


@jit
def slot_of(table, key):
    """The index of the key, or of the empty slot where it belongs."""
    mask = len(table) // 2 - 1
    slot = _hash(key) & mask
    while table[2 * slot] != key and table[2 * slot] != NONE:
        slot = (slot + 1) & mask
    return 2 * slot


@jit
def get(table, key):
    at = slot_of(table, key)
    return table[at + 1]  # NONE where the slot is empty


@jit
def doubled(array):
    larger = np.zeros(2 * len(array), array.dtype)
    larger[: len(array)] = array
    return larger


@jit
def regrown(table):
    larger = new_table(len(table) // 2)
    for at in range(0, len(table), 2):
        if table[at] != NONE:
            new = slot_of(larger, table[at])
            larger[new], larger[new + 1] = table[at], table[at + 1]
    return larger


@jit
def merge_table(left, right, merged):
    """A table of merges that are given in the order of their ranks; if one is given twice, the last counts."""
    table = new_table(len(left))
    for rank in range(len(left)):
        key = np.int64(left[rank]) << 32 | np.int64(right[rank])
        at = slot_of(table, key)
        table[at] = key
        table[at + 1] = np.int64(rank) << 32 | np.int64(merged[rank])
    return table


@jit
def _edge(edges, node, byte):
    """The slot of the edge, or the empty one where it belongs."""
    mask = len(edges) - 1
    key = node << 8 | byte
    slot = _hash(key) & mask
    while edges[slot] != NONE and edges[slot] >> 28 != key:
        slot = (slot + 1) & mask
    return slot


@jit
def next_node(edges, node, byte):
    """The node that the edge leads to, or NONE."""
    entry = edges[_edge(edges, node, np.int64(byte))]
    return entry & 0xFFFFFFF if entry >= 0 else np.int64(NONE)


@jit
def trie(text, starts, ids, roots):
    """A trie of packed strings: its edges, and `[nodes]` the id of the string that ends at each.

    roots: `[N]` the node that each string starts from, 0 or 1.
    """
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
