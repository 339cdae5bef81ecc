"""Rows of tokens that the base model has, too, and that are not left as they are predicted."""

import numpy as np

from zett.lms.base import BaseModel
from zett.table import EmbeddingTable
from zett.vocab import Vocabulary
from zett.vocab.prompts import chat_template


def line_ends(base: BaseModel) -> float:
    """The share `newlines` of `towards_own`, if nothing is said: 1 for a model with a chat template, else 0.

    Turns are made of line ends and of special tokens. Those keep their rows, and a row of "\\n" that has moved between them is
    another frame: SmolLM2 ends a third of its turns at once.
    """
    return float(chat_template(base.vocab.folder) is not None)


def towards_own(table: EmbeddingTable, base: BaseModel, target: Vocabulary, share: float, newlines: float) -> EmbeddingTable:
    """The table in which the rows of tokens that the model has, too, have gone this share of the way to its own rows.

    newlines: the share of tokens of line ends alone.
    """
    if not share and not newlines:
        return table
    theirs = np.asarray([base.vocab.id_of.get(token, -1) if token else -1 for token in target.tokens])
    ours = np.flatnonzero(theirs >= 0)
    shares = np.asarray([share if target.tokens[i].strip(b"\r\n") else newlines for i in ours], np.float32)

    def moved(predicted, own):
        if predicted is None:
            return None
        rows = np.array(predicted, np.float32)
        away = np.asarray(own)[theirs[ours]].astype(np.float32) - rows[ours]
        rows[ours] += shares.reshape(-1, *(1,) * (away.ndim - 1)) * away
        return rows

    sides = ((table.input, base.table.input), (table.output, base.table.output_rows), (table.bias, base.table.bias))
    return EmbeddingTable.of(*(moved(*side) for side in sides))
