"""Text in pieces of so many bytes, each of which is scored alone."""

from collections.abc import Iterable, Sequence

import numpy as np


def byte_windows(documents: Sequence[str], *, window: int = 512, count: int = 256, seed: int = 0) -> list[str]:
    """`count` pieces of text of at most `window` bytes, whole lines where they fit, spread evenly over `documents`.

    Each piece is scored alone, so that every tokenizer sees the same context in bytes, however many tokens it needs for it.
    """
    order = np.random.default_rng(seed).permutation(len(documents))
    per_document = max(1, -(-count // max(len(order), 1)))
    windows: list[str] = []
    while len(windows) < count:
        before = len(windows)
        for index in order:
            pieces = _cut(documents[int(index)], window)
            if not pieces:
                continue
            rng = np.random.default_rng([seed, int(index)])
            chosen = sorted(rng.permutation(len(pieces))[:per_document])
            windows += [pieces[i] for i in chosen if pieces[i] not in windows]
            if len(windows) >= count:
                break
        if len(windows) == before:
            break  # the text is shorter than asked for
        per_document *= 2
    return windows[:count]


def whole_windows(documents: Iterable[str], *, window: int = 512, limit: int | None = None, seed: int = 0) -> list[str]:
    """`documents` in pieces of at most `window` bytes, whole lines where they fit, with nothing left out, however short.

    limit: the most bytes that the pieces may have together; drawn from all over the text if it has more.
    """
    pieces: list[str] = []
    for text in documents:
        full, rest = _pieces(text, window)
        pieces += filter(None, [*full, rest])
    sizes = np.asarray([len(piece.encode()) for piece in pieces])
    if limit is None or sizes.sum() <= limit:
        return pieces
    order = np.random.default_rng(seed).permutation(len(pieces))
    return [pieces[i] for i in np.sort(order[np.cumsum(sizes[order]) <= limit])]


def _cut(text: str, window: int) -> list[str]:
    # Windows much shorter than asked for would measure little but the first tokens.
    pieces, _ = _pieces(text, window)
    return [p for p in pieces if len(p.encode()) >= window // 2]


def _pieces(text: str, window: int) -> tuple[list[str], str]:
    """A text in pieces of at most `window` bytes, and what is left at its end."""
    text = text.encode("utf-8", "replace").decode()  # JSON can hold half a character
    pieces: list[str] = []
    current: list[str] = []
    size = 0
    for line in text.splitlines(keepends=True):
        length = len(line.encode())
        if size + length > window and current:
            pieces.append("".join(current))
            current, size = [], 0
        while length > window:  # a line longer than the window: cut between characters
            head = line.encode()[:window].decode("utf-8", "ignore")
            pieces.append(head)
            line = line[len(head) :]
            length = len(line.encode())
        current.append(line)
        size += length
    return pieces, "".join(current)
