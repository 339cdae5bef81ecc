"""Where bits are lost: what the tokens of a target cost beyond what the original needs for the same bytes.

Both encodings of a text are cut where both have a boundary between tokens. Of such a chunk the excess is what the target's
tokens cost less what the original's cost, and each of the target's tokens gets the share of it that it has of their bits; so
the excesses of all tokens add up to the difference of the two scores. It is booked where it is paid: a row that misleads the
model about what follows is seen in the tokens that follow. Where a tokenizer changes the text (lower case, unknown characters),
the two spell different bytes from there on, and the rest of the window is one chunk.
"""

import unicodedata
from collections.abc import Sequence

import numpy as np

from zett.evaluate.results import ClassExcess, Excess, TokenExcess
from zett.evaluate.tasks.encoded import EncodedTexts
from zett.inspect.describe import show, show_id
from zett.vocab import Vocabulary
from zett.vocab.alignment import Teacher
from zett.vocab.compiled.alignment import shared_boundaries
from zett.vocab.forms import surface_forms

WORST = 100  # tokens that are listed
MAX_PIECES = 64
NO_TEXT = "no text"  # special and unknown tokens
NO_TOKENS = "no tokens"  # texts of which the target's tokenizer makes no token at all
PIECES = ("shared", "1 piece", "2 pieces", "3 pieces", "4+ pieces", NO_TEXT)  # 1: by the source's normaliser, or of a byte
CONTENT = ("letters", "other letters", "digits", "whitespace", "punctuation", "bytes", NO_TEXT)


def excess_bits(
    target: Vocabulary, encoded: EncodedTexts, bits: np.ndarray,
    source: Vocabulary, source_encoded: EncodedTexts, source_bits: np.ndarray,
) -> tuple[np.ndarray, float]:  # fmt: skip
    """Of each target token of the texts `[N, L]`, 0 where there is none; and of texts without any. bits: of tokens `[N, L]`.

    They add up to the difference of the two models' bits, text by text.
    """
    reader = Teacher(source)
    spelling = reader.student(target)
    places, counts, _ = shared_boundaries(
        encoded.ids.astype(np.int64), encoded.lengths.astype(np.int64), spelling.symbols, spelling.starts,
        np.zeros(len(bits), np.int64), source_encoded.ids.astype(np.int64), source_encoded.lengths.astype(np.int64),
        reader.spelling.symbols, reader.spelling.starts,
    )  # fmt: skip
    excess = np.zeros_like(bits)
    for row, (length, number) in enumerate(zip(encoded.lengths, counts)):
        starts = places[row, :number]
        starts[0] = 0  # tokens that spell nothing may come first
        starts = starts[starts[:, 0] < length]
        if not length:
            continue
        # What comes after the last boundary that is followed by a token belongs to its chunk, in both.
        chunks, theirs = (
            np.searchsorted(side, np.arange(n), side="right") - 1
            for side, n in zip(starts.T, (length, source_encoded.lengths[row]))
        )
        ours = bits[row, :length]
        paid, due = np.bincount(chunks, ours), np.bincount(theirs, source_bits[row, : len(theirs)], len(starts))
        equal = 1 / np.bincount(chunks)
        share = np.where(paid[chunks] > 0, ours / np.where(paid > 0, paid, 1)[chunks], equal[chunks])
        excess[row, :length] = ours - due[chunks] * share
    return excess, 0.0 - float(source_bits[encoded.lengths == 0].sum())


def excess_of(
    target: Vocabulary, source: Vocabulary, encoded: EncodedTexts, excess: np.ndarray, without: float, size: float
) -> Excess:
    """By class and by token. excess, without: as of `excess_bits`. size: bytes of the texts."""
    used = np.arange(encoded.ids.shape[1]) < encoded.lengths[:, None]
    ids = encoded.ids[used]
    counts = np.bincount(ids, minlength=len(target))
    bits = np.bincount(ids, excess[used], minlength=len(target))
    forms = surface_forms(target, source, MAX_PIECES)
    others = (ClassExcess(NO_TOKENS, 0, without / size),) if without else ()
    by_pieces, by_content = (
        (*_classes(names, of_token, counts, bits, size), *others)
        for names, of_token in ((PIECES, _pieces(forms.lengths, forms.same)), (CONTENT, _content(target.tokens, counts)))
    )
    worst = [int(i) for i in np.argsort(-bits, kind="stable")[:WORST] if bits[i] > 0]
    listed = [TokenExcess(show_id(target, i), i, _show_pieces(forms, source, i), int(counts[i]), float(bits[i])) for i in worst]
    return Excess((float(bits.sum()) + without) / size, by_pieces, by_content, tuple(listed))


def _classes(names: Sequence[str], of_token: np.ndarray, counts: np.ndarray, bits: np.ndarray, size: float):
    """Those of the classes that the texts have. of_token: `[V]`, numbers in `names`."""
    tokens, sums = np.bincount(of_token, counts, len(names)), np.bincount(of_token, bits, len(names))
    return [ClassExcess(name, int(n), float(b) / size) for name, n, b in zip(names, tokens, sums) if n]


def _pieces(lengths: np.ndarray, same: np.ndarray) -> np.ndarray:
    number = np.minimum(lengths, 4)
    return np.where(same >= 0, 0, np.where(number == 0, PIECES.index(NO_TEXT), number))


def _content(tokens: Sequence[bytes], counts: np.ndarray) -> np.ndarray:
    """Of tokens that do not occur, the first class."""
    found = np.zeros(len(tokens), np.int64)
    for i in np.flatnonzero(counts).tolist():
        found[i] = CONTENT.index(content(tokens[i]))
    return found


def content(token: bytes) -> str:
    """One of CONTENT: of several kinds of characters, the one that comes first there, but "other letters" before "letters".

    "bytes" is what is no whole character, "letters" those of ASCII.
    """
    if not token:
        return NO_TEXT
    try:
        text = token.decode()
    except UnicodeDecodeError:
        return "bytes"
    letters = [c for c in text if c.isalpha() or unicodedata.category(c)[0] == "M"]
    if letters:
        return "letters" if all(c.isascii() for c in letters) else "other letters"
    if any(c.isdigit() for c in text):
        return "digits"
    return "punctuation" if text.strip() else "whitespace"


def _show_pieces(forms, source: Vocabulary, i: int) -> tuple[str, ...]:
    """A token's source pieces in print; an id beyond the source's is a byte that it lacks."""
    ids = forms.pieces[i, : forms.lengths[i]].tolist()
    return tuple(show_id(source, p) if p < len(source) else show(bytes([p - len(source)])) for p in ids)
