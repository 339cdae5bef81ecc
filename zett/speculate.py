"""Speculative decoding: a small model writes some tokens ahead, and the model reads them at once and keeps what it would write.

By Leviathan et al. (2023) and Chen et al. (2023): a reference, to compare clients and counts with.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from zett.errors import UserError
from zett.evaluate.tasks.encoded import padded_table
from zett.generate import CACHE, PROMPT, chances, check_sampling, doubled, ends_of, read_tokens
from zett.lms.base import BaseModel, check_causal
from zett.lms.body import Body
from zett.lms.cache import Cache
from zett.lms.like import check_same_ids
from zett.table import EmbeddingTable
from zett.values import check_count


@dataclasses.dataclass(frozen=True)
class Speculated:
    """What was written, and of `drafted` tokens in `drafts` pieces how many were kept."""

    ids: tuple[int, ...]
    drafts: int
    drafted: int
    accepted: int


def speculate(
    model: BaseModel, draft: BaseModel, ids: Sequence[int], *, max_tokens: int = 128, draft_tokens: int = 4,
    temperature: float = 0.0, seed: int = 0,
) -> Speculated:  # fmt: skip
    """What `generate_ids(model, ids)` writes, with `draft` writing up to `draft_tokens` ahead of it each time.

    With the temperature 0, the tokens are the same by construction, to rounding; else they have the same distribution, but with
    the same seed they are others. UserError if the two models have different ids, and for values that make no sense.
    """
    check_pair(model, draft)
    check_sampling(temperature, seed)
    for name, value in (("max_tokens", max_tokens), ("draft_tokens", draft_tokens)):
        check_count(value, name)
    written, start, ends = list(map(int, ids)), len(ids), ends_of(model)
    number = min(max_tokens, model.config.room - start)
    if not start or number < 1:
        raise UserError(
            f"the prompt has {start:,} tokens; {model.name} has {model.config.room:,} positions, and needs one token"
        )
    size = start + number + draft_tokens + 1
    main, small = (_Reader(m, written, size, columns) for m, columns in ((model, draft_tokens + 1), (draft, 2)))
    drafts, drafted, accepted, rng = 0, 0, 0, np.random.default_rng(seed)
    while (left := start + number - len(written)) > 0:
        count = max(0, min(draft_tokens, left - 1, draft.config.room - len(written)))
        ahead: list[int] = []
        theirs: list[np.ndarray] = []
        for _ in range(count):
            theirs.append(small.chances([*written, *ahead], temperature)[-1])
            ahead.append(int(rng.choice(len(theirs[-1]), p=theirs[-1])))
        ours = main.chances([*written, *ahead], temperature)[-count - 1 :]
        agreed, token = verified(ahead, theirs, ours, rng)
        new = [*ahead[:agreed], token]
        drafts, drafted, accepted = drafts + (count > 0), drafted + count, accepted + agreed
        end = next((i for i, token in enumerate(new) if token in ends), None)
        written += new if end is None else new[: end + 1]
        if end is not None:
            break
        main.take_back(len(written) - 1)
        small.take_back(len(written) - 1)
    return Speculated(tuple(written[start:]), drafts, drafted, accepted)


def verified(
    ahead: Sequence[int], theirs: Sequence[np.ndarray], ours: Sequence[np.ndarray], rng: np.random.Generator
) -> tuple[int, int]:
    """How many of the drafted tokens `ahead` are kept, and the token after these (Leviathan et al., 2023, algorithm 1).

    theirs: the chances `[V]` by which each was drawn; ours: those of the model at the same places and at one more. What is
    written has the distribution `ours`, whatever `theirs` is.
    """
    for i, token in enumerate(ahead):
        if rng.random() * theirs[i][token] >= ours[i][token]:
            left = np.maximum(ours[i] - theirs[i], 0)
            return i, int(rng.choice(len(left), p=left / left.sum()))
    return len(ahead), int(rng.choice(len(ours[-1]), p=ours[-1]))


def check_pair(model: BaseModel, draft: BaseModel) -> None:
    """UserError unless `draft` can draft for `model`: both are causal and at hand with their bodies, and have the same ids."""
    for one in (model, draft):
        check_causal(one)
        if one.params is None:
            raise UserError(f"{one.name} was loaded without its body (body=False), so it cannot write")
    check_same_ids(draft.vocab, model.vocab, (draft.name, model.name))


class _Reader:
    """A model with a cache of what it has read. columns: how many tokens it reads at a time after the prompt."""

    def __init__(self, model: BaseModel, prompt: list[int], size: int, columns: int):
        config = model.config
        if any(len(prompt) <= at < size for at in config.restarts):
            raise UserError(f"{model.name} reads its text anew when it is {min(config.restarts):,} tokens long; write less")
        self._body, self._table = Body(model.graphdef, model.params), padded_table(model.table)
        self._softcap, self._columns, self._tokens = config.logit_softcap, columns, len(model.vocab)
        self._cache, self._read = Cache.empty(config, doubled(CACHE, size)), 0
        if len(prompt) > 1:  # without its last token, which is read with what is drafted after it
            first = np.zeros((1, min(doubled(PROMPT, len(prompt) - 1), config.room)), np.int32)
            first[0, : len(prompt) - 1] = prompt[:-1]
            self._read = len(prompt) - 1
            _, self._cache = read_tokens(self._body, self._table, self._cache, first, np.int32(self._read), self._softcap)

    def chances(self, ids: list[int], temperature: float) -> list[np.ndarray]:
        """Of all tokens `[V]`, after each of `ids` that had not been read."""
        unread = ids[self._read :]
        padded = np.zeros((1, self._columns), np.int32)
        padded[0, : len(unread)] = unread
        logits, self._cache = _logits(self._body, self._table, self._cache, padded, np.int32(len(unread)), self._softcap)
        self._read = len(ids)
        return [chances(row, temperature) for row in np.asarray(logits)[0, : len(unread), : self._tokens]]

    def take_back(self, length: int) -> None:
        """Only the first `length` tokens that were read count."""
        self._read = min(self._read, length)
        self._cache = dataclasses.replace(self._cache, used=jnp.full_like(self._cache.used, self._read))


@functools.partial(jax.jit, static_argnames="softcap", donate_argnames="cache")
def _logits(body: Body, table: EmbeddingTable, cache: Cache, ids_BL, number, softcap):
    """Logits `[B, L, V]` after each of the tokens, of which the first `number` count; the cache with these."""
    positions_BL = jnp.minimum(cache.columns(ids_BL.shape[1]), cache.used[:, None] + number - 1)
    h_BLD, read = body(table.embed(ids_BL).astype(jnp.float32), positions_BL=positions_BL, cache=cache)
    with jax.default_matmul_precision("highest"):
        logits_BLV = table.unembed(h_BLD, softcap)
    return logits_BLV, dataclasses.replace(read, used=cache.used + number)
