"""What is saved in emitting a whole table: surface forms packed, against one token a row, equal to float tolerance.

    python -m benchmarks.packing --target bpe-16k --output benchmarks/results/packing.json

The reference is the same network over rows of S positions that hold one token each, all of it computed at every position, as
in the paper's code. Medians; ratios are what counts.
"""

import dataclasses
import functools
from unittest import mock

import jax
import numpy as np
from flax import nnx

from benchmarks.common import arguments, finish, median_seconds
from zett.evaluate.targets import load_target
from zett.hypernet.network import Layer, predict_rows
from zett.hypernet.packing import PackedForms, limit_pieces, pack_forms, renumbered
from zett.hypernet.release import load_hypernet
from zett.hypernet.scaling import column_stats, source_rows
from zett.lms import load_base_model
from zett.lms.layers import product_dtype
from zett.vocab import surface_forms


def one_a_row(forms) -> PackedForms:
    """The padded form: row r holds token r alone."""
    rows, s = forms.pieces.shape
    inside = np.arange(s) < forms.lengths[:, None]
    owner = np.where(inside, np.arange(rows)[:, None], rows).astype(np.int32)
    position = np.where(inside, np.arange(s), 0).astype(np.int32)
    first = (np.arange(rows) * s).astype(np.int32)
    return PackedForms(forms.pieces, owner, position, first, forms.pieces, forms.lengths, np.clip(forms.features, -4, 4))


def without_savings(sources: np.ndarray, forms: PackedForms) -> tuple[np.ndarray, PackedForms]:
    """The same forms of the source rows `sources`, but each position has a source row of its own."""
    number, at = forms.packed.size, np.arange(forms.pieces.shape[1])
    own = np.arange(number, dtype=np.int32).reshape(forms.packed.shape)
    pieces = np.where(at < forms.lengths[:, None], forms.first[:, None] + at, 0).astype(np.int32)
    return sources[forms.packed].reshape(number, *sources.shape[1:]), dataclasses.replace(forms, packed=own, pieces=pieces)


LEAN = Layer.__call__


def everywhere(layer, x, owner, first=None):
    """A layer of a hypernetwork that computes all of it at every position, needed or not."""
    x = LEAN(layer, x, owner)
    return x if first is None else x.reshape(-1, x.shape[-1])[first]


@functools.partial(jax.jit, static_argnums=0)
def predict_everywhere(graphdef, params, rows, packed: PackedForms, stats=None):
    """What `predict_rows` gives, as the paper's code computes it."""
    with mock.patch.object(Layer, "__call__", everywhere):
        return nnx.merge(graphdef, params)(rows, packed, stats)


def main() -> None:
    parser = arguments(__doc__, repeats=5)
    parser.add_argument("--target", default="bpe-16k")
    args = parser.parse_args()
    base, hypernet = load_base_model("pico"), load_hypernet("pico")
    dtype = product_dtype("auto")
    forms = limit_pieces(surface_forms(load_target(args.target), base.vocab), hypernet.config.max_pieces)
    rows = np.asarray(source_rows(base.table))
    stats = column_stats([rows], len(rows))
    used, packed = renumbered(pack_forms(forms), len(rows))
    inputs = {"packed": (rows[used], packed), "padded": without_savings(rows, one_a_row(forms))}
    predict = {"packed": predict_rows, "padded": predict_everywhere}
    results = {}

    def emit(name: str) -> None:
        results[name] = predict[name](hypernet.graphdef(dtype), hypernet.params, *inputs[name], stats)
        jax.block_until_ready(results[name])

    medians = median_seconds(args.repeats, **{name: functools.partial(emit, name) for name in inputs})
    difference = float(np.abs(np.asarray(results["packed"] - results["padded"])).max())
    report = {
        "target": args.target,
        "tokens": len(forms),
        "mean_pieces": float(forms.lengths.mean()),
        "rows": {name: len(packed.packed) for name, (_, packed) in inputs.items()},
        "seconds": medians,
        "padded_over_packed": medians["padded"] / medians["packed"],
        "largest_difference": difference,
        "dtype": dtype.name,
    }
    finish(report, args.output)


if __name__ == "__main__":
    main()
