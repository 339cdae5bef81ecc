"""Headers of GGUF files that are cut off, damaged or hostile: one line, quickly and in little memory."""

import random
import struct
import time
import tracemalloc
from pathlib import Path

import gguf_files
import numpy as np
import pytest

from zett.errors import UserError
from zett.gguf.config import hf_config
from zett.gguf.header import MAX_ENTRIES, read_header
from zett.gguf.tokenizer import tokenizer_files
from zett.gguf.weights import convert_tensors

CONFIG = {
    **gguf_files.SHAPE, "model_type": "llama", "vocab_size": 260, "num_hidden_layers": 1, "tie_word_embeddings": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal(shape) for name, shape in gguf_files.SHAPES.items()}
    tokenizer = gguf_files.sentencepiece({"e": -1.0})
    return gguf_files.write(tmp_path_factory.mktemp("g") / "m.gguf", CONFIG, weights, tokenizer=tokenizer).read_bytes()


def read_all(file: Path) -> None:
    """What a conversion reads, without writing it."""
    header = read_header(file)
    config = hf_config(header)
    tokenizer_files(header)
    for tensor in convert_tensors(header, config, lambda nbytes: None).values():
        np.asarray(tensor)


def outcome(folder: Path, content: bytes) -> str:
    """The refusal, "" if there is none; anything but a UserError of one line fails the test."""
    file = folder / "x.gguf"
    file.write_bytes(content)
    try:
        read_all(file)
    except UserError as error:
        assert str(file) in str(error) and "\n" not in str(error), error
        return str(error)
    return ""


def header_size(content: bytes) -> int:
    return len(content) - sum(int(np.prod(s)) * 4 for s in gguf_files.SHAPES.values())


def test_the_file_itself_is_read(whole, tmp_path):
    assert outcome(tmp_path, whole) == ""


def test_files_that_are_cut_off(whole, tmp_path):
    end = header_size(whole)
    lengths = [*range(0, 400), *range(400, end, 97), *range(end, len(whole), 4001), len(whole) - 1]
    for length in lengths:
        assert outcome(tmp_path, whole[:length]), length
    assert "does not begin with GGUF" in outcome(tmp_path, b"")
    assert "it ends inside its header" in outcome(tmp_path, whole[: end - 60])
    assert "but 'blk.0.ffn_norm.weight' ends at" in outcome(tmp_path, whole[:-1])


def test_files_with_changed_bytes(whole, tmp_path):
    rng = random.Random(0)
    end, refused = header_size(whole), 0
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(rng.choice([1, 1, 1, 8])):
            content[rng.randrange(end)] = rng.choice([0, 1, 0x7F, 0xFF, rng.randrange(256)])
        refused += bool(outcome(tmp_path, bytes(content)))
    assert refused > 50


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def setting(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(name="t", shape=(32,), kind=0, offset=0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def file_of(settings=(), tensors=(), *, version=3, counts=None, data=b"\0" * 4096) -> bytes:
    tensor_count, setting_count = counts or (len(tensors), len(settings))
    body = b"GGUF" + struct.pack("<IQQ", version, tensor_count, setting_count) + b"".join([*settings, *tensors])
    return body + b"\0" * (-len(body) % 32) + data


HUGE = 2**63 - 1
HOSTILE = {
    "version 1": (file_of(version=1), "is a version 1 GGUF file"),
    "big-endian": (file_of(version=3 << 24), "is a big-endian GGUF file"),
    "tensors": (file_of(counts=(HUGE, 0)), "it states 9,223,372,036,854,775,807 tensors"),
    "settings": (file_of(counts=(0, HUGE)), "it states 9,223,372,036,854,775,807 settings"),
    "key": (file_of([struct.pack("<Q", HUGE)]), "a text at byte 24 has"),
    "long key": (file_of([setting("k" * 70000, 7, b"\1")]), "at most 65,535 are read"),
    "text": (file_of([setting("k", 8, struct.pack("<Q", HUGE))]), "has 9,223,372,036,854,775,807 bytes"),
    "text beyond the end": (file_of([setting("k", 8, struct.pack("<Q", 10**6))]), "ends inside its header"),
    "text of bytes": (file_of([setting("k", 8, struct.pack("<Q", 2) + b"\xff\xfe")]), "is not UTF-8"),
    "array": (file_of([setting("k", 9, struct.pack("<IQ", 4, HUGE))]), "entries of an array, more than its"),
    "array of texts": (
        file_of([setting("k", 9, struct.pack("<IQ", 8, 10**6))]),
        "1,000,000 entries of an array, more than its",
    ),
    "array of bytes": (
        file_of([setting("k", 9, struct.pack("<IQ", 0, MAX_ENTRIES + 1))], data=b"\0" * (MAX_ENTRIES + 64)),
        "at most 4,194,304 are read",
    ),
    "nested": (file_of([setting("k", 9, struct.pack("<IQ", 9, 1) * 500)]), "array of arrays"),
    "type of a value": (file_of([setting("k", 13, b"\0" * 8)]), "has type 13, which does not exist"),
    "type of entries": (file_of([setting("k", 9, struct.pack("<IQ", 77, 1))]), "entries of type 77"),
    "truth": (file_of([setting("k", 7, b"\2")]), "is neither 0 nor 1"),
    "key twice": (file_of([setting("k", 7, b"\1")] * 2), "the key 'k' twice"),
    "alignment 0": (file_of([setting("general.alignment", 4, struct.pack("<I", 0))]), "general.alignment is 0"),
    "alignment 24": (file_of([setting("general.alignment", 4, struct.pack("<I", 24))]), "general.alignment is 24"),
    "alignment by text": (file_of([setting("general.alignment", 8, text("x"))]), "general.alignment is 'x'"),
    "dimensions": (file_of(tensors=[tensor(shape=(1,) * 5)]), "has 5 dimensions"),
    "no dimensions": (file_of(tensors=[tensor(shape=())]), "has 0 dimensions"),
    "empty": (file_of(tensors=[tensor(shape=(0, 4))]), "has the shape"),
    "wide": (file_of(tensors=[tensor(shape=(HUGE, HUGE))]), "but 't' ends at"),
    "part of a block": (file_of(tensors=[tensor(shape=(33,), kind=2)]), "which Q4_0 cannot have"),
    "type of a tensor": (file_of(tensors=[tensor(kind=250)]), "has type 250, which is not known"),
    "place": (file_of(tensors=[tensor(offset=2**62)]), "but 't' ends at"),
    "odd place": (file_of(tensors=[tensor(offset=3)]), "not a multiple of 32"),
    "overlap": (file_of(tensors=[tensor("a"), tensor("b", offset=96), tensor("c", offset=128)]), "'a' and 'b' overlap"),
    "tensor twice": (file_of(tensors=[tensor("a"), tensor("a", offset=128)]), "the tensor 'a' twice"),
    "name": (file_of(tensors=[tensor("n" * 200)]), "at most 127 are read"),
    "nothing": (file_of(), "no setting general.architecture"),
    "part": (
        file_of([setting("general.architecture", 8, text("llama")), setting("split.count", 2, struct.pack("<H", 3))]),
        "is one of 3 parts of a model; join them first",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers(name, tmp_path):
    content, message = HOSTILE[name]
    (tmp_path / "x.gguf").write_bytes(content)
    outcome(tmp_path, file_of())  # what is imported is not counted
    tracemalloc.start()
    started = time.process_time()
    said = outcome(tmp_path, content)
    seconds, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert message in said
    # Not a measure of speed: what believes a header's counts is at it for hours. Of the processor, however busy the machine is.
    assert seconds < 5 and peak < len(content) * 3 + 2**20


def test_a_header_without_end(tmp_path):
    """Settings that go on for longer than any header."""
    entry = [setting(f"k{i}", 9, struct.pack("<IQ", 0, 2**22) + b"\0" * 2**22) for i in range(17)]
    assert "its header has more than 64 MiB" in outcome(tmp_path, file_of(entry))
