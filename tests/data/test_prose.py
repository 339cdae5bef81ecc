"""The English that comes with Python."""

import textwrap
from pathlib import Path

from zett.data.prose import english_prose, prose_paragraphs


def test_english_prose_holds_sentences_and_no_code():
    text = "Return the area of a shape, which is the size of its surface.\n\n>>> area(2, 3)\n6\n\n    x = the(of, in)\n"
    assert prose_paragraphs(text) == "Return the area of a shape, which is the size of its surface."

    train, valid = english_prose("train"), english_prose("valid")
    here = Path(textwrap.__file__).resolve()
    [prose] = [read(path) for read, path in (*train.items, *valid.items) if path.resolve() == here]
    assert "textwrap" not in prose and "import" not in prose and "def " not in prose
    assert len(prose) > 500
    assert train.fingerprint() != valid.fingerprint()
    assert not {item[1] for item in train.items} & {item[1] for item in valid.items}
