"""`Vocabulary` (what every token of a tokenizer stands for) and `SurfaceForms` (the same in pieces of the source tokenizer)."""

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zett.errors import UserError
from zett.vocab.bytes import BYTE_TOKEN, token_bytes, tokenizer_kind
from zett.vocab.decompose import Decomposer

ROLES = ("bos", "eos", "pad", "unk", "mask", "cls", "sep")


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """A tokenizer's vocabulary, by token id.

    tokens: `[V]` bytes that each token stands for; b"" for special, unused and missing ids.
    special: id of each special token by its text. roles: id by role (bos, eos, pad, ...), where the tokenizer has that role.
    log_prior: `[V]` float32, natural log of the token's expected share of a text: Unigram scores, else from the rank by id.
    kind: "byte-level BPE", "SentencePiece BPE", "Unigram" or "WordPiece". losses: what the tokenizer does not preserve.
    tokenizer: the `tokenizers.Tokenizer`. folder: where it came from, or None.
    """

    tokens: tuple[bytes, ...]
    special: dict[str, int]
    roles: dict[str, int]
    log_prior: np.ndarray
    kind: str
    losses: tuple[str, ...]
    tokenizer: Any
    folder: Path | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    @functools.cached_property
    def id_of(self) -> dict[bytes, int]:
        """The lowest id of each byte string."""
        return {token: i for i, token in reversed(list(enumerate(self.tokens))) if token}

    @functools.cached_property
    def byte_lengths(self) -> np.ndarray:
        """`[V]` int32."""
        return np.asarray([len(t) for t in self.tokens], np.int32)


FEATURES = ("log prior", "log vocabulary size", "longer tokens with this prefix", "longer tokens with this suffix", "bytes")


@dataclasses.dataclass(frozen=True)
class SurfaceForms:
    """Target tokens in source pieces.

    pieces: `[V, S]` int32 source ids, right-padded with 0; id `source size + b` stands for byte b where the source has no token
    for it. lengths: `[V]` int32, pieces in use (0: the token stands for no text and has no partner). features: `[V, 5]`
    float32, what the vocabulary around the token looks like (see FEATURES), scaled to about unit size. same: `[V]` int32, the
    source id that stands for exactly the same bytes, or that has the same special role; else -1.
    """

    pieces: np.ndarray
    lengths: np.ndarray
    features: np.ndarray
    same: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, ids: np.ndarray) -> "SurfaceForms":
        """The forms of the tokens `ids [N]`."""
        return SurfaceForms(self.pieces[ids], self.lengths[ids], self.features[ids], self.same[ids])


def surface_forms(target: Vocabulary, source: Vocabulary, max_pieces: int = 8) -> SurfaceForms:
    """Decompose every target token into source pieces, as the source tokenizer's own model would."""
    pieces, lengths = pad_pieces(Decomposer(source)(target.tokens), max_pieces)
    same = np.asarray([source.id_of.get(token, -1) if token else -1 for token in target.tokens], np.int32)
    for i, partner in pair_special(target, source).items():
        pieces[i, 0], lengths[i], same[i] = partner, 1, partner
    return SurfaceForms(pieces, lengths, token_features(target.tokens, target.log_prior), same)


def pad_pieces(decompositions: list[list[int]], max_pieces: int) -> tuple[np.ndarray, np.ndarray]:
    """`[V, S]` right-padded ids and `[V]` lengths; what is longer than S is cut."""
    lengths = np.minimum([len(d) for d in decompositions], max_pieces).astype(np.int32)
    pieces = np.zeros((len(lengths), max_pieces), np.int32)
    flat = [i for d in decompositions for i in d[:max_pieces]]
    pieces[np.arange(max_pieces) < lengths[:, None]] = flat
    return pieces, lengths


def token_features(tokens: Sequence[bytes], log_prior: np.ndarray) -> np.ndarray:
    """`[V, 5]` float32; the meaning of a token depends on the longer ones that are used instead of it where they fit."""
    size = sum(1 for t in tokens if t)
    log_size = np.full(len(tokens), np.log(max(size, 1)))
    prefixes, suffixes = _extensions(tokens), _extensions([t[::-1] for t in tokens])
    lengths = np.asarray([len(t) for t in tokens])
    columns = [(log_prior + 9) / 2, log_size - 8.5, np.log1p(prefixes) - 1, np.log1p(suffixes) - 1, np.log1p(lengths) - 1.5]
    return np.stack(columns, 1).astype(np.float32)


def _extensions(tokens: Sequence[bytes]) -> np.ndarray:
    """For each token, how many longer tokens begin with it."""
    order = sorted(set(tokens))
    starts = {token: i for i, token in enumerate(order)}
    # In sorted order the tokens with a given prefix are the run that begins at it; a stack finds all runs' ends in one pass.
    ends = np.zeros(len(order), np.int64)
    stack: list[int] = []
    for i, token in enumerate(order):
        while stack and not token.startswith(order[stack[-1]]):
            ends[stack.pop()] = i
        stack.append(i)
    for i in stack:
        ends[i] = len(order)
    return np.asarray([ends[starts[t]] - starts[t] - 1 if t else 0 for t in tokens])


# -------------------------------------------------------------------------------------------------------- special tokens

# What stands in for a role that the source has no token for, in order.
_STAND_INS = {
    "bos": ("bos", "cls", "eos"),
    "eos": ("eos", "sep", "bos"),
    "cls": ("cls", "bos"),
    "sep": ("sep", "eos"),
    "pad": ("pad", "eos"),
    "unk": ("unk",),
    "mask": ("mask",),
}


def pair_special(target: Vocabulary, source: Vocabulary) -> dict[int, int]:
    """Source id for each special target id: the token with the same text, else with the same or the nearest role."""
    pairs = {i: source.special[text] for text, i in target.special.items() if text in source.special}
    for role, i in reversed(target.roles.items()):
        partner = next((source.roles[r] for r in _STAND_INS[role] if r in source.roles), None)
        if partner is not None:
            pairs[i] = partner
    return pairs


# --------------------------------------------------------------------------------------------------------------- loading

_WELL_KNOWN = {
    "bos": ("<s>", "<bos>", "<|endoftext|>", "<|begin_of_text|>", "[BOS]"),
    "eos": ("</s>", "<eos>", "<|endoftext|>", "<|end_of_text|>", "[EOS]"),
    "pad": ("<pad>", "<|pad|>", "[PAD]"),
    "unk": ("<unk>", "[UNK]"),
    "mask": ("<mask>", "[MASK]"),
    "cls": ("[CLS]",),
    "sep": ("[SEP]",),
}
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "tokenizer.model", "vocab.json", "merges.txt", "vocab.txt",
)  # fmt: skip


def load_tokenizer(path: str | Path) -> Vocabulary:
    """The vocabulary of a Hugging Face tokenizer: a folder with tokenizer.json, that file itself, or a name on the Hub.

    Raises UserError if there is none, or one of a kind that cannot be read.
    """
    import tokenizers

    folder = _locate(path)
    file = folder / "tokenizer.json"
    if file.exists():
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises bare Exception
            raise UserError(f"{file} is not a tokenizer: {error}") from None
    else:
        tokenizer = _converted(folder)
    declared: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        declared |= _declared_roles(folder / name)
    try:
        return vocabulary_of(tokenizer, declared, folder)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def _locate(path: str | Path) -> Path:
    given = Path(path).expanduser()
    if given.is_file():
        return given.parent if given.name == "tokenizer.json" else _single_file(given)
    if given.is_dir():
        return given
    if str(path).count("/") > 1 or given.is_absolute() or str(path).startswith((".", "~")):
        raise UserError(f"no such tokenizer folder: {path}")
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(huggingface_hub.snapshot_download(str(path), allow_patterns=list(TOKENIZER_FILES)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"no tokenizer {str(path)!r}: not a local folder, and the Hugging Face Hub says: {reason}") from None


def _single_file(file: Path) -> Path:
    raise UserError(f"{file} is not a tokenizer: give a folder with tokenizer.json, or that file")


def _converted(folder: Path):
    """The fast form of a slow tokenizer, made by Transformers."""
    if not any((folder / name).exists() for name in TOKENIZER_FILES):
        raise UserError(f"{folder} holds no tokenizer (no tokenizer.json or vocabulary file)")
    import transformers

    try:
        loaded = transformers.AutoTokenizer.from_pretrained(folder)
        return loaded.backend_tokenizer
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{folder}: no tokenizer.json, and Transformers cannot convert what is there: {reason}") from None


def _declared_roles(file: Path) -> dict[str, str]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{file} is not a JSON object, which gives special tokens by role")
    found = {}
    for role in ROLES:
        value = content.get(f"{role}_token")
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            found[role] = text
    return found


def vocabulary_of(tokenizer, declared: dict[str, str] | None = None, folder: Path | None = None) -> Vocabulary:
    """The vocabulary of a `tokenizers.Tokenizer`; `declared` gives texts of special tokens by role."""
    spec = json.loads(tokenizer.to_str())
    kind = tokenizer_kind(spec)
    tokens = token_bytes(tokenizer)
    if not any(tokens):
        raise UserError("the vocabulary is empty")
    added = tokenizer.get_added_tokens_decoder()
    special = {token.content: i for i, token in added.items() if token.special}
    unknown = spec["model"].get("unk_token")
    if unknown and tokenizer.token_to_id(unknown) is not None:
        special.setdefault(unknown, tokenizer.token_to_id(unknown))
    roles = {}
    for role in ROLES:
        candidates = [declared[role]] if declared and role in declared else [t for t in _WELL_KNOWN[role] if t in special]
        ids = [tokenizer.token_to_id(text) for text in candidates]
        if ids and ids[0] is not None:
            roles[role] = ids[0]
    losses = _losses(spec, kind)
    return Vocabulary(tuple(tokens), special, roles, _log_prior(spec, kind, tokens), kind, losses, tokenizer, folder)


def _log_prior(spec: dict, kind: str, tokens: Sequence[bytes]) -> np.ndarray:
    if kind == "Unigram":
        pieces = [piece for piece, _ in spec["model"]["vocab"]]
        scores = np.asarray([score for _, score in spec["model"]["vocab"]], np.float64)
        # SentencePiece gives bytes the score 0, the best there is, but uses them as a last resort only.
        fallback = np.asarray([BYTE_TOKEN.fullmatch(piece) is not None for piece in pieces])
        scores[fallback] = np.minimum(scores[fallback], scores[~fallback].min(initial=0.0) - 1)
        scores = np.concatenate([scores, np.full(max(len(tokens) - len(scores), 0), scores.min())])[: len(tokens)]
        return unigram_prior(scores, tokens)
    return rank_prior(tokens)


def rank_prior(tokens: Sequence[bytes]) -> np.ndarray:
    """Zipf's law by id, which is the order of training for BPE and WordPiece: `[V]` natural logs."""
    present = np.asarray([bool(t) for t in tokens])
    rank = np.cumsum(present)
    prior = -np.log(rank + 10.0)
    return (prior - np.log(np.exp(prior[present]).sum())).astype(np.float32)


def unigram_prior(scores: np.ndarray, tokens: Sequence[bytes]) -> np.ndarray:
    """Unigram scores (natural logs), normalised over the tokens that stand for text: `[V]`."""
    present = np.asarray([bool(t) for t in tokens])
    scores = np.clip(scores, -25.0, 0.0)
    return (scores - np.log(np.exp(scores[present]).sum())).astype(np.float32)


def _losses(spec: dict, kind: str) -> tuple[str, ...]:
    losses = []
    parts = json.dumps(spec.get("normalizer"))
    for mark, loss in (
        ('"Lowercase"', "letter case"), ('"lowercase": true', "letter case"), ('"StripAccents"', "accents"),
        ('"NFKC"', "compatibility forms (NFKC)"), ('"NFKD"', "compatibility forms (NFKD)"), ('"NFC"', "composition (NFC)"),
        ('"Precompiled"', "compatibility forms (SentencePiece charsmap)"), ('"clean_text": true', "control characters"),
    ):  # fmt: skip
        if mark in parts and loss not in losses:
            losses.append(loss)
    if kind == "WordPiece":
        losses.append("spaces")
    if kind == "WordPiece" or (kind in ("Unigram", "SentencePiece BPE") and not spec["model"].get("byte_fallback")):
        losses.append("characters outside the vocabulary")
    return tuple(losses)
