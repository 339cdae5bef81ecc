"""What drawing needs: worked out once, kept in the cache under a hash of all that it depends on, and memory-mapped."""

import functools
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from zett.config import SamplerConfig
from zett.data.documents import Documents
from zett.files.cache import cache_folder
from zett.vocab import decompose
from zett.vocab.sampling.packed import Candidates, PackedTokens
from zett.vocab.vocabulary import Vocabulary

RECIPE = 3  # part of the cache's key; to be raised when what is cached is made differently


def stored(folder: Path, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays that `make()` returns, kept in `folder` (a file for each, all or none) and memory-mapped from there."""
    try:
        return _mapped(folder)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, EOFError):  # a damaged file
        shutil.rmtree(folder, ignore_errors=True)
    arrays = make()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            for name, array in arrays.items():
                np.save(temporary / f"{name}.npy", array)
            if not folder.exists():  # another process may have been faster
                temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return _mapped(folder)
    except OSError:  # a cache that cannot be written is no reason to stop
        return arrays


def _mapped(folder: Path) -> dict[str, np.ndarray]:
    return {file.stem: np.load(file, mmap_mode="r", allow_pickle=False) for file in folder.iterdir()}


class Store:
    """The cache of one sampler: what its texts gave, and tokens in pieces of the vocabulary `base`."""

    def __init__(
        self,
        config: SamplerConfig,
        texts: Sequence[Documents],
        shares: np.ndarray,
        seed: int,
        base: Vocabulary,
        max_pieces: int,
    ):
        self._config, self._seed, self.base, self._max_pieces = config, seed, base, max_pieces
        self._texts, self._shares = texts, shares

    @functools.cached_property
    def _text_key(self) -> list:
        """What identifies the texts and their shares."""
        return [[text.fingerprint() for text in self._texts], self._shares.tolist()]

    @functools.cached_property
    def base_key(self) -> str:
        """What identifies the base model's tokenizer."""
        return hashlib.sha256(self.base.tokenizer.to_str().encode()).hexdigest()

    def folder(self, what: str, *fields: str) -> Path:
        """Where `what` is kept, which depends on the texts and on these fields of the config."""
        key = json.dumps([RECIPE, what, [getattr(self._config, field) for field in fields], self._text_key, self._seed])
        return cache_folder() / "sampler" / hashlib.sha256(key.encode()).hexdigest()[:32]

    def candidates(self, tokens: PackedTokens) -> Candidates:
        """The tokens in pieces of the base model. They are kept, since another run on the same texts needs the same ones."""
        key = hashlib.sha256(json.dumps([RECIPE, decompose.RECIPE, self.base_key, self._max_pieces]).encode())
        key.update(tokens.data.tobytes() + tokens.starts.tobytes())
        folder = cache_folder() / "sampler" / key.hexdigest()[:32]
        return Candidates(tokens, **stored(folder, lambda: self._decomposed(tokens)))

    def new_candidates(self, tokens: PackedTokens) -> Candidates:
        """The same, but not kept: for tokens that will hardly be seen again."""
        return Candidates(tokens, **self._decomposed(tokens))

    def _decomposed(self, tokens: PackedTokens) -> dict[str, np.ndarray]:
        listed = list(tokens)
        pieces, lengths = self.base.decompose(listed).padded(self._max_pieces)
        same = np.asarray([self.base.id_of.get(t, -1) if t else -1 for t in listed], np.int32)
        return {"pieces": pieces, "lengths": lengths, "same": same}
