"""A GGUF file becomes a Hugging Face folder in the cache, once."""

import functools
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

from zett.errors import UserError
from zett.files import folders
from zett.files.cache import cache_folder
from zett.files.jsonfile import write_json
from zett.gguf.header import Header, is_gguf, read_header
from zett.gguf.tokenizer import generation_config, tokenizer_files
from zett.progress import bar, say

VERSION = 1  # of what is written: a change of it converts every file anew


def find_gguf(path: str | Path) -> Path | None:
    """The GGUF file that `path` is, or the only one in the folder that it is; None for anything else.

    A folder with a config.json or a tokenizer.json is an ordinary one. UserError for a folder with several.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return path if path.suffix.lower() == ".gguf" or is_gguf(path) else None
    if not path.is_dir() or any((path / name).is_file() for name in ("config.json", "tokenizer.json")):
        return None
    # Models that read images have a second file, which turns images into rows.
    found = sorted(p for p in path.glob("*.gguf") if p.is_file() and not p.name.startswith("mmproj"))
    if len(found) > 1:
        raise UserError(f"{path} holds several GGUF files ({', '.join(p.name for p in found[:12])}); give one of them")
    return found[0] if found else None


def convert(file: Path) -> Path:
    """The folder of the model in `file`: weights in bfloat16, config.json, tokenizer, chat template and generation config.

    Written to the cache at the first call. UserError for what is damaged, incomplete or not known.
    """
    return _converted(file, "", _write_model)


def convert_tokenizer(file: Path) -> Path:
    """A folder with the tokenizer in `file` alone, of any architecture: as quick as the file is read."""
    return _converted(file, "-tokenizer", _write_tokenizer)


def _converted(file: Path, kind: str, write: Callable[[Header, Path], None]) -> Path:
    import filelock

    stem = re.sub(r"[^\w.-]", "_", file.stem)[:80]
    try:
        stat = file.stat()
        digest = _digest(file.resolve(), stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}") from None
    folder = cache_folder() / "gguf" / f"{stem}-{digest}{kind}"
    if folder.is_dir():
        return folder
    header = read_header(file)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder.with_name(f".{folder.name}.lock"))
        lock.acquire()
    except OSError as error:
        raise UserError(
            f"cannot write to {folder.parent}: {error.strerror or error}; the variable ZETT_CACHE names another folder"
        ) from None
    with lock:  # two commands at once: the second finds what the first wrote
        if not folder.is_dir():
            with folders.new_folder(folder) as temporary:
                write(header, temporary)
    return folder


@functools.lru_cache(maxsize=8)
def _digest(file: Path, size: int, changed: int) -> str:
    """Of the whole content; within one process again only when the file changed."""
    with open(file, "rb") as f:
        digest = hashlib.file_digest(f, "sha256")
    digest.update(f"zett {VERSION}".encode())
    return digest.hexdigest()[:20]


def _write_model(header: Header, folder: Path) -> None:
    # They import JAX, which nobody needs who looks at tokenizers.
    from zett.files.tensors import WEIGHTS_FILE, write_tensors
    from zett.gguf.config import hf_config, special_ids
    from zett.gguf.weights import convert_tensors

    config = hf_config(header)
    size = sum(t.nbytes for t in convert_tensors(header, config, lambda nbytes: None).values())
    say(f"converting {header.file} once: {size / 2**20:,.0f} MiB of bfloat16 in {cache_folder() / 'gguf'}")
    _write_tokenizer(header, folder)
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", generation_config(header, special_ids(header)))
    with bar(size, "tensors", "B") as advance:
        write_tensors(folder / WEIGHTS_FILE, convert_tensors(header, config, advance), {"format": "pt"})


def _write_tokenizer(header: Header, folder: Path) -> None:
    import tokenizers

    files = tokenizer_files(header)
    text = json.dumps(files.pop("tokenizer.json"), ensure_ascii=False)  # without indents, which would treble a large one
    try:
        tokenizers.Tokenizer.from_str(text)
    except BaseException as error:  # the library raises bare Exception, and what its Rust code panics with is not even that
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise UserError(f"{header.file} holds no tokenizer that can be used: {error}") from None
        raise
    for name, content in {"tokenizer.json": text, **files}.items():
        if isinstance(content, str):
            (folder / name).write_bytes(content.encode())
        else:
            write_json(folder / name, content)
