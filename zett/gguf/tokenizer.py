"""The tokenizer of a GGUF file as the files of a Hugging Face folder."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np

from zett.errors import UserError
from zett.gguf.header import Header
from zett.gguf.pretokenisers import as_json, pre_tokeniser
from zett.gguf.settings import Settings

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
PADDING = re.compile(r"\[PAD\d+\]")  # what converters call ids that no token has
BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
LONGEST_PIECE = 256  # characters of a SentencePiece token; the time for finding its merges grows with the square
# Roles of special tokens and the settings with their ids; "seperator" is how the format spells it.
ROLES = {
    "bos": "bos_token_id", "eos": "eos_token_id", "unk": "unknown_token_id", "pad": "padding_token_id",
    "sep": "seperator_token_id", "cls": "cls_token_id", "mask": "mask_token_id",
}  # fmt: skip
SENTENCEPIECE_IDS = {"bos": 1, "eos": 2, "unk": 0}  # where a file does not say
# Their scores do not follow the order of merges, the ids do.
MERGED_BY_ID = ("gemma", "gemma2", "gemma3", "gemma3n")


@dataclasses.dataclass(frozen=True)
class Entries:
    """tokens: texts by id, without the padding at the end. types: of each. roles: id by role."""

    file: Path
    tokens: list[str]
    types: list[int]
    roles: dict[str, int]

    def texts(self) -> dict[str, str]:
        """Special tokens by role."""
        return {role: self.tokens[i] for role, i in self.roles.items()}


def tokenizer_files(header: Header) -> dict[str, Any]:
    """What is written under each name: JSON objects, or the text of a template. UserError for a tokenizer that is not known."""
    settings = Settings(header, "tokenizer.ggml.")
    kind = settings.text("model")
    if kind not in ("gpt2", "llama"):
        raise UserError(
            f"{header.file}: the tokenizer is {kind!r}; read are 'gpt2' (byte-level BPE) and 'llama' (SentencePiece BPE)"
        )
    entries = _entries(settings, SENTENCEPIECE_IDS if kind == "llama" else {})
    if kind == "gpt2":
        chosen = pre_tokeniser(settings.text("pre", None), header.file)
        parts, add_bos = _byte_level(entries, settings, chosen), chosen.add_bos
    else:
        parts, add_bos = _sentencepiece(entries, settings, header.values.get("general.architecture")), True
    ends = {
        "bos": settings.flag("add_bos_token", add_bos) and "bos" in entries.roles,
        "eos": settings.flag("add_eos_token", False) and "eos" in entries.roles,
    }
    spec = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(entries, set(parts["model"]["vocab"])),
        "post_processor": _template(entries, ends),
        **parts,
    }
    roles = {f"{role}_token": text for role, text in entries.texts().items()}
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "add_bos_token": ends["bos"],
        "add_eos_token": ends["eos"],
        **roles,
    }
    length = header.values.get(f"{header.values.get('general.architecture')}.context_length")
    if isinstance(length, int):
        config["model_max_length"] = length
    files = {"tokenizer.json": spec, "tokenizer_config.json": config, "special_tokens_map.json": roles}
    template = Settings(header, "tokenizer.").text("chat_template", None)
    return files if template is None else files | {"chat_template.jinja": template}


def generation_config(header: Header, ids: dict) -> dict:
    """generation_config.json: `ids` are those of config.json; a turn's end ends a text, too."""
    settings = Settings(header, "tokenizer.ggml.")
    ends = [ids.get("eos_token_id"), settings.whole("eot_token_id", None), settings.whole("eom_token_id", None)]
    ends = list(dict.fromkeys(end for end in ends if end is not None))
    return ids if len(ends) < 2 else {**ids, "eos_token_id": ends}


def _entries(settings: Settings, defaults: dict[str, int]) -> Entries:
    tokens = settings.texts("tokens")
    types = settings.numbers("token_type", np.full(len(tokens), NORMAL)).tolist()
    if len(types) != len(tokens):
        raise UserError(f"{settings.file}: {len(types):,} tokenizer.ggml.token_type for {len(tokens):,} tokens")
    roles = {role: settings.whole(key, defaults.get(role)) for role, key in ROLES.items()}
    roles = {role: i for role, i in roles.items() if i is not None}
    for role, i in roles.items():
        if not 0 <= i < len(tokens) and role in defaults and ROLES[role] not in settings.values:
            raise UserError(f"{settings.file}: tokenizer.ggml.{ROLES[role]} is missing, and there are {len(tokens):,} tokens")
        if not 0 <= i < len(tokens):
            raise UserError(f"{settings.file}: tokenizer.ggml.{ROLES[role]} is {i}, but there are {len(tokens):,} tokens")
    size = len(tokens)
    while size and types[size - 1] == UNUSED and PADDING.fullmatch(tokens[size - 1]) and size - 1 not in roles.values():
        size -= 1
    first: dict[str, int] = {}
    for i, token in enumerate(tokens[:size]):
        if first.setdefault(token, i) != i:
            raise UserError(f"{settings.file}: the tokens {first[token]} and {i} are both {token[:80]!r}")
    return Entries(settings.file, tokens[:size], types[:size], roles)


def _byte_level(entries: Entries, settings: Settings, chosen) -> dict:
    vocab = {token: i for i, token in enumerate(entries.tokens)}
    merges = _stated_merges(entries, vocab, settings)
    return {
        "normalizer": chosen.normaliser,
        "pre_tokenizer": as_json(chosen),
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": _bpe(vocab, merges, ignore_merges=chosen.ignore_merges),
    }


def _sentencepiece(entries: Entries, settings: Settings, architecture) -> dict:
    if settings.values.get("precompiled_charsmap") is not None:
        raise UserError(f"{entries.file}: the tokenizer normalises texts (precompiled_charsmap), which is not read here")
    # User-defined runs of spaces are stored as spaces, all other tokens with marks.
    tokens = ["▁" * len(t) if t and not t.strip(" ") else t for t in entries.tokens]
    vocab = {token: i for i, token in enumerate(tokens)}
    if len(vocab) < len(tokens):
        raise UserError(f"{entries.file}: two tokens of the tokenizer are the same run of spaces")
    if "merges" in settings.values:
        merges = _stated_merges(entries, vocab, settings)
    else:
        order = -np.arange(len(tokens), dtype=np.float64)
        if architecture not in MERGED_BY_ID:
            scores = settings.numbers("scores")
            if len(scores) < len(tokens) or not np.isfinite(scores).all():
                raise UserError(f"{entries.file}: {len(tokens):,} tokens need as many finite tokenizer.ggml.scores")
            order = scores
        merges = _merges(entries, vocab, order.tolist())
    prefix = settings.flag("add_space_prefix", True)
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    back = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    unknown = next((t for t, kind in zip(tokens, entries.types) if kind == UNKNOWN), entries.texts().get("unk"))
    fallback = any(map(BYTE_TOKEN.fullmatch, tokens))
    return {
        # Llama's own tokenizer puts the mark before every text, also before one that begins with a space.
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, spaces]} if prefix else spaces,
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]},
        "model": _bpe(vocab, merges, unk_token=unknown, fuse_unk=True, byte_fallback=fallback),
    }


def _stated_merges(entries: Entries, vocab: dict[str, int], settings: Settings) -> list[tuple[str, str]]:
    merges = []
    for merge in settings.texts("merges"):
        left, space, right = merge.partition(" ")
        if not space or left not in vocab or right not in vocab or left + right not in vocab:
            raise UserError(f"{entries.file}: the merge {merge[:80]!r} is not one of two tokens into a third")
        merges.append((left, right))
    return merges


def _merges(entries: Entries, vocab: dict[str, int], order: list[float]) -> list[tuple[str, str]]:
    """Every way to make a token of two, the token with the highest `order` first, as SentencePiece merges.

    Only what text is made of is merged: the text "<s>" is not the token.
    """
    made = {NORMAL, USER_DEFINED}
    found = []
    for token, i in vocab.items():
        if len(token) > LONGEST_PIECE:
            raise UserError(f"{entries.file}: token {i} has {len(token):,} characters; up to {LONGEST_PIECE} are read")
        if entries.types[i] not in made:
            continue
        for cut in range(1, len(token)):
            left, right = vocab.get(token[:cut]), vocab.get(token[cut:])
            if left is not None and right is not None and entries.types[left] in made and entries.types[right] in made:
                found.append((-order[i], -cut, -len(token), token))
    # Of equals, those with the longer first part come first, then the longer ones, as in Transformers' conversions.
    found.sort(key=lambda merge: merge[:3])
    return [(token[:-cut], token[-cut:]) for _, cut, _, token in found]


def _bpe(vocab: dict[str, int], merges: list[tuple[str, str]], **options) -> dict:
    plain = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
    }
    return {**plain, **options, "vocab": vocab, "merges": merges}


def _added_tokens(entries: Entries, vocab: set[str]) -> list[dict]:
    """Tokens that are found in a text before anything else is done to it; no text stands for the special ones."""
    roles = set(entries.roles.values())
    added = []
    for i, (token, kind) in enumerate(zip(entries.tokens, entries.types)):
        special = kind in (CONTROL, UNKNOWN) or i in roles or (kind == UNUSED and bool(PADDING.fullmatch(token)))
        if token in vocab and token and (special or kind == USER_DEFINED):
            flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            added.append({"id": i, "content": token, **flags, "special": special})
    return added


def _template(entries: Entries, ends: dict[str, bool]) -> dict | None:
    """The post-processor that puts the special tokens of `ends` around a text."""
    used = {role: text for role, text in entries.texts().items() if ends.get(role)}
    if not used:
        return None

    def around(sequence: str, number: int) -> list[dict]:
        inner = [{"Sequence": {"id": sequence, "type_id": number}}]
        before, after = ([{"SpecialToken": {"id": used[r], "type_id": number}}] if r in used else [] for r in ("bos", "eos"))
        return before + inner + after

    tokens = {text: {"id": text, "ids": [entries.roles[role]], "tokens": [text]} for role, text in used.items()}
    return {
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": around("A", 0) + around("B", 1),
        "special_tokens": tokens,
    }
