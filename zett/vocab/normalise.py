"""What a tokenizer does to a text before its model sees it: in bytes, and in plain words."""

import json
import re
from collections.abc import Callable, Iterable, Sequence

from zett.vocab.bytes import TokenFormat, components


class Normaliser:
    """From a text to the bytes that a tokenizer gives its model: normalised, with added spaces and without dropped ones.

    It runs the tokenizer's own normaliser, pre-tokeniser and added tokens, in front of a model whose tokens are 256 bytes.
    tokens: `[V]` what each token of the tokenizer stands for.
    """

    def __init__(self, tokenizer, form: TokenFormat, tokens: Sequence[bytes]):
        import tokenizers

        spell = {f"<0x{byte:02X}>": byte for byte in range(256)}
        self._bare = tokenizers.Tokenizer(tokenizers.models.BPE(spell, [], byte_fallback=True))
        if tokenizer.normalizer is not None:
            self._bare.normalizer = tokenizer.normalizer
        if tokenizer.pre_tokenizer is not None:
            self._bare.pre_tokenizer = tokenizer.pre_tokenizer
        added = sorted(tokenizer.get_added_tokens_decoder().items())
        self._bare.add_tokens([token for _, token in added])
        self._added = {self._bare.token_to_id(token.content): tokens[i] for i, token in added}
        self._special = next((token.content for _, token in added if token.special), None)
        self._form = form

    def __call__(self, texts: Iterable[str]) -> list[bytes]:
        """The bytes of each text."""
        if self._form.continuing or self._form.word_end:
            encodings = self._bare.encode_batch(list(texts), add_special_tokens=False)
            return [self._join(encoding.ids, encoding.word_ids) for encoding in encodings]
        # If words are not marked, it does not matter where they end. encode_batch_fast gives no word ids, in half the time.
        encodings = self._bare.encode_batch_fast(list(texts), add_special_tokens=False)
        return [self._join(ids, [i in self._added for i in ids]) for ids in (encoding.ids for encoding in encodings)]

    def _join(self, ids: list[int], words: Sequence) -> bytes:
        """The bytes of a text, made word by word: ids with the same entry in `words` are one word."""
        parts = []
        start = 0
        for end in range(1, len(ids) + 1):
            if end == len(ids) or words[end] != words[start]:
                if ids[start] in self._added:
                    parts += [self._added[i] for i in ids[start:end]]
                else:
                    parts.append(self._form.word(bytes(ids[start:end]).decode()))
                start = end
        return b"".join(parts)

    def _is_one_word(self, text: str) -> bool:
        return len(set(self._bare.encode(text, add_special_tokens=False).word_ids)) == 1

    def losses(self) -> tuple[str, ...]:
        """What a text loses, in words. Each loss is tried: two texts that differ in it alone give the model the same bytes."""
        found = []
        for loss, text, other, unless in _LOSSES:
            one, two = self([text, other])
            if one == two and unless not in found:
                found.append(loss)
        gone = [c for c in _ASCII if c.encode() not in self([f"a{c}a"])[0]]
        if gone:
            found.append(f"the characters {' '.join(gone)}")
        for step in components(self._bare.normalizer):
            if step["type"] == "Replace" and not _is_about_spaces(step):
                (pattern,) = step["pattern"].values()
                found.append(f"the difference between {pattern!r} and {step['content']!r}")
        if not self._form.complete:
            found.append("characters outside the vocabulary")
        return tuple(found)

    def rules(self) -> tuple[str, ...]:
        """In words: what is added to a text, and which texts are read as something else than they spell."""
        found = []
        plain, spaced, section = self(["a", " a", f"a{self._special}a"])
        if self._form.continuing:
            found.append("a space is put before every word that begins with a letter or a digit")
        elif self._form.word_end:
            found.append("a space is put after every word")
        elif plain[:1] == b" ":
            after = "; the same after a special token" if self._special and section == plain + plain else ""
            which = "every text" if spaced == b" " + plain else "a text that does not begin with one"
            found.append(f"a space is put before {which}{after}")
        if (mark := self._form.continuing) and self._is_one_word(mark + "a"):
            found.append(f"a word that begins with {mark!r} can be read as what follows")
        if self._form.space and self([f"a{self._form.space}a"]) == self(["a a"]):
            found.append(f"{self._form.space!r} is read as a space")
        if self._form.byte_tokens and self._form.kind == "Unigram":
            found.append('"<0x41>" and the like can be read as the byte of that number')
        return tuple(found)


def token_normaliser(tokenizer) -> Callable[[bytes], bytes] | None:
    """A function that normalises the text of a token (letter case, accents, forms of characters) as the tokenizer would.

    None if the tokenizer has no such normaliser. White space and bytes that are no text stay as they are; so do parts that it
    would drop altogether, and parts that it would join to the letter before them, such as an accent.
    """
    import tokenizers

    steps = [step for step in components(tokenizer.normalizer) if not _is_about_spaces(step)]
    if not steps:
        return None
    bare = json.loads(tokenizers.Tokenizer(tokenizers.models.BPE()).to_str())
    bare["normalizer"] = {"type": "Sequence", "normalizers": steps}
    normalise = tokenizers.Tokenizer.from_str(json.dumps(bare)).normalizer.normalize_str

    def of_run(run: str) -> str:
        text = normalise(f"a{run}a")
        inside = text[1:-1]
        return inside if inside and text == f"a{inside}a" else run

    every = "".join(map(chr, range(33, 127)))
    ascii_stays = of_run(every) == every

    def of_token(token: bytes) -> bytes:
        text = token.decode("utf-8", "surrogateescape")
        if ascii_stays and text.isascii() and text.isprintable():
            return token
        made = ""
        for i, part in enumerate(_BETWEEN.split(text)):
            new = of_run(part) if part and i % 2 == 0 else part
            made += new[1:] if made.endswith(" ") and i % 2 == 0 and new.startswith(" ") else new
        return made.encode("utf-8", "surrogateescape")

    return of_token


def _is_about_spaces(step: dict) -> bool:
    """Whether a step only marks or drops spaces, or spells bytes as characters. Token bytes have neither marks nor spelling."""
    if step["type"] == "Replace":
        (pattern,) = step["pattern"].values()
        return set(pattern) <= _OF_SPACES
    return step["type"] in ("Prepend", "Strip", "ByteLevel")


_BETWEEN = re.compile("([ \t\r\n\udc80-\udcff]+)")


# A loss, two texts that a tokenizer with it does not tell apart, and another loss that includes it.
_LOSSES = (
    ("letter case", "Aa", "aa", None),
    ("accents", "é", "e", None),
    ("composition (NFC)", "e\u0301", "é", "accents"),
    ("compatibility forms (NFKC)", "ﬁ", "fi", None),
    ("accents on compatibility forms", "№\u0308", "№", "accents"),
    ("control characters", "a\x01b", "ab", None),
    ("spaces", "a ,", "a,", None),
    ("runs of spaces", "a  b", "a b", "spaces"),
    ("a space at the beginning", " a", "a", "spaces"),
    ("a space at the end", "a ", "a", "spaces"),
    ("line breaks", "a\nb", "a b", "spaces"),
)
_ASCII = "".join(chr(i) for i in range(33, 127) if not chr(i).isupper())
# The characters of patterns that match nothing but spaces. What such a step loses, _LOSSES names already.
_OF_SPACES = set(r" \s\A\z^$|+*{}0123456789,")
