"""Token bytes: what each token of a Hugging Face tokenizer stands for. All tokenizer-specific knowledge ends here."""

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Any

from zett.errors import UserError

SPACE_MARK = "▁"
MAX_ID = 2**24 - 1  # a file can claim any id in a few bytes; the largest vocabularies in use have 2**20 ids
# A model has a row for every id up to the largest, also for ids without a token. So ids may be at most SPARSEST for each token,
# and a small vocabulary may have SPARE_IDS in any case.
SPARSEST, SPARE_IDS = 4, 4096


def _byte_to_char() -> list[str]:
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [b for b in range(256) if b not in printable]
    return [chr(b) if b in printable else chr(256 + others.index(b)) for b in range(256)]


# GPT-2's printable byte alphabet. Tokenizer files are written in it; in this package, tokens are bytes.
BYTE_TO_CHAR = _byte_to_char()
CHAR_TO_BYTE = {char: byte for byte, char in enumerate(BYTE_TO_CHAR)}
# For str.translate: each character of the alphabet becomes the Latin-1 character with its byte's number, and all other Latin-1
# characters are dropped.
_FROM_ALPHABET = dict.fromkeys(range(256)) | {ord(char): byte for char, byte in CHAR_TO_BYTE.items()}

UTF8_BYTES = (*range(0xC0), *range(0xC2, 0xF5))  # those that occur in UTF-8

BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
# Tokens kept free for later use: "<unused12>", "[unused12]", "<|reserved_special_token_3|>", "<SPECIAL_20>", "<extra_id_0>".
RESERVED_TOKEN = re.compile(r"[<\[]\|?_*(unused|reserved|special|extra|dummy|placeholder|madeupword)[a-z_]*\d+\|?[>\]]", re.I)


def to_alphabet(token: bytes) -> str:
    """Bytes in GPT-2's printable alphabet."""
    return "".join(map(BYTE_TO_CHAR.__getitem__, token))


@dataclasses.dataclass(frozen=True)
class TokenFormat:
    """How the model of a tokenizer spells what its tokens stand for.

    kind: "byte-level BPE", "SentencePiece BPE", "BPE" (of characters), "Unigram", "WordPiece" or "WordLevel".
    byte_level: tokens are written in GPT-2's byte alphabet. space: the mark that is written for a space, "" if none.
    byte_tokens: "<0x41>" stands for one byte. continuing: how pieces begin that do not begin a word ("##"), or "".
    word_end: how pieces end that end a word ("</w>"), or "". unknown: the token for what the vocabulary lacks, or None.
    complete: there is a token for each byte, so that every text can be written. scores: a Unigram's pieces and natural logs.
    """

    kind: str
    byte_level: bool
    space: str
    byte_tokens: bool
    continuing: str
    word_end: str
    unknown: str | None
    complete: bool
    scores: Sequence[tuple[str, float]] = dataclasses.field(default=(), repr=False)

    def token(self, token: str) -> bytes:
        """What a token of the model stands for.

        Some formats mark words instead of spaces. There the mark counts as a space, since other tokenizers have one in its
        place: with `continuing`, a piece that begins a word with a letter or digit gets a space before it; with `word_end`, a
        piece that ends a word gets one after it.
        """
        if self.byte_tokens and (match := BYTE_TOKEN.fullmatch(token)):
            return bytes([int(match[1], 16)])
        if self.word_end:
            ends = token.endswith(self.word_end)
            inner = token.removesuffix(self.word_end).removeprefix(self.continuing)
            return self._text(inner) + b" " * ends
        if self.continuing:
            if token.startswith(self.continuing) and token != self.continuing:
                return self._text(token[len(self.continuing) :])
            return self.word(token)
        return self._text(token)

    def word(self, word: str) -> bytes:
        """What the tokens of a word stand for together. word: as the model gets it, normalised and pre-tokenised."""
        if self.word_end:
            return self._text(word) + b" "
        return b" " * bool(self.continuing and word[:1].isalnum()) + self._text(word)

    def _text(self, text: str) -> bytes:
        if self.byte_level:
            # As in the library's decoder, a text with characters outside the alphabet stands for itself.
            spelled = text.translate(_FROM_ALPHABET)
            if len(spelled) == len(text):
                try:
                    return spelled.encode("latin-1")
                except UnicodeEncodeError:
                    pass
            return text.encode()
        return (text.replace(self.space, " ") if self.space else text).encode()


def components(part: Any) -> list[dict]:
    """The settings of a normaliser, pre-tokeniser or decoder of the tokenizers library, one dict for each step."""
    return [] if part is None else _steps(json.loads(part.__getstate__()))


def _steps(settings: dict) -> list[dict]:
    if settings["type"] != "Sequence":
        return [settings]
    (inner,) = (value for value in settings.values() if isinstance(value, list))
    return [step for one in inner for step in _steps(one)]


def token_format(tokenizer) -> TokenFormat:
    """The format of a `tokenizers.Tokenizer`. UserError for one that cannot be read."""
    model = tokenizer.model
    name = type(model).__name__
    if name not in ("BPE", "Unigram", "WordPiece", "WordLevel"):
        raise UserError(f"tokenizer model {name!r} is not supported; supported: BPE, Unigram, WordPiece, WordLevel")
    encoding = components(tokenizer.normalizer) + components(tokenizer.pre_tokenizer)
    decoding = components(tokenizer.decoder)
    byte_level = any(step["type"] == "ByteLevel" for step in encoding)
    space = "" if byte_level else next(filter(None, map(_space_mark, encoding + decoding)), "")
    continuing = getattr(model, "continuing_subword_prefix", None) or ""
    word_end = getattr(model, "end_of_word_suffix", None) or ""
    if name == "Unigram":
        state = json.loads(model.__getstate__())
        unknown = state["vocab"][state["unk_id"]][0] if state["unk_id"] is not None else None
        fallback, scores = state.get("byte_fallback", False), state["vocab"]
    else:
        unknown = getattr(model, "unk_token", None)
        fallback, scores = getattr(model, "byte_fallback", False), ()
    # A piece is written differently as the first, an inner, the last, or the only piece of a word.
    affixes = {(before, after) for before in ("", continuing) for after in ("", word_end)}
    of_byte = [f"<0x{byte:02X}>" for byte in UTF8_BYTES] if fallback else []
    if byte_level:
        of_byte = [before + BYTE_TO_CHAR[byte] + after for byte in UTF8_BYTES for before, after in affixes]
    whole_words = name in ("WordPiece", "WordLevel")
    complete = bool(of_byte) and not whole_words and all(model.token_to_id(token) is not None for token in of_byte)
    byte_tokens = not byte_level and (fallback or any(step["type"] == "ByteFallback" for step in decoding))
    if name == "BPE":
        name = "byte-level BPE" if byte_level else "SentencePiece BPE" if byte_tokens or space else "BPE"
    return TokenFormat(name, byte_level, space, byte_tokens, continuing, word_end, unknown, complete, scores)


def _space_mark(step: dict) -> str:
    if step["type"] == "Metaspace":
        return step["replacement"]
    if step["type"] == "Replace" and step["pattern"] == {"String": " "} and len(step["content"]) == 1:
        return step["content"]
    if step["type"] == "Replace" and step["content"] == " " and len(step["pattern"].get("String", "")) == 1:
        return step["pattern"]["String"]  # a decoder, which turns marks into spaces
    return ""


def token_bytes(tokenizer, form: TokenFormat | None = None) -> list[bytes]:
    """Bytes of every token id of a `tokenizers.Tokenizer`; b"" for special and reserved tokens and ids that are never used.

    A byte piece like "<0x41>" is never used if there is an ordinary piece "A". If it stood for "A", too, it would get the same
    row and take half of A's probability. form: `token_format(tokenizer)`, if known. UserError if an id stands for two tokens.
    """
    form = form or token_format(tokenizer)
    vocab = tokenizer.get_vocab(with_added_tokens=False)
    added = tokenizer.get_added_tokens_decoder()
    texts = _texts([*vocab.items(), *((token.content, i) for i, token in added.items())])
    tokens = [b""] * (max(texts, default=-1) + 1)
    read = form.token
    for text, i in vocab.items():
        tokens[i] = read(text)
    for i, token in added.items():
        if token.special:
            tokens[i] = b""
        elif form.byte_level or token.content not in vocab:  # "▁▁" in both is what the model makes of two spaces
            tokens[i] = token.content.encode()
    if form.unknown in vocab:
        tokens[vocab[form.unknown]] = b""
    if form.byte_tokens:
        spelled = {i for i, text in texts.items() if len(text) == 6 and BYTE_TOKEN.fullmatch(text)}
        ordinary = {tokens[i] for i in texts if i not in spelled}
        for i in spelled:
            if tokens[i] in ordinary:
                tokens[i] = b""
    for i, text in texts.items():
        if text[:1] in ("<", "[") and RESERVED_TOKEN.fullmatch(text):
            tokens[i] = b""
    return tokens


def _texts(entries: list[tuple[str, int]]) -> dict[int, str]:
    """The text of each id."""
    texts: dict[int, str] = {}
    for text, i in entries:
        if texts.setdefault(i, text) != text:
            raise UserError(f"two tokens have the id {i}: {min(text, texts[i])!r} and {max(text, texts[i])!r}")
    largest = max(texts, default=0)
    if largest > MAX_ID:
        raise UserError(f"token {texts[largest]!r} has the id {largest}; ids up to {MAX_ID} are supported")
    if largest >= max(SPARSEST * len(texts), SPARE_IDS):
        raise UserError(
            f"token {texts[largest]!r} has the id {largest}, but there are only {len(texts)} tokens; a model has a row for "
            f"every id, so that at most {SPARSEST} ids for each token are supported"
        )
    return texts
