"""Which text is measured: a given file whole, or the part of a source that trains nothing."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from zett.data.text import (
    Documents,
    Files,
    file_kind,
    has_own_split,
    is_local,
    local_files,
    open_text,
    weighted_sources,
    whole_files,
)
from zett.errors import UserError
from zett.evaluate.targets import parse_target

HELD_OUT_BYTES = 131072  # measured of a held-out split, unless it is said


def measured_windows(
    text: str, text_bytes: int | None, window: int, *, text_column: str, prose: str, specs: Sequence[str], seed: int
) -> tuple[list[str], dict]:
    """Pieces of at most `window` bytes of the source `text`, and the record of what they are, for a report. Raises UserError.

    A file or folder is measured whole (text_bytes: no more of it than that), unless a target in `specs` is trained on the same
    text; then its held-out split is, as of all other sources (text_bytes None: HELD_OUT_BYTES).
    """
    from zett.evaluate.bpb import byte_windows, whole_windows  # which loads JAX

    if window < 16:
        raise UserError(f"the window is {window} bytes; it has to have at least 16")
    if text_bytes is not None and text_bytes < window:
        raise UserError(f"{text_bytes} bytes are to be measured, in windows of {window}: at least one has to fit")
    if not all(is_local(one) for _, one in weighted_sources(text)):
        documents = open_text(text, split="valid", text_column=text_column)
        windows = byte_windows(documents, window=window, count=(text_bytes or HELD_OUT_BYTES) // window, seed=seed)
        if not windows:
            raise UserError(f"the held-out split of {text!r} is too short for a single window of {window} bytes")
        return windows, {"source": text, "split": "valid", **described(windows, window), "of_bytes": _size(documents)}
    files = whole_files(text, text_column)
    trains = _trained_on(text, prose, specs)
    if trains:
        measured = [local_files(path, "valid", text_column) for path in _paths(text)]
        text_bytes = text_bytes or HELD_OUT_BYTES
    else:
        _check_apart(files, text, prose, specs, text_column)
        measured = files
    texts = [document for part in measured for document in part]
    windows = whole_windows(texts, window=window, limit=text_bytes, seed=seed)
    own_split = any(map(has_own_split, _paths(text)))
    split = "valid" if trains or own_split else "whole"
    record = {"source": text, "split": split, **described(windows, window), "of_bytes": _size(texts)}
    if trains:
        record["trains"] = trains
        if not own_split:
            record["source_bytes"] = sum(map(_size, files))
    return windows, record


def text_to_measure(spec: str, training: Sequence[str], opened: Callable[..., Documents], text_column: str) -> Documents:
    """What a training run is evaluated on: files and folders whole, of sources that also train it the held-out split.

    training: the sources that it trains on. opened: `open_text` with the run's settings. Raises TextError.
    """
    paths = {path.resolve() for path in _paths(spec)}
    trains = any(paths & {path.resolve() for path in _paths(source)} for source in training)
    if trains or not all(is_local(one) for _, one in weighted_sources(spec)):
        return opened(spec, split="valid")
    return Files(f"{spec}:whole", tuple(item for part in whole_files(spec, text_column) for item in part.items))


def files_in_windows(paths: Sequence[str | Path], window: int = 512) -> list[str]:
    """All of these files and folders in pieces of at most `window` bytes. Files of no known kind are plain text. UserError."""
    from zett.evaluate.bpb import whole_windows

    return whole_windows((text for path in paths for text in _texts(Path(path).expanduser())), window=window)


def files_words(paths: Sequence[str | Path]) -> str:
    """What of them `files_in_windows` reads."""
    given = [Path(path).expanduser() for path in paths]
    return ", ".join(f"{_name(path)}{' (its valid files)' if has_own_split(path) else ''}" for path in given)


def _texts(path: Path) -> Iterable[str]:
    if path.is_dir() or file_kind(path):
        return local_files(path, "whole", "text")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    if not text.strip():
        raise UserError(f"{path} holds no text to measure anything on")
    return [text]


def described(windows: Sequence[str], window: int | None = None) -> dict:
    """What a report says of any windows; window: the most bytes that they were to have, None: they were given."""
    sizes = [len(w.encode()) for w in windows]
    return {
        "windows": len(windows),
        "window_bytes": window or max(sizes),
        "bytes": sum(sizes),
        "sha256": hashlib.sha256("\0".join(windows).encode()).hexdigest(),
    }


def text_words(text: dict, *, short: bool = False) -> str:
    """Which text was measured, how much of how much and why not all: a line of a table's head, or what a plot has room for.

    text: a report's record; those of earlier versions lack some of it.
    """
    if text["source"] is None:
        return f"given windows, whole: {text['bytes']:,} bytes"
    of = text.get("of_bytes")
    number = f"{text['bytes']:,} bytes" if of in (None, text["bytes"]) else f"{text['bytes']:,} of {of:,} bytes"
    if text["split"] == "whole":
        return f"{_short(text['source'])}{', whole' if of == text['bytes'] else ''}: {number}"
    trains = text.get("trains", [])
    words = f"{_short(text['source'])}, held out: {number}"
    if short or not trains:
        return words
    rest = f"the rest of its {text['source_bytes']:,}" if "source_bytes" in text else "its training files"
    return f"{words} (on {rest} {'is' if len(trains) == 1 else 'are'} trained {', '.join(trains)})"


def _short(source: str) -> str:
    """A source without the folders that its paths lie in."""
    return "|".join(_name(one) if is_local(one) else one for _, one in weighted_sources(source))


def _name(path: str | Path) -> str:
    return Path(path).expanduser().resolve().name or str(path)


def _size(documents: Iterable[str]) -> int:
    return sum(len(document.encode("utf-8", "replace")) for document in documents)


# ------------------------------------------------------------------------------------------------ what is trained on the spot


def _training_texts(text: str, prose: str, specs: Sequence[str]) -> dict[str, list[str]]:
    """Targets that are trained in this run, by the source that trains them."""
    found: dict[str, list[str]] = {}
    for spec in specs:
        parsed = parse_target(spec)
        if parsed is not None:
            found.setdefault(prose if parsed[0] else text, []).append(spec)
    return found


def _paths(spec: str) -> list[Path]:
    return [Path(one).expanduser() for _, one in weighted_sources(spec) if is_local(one)]


def _trained_on(text: str, prose: str, specs: Sequence[str]) -> list[str]:
    """Targets that are trained on a file or folder of `text`."""
    measured = {path.resolve() for path in _paths(text)}
    training = _training_texts(text, prose, specs)
    return [spec for source, named in training.items() for spec in named if measured & {p.resolve() for p in _paths(source)}]


def _check_apart(files: Sequence[Files], text: str, prose: str, specs: Sequence[str], text_column: str) -> None:
    """UserError if a file that is measured whole lies in a folder that trains a target, or the other way round."""
    measured = {file for part in files for file in part.paths()}
    for source in _training_texts(text, prose, specs):
        for path in _paths(source):
            both = measured & local_files(path, "train", text_column).paths()
            if both:
                raise UserError(
                    f"{min(both)} is measured as part of {text}, and trains a target as part of {source}; "
                    "give texts that share no file, or the same for both, which measures what is held out of it"
                )
