"""Which text is measured, and what a report says of it."""

import hashlib
from pathlib import Path

import pytest
from evaluate.lines import LINES

from zett.data.sources import open_text
from zett.errors import UserError
from zett.evaluate.cutting import byte_windows
from zett.evaluate.evaluate import evaluate
from zett.evaluate.report import table
from zett.evaluate.windows import measured_windows, text_to_measure, text_words


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A file of 27 KB, most of whose lines are short."""
    path = tmp_path_factory.mktemp("given") / "given.txt"
    path.write_text("".join(f"{line[: 5 + i % 7]}\n" for i, line in enumerate(LINES * 375)))
    return path


def measured(text, specs=(), text_bytes=None, prose="prose"):
    """The record, and its line in a table's head."""
    windows, record = measured_windows(str(text), text_bytes, 128, text_column="text", prose=prose, specs=specs, seed=0)
    assert record["bytes"] == sum(len(w.encode()) for w in windows) and max(len(w.encode()) for w in windows) <= 128
    return record, text_words(record)


def test_a_given_file_is_measured_whole(base, model, file, corpus):
    size = file.stat().st_size
    report = evaluate(base, [model], text=str(file), window=512, methods=["mean"], progress=False)
    assert (report.text["split"], report.text["bytes"], report.text["of_bytes"]) == ("whole", size, size)
    line = f"text: given.txt, whole: {size:,} bytes, in {report.text['windows']} windows of up to 512"
    assert table(report).splitlines()[1] == line
    text, line = measured(file.parent, text_bytes=4000)  # or as much as is asked for
    assert 3500 < text["bytes"] <= 4000 and line == f"{file.parent.name}: {text['bytes']:,} of {size:,} bytes"
    assert measured(file, ["prose-bpe-300"], prose=corpus)[0]["split"] == "whole"  # it is trained on something else


def test_a_file_that_trains_a_target_is_not_measured_whole(file):
    size = file.stat().st_size
    for spec, prose in (("bpe-300", "prose"), ("prose-bpe-300", f"{file.parent}/./{file.name}")):
        text, line = measured(file, ["gpt2", spec], prose=prose)
        assert text["split"] == "valid" and 300 < text["bytes"] == text["of_bytes"] < size / 20
        assert line == f"given.txt, held out: {text['bytes']:,} bytes (on the rest of its {size:,} is trained {spec})"


def test_a_folder_with_a_split_of_its_own_is_measured_by_it(corpus):
    size = (Path(corpus) / "valid.txt").stat().st_size
    text, line = measured(corpus)
    assert text["split"] == "valid" and line.endswith(f", held out: {size:,} bytes")
    assert measured(corpus, ["bpe-300"])[1].endswith(f", held out: {size:,} bytes (on its training files is trained bpe-300)")
    assert measured(f"{corpus}/valid.txt", ["prose-bpe-300"], prose=corpus)[0]["split"] == "whole"
    with pytest.raises(UserError, match=r"train\.txt is measured as part of .*, and trains a target"):
        measured(f"{corpus}/train.txt", ["prose-bpe-300"], prose=corpus)


def test_runs_are_evaluated_on_all_of_a_file_that_does_not_train_them(file, corpus):
    def measured_by(spec, *training):
        return "".join(text_to_measure(str(spec), training, open_text, "text"))

    text = file.read_text()
    assert measured_by(file, "python", corpus) == text
    assert measured_by(f"{file}|{corpus}", "python") == text + (Path(corpus) / "valid.txt").read_text()
    for same in (str(file), f"{file.parent}/../{file.parent.name}/{file.name}|python"):
        held_out = measured_by(file, "prose", same)
        assert text.endswith(held_out) and 0 < len(held_out) < len(text) / 20
    assert measured_by(corpus, corpus) == (Path(corpus) / "valid.txt").read_text()


def test_python_text_is_measured_as_ever():
    text, line = measured("python", text_bytes=2048)
    windows = byte_windows(open_text("python", split="valid"), window=128, count=16)
    assert text["sha256"] == hashlib.sha256("\0".join(windows).encode()).hexdigest() and text["split"] == "valid"
    assert text["of_bytes"] > 100_000 and line == f"python, held out: {text['bytes']:,} of {text['of_bytes']:,} bytes"
