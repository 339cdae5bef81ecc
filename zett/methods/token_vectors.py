"""Static vectors of a vocabulary's tokens: from a file, or trained on text."""

import dataclasses
import importlib.util
import logging
from collections.abc import Iterator

import numpy as np

from zett import progress
from zett.data.sources import open_text
from zett.errors import UserError
from zett.files.vectors import read_vectors
from zett.lms.base import BaseModel
from zett.methods.mixing import new_tokens, shared_tokens
from zett.vocab import Vocabulary

MOST_WORDS = 5_000_000  # of a file
SENTENCE = 1000  # tokens
BATCH = 64  # documents that are cut at a time
KNOWN = 0.5  # of the new tokens, the share that has to have vectors
LEAST = 32  # shared tokens with vectors


def spellings(vocab: Vocabulary) -> list[str]:
    """Each token as the tokenizer spells it; "" where there is none."""
    return [vocab.tokenizer.id_to_token(i) or "" for i in range(len(vocab))]


def words_of(vocab: Vocabulary) -> list[str]:
    """The text of each token, without the spaces around it."""
    return [token.decode("utf-8", "replace").strip() for token in vocab.tokens]


def vectors_from_file(path: str, vocab: Vocabulary) -> np.ndarray:
    """`[V, d]` float32, each token's vector, or zeros.

    If the file has tokens as the tokenizer spells them ("Ġthe"), these are looked up, else the tokens' texts as words.
    """
    spelled, words = spellings(vocab), words_of(vocab)
    with progress.phase(f"reading the vectors {path}"):
        found = read_vectors(path, MOST_WORDS, {*spelled, *words} - {""})
    if not found.words:
        return np.zeros((len(vocab), found.rows.shape[1]), np.float32)
    marked = any(name in found.index for name, word in zip(spelled, words) if name != word and word)
    at = np.asarray([found.index.get(name, -1) if name else -1 for name in (spelled if marked else words)])
    return np.where(at[:, None] >= 0, found.rows[at], np.float32(0))


def check_gensim(method: str) -> None:
    if importlib.util.find_spec("gensim") is None:
        raise UserError(f"method {method}: training vectors on text takes a package: pip install gensim; or give vectors=FILE")


@dataclasses.dataclass(frozen=True)
class Sentences:
    """Texts as the tokens of a vocabulary, to be read as often as there are epochs."""

    parts: list[np.ndarray]
    names: list[str]

    def __iter__(self) -> Iterator[list[str]]:
        for part in self.parts:
            yield [self.names[i] for i in part]


def sentences(text: str, vocab: Vocabulary, most: int, seed: int) -> Sentences:
    """Documents of a text source's training split, cut by the tokenizer, in random order until they have `most` bytes."""
    documents, parts, read = open_text(text), [], 0
    order = np.random.default_rng(seed).permutation(len(documents))
    with progress.bar(most, "text in tokens", "B") as advance:
        for start in range(0, len(order), BATCH):
            some = [documents[i] for i in order[start : start + BATCH]]
            for encoded in vocab.tokenizer.encode_batch_fast(some, add_special_tokens=False):
                ids = np.asarray(encoded.ids, np.int32)
                parts += [ids[at : at + SENTENCE] for at in range(0, len(ids), SENTENCE)]
            size = sum(len(document.encode()) for document in some)
            advance(min(size, most - read))
            read += size
            if read >= most:
                break
    return Sentences(parts, spellings(vocab))


def train_vectors(
    text: str, vocab: Vocabulary, *, text_bytes: int, size: int, epochs: int, least: int, seed: int
) -> np.ndarray:
    """`[V, d]` float32, zeros for tokens that the text has less than `least` times: fastText's CBOW, by gensim.

    In one thread, so that the same seed gives the same vectors.
    """
    from gensim.models import FastText

    found = sentences(text, vocab, text_bytes, seed)
    with progress.phase("training vectors of the tokens"):
        settings = dict(vector_size=size, sg=0, negative=10, min_n=3, max_n=6, workers=1, seed=seed)
        model = FastText(min_count=least, **settings)
        model.build_vocab(found)
        out = np.zeros((len(vocab), size), np.float32)
        if len(model.wv) == 0:
            return out
        model.train(found, total_examples=len(found.parts), epochs=epochs)
    for i, name in enumerate(found.names):
        if name in model.wv.key_to_index:
            out[i] = model.wv[name]
    return out


def check_cover(
    base: BaseModel, target: Vocabulary, known: np.ndarray, method: str, source: str, *, least: float = KNOWN
) -> None:
    """UserError unless a share of at least `least` of the new tokens that stand for text is `known [V]`; else says how many.

    source: of the vectors, in words.
    """
    new = new_tokens(base, target)
    new = new[target.byte_lengths[new] > 0]
    found = int(known[new].sum())
    what = f"{source} has vectors for {found:,} of the {len(new):,} new tokens"
    if len(new) and (not found or found < least * len(new)):
        raise UserError(f"method {method}: {what}; {'at least half need one' if least else 'give more text'}")
    if found < KNOWN * len(new):
        logging.getLogger("zett").warning("zett: warning: method %s: %s; the rest get FVT's rows", method, what)
    elif found < len(new):
        progress.say(f"{len(new) - found:,} tokens without a vector get the mean of their pieces' rows")


def shared_and_known(base: BaseModel, target: Vocabulary, known: np.ndarray, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Shared tokens that are `known [V]`: ids in the target and in the source. UserError if there are too few."""
    shared, source = shared_tokens(base, target)
    some = known[shared]
    if some.sum() < LEAST:
        raise UserError(
            f"method {method}: {base.name} and the target tokenizer share {some.sum():,} tokens that have a vector; "
            f"at least {LEAST} are needed"
        )
    return shared[some], source[some]
