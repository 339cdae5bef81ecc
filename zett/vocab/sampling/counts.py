"""Counting the frequent substrings of words, which tokenizers are drawn from.

An inventory holds the frequent substrings of the texts' words, with their counts in every part ("cell") of the texts. What is
frequent in a mixture of cells then takes a weighted sum of counts, and no text has to be read again.
"""

from collections.abc import Sequence

import numpy as np

from zett.config import SamplerConfig
from zett.data.documents import Documents
from zett.errors import UserError
from zett.vocab.compiled.counting import count_substrings
from zett.vocab.compiled.cutting import distinct_words, packed_texts
from zett.vocab.sampling.packed import PackedTokens
from zett.vocab.sampling.texts import random_texts

BYTES = tuple(bytes([b]) for b in range(256))
SPACES = tuple(b" " * n for n in range(2, 17)) + tuple(b"\n" + b" " * n for n in range(4, 17, 4)) + (b"\n\n", b"\t\t")
REQUIRED = (*BYTES, *SPACES)  # in every drawn vocabulary of substrings


def count_inventory(texts: Sequence[Documents], config: SamplerConfig, seed: int) -> dict[str, np.ndarray]:
    """The inventory of a sample of the texts: tokens (`data`, `starts`; REQUIRED first), `counts [C, N]`, `source [C]`.

    Each text has cells of its own, and `source` says of which text a cell is. The counts of a cell add up to 1. Raises
    UserError where there is too little text.
    """
    rng = np.random.default_rng([seed, 4])
    shards = max(config.shards // len(texts), 1)
    found, cells = [], []
    for t, documents in enumerate(texts):
        for number, text in enumerate(random_texts(documents, config.inventory_bytes // len(texts), rng)):
            found.append(text)
            cells.append(t * shards + number % shards)
    tokens, counts = count_candidates(found, np.asarray(cells, np.int64), len(texts) * shards, config)
    check_found(tokens, texts)
    of_text = np.repeat(np.arange(len(texts)), shards)
    return {"data": tokens.data, "starts": tokens.starts, "counts": counts, "source": of_text}


def count_candidates(
    texts: Sequence[str], cell_of: np.ndarray, cells: int, config: SamplerConfig
) -> tuple[PackedTokens, np.ndarray]:
    """Substrings of the words that occur more than once: tokens, REQUIRED first, and their share of each cell `[C, N]`."""
    text, starts = packed_texts(texts)
    begins, ends, words, stops = distinct_words(text, starts)
    per_word = np.bincount(words * cells + np.repeat(cell_of, np.diff(stops, prepend=0)), minlength=len(begins) * cells)
    per_word = per_word.reshape(-1, cells)
    often = np.flatnonzero(per_word.sum(1) > 1)
    data, token_starts, counts = count_substrings(
        text, begins[often], ends[often], per_word[often], max_bytes=config.max_bytes, limit=config.inventory, skip=REQUIRED
    )
    return PackedTokens(data, token_starts), counts / np.maximum(counts.sum(1, keepdims=True), 1)


def check_found(tokens: PackedTokens, texts: Sequence[Documents]) -> None:
    """UserError if nothing but REQUIRED was found."""
    if len(tokens) == len(REQUIRED):
        raise UserError(f"the text of {', '.join(t.name for t in texts)} is too short to draw tokenizers from it")
