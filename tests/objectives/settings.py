"""How the objectives of the tests compute: on one device, in float32."""

import jax.numpy as jnp
import numpy as np

from zett.lms.base import BaseModel
from zett.lms.body import Body
from zett.mesh import one_device
from zett.objectives.setting import Encoded, Setting


def setting_of(base: BaseModel, **changes) -> Setting:
    return Setting(base, one_device(), jnp.dtype("float32"), jnp.dtype("float32"), **changes)


def body_of(base: BaseModel) -> Body:
    return Body(base.graphdef, base.params)


def texts_of(base: BaseModel, lengths=(7, 9, 4, 9), width: int = 9, **more) -> Encoded:
    """Random ids of tokens that stand for text."""
    ordinary = np.flatnonzero(base.vocab.byte_lengths)
    ids = np.random.default_rng(0).choice(ordinary, (len(lengths), width)).astype(np.int32)
    return Encoded(ids, np.asarray(lengths), base.vocab.byte_lengths[ids], ordinary=ordinary, **more)


def rngs_of(texts: Encoded) -> list[np.random.Generator]:
    return [np.random.default_rng([0, row]) for row in range(len(texts.ids))]
