"""Facts about one tokenizer, found by reading its settings and by trying it on texts."""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from zett.vocab import Vocabulary
from zett.vocab.bytes import RESERVED_TOKEN, UTF8_BYTES, components
from zett.vocab.prompts import around, chat_template, missing_in_template

SAMPLE = "The cat's 3 kittens\n    cost_of(x)==12345.67; naïve हिन्दी 東京タワー 🙂"
# Texts before and after a token when it is tried. Each pair is tried on the tokens that came out of none of those before it.
CONTEXTS = (
    ("", ""), ("\n", ""), ("a", ""), (" ", ""), ("", "m"), ("", " a"), ("zq", ""), ("Xk", ""), ("7", ""), ("-", ""), ("о", ""),
    ("中", ""), ("", "1"), ("", "\n"), ("a", "q"), ("7", "7"),
)  # fmt: skip
BATCH = 20_000  # tokens tried at once, which bounds the memory


@dataclasses.dataclass(frozen=True)
class Digits:
    """How numbers are cut. scheme: in words, the same for tokenizers that cut alike. example: the pieces of 1234567."""

    scheme: str
    example: tuple[str, ...]


def describe(vocab: Vocabulary, name: str) -> dict:
    """The facts about a tokenizer by itself, as JSON values."""
    present = [t for t in vocab.tokens if t]
    counts = np.bincount([len(t) for t in present])
    before, after = ([vocab.tokenizer.id_to_token(i) for i in side] for side in around(vocab))
    digits = digit_scheme(vocab)
    lost = unreachable(vocab)
    template = chat_template(vocab.folder)
    return {
        "name": name,
        "kind": vocab.kind,
        "ids": len(vocab),
        "tokens": len(present),
        "special": len(vocab.special),
        "reserved": sum(RESERVED_TOKEN.fullmatch(text) is not None for text in vocab.tokenizer.get_vocab()),
        "without_text": len(vocab) - len(present),
        "duplicates": len(present) - len(vocab.id_of),
        "with_inner_space": sum(b" " in t.strip(b" ") for t in present),
        "bytes_per_token": {str(n): int(c) for n, c in enumerate(counts) if c},
        "mean_bytes": float(np.mean([len(t) for t in present])),
        "single_bytes": sum(bytes([b]) in vocab.id_of for b in UTF8_BYTES),
        "normaliser": normaliser_words(vocab),
        "pre_tokeniser": pre_tokeniser_words(vocab),
        "cut_sample": list(cut(vocab, SAMPLE)),
        "rules": list(vocab.rules),
        "losses": list(vocab.losses),
        "before_text": before,
        "after_text": after,
        "digits": {"scheme": digits.scheme, "example": list(digits.example)},
        "unreachable": {
            "count": len(lost),
            "by_reason": {reason: sum(r == reason for r in lost.values()) for reason in sorted(set(lost.values()))},
            "examples": [show_id(vocab, i) for i in list(lost)[:20]],
        },
        "chat_template": template is not None,
        "missing_in_template": missing_in_template(template, vocab.tokenizer),
    }


def show(token: bytes) -> str:
    """A token in print: spaces as ␣, line breaks and the like as escapes, bytes that are no character as \\xNN."""
    text = token.decode("utf-8", "backslashreplace").replace(" ", "␣")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def show_id(vocab: Vocabulary, i: int) -> str:
    """A token in print by its id; where tokens mark the parts of words, with its marks."""
    marked = vocab.format is not None and (vocab.format.word_end or vocab.format.continuing)
    return vocab.tokenizer.id_to_token(i) if marked else show(vocab.tokens[i])


# ------------------------------------------------------------------------------------------------- normaliser, pre-tokeniser


def _replaced(step: dict) -> str:
    pattern = next(iter(step["pattern"].values()))
    return f"replaces {pattern!r} by {step['content']!r}"


_NORMALISERS = {
    "Lowercase": "lower case",
    "NFC": "composes characters (NFC)",
    "NFD": "decomposes characters (NFD)",
    "NFKC": "unifies compatible characters (NFKC)",
    "NFKD": "unifies compatible characters and decomposes (NFKD)",
    "Nmt": "removes control characters, unifies spaces (NMT)",
    "Precompiled": "SentencePiece's table (most of NFKC, spaces unified)",
    "StripAccents": "removes accents",
    "ByteLevel": "writes bytes as printable characters",
}


def normaliser_words(vocab: Vocabulary) -> list[str]:
    """What the normaliser does to a text, a phrase for each step."""
    words = []
    for step in components(vocab.tokenizer.normalizer):
        step_type = step["type"]
        if step_type == "BertNormalizer":
            accents = step["strip_accents"] if step["strip_accents"] is not None else step["lowercase"]
            words += ["removes control characters, unifies spaces"] * step["clean_text"]
            words += ["spaces around Chinese characters"] * step["handle_chinese_chars"]
            words += ["removes accents"] * accents + ["lower case"] * step["lowercase"]
        elif step_type == "Replace":
            words.append(_replaced(step))
        elif step_type == "Prepend":
            words.append(f"puts {step['prepend']!r} in front")
        elif step_type == "Strip":
            sides = [side for side in ("left", "right") if step[f"strip_{side}"]]
            words.append(f"strips spaces on the {' and '.join(sides)}")
        else:
            words.append(_NORMALISERS.get(step_type, step_type))
    return words


def cut(vocab: Vocabulary, text: str) -> Iterator[str]:
    """The parts of a (normalised) text that its model sees one at a time."""
    tokenizer = vocab.tokenizer
    if tokenizer.normalizer is not None:
        text = tokenizer.normalizer.normalize_str(text)
    if tokenizer.pre_tokenizer is None:
        yield text
        return
    for _, (start, end) in tokenizer.pre_tokenizer.pre_tokenize_str(text):
        yield text[start:end]


def pre_tokeniser_words(vocab: Vocabulary) -> list[str]:
    """Where texts are cut before the model sees them, in phrases; found by trying."""
    if len(list(cut(vocab, "a b\nc, 1"))) == 1:
        return ["not at all: tokens may span words"]

    def parts(text: str) -> list[str]:
        return [p.replace("▁", " ") for p in cut(vocab, text)]

    words = []
    two = parts("the cat")
    if len(two) == 1:
        words.append("not between words: tokens may span them")
    elif two[-1].startswith(" "):
        words.append("before a space, which belongs to the word after it")
    elif " " in two:
        words.append("around spaces, which are parts of their own")
    else:
        words.append("at spaces, which are dropped")
    if len(parts("a,b")) > 1:
        words.append("around punctuation")
    if len(parts("don't")) > 1:
        words.append("before 't" if "'t" in parts("don't") else "inside don't")
    digits = [p for p in parts("12345") if p.strip()]
    if len(digits) > 1:
        words.append("numbers: " + "|".join(digits))
    if len(parts("x1")) > 1:
        words.append("between letters and digits")
    if len([p for p in parts("東京") if p.strip()]) > 1:
        words.append("around every Chinese character")
    if splits_marks(vocab):
        words.append("inside words with combining marks (Hindi, Thai, ...)")
    return words


def splits_marks(vocab: Vocabulary) -> bool:
    """Whether the pre-tokeniser cuts words of scripts with combining marks, so that no token can hold such a word."""
    return len([part for part in cut(vocab, "हिन्दी") if part.strip(" ▁")]) > 1


# ---------------------------------------------------------------------------------------------------------------- digits


def digit_scheme(vocab: Vocabulary) -> Digits:
    """How numbers are cut, by trying numbers of 1 to 12 digits; arithmetic suffers where it changes."""
    rng = np.random.default_rng(0)
    numbers = ["".join(map(str, rng.integers(1, 10, n))) for n in range(1, 13) for _ in range(20)]
    splits = [_digit_split(vocab, number) for number in numbers]
    example = _digit_split(vocab, "1234567")
    pieces = tuple("1234567"[a:b] for a, b in itertools.pairwise(itertools.accumulate(example, initial=0)))
    if any(sum(split) != len(number) for split, number in zip(splits, numbers)):
        return Digits("digits are lost or unknown", pieces)
    longest = max(map(max, splits))
    if longest == 1:
        return Digits("single digits", pieces)
    ends = [set(itertools.accumulate(split)) for split in splits]
    for size in (2, 3, 4):
        for side in ("left", "right"):
            expected = [set(_group_ends(len(number), size, side)) for number in numbers]
            if ends == expected:
                return Digits(f"groups of {size} from the {side}", pieces)
            if longest <= size and all(e >= x for e, x in zip(ends, expected)):
                return Digits(f"groups of up to {size} from the {side}, cut further as learnt", pieces)
    return Digits("as learnt", pieces)


def _group_ends(length: int, size: int, side: str) -> Iterator[int]:
    yield from range(length, 0, -size) if side == "right" else range(size, length, size)
    yield length


def _digit_split(vocab: Vocabulary, number: str) -> list[int]:
    """Digits in each piece of a number inside a text."""
    ids = vocab.tokenizer.encode(f"a {number} b", add_special_tokens=False).ids
    return [n for n in (sum(byte in b"0123456789" for byte in vocab.tokens[i]) for i in ids) if n]


# ----------------------------------------------------------------------------------------------------------- reachability


def unreachable(vocab: Vocabulary) -> dict[int, str]:
    """Ids of tokens that stand for text but come out of no encoding, with the reason: their rows are never used.

    "model": the model makes other pieces of its text, whatever stands around it (exact for BPE and Unigram). "normaliser": the
    normaliser changes its text. "pre-tokeniser": its text is cut, in every context that was tried. Tokens that are parts of
    characters are judged by the model alone.
    """
    texts = {}
    added = vocab.tokenizer.get_added_tokens_decoder()
    fallback = vocab.format is not None and vocab.format.byte_tokens
    for i, token in enumerate(vocab.tokens):
        if token and i not in added and not (fallback and len(token) == 1):
            texts[i] = _text_or_none(token)
    fragments = [i for i, text in texts.items() if text is None]
    left = {i: text for i, text in texts.items() if text is not None}
    for before, after in CONTEXTS:
        ids = list(left)
        for start in range(0, len(ids), BATCH):
            batch = ids[start : start + BATCH]
            encodings = vocab.tokenizer.encode_batch_fast([before + left[i] + after for i in batch], add_special_tokens=False)
            for i, encoding in zip(batch, encodings):
                if i in encoding.ids:
                    del left[i]
    # Given a marked part of a word alone, a model that marks parts would take the mark for text: it cannot be asked.
    marked = vocab.format is not None and bool(vocab.format.word_end or vocab.format.continuing)
    found = {i: "model" for i in fragments if not marked and not _in_one_piece(vocab, i)}
    for i, text in left.items():
        if not marked and not _in_one_piece(vocab, i):
            found[i] = "model"
        else:
            found[i] = "pre-tokeniser" if vocab.tokens[i] in vocab.normalise("a" + text) else "normaliser"
    return dict(sorted(found.items()))


def _in_one_piece(vocab: Vocabulary, i: int) -> bool:
    return [piece.id for piece in vocab.tokenizer.model.tokenize(vocab.tokenizer.id_to_token(i))] == [i]


def _text_or_none(token: bytes) -> str | None:
    try:
        return token.decode("utf-8")
    except UnicodeDecodeError:
        return None
