"""`VocabularyEdit`: what becomes of a vocabulary's ids. Editing commands make one, and `write_edited` applies it."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping

import numpy as np

NONE = -1  # no id


@dataclasses.dataclass(frozen=True, eq=False)
class VocabularyEdit:
    """From the rows of an edited model to those of the one that it is made from.

    old: `[R]` int64, for each row of the edited model the id whose row it gets, or NONE. size: how many ids the edited
    tokenizer has; the rows from there on are padding. before: how many ids the tokenizer had. new: the tokens that it had not,
    by id, as its model spells them; their `old` is NONE. merges: of a BPE, those that make new tokens, in the order of their
    ranks; they come after all others. scores: of a Unigram, the new pieces' natural logs.
    """

    old: np.ndarray
    size: int
    before: int
    new: Mapping[int, str] = dataclasses.field(default_factory=dict)
    merges: tuple[tuple[str, str], ...] = ()
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def ids(self) -> np.ndarray:
        """`[before]` int64: the new id of each old one, or NONE for one that went."""
        found = np.full(self.before, NONE, np.int64)
        kept = np.flatnonzero(self.old[: self.size] >= 0)
        found[self.old[kept]] = kept
        return found

    @property
    def gone(self) -> np.ndarray:
        """Old ids that have no new one."""
        return np.flatnonzero(self.ids < 0)

    def id(self, old: int) -> int | None:
        """The new id of an old one; None if it went or never was."""
        new = int(self.ids[old]) if 0 <= old < self.before else NONE
        return None if new < 0 else new


def trimming(kept: Iterable[int], before: int, multiple: int = 1) -> VocabularyEdit:
    """The edit that keeps the ids `kept`, in their order, without gaps. multiple: of which the number of rows is."""
    old = np.asarray(sorted(set(kept)), np.int64)
    rows = -(-len(old) // multiple) * multiple
    return VocabularyEdit(np.concatenate([old, np.full(rows - len(old), NONE, np.int64)]), len(old), before)


def growing(
    tokens: list[str], before: int, rows: int, multiple: int = 1, *, merges: Iterable[tuple[str, str]] = (),
    scores: Mapping[str, float] | None = None,
) -> VocabularyEdit:  # fmt: skip
    """The edit that gives the ids from `before` on to new tokens.

    rows: how many the model has; those beyond its tokenizer are used first, and what is left of them stays as it is.
    """
    size = before + len(tokens)
    after = -(-max(size, rows) // multiple) * multiple
    old = np.arange(after)
    old[before:size] = NONE
    old[max(rows, size) :] = NONE
    return VocabularyEdit(old, size, before, dict(enumerate(tokens, before)), tuple(merges), dict(scores or {}))
