"""Word vectors of two languages: aligned by a dictionary, and carried over to the tokens that the words consist of."""

import dataclasses
from pathlib import Path

import numpy as np

from zett import progress
from zett.errors import UserError
from zett.files.vectors import WordVectors, read_vectors
from zett.vocab import Vocabulary

BATCH = 10_000  # words
LEAST_PAIRS = 10
MOST_LINES = 2_000_000  # of a dictionary


def read_words(path: str, most: int) -> WordVectors:
    with progress.phase(f"reading the vectors {path}"):
        return read_vectors(path, most)


def check_same_size(source: WordVectors, target: WordVectors, method: str) -> None:
    sizes = source.rows.shape[1], target.rows.shape[1]
    if sizes[0] != sizes[1]:
        raise UserError(
            f"method {method}: the vectors {source.name} have {sizes[0]} numbers, those of {target.name} {sizes[1]}; "
            "they have to have as many"
        )


def token_means(vectors: WordVectors, vocab: Vocabulary, *, by_rank: bool) -> np.ndarray:
    """`[V, d]` float32: for each token the mean of the vectors of the words that have it, alone or after a space; else zeros.

    by_rank: weighted with 1 / place in the file, as Zipf's law has words' frequencies, which these files do not tell.
    """
    total, weight = np.zeros((len(vocab), vectors.rows.shape[1])), np.zeros(len(vocab))
    with progress.bar(len(vectors.words), "words in tokens", "word") as advance:
        for start in range(0, len(vectors.words), BATCH):
            words = vectors.words[start : start + BATCH]
            ids, owners = _tokens(words, vocab)
            spelled = vocab.byte_lengths[ids] > 0  # no unknown tokens
            ids, owners = ids[spelled], owners[spelled]
            shares = 1 / (1.0 + start + owners) if by_rank else np.ones(len(owners))
            np.add.at(weight, ids, shares)
            np.add.at(total, ids, vectors.rows[start + owners] * shares[:, None])
            advance(len(words))
    return np.divide(total, weight[:, None], out=total, where=weight[:, None] > 0).astype(np.float32)


def _tokens(words: list[str], vocab: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """Each token that a word has, once a word and form: token ids, and the places of the words."""
    ids: list[int] = []
    owners: list[int] = []
    for form in ("{}", " {}"):
        encoded = vocab.tokenizer.encode_batch_fast([form.format(word) for word in words], add_special_tokens=False)
        for place, one in enumerate(encoded):
            found = set(one.ids)
            ids += found
            owners += [place] * len(found)
    return np.asarray(ids, np.int64), np.asarray(owners, np.int64)


def read_dictionary(path: str) -> list[tuple[str, str]]:
    """Pairs of a source word and its translation: two columns, with a tab between them, or a space. UserError for others."""
    file = Path(path).expanduser()
    pairs = []
    try:
        with open(file, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                columns = line.strip().split("\t" if "\t" in line else None)
                if len(columns) != 2 and line.strip():
                    raise UserError(f"{file}, line {number}: {len(columns)} columns; it has to have a word and its translation")
                if line.strip():
                    pairs.append((columns[0], columns[1]))
                if number >= MOST_LINES:
                    break
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the dictionary {file} cannot be read: {error}") from None
    return pairs


def aligned(source: WordVectors, target: WordVectors, pairs: list[tuple[str, str]], name: str) -> WordVectors:
    """The source's vectors, rotated so that translations come as near as can be (orthogonal Procrustes).

    Words count as they are written, in lower case, and capitalised; twice, if two of these are the same. name: for messages.
    """
    found = [
        (source.index[ours], target.index[theirs])
        for pair in pairs
        for ours in (pair[0], pair[0].lower(), pair[0].title())
        for theirs in (pair[1], pair[1].lower(), pair[1].title())
        if ours in source.index and theirs in target.index
    ]
    if len(set(found)) < LEAST_PAIRS:
        raise UserError(
            f"the dictionary {name} has {len(set(found)):,} pairs of words that are in {source.name} and {target.name}; "
            f"at least {LEAST_PAIRS} are needed"
        )
    ours, theirs = (np.asarray(ids) for ids in zip(*found))
    product = source.rows[ours].astype(np.float64).T @ target.rows[theirs].astype(np.float64)
    left, _, right = np.linalg.svd(product)
    return dataclasses.replace(source, rows=(source.rows @ (left @ right)).astype(np.float32))
