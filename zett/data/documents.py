"""`Documents`: what every text source is, as it is read, in parts and in mixtures."""

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from zett.errors import UserError

VALID_SHARE = 50  # one document in this many is held out where a source has no split of its own


class TextError(UserError):
    """A text source that cannot be read; the message is meant for the user."""


class Documents(Sequence[str]):
    """A text source: `len`, `[i]`, slices and iteration over documents, each a string."""

    name: str

    def fingerprint(self) -> str:
        """A text that changes when a document does. It is part of the key of everything that is cached from these documents."""
        raise NotImplementedError

    def part(self, part: int, parts: int, stream_bytes: int) -> "Documents":
        """One of `parts` disjoint parts of the source; of a stream, all of them hold `stream_bytes`. Raises TextError."""
        if parts == 1:
            return self
        return Part(self, part, parts)


@dataclasses.dataclass(frozen=True)
class Files(Documents):
    """Documents that are read from files when asked for. An item is `(function, *arguments)`, which reads one document.

    The names of these functions are part of the fingerprint, so renaming one makes everything cached from them stale.
    """

    name: str
    items: tuple

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [read(*args) for read, *args in self.items[index]]
        read, *args = self.items[index]
        return read(*args)

    def paths(self) -> set[Path]:
        """The files that the documents come from."""

        def of(value) -> Iterator[Path]:
            if isinstance(value, Path):
                yield value.resolve()
            elif isinstance(value, tuple):
                yield from itertools.chain.from_iterable(map(of, value))

        return set(of(self.items))

    def fingerprint(self) -> str:
        # A document has changed when its file's size or time has.
        files: dict[Path, str] = {}

        def describe(value) -> str:
            if isinstance(value, Path):
                if value not in files:
                    status = value.stat()
                    files[value] = f"{value}:{status.st_size}:{status.st_mtime_ns}"
                return files[value]
            if isinstance(value, tuple):
                return "(" + ",".join(map(describe, value)) + ")"
            return value.__name__ if callable(value) else repr(value)

        digest = hashlib.sha256(self.name.encode())
        for item in self.items:
            digest.update(describe(item).encode())
        return digest.hexdigest()


class Part(Documents):
    """Every `parts`-th document of another source, from number `part` on."""

    def __init__(self, documents: Documents, part: int, parts: int):
        self.name = f"{documents.name}, part {part} of {parts}"
        self._documents, self._part, self._parts = documents, part, parts
        self._indices = range(len(documents))[part::parts]
        if not self._indices:
            raise TextError(f"{documents.name} has {len(documents)} documents; config.data.parts ({parts}) may be no more")

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self._documents[i] for i in self._indices[index]]
        return self._documents[self._indices[index]]

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self._documents.fingerprint()} {self._part} {self._parts}".encode()).hexdigest()


class Mixture(Documents):
    """Several sources as one, which take turns by their weights (whole numbers).

    It holds all documents. Those of a source that is small for its weight are repeated.
    """

    def __init__(self, sources: Sequence[Documents], weights: Sequence[int]):
        self.name = "|".join(f"{weight}*{source.name}" for source, weight in zip(sources, weights))
        self._sources, self._weights = sources, weights
        self._counts = np.asarray(weights) // np.gcd.reduce(weights)  # how many documents each source gives in a period
        source = np.repeat(np.arange(len(sources)), self._counts)
        rank = np.concatenate([np.arange(count) for count in self._counts])
        order = np.argsort((rank + 0.5) / self._counts[source], kind="stable")  # each source spread evenly over the period
        self._source, self._rank = source[order], rank[order]

    @functools.cached_property
    def _indices(self) -> range:
        periods = max(-(-len(source) // int(count)) for source, count in zip(self._sources, self._counts))
        return range(periods * len(self._source))

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in self._indices[index]]
        period, place = divmod(self._indices[index], len(self._source))
        number = self._source[place]
        source = self._sources[number]
        return source[int(period * self._counts[number] + self._rank[place]) % len(source)]

    def part(self, part: int, parts: int, stream_bytes: int) -> Documents:
        limits = shared_bytes(stream_bytes, self._weights)
        return Mixture([source.part(part, parts, limit) for source, limit in zip(self._sources, limits)], self._weights)

    def fingerprint(self) -> str:
        parts = [f"{count} {source.fingerprint()}" for source, count in zip(self._sources, self._counts)]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def held_out(key: str) -> bool:
    """Whether the document called `key` belongs to the "valid" split."""
    return hashlib.sha256(key.encode()).digest()[0] * 256 + hashlib.sha256(key.encode()).digest()[1] < 65536 // VALID_SHARE


def first_bytes(documents: Iterable[str], limit: int) -> Iterator[str]:
    """Documents from the beginning until they hold `limit` bytes."""
    total = 0
    for text in documents:
        yield text
        total += len(text.encode("utf-8", "replace"))
        if total >= limit:
            return


def shared_bytes(stream_bytes: int, weights: Sequence[int]) -> list[int]:
    """`stream_bytes` divided by weights."""
    return [-(-stream_bytes * weight // sum(weights)) for weight in weights]
