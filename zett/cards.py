"""Cards: the README.md of what a training run releases, made from the run's own records, and of a transferred model."""

import json
from pathlib import Path


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


def transfer_card(
    title: str, *, base: str, revision: str | None, tokenizer: str, method: str, hypernet, command: str, result: str | None
) -> str:
    """Markdown: how a model got its tokenizer. tokenizer, result (what was measured, or None): Markdown of one line."""
    made_by = f"the hypernetwork `{hypernet}`, zero-shot" if method == "hypernet" else f"the training-free method `{method}`"
    return f"""{front_matter(base)}# {title}

`{base}` with another tokenizer. The rows of the embedding tables were made by {made_by}; nothing was trained after that.
All other weights are the base model's, bit for bit.

| | |
|---|---|
| base model | `{base}`{f", revision `{revision}`" if revision else ""} |
| tokenizer | {tokenizer} |
| method | {method} |
| hypernetwork | {f"`{hypernet}`" if hypernet else "none"} |
| result | {result or "not measured"} |

Made with:

```
{command}
```

The base model's licence applies.
"""
