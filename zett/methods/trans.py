"""Trans-tokenization (Remy et al., arXiv 2408.04303): tokens are the source tokens of the words that translate theirs."""

import dataclasses
import itertools
import math
from pathlib import Path
from typing import ClassVar

import numpy as np

from zett import progress
from zett.errors import UserError
from zett.lms.base import BaseModel
from zett.methods.method import Method
from zett.methods.mixing import Mixture, mixed_table, new_tokens
from zett.methods.word_alignment import estimate, numbered, parallel_lines, read_alignment
from zett.table import EmbeddingTable
from zett.values import Within
from zett.vocab import Vocabulary

LEAST = Within(1, 10**6)
CHUNK = 128  # tokens at a time; each may have weights for all source tokens


@dataclasses.dataclass(frozen=True)
class Trans(Method):
    """Sums of the source tokens of a token's translations, as often as parallel text has them. arXiv 2408.04303.

    parallel: a text file with a source text, a tab and its translation on each line. alignment: which of its words (between
    spaces) belong together, in lines such as "0-0 1-2", as fast_align, eflomal and others write them; if left out, it is
    estimated. least: how often a pair of words has to occur. Tokens of words that do not occur get FVT's rows.
    """

    parallel: str | None = None
    alignment: str | None = None
    least: int = 10

    needs: ClassVar[str] = "parallel text of the source and the target language (parallel=FILE)"
    per_layer: ClassVar[bool] = True
    first: ClassVar[str] = "parallel"

    def __post_init__(self) -> None:
        if self.least not in LEAST:
            raise UserError(f"method trans: least is {self.least}; it has to be {LEAST}")

    def precheck(self, model: str | Path) -> None:
        if self.parallel is None:
            raise UserError("method trans needs parallel text, two columns with a tab between them: trans:parallel=FILE")

    def inputs(self) -> tuple[str, ...]:
        return tuple(file for file in (self.parallel, self.alignment) if file)

    def __call__(self, base: BaseModel, target: Vocabulary, *, seed: int = 0) -> EmbeddingTable:
        """`seed` is not used."""
        self.precheck(base.name)
        ours, theirs, counts = self._pairs(base.vocab, target)
        sums = token_counts(ours, theirs, counts)
        new = new_tokens(base, target)
        found = sum(1 for i in new.tolist() if i in sums)
        if len(new) and not found:
            raise UserError(
                f"method trans: none of the {len(new):,} new tokens is in a word of {self.parallel} that has a translation "
                f"{self.least} times; give more parallel text, or a lower least"
            )
        progress.say(
            f"{found:,} of {len(new):,} new tokens are in words with a translation; the rest get the mean of their pieces"
        )

        def weigh(some: np.ndarray) -> Mixture:
            ids = np.unique([i for token in some.tolist() for i in sums.get(token, ())]).astype(np.int64)
            weights = np.zeros((len(some), max(len(ids), 1)))
            for line, token in enumerate(some.tolist()):
                for i, count in sums.get(token, {}).items():
                    weights[line, np.searchsorted(ids, i)] = count
            total = weights.sum(1, keepdims=True)
            weights = np.divide(weights, total, out=weights, where=total > 0)
            return Mixture(ids if len(ids) else np.zeros(1, np.int64), weights.astype(np.float32))

        return mixed_table(base, target, weigh, chunk=CHUNK)

    def _pairs(self, source: Vocabulary, target: Vocabulary) -> tuple[list, list, np.ndarray]:
        """Pairs of words in tokens, and their counts, of those that occur often enough."""
        lines = parallel_lines(str(self.parallel))
        with progress.phase(f"cutting {len(lines):,} lines into words and tokens"):
            ours, our_words = numbered([words_in_tokens(text, source) for text, _ in lines])
            theirs, their_words = numbered([words_in_tokens(text, target) for _, text in lines])
        if self.alignment is None:
            pairs, counts = estimate(ours, theirs)
        else:
            links = read_alignment(self.alignment, ours, theirs)
            ends = [side.ids[side.starts[links[:, 0]] + links[:, 1 + i]] for i, side in enumerate((ours, theirs))]
            pairs, counts = np.unique(np.stack(ends, 1), axis=0, return_counts=True)
        often = counts >= self.least
        return [our_words[i] for i in pairs[often, 0]], [their_words[i] for i in pairs[often, 1]], counts[often]


def words_in_tokens(text: str, vocab: Vocabulary) -> list[tuple[int, ...]]:
    """The words between a text's spaces, each as its tokens: those that end in it, unknown ones left out."""
    encoded = vocab.tokenizer.encode(text, add_special_tokens=False)
    spaces = np.asarray([char.isspace() for char in text], np.int64)
    starts = np.cumsum(np.diff(spaces, prepend=1) < 0)  # how many words have begun up to a character
    words: list[list[int]] = [[] for _ in range(int(starts[-1]) if len(starts) else 0)]
    for i, (_, end) in zip(encoded.ids, encoded.offsets):
        # By its last character, since a token may begin with the space.
        if end and vocab.tokens[i] and (word := int(starts[end - 1]) - 1) >= 0:
            words[word].append(i)
    return [tuple(word) for word in words]


def token_counts(ours: list[tuple], theirs: list[tuple], counts: np.ndarray) -> dict[int, dict[int, float]]:
    """How much each source token counts for a target token, from pairs of words.

    Half of a pair's count goes to all pairs of their tokens alike, half to tokens at the same place, where both words are
    stretched to the same length.
    """
    sums: dict[int, dict[int, float]] = {}
    for source, target, count in zip(ours, theirs, counts.tolist()):
        if not source or not target:
            continue
        length = math.lcm(len(source), len(target))
        stretched = (np.repeat(word, length // len(word)).tolist() for word in (source, target))
        shares = [(*pair, count / 2 / len(source)) for pair in itertools.product(source, target)]
        shares += [(*pair, count / 2 * len(target) / length) for pair in zip(*stretched)]
        for i, token, share in shares:
            row = sums.setdefault(token, {})
            row[i] = row.get(i, 0.0) + share
    return sums
