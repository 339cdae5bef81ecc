"""A hypernetwork's parameters as files hold them: as they are, in another float type, or as int8 with scales."""

from collections.abc import Mapping

import ml_dtypes
import numpy as np

_KERNEL, _SCALE = ".kernel", ".scale"
_FLOATS = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}
_STEPS = 127  # of int8, on either side of zero


def stored(params: Mapping[str, np.ndarray], form: str | None) -> dict[str, np.ndarray]:
    """Parameters by dotted path in one of the forms zett.choices.STORED; None: as they are.

    int8: a matrix `[rows, columns]`, or each of a stack of them, becomes whole numbers and, as NAME.scale, a float32 factor for
    each column; vectors, and matrices that are no kernels, become bfloat16. On rows predicted for SmolLM2 that is a change of
    0.5 % of their norm, for half of bfloat16's bytes.
    """
    if form is None:
        return dict(params)
    if form != "int8":
        return {name: x.astype(_FLOATS[form]) for name, x in params.items()}
    new: dict[str, np.ndarray] = {}
    for name, x in params.items():
        if not name.endswith(_KERNEL) or x.ndim < 2:
            new[name] = x.astype(ml_dtypes.bfloat16)
            continue
        values = x.astype(np.float32)
        scale = np.abs(values).max(-2) / _STEPS
        new[name] = np.rint(values / np.where(scale > 0, scale, 1)[..., None, :]).astype(np.int8)
        new[name + _SCALE] = scale
    return new


def restored(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The parameters of `stored`. An int8 tensor without a fitting scale is left as it is."""
    new = dict(tensors)
    for name, x in tensors.items():
        scale = tensors.get(name + _SCALE)
        if (
            x.dtype == np.int8
            and scale is not None
            and scale.dtype == np.float32
            and scale.shape == (*x.shape[:-2], x.shape[-1])
        ):
            new[name] = x * new.pop(name + _SCALE)[..., None, :]
    return new
