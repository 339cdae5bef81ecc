"""Two tokenizations of the same bytes: where both have a boundary between tokens.

The bytes are what the tokens of the one tokenizer spell (a student's, of whatever vocabulary a model is being given); the
other, a teacher's, reads these. So nothing that the student's tokenizer loses or changes is in the teacher's text, and what is
left that may differ is white space which the teacher's own tokenizer adds or drops; a boundary is shared where the two have
spelled the same but for that. Special tokens that are partners (see zett/vocab/pairing.py) stand for each other; others, and
unknown tokens, spell nothing and are passed over.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from zett.vocab.compiled.alignment import shared_boundaries
from zett.vocab.compiled.ranges import gather, starts_of
from zett.vocab.pairing import pair_special
from zett.vocab.vocabulary import Vocabulary

SPECIAL = 256  # the symbol of the teacher's special token t is this plus t


@dataclasses.dataclass(frozen=True, eq=False)
class Spelling:
    """What tokens spell, in symbols: token t is `symbols[starts[t] : starts[t + 1]]`, bytes and special tokens (see SPECIAL).

    partners: the teacher's ids of the student's special tokens that have one, by the student's.
    """

    symbols: np.ndarray
    starts: np.ndarray
    partners: Mapping[int, int]

    @classmethod
    def of(cls, tokens: Sequence[bytes], partners: Mapping[int, int] | None = None) -> "Spelling":
        """Of tokens by id; partners: see above. A partner that spells something is a token like others."""
        partners = {i: j for i, j in (partners or {}).items() if not tokens[i]}
        lengths = np.asarray([len(token) for token in tokens], np.int64)
        lengths[list(partners)] = 1
        starts = starts_of(lengths)
        symbols, is_byte = np.zeros(starts[-1], np.int32), np.ones(starts[-1], np.bool_)
        marks = starts[list(partners)]
        is_byte[marks] = False
        symbols[is_byte] = np.frombuffer(b"".join(tokens), np.uint8)
        symbols[marks] = SPECIAL + np.asarray(list(partners.values()), np.int32)
        return cls(symbols, starts, partners)


@dataclasses.dataclass(frozen=True)
class Aligned:
    """Texts in the teacher's tokens, and the boundaries that these share with the student's.

    ids `[B, N]`, of which `lengths [B]` count. places `[B, K, 2]`: how many tokens of the student and of the teacher are before
    each shared boundary, of which `counts [B]` count, in order. inner `[B, K]`: whether it lies inside a word.
    """

    ids: np.ndarray
    lengths: np.ndarray
    places: np.ndarray
    counts: np.ndarray
    inner: np.ndarray


class Teacher:
    """Reads in the tokens of `vocab` what tokens of others spell."""

    def __init__(self, vocab: Vocabulary):
        self.vocab = vocab
        empty = [i for i, token in enumerate(vocab.tokens) if not token]
        self.spelling = Spelling.of(vocab.tokens, dict(zip(empty, empty)))

    def student(self, vocab: Vocabulary) -> Spelling:
        """What the tokens of another vocabulary spell, for `align`."""
        return Spelling.of(vocab.tokens, pair_special(vocab, self.vocab))

    def align(self, ids: np.ndarray, lengths: np.ndarray, student: Spelling) -> Aligned:
        """The student's texts, `ids [B, L]` of which `lengths [B]` count, beside the teacher's reading of them."""
        rows = [self._sections(row[:length], student) for row, length in zip(ids, lengths)]
        texts = [section for _, sections in rows for section in sections if isinstance(section, str)]
        read = iter(self.vocab.tokenizer.encode_batch_fast(texts, add_special_tokens=False))
        found = [
            [i for section in sections for i in (next(read).ids if isinstance(section, str) else [section])]
            for _, sections in rows
        ]
        theirs = np.asarray([len(row) for row in found], np.int64)
        their_ids = np.zeros((len(found), max(int(theirs.max(initial=0)), 1)), np.int64)
        for row, some in zip(their_ids, found):
            row[: len(some)] = some
        places, counts, inner = shared_boundaries(
            np.asarray(ids, np.int64), np.asarray(lengths, np.int64), student.symbols, student.starts,
            np.asarray([skipped for skipped, _ in rows], np.int64),
            their_ids, theirs, self.spelling.symbols, self.spelling.starts,
        )  # fmt: skip
        return Aligned(their_ids, theirs, places, counts, inner)

    def _sections(self, ids: np.ndarray, student: Spelling) -> tuple[int, list[str | int]]:
        """A text as the teacher reads it: bytes to skip, then texts and its own ids of the special tokens between them.

        What is cut may begin or end within a character. The rest of that is skipped, or left out.
        """
        begins = student.starts[ids]
        symbols = gather(student.symbols, begins, student.starts[ids + 1] - begins)
        marks = np.flatnonzero(symbols >= SPECIAL)
        sections: list[str | int] = []
        skipped = _broken(symbols[:3])
        begin = skipped
        for mark in [*marks.tolist(), len(symbols)]:
            text = symbols[begin:mark].astype(np.uint8).tobytes().decode("utf-8", "ignore")
            sections += [text] if text else []
            sections += [int(symbols[mark]) - SPECIAL] if mark < len(symbols) else []
            begin = mark + 1
        return skipped, sections


def _broken(symbols: np.ndarray) -> int:
    """How many of a text's first bytes are the end of a character that began before."""
    return next((n for n, symbol in enumerate(symbols.tolist()) if symbol & 0xC0 != 0x80 or symbol >= SPECIAL), len(symbols))
