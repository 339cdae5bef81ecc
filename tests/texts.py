"""Text files that several tests read: plain, jsonl, parquet, compressed."""

import gzip
import json

import pyarrow
import pyarrow.parquet

from zett.data.sources import open_text

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
