"""The training of a BPE that goes on where it ended."""

import heapq
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator

from zett.surgery.lengths import batches
from zett.vocab import Vocabulary
from zett.vocab.bytes import BYTE_TOKEN, TokenFormat, token_format

Pair = tuple[str, str]


def words_of(vocab: Vocabulary, texts: Iterable[str], *, at_spaces: bool = True) -> Counter[tuple[int, ...]]:
    """How often texts have each word, as the tokenizer's ids; added tokens are in none.

    at_spaces: whether a space mark begins a word even if the tokenizer gives its model a whole text at once.
    """
    form = vocab.format or token_format(vocab.tokenizer)
    added = set(vocab.tokenizer.get_added_tokens_decoder())
    marks: dict[int, int] = {}  # 2: nothing but space marks, 1: begins with one
    if at_spaces and form.space:
        for text, i in vocab.tokenizer.get_vocab().items():
            if text.startswith(form.space):
                marks[i] = 1 if text.strip(form.space) else 2
    counts: Counter[tuple[int, ...]] = Counter()
    for some in batches(texts):
        for encoding in vocab.tokenizer.encode_batch(some, add_special_tokens=False):
            counts.update(_words(encoding.ids, encoding.word_ids, added, marks))
    return counts


def _words(ids: list[int], numbers: list[int | None], added: set[int], marks: dict[int, int]) -> Iterator[tuple[int, ...]]:
    word: list[int] = []
    last = None
    for i, number in zip(ids, numbers):
        if word and (number != last or i in added or (i in marks and marks.get(word[-1]) != 2)):
            yield tuple(word)
            word = []
        if i not in added:
            word.append(i)
        last = number
    if word:
        yield tuple(word)


class Merging:
    """Words as symbols, how often each pair of neighbours occurs, and the tokens that were made so far.

    words: ids with counts. A pair is joined only if what it makes is no token yet. A character that the tokenizer spells in
    bytes (as SentencePiece's do) becomes a token of its own before it is joined with others.
    """

    def __init__(self, vocab: Vocabulary, words: Counter[tuple[int, ...]]):
        self._form: TokenFormat = vocab.format or token_format(vocab.tokenizer)
        texts = {i: text for text, i in vocab.tokenizer.get_vocab().items()}
        self._known = set(texts.values())
        self._closed = {texts[i] for i in vocab.special.values()}
        self._words = [self._symbols([texts[i] for i in word]) for word in words]
        self._counts = list(words.values())
        self.tokens: list[str] = []
        self.merges: list[Pair] = []
        self._pairs: Counter[Pair] = Counter()
        self._where: dict[Pair, set[int]] = {}
        self._missing: Counter[str] = Counter()  # characters that are no tokens
        self._waiting: dict[str, set[Pair]] = {}  # the pairs that they are in
        for word, n in zip(self._words, self._counts):
            self._missing.update({char: n * word.count(char) for char in set(word) - self._known})
        for number in range(len(self._words)):
            self._note(number, 1)
        self._heap = [(-n, pair) for pair, n in self._pairs.items()]
        heapq.heapify(self._heap)

    def product(self, pair: Pair) -> str:
        """What the library makes of two symbols."""
        return pair[0] + pair[1][len(self._form.continuing) :]

    def step(self, least: int = 1) -> bool:
        """Make the token that saves most tokens, if it saves so many; whether there was one."""
        pair, saved = self._best()
        char = max(self._missing, key=lambda c: (self._saving(c), c), default=None)
        if char is not None and self._saving(char) >= max(saved, least):
            self._add(char)
            return True
        if pair is None or saved < least:
            return False
        self._join(pair)
        return True

    def symbols(self) -> list[list[str]]:
        """The words as they are cut now."""
        return self._words

    def _symbols(self, parts: list[str]) -> list[str]:
        """Tokens of a word; bytes that spell characters are these characters."""
        found: list[str] = []
        for is_byte, run in itertools.groupby(parts, lambda part: bool(self._form.byte_tokens and BYTE_TOKEN.fullmatch(part))):
            some = list(run)
            spelled = bytes(int(part[3:5], 16) for part in some).decode("utf-8", "replace") if is_byte else "\ufffd"
            # An ASCII character in bytes is a control character, which tokenizers leave alone.
            found += some if any(char == "\ufffd" or char.isascii() for char in spelled) else list(spelled)
        return found

    def _saving(self, char: str) -> int:
        return self._missing[char] * (len(char.encode()) - 1)

    def _best(self) -> tuple[Pair | None, int]:
        """The most frequent pair that may be joined, which stays where it is."""
        while self._heap:
            n, pair = self._heap[0]
            if -n == self._pairs.get(pair, 0) and self._allowed(pair):
                return pair, -n
            heapq.heappop(self._heap)  # of before, or never to be joined, or with a character that is added later
        return None, 0

    def _allowed(self, pair: Pair) -> bool:
        joined = self.product(pair)
        if joined in self._known or self._closed & set(pair) or set(pair) & self._missing.keys():
            return False
        return not (self._form.byte_tokens and any(BYTE_TOKEN.fullmatch(part) for part in pair))

    def _add(self, char: str) -> None:
        del self._missing[char]
        self._known.add(char)
        self.tokens.append(char)
        for pair in sorted(self._waiting.pop(char, ())):
            if self._pairs[pair] > 0:
                heapq.heappush(self._heap, (-self._pairs[pair], pair))

    def _join(self, pair: Pair) -> None:
        new = self.product(pair)
        self.merges.append(pair)
        self.tokens.append(new)
        self._known.add(new)
        changed: set[Pair] = set()
        for number in sorted(self._where.get(pair, ())):
            changed |= self._note(number, -1)
            word, joined, k = self._words[number], [], 0
            while k < len(word):
                both = k + 1 < len(word) and (word[k], word[k + 1]) == pair
                joined.append(new if both else word[k])
                k += 2 if both else 1
            self._words[number] = joined
            changed |= self._note(number, 1)
        for other in changed:
            if self._pairs[other] > 0:
                heapq.heappush(self._heap, (-self._pairs[other], other))

    def _note(self, number: int, sign: int) -> set[Pair]:
        """Count the pairs of a word, or take them off; returns them."""
        word, n = self._words[number], self._counts[number] * sign
        for pair in itertools.pairwise(word):
            self._pairs[pair] += n
        pairs = set(itertools.pairwise(word))
        for pair in pairs:
            (self._where.setdefault(pair, set()).add if sign > 0 else self._where[pair].discard)(number)
            for char in self._missing.keys() & set(pair):
                self._waiting.setdefault(char, set()).add(pair)
        return pairs
