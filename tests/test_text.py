"""Text sources: every kind of file, splits, errors."""

import gzip
import itertools
import json
import os

import pyarrow
import pyarrow.parquet
import pytest

from zett.data.text import VALID_SHARE, Stream, TextError, held_out, open_text, python_sources
from zett.errors import UserError

TEXTS = ["first text\n", "zweiter Text: ßü\u2028same line", "3rd\n\nwith lines\n"] + [f"document {i}\n" * 3 for i in range(97)]


def zstd(data: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def packed(data: bytes, suffix: str) -> bytes:
    return {"": lambda d: d, ".gz": gzip.compress, ".zst": zstd}[suffix](data)


def write_jsonl(path, texts, column="text"):
    path.write_text("".join(json.dumps({column: t, "n": 1}, ensure_ascii=False) + "\n" for t in texts), encoding="utf-8")


def parquet_bytes(columns: dict) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table(columns), sink)
    return sink.getvalue().to_pybytes()


def content(kind: str, texts) -> bytes:
    if kind == "jsonl":
        return "".join(json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in texts).encode()
    return parquet_bytes({"text": texts, "n": [1] * len(texts)})


def both(spec, **settings):
    return [list(open_text(str(spec), split=split, **settings)) for split in ("train", "valid")]


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


def test_empty_documents_are_left_out(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n\n{"text": ""}\n{"text": null}\n{"text": "b"}\n{"text": "c"}')
    assert sorted(itertools.chain(*both(tmp_path))) == ["a", "b", "c"]
    (tmp_path / "b.parquet").write_bytes(parquet_bytes({"text": ["d", None, " "]}))
    assert sorted(itertools.chain(*both(tmp_path))) == ["a", "b", "c", "d"]


def test_another_column(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", ["a", "b"], column="content")
    assert both(tmp_path, text_column="content") == [["a"], ["b"]]


def test_fingerprint_follows_the_files(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one two three\n" * 9)
    before = open_text(str(path)).fingerprint()
    assert open_text(str(path)).fingerprint() == before != open_text(str(path), split="valid").fingerprint()
    path.write_text("one two four!\n" * 9)
    os.utime(path, ns=(1, 1))
    assert open_text(str(path)).fingerprint() != before


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


def test_unknown_split():
    with pytest.raises(TextError, match="split 'test' is unknown"):
        open_text("python", split="test")


# ------------------------------------------------------------------------------------------------------------- python


def test_python_sources_are_deterministic_and_disjoint():
    small = {"package_bytes": 100_000}
    train, valid = (open_text("python", split=split, **small) for split in ("train", "valid"))
    again = python_sources.__wrapped__("train", 100_000)
    assert again.items == train.items and again.fingerprint() == train.fingerprint() != valid.fingerprint()
    assert len(train) > len(valid) > 0
    texts = [set(train), set(valid)]
    assert len(texts[0]) == len(train) and not texts[0] & texts[1]
    assert any("import os" in text for text in texts[0])


def test_copies_do_not_cross_the_splits(tmp_path, monkeypatch):
    """Packages carry copies of one another; a held-out file that is in the training split too would be no test."""
    keys = [f"a/{i}.py" for i in range(200)]
    train, valid = ([k for k in keys if held_out(k) == wanted] for wanted in (False, True))
    (tmp_path / "a").mkdir()
    for i, key in enumerate(train):
        (tmp_path / key).write_text(f"x = {i}  # " + "long enough " * 20)
    for i, key in enumerate(valid):
        (tmp_path / key).write_text(("copy = 0 # " if i else "") + (tmp_path / train[0]).read_text())
    assert len(valid) > 1
    monkeypatch.setattr("sysconfig.get_paths", lambda: dict.fromkeys(("stdlib", "purelib", "platlib"), tmp_path))
    python_sources.cache_clear()
    try:
        texts = [set(python_sources(split, 10**6)) for split in ("train", "valid")]
    finally:
        python_sources.cache_clear()
    assert len(texts[0]) == len(train) and len(texts[1]) == 1 and not texts[0] & texts[1]


# -------------------------------------------------------------------------------------------------------- Hugging Face


def test_hub_data_sets_are_streamed(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", TEXTS)
    train, valid = (open_text(f"hf:{tmp_path}", split=split) for split in ("train", "valid"))
    assert isinstance(train, Stream)
    assert sorted([*train, *valid]) == sorted(TEXTS) and len(valid) > 0
    assert train[1:3] == list(train)[1:3] and train[0] == TEXTS[0] and len(train) == len(list(train))
    assert train.fingerprint() == open_text(f"hf:{tmp_path}").fingerprint() != valid.fingerprint()


def test_hub_data_sets_keep_their_split(tmp_path):
    (tmp_path / "train.parquet").write_bytes(content("parquet", TEXTS[:10]))
    (tmp_path / "validation.parquet").write_bytes(content("parquet", TEXTS[10:12]))
    assert both(f"hf:{tmp_path}") == [TEXTS[:10], TEXTS[10:12]]


def test_a_stream_stops_at_its_limit():
    read = []

    def endless():
        while True:
            read.append(1)
            yield "ten bytes."

    stream = Stream("endless", endless, limit=95)
    assert [text for _, text in zip(range(3), stream, strict=False)] == 3 * ["ten bytes."] and len(read) == 3
    assert len(stream) == 10 and len(read) == 13
    assert len(list(stream)) == 10 and len(read) == 13  # what was read is kept


@pytest.mark.parametrize(
    "spec, column, message",
    [("{folder}", "body", r"no column 'body'; columns: text, n"), ("{folder}/nope", "text", "cannot be opened")],
)
def test_hub_errors(tmp_path, spec, column, message):
    write_jsonl(tmp_path / "train.jsonl", TEXTS[:3])
    with pytest.raises(UserError, match=message):
        list(open_text("hf:" + spec.format(folder=tmp_path), text_column=column))
