"""TokenAdapt's hybrid (Sharthak et al., arXiv 2505.09738): a token's pieces and its neighbours, both weighed by an embedder."""

import dataclasses
import functools
from pathlib import Path
from typing import ClassVar

import numpy as np

from zett.errors import UserError
from zett.lms.base import BaseModel
from zett.methods.common import MAX_PIECES
from zett.methods.embedding import embed_texts, load_embedder
from zett.methods.method import Method
from zett.methods.mixing import Mixture, mixed_table, new_tokens, part_of, usable_pieces
from zett.methods.similarity import largest, softmax, unit
from zett.table import EmbeddingTable
from zett.values import Within
from zett.vocab import Vocabulary, surface_forms

NEIGHBOURS, TEMPERATURE, WEIGHT = Within(1, 1000), Within(0, 100, above=True), Within(0, 1)


@dataclasses.dataclass(frozen=True)
class TokenAdapt(Method):
    """Pieces by similarity and length, and the nearest source tokens, in an embedder's space. arXiv 2505.09738.

    embedder: a model whose mean hidden state is a token's embedding, best one for sentences: a folder or a Hub name. weight: of
    the neighbours; the rest is the pieces'. neighbours: how many. temperature: of both softmaxes.
    """

    embedder: str | None = None
    weight: float = 0.3
    neighbours: int = 3
    temperature: float = 0.3

    needs: ClassVar[str] = "a model that embeds texts"
    per_layer: ClassVar[bool] = True
    first: ClassVar[str] = "embedder"

    def __post_init__(self) -> None:
        for name, within in (("neighbours", NEIGHBOURS), ("temperature", TEMPERATURE), ("weight", WEIGHT)):
            if getattr(self, name) not in within:
                raise UserError(f"method tokenadapt: {name} is {getattr(self, name)}; it has to be {within}")

    def precheck(self, model: str | Path) -> None:
        if self.embedder is None:
            raise UserError("method tokenadapt needs a model that embeds texts: tokenadapt:embedder=MODEL")

    def check(self, base: BaseModel) -> None:
        """UserError if the embedder cannot be read."""
        self.precheck(base.name)
        self._embedder  # noqa: B018

    def inputs(self) -> tuple[str, ...]:
        return (self.embedder,) if self.embedder else ()

    @functools.cached_property
    def _embedder(self) -> BaseModel:
        return load_embedder(str(self.embedder), "tokenadapt")

    def __call__(self, base: BaseModel, target: Vocabulary, *, seed: int = 0) -> EmbeddingTable:
        """`seed` is not used."""
        self.check(base)
        new = new_tokens(base, target)
        new = new[target.byte_lengths[new] > 0]
        place = np.full(len(target), -1)
        place[new] = np.arange(len(new))
        usable = np.flatnonzero(base.vocab.byte_lengths > 0)
        there = np.full(len(base.vocab), -1)
        there[usable] = np.arange(len(usable))
        texts, pieces = _texts(target, new), _texts(base.vocab, usable)
        queries = unit(embed_texts(self._embedder, texts, "new tokens embedded"))
        anchors = unit(embed_texts(self._embedder, pieces, "source tokens embedded"))
        forms = surface_forms(target, base.vocab, MAX_PIECES)
        sizes = np.asarray([len(text) for text in pieces]), np.asarray([max(len(text), 1) for text in texts])

        def weigh(some: np.ndarray) -> Mixture:
            known, part = place[some] >= 0, forms.take(some)
            at = np.maximum(place[some], 0)
            most = max(int(part.lengths.max(initial=1)), 1)
            have = usable_pieces(part, len(base.vocab))[:, :most] & known[:, None]
            ids = np.where(have, part.pieces[:, :most], usable[0])
            places = there[ids]
            have &= places >= 0
            local = _local(have, anchors[places], queries[at], sizes[0][places] / sizes[1][at][:, None], self.temperature)
            similar = queries[at] @ anchors.T
            columns = largest(similar, self.neighbours)
            near = softmax(np.take_along_axis(similar, columns, 1).astype(np.float64) / self.temperature) * known[:, None]
            share = np.where(np.any(have, axis=1), self.weight, 1.0)[:, None]
            weights = np.concatenate([(1 - share) * local, share * near], 1).astype(np.float32)
            return Mixture(np.concatenate([ids, usable[columns]], 1), weights)

        return mixed_table(base, target, weigh, chunk=part_of(max(len(usable), MAX_PIECES * anchors.shape[1])))


def _texts(vocab: Vocabulary, ids: np.ndarray) -> list[str]:
    return [vocab.tokens[i].decode("utf-8", "replace") for i in ids]


def _local(have: np.ndarray, pieces: np.ndarray, token: np.ndarray, shares: np.ndarray, temperature: float) -> np.ndarray:
    """Weights of the pieces `[n, S]`: a softmax of the mean of their similarities' softmax and of their shares of the token.

    have `[n, S]`: which pieces there are. pieces `[n, S, D]` and token `[n, D]`, of length 1. shares `[n, S]`, of characters.
    """
    some = np.any(have, axis=1)
    similar = np.where(have, np.einsum("nsd,nd->ns", pieces, token, dtype=np.float64), -np.inf)
    similar[~some] = 0
    both = (softmax(similar) + shares) / 2
    weights = softmax(np.where(have | ~some[:, None], both / temperature, -np.inf))
    return weights * have
