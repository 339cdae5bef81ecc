"""Sentence embeddings of an encoder's hidden states, as the Pooling module of sentence-transformers makes them."""

from pathlib import Path

import jax.numpy as jnp

from zett.errors import UserError
from zett.files.jsonfile import read_json

# Switches of 1_Pooling/config.json and the names that `pool` knows them by.
MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}


def pooling_mode(folder: str | Path) -> str:
    """The pooling of a model folder, one of the values of MODES. UserError if the folder names none of them, or several."""
    file = Path(folder) / "1_Pooling" / "config.json"
    config = read_json(file)
    chosen = [name for name, on in config.items() if name.startswith("pooling_mode_") and on is True]
    if len(chosen) != 1 or chosen[0] not in MODES:
        raise UserError(f"{file}: {' and '.join(chosen) or 'no mode'} is not computed here; one of {', '.join(MODES)} is")
    return MODES[chosen[0]]


def pool(h_BLD, mask_BL, mode: str):
    """Embeddings `[B, D]`; mask_BL is False at padding, on either side."""
    mask = mask_BL[..., None].astype(h_BLD.dtype)
    match mode:
        case "mean":
            return (h_BLD * mask).sum(1) / jnp.maximum(mask.sum(1), 1e-9)
        case "max":
            return jnp.where(mask > 0, h_BLD, -jnp.inf).max(1)
        case "cls" | "last":
            first = mask_BL.argmax(1) if mode == "cls" else mask_BL.shape[1] - 1 - mask_BL[:, ::-1].argmax(1)
            return jnp.take_along_axis(h_BLD, first[:, None, None], 1)[:, 0]
    raise ValueError(f"pooling mode {mode!r} is not one of {', '.join(MODES.values())}")
