"""Tokenizer files that tests write by hand."""

import json

import tokenizers


def characters(vocab: dict[str, int], added: dict[str, int] | None = None) -> str:
    """A tokenizer.json that the library itself would not write."""
    spec = json.loads(tokenizers.Tokenizer(tokenizers.models.BPE()).to_str())
    spec["model"]["vocab"] = vocab
    sides = dict(lstrip=False, rstrip=False, single_word=False, normalized=False, special=True)
    spec["added_tokens"] = [dict(id=i, content=content, **sides) for content, i in (added or {}).items()]
    return json.dumps(spec)
