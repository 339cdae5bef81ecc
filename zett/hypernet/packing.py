"""Surface forms as the network reads them: several tokens a row, source rows numbered among those in use.

Most tokens have one to three pieces, so several share a row of P positions, kept apart by the attention mask; padding each to S
positions would waste two thirds of the work. Shapes: N packed rows, P positions, R tokens, S pieces of a token, U source rows.
"""

import dataclasses

import jax
import numpy as np

from zett.vocab import SurfaceForms


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PackedForms:
    """Surface forms of R tokens as the network reads them, several tokens a row.

    packed `[N, P]` source ids; owner `[N, P]` the token of each position (R at padding); position `[N, P]` in the token;
    first `[R]` where each token begins in `[N * P]`; pieces `[R, S]` and lengths `[R]` as in SurfaceForms; features `[R, F]`;
    language `[]`, a number among the config's languages, or None. With one, P is S + 1, and the last position of each token,
    marked by the position S, stands for its language.
    """

    packed: np.ndarray
    owner: np.ndarray
    position: np.ndarray
    first: np.ndarray
    pieces: np.ndarray
    lengths: np.ndarray
    features: np.ndarray
    language: np.ndarray | None = None


def pack_forms(forms: SurfaceForms, *, multiple: int = 256, language: int | None = None, groups: int = 1) -> PackedForms:
    """Pack surface forms in rows; their number is a multiple of `multiple`, so that few shapes are compiled.

    groups: if more than 1, token i is packed in group i % groups, all of one shape, `[groups, ...]`; they have to divide R.
    """
    if groups > 1:
        if len(forms) % groups:
            raise ValueError(f"{len(forms)} tokens cannot be packed in {groups} groups alike")
        step = max(multiple // groups, 1)
        parts = [
            pack_forms(forms.take(np.arange(g, len(forms), groups)), multiple=step, language=language) for g in range(groups)
        ]
        most = max(len(part.packed) for part in parts)
        return jax.tree.map(lambda *x: np.stack(x), *(with_rows(part, most) for part in parts))
    rows, most = forms.pieces.shape
    extra = int(language is not None)
    s, lengths = most + extra, np.where(forms.lengths > 0, forms.lengths + extra, 0)
    waiting = [np.flatnonzero(lengths == n).tolist()[::-1] for n in range(s + 1)]
    owner_rows, offsets = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
    row = 0
    # First fit decreasing: the longest that is left opens a row, then the longest that fits, until it is full.
    for longest in range(s, 0, -1):
        while waiting[longest]:
            free = s
            for n in range(longest, 0, -1):
                while waiting[n] and n <= free:
                    token = waiting[n].pop()
                    owner_rows[token], offsets[token] = row, s - free
                    free -= n
            row += 1
    n_rows = -(-max(row, 1) // multiple) * multiple
    packed = np.zeros((n_rows, s), np.int32)
    owner = np.full((n_rows, s), rows, np.int32)
    position = np.zeros((n_rows, s), np.int32)
    inside = np.arange(s) < lengths[:, None]
    tokens, k = np.nonzero(inside)
    where = (owner_rows[tokens], offsets[tokens] + k)
    pieces = np.pad(forms.pieces, ((0, 0), (0, extra)))
    is_piece = k < forms.lengths[tokens]
    packed[where] = np.where(is_piece, pieces[inside], 0)
    owner[where], position[where] = tokens, np.where(is_piece, k, most)
    first = (owner_rows * s + offsets).astype(np.int32)
    features = np.clip(forms.features, -4, 4)
    number = None if language is None else np.asarray(language, np.int32)
    return PackedForms(packed, owner, position, first, forms.pieces, forms.lengths, features, number)


def some_rows(forms: PackedForms, rows: slice, room: int) -> tuple[np.ndarray, PackedForms]:
    """The tokens in some of the packed rows, and these as forms of their own, filled up to `room` tokens."""
    tokens, owner = len(forms.lengths), forms.owner[rows]
    own = np.unique(owner[owner < tokens])
    filled = np.pad(own, (0, room - len(own)), mode="edge")
    part = dataclasses.replace(
        forms,
        packed=forms.packed[rows],
        owner=np.where(owner < tokens, np.searchsorted(own, owner), room).astype(np.int32),
        position=forms.position[rows],
        first=forms.first[filled] - np.int32(rows.start * forms.packed.shape[1]),
        pieces=forms.pieces[filled],
        lengths=forms.lengths[filled],
        features=forms.features[filled],
    )
    return own, part


def packed_rows(forms: PackedForms) -> int:
    """N, over all groups."""
    return forms.packed[..., 0].size


def with_rows(forms: PackedForms, number: int) -> PackedForms:
    """With empty rows at the end, `number` rows in all; in groups, which share it, each has its part of them."""
    *groups, n, width = forms.packed.shape
    tokens, missing = forms.lengths.shape[-1], number // (groups[0] if groups else 1) - n
    empty = np.zeros((*groups, missing, width), np.int32)
    return dataclasses.replace(
        forms,
        packed=np.concatenate([forms.packed, empty], -2),
        owner=np.concatenate([forms.owner, np.full_like(empty, tokens)], -2),
        position=np.concatenate([forms.position, empty], -2),
    )


def sources_in_use(forms: PackedForms, size: int) -> np.ndarray:
    """Ids of the source rows, of `size` in all, that `forms` reads; id 0 is always among them."""
    both = np.append(forms.packed, forms.pieces)
    return np.unique(np.append(both[both < size], 0))


def renumbered(packed: PackedForms, size: int, *, multiple: int = 1, room: int | None = None) -> tuple[np.ndarray, PackedForms]:
    """Source ids `[U]` of the rows that `packed` reads, of `size` in all, and `packed` with numbers among them in place of ids.

    So each row is projected once, and only what is used lies on the device. U is `room`, which has to be enough; None: `size`
    or, if less, a power of two or the middle of two, so that few shapes are compiled. It is made a multiple of `multiple`.
    Fallback rows, from the id `size` on, are numbered from U on.
    """
    used = sources_in_use(packed, size)
    if room is None:
        power = max(1 << (len(used) - 1).bit_length(), 1024)
        room = power * 3 // 4 if len(used) <= power * 3 // 4 else power
    if room >= size:
        used, room = np.arange(size), size
    room = -(-room // multiple) * multiple

    def number(ids):
        return np.where(ids < size, np.searchsorted(used, ids), ids - size + room).astype(np.int32)

    new = dataclasses.replace(packed, packed=number(packed.packed), pieces=number(packed.pieces))
    return np.pad(used, (0, room - len(used)), mode="edge"), new


def limit_pieces(forms: SurfaceForms, size: int) -> SurfaceForms:
    """The forms with `size` piece positions: cut or padded."""
    extra = max(size - forms.pieces.shape[1], 0)
    pieces = np.pad(forms.pieces[:, :size], ((0, 0), (0, extra)))
    return dataclasses.replace(forms, pieces=pieces, lengths=np.minimum(forms.lengths, size))
