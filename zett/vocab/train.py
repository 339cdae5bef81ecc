"""Train a new tokenizer from text, of one of the common kinds, with the `tokenizers` library."""

import collections
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zett.choices import KINDS
from zett.vocab.continued import END_OF_TEXT, PAD, continued_bpe, merges_of
from zett.vocab.regexes import PIECE_REGEX, STYLES, SUPERWORDS, WITHIN, WORD_REGEX

RECIPE = 1  # part of the key under which tokenizers are kept: raise it when the same text gives another tokenizer


def train_tokenizer(kind: str, vocab_size: int, texts: Iterable[str], *, word_regex: str = WORD_REGEX):
    """A `tokenizers.Tokenizer` of `kind` with about `vocab_size` entries, trained on `texts`; the same for the same input.

    "bpe": byte-level BPE; "unigram": SentencePiece-style Unigram with byte fallback; "sentencepiece-bpe": BPE with "▁" and byte
    fallback; "wordpiece": cased BERT-style, lossy on whitespace; "superword": `train_superwords` after half of the
    entries. word_regex: how "bpe" cuts words.
    """
    import tokenizers as tk
    from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

    if kind == "superword":
        return train_superwords(vocab_size // 2, vocab_size, texts)
    special: dict[str, Any] = dict(special_tokens=[END_OF_TEXT, PAD], show_progress=False)
    trainer: Any
    if kind == "bpe":
        tokenizer = tk.Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(tk.Regex(word_regex), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, max_token_length=32, **special)
    elif kind in ("unigram", "sentencepiece-bpe"):
        bytes_ = [f"<0x{b:02X}>" for b in range(256)]
        special["special_tokens"] = [*special["special_tokens"], "<unk>", *bytes_]
        if kind == "unigram":
            tokenizer = tk.Tokenizer(models.Unigram())
            trainer = trainers.UnigramTrainer(vocab_size=vocab_size, unk_token="<unk>", max_piece_length=16, **special)
        else:
            tokenizer = tk.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
            # Rare characters become bytes, as with SentencePiece's character coverage.
            trainer = trainers.BpeTrainer(vocab_size=vocab_size, limit_alphabet=500, max_token_length=16, **special)
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.pre_tokenizer = pre_tokenizers.Split(tk.Regex(PIECE_REGEX), "isolated")
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    elif kind == "wordpiece":
        tokenizer = tk.Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        texts = list(texts)
        counts = collections.Counter(c for text in texts for c in text if not c.isspace())
        alphabet = sorted(sorted(counts, key=lambda c: (-counts[c], c))[:1000])
        # By itself, the trainer would number the "##x" in the order of a random hash, and the numbers decide ties.
        special["special_tokens"] = [*special["special_tokens"], "[UNK]", *(f"##{c}" for c in alphabet)]
        trainer = trainers.WordPieceTrainer(
            vocab_size=vocab_size, initial_alphabet=alphabet, limit_alphabet=len(alphabet), **special
        )
    else:
        raise ValueError(f"unknown kind of tokenizer {kind!r}; known: {', '.join(KINDS)}")
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer if kind == "bpe" else _cleaned(tokenizer)


def train_superwords(first: int, vocab_size: int, texts: Iterable[str], style: int = SUPERWORDS):
    """Byte-level BPE whose tokens may be several words, after the `first` entries: SuperBPE (arXiv 2503.13423).

    Returns a `tokenizers.Tokenizer`. style: SUPERWORDS or SENTENCES of zett.vocab.regexes, what its tokens stay within.
    """
    texts = list(texts)
    words = train_tokenizer("bpe", first, texts, word_regex=WITHIN[style])
    return continued_bpe(merges_of(words), vocab_size, texts, STYLES[style])


def _cleaned(tokenizer):
    """Undo two things: bytes and "##x" had to be given as special tokens, and the Unigram trainer's order is random."""
    import json

    import tokenizers as tk

    spec = json.loads(tokenizer.to_str())
    spec["added_tokens"] = [t for t in spec["added_tokens"] if t["content"] in (END_OF_TEXT, PAD, "<unk>", "[UNK]")]
    if spec["model"]["type"] != "WordPiece":
        spec["model"]["byte_fallback"] = True
    if spec["model"]["type"] == "Unigram":
        # Special tokens get the score 0, the best possible, but bytes have to be the last resort. Scores are rounded, since
        # they are sums in a random order, which shows in their last digits.
        vocab = spec["model"]["vocab"]
        fixed = 3 + 256
        worst = min(score for _, score in vocab)
        pieces = sorted(([piece, round(score, 6)] for piece, score in vocab[fixed:]), key=_best_first)
        _order_dropped_characters(pieces)
        pieces.sort(key=_best_first)  # one of them may have the score of the worst piece
        spec["model"]["vocab"] = [*vocab[:3], *([piece, round(worst - 1, 6)] for piece, _ in vocab[3:fixed]), *pieces]
    return tk.Tokenizer.from_str(json.dumps(spec, ensure_ascii=False))


def _best_first(piece: list) -> tuple:
    return -piece[1], piece[0]


def _order_dropped_characters(pieces: list[list]) -> None:
    """The Unigram trainer appends characters that it had dropped, 0.0001 apart, in a random order: here they are sorted."""
    letters = [v for v in reversed(pieces) if len(v[0]) == 1]
    apart = [b[1] - a[1] > 1.5e-4 for a, b in itertools.pairwise(letters)]
    run = letters[: apart.index(True) + 1 if True in apart else None]
    for entry, piece in zip(run, sorted(v[0] for v in run)):
        entry[0] = piece


def save_tokenizer(tokenizer, folder: str | Path) -> None:
    """Write the files that `transformers.AutoTokenizer` loads."""
    import json

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "pad_token": PAD}
    if "<unk>" in tokenizer.get_vocab():
        special["unk_token"] = "<unk>"
    if "[UNK]" in tokenizer.get_vocab():
        special["unk_token"] = "[UNK]"
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1_000_000,
        **special,
    }
    for name, content in (("tokenizer_config.json", config), ("special_tokens_map.json", special)):
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
