"""The page of `make smollm2`: table, plot and samples in one HTML file, by the template page.html.jinja beside this file."""

import base64
import os
from collections.abc import Sequence
from pathlib import Path

import jinja2

from zett.demos.sample import Sample
from zett.evaluate.report import table
from zett.evaluate.results import Report
from zett.evaluate.windows import text_words


def write_page(file: Path, report: Report, samples: Sequence[Sample], prompt: str, plot: Path) -> Path:
    """Write HTML, self-contained; all text is escaped. Returns `file`."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    html = environment.get_template("page.html.jinja").render(
        report=report,
        samples=samples,
        prompt=prompt,
        text=text_words(report.text),
        plain=table(report),
        plot=base64.b64encode(plot.read_bytes()).decode(),
    )
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        temporary.write_text(html, encoding="utf-8")
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
    return file
