"""Byte-level BPE that goes on from another one's merges, as if the text of its training had changed at some point.

What people bring is often like that: most of its tokens are the source's, and the rest are its own.
"""

import itertools
import json
from collections.abc import Iterable, Sequence

import tokenizers as tk
from tokenizers import decoders, models, pre_tokenizers, trainers

from zett.errors import UserError
from zett.vocab.vocabulary import Vocabulary

END_OF_TEXT, PAD = "<|endoftext|>", "<|pad|>"  # of every tokenizer that is trained here
LONGEST = 32  # characters, as of other trained ones
PLANE = 0x10000  # a piece is written as one character: no surrogate, no space, and no sign of the basic plane

Merges = list[tuple[str, str]]


def own_merges(vocab: Vocabulary) -> Merges:
    """The merges of a byte-level BPE in their order, each of which makes a new token. UserError for another kind."""
    if vocab.format is None or vocab.format.kind != "byte-level BPE" or vocab.format.word_end:
        raise UserError(f"config.sampler.near is above 0, but the base model's tokenizer ({vocab.kind}) has no merges of bytes")
    return _distinct(merges_of(vocab.tokenizer))


def merges_of(tokenizer) -> Merges:
    """The merges of a `tokenizers.Tokenizer` in their order."""
    return merges_in(json.loads(tokenizer.to_str()))


def merges_in(spec: dict) -> Merges:
    """The merges of a parsed tokenizer.json in their order."""
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in spec["model"]["merges"])
    return [(left, right) for left, right in pairs]


def continued_bpe(first: Merges, vocab_size: int, texts: Iterable[str], word_regex: str):
    """A `tokenizers.Tokenizer` with the merges `first`, and as many more, trained on `texts`, as fill `vocab_size` entries.

    Texts are cut by `word_regex`, and then in pieces by the first merges. What is trained on these, a character each, are the
    merges that the training of the whole tokenizer would have gone on with. Ids follow the merges, as in trained ones.
    """
    start = _tokenizer(first, word_regex)
    pieces = sorted(start.get_vocab(with_added_tokens=False).items(), key=lambda piece: piece[1])
    spelled = {chr(PLANE + i): piece for piece, i in pieces}
    inner = tk.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Split("\n", "removed")
    more = max(vocab_size - len(pieces), 0)
    trainer = trainers.BpeTrainer(vocab_size=len(pieces) + more, initial_alphabet=list(spelled), show_progress=False)
    inner.train_from_iterator(("".join(_written(start.encode(text, add_special_tokens=False))) for text in texts), trainer)
    found = merges_of(inner) if more else []
    whole = (("".join(spelled[char] for char in left), "".join(spelled[char] for char in right)) for left, right in found)
    return _tokenizer(_distinct(itertools.chain(first, whole)), word_regex)


def _written(encoding) -> Iterable[str]:
    """The pieces of a text, a character each, and a line for each word."""
    before = None
    for piece, word in zip(encoding.ids, encoding.word_ids):
        yield f"\n{chr(PLANE + piece)}" if word != before else chr(PLANE + piece)
        before = word


def _distinct(merges: Iterable[Sequence[str]]) -> Merges:
    """Those that make a new token, of no more than LONGEST characters, from tokens that there are."""
    known, kept = set(_alphabet()), []
    for left, right in merges:
        if left in known and right in known and left + right not in known and len(left + right) <= LONGEST:
            known.add(left + right)
            kept.append((left, right))
    return kept


def _alphabet() -> list[str]:
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _tokenizer(merges: Merges, word_regex: str):
    tokens = [END_OF_TEXT, PAD, *_alphabet(), *(left + right for left, right in merges)]
    tokenizer = tk.Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    words = pre_tokenizers.Split(tk.Regex(word_regex), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_OF_TEXT, PAD])
    return tokenizer
