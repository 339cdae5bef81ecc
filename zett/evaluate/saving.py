"""Where reports are kept: report.json and report.png in a folder."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from zett.errors import UserError
from zett.evaluate.results import JSON_NAME, PLOT_NAME, Report
from zett.files import folders
from zett.files.jsonfile import json_or_empty, write_json
from zett.files.resolve import PACKAGED

DEFAULT_OUTPUT = "runs/eval"


def save(report: Report, folder: str | Path) -> list[Path]:
    """Write report.json and report.png into `folder`, made if missing; returns their paths."""
    from zett.evaluate.plot import figure  # imports matplotlib

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / JSON_NAME, dataclasses.asdict(report))
    temporary = folder / f".{PLOT_NAME}.tmp"
    try:
        figure(report).savefig(temporary, dpi=160, format="png")
        temporary.rename(folder / PLOT_NAME)
    finally:
        temporary.unlink(missing_ok=True)
    return [folder / JSON_NAME, folder / PLOT_NAME]


def check_output(output: str | None, overwrite: bool, inputs: Iterable[str] = ()) -> Path:
    """The folder for a report; None: the default one. UserError if it would replace what nobody has said to replace.

    inputs: what is read; where these are folders, the report's lies elsewhere.
    """
    folder = folders.output_path(DEFAULT_OUTPUT if output is None else output, "--output")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder} is a file; it has to be a folder")
    for path in (Path(given.rpartition("=")[2]).expanduser() for given in inputs if given not in PACKAGED):
        if path.is_dir():
            folders.check_outside(folder, path, "--output")
    there = [name for name in (JSON_NAME, PLOT_NAME) if (folder / name).exists()]
    if there and output is not None and not overwrite:
        raise UserError(f"{folder} holds a report already ({there[0]}); give another --output, or --overwrite")
    if there and not overwrite and not {"base", "targets", "settings"} <= json_or_empty(folder / JSON_NAME).keys():
        raise UserError(f"{folder / there[0]} was not written by zett eval; give another --output, or --overwrite")
    return folder
