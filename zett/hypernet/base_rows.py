"""A few rows of the base model that a hypernetwork was trained for: by them variants of it are known without it.

A fine-tuned, quantised or re-saved model has other values and nearly the same rows. What is compared is the cosine of each kept
row with the row of the same id, after each column is scaled by the kept rows' mean and deviation: this is what a hypernetwork
reads, and without it the few large columns that many models have would make any two rows alike.
"""

import dataclasses
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zett.errors import UserError
from zett.files.resolve import BASE_ROWS
from zett.files.tensors import file_metadata, write_tensors
from zett.table import EmbeddingTable

FORMAT = "zett-base-rows-1"
ROWS, COLUMNS = 256, 256  # at most, of each of input and output rows; together 256 KiB
ALIKE = 0.9  # the median cosine from which on a model is a variant of the base
SAME = 0.9999  # below it, rows have other values, and no fingerprint of all of them is needed to see it


@dataclasses.dataclass(frozen=True, eq=False)
class BaseRows:
    """Rows at ids, and columns of them, that are spread evenly over a table of `vocab_size` rows of `width`.

    sides: input rows, and output rows unless they are tied, `[rows, columns]` float16.
    """

    vocab_size: int
    width: int
    sides: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, table: EmbeddingTable) -> "BaseRows":
        """Those of a base model; of a table that is mapped from a file, little more is read."""
        size, width = int(table.num_valid), table.input.shape[1]
        both = (table.input, table.output)
        return cls(size, width, tuple(_picked(rows, size, width).astype(np.float16) for rows in both if rows is not None))

    def cosine(self, table: EmbeddingTable) -> float:
        """Median cosine with the rows of a table of the same width with as many sides; NaN counts as unlike (0)."""
        size = int(table.num_valid)
        ids = _spread(self.vocab_size, ROWS)
        kept = ids[ids < size]  # the last ids may be special tokens that a variant lacks
        if not len(kept):
            return 0.0
        both = [rows for rows in (table.input, table.output) if rows is not None]
        theirs = np.concatenate([_picked(rows, self.vocab_size, self.width, kept) for rows in both], -1)
        ours = np.concatenate(self.sides, -1).astype(np.float32)
        mean, std = ours.mean(0), ours.std(0)
        std = np.maximum(std, max(1e-3 * float(std.max()), 1e-8))  # a column that hardly varies says nothing
        with np.errstate(all="ignore"):  # of damaged rows
            a, b = (ours[: len(kept)] - mean) / std, (theirs - mean) / std
            cosines = (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-8)
        return float(np.median(np.nan_to_num(cosines, nan=0.0, posinf=0.0, neginf=0.0)))

    def write(self, folder: Path) -> None:
        """The file BASE_ROWS in the folder of a hypernetwork, whole or not at all."""
        temporary = folder / f"{BASE_ROWS}.tmp"
        metadata = {"format": FORMAT, "vocab_size": str(self.vocab_size), "width": str(self.width)}
        write_tensors(temporary, dict(zip(("input", "output"), self.sides)), metadata)
        os.replace(temporary, folder / BASE_ROWS)


def read_base_rows(folder: Path) -> BaseRows | None:
    """Those in the folder of a hypernetwork; None if it has none, as folders of earlier versions. UserError if damaged."""
    import safetensors
    from safetensors.numpy import load_file

    file = folder / BASE_ROWS
    if not file.is_file():
        return None
    try:
        stored, metadata = load_file(file), file_metadata(file)
        size, width = int(metadata["vocab_size"]), int(metadata["width"])
        shape = (len(_spread(size, ROWS)), len(_spread(width, COLUMNS)))
        sides = tuple(stored[name] for name in ("input", "output") if name in stored)
        if metadata["format"] != FORMAT or not sides or any(x.shape != shape or x.dtype != np.float16 for x in sides):
            raise ValueError("its rows are others than it says")
    except (KeyError, ValueError, OSError, safetensors.SafetensorError) as error:
        raise UserError(
            f"{file} does not hold rows of a base model ({error}); copy it again, or delete it: without it the hypernetwork "
            "works with its base model alone"
        ) from None
    return BaseRows(size, width, sides)


def _spread(size: int, most: int) -> np.ndarray:
    """At most `most` numbers below `size`, evenly spread."""
    if not 0 < size < 2**31:
        raise ValueError(f"a size of {size}")
    return np.unique(np.linspace(0, size - 1, min(size, most)).round().astype(np.int64))


def _picked(rows, size: int, width: int, ids: np.ndarray | None = None) -> np.ndarray:
    """`[rows, columns]` float32."""
    ids = _spread(size, ROWS) if ids is None else ids
    return np.asarray(rows)[ids][:, _spread(width, COLUMNS)].astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Fit:
    """How a model compares with the one that a hypernetwork was trained for.

    exact: whether it is that model; None if the hypernetwork does not know. cosine: median over some rows.
    """

    exact: bool | None
    cosine: float | None

    def words(self, base: str) -> str:
        """What the model is. base: what to call the other."""
        if self.exact is None:
            return f"of the shape of {base}, of which no more is known"
        if self.exact:
            return f"exactly {base}"
        return f"a variant of {base}: same tokenizer, rows alike to a median cosine of {self.cosine:.3f}"


def same_ids(own: Sequence[bytes] | None, others: Sequence[bytes]) -> tuple[int, int]:
    """How many ids have the same token in both vocabularies, and of how many; (0, 0) where there is nothing to compare with.

    Special tokens (b"") may have other names, and more of them may follow: they spell nothing, and fine-tuning often adds some.
    """
    if own is None:
        return 0, 0
    pairs = list(itertools.zip_longest(own, others))  # None: beyond the end of one
    other = sum(a != b and a != b"" and b != b"" for a, b in pairs)
    return len(pairs) - other, len(pairs)


def how_alike(cosine: float, width: int, same: int, ids: int) -> str:
    """In words, with what is needed of a variant."""
    tokens = f"{same:,} of {ids:,} ids have the same token (all are needed)" if ids else "there is no tokenizer to compare with"
    return f"rows of the same width, {width}, are alike to a median cosine of {cosine:.3f} ({ALIKE} is needed), and {tokens}"
