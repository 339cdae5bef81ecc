"""Local files: every kind, compressed or not, their splits, and errors that name the file."""

import gzip
import itertools

import pytest
from texts import TEXTS, both, content, packed, parquet_bytes, write_jsonl

from zett.data.documents import VALID_SHARE, held_out
from zett.data.sources import open_text, whole_files
from zett.errors import UserError


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_files_of_many_documents(tmp_path, kind, suffix):
    path = tmp_path / f"some.{kind}{suffix}"
    path.write_bytes(packed(content(kind, TEXTS), suffix))
    train, valid = both(path)
    assert sorted(train + valid) == sorted(TEXTS)
    assert 0 < len(valid) < 10
    if any(held_out(f"{path.name}#{i}") for i in range(len(TEXTS))):
        assert train == [t for i, t in enumerate(TEXTS) if not held_out(f"{path.name}#{i}")]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("kind", ["txt", "md", "py", "rst"])
def test_plain_files(tmp_path, kind, suffix):
    for i, text in enumerate(TEXTS):
        (tmp_path / "deep").mkdir(exist_ok=True)
        (tmp_path / "deep" / f"{i:03}.{kind}{suffix}").write_bytes(packed(text.encode(), suffix))
    (tmp_path / "picture.png").write_bytes(b"\xff")  # of no known kind, and left alone
    train, valid = both(tmp_path)
    assert sorted(train + valid) == sorted(TEXTS) and valid


def test_random_access_and_slices(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", TEXTS)
    documents = open_text(str(tmp_path))
    everything = list(documents)
    assert len(documents) == len(everything)
    assert documents[3] == everything[3] and documents[-1] == everything[-1] and documents[2:5] == everything[2:5]


def test_own_split_of_a_folder(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", TEXTS[:10])
    write_jsonl(tmp_path / "valid.jsonl", TEXTS[10:12])
    write_jsonl(tmp_path / "other.jsonl", TEXTS[12:])
    assert both(tmp_path) == [TEXTS[:10], TEXTS[10:12]]


def test_a_training_file_alone_is_split(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", TEXTS)
    for spec in (tmp_path, tmp_path / "train.jsonl"):
        train, valid = both(spec)
        assert valid and sorted(train + valid) == sorted(TEXTS)


def test_few_documents_share_nothing(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", TEXTS[:2])
    assert both(tmp_path) == [TEXTS[:1], TEXTS[1:2]]


def test_the_end_of_a_lone_document_is_held_out(tmp_path):
    text = "".join(f"line {i}\n" for i in range(1000))
    (tmp_path / "book.txt").write_text(text)
    [train], [valid] = both(tmp_path / "book.txt")
    assert train + valid == text and train.endswith("\n")
    assert len(valid) == pytest.approx(len(text) / VALID_SHARE, rel=0.1)
    (tmp_path / "line.txt").write_text("x" * 100)
    assert both(tmp_path / "line.txt") == [["x" * 98], ["x" * 2]]


def test_files_and_folders_whole(tmp_path):
    (tmp_path / "a").mkdir()
    write_jsonl(tmp_path / "a" / "train.jsonl", TEXTS[:10])
    write_jsonl(tmp_path / "b.jsonl", TEXTS[10:])
    found = whole_files(f"3*{tmp_path / 'a'}|{tmp_path / 'b.jsonl'}")
    assert [list(documents) for documents in found] == [TEXTS[:10], TEXTS[10:]]
    assert found[0].paths() == {tmp_path / "a" / "train.jsonl"}
    write_jsonl(tmp_path / "a" / "valid.jsonl", TEXTS[10:12])  # which says that the other file is for training
    assert [list(documents) for documents in whole_files(str(tmp_path / "a"))] == [TEXTS[10:12]]


def test_empty_documents_are_left_out(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n\n{"text": ""}\n{"text": null}\n{"text": "b"}\n{"text": "c"}')
    assert sorted(itertools.chain(*both(tmp_path))) == ["a", "b", "c"]
    (tmp_path / "b.parquet").write_bytes(parquet_bytes({"text": ["d", None, " "]}))
    assert sorted(itertools.chain(*both(tmp_path))) == ["a", "b", "c", "d"]


def test_another_column(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", ["a", "b"], column="content")
    assert both(tmp_path, text_column="content") == [["a"], ["b"]]


@pytest.mark.parametrize(
    "name, data, message",
    [
        (None, b"", r"no such file or folder"),
        ("a.docx", b"", r"a\.docx: unknown kind of file; known: \.txt"),
        ("a.txt", b"", r"no text for the 'train' split"),
        ("a.txt", b"ok \xff", r"a\.txt: not UTF-8 at byte 3"),
        ("a.jsonl", b'{"text": "\xff"}', r"a\.jsonl: not UTF-8 at byte 10"),
        ("a.jsonl", b'{"text": "a"}\n{"tex": 1}\n', r"line 2: .*the field 'text': no field 'text'"),
        ("a.jsonl", b'{"text": "a"}\nnope\n', r"line 2: expected a JSON object"),
        ("a.jsonl", b'{"text": 5}\n', r"line 1: 'text' is 5; it has to be a string"),
        ("a.jsonl", b"[1]\n", r"line 1: expected a JSON object"),
        ("a.txt.gz", b"plain", r"a\.txt\.gz: cannot be decompressed"),
        ("a.txt.gz", gzip.compress(b"x" * 999, mtime=0)[:-9], r"a\.txt\.gz: cannot be decompressed"),
        ("a.txt.zst", b"plain", r"a\.txt\.zst: cannot be decompressed"),
        ("a.parquet", b"PAR1 no", r"a\.parquet: not a readable parquet file"),
        ("a.parquet", parquet_bytes({"body": ["a"]}), r"no column 'text'; columns: body"),
        ("a.parquet", parquet_bytes({"text": [1]}), r"column 'text' holds int64; it has to hold strings"),
    ],
)
def test_errors_name_the_file(tmp_path, name, data, message):
    path = tmp_path / (name or "missing")
    if name:
        path.write_bytes(data)
    with pytest.raises(UserError, match=message):
        list(open_text(str(path)))
