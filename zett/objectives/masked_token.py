"""Predicting hidden tokens of text, as masked language models are trained (arXiv 1810.04805)."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from zett.data.masked import embed, frame_of, masked_texts
from zett.mesh import BATCH
from zett.objectives.likelihood import Likelihood
from zett.objectives.setting import Encoded, Setting


class MaskedToken(Likelihood):
    """Hidden tokens are predicted from the text around them. The text is framed as the base model does it ([CLS] and [SEP])."""

    specs = {**Likelihood.specs} | dict.fromkeys(("inputs", "mask", "columns"), BATCH)

    def __init__(self, setting: Setting):
        super().__init__(setting)
        self.frame = frame_of(setting.base)

    def frozen(self) -> dict:
        return {"frame": self.everywhere(self.frame.rows(self.setting.base.table.input))}

    def batch(self, texts: Encoded, rngs: Sequence[np.random.Generator]) -> dict[str, np.ndarray]:
        share = self.setting.loss.mask_share
        assert texts.ordinary is not None  # given wherever encoders are trained
        return masked_texts(self.frame, texts.ids, texts.lengths, texts.bytes, share, rngs, texts.ordinary)

    def hidden(self, table, body, frozen, texts):
        x = self.by_row(embed(table.input, frozen["frame"], texts["inputs"]))
        h = body(x, mask_BL=texts["mask"])
        return jnp.take_along_axis(h, texts["columns"][..., None], 1)  # only hidden tokens need logits
