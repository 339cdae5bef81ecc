"""Reports are kept in folders, and take the place of other reports alone."""

import dataclasses
import json

import pytest
from evaluate.reports import FIVE, NAMES, report

from zett.errors import UserError
from zett.evaluate import results, saving


def test_report_is_saved_and_loaded(tmp_path):
    made = report(FIVE, NAMES, lossy="wordpiece-350")
    files = saving.save(made, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["report.json", "report.png"]
    for path in (tmp_path / "out", files[0]):
        assert json.dumps(dataclasses.asdict(results.load(path))) == json.dumps(dataclasses.asdict(made))
    image = files[1].read_bytes()
    assert image.startswith(b"\x89PNG") and len(image) > 10_000


def test_reports_of_earlier_versions_are_read(tmp_path):
    content = dataclasses.asdict(report(FIVE, NAMES))
    del content["baselines"], content["settings"]["measure"]
    (tmp_path / "report.json").write_text(json.dumps(content))
    old = results.load(tmp_path)
    assert old.baselines == ("fvt", "mean", "random") and old.unit == "bits per byte" and old.methods == list(FIVE)


def test_reports_replace_reports_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / saving.DEFAULT_OUTPUT
    assert saving.check_output(None, False).resolve() == folder
    folder.mkdir(parents=True)
    (folder / "report.png").write_text("a year of work")
    with pytest.raises(UserError, match=r"report.png was not written by zett eval; .* --overwrite"):
        saving.check_output(None, False)
    with pytest.raises(UserError, match=r"holds a report already \(report.png\)"):
        saving.check_output(str(folder), False)
    assert saving.check_output(str(folder), True) == folder
    (folder / "report.json").write_text('{"base": {}, "targets": [], "settings": {}}')
    assert saving.check_output(None, False).resolve() == folder
    (tmp_path / "tokenizer").mkdir()
    with pytest.raises(UserError, match="--output tokenizer/new lies in tokenizer, which is read from"):
        saving.check_output("tokenizer/new", False, ["pico", "tokenizer"])
    with pytest.raises(UserError, match="--output is ''"):
        saving.check_output("", False)
