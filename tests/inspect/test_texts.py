"""Texts by language, and parallel texts, from the files that `zett inspect` is given."""

import gzip
import json

import pytest

from zett.data.documents import TextError
from zett.inspect.texts import parallel_texts, texts_by_language


def test_languages_of_files(tmp_path):
    (tmp_path / "docs" / "fr").mkdir(parents=True)
    (tmp_path / "docs" / "fr" / "train.txt").write_text("Bonjour")
    (tmp_path / "docs" / "de.md").write_text("Guten Tag")
    (tmp_path / "docs" / "readme.txt").write_text("Hello")
    (tmp_path / "docs" / "pt-BR.jsonl.gz").write_bytes(gzip.compress(b'{"text": "Oi"}\n{"text": null}\n'))
    (tmp_path / "docs" / "mixed.tsv").write_text('text\tlang\nHej "du\tsv\nHei\tfi\n')
    found = texts_by_language([tmp_path / "docs"])
    assert found == {
        "fr": ["Bonjour"],
        "de": ["Guten Tag"],
        "docs": ["Hello"],
        "pt-BR": ["Oi"],
        "sv": ['Hej "du'],
        "fi": ["Hei"],
    }
    assert list(found) == sorted(found)
    assert texts_by_language([tmp_path / "docs" / "readme.txt"]) == {"readme.txt": ["Hello"]}
    assert texts_by_language([tmp_path / "docs" / "de.md"], limit=5) == {"de": ["Guten"]}


PARALLEL = {"de": [("one", "eins"), ("two", "zwei")], "fr": [("one", "un")]}


def test_forms_of_parallel_text(tmp_path):
    (tmp_path / "columns.csv").write_text("\ufeffid,en,de,fr\n1,one,eins,un\n2,two,zwei,\n", encoding="utf-8")
    (tmp_path / "pairs.tsv").write_text("en\txx\tlang\none\teins\tde\none\tun\tfr\ntwo\tzwei\tde\n")
    long = [("1", "en", "one"), ("2", "en", "two"), ("1", "de", "eins"), ("2", "de", "zwei"), ("1", "fr", "un")]
    (tmp_path / "ids.jsonl").write_text("".join(json.dumps(dict(id=i, lang=g, text=t)) + "\n" for i, g, t in long))
    rows = [dict(book="b", verse=int(i), source=f"{g}-bible", lang=g, text=t) for i, g, t in long]
    (tmp_path / "verses.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("columns.csv", "pairs.tsv", "ids.jsonl", "verses.jsonl"):
        assert parallel_texts([tmp_path / name]) == ("en", PARALLEL), name
    turned = parallel_texts([tmp_path / "ids.jsonl"], "de")
    assert turned == ("de", {"en": [("eins", "one"), ("zwei", "two")], "fr": [("eins", "un")]})
    (tmp_path / "other.csv").write_text("de,fr\neins,un\nzwei,\n")
    assert parallel_texts([tmp_path / "other.csv"]) == ("de", {"fr": [("eins", "un")]})
    assert parallel_texts([tmp_path], "en")[0] == "en"


@pytest.mark.parametrize(
    "name, data, message",
    [
        ("a.txt", b"fine\n\xff", "a.txt: not UTF-8 at byte 5"),
        ("a.jsonl", b'{"text": "a"}\n[1]\n', "a.jsonl, line 2: expected a JSON object"),
        ("a.jsonl", b"{", "a.jsonl, line 1: not JSON"),
        ("a.parquet", b"PAR1", "a.parquet: not a readable parquet file"),
        ("a.csv", b"body\nx\n", "a.csv: no column 'text'; columns: body"),
        ("a.pdf", b"%PDF", "a.pdf: unknown kind of file"),
        ("a.txt", b" \n", "no text in"),
    ],
)
def test_texts_that_cannot_be_read(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(TextError, match=message):
        texts_by_language([tmp_path / name])


@pytest.mark.parametrize(
    "content, reference, message",
    [
        ("text,lang\na,de\n", None, "no column that says which texts belong together"),
        ("title,en\na,b\n", None, "not a table of parallel text"),
        ("de,fr\neins,un\n", "en", "no text in the reference language 'en' .* there are de, fr"),
        ("de,fr\neins,\n,un\n", None, "nothing in .* is in 'de' and in another language"),
    ],
)
def test_tables_that_are_not_parallel(tmp_path, content, reference, message):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(TextError, match=message):
        parallel_texts([tmp_path / "a.csv"], reference)
