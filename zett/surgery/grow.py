"""New tokens that a tokenizer can really make.

A BPE makes a token by merges alone. So its training goes on where it ended (arXiv 2512.03989): new merges come after all old
ones, and none makes a token that was there before. Then a text is first cut as it always was, and new merges join what is left:
with every new token taken apart again, each text has the tokens of before. WordPiece takes the longest token that fits, and a
Unigram the most probable pieces; there, a text is cut as before if no new token is in it.
"""

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence

from zett.errors import UserError
from zett.surgery.merging import Merging, Pair, words_of
from zett.vocab import Vocabulary
from zett.vocab.bytes import BYTE_TOKEN, token_format

MARGIN = 0.1  # by how much a new piece is more probable, in natural logs, than what it replaces
Word = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Growth:
    """New tokens, as the tokenizer's model spells them, with what it takes to make them; see `VocabularyEdit`.

    steps: those of them that were not asked for, but are merged on the way to others.
    """

    tokens: list[str]
    merges: tuple[Pair, ...] = ()
    scores: dict[str, float] = dataclasses.field(default_factory=dict)
    steps: frozenset[str] = frozenset()


def grown_from_text(vocab: Vocabulary, texts: Iterable[str], number: int, least: int = 2) -> Growth:
    """The `number` new tokens that shorten a text most, each by at least `least` tokens. UserError if there are none."""
    words, kind = words_of(vocab, texts), _kind(vocab)
    if kind == "BPE":
        merging = Merging(vocab, words)
        while len(merging.tokens) < number and merging.step(least):
            pass
        growth = Growth(merging.tokens, tuple(merging.merges))
    else:
        spell = _speller(vocab)
        gains = {w: n * (len(w) - 1) for w, n in words.items() if n >= least and len(w) > 1 and spell(w) is not None}
        best = sorted(gains, key=lambda word: (-gains[word], word))[:number]
        growth = _whole(vocab, {word: str(spell(word)) for word in best}, words)
    if not growth.tokens:
        raise UserError(f"the text has no neighbouring tokens that occur {least} times and make a new one; give more text")
    return growth


def grown_from_list(vocab: Vocabulary, wanted: Sequence[str], *, skip: bool = False) -> Growth:
    """New tokens with these texts. skip: leave out those that the tokenizer cannot make; else UserError says which."""
    wanted = list(dict.fromkeys(wanted))
    words: dict[Word, str] = {}
    refused: dict[str, str] = {}
    for text in wanted:
        word, why = _word(vocab, text)
        if why:
            refused[text] = why
        else:
            words[word] = text
    growth = Growth([])
    if words and _kind(vocab) == "BPE":
        merging = Merging(vocab, Counter(dict.fromkeys(words, 1)))
        while merging.step():
            pass
        ends = dict(zip(words.values(), merging.symbols()))
        stuck = [text for text, symbols in ends.items() if len(symbols) > 1]
        refused |= dict.fromkeys(stuck, "would be made of a token that exists, but that no merge makes")
        growth = _needed(merging, {symbols[0] for symbols in ends.values() if len(symbols) == 1})
    elif words:
        spell = _speller(vocab)
        refused |= {text: "has characters without a token" for word, text in words.items() if spell(word) is None}
        growth = _whole(vocab, {word: name for word in words if (name := spell(word)) is not None}, Counter())
    if refused and not skip:
        shown = "; ".join(f"{text!r} {why}" for text, why in list(refused.items())[:5])
        more = f"; and {len(refused) - 5} more" if len(refused) > 5 else ""
        raise UserError(f"{len(refused)} of {len(wanted)} tokens cannot be added: {shown}{more}; leave them out (--skip)")
    if not growth.tokens:
        raise UserError(f"none of the {len(wanted)} tokens can be added: the first, {wanted[0]!r}, {refused[wanted[0]]}")
    return growth


def _kind(vocab: Vocabulary) -> str:
    return json.loads(vocab.tokenizer.model.__getstate__())["type"]


def _word(vocab: Vocabulary, text: str) -> tuple[Word, str]:
    """The ids of a text that is to be one token, and why it cannot be, or ""."""
    words = words_of(vocab, [text], at_spaces=False)
    if not words:
        return (), "is nothing, or an added token, for the tokenizer"
    word = next(iter(words))
    if len(words) > 1 or words[word] > 1:
        return word, "is cut into several words before the tokenizer's model sees it"
    if set(word) & set(vocab.special.values()):
        return word, "has characters without a token"
    return word, "is a token already" if len(word) == 1 else ""


def _needed(merging: Merging, wanted: set[str]) -> Growth:
    """Without the steps that lead to no token that is wanted."""
    made = {merging.product(pair): pair for pair in merging.merges}
    needed = set(wanted)
    for token in reversed(merging.tokens):
        if token in needed and token in made:
            needed |= set(made[token])
    tokens = [token for token in merging.tokens if token in needed]
    return Growth(tokens, tuple(made[token] for token in tokens if token in made), {}, frozenset(tokens) - wanted)


def _speller(vocab: Vocabulary):
    """A function: how the model would spell a word of these ids as one token; None if some are unknown or single bytes."""
    form = vocab.format or token_format(vocab.tokenizer)
    texts = {i: text for text, i in vocab.tokenizer.get_vocab().items()}
    closed = set(vocab.special.values())

    def spell(word: Word) -> str | None:
        parts = [texts[i] for i in word]
        if closed & set(word) or (form.byte_tokens and any(map(BYTE_TOKEN.fullmatch, parts))):
            return None
        return parts[0] + "".join(part.removeprefix(form.continuing) for part in parts[1:])

    return spell


def _whole(vocab: Vocabulary, tokens: dict[Word, str], words: Counter[Word]) -> Growth:
    """Tokens of a WordPiece, WordLevel or Unigram. words: how often a text has each word."""
    tokens = {word: token for word, token in tokens.items() if vocab.tokenizer.token_to_id(token) is None}
    if _kind(vocab) != "Unigram":
        return Growth(list(tokens.values()))
    scores = [score for _, score in json.loads(vocab.tokenizer.model.__getstate__())["vocab"]]
    total = sum(n * len(word) for word, n in words.items())
    found = {}
    for word, token in tokens.items():
        # More probable than its pieces together; beyond that as often as in the text, or as the rarest of its pieces.
        together = sum(scores[i] for i in word) + MARGIN
        alone = math.log(words[word] / total) if words[word] else min(scores[i] for i in word)
        found[token] = max(together, alone, min(scores))
    return Growth(list(found), (), found)
