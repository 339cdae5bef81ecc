"""OFA (Liu et al., arXiv 2311.08849): like WECHSEL in multilingual vectors, with new rows in few directions of the table."""

import dataclasses
from pathlib import Path
from typing import ClassVar

import numpy as np

from zett.errors import UserError
from zett.lms.base import BaseModel
from zett.methods.common import CHUNK
from zett.methods.method import Method
from zett.methods.mixing import mixed_table, part_of
from zett.methods.similarity import unit
from zett.methods.token_vectors import check_cover
from zett.methods.wechsel import NEIGHBOURS, TEMPERATURE, WORDS, nearest_mixture
from zett.methods.word_vectors import check_same_size, read_words, token_means
from zett.table import EmbeddingTable
from zett.values import Within
from zett.vocab import Vocabulary

DIMENSION = Within(1, 2**20)


@dataclasses.dataclass(frozen=True)
class OFA(Method):
    """Sums of the source tokens that are nearest in multilingual word vectors, factorised. arXiv 2311.08849.

    vectors: of words of the source and the target language in one space (word2vec, fastText .vec, GloVe). source_vectors: those
    of the source language, if they are in a file of their own. dimension: how many directions of the table new rows have, those
    of its largest singular values; none: all. A token's vector is the mean of those of the words that have it. neighbours,
    temperature: of the softmax. words: read from a file.
    """

    vectors: str | None = None
    source_vectors: str | None = None
    dimension: int | None = 100
    neighbours: int = 10
    temperature: float = 0.1
    words: int = 200_000

    needs: ClassVar[str] = "word vectors of the source and the target language in one space (vectors=FILE)"
    first: ClassVar[str] = "vectors"

    def __post_init__(self) -> None:
        checks = [("neighbours", NEIGHBOURS), ("temperature", TEMPERATURE), ("words", WORDS), ("dimension", DIMENSION)]
        for name, within in checks:
            if getattr(self, name) is not None and getattr(self, name) not in within:
                raise UserError(f"method ofa: {name} is {getattr(self, name)}; it has to be {within}")

    def precheck(self, model: str | Path) -> None:
        if self.vectors is None:
            raise UserError("method ofa needs word vectors of both languages in one space: ofa:vectors=FILE")

    def inputs(self) -> tuple[str, ...]:
        return tuple(file for file in (self.vectors, self.source_vectors) if file)

    def __call__(self, base: BaseModel, target: Vocabulary, *, seed: int = 0) -> EmbeddingTable:
        """`seed` is not used."""
        self.precheck(base.name)
        theirs = read_words(str(self.vectors), self.words)
        ours = theirs if self.source_vectors is None else read_words(self.source_vectors, self.words)
        check_same_size(ours, theirs, "ofa")
        vectors = token_means(theirs, target, by_rank=False)
        check_cover(base, target, np.any(vectors != 0, axis=1), "ofa", theirs.name)
        source = token_means(ours, base.vocab, by_rank=False)
        weigh = nearest_mixture(unit(source), unit(vectors), self.neighbours, self.temperature)
        table = base.table
        factorised = EmbeddingTable.of(
            self._factorised(table.input, len(base.vocab)), self._factorised(table.output, len(base.vocab)), table.bias
        )
        return mixed_table(base, target, weigh, chunk=part_of(len(source)), summed=factorised)

    def _factorised(self, rows, size: int) -> np.ndarray | None:
        """The rows `[V0, D]` in the directions of the largest singular values; the product with these of U S."""
        if rows is None or self.dimension is None or self.dimension >= rows.shape[1]:
            return rows
        rows = np.asarray(rows)[:size]
        gram = np.zeros((rows.shape[1], rows.shape[1]))
        for start in range(0, size, CHUNK):
            part = rows[start : start + CHUNK].astype(np.float64)
            gram += part.T @ part
        directions = np.linalg.eigh(gram)[1][:, -self.dimension :]  # of the smallest first
        out = np.empty(rows.shape, np.float32)
        for start in range(0, size, CHUNK):
            part = rows[start : start + CHUNK].astype(np.float64)
            out[start : start + CHUNK] = part @ directions @ directions.T
        return out
