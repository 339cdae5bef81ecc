"""What is saved in emitting the table of a whole vocabulary, against the way before: every token packed, attention for all.

    python -m benchmarks.emission --hypernet DIR --model DIR --target DIR --output benchmarks/results/emission.json

The reference is one call of the network, as in training, for each 4,096 tokens; their packed rows are filled up to a
multiple of 512. Both are compiled before. Processor seconds are those of all threads, which other work on the machine changes
less than it changes seconds. `products` counts what float32 products need at the least, and at what rate a large one runs.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import SEED, arguments, finish
from zett.evaluate.targets import load_target
from zett.hypernet.emission import side_by_side
from zett.hypernet.network import predict_rows
from zett.hypernet.packing import limit_pieces, pack_forms, renumbered
from zett.hypernet.release import load_hypernet
from zett.hypernet.scaling import column_stats
from zett.hypernet.trained import TrainedHypernet
from zett.lms import load_base_model
from zett.lms.layers import product_dtype
from zett.vocab import SurfaceForms, surface_forms

CHUNK = 4096  # tokens at a time in the reference


def all_packed(trained: TrainedHypernet, sides: list[np.ndarray], forms: SurfaceForms, dtype) -> np.ndarray:
    """Rows of all tokens as they were emitted before."""
    size, params = len(sides[0]), jax.tree.map(jnp.asarray, trained.params)
    stats, graphdef = column_stats(sides, size), trained.graphdef(dtype)
    parts = []
    for start in range(0, len(forms), CHUNK):
        ids = np.arange(start, start + CHUNK) % len(forms)
        used, packed = renumbered(pack_forms(forms.take(ids), multiple=CHUNK // 8), size)
        parts.append(np.asarray(predict_rows(graphdef, params, side_by_side(sides, used), packed, stats)))
    return np.concatenate(parts)[: len(forms)]


def timed(call: Callable[[], object]) -> dict[str, float]:
    clock, processor = time.perf_counter(), time.process_time()
    call()
    return {"seconds": time.perf_counter() - clock, "processor_seconds": time.process_time() - processor}


def least_flops(trained: TrainedHypernet, forms: SurfaceForms) -> dict[str, float]:
    """Of matrix products, without what fills up chunks, by kind of work."""
    c, sides = trained.config, len(trained.params["heads"])
    w, f, e = c.width, c.feed_forward, trained.hidden_size * sides
    single, several = int((forms.lengths == 1).sum()), int((forms.lengths > 1).sum())
    many = forms.pieces[forms.lengths > 1] * c.max_pieces + np.arange(c.max_pieces)
    inside = np.arange(c.max_pieces) < forms.lengths[forms.lengths > 1][:, None]
    before, heads = 2 * e * w + 4 * w * f, sides * 4 * w * f + 2 * e * w
    return {
        "single": single * (before + c.layers * (2 * w * w + 4 * w * f) + heads),
        "placed": len(np.unique(many[inside])) * before,
        "several": int(inside.sum()) * ((c.layers - 1) * (8 * w * w + 4 * w * f) + 6 * w * w)
        + several * (2 * w * w + 4 * w * f + heads),
    }


def product_rate(width: int, columns: int) -> float:
    """FLOP a processor second of a large float32 product."""
    rng = np.random.default_rng(SEED)
    a, b = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in ((2048, width), (width, columns)))
    product = jax.jit(functools.partial(jnp.dot, precision="highest"))

    def repeat() -> None:
        for _ in range(40):
            product(a, b).block_until_ready()

    repeat()
    return 40 * 2 * 2048 * width * columns / timed(repeat)["processor_seconds"]


def main() -> None:
    parser = arguments(__doc__, repeats=2)
    parser.add_argument("--hypernet", default="pico")
    parser.add_argument("--model", default="pico")
    parser.add_argument("--target", default="bpe-16k")
    parser.add_argument("--tokens", type=int, help="as many, evenly spread over the vocabulary (default: all)")
    parser.add_argument("--dtype", default="float32", help="of products: float32, bfloat16 or auto")
    args = parser.parse_args()
    base, trained = load_base_model(args.model, body=False), load_hypernet(args.hypernet)
    # Otherwise the reference would project fallback rows in the dtype that they are stored in.
    trained = dataclasses.replace(trained, params=jax.tree.map(lambda x: np.asarray(x, np.float32), trained.params))
    dtype, vocab, most = product_dtype(args.dtype), load_target(args.target), trained.config.max_pieces
    forms = limit_pieces(surface_forms(vocab, base.vocab, most), most)
    if args.tokens:
        forms = forms.take(np.linspace(0, len(forms) - 1, args.tokens).astype(int))
    table = base.table
    sides = [np.asarray(rows)[: len(base.vocab)] for rows in (table.input, table.output) if rows is not None]
    calls = {
        "emitted": lambda: trained.predicted(sides, forms, dtype=dtype),
        "all packed": lambda: all_packed(trained, sides, forms, dtype),
    }
    used = forms.lengths > 0
    found, expected = (call()[used] for call in calls.values())  # compiles
    rounds = [{name: timed(call) for name, call in calls.items()} for _ in range(args.repeats)]
    median = {name: {key: float(np.median([r[name][key] for r in rounds])) for key in rounds[0][name]} for name in calls}
    difference = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    flops, rate = least_flops(trained, forms), product_rate(trained.config.width, trained.config.feed_forward)
    new, old = median["emitted"], median["all packed"]
    report = {
        "base": trained.base["name"],
        "width": trained.config.width,
        "target": Path(args.target).name,
        "tokens": len(forms),
        "single": int((forms.lengths == 1).sum()),
        "mean_pieces_of_others": float(forms.lengths[forms.lengths > 1].mean()),
        "dtype": dtype.name,
        **median,
        "processor_seconds_ratio": old["processor_seconds"] / new["processor_seconds"],
        "seconds_ratio": old["seconds"] / new["seconds"],
        "relative_difference": {"median": float(np.median(difference)), "largest": float(difference.max())},
        "products": {"tflop": {k: v / 1e12 for k, v in flops.items()}, "gflop_a_processor_second": rate / 1e9},
        "share_of_products_at_that_rate": sum(flops.values()) / rate / new["processor_seconds"],
    }
    finish(report, args.output)


if __name__ == "__main__":
    main()
