"""Documents: mixtures of sources, and what their fingerprints follow."""

import itertools
import os

from texts import write_jsonl

from zett.data.prose import english_prose
from zett.data.python import python_sources
from zett.data.sources import open_text


def test_fingerprint_follows_the_files(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one two three\n" * 9)
    before = open_text(str(path)).fingerprint()
    assert open_text(str(path)).fingerprint() == before != open_text(str(path), split="valid").fingerprint()
    path.write_text("one two four!\n" * 9)
    os.utime(path, ns=(1, 1))
    assert open_text(str(path)).fingerprint() != before


def test_what_reads_documents_keeps_its_names(tmp_path):
    """They are part of fingerprints: with other names, all that users have in their caches would be made anew."""
    (tmp_path / "plain.txt").write_text("one")
    write_jsonl(tmp_path / "rows.jsonl", ["two", "three"])
    (tmp_path / "lone.txt").write_text("the only document")
    sources = [open_text(str(tmp_path), split=split) for split in ("train", "valid")] + [open_text(str(tmp_path / "lone.txt"))]
    sources += [python_sources("valid", 100_000), english_prose("valid", 100_000)]
    readers = {read for source in sources for read, *_ in source.items}
    readers |= {read for read, *args in sources[2].items for read in args if callable(read)}
    names = {"_plain", "_row", "_part", "_read_text", "_prose_of_source", "_prose_of_text"}
    assert {read.__name__ for read in readers} == names


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
