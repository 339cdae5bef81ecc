"""Files of word vectors in all their formats."""

import struct
from pathlib import Path

import numpy as np


def write_text(file: Path, vectors: dict[str, np.ndarray], *, header: bool = True) -> Path:
    """word2vec's text and fastText's .vec; without the header, GloVe's."""
    size = len(next(iter(vectors.values())))
    lines = [f"{len(vectors)} {size}"] if header else []
    lines += [" ".join([word, *(f"{x:.6f}" for x in row)]) for word, row in vectors.items()]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def write_binary(file: Path, vectors: dict[str, np.ndarray], *, newlines: bool = True) -> Path:
    """word2vec's binary format, with or without a line's end after each vector: both are in use."""
    size = len(next(iter(vectors.values())))
    data = f"{len(vectors)} {size}\n".encode()
    for word, row in vectors.items():
        data += word.encode() + b" " + struct.pack(f"<{size}f", *row) + (b"\n" if newlines else b"")
    file.write_bytes(data)
    return file
