"""RoBERTa and XLM-RoBERTa: BERT's encoder with other names, and positions that count from the padding id.

Transformers gives padding the position `pad_token_id` and the first real token the next one, so that the table of positions
depends on an id of the tokenizer: `follow_padding` moves it when a transfer changes that id. Reference: Transformers'
`modeling_xlm_roberta.py`; parity is tested in `tests/lms/test_encoders.py`.
"""

import dataclasses
from typing import Self

import numpy as np

from zett.lms.bert import RENAMED, BertBody, BertConfig, encoder_rows, head_rows
from zett.lms.family import Family


@dataclasses.dataclass(frozen=True)
class RobertaConfig(BertConfig):
    """Shape of a RoBERTa body."""

    @classmethod
    def from_hf(cls, hf: dict) -> Self:
        padding = hf.get("pad_token_id", 1)
        if padding is None:
            raise ValueError("pad_token_id is null; the positions of this architecture count from it")
        # The head's activation is not configurable.
        return dataclasses.replace(super().from_hf(hf), first_position=padding + 1, head_activation="gelu")


def follow_padding(positions: np.ndarray, old: int, new: int | None) -> tuple[np.ndarray, dict]:
    """The table of positions `[P, D]` for the padding id `new` in place of `old`, and the fields of config.json that follow.

    Row `old + 1` is the first token's, so it becomes row `new + 1`; the rows below the padding id, which no position uses, are
    zeros. Without a padding token the id is -1, which no token has, so that positions count from row 0.
    """
    new = -1 if new is None else new
    if new == old:
        return positions, {}
    below = np.zeros((new + 1, positions.shape[1]), positions.dtype)
    if old >= 0 and new >= 0:
        below[new] = positions[old]
    moved = np.concatenate([below, positions[old + 1 :]])
    return moved, {"pad_token_id": new, "max_position_embeddings": len(moved)}


FAMILY = Family(
    model_types=("roberta", "xlm-roberta"),
    Config=RobertaConfig,
    Body=BertBody,
    weights=(*encoder_rows("roberta."), *head_rows("lm_head.dense", "lm_head.layer_norm")),
    input_rows="roberta.embeddings.word_embeddings.weight",
    output_rows="lm_head.decoder.weight",
    bias="lm_head.bias",
    copies={"lm_head.decoder.bias": "lm_head.bias"},
    prefix="roberta.",
    head="lm_head.",
    renamed=RENAMED,
    # Buffers, and heads of other tasks: copied, but not computed.
    ignored=(r"roberta\.embeddings\.position_ids", r"roberta\.pooler\..*", r"classifier\..*"),
    tied_default=True,
    follow_padding=follow_padding,
)
