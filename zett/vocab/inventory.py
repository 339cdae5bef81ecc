"""What tokenizers are drawn from: tokens with all that is known of them, worked out once and memory-mapped from the cache.

An inventory holds the frequent substrings of a text's words with their counts in every part ("cell") of the text, so that the
candidates of a mixture of cells are ranked by an indexing operation. A queue counts them in the newest texts instead.
"""

import dataclasses
import functools
import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from zett.config import SamplerConfig
from zett.data.text import Documents
from zett.errors import UserError
from zett.vocab.vocabulary import SurfaceForms, feature_columns

BYTES = tuple(bytes([b]) for b in range(256))
SPACES = tuple(b" " * n for n in range(2, 17)) + tuple(b"\n" + b" " * n for n in range(4, 17, 4)) + (b"\n\n", b"\t\t")
REQUIRED = (*BYTES, *SPACES)  # in every drawn vocabulary of substrings
QUEUE_TEXT = 2000  # characters of a queue's text


@dataclasses.dataclass(frozen=True, eq=False)
class PackedTokens(Sequence[bytes]):
    """Tokens in one array of bytes: token t is `data[starts[t] : starts[t + 1]]`."""

    data: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, tokens: Sequence[bytes]) -> "PackedTokens":
        return cls(np.frombuffer(b"".join(tokens), np.uint8), np.cumsum([0, *map(len, tokens)]))

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """`[V]` bytes of each token."""
        return np.diff(self.starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index):
        if isinstance(index, slice):
            return list(self)[index]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        return self.data[self.starts[index] : self.starts[index + 1]].tobytes()

    def __iter__(self) -> Iterator[bytes]:
        data, starts = self.data.tobytes(), self.starts.tolist()
        return (data[a:b] for a, b in itertools.pairwise(starts))

    def take(self, ids: np.ndarray) -> "PackedTokens":
        """The tokens `ids [N]`."""
        from zett.vocab.words import gather, starts_of

        lengths = self.lengths[ids]
        return PackedTokens(gather(self.data, self.starts[ids], lengths), starts_of(lengths))


@dataclasses.dataclass(frozen=True, eq=False)
class Candidates:
    """Tokens decomposed beforehand, for all the draws that choose among them; fields as in SurfaceForms."""

    tokens: PackedTokens
    pieces: np.ndarray
    lengths: np.ndarray
    same: np.ndarray

    def take(self, ids: np.ndarray, log_prior: np.ndarray) -> tuple[PackedTokens, SurfaceForms]:
        """The tokens `ids [V]` as a vocabulary of their own; log_prior: `[V]`."""
        from zett.vocab.words import extensions

        tokens = self.tokens.take(ids)
        prefixes, suffixes = (extensions(tokens.data, tokens.starts, backwards=backwards) for backwards in (False, True))
        features = feature_columns(tokens.lengths, prefixes, suffixes, log_prior)
        return tokens, SurfaceForms(self.pieces[ids], self.lengths[ids], features, self.same[ids])


def stored(folder: Path, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """What `make()` gives, memory-mapped from `folder`, where it is kept, one file an array, whole or not at all."""
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


def random_texts(documents: Documents, limit: float, rng: np.random.Generator) -> Iterator[str]:
    """Random documents, none twice, until `limit` characters."""
    total = 0
    for i in rng.permutation(len(documents)):
        if total >= limit:
            return
        text = documents[int(i)]
        yield text
        total += len(text)


def source_shares(texts: Sequence[Documents], config: SamplerConfig, seed: int) -> np.ndarray:
    """`[sources]`, adding up to 1: the weights times the sizes to the power of config.source_exponent.

    Sizes are the number of documents times the mean length of some.
    """
    shares = np.asarray(config.source_weights or [1.0] * len(texts), np.float64)
    if config.source_exponent:
        for s, source in enumerate(texts):
            chosen = np.random.default_rng([seed, s, 6]).permutation(len(source))[:256]
            shares[s] *= (len(source) * np.mean([len(source[int(i)]) for i in chosen])) ** config.source_exponent
    return shares / shares.sum()


def count_inventory(texts: Sequence[Documents], config: SamplerConfig, seed: int) -> dict[str, np.ndarray]:
    """One pass over a sample of the text: tokens (`data`, `starts`; REQUIRED first), `counts [C, N]`, `source [C]`.

    Every source has its own cells; the counts of a cell add up to 1. Raises UserError where there is too little text.
    """
    rng = np.random.default_rng([seed, 4])
    shards = max(config.shards // len(texts), 1)
    found, cells = [], []
    for s, source in enumerate(texts):
        for number, text in enumerate(random_texts(source, config.inventory_bytes // len(texts), rng)):
            found.append(text)
            cells.append(s * shards + number % shards)
    tokens, counts = count_candidates(found, np.asarray(cells, np.int64), len(texts) * shards, config)
    if len(tokens) == len(REQUIRED):
        raise UserError(f"the text of {', '.join(t.name for t in texts)} is too short to draw tokenizers from it")
    source_of = np.repeat(np.arange(len(texts)), shards)
    return {"data": tokens.data, "starts": tokens.starts, "counts": counts, "source": source_of}


def count_candidates(
    texts: Sequence[str], cell_of: np.ndarray, cells: int, config: SamplerConfig
) -> tuple[PackedTokens, np.ndarray]:
    """Substrings of the words that occur more than once: tokens, REQUIRED first, and their share of each cell `[C, N]`."""
    from zett.vocab.words import count_substrings, distinct_words, packed_texts

    text, starts = packed_texts(texts)
    begins, ends, words, stops = distinct_words(text, starts)
    per_word = np.bincount(words * cells + np.repeat(cell_of, np.diff(stops, prepend=0)), minlength=len(begins) * cells)
    per_word = per_word.reshape(-1, cells)
    often = np.flatnonzero(per_word.sum(1) > 1)
    data, token_starts, counts = count_substrings(
        text, begins[often], ends[often], per_word[often], max_bytes=config.max_bytes, limit=config.inventory, skip=REQUIRED
    )
    return PackedTokens(data, token_starts), counts / np.maximum(counts.sum(1, keepdims=True), 1)


class TextQueue:
    """The newest texts, for sources that are not counted beforehand: a window that moves on with every step.

    Which texts are in it depends on (seed, step) alone: excerpts of random documents, the sources taking turns by their shares.
    """

    def __init__(self, texts: Sequence[Documents], shares: np.ndarray, config: SamplerConfig, seed: int):
        self._texts, self._config, self._seed = texts, config, seed
        self._shares = shares
        self._excerpt = functools.lru_cache(config.queue + 8 * config.queue_step)(self._read)  # those of the steps around

    def _read(self, number: int, source: int | None) -> str:
        rng = np.random.default_rng([self._seed, number, 5])
        documents = self._texts[rng.choice(len(self._texts), p=self._shares) if source is None else source]
        text = documents[int(rng.integers(len(documents)))]
        start = int(rng.integers(max(len(text) - QUEUE_TEXT, 0) + 1))
        return text[start : start + QUEUE_TEXT]

    def texts(self, step: int, source: int | None) -> list[str]:
        """The window of `step`, of all sources or of one."""
        first = step * self._config.queue_step
        return [self._excerpt(number, source) for number in range(first, first + self._config.queue)]

    def count(self, step: int, source: int | None) -> tuple[PackedTokens, np.ndarray]:
        """As `count_candidates`, with one cell."""
        tokens, counts = count_candidates(self.texts(step, source), np.zeros(self._config.queue, np.int64), 1, self._config)
        if len(tokens) == len(REQUIRED):
            raise UserError(f"the text of {', '.join(t.name for t in self._texts)} is too short to draw tokenizers from it")
        return tokens, counts
