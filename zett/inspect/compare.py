"""What happens when a model gets another tokenizer: two tokenizers compared, before anything is trained or transferred."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zett import progress
from zett.arguments import renamed, several
from zett.config import HypernetConfig
from zett.errors import UserError
from zett.inspect.describe import describe, show_id
from zett.inspect.texts import parallel_texts, texts_by_language
from zett.inspect.warnings import warnings_of
from zett.vocab import Vocabulary, load_tokenizer
from zett.vocab.bytes import UTF8_BYTES
from zett.vocab.pairing import pairing

TEXT_BYTES = 1_000_000
JSON_FORMAT = "zett-inspect-1"


def inspect(
    model: str | Path | Vocabulary | None = None, tokenizer: str | Path | Vocabulary | None = None, *,
    text: str | Path | Sequence[str | Path] = (), parallel: str | Path | Sequence[str | Path] = (),
    reference: str | None = None, max_pieces: int | None = None, text_column: str = "text", text_bytes: int = TEXT_BYTES,
    source: str | Path | Vocabulary | None = None, target: str | Path | Vocabulary | None = None,
) -> dict:  # fmt: skip
    """Compare a `tokenizer`, the target, with that of a base `model`, the source, as a JSON-able dict.

    model, tokenizer (source, target: their old names): a folder with tokenizer.json (a model's is one), that file, a Hub name,
    or "pico". text: files and folders for tokens per byte, by language. parallel: tables of the same content in several
    languages, for token premiums relative to the language `reference`. max_pieces: S, how many source pieces a hypernetwork
    reads of a token (default: a new hypernetwork's). text_bytes: the most that is read of a language. Raises UserError.

    Keys: "source" and "target" (see `describe`), "pair", "special" (see `SpecialToken`), "advice" (the "mode" of `--special` to
    take, and "why"), "text" and "premium" (None without texts), "warnings" (see `warnings_of`).
    """
    source, target = renamed("model", model, "source", source), renamed("tokenizer", tokenizer, "target", target)
    if source is None or target is None:
        raise UserError(f"inspect needs a model and a tokenizer; {'model' if source is None else 'tokenizer'} is missing")
    text, parallel = several(text), several(parallel)
    names = [str(given.folder or "tokenizer") if isinstance(given, Vocabulary) else str(given) for given in (source, target)]
    vocabs = [given if isinstance(given, Vocabulary) else load_tokenizer(given) for given in (source, target)]
    # Texts are read first, so that a mistake in their files is found before anything slow is done.
    texts = texts_by_language(text, text_column, text_bytes) if text else None
    pairs = parallel_texts(parallel, reference, text_bytes) if parallel else None
    base, new = vocabs
    progress.say(f"taking {len(new):,} tokens apart into pieces of the base model's tokenizer")
    lengths = base.decompose.cached(new.tokens).lengths
    size = HypernetConfig().max_pieces if max_pieces is None else max_pieces
    special = pairing(new, base)
    report = {
        "source": describe(base, names[0]),
        "target": describe(new, names[1]),
        "pair": _pair(base, new, lengths, size),
        "special": [dataclasses.asdict(token) | {"reserved": token.reserved} for token in special.tokens],
        "advice": {"mode": special.mode, "why": special.why},
        "text": None if texts is None else _on_text(base, new, texts, lengths, size),
        "premium": None if pairs is None else _premium(base, new, *pairs),
    }
    return report | {"warnings": warnings_of(base, new, special, report)}


def _pair(source: Vocabulary, target: Vocabulary, lengths: np.ndarray, size: int) -> dict:
    """What the target's tokens are in the source's pieces."""
    present = [i for i, token in enumerate(target.tokens) if token]
    shared = {target.tokens[i] for i in present} & source.id_of.keys()
    used = lengths[present]
    longest = sorted(present, key=lambda i: (-lengths[i], i))[:20]
    lacking = [b for b in UTF8_BYTES if bytes([b]) not in source.id_of]
    return {
        "shared": len(shared),
        "shared_of_target": len(shared) / len(target.id_of),
        "shared_of_source": len(shared) / max(len(source.id_of), 1),
        "pieces_per_token": {str(n): int(c) for n, c in enumerate(np.bincount(used)) if c},
        "one_piece": _one_piece(source, target, lengths),
        "mean_pieces": float(used.mean()),
        "max_pieces": size,
        "longer": int((used > size).sum()),
        "longest": [{"token": show_id(target, i), "pieces": int(lengths[i])} for i in longest if lengths[i] > size],
        "bytes_without_source_token": len(lacking),
    }


def _one_piece(source: Vocabulary, target: Vocabulary, lengths: np.ndarray) -> dict:
    """How the number of target ids in one source piece comes about: both + repeated - cut + normalised + bytes.

    both: tokens that both have. repeated: further ids of the target with the bytes of one of these. cut: ids of both for which
    the source's model makes several pieces. normalised: ids that become a source token by the source's normaliser. bytes:
    single bytes that the source has no token for.
    """
    present = [i for i, token in enumerate(target.tokens) if token]
    both = [i for i in present if target.tokens[i] in source.id_of]
    others = [target.tokens[i] for i in present if lengths[i] == 1 and target.tokens[i] not in source.id_of]
    lacking = int((source.decompose(others).ids >= len(source)).sum()) if others else 0
    distinct = len({target.tokens[i] for i in both})
    return {
        "both": distinct,
        "repeated": len(both) - distinct,
        "cut": int((lengths[both] != 1).sum()),
        "normalised": len(others) - lacking,
        "bytes": lacking,
    }


def _on_text(source: Vocabulary, target: Vocabulary, texts: dict[str, list[str]], lengths: np.ndarray, size: int) -> dict:
    """Tokens per byte, and how many of the target's tokens in texts are shared, long or unknown; by language and in all."""
    shared = np.asarray([token in source.id_of for token in target.tokens])
    languages = {}
    for language, documents in texts.items():
        ids = [_ids(vocab, documents) for vocab in (source, target)]
        counted = {
            "documents": len(documents),
            "bytes": sum(len(text.encode("utf-8", "replace")) for text in documents),
            "source_tokens": len(ids[0]),
            "target_tokens": len(ids[1]),
            "source_unknown": int((ids[0] == source.roles.get("unk", -1)).sum()),
            "target_unknown": int((ids[1] == target.roles.get("unk", -1)).sum()),
            "target_shared": int(shared[ids[1]].sum()),
            "target_longer": int((lengths[ids[1]] > size).sum()),
        }
        languages[language] = counted | _rates(counted)
    total = {key: sum(counted[key] for counted in languages.values()) for key in counted}
    return {"languages": languages, "all": total | _rates(total)}


def _rates(counted: dict) -> dict:
    size, old, new = (max(counted[key], 1) for key in ("bytes", "source_tokens", "target_tokens"))
    return {
        "source_tokens_per_byte": counted["source_tokens"] / size,
        "target_tokens_per_byte": counted["target_tokens"] / size,
        "relative_length": counted["target_tokens"] / old,
        "target_shared_share": counted["target_shared"] / new,
        "target_longer_share": counted["target_longer"] / new,
    }


def _ids(vocab: Vocabulary, texts: list[str]) -> np.ndarray:
    encodings = vocab.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return np.concatenate([np.asarray(encoding.ids, np.int64) for encoding in encodings])


def _premium(source: Vocabulary, target: Vocabulary, reference: str, pairs: dict[str, list[tuple[str, str]]]) -> dict:
    """How many tokens and bytes a language takes for what the reference language says in one, and its unknown tokens."""
    languages = {}
    for language, both in pairs.items():
        unknown: dict[str, float] = {}
        counts = {"bytes": [sum(len(t.encode("utf-8", "replace")) for t in side) for side in zip(*both)]}
        for name, vocab in (("source", source), ("target", target)):
            ids = [_ids(vocab, list(side)) for side in zip(*both)]
            counts[name] = [len(side) for side in ids]
            unknown[f"{name}_unknown"] = float((ids[1] == vocab.roles.get("unk", -1)).mean()) if len(ids[1]) else 0.0
        languages[language] = {"pairs": len(both)} | {name: b / max(a, 1) for name, (a, b) in counts.items()} | unknown
    return {"reference": reference, "languages": languages}
