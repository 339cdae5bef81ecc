"""Rows of single tokens from a trained hypernetwork, on the fly: in few shapes, each token once, and kept for later.

A token is read as one that joins a vocabulary, the base model's own unless another is given. Hypernetworks with `features` or
`distance` read numbers about the vocabulary around a token, so its row is that which the whole table of this vocabulary has
for it; a token that the vocabulary lacks is taken for its next and rarest one, and each for the only new one. So a row depends
on nothing that it is asked for together with. Without these two settings the vocabulary makes no difference.
"""

import bisect
import collections
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from zett.errors import UserError
from zett.hypernet.emission import power_of_two, side_by_side
from zett.hypernet.network import predict_rows
from zett.hypernet.packing import limit_pieces, pack_forms, renumbered, with_rows
from zett.hypernet.scaling import column_stats
from zett.lms.base import BaseModel
from zett.mesh import to_host
from zett.table import EmbeddingTable
from zett.vocab import SurfaceForms, Vocabulary, surface_forms
from zett.vocab.forms import feature_columns, with_distance
from zett.vocab.priors import rank_prior

if TYPE_CHECKING:
    from zett.hypernet.trained import TrainedHypernet

KEPT = 16384  # rows
AT_ONCE = 512  # tokens; more than these go the way of whole vocabularies


class Embedder:
    """`embedder(tokens)`: the rows of `tokens` for one base model.

    around: the vocabulary that the tokens join (None: the base model's own). language: of the tokens, for a hypernetwork that
    knows languages. kept: how many rows are kept, the last that were asked for. UserError if the hypernetwork belongs to
    another base model.
    """

    def __init__(
        self, hypernet: "TrainedHypernet", base: BaseModel, *, around: Vocabulary | None = None,
        language: str | int | None = None, kept: int = KEPT,
    ):  # fmt: skip
        hypernet.check(base)
        self.hypernet, self.base, self.kept = hypernet, base, kept
        self.around = _Around(base.vocab if around is None else around)
        self._source, self._language = hypernet.source_of(base), hypernet.language_number(language)
        self._size = hypernet.base.get("vocab_size", len(self._source))
        table = base.table
        self._sides = [np.asarray(rows)[: self._size] for rows in (table.input, table.output) if rows is not None]
        self._bias = None if table.bias is None else np.asarray(table.bias, np.float32)[: self._size]
        self._rows: collections.OrderedDict[bytes, np.ndarray] = collections.OrderedDict()

    def __repr__(self) -> str:
        return f"Embedder(for {self.base.name!r}, {len(self._rows):,} rows kept, at most {self.kept:,})"

    def __call__(self, tokens: Sequence[str | bytes]) -> EmbeddingTable:
        """float32 on the host; output rows are None where they are the input rows. UserError for a token without bytes.

        tokens: as they stand in a text, with a space where one belongs to it: " world".
        """
        asked = [token.encode() if isinstance(token, str) else bytes(token) for token in tokens]
        if not all(asked):
            raise UserError("a token is empty; give the text or the bytes that it stands for")
        found = {token: self._rows.pop(token) for token in dict.fromkeys(asked) if token in self._rows}
        missing = [token for token in dict.fromkeys(asked) if token not in found]
        found |= zip(missing, self._made(missing)) if missing else ()
        self._keep({token: found[token] for token in reversed(dict.fromkeys(reversed(asked)))})
        width, d = self._columns + (self._bias is not None), self.hypernet.hidden_size
        rows = np.stack([found[token] for token in asked]) if asked else np.zeros((0, width), np.float32)
        output = rows[:, d : self._columns] if self.hypernet.kinds == 2 else None
        return EmbeddingTable.of(rows[:, :d], output, None if self._bias is None else rows[:, -1])

    def _keep(self, found: dict[bytes, np.ndarray]) -> None:
        """Rows by token, the last asked for at the end."""
        self._rows.update(list(found.items())[-self.kept :] if self.kept else ())
        while len(self._rows) > self.kept:
            self._rows.popitem(last=False)

    @property
    def _columns(self) -> int:
        return self.hypernet.hidden_size * self.hypernet.kinds

    def _made(self, tokens: list[bytes]) -> np.ndarray:
        """Rows of distinct tokens: input rows, output rows if there are any beside them, and a bias if the base has one."""
        forms = self._forms(tokens)
        if forms.pieces.max() >= self._size + self.hypernet.config.fallback_rows:
            raise UserError(
                f"the hypernetwork has no row for the source id {forms.pieces.max()}; its source tokenizer is another"
            )
        if len(tokens) > AT_ONCE:
            predicted = self.hypernet.predicted(self._sides, forms, language=self._language)
        else:
            predicted = self._predicted(forms)
        rows = predicted[:, : self._columns]
        if self._bias is None:
            return rows
        bias = self.hypernet.output_bias(self._bias, predicted, forms, np.zeros(0, np.int64))
        return np.concatenate([rows, bias[:, None]], 1)

    def _forms(self, tokens: list[bytes]) -> SurfaceForms:
        config = self.hypernet.config
        pieces, lengths = self._source.decompose(tokens).padded(config.max_pieces)
        features = self.around.features(tokens)
        if config.distance:
            features = np.concatenate([features, np.tile(self._distance, (len(tokens), 1))], 1)
        return SurfaceForms(pieces, lengths, features, np.full(len(tokens), -1, np.int32))

    @functools.cached_property
    def _distance(self) -> np.ndarray:
        most = self.hypernet.config.max_pieces
        forms = limit_pieces(surface_forms(self.around.vocab, self._source, most), most)
        return with_distance(forms).features[0, forms.features.shape[1] :]

    def _predicted(self, forms: SurfaceForms) -> np.ndarray:
        """In one call of the network, whose shapes are powers of two."""
        packed = pack_forms(_filled(forms), multiple=1, language=self._language)
        packed = with_rows(packed, power_of_two(len(packed.packed)))
        used, own = renumbered(packed, self._size, room=packed.packed.size + 1)  # id 0 is always among them
        graphdef, params, stats = self._network
        return to_host(predict_rows(graphdef, params, side_by_side(self._sides, used), own, stats))[: len(forms)]

    @functools.cached_property
    def _network(self) -> tuple:
        """The network, its parameters on the device, and what it scales the source rows by."""
        hypernet = self.hypernet
        stats = column_stats(self._sides, self._size) if hypernet.config.rescale == "source" else None
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), hypernet.params)
        return hypernet.graphdef(jnp.float32), params, jax.tree.map(jnp.asarray, stats)


class _Around:
    """What is to know about a token in a vocabulary, or in one that has it beside all others."""

    def __init__(self, vocab: Vocabulary):
        self.vocab = vocab

    def features(self, tokens: list[bytes]) -> np.ndarray:
        """`[N, 5]`, as `token_features` has them."""
        ids = np.asarray([self.vocab.id_of.get(token, -1) for token in tokens])
        prior = np.where(ids < 0, self._prior, np.asarray(self.vocab.log_prior)[ids])
        lengths = np.asarray([len(token) for token in tokens])
        forwards, backwards = self._sorted
        prefixes = np.asarray([_longer(forwards, token) for token in tokens])
        suffixes = np.asarray([_longer(backwards, token[::-1]) for token in tokens])
        sizes = len(forwards) + (ids < 0)
        return feature_columns(lengths, prefixes, suffixes, prior, sizes)

    @functools.cached_property
    def _sorted(self) -> tuple[list[bytes], list[bytes]]:
        """All tokens in order, and all of them read backwards."""
        tokens = [token for token in self.vocab.tokens if token]
        return sorted(tokens), sorted(token[::-1] for token in tokens)

    @functools.cached_property
    def _prior(self) -> float:
        """Of a token that comes after all others."""
        if self.vocab.format is not None and self.vocab.format.scores:
            return float(np.min(self.vocab.log_prior))
        return float(rank_prior([*self.vocab.tokens, b"new"])[-1])


def _longer(tokens: list[bytes], start: bytes) -> int:
    """How many of the sorted `tokens` begin with `start` and go on."""
    return bisect.bisect_right(tokens, start, key=lambda token: token[: len(start)]) - bisect.bisect_right(tokens, start)


def _filled(forms: SurfaceForms) -> SurfaceForms:
    """With tokens of no pieces at the end, up to a power of two."""
    extra = power_of_two(len(forms)) - len(forms)

    def fill(x: np.ndarray) -> np.ndarray:
        return np.pad(x, ((0, extra),) + ((0, 0),) * (x.ndim - 1))

    return SurfaceForms(fill(forms.pieces), fill(forms.lengths), fill(forms.features), fill(forms.same))
