"""Parallel text, and which of its words are translations of each other: estimated here, or read from a file.

The estimate is that of fast_align (Dyer et al., NAACL 2013) with fixed settings: each target word stands for one source word or
for none; what it stands for is near it in the sentence, and IBM Model 1's table of translations is fitted by expectation
maximisation.
"""

import dataclasses
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from zett import progress
from zett.errors import UserError

TENSION, NONE = 4.0, 0.08  # how near the diagonal words stand; the share of words that stand for none
STEPS = 7
MOST_PAIRS = 20_000_000  # pairs of words that stand in one line, of all lines; each takes about 75 bytes
LONGEST = 200  # words of a line whose alignment is estimated


@dataclasses.dataclass(frozen=True)
class Words:
    """The words of one side of the lines, as numbers: those of line i are `ids[starts[i]:starts[i + 1]]`."""

    ids: np.ndarray
    starts: np.ndarray

    def line(self, i: int) -> np.ndarray:
        return self.ids[self.starts[i] : self.starts[i + 1]]


def read_lines(path: str) -> Iterator[tuple[int, str]]:
    """Numbered lines of a text file, perhaps compressed by gzip."""
    file = Path(path).expanduser()
    try:
        with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else open(file, encoding="utf-8") as lines:
            yield from enumerate(lines, 1)
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise UserError(f"{file} cannot be read: {error}") from None


def parallel_lines(path: str) -> list[tuple[str, str]]:
    """Source and target text of each line, with a tab between them. UserError for other lines."""
    pairs = []
    for number, line in read_lines(path):
        columns = line.rstrip("\r\n").split("\t")
        if len(columns) != 2:
            what = "it has to have a source text, a tab and its translation"
            raise UserError(f"{path}, line {number}: {len(columns)} column{'s' * (len(columns) != 1)}; {what}")
        pairs.append((columns[0], columns[1]))
    if not pairs:
        raise UserError(f"{path} holds no lines")
    return pairs


def read_alignment(path: str, source: Words, target: Words) -> np.ndarray:
    """`[n, 3]` line, source word and target word of each link: lines such as "0-0 1-2", as fast_align and eflomal have."""
    links, lines, number = [], len(source.starts) - 1, 0
    for number, line in read_lines(path):
        if number > lines:
            break
        sizes = len(source.line(number - 1)), len(target.line(number - 1))
        for link in line.split():
            ends = link.split("-")
            if len(ends) != 2 or not all(end.isdecimal() and int(end) < size for end, size in zip(ends, sizes)):
                what = f"the line has {sizes[0]} and {sizes[1]} words"
                raise UserError(f"{path}, line {number}: {link!r:.40} is not I-J, the places of two words from 0; {what}")
            links.append((number - 1, int(ends[0]), int(ends[1])))
    if number != lines:
        raise UserError(f"{path} has {'more' if number > lines else f'{number:,}'} lines, the parallel text {lines:,}")
    return np.asarray(links, np.int64).reshape(-1, 3)


def estimate(source: Words, target: Words) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of words `[n, 2]` (source, target), and how often the target word is expected to stand for the source word."""
    firsts, seconds, positions, near = _pairs(source, target)
    size = int(target.ids.max(initial=0)) + 1
    keys, place = np.unique(firsts.astype(np.int64) * size + seconds, return_inverse=True)
    owners = keys // size
    begins = np.flatnonzero(np.diff(positions, prepend=-1))
    groups = np.repeat(np.arange(len(begins)), np.diff(begins, append=len(positions)))
    words = seconds[begins]
    table, none = np.full(len(keys), 1 / size), np.full(size, 1 / size)  # at first, all translations are alike
    with progress.bar(STEPS, "aligning words", "step") as advance:
        for _ in range(STEPS):
            weights = table[place] * near
            total = np.add.reduceat(weights, begins) + NONE * none[words]
            counts: np.ndarray = np.bincount(place, weights / total[groups], len(keys))
            nothing = np.bincount(words, NONE * none[words] / total, size)
            table, none = counts / np.bincount(owners, counts)[owners], nothing / nothing.sum()
            advance(1)
    return np.stack([owners, keys % size], 1), counts


def _pairs(source: Words, target: Words) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of words of one line, grouped by target word: both words, the place of the target word, and the prior.

    The prior of a target word at j of n, to stand for the source word at i of m, is exp(-TENSION |i / m - j / n|), scaled to
    sum up to what is left by NONE.
    """
    sizes = np.stack([np.minimum(np.diff(side.starts), LONGEST) for side in (source, target)], 1)
    lines = int(np.searchsorted(sizes.prod(1).cumsum(), MOST_PAIRS, side="right"))
    if lines < len(sizes):
        progress.say(f"words are aligned in the first {lines:,} of {len(sizes):,} lines")
    total = int(sizes[:lines].prod(1).sum())
    firsts, seconds, positions = (np.empty(total, np.int32) for _ in range(3))
    near, at = np.empty(total, np.float32), 0
    for line, (m, n) in enumerate(sizes[:lines].tolist()):
        here = slice(at, at + m * n)
        firsts[here] = np.tile(source.line(line)[:m], n)
        seconds[here] = np.repeat(target.line(line)[:n], m)
        positions[here] = np.repeat(target.starts[line] + np.arange(n), m)
        prior = np.exp(-TENSION * np.abs(np.arange(1, m + 1) / max(m, 1) - np.arange(1, n + 1)[:, None] / max(n, 1)))
        near[here] = ((1 - NONE) * prior / prior.sum(1, keepdims=True)).ravel()
        at += m * n
    return firsts, seconds, positions, near


def numbered(texts: list[list]) -> tuple[Words, list]:
    """The words of texts, numbered in the order in which they come, and the distinct words."""
    numbers: dict = {}
    ids: list[int] = []
    starts = [0]
    for text in texts:
        ids += [numbers.setdefault(word, len(numbers)) for word in text]
        starts.append(len(ids))
    return Words(np.asarray(ids, np.int64), np.asarray(starts, np.int64)), list(numbers)
