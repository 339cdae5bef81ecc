"""Texts in turns for drawn tokenizers, which have no special tokens: those of the base model's chat template are added to them.

Their rows are the base's own, in training as in a transfer. So what is learnt is rows of text that work beside them: how a
turn begins, and how probable its end is.
"""

import dataclasses
import re

import numpy as np

from zett.data.chats import Chats, framed_chat
from zett.data.turns import framed_text
from zett.generate import chat_writer
from zett.lms.base import BaseModel, check_causal
from zett.vocab.alignment import SPECIAL, Spelling
from zett.vocab.forms import SurfaceForms
from zett.vocab.pairing import structural
from zett.vocab.sampling.draw import Draw
from zett.vocab.sampling.packed import PackedTokens

_SAMPLE = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


class TurnedTexts:
    """Turns by the base model's chat template, in any drawn tokenizer.

    sources: `[K]`, the base's ids of the special tokens that the template writes. UserError for a base without a template, and
    for an encoder. length: tokens of a row. chats: conversations to read; None: the paragraphs of texts.
    """

    def __init__(self, base: BaseModel, length: int, chats: Chats | None = None):
        check_causal(base)
        self._write, self._length, self._chats = chat_writer(base.vocab, answered=True), length, chats
        [sample] = self._write([_SAMPLE])
        found = {text: i for text, i in structural(base.vocab).items() if text in sample}
        self.sources = np.asarray(list(found.values()), np.int32)
        self._number = {text: k for k, text in enumerate(found)}
        longest_first = sorted(found, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first))) if found else re.compile(r"(?!)")

    def extended(self, draw: Draw) -> Draw:
        """The drawn tokenizer with the special tokens as its last K ids; what it makes of texts stays the same."""
        forms, extra = draw.forms, len(self.sources)
        pieces = np.zeros((extra, forms.pieces.shape[1]), forms.pieces.dtype)
        pieces[:, 0] = self.sources
        features = np.zeros((extra, forms.features.shape[1]), forms.features.dtype)
        new = SurfaceForms(pieces, np.ones(extra, forms.lengths.dtype), features, self.sources.astype(forms.same.dtype))
        both = (np.concatenate([getattr(one, f.name) for one in (forms, new)]) for f in dataclasses.fields(SurfaceForms))
        starts = np.append(draw.tokens.starts, np.full(extra, draw.tokens.starts[-1]))
        return dataclasses.replace(draw, forms=SurfaceForms(*both), tokens=PackedTokens(draw.tokens.data, starts))

    def encode(self, draw: Draw, text: str, rng: np.random.Generator) -> np.ndarray:
        """The first ids of the text in turns, in the extended tokenizer; none if there are not two words in it.

        With `chats`, of some of these from a random one on instead.
        """
        whole = framed_text(text, self._length, self._write) if self._chats is None else self._some_chats(self._chats, rng)
        first = len(draw.forms) - len(self.sources)
        sections, marks, at = [], [], 0
        for match in self._special.finditer(whole):
            sections.append(whole[at : match.start()])
            marks.append(first + self._number[match.group()])
            at = match.end()
        ids, lengths = draw.encode([*sections, whole[at:]], self._length)
        parts = [np.append(row[:length], mark) for row, length, mark in zip(ids, lengths, marks)]
        return np.concatenate([*parts, ids[-1, : lengths[-1]]])[: self._length].astype(np.int64)

    def _some_chats(self, chats: Chats, rng: np.random.Generator) -> str:
        number, whole = int(rng.integers(len(chats))), ""
        for _ in range(len(chats)):
            whole += framed_chat(chats[number], self._write)
            if len(whole) > 12 * self._length:  # more characters than any tokenizer packs into a token on average
                break
            number = (number + 1) % len(chats)
        return whole

    def spelling(self, draw: Draw) -> Spelling:
        """What the tokens of the extended tokenizer spell: special ones stand for the base's."""
        first = len(draw.forms) - len(self.sources)
        ends = draw.tokens.starts[first] + np.arange(1, len(self.sources) + 1)
        symbols = np.append(draw.tokens.data.astype(np.int32), SPECIAL + self.sources)
        partners = {first + k: int(source) for k, source in enumerate(self.sources)}
        return Spelling(symbols, np.append(draw.tokens.starts[: first + 1], ends), partners)
