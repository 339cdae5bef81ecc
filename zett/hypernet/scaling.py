"""Source rows on their way into the network and predictions on their way out of it."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from zett.config import HypernetConfig
from zett.hypernet.network import num_features, predict_rows
from zett.hypernet.packing import limit_pieces, pack_forms
from zett.table import EmbeddingTable
from zett.vocab import SurfaceForms


def source_rows(table: EmbeddingTable):
    """Rows that the network reads, `[V, E]`: input and output rows side by side, or the one kind there is when tied."""
    return table.input if table.output is None else jnp.concatenate([table.input, table.output], -1)


def column_stats(sides, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation `[E]` of the columns of the first `size` source rows; sides: input rows, and output rows."""
    total = []
    for side in sides:
        parts = [slice(start, min(start + 4096, size)) for start in range(0, size, 4096)]  # a float64 copy of all may not fit
        mean = sum(np.asarray(side[part], np.float64).sum(0) for part in parts) / size
        square = sum(np.square(np.asarray(side[part], np.float64) - mean).sum(0) for part in parts) / size
        total.append((mean, np.sqrt(square) + 1e-8))
    mean, std = (np.concatenate(both).astype(np.float32) for both in zip(*total))
    return mean, std


def fit_scales(graphdef, params: dict, rows, seed: int) -> dict:
    """`params` for rescale "fitted": source rows get mean 0 and `input_std`, and predictions for 2,048 random source tokens the
    mean and standard deviation of the source rows `[V, E]`, all per column (arXiv 2405.07883, section 3.2)."""
    rows = np.asarray(rows, np.float32)
    ids = np.random.default_rng([seed, 5]).permutation(len(rows))[:2048].astype(np.int32)
    config = nnx.merge(graphdef, params).config
    number = len(ids)
    pieces = limit_pieces(
        SurfaceForms(ids[:, None], np.ones(number, np.int32), np.zeros((number, num_features(config)), np.float32), ids),
        config.max_pieces,
    )
    mean, std = rows.mean(0), rows.std(0) + 1e-8
    scale = config.input_std / std
    # Where a tied table's output rows are predicted, too, there are twice as many columns as in the table.
    columns = np.size(params["scale_out"]["scale"])
    unchanged = {"scale": jnp.ones(columns), "shift": jnp.zeros(columns)}
    params = params | {"scale_in": {"scale": jnp.asarray(scale), "shift": jnp.asarray(-mean * scale)}, "scale_out": unchanged}
    packed = pack_forms(pieces, multiple=1, language=0 if config.languages else None)
    first = np.asarray(predict_rows(graphdef, params, rows, packed))[:, :columns]
    mean, std = (np.tile(x, columns // rows.shape[1]) for x in (mean, std))
    scale = std / (first.std(0) + 1e-8)
    return params | {"scale_out": {"scale": jnp.asarray(scale), "shift": jnp.asarray(mean - first.mean(0) * scale)}}


def bias_residual(c: HypernetConfig, theirs_V: np.ndarray, forms: SurfaceForms) -> np.ndarray:
    """What a predicted output bias is added to, `[R]` float32. If none is predicted, it is the bias itself.

    It is the mean of the pieces' biases (FVT), or 0 with residual "none", as in published hypernetworks.
    """
    if c.bias and c.residual == "none":
        return np.where(forms.lengths > 0, 0.0, theirs_V.mean()).astype(np.float32)
    usable = (np.arange(forms.pieces.shape[1]) < forms.lengths[:, None]) & (forms.pieces < len(theirs_V))
    total = np.where(usable, theirs_V[np.minimum(forms.pieces, len(theirs_V) - 1)], 0.0).sum(1)
    return np.where(usable.any(1), total / np.maximum(usable.sum(1), 1), theirs_V.mean()).astype(np.float32)
