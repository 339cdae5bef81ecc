"""Reading texts that can only be read in order into a folder of the cache.

The folder holds `text` (UTF-8), `ends` (where each document ends, int64) and `info.json`. It is written under another name, and
renamed when it is complete. If reading is interrupted, the next one goes on from there.
"""

import contextlib
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from zett.data.documents import TextError
from zett.files.jsonfile import write_json

MARK_BYTES = 1 << 26  # between the places at which an interrupted reading can go on
SAY_SECONDS = 30  # between lines of progress, if there is no terminal for a bar
PAUSES = (5, 30, 120)  # seconds to wait before trying again after a network error
NETWORK = {"httpx", "httpx2", "httpcore", "huggingface_hub", "aiohttp", "requests", "urllib3", "http", "ssl"}


class Texts(Protocol):
    """An iterator of texts that can say how far it has come."""

    def __iter__(self) -> Iterator[str]: ...
    def state(self) -> dict: ...  # the place after the last text, as plain values; `open(state)` goes on from there


def spool(folder: Path, name: str, open: Callable[[dict | None], Texts], limit: int) -> dict:
    """Read texts into `folder` until they hold `limit` bytes, unless that has been done; returns its info. Raises TextError.

    `open(state)` gives the texts from the beginning (None) or from where an earlier reading stopped. Only one process reads;
    others that want the same texts wait for it. After a network error it tries again, up to three times in a row.
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
        shutil.rmtree(folder, ignore_errors=True)  # if it exists, it is damaged
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
            # Trying again makes sense if something has been read before, but not for a data set that was never reached.
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
    """Fills a folder. `mark` notes a place, and `resume` returns to the last one. Failed writing leaves nothing behind."""

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
        with contextlib.suppress(OSError):  # closing writes what is buffered, which fails again on a full disk
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
            # A place in a data set is only understood by the version of the library that wrote it.
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
        """Write info.json, which makes the folder complete; returns what it holds."""
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
        """Print progress now and then, if there is no terminal for a bar."""
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
