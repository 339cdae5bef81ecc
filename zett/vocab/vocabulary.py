"""`Vocabulary` (what every token of a tokenizer stands for) and `SurfaceForms` (the same in pieces of the source tokenizer)."""

import dataclasses
import functools
from pathlib import Path

import numpy as np

ROLES = ("bos", "eos", "pad", "unk", "mask", "cls", "sep")


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """A tokenizer's vocabulary, by token id.

    tokens: `[V]` bytes that each token stands for; b"" for special, reserved and missing ids.
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
    tokenizer: object
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


@dataclasses.dataclass(frozen=True)
class SurfaceForms:
    """Target tokens in source pieces.

    pieces: `[V, S]` int32 source ids, right-padded with 0; id `source size + b` stands for byte b where the source has no token
    for it. lengths: `[V]` int32, pieces in use (0: the token stands for no text and has no partner). log_prior: `[V]` float32.
    same: `[V]` int32, the source id that stands for exactly the same bytes, or that has the same special role; else -1.
    """

    pieces: np.ndarray
    lengths: np.ndarray
    log_prior: np.ndarray
    same: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)


def load_tokenizer(path: str | Path) -> Vocabulary:
    """The vocabulary of a Hugging Face tokenizer: a folder with tokenizer.json, that file itself, or a name on the Hub.

    Raises UserError if there is none, or one of a kind that cannot be read.
    """
    raise NotImplementedError


def surface_forms(target: Vocabulary, source: Vocabulary, max_pieces: int = 8) -> SurfaceForms:
    """Decompose every target token into source pieces, as the source tokenizer's own model would."""
    raise NotImplementedError
