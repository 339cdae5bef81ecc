"""Cards: the README.md of what a training run releases, made from the run's own records, and of a transferred model."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zett.choices import MODES
from zett.methods import METHODS

if TYPE_CHECKING:
    from zett.vocab.pairing import Pairing


def training_card(title: str, text: str, workdir: Path, record: dict) -> str:
    """Markdown: `text`, the evaluations of the run in `workdir` as a table, and its config."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    evaluations = {row["step"]: row for row in rows if any(k.startswith("eval/") for k in row)}  # a resumed step counts once
    names = sorted({k for row in evaluations.values() for k in row if k.startswith("eval/") and k != "eval/score"})
    lines = [f"# {title}", "", text.strip(), "", "## Evaluation while training", ""]
    lines += ["| step | " + " | ".join(n.removeprefix("eval/") for n in names) + " |", "|---:" * (len(names) + 1) + "|"]
    for step, row in sorted(evaluations.items()):
        lines.append(f"| {step} | " + " | ".join(f"{row[n]:.4f}" if n in row else "" for n in names) + " |")
    lines += ["", "## Config", "", "```json", json.dumps(record["config"], indent=1), "```", ""]
    return "\n".join(lines)


def front_matter(base: str) -> str:
    """The YAML that the Hugging Face Hub reads from the top of a card of a model made of `base`."""
    on_hub = base != "pico" and not Path(base).expanduser().exists()
    of = f"base_model: {base}\n" if on_hub else ""
    return f"---\nlibrary_name: transformers\ntags: [zett, tokenizer-transfer]\n{of}---\n\n"


def transfer_card(title: str, settings: dict, tokenizer: str, made_with: str, result: str | None) -> str:
    """Markdown: how a model got its tokenizer.

    settings: of `zett.transfer`. tokenizer: what kind it is. made_with: what was run. result: what was measured, or None.
    """
    base, revision, method, hypernet = (settings[name] for name in ("model", "revision", "method", "hypernet"))
    trained = method.partition(":")[0] == "hypernet"
    made_by = f"the hypernetwork `{hypernet}`, zero-shot" if trained else f"the training-free method `{method}`"
    found = _row("fitted", settings.get("scaled")) + _row("drafts for", settings.get("drafts"))
    rest = "All other weights are the base model's, bit for bit."
    if settings.get("body"):
        rest = f"Its {settings['body']}: the same changes for every tokenizer, which come with the hypernetwork."
    return f"""{front_matter(base)}# {title}

`{base}` with another tokenizer. The rows of the embedding tables were made by {made_by}; nothing was trained after that.
{rest}

| | |
|---|---|
| base model | `{base}`{f", revision `{revision}`" if revision else ""} |
| tokenizer | `{settings["tokenizer"]}`: {tokenizer} |
| method | {method} |
| hypernetwork | {f"`{hypernet}`" if hypernet else "none"} |{_row("why it fits", settings.get("about"))}{found}
| result | {result or "not measured"} |

Made with:

```
{made_with}
```

The base model's licence applies.
"""


def edit_card(title: str, base: str, text: str, facts: dict, left_out: Sequence[str], made_with: str) -> str:
    """Markdown: what an edit made of a model's vocabulary.

    text: what was done. facts: numbers before and after, by name. left_out: files that were left out. made_with: what was run.
    """
    lines = [f"{front_matter(base)}# {title}", "", text, "", "| | before | after |", "|---|---:|---:|"]
    for name, pair in facts.items():
        shown = ["" if x is None else x if isinstance(x, str) else f"{x:,}" for x in pair]
        lines.append(f"| {name} | {' | '.join(shown)} |")
    if left_out:
        files = ", ".join(f"`{name}`" for name in left_out)
        lines += ["", f"Left out, since they hold the old vocabulary: {files}. `tokenizer.json` has all that they had."]
    return "\n".join([*lines, "", "Made with:", "", "```", made_with, "```", "", "The base model's licence applies.", ""])


def _row(name: str, value: str | None) -> str:
    """A row of a table, on a new line; nothing for None."""
    return "" if value is None else f"\n| {name} | {_plain(value)} |"


FOUND = ("about", "scale", "scaled", "drafts", "body")  # of what is recorded of a transfer, what was not given


def python_call(settings: dict) -> str:
    """The call of `zett.transfer` with these settings."""
    first = ", ".join(repr(settings[name]) for name in ("model", "tokenizer", "output"))
    usual = {"method": "hypernet", "special": "keep-target", "map": {}, "seed": 0, "text": []}
    rest = {name: value for name, value in settings.items() if name not in ("model", "tokenizer", "output", *FOUND)}
    words = [f"{name}={value!r}" for name, value in rest.items() if value != usual.get(name)]
    if rest["method"].partition(":")[0] not in METHODS:  # one's own, which is recorded by its repr
        words = [f"method={rest['method']}" if word.startswith("method=") else word for word in words]
    return f"zett.transfer({', '.join([first, *words])})"


_FATES = {
    "copied": "the base model's row of the same token",
    "paired": "the base model's row of another token",
    "mapped": "made of this text's row or rows in the base model, as was asked for",
    "predicted": "no counterpart in the base model: its row says nothing until it is trained",
    "kept": "appended, with the base model's row",
    "dropped": "in the base model only",
}


def special_section(pairing: "Pairing", mode: str, advice: "Pairing | None") -> str:
    """Markdown on the special tokens of a transferred model.

    advice: the pairing of the tokenizer as it was given; None: it has to stay so, since the model drafts for another one.
    """
    lines = ["", "## Special tokens", "", f"`--special {mode}`: {MODES[mode]}."]
    if mode != "keep-target":
        lines.append("So the tokenizer's files differ from the given ones; ids of the given one are unchanged.")
    if advice is None:
        lines += [
            "",
            "It drafts for another model, so the tokenizer stays as it is; `--map TOKEN=TEXT` gives special tokens their rows.",
        ]
    else:
        lines += ["", f"Recommended: `--special {advice.mode}`, because {_plain(advice.why)}."]
    lines += ["", "| id | token | role | row | |", "|---:|---|---|---|---|"]
    for token in pairing.tokens:
        if token.reserved:  # there may be hundreds
            continue
        partner, why = "", _FATES[token.fate]
        if token.fate in ("paired", "mapped") and token.source_text is not None:
            partner = f" {_code(token.source_text)}"
            why += f": {token.reason}" if token.fate == "paired" else ""
        number = "" if token.id is None else token.id
        lines.append(f"| {number} | {_code(token.text)} | {token.role} | {token.fate}{partner} | {why} |")
    return "\n".join(lines) + "\n"


def warnings_section(warnings: Sequence[dict]) -> str:
    """Markdown: what `zett.inspect.warnings.warnings_of` found, the gravest first."""
    from zett.inspect.warnings import HEADINGS

    if not warnings:
        return ""
    lines = ["", "## What to know, the gravest first", ""]
    for w in warnings:
        lines.append(f"- {HEADINGS[w['severity']]} **{w['topic']}**. {_plain(w['what'])} {_plain(w['do'])}")
    return "\n".join(lines) + "\n"


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def _plain(text: str) -> str:
    """Text in Markdown, where `<s>` would be taken for HTML."""
    return text.replace("\\", "\\\\").replace("<", "\\<").replace("|", "\\|")
