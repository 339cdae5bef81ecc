"""Text sources by name: `open_text` turns one string of a config into documents, split in "train" and "valid"."""

import functools
import re
from pathlib import Path

from zett.data.documents import Documents, Files, Mixture, TextError, shared_bytes
from zett.data.hub_stream import HubSource, hub_stream
from zett.data.local import check_file, local_files
from zett.data.prose import english_prose
from zett.data.python import python_sources


def open_text(
    spec: str,
    *,
    split: str = "train",
    text_column: str = "text",
    package_bytes: int = 4_000_000,
    stream_bytes: int = 100_000_000,
) -> Documents:
    """A text source from its name.

    spec: "python" (sources on this machine), "prose" (the English in them), a file or folder (txt, md, rst, py, jsonl, parquet,
    each optionally .gz or .zst), or "hf:NAME" or "hf:NAME:CONFIG" (a Hugging Face data set, streamed; NAME may be a local
    folder). Behind "?", joined by "&", a data set's data_dir=, data_files=, revision= and column= (instead of `text_column`):
    "hf:some/code?data_dir=python&column=content". Several sources are joined by "|", each with a whole weight if they are not
    alike, by which documents are drawn: "14*hf:some/english|hf:some/code?data_dir=python|hf:some/code?data_dir=rust".
    split: "train" or "valid"; folders with train.* and valid.* files and data sets with such splits keep their own.
    package_bytes: of "python" only, the most that one package contributes, so that none dominates.
    stream_bytes: of "hf:" only, the text after which reading stops, of all joined sources together; of held-out text a fiftieth
    of it, and 2 MB at most.
    All are sequences of documents: `len`, `[i]` and iteration; see `Documents`. Raises TextError, a UserError.
    """
    if split not in ("train", "valid"):
        raise TextError(f"split {split!r} is unknown; use 'train' or 'valid'")
    sources = weighted_sources(spec)
    if len(sources) > 1:
        opened = functools.partial(open_text, split=split, text_column=text_column, package_bytes=package_bytes)
        weights = [weight for weight, _ in sources]
        limits = shared_bytes(stream_bytes, weights)
        return Mixture([opened(one, stream_bytes=limit) for (_, one), limit in zip(sources, limits)], weights)
    [(_, spec)] = sources
    if spec.startswith("hf:"):
        return hub_stream(spec[3:], split, text_column, stream_bytes)
    if spec == "python":
        return python_sources(split, package_bytes)
    if spec == "prose":
        return english_prose(split, package_bytes)
    return local_files(Path(spec).expanduser(), split, text_column)


def weighted_sources(spec: str) -> list[tuple[int, str]]:
    """The sources that are joined in `spec`, each with its weight. Raises TextError."""
    found = []
    for one in spec.split("|"):
        match = re.fullmatch(r"(?:([\d.]+)\*)?(.+)", one.strip())
        if match is None or not (match[1] or "1").isdecimal() or int(match[1] or 1) == 0:
            raise TextError(f"text source {spec!r}: {one!r} is not a source, or a whole weight above 0, '*' and a source")
        found.append((int(match[1] or 1), match[2]))
    return found


def is_local(spec: str) -> bool:
    """Whether a single source is a file or a folder, given by its path."""
    return spec not in ("python", "prose") and not spec.startswith("hf:")


def whole_files(spec: str, text_column: str = "text") -> list[Files]:
    """All that the files and folders joined in `spec` hold, each once, whatever its weight. Raises TextError.

    Of a folder with train.* and valid.* files it is the latter.
    """
    return [local_files(Path(one).expanduser(), "whole", text_column) for _, one in weighted_sources(spec)]


def check_source(spec: str) -> list[str]:
    """Whether the sources in `spec` can be there, without reading them: returns the data sets of the Hub. Raises TextError."""
    remote = []
    for _, one in weighted_sources(spec):
        if one.startswith("hf:"):
            name = HubSource.of(one[3:]).name
            if not Path(name).exists():
                remote.append(name)
        elif is_local(one):
            check_file(Path(one).expanduser())
    return remote
