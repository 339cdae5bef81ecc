"""Hugging Face data sets, streamed: read once, from the beginning, into the cache, and from there like files.

What is read lies in a folder of its own: `text` (UTF-8), `ends` (where each document ends, int64) and `info.json`. It is made
beside and renamed when it is whole. What an interrupted start has read is where the next one goes on.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from zett.data.text import VALID_SHARE, Documents, TextError
from zett.files.cache import cache_folder
from zett.files.jsonfile import write_json

VALID_BYTES = 2_000_000  # of held-out text at most, for which fifty times as much is read where a data set has no such split
MARK_BYTES = 1 << 26  # so far from one another are the places at which an interrupted reading can go on
SAY_SECONDS = 30  # between lines where there is no terminal for a bar
PAUSES = (5, 30, 120)  # seconds, before what a network error broke off is tried again
NETWORK = {"httpx", "httpx2", "httpcore", "huggingface_hub", "aiohttp", "requests", "urllib3", "http", "ssl"}


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
        """From what follows "hf:". Values are taken as they stand. Raises TextError."""
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


class Texts(Protocol):
    """Texts in order, and the place after the last one that was given."""

    def __iter__(self) -> Iterator[str]: ...
    def state(self) -> dict: ...  # plain values; what is read from it on is what comes next


class HubTexts:
    """The documents of a split, of one part of several, from `state` on. Raises TextError; errors of the network as they come.

    A data set without a held-out split has one document in VALID_SHARE held out, by its text, so that all parts and all
    readings agree on it and copies do not cross the splits.
    """

    def __init__(self, source: HubSource, column: str, split: str, part: int, parts: int, state: dict | None = None):
        self._name, self._column, self._split = f"hf:{source.name}", column, split
        self._own_split, self._rows = _hub_rows(source, split)
        if parts > 1:
            # Whole files, so that each is fetched by one host; of too few files, every `parts`-th row.
            if self._rows.num_shards >= parts:
                self._rows = self._rows.shard(num_shards=parts, index=part, contiguous=False)
            else:
                from datasets.distributed import split_dataset_by_node

                self._rows = split_dataset_by_node(self._rows, rank=part, world_size=parts)
        if state is not None:
            self._rows.load_state_dict(state)

    def __iter__(self) -> Iterator[str]:
        with contextlib.closing(iter(self._rows)) as rows:  # generators that are left to themselves end after their libraries
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


def _hub_rows(source: HubSource, split: str):
    """(whether the data set has the split itself, the rows to take it from)."""
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
    """The documents of a data set, or of one part of several, up to `limit` bytes; read when first used. Raises TextError."""

    def __init__(self, spec: str, split: str, text_column: str, limit: int, part: int = 0, parts: int = 1):
        self.name = f"hf:{spec}:{split}" + (f", part {part} of {parts}" if parts > 1 else "")
        self.limit = limit
        self._spec, self._split, self._text_column, self._part, self._parts = spec, split, text_column, part, parts
        self._source = HubSource.of(spec)

    @functools.cached_property
    def _stored(self) -> tuple[np.ndarray, np.ndarray, dict]:
        source, column = self._source, self._source.column or self._text_column
        # A name stands for what was first read under it; a local folder for the files that are in it.
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


# ------------------------------------------------------------------------------------------------------------ the spool


def spool(folder: Path, name: str, open: Callable[[dict | None], Texts], limit: int) -> dict:
    """Read texts into `folder` until they hold `limit` bytes, unless that has been done; returns its info. Raises TextError.

    `open(state)` gives them from their beginning (None) or from where an earlier reading stopped. One process reads, and others
    that want the same wait. After network errors there is another try, up to three times in a row.
    """
    import filelock

    if info := _whole(folder):
        return info
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder.with_name(f".{folder.name}.lock"))
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            print(f"{name}: waiting for another process that reads it", file=sys.stderr, flush=True)
            lock.acquire()
    except OSError as error:
        raise TextError(f"{name}: cannot write to the cache, {folder.parent}: {error.strerror or error}") from error
    try:
        if info := _whole(folder):
            return info
        shutil.rmtree(folder, ignore_errors=True)  # damaged, if it is there at all
        partial = folder.with_name(f".{folder.name}.partial")
        with _Writer(partial, name, limit) as writer:
            info = _read(writer, name, open)
        partial.rename(folder)
        return info
    finally:
        lock.release()


def _read(writer: "_Writer", name: str, open: Callable[[dict | None], Texts]) -> dict:
    pauses, given = iter(PAUSES), False
    while True:
        marked = writer.resume()
        try:
            texts = open(writer.state)
            for text in texts:
                given = True
                writer.add(text)
                if writer.full:
                    break
                if writer.due:
                    writer.mark(texts.state())
            return writer.finish()
        except Exception as error:
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            if writer.marked > marked:
                pauses = iter(PAUSES)
            pause = next(pauses, None)
            # What could be read before is worth another try; a data set that cannot be reached at all is not.
            if pause is None or not _of_network(error) or not (given or marked):
                if isinstance(error, TextError):
                    raise
                raise TextError(f"{name} broke off after {writer.bytes:,} bytes ({why})") from error
            print(f"{name} broke off ({why}); trying again in {pause} s", file=sys.stderr, flush=True)
            time.sleep(pause)


def _of_network(error: BaseException) -> bool:
    cause = error.__cause__ if isinstance(error, TextError) else error
    return isinstance(cause, (ConnectionError, TimeoutError)) or type(cause).__module__.partition(".")[0] in NETWORK


def _whole(folder: Path) -> dict | None:
    """What is known of the spool in `folder`, or None if it is not there or damaged."""
    try:
        info = json.loads((folder / "info.json").read_text())
        sizes = (folder / "text").stat().st_size, (folder / "ends").stat().st_size
        return info if sizes == (info["bytes"], 8 * info["documents"]) else None
    except (OSError, ValueError, KeyError):
        return None


class _Writer:
    """Fills a folder; `mark` notes a place to which `resume` comes back. What cannot be written leaves nothing behind."""

    def __init__(self, folder: Path, name: str, limit: int):
        self._folder, self._name, self._limit = folder, name, limit
        self._files = contextlib.ExitStack()
        self.state: dict | None = None
        self.documents = self.bytes = self.marked = 0

    def __enter__(self) -> "_Writer":
        from tqdm import tqdm

        with self._writing():
            self._folder.mkdir(exist_ok=True)
            self._text, self._ends = (self._files.enter_context((self._folder / name).open("ab")) for name in ("text", "ends"))
        bar = tqdm(total=self._limit, desc=self._name, unit="B", unit_scale=True, delay=1, leave=False, disable=None)
        self._bar = self._files.enter_context(bar)
        self._clock, self._clock_bytes, self._said = time.monotonic(), 0, time.monotonic()
        return self

    def __exit__(self, *error) -> None:
        with contextlib.suppress(OSError):  # what is still to be written to a full disk
            self._files.close()
        if not self.marked and not (self._folder / "info.json").exists():
            shutil.rmtree(self._folder, ignore_errors=True)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.marked = 0
            raise TextError(
                f"{self._name}: cannot write {self._limit:,} bytes to the cache, {self._folder.parent}: "
                f"{error.strerror or error}; the variable ZETT_CACHE names another folder"
            ) from error

    @property
    def full(self) -> bool:
        return self.bytes >= self._limit

    @property
    def due(self) -> bool:
        return self.bytes - self._marked_bytes >= MARK_BYTES

    def resume(self) -> int:
        """Go back to the last mark, or the beginning; returns the number of documents there."""
        import datasets

        self.documents = self.bytes = self.marked = self._marked_bytes = 0
        self.state, self._digest = None, b""
        with contextlib.suppress(OSError, ValueError, KeyError):
            mark = json.loads((self._folder / "mark.json").read_text())
            sizes = self._text.tell(), self._ends.tell()
            # Places in a data set are written by one version of its library for that version.
            if mark["datasets"] == datasets.__version__ and sizes >= (mark["bytes"], 8 * mark["documents"]):
                self.documents = self.marked = mark["documents"]
                self.bytes = self._marked_bytes = mark["bytes"]
                self.state, self._digest = mark["state"], bytes.fromhex(mark["digest"])
        with self._writing():
            for file, size in ((self._text, self.bytes), (self._ends, 8 * self.documents)):
                file.truncate(size)
                file.seek(size)
        self._bar.reset(self._limit)
        self._bar.update(self.bytes)
        self._clock, self._clock_bytes = time.monotonic(), self.bytes
        return self.documents

    def add(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        self.documents += 1
        self.bytes += len(data)
        self._digest = hashlib.sha256(self._digest + hashlib.sha256(data).digest()).digest()
        with self._writing():
            self._text.write(data)
            self._ends.write(self.bytes.to_bytes(8, "little"))
        self._bar.update(len(data))

    def mark(self, state: dict) -> None:
        import datasets

        self._write("mark.json", {**self._record(), "state": state, "datasets": datasets.__version__})
        self.marked, self._marked_bytes = self.documents, self.bytes
        self._say()

    def finish(self) -> dict:
        """The folder is whole: what is known of it."""
        if not self.documents:
            raise TextError(f"{self._name}: no text")
        info = {"name": self._name, **self._record()}
        self._write("info.json", info)
        (self._folder / "mark.json").unlink(missing_ok=True)
        return info

    def _record(self) -> dict:
        return {"documents": self.documents, "bytes": self.bytes, "digest": self._digest.hex()}

    def _write(self, name: str, value: dict) -> None:
        with self._writing():
            self._text.flush()
            self._ends.flush()
            write_json(self._folder / name, value)

    def _say(self) -> None:
        """A line now and then where there is no terminal for the bar."""
        now = time.monotonic()
        if sys.stderr.isatty() or now - self._said < SAY_SECONDS:
            return
        self._said = now
        rate = (self.bytes - self._clock_bytes) / (now - self._clock)
        left = (self._limit - self.bytes) / rate / 60
        print(
            f"{self._name}  {self.bytes / 1e6:,.0f} of {self._limit / 1e6:,.0f} MB  {rate / 1e6:.1f} MB/s  left {left:.0f} min",
            file=sys.stderr, flush=True,
        )  # fmt: skip
