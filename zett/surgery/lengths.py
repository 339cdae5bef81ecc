"""How a text is cut by the tokenizers before and after an edit."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from zett.surgery.edit import VocabularyEdit
from zett.vocab import Vocabulary

BATCH = 64  # texts that are encoded at a time


@dataclasses.dataclass(frozen=True)
class Lengths:
    """bytes: of the text. before, after: its tokens. same: the share of it whose tokens are those of before.

    used: how often each id of the edited tokenizer occurs, `[size]`.
    """

    bytes: int
    before: int
    after: int
    same: float
    used: np.ndarray

    def __str__(self) -> str:
        a, b = (tokens / max(self.bytes, 1) for tokens in (self.before, self.after))
        return f"{a:.4f} tokens per byte before, {b:.4f} after; {self.same:.2%} of {self.bytes:,} bytes cut as before"


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(texts)
    while some := list(itertools.islice(rest, BATCH)):
        yield some


def count(vocab: Vocabulary, texts: Iterable[str]) -> np.ndarray:
    """`[V]` int64, how often texts have each token."""
    counts = np.zeros(len(vocab), np.int64)
    for some in batches(texts):
        encodings = vocab.tokenizer.encode_batch_fast(some, add_special_tokens=False)
        counts += _counted([encoding.ids for encoding in encodings], len(vocab))
    return counts


def _counted(ids: list[list[int]], size: int) -> np.ndarray:
    return np.bincount(np.fromiter(itertools.chain.from_iterable(ids), np.int64), minlength=size)


def compare(before: Vocabulary, after: Vocabulary, edit: VocabularyEdit, texts: Iterable[str]) -> Lengths:
    """Both tokenizers on the same texts. A token is that of before if it is in the same place and has the same row."""
    size = tokens = new_tokens = 0
    same = whole = 0
    used = np.zeros(edit.size, np.int64)
    for some in batches(texts):
        old = before.tokenizer.encode_batch(some, add_special_tokens=False)
        new = after.tokenizer.encode_batch(some, add_special_tokens=False)
        used += _counted([encoding.ids for encoding in new], edit.size)
        for text, x, y in zip(some, old, new):
            size += len(text.encode("utf-8", "replace"))
            tokens += len(x.ids)
            new_tokens += len(y.ids)
            places = Counter(zip(y.ids, y.offsets))
            lengths = before.byte_lengths[x.ids]
            for i, place, length in zip(edit.ids[x.ids].tolist(), x.offsets, lengths.tolist()):
                whole += length
                if places[i, place] > 0:
                    places[i, place] -= 1
                    same += length
    return Lengths(size, tokens, new_tokens, same / max(whole, 1), used)
