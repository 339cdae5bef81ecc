"""The table of a whole vocabulary from a hypernetwork: in chunks of few shapes, without work that its tokens share or spare.

Half of a vocabulary and more are tokens of one piece. Attention of a position to itself alone gives back its value, so they go
through the layers by themselves, with one product in place of attention. The others are packed; what comes before the layers
depends on a piece and its position alone, and is computed once, however many tokens have it.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zett.hypernet.packing import PackedForms, pack_forms, renumbered, some_rows, with_rows
from zett.vocab import SurfaceForms


def side_by_side(sides: list[np.ndarray], ids: np.ndarray) -> np.ndarray:
    """Source rows `[U, E]` float32: input rows, and output rows beside them."""
    return np.concatenate([side[ids] for side in sides], -1).astype(np.float32)


def emitted(
    graphdef, params, sides: list[np.ndarray], forms: SurfaceForms, *, stats, language: int | None, chunk: int
) -> Iterator[tuple[np.ndarray, jax.Array]]:
    """Numbers of some tokens `[n]`, and rows of which the first n are theirs, until all tokens with pieces had their turn.

    A chunk is `chunk` positions. The next one is handed to the device before one is yielded, so that it is never idle.
    """
    single = (forms.lengths == 1) & (language is None)
    several = np.flatnonzero((forms.lengths > 0) & ~single)
    network = _Network(graphdef, params, sides, stats)
    chunks = [
        network.single(forms, np.flatnonzero(single), chunk),
        network.several(forms, several, chunk, language),
    ]
    waiting = None
    for current in (pair for part in chunks for pair in part):
        if waiting is not None:
            yield waiting
        waiting = current
    if waiting is not None:
        yield waiting


class _Network:
    """A hypernetwork with the source rows that it reads."""

    def __init__(self, graphdef, params, sides: list[np.ndarray], stats):
        self.graphdef, self.params, self.sides, self.stats = graphdef, params, sides, stats
        self.size = len(sides[0])

    def source(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rows of source ids, and their numbers among the fallback rows, -1 for those that are source rows."""
        is_row = ids < self.size
        return side_by_side(self.sides, np.where(is_row, ids, 0)), np.where(is_row, -1, ids - self.size).astype(np.int32)

    def single(self, forms: SurfaceForms, ids: np.ndarray, chunk: int) -> Iterator[tuple[np.ndarray, jax.Array]]:
        """Tokens of one piece."""
        if not len(ids):
            return
        values = _own_values(self.graphdef, self.params)
        for part, filled in _parts(ids, chunk):
            rows, fallback = self.source(forms.pieces[filled, 0])
            features = np.clip(forms.features[filled], -4, 4)
            yield part, _single_rows(self.graphdef, self.params, values, rows, fallback, features, self.stats)

    def several(
        self, forms: SurfaceForms, ids: np.ndarray, chunk: int, language: int | None
    ) -> Iterator[tuple[np.ndarray, jax.Array]]:
        """Tokens of several positions, packed."""
        if not len(ids):
            return
        packed = pack_forms(forms.take(ids), multiple=1, language=language)
        number, width = packed.packed.shape
        at_once = max(min(chunk // width, power_of_two(number)), 1)
        packed = with_rows(packed, -(-number // at_once) * at_once)
        numbers, table = self._placed(packed, len(ids), chunk)
        # A row holds tokens of two positions or more, so that it has at most half as many tokens as positions.
        for start in range(0, len(packed.packed), at_once):
            rows = slice(start, start + at_once)
            tokens, part = some_rows(packed, rows, at_once * width // 2)
            used, own = renumbered(part, self.size, room=at_once * width + 1)  # id 0 is always among them
            x = _rows_at(table, numbers[rows])
            yield ids[tokens], _packed_rows(self.graphdef, self.params, x, side_by_side(self.sides, used), own, self.stats)

    def _placed(self, packed: PackedForms, tokens: int, chunk: int) -> tuple[np.ndarray, jax.Array]:
        """Numbers `[N, P]` of the positions of `packed` in a table, and this table `[D, W]` of distinct placed pieces."""
        most = packed.pieces.shape[1]
        # Languages and padding are no pieces; what is read for them does not matter.
        is_piece = (packed.owner < tokens) & (packed.position < most)
        distinct, numbers = np.unique(
            np.where(is_piece, packed.packed.astype(np.int64) * most + packed.position, 0), return_inverse=True
        )
        parts: list[jax.Array] = []
        for _, filled in _parts(distinct, chunk):
            rows, fallback = self.source(filled // most)
            position = (filled % most).astype(np.int32)
            jax.block_until_ready(parts[-1:])  # one part waits, and not the source rows of all of them
            parts.append(_placed_rows(self.graphdef, self.params, rows, fallback, position, self.stats))
        return numbers.reshape(packed.packed.shape).astype(np.int32), _joined(parts)


def _parts(items: np.ndarray, chunk: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`items` in parts, and each part filled up with some of its own, to one size for all."""
    size = min(chunk, power_of_two(len(items)))
    for start in range(0, len(items), size):
        part = items[start : start + size]
        yield part, np.resize(part, size)


def power_of_two(number: int) -> int:
    """The least that is not below `number`: few shapes are compiled."""
    return 1 << (number - 1).bit_length()


@functools.partial(jax.jit, static_argnums=0)
def _own_values(graphdef, params):
    return [layer.own_value() for layer in nnx.merge(graphdef, params).layers]


def _scaled(hypernet, rows, fallback, stats):
    return jnp.where(fallback[:, None] < 0, hypernet.scaled(rows, stats), hypernet.fallback[...][jnp.maximum(fallback, 0)])


@functools.partial(jax.jit, static_argnums=0)
def _single_rows(graphdef, params, values, rows, fallback, features, stats):
    hypernet = nnx.merge(graphdef, params)
    return hypernet.rows_alone(_scaled(hypernet, rows, fallback, stats), features, values, stats)


@functools.partial(jax.jit, static_argnums=0)
def _placed_rows(graphdef, params, rows, fallback, position, stats):
    hypernet = nnx.merge(graphdef, params)
    return hypernet.placed(hypernet.projected(_scaled(hypernet, rows, fallback, stats)), position)


_joined = jax.jit(jnp.concatenate)


@jax.jit
def _rows_at(table, numbers):
    return table[numbers]


@functools.partial(jax.jit, static_argnums=0)
def _packed_rows(graphdef, params, x, rows, forms: PackedForms, stats):
    hypernet = nnx.merge(graphdef, params)
    return hypernet.rows_of(x, forms, hypernet.scaled(rows, stats), stats)
