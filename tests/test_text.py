"""Text sources: every kind of file, splits, streams, parts, errors."""

import concurrent.futures
import gzip
import itertools
import json
import os

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from zett.config import Config, DataConfig
from zett.data import stream
from zett.data.parts import RowTexts
from zett.data.text import VALID_SHARE, TextError, check_source, held_out, open_text, python_sources, whole_files
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
    assert isinstance(train, stream.Stream)
    assert sorted([*train, *valid]) == sorted(TEXTS) and len(valid) > 0
    assert train[1:3] == list(train)[1:3] and train[0] == TEXTS[0] and len(train) == len(list(train))
    assert train.fingerprint() == open_text(f"hf:{tmp_path}").fingerprint() != valid.fingerprint()


def test_hub_data_sets_keep_their_split(tmp_path):
    (tmp_path / "train.parquet").write_bytes(content("parquet", TEXTS[:10]))
    (tmp_path / "validation.parquet").write_bytes(content("parquet", TEXTS[10:12]))
    assert both(f"hf:{tmp_path}") == [TEXTS[:10], TEXTS[10:12]]


def test_what_is_chosen_of_a_hub_data_set(tmp_path):
    for language in ("c++", "rust"):
        (tmp_path / language).mkdir()
        write_jsonl(tmp_path / language / "train.jsonl", [f"{language} {i}" for i in range(4)], column="content")
    documents = open_text(f"hf:{tmp_path}?data_dir=c++&column=content")
    assert set(documents) <= {f"c++ {i}" for i in range(4)} and len(documents) >= 3
    assert set(open_text(f"hf:{tmp_path}?data_files=rust/*.jsonl", text_column="content")) <= {f"rust {i}" for i in range(4)}


@pytest.mark.parametrize("files", [2, 5])  # fewer than parts, of which each row counts, and more
def test_parts_of_a_data_set_are_disjoint_and_all_of_it(tmp_path, files):
    for i in range(files):
        write_jsonl(tmp_path / f"train-{i}.jsonl", TEXTS[i::files])
    whole = open_text(f"hf:{tmp_path}")
    parts = [list(whole.part(n, 3, 10**6)) for n in range(3)]
    assert all(parts) and sorted(itertools.chain(*parts)) == sorted(whole)
    assert len(whole.part(1, 3, 3 * 20)) < len(parts[1])  # each reads its share of the bytes
    assert whole.part(0, 1, whole.limit) is whole


class Numbers:
    """Texts "0", "1", ... of 10 bytes; `errors` are raised, each once, before the numbers that are their keys."""

    def __init__(self, state, errors=(), stop=100):
        self.next, self.errors, self.stop = (state or {"next": 0})["next"], dict(errors), stop

    def __iter__(self):
        while self.next < self.stop:
            if error := self.errors.pop(self.next, None):
                raise error
            self.next += 1
            yield f"{self.next - 1:<10}"

    def state(self):
        return {"next": self.next}


@pytest.fixture
def marked(monkeypatch):
    monkeypatch.setattr(stream, "MARK_BYTES", 70)
    monkeypatch.setattr(stream, "PAUSES", (0, 0, 0))


def opening(errors=(), **settings):
    """(what opens `Numbers`, the states that it was asked for)."""
    states, left = [], dict(errors)

    def open(state):
        states.append(state)
        texts = Numbers(state, **settings)
        texts.errors = left
        return texts

    return open, states


def documents_in(folder):
    text, ends = (folder / "text").read_bytes(), [0, *np.fromfile(folder / "ends", "<i8")]
    return [text[a:b].decode() for a, b in itertools.pairwise(ends)]


NUMBERS = [f"{i:<10}" for i in range(100)]


def test_a_stream_is_read_once_and_up_to_its_limit(tmp_path):
    open, states = opening(stop=10**9)
    for _ in range(2):
        info = stream.spool(tmp_path / "a", "a", open, 95)
        assert info["documents"] == 10 and documents_in(tmp_path / "a") == NUMBERS[:10]
    assert states == [None]
    (tmp_path / "a" / "text").write_text("short")  # damaged
    stream.spool(tmp_path / "a", "a", open, 95)
    assert states == [None, None] and documents_in(tmp_path / "a") == NUMBERS[:10]


def test_what_the_network_breaks_off_goes_on(tmp_path, marked, capsys):
    errors = {
        10: ConnectionError("reset"),
        30: TimeoutError(),
        31: ConnectionError(),
        32: ConnectionError(),
        90: ConnectionError(),
    }
    open, states = opening(errors)
    info = stream.spool(tmp_path / "a", "some/name", open, 10**6)
    assert documents_in(tmp_path / "a") == NUMBERS
    assert info == stream.spool(tmp_path / "b", "some/name", opening()[0], 10**6)  # the digest is that of one reading
    assert states == [None, *({"next": n} for n in (7, 28, 28, 28, 84))]
    assert "some/name broke off (ConnectionError: reset); trying again in 0 s" in capsys.readouterr().err


def test_a_data_set_that_comes_back_late_is_tried_again(tmp_path, marked):
    reading, states = opening({30: ConnectionError()})
    away = [2]  # so often it cannot be opened, once it broke off

    def open(state):
        if state is not None and away[0]:
            away[0] -= 1
            raise TextError("cannot be opened") from ConnectionError("offline")
        return reading(state)

    stream.spool(tmp_path / "a", "a", open, 10**6)
    assert documents_in(tmp_path / "a") == NUMBERS and states == [None, {"next": 28}] and not away[0]


@pytest.mark.parametrize(
    "errors, tries",
    [
        ({20: ValueError("bad row")}, 1),  # nothing that time heals
        ({0: ConnectionError("bad row")}, 1),  # never reached
        ({n: ConnectionError("bad row") for n in range(15, 19)}, 4),
    ],
)
def test_what_stays_broken_is_named_and_not_whole(tmp_path, marked, errors, tries):
    open, states = opening(errors)
    with pytest.raises(TextError, match=r"some/name broke off after \d+ bytes \(\w+: bad row\)"):
        stream.spool(tmp_path / "a", "some/name", open, 10**6)
    assert len(states) == tries and not (tmp_path / "a").exists()
    stream.spool(tmp_path / "a", "some/name", open, 10**6)  # the next start goes on
    assert documents_in(tmp_path / "a") == NUMBERS and states[-1] == (None if 0 in errors else {"next": 14})
    assert sorted(p.name for p in tmp_path.iterdir()) == [".a.lock", "a"]


def test_an_interrupted_reading_goes_on(tmp_path, marked):
    open, states = opening({50: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        stream.spool(tmp_path / "a", "a", open, 10**6)
    assert not (tmp_path / "a").exists()
    with (tmp_path / ".a.partial" / "text").open("ab") as file:  # of a process that was killed before its next mark
        file.write(b"half a docu")
    stream.spool(tmp_path / "a", "a", open, 10**6)
    assert documents_in(tmp_path / "a") == NUMBERS and states == [None, {"next": 49}]


def test_a_data_set_goes_on_where_it_broke_off(tmp_path, monkeypatch, marked):
    """With the places that the library gives: in files of several parts, of which rows are held out."""
    for i in range(3):
        write_jsonl(tmp_path / f"train-{i}.jsonl", TEXTS[i::3])
    source = stream.HubSource(str(tmp_path))
    for part, parts in ((0, 1), (1, 2), (1, 4)):
        expected = list(stream.HubTexts(source, "text", "train", part, parts))
        for n in (1, 10, len(expected) - 1):
            first = stream.HubTexts(source, "text", "train", part, parts)
            begun = list(itertools.islice(first, n))
            state = json.loads(json.dumps(first.state()))
            assert begun + list(stream.HubTexts(source, "text", "train", part, parts, state)) == expected


def test_a_full_disk_leaves_nothing(tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(TextError, match=r"some/name: cannot write 1,000,000 bytes to the cache, .*: .*ZETT_CACHE"):
            stream.spool(tmp_path / "a", "some/name", opening(stop=10**9)[0], 10**6)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [p.name for p in tmp_path.iterdir()] == [".a.lock"]


def test_two_that_want_the_same_read_it_once(tmp_path):
    open, states = opening(stop=10**9)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        infos = list(pool.map(lambda _: stream.spool(tmp_path / "a", "a", open, 10**6), range(4)))
    assert states == [None] and infos == 4 * [infos[0]] and len(documents_in(tmp_path / "a")) == 10**5


@pytest.mark.parametrize(
    "spec, message",
    [
        ("hf:", "names no data set"),
        ("hf:a?data=b", r"'data=b' is not one of data_dir=\.\.\., data_files=\.\.\., revision=\.\.\., column="),
        ("hf:a?column=", "'column=' is not one of"),
        ("hf:a?column=b&column=c", "'column=c' is not one of"),
        ("python|", "'' is not a source"),
        ("0*python|prose", "whole weight above 0"),
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


@pytest.mark.parametrize(
    "spec, column, message",
    [("{folder}", "body", r"no column 'body'; columns: text, n"), ("{folder}/nope", "text", "cannot be opened")],
)
def test_hub_errors(tmp_path, spec, column, message):
    write_jsonl(tmp_path / "train.jsonl", TEXTS[:3])
    with pytest.raises(UserError, match=message):
        list(open_text("hf:" + spec.format(folder=tmp_path), text_column=column))


# ------------------------------------------------------------------------------------------------- parts and mixtures


@pytest.fixture
def sources(tmp_path):
    for name, count in (("a", 50), ("b", 11), ("c", 3)):
        write_jsonl(tmp_path / f"{name}.jsonl", [f"{name} {i}" for i in range(count)])
    return tmp_path


def test_a_mixture_has_all_documents_by_weight(sources):
    spec = f"4*{sources}/a.jsonl|{sources}/b.jsonl| 2*{sources}/c.jsonl"
    mixed, alone = open_text(spec), [list(open_text(f"{sources}/{name}.jsonl")) for name in "abc"]
    documents = list(mixed)
    assert [d[0] for d in documents[:7]].count("a") == 4 and [d[0] for d in documents[-7:]].count("c") == 2
    assert [sum(d[0] == name for d in documents) for name in "abc"] == [4 * len(mixed) / 7, len(mixed) / 7, 2 * len(mixed) / 7]
    assert set(documents) == set(itertools.chain(*alone)) and documents[: 7 * 5 : 7] == alone[0][: 4 * 5 : 4]
    assert mixed[-1] == documents[-1] and mixed[3:9] == documents[3:9]
    assert mixed.fingerprint() == open_text(spec).fingerprint() != open_text(spec.replace("4*", "5*")).fingerprint()
    held_out = set(open_text(spec, split="valid"))
    assert {d[0] for d in held_out} == set("abc") and not held_out & set(documents)


def test_a_mixture_of_streams_shares_the_bytes(sources):
    mixed = open_text(f"3*hf:{sources}?data_files=a.jsonl|hf:{sources}?data_files=b.jsonl", stream_bytes=80)
    sizes = [sum(len(d) for d in set(mixed) if d[0] == name) for name in "ab"]
    assert 60 <= sizes[0] < 64 and 20 <= sizes[1] < 24
    parts = [set(mixed.part(n, 2, 80)) for n in range(2)]
    assert not parts[0] & parts[1] and all(40 <= sum(map(len, part)) < 50 for part in parts)


def test_rows_read_their_parts(sources):
    documents, data = open_text(f"{sources}/a.jsonl"), DataConfig(batch_size=8, parts=4)
    texts = RowTexts(documents, [4, 5, 6], data)  # of another host than that of rows 0 to 3
    assert list(texts.parts) == [2, 3] and texts[4] is texts[5] is not texts[6]
    everything = RowTexts(documents, range(8), data)
    assert list(everything[4]) == list(texts[4]) and list(texts[6]) == list(documents)[3::4]
    assert sorted(itertools.chain(*everything.parts.values())) == sorted(documents)
    assert len({part.fingerprint() for part in everything.parts.values()}) == 4
    with pytest.raises(UserError, match=r"a\.jsonl:train has \d+ documents; config\.data\.parts \(64\) may be no more"):
        RowTexts(documents, range(64), DataConfig(batch_size=64, parts=64))


def test_parts_have_whole_numbers_of_rows():
    with pytest.raises(UserError, match=r"config\.data\.parts is 3; it has to divide config\.data\.batch_size \(16\)"):
        Config(data=DataConfig(parts=3, batch_size=16))


def test_one_part_is_the_source_itself(sources):
    """Configs from before there were parts have the same batches."""
    documents = open_text(f"{sources}/a.jsonl")
    assert all(RowTexts(documents, range(4), DataConfig(batch_size=4))[b] is documents for b in range(4))
