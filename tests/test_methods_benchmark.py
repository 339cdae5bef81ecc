"""benchmarks/methods_quality.py on a tiny model: what it measures, keeps, refuses and shows."""

import json
import re
from pathlib import Path

import pytest
import tiny

pytest.importorskip("benchmarks.methods_quality", reason="the benchmarks are not part of the package")

from benchmarks import methods_quality, methods_report

METHODS = ["fvt", "mean", "far=random"]


@pytest.fixture(scope="module")
def command(tmp_path_factory, base_folder, target_folder):
    folder = tmp_path_factory.mktemp("quality")
    (folder / "text.txt").write_text("".join(tiny.TEXT) * 3)
    sizes = ["--text-bytes", "512", "--window", "32", "--batch-size", "8"]
    files = ["--model", base_folder, "--text", folder / "text.txt", "--tokenizer", target_folder, "--output", folder / "q.json"]
    return folder, [*map(str, files), *sizes, "--section", "tiny, text"]


def run(command, *more, code=0):
    with pytest.raises(SystemExit) as exit:
        methods_quality.main([*command[1], *more])
    assert exit.value.code == code
    return json.loads((command[0] / "q.json").read_text())


def cells(report):
    (target,) = report["sections"]["tiny, text"]["targets"].values()
    return target["cells"]


@pytest.fixture(scope="module")
def report(command):
    return run(command, "--method", *METHODS)


def test_each_cell_has_quality_and_cost(report, command):
    found = cells(report)
    assert list(found) == ["fvt", "mean", "far"]
    original = [float(x) for x in report["sections"]["tiny, text"]["original"]["bits"].split()]
    for cell in found.values():
        bits = [float(x) for x in cell["bits"].split()]
        assert cell["ratio"] == pytest.approx(sum(bits) / sum(original), rel=1e-4) and cell["ratio_error"] > 0
        assert cell["cpu_seconds"] > 0 and cell["seconds"] > 0
    assert str(command[0]) not in json.dumps(report)  # no paths of this machine
    assert (command[0] / "q.png").stat().st_size > 10_000


def test_methods_have_names_of_their_own():
    assert methods_quality.named("fvt") == ("fvt", "fvt")
    assert methods_quality.named("far=random") == ("far", "random")
    assert methods_quality.named("omp:DIR,k=16") == ("omp:DIR,k=16", "omp:DIR,k=16")
    assert methods_quality.named("omp, k=16=omp:DIR,k=16") == ("omp, k=16", "omp:DIR,k=16")


def test_what_is_there_is_not_measured_again(report, command, monkeypatch):
    measured = []
    monkeypatch.setattr(
        methods_quality.Bench, "cell", lambda self, spec, target: measured.append(spec) or dict(cells(report)["fvt"])
    )
    again = run(command, "--method", *METHODS, "last=weighted:input=last")
    assert measured == ["weighted:input=last"] and cells(again)["fvt"] == cells(report)["fvt"]


def test_a_method_that_refuses_stops_no_other(report, command, capsys):
    found = cells(run(command, "--method", "omp", "first_last", code=1))
    assert "omp" not in found and "first_last" in found
    assert "method omp needs a donor" in capsys.readouterr().err


def test_another_text_is_another_section(report, command):
    (command[0] / "other.txt").write_text("x = 1\n" * 50)
    with pytest.raises(ValueError, match=r"section 'tiny, text' of .* is of another text; give another --section"):
        methods_quality.main([*command[1], "--method", "fvt", "--text", str(command[0] / "other.txt")])


def test_the_table_and_what_is_beside_fvt(report):
    lines = methods_report.markdown(report).splitlines()
    assert re.match(r"\*\*tiny, text\*\*: [\d.]+ bits per byte with its own tokenizer, on \d+ bytes", lines[0])
    rows = {line.split(" | ")[0].lstrip("| "): line for line in lines[4:]}
    assert rows.keys() == {"fvt", "mean", "far"} and rows["fvt"].split(" | ")[2] == "1"
    section = report["sections"]["tiny, text"]
    value, error = methods_report.beside_fvt(section, "mean", report["seed"])
    assert value == pytest.approx(cells(report)["mean"]["ratio"] / cells(report)["fvt"]["ratio"], rel=1e-4) and error > 0
    assert methods_report.ordered([section], 0)[0] == min(cells(report), key=lambda name: cells(report)[name]["ratio"])


def test_the_page_has_the_table_of_the_results():
    page = (Path(methods_quality.__file__).parents[1] / "docs" / "methods.md").read_text()
    report = json.loads(methods_quality.RESULTS.read_text())
    assert methods_report.in_page(page, report) == page, "python -m benchmarks.methods_quality --page docs/methods.md"
    with pytest.raises(ValueError, match="the page has no place for a table"):
        methods_report.in_page("# A page", report)
