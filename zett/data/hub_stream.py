"""Hugging Face data sets. Each is streamed once, from its beginning, into the cache, and then read from there like a file."""

import contextlib
import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from zett.data.documents import VALID_SHARE, Documents, TextError
from zett.data.spool import spool
from zett.files.cache import cache_folder

VALID_BYTES = 2_000_000  # the most held-out text; from a data set without such a split, fifty times as much is read to get it


@dataclasses.dataclass(frozen=True)
class HubSource:
    """What "hf:NAME[:CONFIG][?key=value&...]" says."""

    name: str
    config: str | None = None
    data_dir: str | None = None
    data_files: str | None = None
    revision: str | None = None
    column: str | None = None

    @classmethod
    def of(cls, spec: str) -> "HubSource":
        """Parses what follows "hf:". Values are not unquoted. Raises TextError."""
        where, _, query = spec.partition("?")
        name, _, config = where.partition(":")
        known = [field.name for field in dataclasses.fields(cls)][2:]
        options = {}
        for option in query.split("&") if query else []:
            key, _, value = option.partition("=")
            if key not in known or not value or key in options:
                raise TextError(f"text source 'hf:{spec}': {option!r} is not one of {', '.join(f'{k}=...' for k in known)}")
            options[key] = value
        if not name:
            raise TextError(f"text source 'hf:{spec}' names no data set")
        return cls(name, config or None, **options)


class HubTexts:
    """The documents of one part of a split, from `state` on. Raises TextError; errors of the network are raised as they are.

    Of a data set without a held-out split, one document in VALID_SHARE is held out. The text of a document decides, so that
    all parts and all readings agree, and copies of a document are all in the same split.
    """

    def __init__(self, source: HubSource, column: str, split: str, part: int, parts: int, state: dict | None = None):
        self._name, self._column, self._split = f"hf:{source.name}", column, split
        self._own_split, self._rows = hub_rows(source, split)
        if parts > 1:
            # A part is some of the files, so that only one host fetches each. With too few files it is every `parts`-th row.
            if self._rows.num_shards >= parts:
                self._rows = self._rows.shard(num_shards=parts, index=part, contiguous=False)
            else:
                from datasets.distributed import split_dataset_by_node

                self._rows = split_dataset_by_node(self._rows, rank=part, world_size=parts)
        if state is not None:
            self._rows.load_state_dict(state)

    def __iter__(self) -> Iterator[str]:
        with contextlib.closing(iter(self._rows)) as rows:  # closed before Python unloads its libraries
            for row in rows:
                if self._column not in row:
                    raise TextError(f"{self._name}: no column {self._column!r}; columns: {', '.join(row)}")
                text = row[self._column]
                if not isinstance(text, (str, type(None))):
                    raise TextError(f"{self._name}: column {self._column!r} holds {text!r:.60}; it has to hold strings")
                if text and (self._own_split or _held_out(text) == (self._split == "valid")):
                    yield text

    def state(self) -> dict:
        return self._rows.state_dict()


def _held_out(text: str) -> bool:
    digest = hashlib.sha256(text.encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:2], "big") < 65536 // VALID_SHARE


def hub_rows(source: HubSource, split: str):
    """(whether the data set has the split itself, the rows to take it from). Raises TextError."""
    import datasets

    try:
        splits = datasets.load_dataset(
            source.name, source.config, data_dir=source.data_dir, data_files=source.data_files, revision=source.revision,
            streaming=True,
        )  # fmt: skip
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise TextError(f"Hugging Face data set {source.name!r} cannot be opened: {error}") from error
    valid = next((name for name in ("valid", "validation") if name in splits), None)
    if split == "valid" and valid is not None:
        return True, splits[valid]
    if "train" not in splits:
        raise TextError(f"hf:{source.name} has no split 'train'; it has {', '.join(splits)}")
    return valid is not None, splits["train"]


class Stream(Documents):
    """The documents of a data set or of one part of it, up to `limit` bytes. It is read on first use. Raises TextError."""

    def __init__(self, spec: str, split: str, text_column: str, limit: int, part: int = 0, parts: int = 1):
        self.name = f"hf:{spec}:{split}" + (f", part {part} of {parts}" if parts > 1 else "")
        self.limit = limit
        self._spec, self._split, self._text_column, self._part, self._parts = spec, split, text_column, part, parts
        self._source = HubSource.of(spec)

    @functools.cached_property
    def _stored(self) -> tuple[np.ndarray, np.ndarray, dict]:
        source, column = self._source, self._source.column or self._text_column
        # A data set of the Hub is known by its name: what was first read under it stays. A local folder is known by its files.
        files = [[str(p), p.stat().st_size, p.stat().st_mtime_ns] for p in sorted(Path(source.name).rglob("*")) if p.is_file()]
        which = self._split, self._part, self._parts
        key = json.dumps([dataclasses.astuple(source), column, which, self.limit, files])
        folder = cache_folder() / "streams" / hashlib.sha256(key.encode()).hexdigest()[:32]
        info = spool(folder, self.name, lambda state: HubTexts(source, column, *which, state), self.limit)
        return np.memmap(folder / "text", np.uint8, "r"), np.memmap(folder / "ends", "<i8", "r"), info

    def __len__(self) -> int:
        return len(self._stored[1])

    def __getitem__(self, index):
        text, ends, _ = self._stored
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(ends)))]
        index = range(len(ends))[index]
        return text[ends[index - 1] if index else 0 : ends[index]].tobytes().decode()

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.name}:{self.limit}:{self._stored[2]['digest']}".encode()).hexdigest()

    def part(self, part: int, parts: int, stream_bytes: int) -> Documents:
        limit = -(-stream_bytes // parts)
        if (part, parts, limit) == (self._part, self._parts, self.limit):
            return self
        return Stream(self._spec, self._split, self._text_column, limit, part, parts)


def hub_stream(spec: str, split: str, text_column: str, stream_bytes: int) -> Stream:
    """The data set that `spec` says, without its "hf:"; its name may be a local folder."""
    limit = min(stream_bytes // VALID_SHARE, VALID_BYTES) if split == "valid" else stream_bytes
    return Stream(spec, split, text_column, limit)
