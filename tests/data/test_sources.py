"""Names of text sources: what they say, and errors that say what they don't."""

import pytest

from zett.data.documents import TextError
from zett.data.sources import check_source, open_text


def test_unknown_split():
    with pytest.raises(TextError, match="split 'test' is unknown"):
        open_text("python", split="test")


@pytest.mark.parametrize(
    "spec, message",
    [
        ("hf:", "names no data set"),
        ("hf:a?data=b", r"'data=b' is not one of data_dir=\.\.\., data_files=\.\.\., revision=\.\.\., column="),
        ("hf:a?column=", "'column=' is not one of"),
        ("hf:a?column=b&column=c", "'column=c' is not one of"),
        ("python|", "'' is not a source"),
        ("0*python|prose", "whole weight above 0"),
        ("1.5*python|prose", "whole weight above 0"),
        ("python|/no/such", "no such file or folder: /no/such"),
    ],
)
def test_specs_that_say_nothing(spec, message):
    for function in (check_source, open_text):
        with pytest.raises(TextError, match=message):
            function(spec)


def test_sources_are_checked_without_reading(tmp_path):
    assert check_source(f"14*hf:some/english:en|python|hf:some/code?data_dir=c++|{tmp_path}|hf:{tmp_path}") == [
        "some/english", "some/code",
    ]  # fmt: skip
