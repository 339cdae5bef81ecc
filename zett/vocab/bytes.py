"""Token bytes: what each token of a Hugging Face tokenizer stands for. All tokenizer-specific knowledge ends here."""

import json
import re

from zett.errors import UserError

SPACE_MARK = "▁"


def _byte_to_char() -> list[str]:
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [b for b in range(256) if b not in printable]
    return [chr(b) if b in printable else chr(256 + others.index(b)) for b in range(256)]


# GPT-2's printable byte alphabet: an input format of tokenizer files, not a representation used in here.
BYTE_TO_CHAR = _byte_to_char()
CHAR_TO_BYTE = {char: byte for byte, char in enumerate(BYTE_TO_CHAR)}

BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


def to_alphabet(token: bytes) -> str:
    """Bytes in GPT-2's printable alphabet."""
    return "".join(map(BYTE_TO_CHAR.__getitem__, token))


def tokenizer_kind(spec: dict) -> str:
    """The kind of tokenizer that a parsed tokenizer.json describes. UserError for one that cannot be read."""
    model = spec["model"]
    kind = model.get("type")
    parts = json.dumps([spec.get("normalizer"), spec.get("pre_tokenizer"), spec.get("decoder")], ensure_ascii=False)
    if kind == "BPE":
        if model.get("end_of_word_suffix"):
            raise UserError(f"BPE with the word suffix {model['end_of_word_suffix']!r} is not supported yet")
        if '"ByteLevel"' in parts:
            return "byte-level BPE"
        if model.get("byte_fallback") or SPACE_MARK in parts or "Metaspace" in parts:
            return "SentencePiece BPE"
        raise UserError("a BPE tokenizer that is neither byte-level nor SentencePiece-like; its bytes cannot be told")
    if kind in ("Unigram", "WordPiece"):
        return kind
    raise UserError(f"tokenizer model {kind!r} is not supported; supported: BPE, Unigram, WordPiece")


def token_bytes(tokenizer) -> list[bytes]:
    """Bytes of every token id of a `tokenizers.Tokenizer`; b"" for special tokens and for ids that are never used.

    Such are byte pieces like "<0x41>" beside an ordinary piece "A". Taken for what it spells, it would get the same row, and
    half of the probability of "A".

    WordPiece drops the spaces of a text; here a piece that begins a word stands for " word", the form in which models of other
    tokenizers know it, and a piece of punctuation for itself.
    """
    spec = json.loads(tokenizer.to_str())
    kind = tokenizer_kind(spec)
    added = tokenizer.get_added_tokens_decoder()
    vocab = tokenizer.get_vocab()
    size = max(vocab.values(), default=-1) + 1
    tokens = [b""] * size
    unknown = spec["model"].get("unk_token")
    if kind == "Unigram" and spec["model"].get("unk_id") is not None:
        unknown = spec["model"]["vocab"][spec["model"]["unk_id"]][0]
    read = {
        "byte-level BPE": _byte_level,
        "SentencePiece BPE": _sentencepiece,
        "Unigram": _byte_level if '"ByteLevel"' in json.dumps(spec.get("pre_tokenizer")) else _sentencepiece,
        "WordPiece": _wordpiece(spec["model"].get("continuing_subword_prefix") or "##"),
    }[kind]
    for token, i in vocab.items():
        if i in added:
            tokens[i] = b"" if added[i].special else added[i].content.encode()
        elif token != unknown:
            tokens[i] = read(token)
    if read is _sentencepiece:
        ordinary = {tokens[i] for token, i in vocab.items() if not BYTE_TOKEN.fullmatch(token)}
        for token, i in vocab.items():
            if BYTE_TOKEN.fullmatch(token) and tokens[i] in ordinary:
                tokens[i] = b""
    return tokens


def _byte_level(token: str) -> bytes:
    try:
        return bytes(map(CHAR_TO_BYTE.__getitem__, token))
    except KeyError as error:
        raise UserError(f"token {token!r} has {error.args[0]!r}, which is not in the byte-level alphabet") from None


def _sentencepiece(token: str) -> bytes:
    if match := BYTE_TOKEN.fullmatch(token):
        return bytes([int(match[1], 16)])
    return token.replace(SPACE_MARK, " ").encode("utf-8", "surrogatepass")


def _wordpiece(prefix: str):
    def read(token: str) -> bytes:
        if token.startswith(prefix) and token != prefix:
            return token[len(prefix) :].encode()
        return (" " + token if token[:1].isalnum() else token).encode()

    return read
