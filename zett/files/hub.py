"""Downloading folders from the Hugging Face Hub and uploading them, with errors that say what to do."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from zett.errors import UserError


def is_name(name: str) -> bool:
    """Whether `name` can be the name of a repository."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", name) is not None


def download(
    name: str, patterns: Sequence[str], *, ignored: Sequence[str] = (), revision: str | None = None, what: str = "model",
    wanted: str | None = None, check: Callable[[Path], None] | None = None,
) -> Path:  # fmt: skip
    """The local copy of the files in the repository `name` that match `patterns`; UserError if there is none of them.

    what: in words, what should be in the repository. wanted: a file that it has to have. check: a function that raises
    UserError for a folder that holds something else.
    """
    import huggingface_hub
    from huggingface_hub import errors

    missing = f"there is no folder {name!r}, and on the Hugging Face Hub"
    try:
        folder = Path(
            huggingface_hub.snapshot_download(
                name, revision=revision, allow_patterns=list(patterns), ignore_patterns=list(ignored)
            )
        )
    except errors.GatedRepoError as error:
        raise UserError(
            f"{name} is gated: ask for access at https://huggingface.co/{name}, then run `hf auth login`"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{name} has no revision {revision!r} on the Hugging Face Hub") from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(f"{missing} there is no public {what} of that name (if it is private, run `hf auth login`)") from error
    except errors.HFValidationError as error:
        raise UserError(f"{missing} no {what} can have that name") from error
    except (errors.LocalEntryNotFoundError, errors.HfHubHTTPError, OSError) as error:
        why = _first_line(error)
        raise UserError(f"{missing} it could not be reached ({why}); give a folder, or try again online") from error
    if check is not None:
        check(folder)
    if wanted is not None and not (folder / wanted).is_file():
        raise UserError(f"{name} on the Hugging Face Hub is not a {what}: it has no {wanted}")
    return folder


def check_push(name: str | None) -> None:
    """UserError if it can be said beforehand that pushing to this name will fail. None: nothing is pushed."""
    if name is None:
        return
    from huggingface_hub import HfApi, errors
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
        HfApi().whoami()
    except errors.HFValidationError as error:
        raise UserError(f"push: {name!r} is not a name that a model can have on the Hugging Face Hub: {error}") from error
    except errors.LocalTokenNotFoundError as error:
        raise UserError(f"push to {name} needs a login: run `hf auth login` first") from error
    except Exception as error:
        raise UserError(f"push to {name}: the Hugging Face Hub cannot be reached or refuses ({_first_line(error)})") from error


def push(folder: Path, name: str, message: str) -> None:
    """Upload `folder` as the repository `name`. UserError if that fails; the folder stays."""
    import huggingface_hub

    api = huggingface_hub.HfApi()
    try:
        api.create_repo(name, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message=message)
    except Exception as error:
        raise UserError(
            f"{folder} is written, but could not be pushed ({_first_line(error)}); later: hf upload {name} {folder}"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
