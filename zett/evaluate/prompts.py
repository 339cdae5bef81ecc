"""Prompts that are answered: of a file, or the fifty in the package."""

from collections.abc import Sequence
from pathlib import Path

from zett.data.local import PLAIN, file_kind, local_files
from zett.errors import UserError
from zett.evaluate.windows import described
from zett.files.resolve import ASSETS

INSTRUCTIONS = ASSETS / "instructions.txt"  # short ones of many kinds, written for this package


def read_prompts(file: str | Path | Sequence[str] | None, text_column: str = "text") -> tuple[list[str], dict]:
    """The prompts, and the record of what they are for a report. Raises UserError.

    file: with one a line, or one a row of jsonl or parquet; None: those in the package; or the prompts themselves.
    """
    if file is not None and not isinstance(file, str | Path):
        prompts, source = list(file), None
    else:
        path = INSTRUCTIONS if file is None else Path(file).expanduser()
        documents = local_files(path, "whole", text_column)
        prompts = [text for document in documents for text in (document.splitlines() if _plain(path) else [document])]
        source = str(path)
    prompts = [prompt.strip() for prompt in prompts if prompt.strip()]
    if not prompts:
        raise UserError(f"there is no prompt in {source}" if source else "there is no prompt to answer")
    record = {"source": source, "split": "whole", **described(prompts)}
    return prompts, record | {"of_bytes": record["bytes"]}


def _plain(path: Path) -> bool:
    return path.is_dir() or file_kind(path) in PLAIN
