"""What an edited model's folder says of the edit."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from zett.data.documents import first_bytes
from zett.files.jsonfile import json_or_empty
from zett.files.tensors import Stored, stored_tensors
from zett.lms.base import BaseModel
from zett.surgery.edit import VocabularyEdit
from zett.surgery.lengths import Lengths
from zett.surgery.settings import named_ids
from zett.surgery.write import EditedRows, edited_rows
from zett.vocab import Vocabulary
from zett.vocab.bytes import MAX_ID, RESERVED_TOKEN

SHOWN = 20  # tokens of a preview
LINES, BYTES = 200, 200_000  # of a text, on which a tokenizer is tried


@dataclasses.dataclass(frozen=True)
class Preview:
    """What an edit would do. facts: numbers before and after, by name. tokens: what would go, or come, as their `fate` says.

    left_out: files that the result would not have.
    """

    facts: dict
    tokens: tuple[str, ...]
    fate: str
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        rows = [["", "before", "after"]]
        rows += [
            [name, *("" if x is None else x if isinstance(x, str) else f"{x:,}" for x in two)]
            for name, two in self.facts.items()
        ]
        wide = [max(map(len, column)) for column in zip(*rows)]
        lines = [f"{a:<{wide[0]}}  {b:>{wide[1]}}  {c:>{wide[2]}}".rstrip() for a, b, c in rows]
        more = f" and {len(self.tokens) - SHOWN:,} more" if len(self.tokens) > SHOWN else ""
        lines += ["", f"{len(self.tokens):,} tokens would {self.fate}: {' '.join(map(repr, self.tokens[:SHOWN]))}{more}"]
        lines += [f"files that would be left out, since they hold the old vocabulary: {', '.join(self.left_out)}"] * bool(
            self.left_out
        )
        return "\n".join([*lines, "nothing was written"])


def spelled(vocab: Vocabulary, ids: Iterable[int]) -> tuple[str, ...]:
    """Tokens for people: the text that they stand for, or their names."""
    return tuple(vocab.tokens[i].decode("utf-8", "backslashreplace") or vocab.tokenizer.id_to_token(i) for i in ids)


# What tokenizers cut differently: numbers, contractions, case, spaces, line breaks, punctuation, scripts.
TRIALS = [
    "Hello  world!\n\tA cat, 12 dogs and 3,456.78 birds: it's what we'll see.",
    "def f(x_1, HTTPServer=None):\n    return x_1**2\n\n\n",
    " leading and trailing ",
    "naïve Straße ÜBER 東京タワー привет हिन्दी 🙂",
    "2026-11-27 16:05 <b>bold</b> http://a.b/c?d=e&f",
    "DON'T stop\r\n\r\n...",
]


def sample(vocab: Vocabulary, texts: Iterable[str]) -> list[str]:
    """Lines to try a tokenizer on: of a text, if there is any; TRIALS; what special tokens and the longest ones spell."""
    lines = [line for text in first_bytes(texts, BYTES) for line in text.split("\n") if line.strip()][:LINES]
    longest = np.argsort(-vocab.byte_lengths, kind="stable")[:20]
    spelled = [vocab.tokens[i].decode("utf-8", "ignore") for i in longest]
    special = [f"a {text} b" for text in list(vocab.special)[:20] if not RESERVED_TOKEN.fullmatch(text)]
    return [*TRIALS, *special, *spelled, *lines]


def report(base: BaseModel, folder: Path, edit: VocabularyEdit, lengths: Lengths | None) -> dict:
    """Numbers before and after, by name; what is not known is left out. folder: the edited model's, or of its settings."""
    before = stored_tensors(base.folder)
    after = before | edited_rows(base, edit)
    facts: dict = {
        "tokens": [edit.before, edit.size],
        "rows": [before[base.names.input[0]].shape[0], len(edit.old)],
        "parameters": [_parameters(before), _parameters(after)],
        "weights, MB": [round(sum(t.nbytes for t in stored.values()) / 1e6, 1) for stored in (before, after)],
    }
    if lengths is not None:
        facts["tokens per byte of held-out text"] = [round(n / lengths.bytes, 4) for n in (lengths.before, lengths.after)]
        facts["share of held-out text cut as before"] = [None, round(lengths.same, 4)]
        facts["bytes of held-out text"] = [lengths.bytes, lengths.bytes]
    for file in ("config.json", "generation_config.json"):
        ids = [named_ids(json_or_empty(where / file), MAX_ID) for where in (base.folder, folder)]
        for key in sorted({key for found in ids for key in found}):
            pair = [", ".join(map(str, found[key])) if key in found else None for found in ids]
            if pair[0] != pair[1]:
                facts[f"{key} in {file}"] = pair
    return facts


def _parameters(stored: Mapping[str, Stored | EditedRows]) -> int:
    return sum(int(np.prod(t.shape)) for t in stored.values())


def call_of(function: str, usual: dict) -> Callable[[dict], str]:
    """Of settings, the call of a function of zett that has model and output in front. usual: what is left out."""

    def words(settings: dict) -> str:
        rest = {name: value for name, value in settings.items() if name not in ("model", "output")}
        given = [f"{name}={value!r}" for name, value in rest.items() if value != usual.get(name)]
        return f"{function}({', '.join([repr(settings['model']), repr(settings['output']), *given])})"

    return words
