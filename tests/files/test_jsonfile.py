"""JSON files: errors that name the file, and never half a file."""

import pytest

from zett.errors import UserError
from zett.files.jsonfile import read_json, write_json


def test_what_is_written_is_read(tmp_path):
    file = tmp_path / "a.json"
    for value in ({"ü": [1, None]}, {"b": 2}):
        write_json(file, value)
        assert read_json(file) == value
    assert "ü" not in file.read_text() and file.read_text().endswith("}\n")
    with pytest.raises(TypeError):
        write_json(file, {"c": object()})
    assert read_json(file) == {"b": 2} and list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "does not exist"),
        (b"{", "is not readable as JSON"),
        (b"\xff", "is not readable as JSON"),
        (b"[1]", "holds a list; it has to hold a JSON object"),
    ],
)
def test_what_is_no_object_is_named(tmp_path, content, message):
    file = tmp_path / "a.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        read_json(file)
    assert str(file) in str(raised.value)
