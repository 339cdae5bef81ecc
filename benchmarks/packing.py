"""What packing saves: emitting a whole table with surface forms packed, against one token a row, equal to float tolerance.

    python -m benchmarks.packing --target bpe-16k --output benchmarks/results/packing.json

The reference is the same network over rows of S positions that hold one token each. Medians; ratios are what counts.
"""

import functools

import jax
import numpy as np

from benchmarks.common import arguments, finish, median_seconds
from zett.evaluate.targets import load_target
from zett.hypernet import PackedForms, limit_pieces, load_hypernet, pack_forms, predict_rows, source_rows
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


def main() -> None:
    parser = arguments(__doc__, repeats=5)
    parser.add_argument("--target", default="bpe-16k")
    args = parser.parse_args()
    base, hypernet = load_base_model("pico"), load_hypernet("pico")
    dtype = product_dtype("auto")
    forms = limit_pieces(surface_forms(load_target(args.target), base.vocab), hypernet.config.max_pieces)
    rows = source_rows(base.table)
    inputs = {"packed": pack_forms(forms), "padded": one_a_row(forms)}
    results = {}

    def emit(name: str) -> None:
        results[name] = predict_rows(hypernet.graphdef(dtype), hypernet.params, rows, inputs[name])
        jax.block_until_ready(results[name])

    medians = median_seconds(args.repeats, **{name: functools.partial(emit, name) for name in inputs})
    difference = float(np.abs(np.asarray(results["packed"] - results["padded"])).max())
    report = {
        "target": args.target,
        "tokens": len(forms),
        "mean_pieces": float(forms.lengths.mean()),
        "rows": {name: int(packed.packed.shape[0]) for name, packed in inputs.items()},
        "seconds": medians,
        "padded_over_packed": medians["padded"] / medians["packed"],
        "largest_difference": difference,
        "dtype": dtype.name,
    }
    finish(report, args.output)


if __name__ == "__main__":
    main()
