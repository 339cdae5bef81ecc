"""FOCUS (Dobler and de Melo, arXiv 2305.14481): new tokens are convex sums of the shared tokens that are used like them."""

import dataclasses
from pathlib import Path
from typing import ClassVar

import numpy as np

from zett.errors import UserError
from zett.lms.base import BaseModel
from zett.methods.method import Method
from zett.methods.mixing import Mixture, mixed_table, part_of
from zett.methods.similarity import sparsemax, unit
from zett.methods.token_vectors import KNOWN, check_cover, check_gensim, shared_and_known, train_vectors, vectors_from_file
from zett.table import EmbeddingTable
from zett.values import Within
from zett.vocab import Vocabulary

SIZE, EPOCHS, COUNT, BYTES = Within(1, 4096), Within(1, 1000), Within(1, 10**6), Within(1, 10**10)


@dataclasses.dataclass(frozen=True)
class FOCUS(Method):
    """Sums of shared tokens' rows by the sparsemax of static vectors' cosine similarities. arXiv 2305.14481.

    vectors: a file with vectors of the target's tokens as they are spelled, or of words (word2vec, fastText .vec, GloVe). text:
    instead of it a text source, such as python or a folder, on text_bytes of which fastText vectors are trained (pip install
    gensim); size, epochs, least: their numbers, the epochs, and how often a token has to occur. Tokens without a vector get
    FVT's rows.
    """

    vectors: str | None = None
    text: str | None = None
    text_bytes: int = 20_000_000
    size: int = 100
    epochs: int = 3
    least: int = 10

    needs: ClassVar[str] = "word or token vectors of the target language (vectors=FILE), or text in it (text=TEXT)"
    per_layer: ClassVar[bool] = True
    first: ClassVar[str] = "vectors"

    def __post_init__(self) -> None:
        for name, within in (("size", SIZE), ("epochs", EPOCHS), ("least", COUNT), ("text_bytes", BYTES)):
            if getattr(self, name) not in within:
                raise UserError(f"method focus: {name} is {getattr(self, name)}; it has to be {within}")

    def precheck(self, model: str | Path) -> None:
        if (self.vectors is None) == (self.text is None):
            given = "both are given" if self.text else "none is"
            raise UserError(f"method focus needs vectors=FILE or text=TEXT, and {given}; give one of the two")
        if self.text is not None:
            check_gensim("focus")

    def inputs(self) -> tuple[str, ...]:
        return (self.vectors,) if self.vectors else ()

    def __call__(self, base: BaseModel, target: Vocabulary, *, seed: int = 0) -> EmbeddingTable:
        """seed: of the vectors that are trained."""
        self.precheck(base.name)
        if self.vectors is not None:
            vectors, source = vectors_from_file(self.vectors, target), self.vectors
        else:
            assert self.text is not None
            settings = {name: getattr(self, name) for name in ("text_bytes", "size", "epochs", "least")}
            vectors, source = train_vectors(self.text, target, **settings, seed=seed), f"the text {self.text}"
        known = np.any(vectors != 0, axis=1)
        # What a text holds of one target's tokens is less known than what a file does, and an evaluation has several targets.
        check_cover(base, target, known, "focus", source, least=0.0 if self.vectors is None else KNOWN)
        shared, ours = shared_and_known(base, target, known, "focus")
        anchors = unit(vectors[shared])

        def weigh(some: np.ndarray) -> Mixture:
            weights = sparsemax(unit(vectors[some]) @ anchors.T)
            return Mixture(ours, weights * known[some][:, None])

        return mixed_table(base, target, weigh, chunk=part_of(len(ours)))
