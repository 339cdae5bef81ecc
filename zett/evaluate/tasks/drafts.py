"""Drafts: how much of what a small model writes ahead is what the big one would write (speculative decoding).

Everything is computed along texts that the big model itself wrote after the beginnings of given texts, so that no luck of
sampling is in the numbers. Greedy: a drafted token is kept if it is the one that the big model writes, and a draft ends with
the first one that is not; so agreement along the big model's text tells what drafting would do, token by token. Sampled: a
token drawn from the draft's distribution q is kept with the probability min(1, p / q), where p is the big model's: with the sum
of min(p, q) over the vocabulary in all (Leviathan et al., 2023).
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zett.errors import UserError
from zett.evaluate.tasks.encoded import padded_table
from zett.evaluate.tasks.items import Items
from zett.generate import ends_of, next_tokens
from zett.lms.base import BaseModel
from zett.lms.body import Body
from zett.speculate import check_pair
from zett.table import EmbeddingTable
from zett.vocab.prompts import around


@dataclasses.dataclass(frozen=True, eq=False)
class Written:
    """What the big model wrote. ids: `[N, P + M]`, prompts and what follows. lengths: `[N]`, how much of that counts.

    h: `[N, M, D]`, the big model's hidden states from which it predicts each token that it wrote.
    """

    ids: np.ndarray
    lengths: np.ndarray
    h: np.ndarray

    @property
    def new_ids(self) -> np.ndarray:
        """`[N, M]`"""
        return self.ids[:, -self.h.shape[1] :]

    @property
    def counts(self) -> np.ndarray:
        """`[N, M]`, whether a token counts: those after the end of a text do not."""
        return np.arange(self.h.shape[1]) < self.lengths[:, None]


@dataclasses.dataclass(frozen=True, eq=False)
class DraftItems(Items):
    """Beginnings of texts, and how `big` goes on from them. weights: tokens of the greedy text."""

    big: BaseModel
    greedy: Written
    sampled: Written


@dataclasses.dataclass(frozen=True)
class Agreed:
    """agreed: `[N, M]` bool, along the greedy text, whether the draft's most probable token is the big model's.

    overlap: `[N, M]`, along the sampled text, the probability that a drafted token is kept.
    """

    agreed: np.ndarray
    overlap: np.ndarray


class Drafts:
    """Score: of the tokens that the big model writes, those that a draft which read the same would write; weight: all of them.

    items takes the big model, score the draft. prompt: tokens of each text that are the beginning. tokens: how many are
    written. temperature, seed: of the sampled text.
    """

    name, unit, lower_is_better = "drafts", "share of the tokens that the draft has right", False

    def __init__(
        self, *, dtype: Any = None, batch_size: int = 32, prompt: int = 32, tokens: int = 64, temperature: float = 1.0,
        seed: int = 0,
    ):  # fmt: skip
        # dtype makes no difference here: products are in the models' own.
        self.batch_size, self.seed = batch_size, seed
        self.prompt, self.tokens, self.temperature = prompt, tokens, temperature

    def items(self, base: BaseModel, texts: Sequence[str]) -> DraftItems:
        """UserError if no text has enough tokens, or the model not enough positions."""
        check_pair(base, base)
        opening = list(around(base.vocab)[0])
        length = len(opening) + self.prompt
        self._check_room(base, length)
        encoded = [opening + base.vocab.tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        long = [i for i, ids in enumerate(encoded) if len(ids) >= length]
        if not long:
            raise UserError(f"no text has {self.prompt} tokens to begin with; give longer texts (--window)")
        prompts = np.asarray([encoded[i][:length] for i in long])
        greedy, sampled = (self._written(base, prompts, temperature) for temperature in (0.0, self.temperature))
        return DraftItems(tuple(texts[i] for i in long), greedy.lengths.astype(np.float64), base, greedy, sampled)

    def score(self, model: BaseModel, items: Items) -> np.ndarray:
        """`[N]`, tokens that are right. UserError if the model has other ids than the one that it drafts for."""
        assert isinstance(items, DraftItems)
        return self.agreement(model, items).agreed.sum(1).astype(np.float64)

    def agreement(self, model: BaseModel, items: DraftItems) -> Agreed:
        """Token by token; 0 after the end of a text. UserError as in `score`."""
        check_pair(items.big, model)
        self._check_room(model, items.greedy.ids.shape[1] - self.tokens)
        agreed, overlap = (self._compared(model, items.big, written) for written in (items.greedy, items.sampled))
        return Agreed(agreed[0], overlap[1])

    def _check_room(self, model: BaseModel, prompt: int) -> None:
        if model.config.room < prompt + self.tokens:
            raise UserError(
                f"{model.name} has {model.config.room:,} positions, too few for {prompt} tokens and {self.tokens} more; "
                "write less (--prompt-tokens, --new-tokens)"
            )

    def _written(self, big: BaseModel, prompts: np.ndarray, temperature: float) -> Written:
        rng, ends = np.random.default_rng(self.seed), sorted(ends_of(big))
        parts = []
        for start in range(0, len(prompts), self.batch_size):
            steps = next_tokens(big, prompts[start : start + self.batch_size], self.tokens, temperature, rng)
            parts.append(np.asarray(list(steps)).T)
        new = np.concatenate(parts)
        ended = np.isin(new, ends)
        lengths = np.where(ended.any(1), ended.argmax(1) + 1, self.tokens)
        ids = np.concatenate([prompts, new], 1)
        return Written(ids, lengths, self._hidden(big, ids))

    def _hidden(self, model: BaseModel, ids: np.ndarray) -> np.ndarray:
        """`[N, M, D]`, of the tokens before those that were written."""
        body, table = Body(model.graphdef, model.params), padded_table(model.table)
        parts = [ids[start : start + self.batch_size] for start in range(0, len(ids), self.batch_size)]
        return np.concatenate([np.asarray(_read(body, table, part, self.tokens)) for part in parts])

    def _compared(self, draft: BaseModel, big: BaseModel, written: Written) -> tuple[np.ndarray, np.ndarray]:
        """`[N, M]` of a draft along a text: whether its best token is right, and the probability that a drawn one is kept."""
        tables, caps = (
            (padded_table(big.table), padded_table(draft.table)),
            (big.config.logit_softcap, draft.config.logit_softcap),
        )
        agreed, overlap = _agreement(
            tables, (written.h, self._hidden(draft, written.ids)), written.new_ids, caps, self.temperature
        )
        return np.asarray(agreed) & written.counts, np.where(written.counts, np.asarray(overlap, np.float64), 0.0)


@functools.partial(jax.jit, static_argnames="tokens")
def _read(body: Body, table: EmbeddingTable, ids_BL, tokens: int):
    """The hidden states `[B, M, D]` before the last `tokens`."""
    return body(table.embed(ids_BL[:, :-1]).astype(jnp.float32))[:, -tokens:]


@functools.partial(jax.jit, static_argnames=("softcaps", "temperature"))
def _agreement(tables, h, ids_NM, softcaps, temperature: float):
    """Text by text, since the probabilities of all of them may not fit. tables, h, softcaps: of the big model and the draft."""

    def of_text(xs):
        h_pair, ids_M = xs
        with jax.default_matmul_precision("highest"):
            big, draft = (table.unembed(h_MD, cap) for table, h_MD, cap in zip(tables, h_pair, softcaps))
        p, q = (jax.nn.softmax(logits / temperature) for logits in (big, draft))
        return draft.argmax(-1) == ids_M, jnp.minimum(p, q).sum(-1)

    return jax.lax.map(of_text, (h, ids_NM))


@dataclasses.dataclass(frozen=True)
class Drafted:
    """What comes of drafts: their number, the tokens in them, and how many of these were kept."""

    drafts: int
    drafted: int
    accepted: int


def drafted(agreed: np.ndarray, lengths: np.ndarray, draft_tokens: int) -> Drafted:
    """Greedy drafts of up to `draft_tokens` along texts. agreed: `[N, M]`; lengths: `[N]`.

    Each draft ends at the first token that is not the big model's, which adds one of its own after it.
    """
    drafts = total = accepted = 0
    for row, length in zip(agreed, lengths):
        at = 0
        while at < length:
            count = min(draft_tokens, int(length) - at - 1)
            piece = row[at : at + count]
            run = count if piece.all() else int(piece.argmin())
            drafts, total, accepted = drafts + (count > 0), total + count, accepted + run
            at += run + 1
    return Drafted(drafts, total, accepted)


def expected_length(share: float, draft_tokens: int) -> float:
    """How many of `draft_tokens` are kept where each is with the probability `share`, and none after one that is not."""
    return float(sum(share**n for n in range(1, draft_tokens + 1)))
