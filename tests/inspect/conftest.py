"""A report with all parts, of names and texts that would do harm to a page that does not escape them."""

import pytest
from special_tokens import bpe
from vocabularies import vocabulary

from zett.inspect.compare import inspect


@pytest.fixture(scope="session")
def everything(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspect")
    (folder / "<b>").mkdir()
    (folder / "<b>" / "x.txt").write_text("abc <script>alert(1)</script>")
    (folder / "p.csv").write_text("en,de,fr\nab,abcdx,<i>\n")
    nasty = bpe(["<s>", "<script>alert(1)</script>", '"><img src=x>'], declared=dict(bos="<s>"))
    source = vocabulary("bpe")
    return inspect(source, nasty, text=[folder / "<b>"], parallel=[folder / "p.csv"]) | {"folder": folder}
