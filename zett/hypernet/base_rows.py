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

    rows: `[rows, columns]` float16, input rows and beside them output rows unless they are tied, less `mean` and over `std`
    `[columns]` float32, those of each column.
    """

    vocab_size: int
    width: int
    rows: np.ndarray
    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def of(cls, table: EmbeddingTable) -> "BaseRows":
        """Those of a base model; of a table that is mapped from a file, little more is read."""
        size, width = int(table.num_valid), table.input.shape[1]
        rows = _picked(table, _spread(size, ROWS), width)
        mean, std = rows.mean(0), rows.std(0)
        std = np.maximum(std, max(1e-3 * float(std.max()), 1e-8))  # a column that hardly varies says nothing
        return cls(size, width, ((rows - mean) / std).astype(np.float16), mean, std)

    def cosine(self, table: EmbeddingTable) -> float:
        """Median cosine with the rows of a table of the same width with as many sides; a row that is not finite counts as 0."""
        ids = _spread(self.vocab_size, ROWS)
        ids = ids[ids < int(table.num_valid)]  # the last ids may be special tokens that a variant lacks
        if not len(ids):
            return 0.0
        ours = self.rows[: len(ids)].astype(np.float32)
        with np.errstate(all="ignore"):  # of damaged rows
            theirs = (_picked(table, ids, self.width) - self.mean) / self.std
            lengths = np.linalg.norm(ours, axis=1), np.linalg.norm(theirs, axis=1)
            cosines = (ours * theirs).sum(1) / np.maximum(lengths[0] * lengths[1], 1e-8)
            cosines = np.where(np.maximum(*lengths) < 1e-3, 1.0, cosines)  # both are the mean, as where all rows are the same
        return float(np.median(np.nan_to_num(cosines, nan=0.0, posinf=0.0, neginf=0.0)))

    def write(self, folder: Path) -> None:
        """The file BASE_ROWS in the folder of a hypernetwork, whole or not at all."""
        temporary = folder / f"{BASE_ROWS}.tmp"
        metadata = {"format": FORMAT, "vocab_size": str(self.vocab_size), "width": str(self.width)}
        write_tensors(temporary, {"rows": self.rows, "mean": self.mean, "std": self.std}, metadata)
        os.replace(temporary, folder / BASE_ROWS)


def read_base_rows(folder: Path, width: int, tied: bool) -> BaseRows | None:
    """Those in the folder of a hypernetwork; None if it has none, as folders of earlier versions. UserError if damaged.

    width, tied: of the hypernetwork's rows.
    """
    import safetensors
    from safetensors.numpy import load_file

    file = folder / BASE_ROWS
    if not file.is_file():
        return None
    try:
        stored, metadata = load_file(file), file_metadata(file)
        size = int(metadata["vocab_size"])
        columns = len(_spread(width, COLUMNS)) * (1 if tied else 2)
        wanted = {"rows": ("float16", (len(_spread(size, ROWS)), columns))} | dict.fromkeys(
            ("mean", "std"), ("float32", (columns,))
        )
        found = {name: (str(x.dtype), x.shape) for name, x in stored.items()}
        known = (metadata["format"], metadata["width"]) == (FORMAT, str(width))
        if not known or found != wanted or not (stored["std"] > 0).all():
            raise ValueError("its rows are others than it says")
    except (KeyError, ValueError, OSError, safetensors.SafetensorError) as error:
        raise UserError(
            f"{file} does not hold rows of a base model ({error}); copy it again, or delete it: without it the hypernetwork "
            "works with its base model alone"
        ) from None
    return BaseRows(size, width, stored["rows"], stored["mean"], stored["std"])


def _spread(size: int, most: int) -> np.ndarray:
    """At most `most` numbers below `size`, evenly spread."""
    if not 0 < size < 2**31:
        raise ValueError(f"a size of {size}")
    return np.unique(np.linspace(0, size - 1, min(size, most)).round().astype(np.int64))


def _picked(table: EmbeddingTable, ids: np.ndarray, width: int) -> np.ndarray:
    """Some columns of the rows `ids`, input and output side by side, float32."""
    sides, columns = (table.input, table.output), _spread(width, COLUMNS)
    return np.concatenate([np.asarray(side)[ids][:, columns].astype(np.float32) for side in sides if side is not None], -1)


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
