"""Tokenizers with special tokens that several tests share, and what is paired between two of them."""

import json

import tokenizers

from zett.vocab import load_tokenizer
from zett.vocab.load import vocabulary_of
from zett.vocab.pairing import pair_special


def bpe(special, others=(), declared=None, folder=None):
    """Byte-level BPE of 256 bytes, then special tokens, then added ones that are not special."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(tokenizers.models.BPE({char: i for i, char in enumerate(alphabet)}, []))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_special_tokens([tokenizers.AddedToken(text, special=True) for text in special])
    made.add_tokens([tokenizers.AddedToken(text, special=False) for text in others])
    if folder is None:
        return vocabulary_of(made, declared)
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({f"{r}_token": t for r, t in (declared or {}).items()}))
    return load_tokenizer(folder)


def text_pairs(target, source):
    return {target.tokenizer.id_to_token(i): source.tokenizer.id_to_token(j) for i, j in pair_special(target, source).items()}
