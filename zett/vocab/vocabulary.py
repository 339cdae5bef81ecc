"""`Vocabulary`: what every token of a tokenizer stands for."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zett.vocab.bytes import TokenFormat, token_format
from zett.vocab.decompose import Decomposer
from zett.vocab.normalise import Normaliser


@dataclasses.dataclass(frozen=True, eq=False)
class Vocabulary:
    """A tokenizer's vocabulary, by token id.

    tokens: `[V]` bytes that each token stands for; b"" for special, reserved and missing ids.
    special: id of each special token by its text. roles: id by role (bos, eos, pad, ...), where the tokenizer has that role.
    log_prior: `[V]` float32, natural log of the token's expected share of a text: Unigram scores, else from the rank by id.
    kind: of tokenizer, see `TokenFormat`. losses: what a text loses in the tokenizer, in words; () if nothing.
    tokenizer: the `tokenizers.Tokenizer`. folder: where it was read from, or None. format: how its model spells tokens.
    ends: ids that end a text, the eos first; a model's configs may name several.
    mapped: for ids whose rows somebody has decided, the text of a base model that they stand for; see zett/vocab/mapping.py.
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
    ends: tuple[int, ...] = ()
    mapped: Mapping[int, str] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        where = "" if self.folder is None else f", in {self.folder}"
        return f"Vocabulary({self.kind}, {len(self):,} tokens, {len(self.special)} of them special{where})"

    @functools.cached_property
    def normaliser(self) -> Normaliser:
        """What the tokenizer does to texts before its model sees them."""
        return Normaliser(self.tokenizer, self.format or token_format(self.tokenizer), self.tokens)

    @functools.cached_property
    def rules(self) -> tuple[str, ...]:
        """In words: what the tokenizer adds to a text, and which characters it reads as others."""
        return self.normaliser.rules()

    def normalise(self, text: str) -> bytes:
        """The bytes that the tokens of `tokenizer.encode(text, add_special_tokens=False)` spell together.

        The text has lost only what `losses` names, and gained only what `rules` names. Characters outside the vocabulary are
        still in these bytes, though they are lost in the encoding: there an unknown token (b"" in `tokens`) stands for one or
        more of them, and a BPE without an unknown token leaves them out.
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
        """`[V]` int32, how many bytes each token stands for."""
        return np.asarray([len(t) for t in self.tokens], np.int32)
