"""Parts and mixtures of text sources: what each row of a batch reads, however many hosts there are."""

import functools
import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from zett.config import DataConfig
from zett.data.text import Documents, TextError, shared_bytes


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
    """Several sources as one, whose documents are theirs in turn, by whole weights.

    All documents are in it; those of a source that is small for its weight come again and again.
    """

    def __init__(self, sources: Sequence[Documents], weights: Sequence[int]):
        self.name = "|".join(f"{weight}*{source.name}" for source, weight in zip(sources, weights))
        self._sources, self._weights = sources, weights
        self._counts = np.asarray(weights) // np.gcd.reduce(weights)  # of each source's documents in a period
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


class RowTexts:
    """What each row of a batch reads: row b the part `b * parts // batch_size` of the source `documents`.

    Only the parts of `rows` are opened, and streams read to their end here, so that no step waits for it. Raises TextError.
    """

    def __init__(self, documents: Documents, rows: Iterable[int], data: DataConfig):
        self._data = data
        wanted = sorted({self.number(row) for row in rows})
        self.parts = {number: documents.part(number, data.parts, data.stream_bytes) for number in wanted}
        for part in self.parts.values():
            len(part)

    def number(self, row: int) -> int:
        """The part that the row reads."""
        return int(row) * self._data.parts // self._data.batch_size

    def __getitem__(self, row: int) -> Documents:
        return self.parts[self.number(row)]
