"""WECHSEL (Minixhofer et al., arXiv 2112.06598): tokens of two languages, compared in aligned word vectors."""

import dataclasses
from pathlib import Path
from typing import ClassVar

import numpy as np

from zett.errors import UserError
from zett.lms.base import BaseModel
from zett.methods.method import Method
from zett.methods.mixing import Mixture, mixed_table, part_of
from zett.methods.similarity import largest, softmax, unit
from zett.methods.token_vectors import check_cover
from zett.methods.word_vectors import aligned, check_same_size, read_dictionary, read_words, token_means
from zett.table import EmbeddingTable
from zett.values import Within
from zett.vocab import Vocabulary

NEIGHBOURS, TEMPERATURE, WORDS = Within(1, 1000), Within(0, 100, above=True), Within(1, 10**7)


@dataclasses.dataclass(frozen=True)
class WECHSEL(Method):
    """Sums of the source tokens that are nearest in word vectors of both languages. arXiv 2112.06598.

    vectors: of the target language's words (word2vec, fastText .vec, GloVe). source_vectors: of the source language's; if left
    out, the same file holds both. dictionary: a file with a source word and its translation on each line, by which the source's
    vectors are rotated to the target's; if left out, they are taken as aligned. A token's vector is the mean of those of the
    words that have it, by their frequency (as 1/rank). neighbours, temperature: of the softmax. words: read from a file.
    """

    vectors: str | None = None
    source_vectors: str | None = None
    dictionary: str | None = None
    neighbours: int = 10
    temperature: float = 0.1
    words: int = 200_000

    needs: ClassVar[str] = "word vectors of the target and the source language (vectors=FILE), and a dictionary to align them"
    per_layer: ClassVar[bool] = True
    first: ClassVar[str] = "vectors"

    def __post_init__(self) -> None:
        for name, within in (("neighbours", NEIGHBOURS), ("temperature", TEMPERATURE), ("words", WORDS)):
            if getattr(self, name) not in within:
                raise UserError(f"method wechsel: {name} is {getattr(self, name)}; it has to be {within}")

    def precheck(self, model: str | Path) -> None:
        if self.vectors is None:
            raise UserError("method wechsel needs word vectors: wechsel:vectors=FILE,source_vectors=FILE,dictionary=FILE")
        if self.dictionary is not None and self.source_vectors is None:
            raise UserError("method wechsel: dictionary is given, but source_vectors, which it would align, is not")

    def inputs(self) -> tuple[str, ...]:
        return tuple(file for file in (self.vectors, self.source_vectors, self.dictionary) if file)

    def __call__(self, base: BaseModel, target: Vocabulary, *, seed: int = 0) -> EmbeddingTable:
        """`seed` is not used."""
        self.precheck(base.name)
        theirs = read_words(str(self.vectors), self.words)
        ours = theirs if self.source_vectors is None else read_words(self.source_vectors, self.words)
        check_same_size(ours, theirs, "wechsel")
        if self.dictionary is not None:
            ours = aligned(ours, theirs, read_dictionary(self.dictionary), self.dictionary)
        vectors = token_means(theirs, target, by_rank=True)
        check_cover(base, target, np.any(vectors != 0, axis=1), "wechsel", theirs.name)
        source = token_means(ours, base.vocab, by_rank=True)
        weigh = nearest_mixture(unit(source), unit(vectors), self.neighbours, self.temperature)
        return mixed_table(base, target, weigh, chunk=part_of(len(source)))


def nearest_mixture(source: np.ndarray, vectors: np.ndarray, neighbours: int, temperature: float):
    """Of the source tokens with the nearest vectors, by the softmax of their similarities. Both are of length 1, or zeros."""
    usable = np.flatnonzero(source.any(1))
    anchors = source[usable]

    def weigh(some: np.ndarray) -> Mixture:
        similar = vectors[some] @ anchors.T
        columns = largest(similar, neighbours)
        weights = softmax(np.take_along_axis(similar, columns, 1).astype(np.float64) / temperature)
        return Mixture(usable[columns], (weights * np.any(vectors[some] != 0, axis=1)[:, None]).astype(np.float32))

    return weigh
