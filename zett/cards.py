"""Cards: the README.md of what a training run releases, made from the run's own records."""

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
