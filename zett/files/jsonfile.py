"""JSON files: read with errors that name the file, written whole or not at all."""

import json
from pathlib import Path

from zett.errors import UserError


def read_json(path: Path) -> dict:
    """A JSON object; UserError if the file is absent or holds something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is not readable as JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds a {type(value).__name__}; it has to hold a JSON object")
    return value


def write_json(path: Path, value) -> None:
    """Write under another name, then rename, so that nobody ever reads half a file."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    temporary.rename(path)


def json_or_empty(file: Path) -> dict:
    """The object in a JSON file; {} if the file is absent or damaged. For files that others may have written."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
