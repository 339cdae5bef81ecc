"""`Vocabulary` (what every token of a tokenizer stands for) and `SurfaceForms` (the same in pieces of the source tokenizer)."""

import dataclasses
import functools
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zett.errors import UserError
from zett.vocab.bytes import BYTE_TO_CHAR, BYTE_TOKEN, TokenFormat, token_bytes, token_format
from zett.vocab.decompose import Decomposer
from zett.vocab.normalise import Normaliser
from zett.vocab.special import ROLES, WELL_KNOWN, pair_special


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """A tokenizer's vocabulary, by token id.

    tokens: `[V]` bytes that each token stands for; b"" for special, reserved and missing ids.
    special: id of each special token by its text. roles: id by role (bos, eos, pad, ...), where the tokenizer has that role.
    log_prior: `[V]` float32, natural log of the token's expected share of a text: Unigram scores, else from the rank by id.
    kind: see `TokenFormat`. losses: what the tokenizer does not preserve of a text, in words; () if nothing.
    tokenizer: the `tokenizers.Tokenizer`. folder: where it came from, or None. format: how the tokenizer's model spells tokens.
    """

    tokens: tuple[bytes, ...]
    special: dict[str, int]
    roles: dict[str, int]
    log_prior: np.ndarray
    kind: str
    losses: tuple[str, ...]
    tokenizer: Any
    folder: Path | None = None
    format: TokenFormat | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    @functools.cached_property
    def normaliser(self) -> Normaliser:
        """What the tokenizer does to texts before its model sees them."""
        return Normaliser(self.tokenizer, self.format or token_format(self.tokenizer), self.tokens)

    @functools.cached_property
    def rules(self) -> tuple[str, ...]:
        """What the tokenizer adds to a text, and which characters it reads as others, in words."""
        return self.normaliser.rules()

    def normalise(self, text: str) -> bytes:
        """The bytes that the tokens of `tokenizer.encode(text, add_special_tokens=False)` spell together.

        Not more than `losses` names is missing from the text, and not more than `rules` names is added. If `losses` names
        characters outside the vocabulary, those are still in here: in the encoding each unknown token (b"" in `tokens`) stands
        for one or more of them, and a BPE without an unknown token leaves them out.
        """
        return self.normaliser([text])[0]

    @functools.cached_property
    def decompose(self) -> Decomposer:
        """Takes byte strings apart into tokens of this vocabulary."""
        return Decomposer(self)

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
    pieces, lengths = source.decompose.cached(target.tokens).padded(max_pieces)
    same = np.asarray([source.id_of.get(token, -1) if token else -1 for token in target.tokens], np.int32)
    for i, partner in pair_special(target, source).items():
        pieces[i, 0], lengths[i], same[i] = partner, 1, partner
    return SurfaceForms(pieces, lengths, token_features(target.tokens, target.log_prior), same)


def token_features(tokens: Sequence[bytes], log_prior: np.ndarray) -> np.ndarray:
    """`[V, 5]` float32; the meaning of a token depends on the longer ones that are used instead of it where they fit."""
    lengths = np.asarray([len(t) for t in tokens])
    return feature_columns(lengths, _extensions(tokens), _extensions([t[::-1] for t in tokens]), log_prior)


def feature_columns(lengths: np.ndarray, prefixes: np.ndarray, suffixes: np.ndarray, log_prior: np.ndarray) -> np.ndarray:
    """`[V, 5]` float32; lengths in bytes; prefixes, suffixes: how many longer tokens begin or end with the token."""
    log_size = np.full(len(lengths), np.log(max((lengths > 0).sum(), 1)))
    columns = [(log_prior + 9) / 2, log_size - 8.5, np.log1p(prefixes) - 1, np.log1p(suffixes) - 1, np.log1p(lengths) - 1.5]
    return np.stack(columns, 1).astype(np.float32)


def _extensions(tokens: Sequence[bytes]) -> np.ndarray:
    """For each token, how many longer tokens begin with it."""
    from zett.vocab.words import extensions

    return extensions(np.frombuffer(b"".join(tokens), np.uint8), np.cumsum([0, *map(len, tokens)]))


# --------------------------------------------------------------------------------------------------------------- loading

SENTENCEPIECE_FILES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "vocab.json", "merges.txt", "vocab.txt", "config.json", *SENTENCEPIECE_FILES,
)  # fmt: skip
MAX_FILE_BYTES = 256 * 2**20  # reading takes ten times as much memory; the largest in use have 40 MB


def load_tokenizer(path: str | Path) -> Vocabulary:
    """The vocabulary of a tokenizer: a folder with tokenizer.json, that file, a GGUF file, or a name on the Hub.

    Raises UserError if there is none, or one of a kind that cannot be read.
    """
    folder = _locate(path)
    file = folder / "tokenizer.json"
    tokenizer = _read(file) if file.exists() else _converted(folder)
    # Settings of a training; here a text is one sequence of tokens, all of them, and the same each time.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if getattr(tokenizer.model, "dropout", None):
        tokenizer.model.dropout = None
    declared: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        declared |= _declared_roles(folder / name)
    try:
        return vocabulary_of(tokenizer, declared, folder)
    except UserError as error:
        raise UserError(f"{file if file.exists() else folder}: {error}") from None


def _read(file: Path):
    import tokenizers

    if (size := file.stat().st_size) > MAX_FILE_BYTES:
        raise UserError(f"{file} has {size / 2**20:.0f} MiB; tokenizers of up to {MAX_FILE_BYTES // 2**20} MiB are read")
    try:
        return tokenizers.Tokenizer.from_file(str(file))
    except BaseException as error:  # the library raises bare Exception, and what its Rust code panics with is not even that
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise UserError(f"{file} is not a tokenizer: {error}") from None
        raise


def _locate(path: str | Path) -> Path:
    given = Path(path).expanduser()
    from zett.gguf import convert_tokenizer, find_gguf

    if (file := find_gguf(given)) is not None:
        return convert_tokenizer(file)
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
    raise UserError(f"{file} is not a tokenizer: give a folder with tokenizer.json, that file, or a GGUF file")


def _converted(folder: Path):
    """The fast form of a slow tokenizer, made by Transformers."""
    if not any((folder / name).exists() for name in TOKENIZER_FILES if name != "config.json"):
        raise UserError(f"{folder} holds no tokenizer (no tokenizer.json or vocabulary file)")
    if not any((folder / name).exists() for name in ("tokenizer_config.json", "config.json")):
        raise UserError(
            f"{folder}: no tokenizer.json, and nothing that says which class of tokenizer the vocabulary file is for; "
            'put in a tokenizer_config.json with a line like {"tokenizer_class": "GPT2Tokenizer"}'
        )
    pieces = next(filter(Path.exists, (folder / name for name in SENTENCEPIECE_FILES)), None)
    if pieces is not None and importlib.util.find_spec("sentencepiece") is None:
        raise UserError(f"{folder}: no tokenizer.json, and reading {pieces.name} takes a package: pip install sentencepiece")
    import transformers

    try:
        loaded = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{folder}: no tokenizer.json, and Transformers cannot convert what is there: {reason}") from None
    if type(loaded).__name__ == "ByT5Tokenizer":
        return _byt5(loaded.added_tokens_decoder)
    if not hasattr(loaded, "backend_tokenizer"):
        raise UserError(f"{folder}: no tokenizer.json, and Transformers has no fast form of {type(loaded).__name__}")
    return loaded.backend_tokenizer


def _byt5(special: dict[int, Any]):
    """ByT5's tokenizer, which is code without files: byte b has the id b + 3, special tokens stand before and after."""
    import tokenizers

    vocab = {char: byte + 3 for byte, char in enumerate(BYTE_TO_CHAR)} | {token.content: i for i, token in special.items()}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens([token for _, token in sorted(special.items())])
    return tokenizer


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
    form = token_format(tokenizer)
    tokens = token_bytes(tokenizer, form)
    if not any(tokens):
        raise UserError("the vocabulary is empty")
    special = {token.content: i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    if form.unknown is not None and tokenizer.token_to_id(form.unknown) is not None:
        special.setdefault(form.unknown, tokenizer.token_to_id(form.unknown))
    roles = {}
    for role in ROLES:
        candidates = [declared[role]] if declared and role in declared else [t for t in WELL_KNOWN[role] if t in special]
        ids = [tokenizer.token_to_id(text) for text in candidates]
        if ids and ids[0] is not None:
            roles[role] = ids[0]
    prior = _score_prior(form.scores, tokens) if form.scores else rank_prior(tokens)
    losses = Normaliser(tokenizer, form, tokens).losses()
    return Vocabulary(tuple(tokens), special, roles, prior, form.kind, losses, tokenizer, folder, form)


def _score_prior(vocab: Sequence[tuple[str, float]], tokens: Sequence[bytes]) -> np.ndarray:
    scores = np.asarray([score for _, score in vocab], np.float64)
    # SentencePiece gives bytes the score 0, the best there is, but uses them as a last resort only.
    fallback = np.asarray([BYTE_TOKEN.fullmatch(piece) is not None for piece, _ in vocab])
    scores[fallback] = np.minimum(scores[fallback], scores[~fallback].min(initial=0.0) - 1)
    scores = np.concatenate([scores, np.full(max(len(tokens) - len(scores), 0), scores.min())])[: len(tokens)]
    return unigram_prior(scores, tokens)


def rank_prior(tokens: Sequence[bytes]) -> np.ndarray:
    """Zipf's law by id, which is the order of training for BPE and WordPiece: `[V]` natural logs."""
    present = _present(tokens)
    rank = np.cumsum(present)
    prior = -np.log(rank + 10.0)
    return (prior - np.log(np.exp(prior[present]).sum())).astype(np.float32)


def unigram_prior(scores: np.ndarray, tokens: Sequence[bytes]) -> np.ndarray:
    """Unigram scores (natural logs), normalised over the tokens that stand for text: `[V]`."""
    present = _present(tokens)
    scores = np.clip(scores, -25.0, 0.0)
    return (scores - np.log(np.exp(scores[present]).sum())).astype(np.float32)


def _present(tokens: Sequence[bytes]) -> np.ndarray:
    return np.fromiter(map(bool, tokens), np.bool_, len(tokens))
