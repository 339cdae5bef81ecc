"""Where reports are kept: report.json and report.png in a folder, and classes.png where it was asked for."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from zett.errors import UserError
from zett.evaluate.excess_plot import excess_figure
from zett.evaluate.plot import figure
from zett.evaluate.results import CLASSES_NAME, JSON_NAME, PLOT_NAME, Report
from zett.files import folders
from zett.files.jsonfile import json_or_empty, write_json
from zett.files.resolve import PACKAGED

DEFAULT_OUTPUT = "runs/eval"


def save(report: Report, folder: str | Path) -> list[Path]:
    """Write report.json, report.png and, if classes were asked for, classes.png into `folder`, made if missing; their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / JSON_NAME, dataclasses.asdict(report))
    files = [folder / JSON_NAME, folder / PLOT_NAME]
    _draw(figure(report), folder / PLOT_NAME)
    (folder / CLASSES_NAME).unlink(missing_ok=True)  # of the report that this one replaces
    classes = excess_figure(report)
    if classes is not None:
        _draw(classes, folder / CLASSES_NAME)
        files.append(folder / CLASSES_NAME)
    return files


def _draw(picture, file: Path) -> None:
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        picture.savefig(temporary, dpi=160, format="png")
        temporary.rename(file)
    finally:
        temporary.unlink(missing_ok=True)


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
    there = [name for name in (JSON_NAME, PLOT_NAME, CLASSES_NAME) if (folder / name).exists()]
    if there and output is not None and not overwrite:
        raise UserError(f"{folder} holds a report already ({there[0]}); give another --output, or --overwrite")
    if there and not overwrite and not {"base", "targets", "settings"} <= json_or_empty(folder / JSON_NAME).keys():
        raise UserError(f"{folder / there[0]} was not written by zett eval; give another --output, or --overwrite")
    return folder
