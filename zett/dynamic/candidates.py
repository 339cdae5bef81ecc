"""Writing from a great many candidates: the next token is found by an approximate index, without a product over all rows.

The candidates are any tokens with output rows, such as `embed` of a hypernetwork makes. The index is one of the library faiss:
the rows are in clusters, and those of the clusters that are nearest to a hidden state are compared with it (IVF; arXiv
2401.08281). It names some candidates, and their logits are then computed as they are. Of 60,000 candidates for pico, graphs
(HNSW, of faiss and voyager) took three to four times as long for the same share found, and as long to build.
Shapes: V candidates, B hidden states, k of the candidates, D columns.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from zett.errors import UserError
from zett.generate import RowReader, encode_prompt
from zett.lms.base import BaseModel, check_causal
from zett.table import EmbeddingTable

PROBES = 256  # clusters that a search reads
TRAINED = 40  # rows for each cluster by which these are found


@dataclasses.dataclass(frozen=True, eq=False)
class Candidates:
    """Tokens to write from.

    tokens: `[V]` bytes. input: `[V, D]`, the rows by which they are read; None: the output rows. output: `[V, D]`, or
    `[V, D + 1]` with a bias, of their logits; None where the index has them. softcap: of their logits. index: None to compute
    all logits. width: D.
    """

    tokens: tuple[bytes, ...]
    input: np.ndarray | None
    output: np.ndarray | None
    softcap: float | None
    index: Any
    width: int

    @classmethod
    def of(
        cls, tokens: Sequence[bytes], table: EmbeddingTable, *, softcap: float | None = None, exact: bool = False, seed: int = 0
    ) -> "Candidates":
        """Candidates with the rows of `table`, one each. softcap: the model's `config.logit_softcap`.

        exact: without an index, which has a copy of the output rows, so that those of `table` are needed no more. UserError
        where the library is missing, or rows and tokens are not equally many.
        """
        output = np.asarray(table.output_rows, np.float32)
        width = output.shape[1]
        if len(tokens) != len(output) or not len(tokens):
            raise UserError(f"there are {len(tokens):,} candidates and {len(output):,} rows; there has to be one for each")
        # Columns of a wider array would keep all of it.
        rows = None if table.output is None else np.ascontiguousarray(table.input, np.float32)
        if table.bias is not None:
            output = np.concatenate([output, np.asarray(table.bias, np.float32)[:, None]], 1)
        if exact:
            return cls(tuple(tokens), rows, output, softcap, None, width)
        return cls(tuple(tokens), rows, None, softcap, _index(output, seed), width)

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        return f"Candidates({len(self):,} tokens, {'all of them computed' if self.index is None else 'by an index'})"

    def input_row(self, number: int) -> np.ndarray:
        """`[D]`, that by which a candidate is read."""
        return self._output(np.asarray([number]))[0, : self.width] if self.input is None else self.input[number]

    def top(self, h_BD: np.ndarray, k: int = 1, *, probes: int = PROBES) -> tuple[np.ndarray, np.ndarray]:
        """Numbers `[B, k]` of the candidates with the largest logits, and these logits, in falling order.

        Which are found is approximate; their logits are exact. probes: clusters of the index that are read: more find
        better ones, and take longer.
        """
        h_BD = np.asarray(h_BD, np.float32)
        if not 1 <= k <= len(self):
            raise UserError(f"k is {k!r}; it has to be from 1 to {len(self):,}, the number of candidates")
        if self.index is None:
            logits_BV = self._logits(h_BD, self.output)
            ids = np.argpartition(-logits_BV, k - 1)[:, :k]
            logits = np.take_along_axis(logits_BV, ids, 1)
        else:
            query = np.pad(h_BD, ((0, 0), (0, self.index.d - h_BD.shape[1])), constant_values=1)
            found = self.index.search(query, min(max(4 * k, 16), len(self)), params=_settings(probes))[1]
            ids = np.where(found < 0, found[:, :1], found)  # where the clusters that were read hold too few
            k = min(k, ids.shape[1])
            logits = self._logits(h_BD[:, None], self._output(ids))
        order = np.argsort(-logits, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(ids, order, 1), np.take_along_axis(logits, order, 1)

    def _output(self, ids: np.ndarray) -> np.ndarray:
        if self.output is not None:
            return self.output[ids]
        return self.index.reconstruct_batch(ids.reshape(-1)).reshape(*ids.shape, self.index.d)

    def _logits(self, h, rows) -> np.ndarray:
        """`[B, V]` of `h [B, D]` and rows `[V, D]` (or with a bias), or of `[B, 1, D]` and `[B, V, D]`."""
        products = h @ rows[..., : self.width].swapaxes(-1, -2)
        if self.softcap is not None:
            products = self.softcap * np.tanh(products / self.softcap)
        if rows.shape[-1] > self.width:
            products = products + rows[..., self.width][..., None, :]
        return products.reshape(len(h), -1)


def _faiss():
    try:
        import faiss
    except ImportError:
        raise UserError(
            'an index of candidates needs the library faiss: pip install "zett[candidates]", or take exact=True'
        ) from None
    return faiss


def _settings(probes: int):
    return _faiss().SearchParametersIVF(nprobe=probes)


def _index(rows: np.ndarray, seed: int):
    faiss = _faiss()
    clusters = max(int(4 * math.sqrt(len(rows))) if len(rows) >= 4096 else len(rows) // TRAINED, 1)
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(rows.shape[1]), rows.shape[1], clusters, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter, index.cp.seed = 8, seed
    index.set_direct_map_type(faiss.DirectMap.Array)  # so that it can give rows back
    index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, TRAINED
    index.train(rows)
    index.add(rows)
    return index


def write_from(
    model: BaseModel, candidates: Candidates, prompt: str, *, max_tokens: int = 64, probes: int = PROBES
) -> Iterator[bytes]:
    """The most probable candidate, again and again, after `prompt`, which is read in the model's own tokens.

    It ends after `max_tokens`, or where the model has no more positions. UserError for an encoder, or where none is left.
    """
    check_causal(model)
    ids = encode_prompt(model.vocab, prompt)
    if len(ids) >= model.config.room:
        raise UserError(f"the prompt has {len(ids):,} tokens; {model.name} has {model.config.room:,} positions: give less text")
    return _written(model, candidates, ids, min(max_tokens, model.config.room - len(ids)), probes)


def _written(model: BaseModel, candidates: Candidates, ids: list[int], number: int, probes: int) -> Iterator[bytes]:
    reader = RowReader(model, 1, len(ids) + number)
    rows = np.asarray(model.table.input)[np.asarray(ids)].astype(np.float32)
    for _ in range(number):
        chosen = int(candidates.top(reader([rows]), probes=probes)[0][0, 0])
        yield candidates.tokens[chosen]
        rows = candidates.input_row(chosen)[None]
