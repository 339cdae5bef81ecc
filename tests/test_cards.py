"""Cards are made from what a run recorded."""

import json

from zett.cards import training_card


def test_card_has_each_evaluation_once_and_the_config(tmp_path):
    rows = [
        {"step": 10, "loss": 3.0},
        {"step": 20, "eval/bits_per_byte": 2.0, "eval/score": 2.0},
        {"step": 20, "eval/bits_per_byte": 1.5, "eval/score": 1.5},  # the run was resumed and evaluated again
        {"step": 40, "eval/bits_per_byte": 1.25, "eval/score": 1.25},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    card = training_card("Title", "About it.", tmp_path, {"config": {"seed": 7}})
    table = [line for line in card.splitlines() if line.startswith("|")]
    assert table == ["| step | bits_per_byte |", "|---:|---:|", "| 20 | 1.5000 |", "| 40 | 1.2500 |"]
    assert card.startswith("# Title\n\nAbout it.\n") and '"seed": 7' in card
