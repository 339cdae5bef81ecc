"""Predicting the next token of text, as causal language models are trained."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from zett.objectives.likelihood import Likelihood
from zett.objectives.setting import Encoded, Setting


class NextToken(Likelihood):
    """Every token of a text is predicted from those before it, and the first one from an opening row.

    The opening row is the base's own (`BaseModel.bos_row`), whatever the tokenizer of the text is. If the table itself is
    trained, it is the table's row of bos, or else of eos, or else the mean of all rows.
    """

    def __init__(self, setting: Setting):
        super().__init__(setting)
        roles = setting.base.vocab.roles
        self.bos = roles.get("bos", roles.get("eos"))

    def frozen(self) -> dict:
        return {"bos": self.everywhere(self.setting.base.bos_row)} if self.setting.opening else {}

    def batch(self, texts: Encoded, rngs: Sequence[np.random.Generator]) -> dict[str, np.ndarray]:
        return {
            "targets": texts.ids,
            "weights": texts.inside.astype(np.float32),
            "bytes": np.where(texts.inside, texts.bytes, 0).sum(1).astype(np.float32),
        }

    def hidden(self, table, body, frozen, texts):
        return body(self.inputs(table, frozen, texts))

    def inputs(self, table, frozen, texts):
        """`[B, L, D]`, what the body reads."""
        targets = texts["targets"]
        first = jnp.broadcast_to(self.opening_row(table, frozen), (len(targets), 1, table.input.shape[1]))
        return self.by_row(jnp.concatenate([first, table.embed(targets[:, :-1])], 1))

    def opening_row(self, table, frozen):
        """The row `[D]` before the first token of a text."""
        if "bos" in frozen:
            return frozen["bos"]
        return table.input.mean(0) if self.bos is None else table.input[self.bos]
