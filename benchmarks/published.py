"""Reading a published hypernetwork and emitting a table with it: time against padded rows, as the original emits, and memory.

    python -m benchmarks.published --shape tinyllama --tokens 4096 --output benchmarks/results/published.json

Random weights in the shape of a published checkpoint are written in both of its formats and read again. A vocabulary of
`--tokens` tokens with the usual numbers of pieces is emitted from bfloat16 source rows, in float32. The reference is the same
network over rows of 7 positions that hold one token each, all of it computed at every position, in chunks of the same size.
Memory: the most that the process held, above what it held with the weights loaded.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from flax.serialization import msgpack_serialize

from benchmarks.common import SEED, arguments, finish, forget_peak, held_bytes, peak_bytes
from benchmarks.packing import one_a_row, predict_everywhere, without_savings
from zett.files.tensors import write_tensors
from zett.hypernet.release import load_hypernet
from zett.vocab import SurfaceForms

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "hypernet" / "golden"))
import make_published

# Width of the rows, of the network, feed-forward, heads, tokens; input and output rows, but for XLM-R.
SHAPES = {
    "xlm-r": (768, 768, 1536, 12, 250_002),
    "tinyllama": (2048, 2048, 4096, 32, 32_000),
    "mistral": (4096, 4096, 8192, 32, 32_000),
}
# Share of tokens with 1, 2, ... 7 pieces: 2.1 on average, as performance.md has them.
PIECES = (0.33, 0.38, 0.19, 0.06, 0.025, 0.01, 0.005)


def config_of(shape: str) -> dict:
    d, width, feed_forward, heads, tokens = SHAPES[shape]
    sizes = {
        "n_embd": d, "hn_hidden_size": width, "hn_intermediate_size": feed_forward, "hn_num_attention_heads": heads,
        "original_vocab_size": tokens, "hn_n_layers": 3, "hn_surface_maxlen": 7, "hn_n_extra_tokens": 300,
        "separate_out_embeddings": shape != "xlm-r", "hn_predict_bias": False,
    }  # fmt: skip
    return make_published.CONFIG | sizes


def read(config: dict, rng: np.random.Generator):
    """The hypernetwork, and seconds to read it from each format."""
    shapes = make_published.shapes(config)
    weights = {name: rng.standard_normal(shape, dtype=np.float32) * 0.02 for name, shape in shapes.items()}
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        (Path(folder) / "flax_model.msgpack").write_bytes(msgpack_serialize(make_published.flax_tree(weights)))
        for name in ("flax_model.msgpack", "model.safetensors"):
            if name == "model.safetensors":
                write_tensors(Path(folder) / name, weights, {})
            clock = time.perf_counter()
            trained = load_hypernet(folder)
            jax.block_until_ready(params := jax.tree.map(jnp.asarray, trained.params))
            seconds[name] = time.perf_counter() - clock
    size = sum(x.nbytes for x in jax.tree.leaves(params))
    return trained, seconds, size


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="tinyllama")
    parser.add_argument("--tokens", type=int, default=4096)
    args = parser.parse_args()
    rng = np.random.default_rng(SEED)
    config = config_of(args.shape)
    trained, seconds, size = read(config, rng)
    chunk = trained.chunk()
    args.tokens = -(-args.tokens // chunk) * chunk  # the last chunk is always filled up
    d, vocab, sides = config["n_embd"], config["original_vocab_size"], 1 + config["separate_out_embeddings"]
    rows = [(rng.standard_normal((vocab, d), dtype=np.float32) * 0.02).astype(ml_dtypes.bfloat16) for _ in range(sides)]
    lengths = rng.choice(np.arange(1, 8), args.tokens, p=PIECES).astype(np.int32)
    pieces = np.where(np.arange(7) < lengths[:, None], rng.integers(0, vocab, (args.tokens, 7)), 0).astype(np.int32)
    forms = SurfaceForms(pieces, lengths, np.zeros((args.tokens, 5), np.float32), np.full(args.tokens, -1, np.int32))
    params = jax.tree.map(jnp.asarray, trained.params)
    forget_peak()
    held = held_bytes()
    trained.predicted(rows, forms)  # compiles
    clock = time.perf_counter()
    packed = trained.predicted(rows, forms)
    emitting = {"packed": time.perf_counter() - clock}
    above = peak_bytes() - held
    used = forms.take(np.arange(chunk))
    source = np.concatenate([side.astype(np.float32) for side in rows], -1)
    padded = without_savings(source, one_a_row(used))
    for _ in range(2):  # the first compiles
        clock = time.perf_counter()
        reference = np.asarray(predict_everywhere(trained.graphdef(jnp.float32), params, *padded))
    emitting["padded"] = (time.perf_counter() - clock) * args.tokens / len(used)
    report = {
        "shape": args.shape,
        "parameters": size // 4,
        "tokens": args.tokens,
        "mean_pieces": float(lengths.mean()),
        "chunk": chunk,
        "seconds_to_read": seconds,
        "seconds_to_emit": emitting,
        "padded_over_packed": emitting["padded"] / emitting["packed"],
        "largest_difference": float(np.abs(packed[: len(used), :d] - reference[:, :d]).max()),
        "memory_mb": {"weights": size / 2**20, "above_them_while_emitting": above / 2**20},
    }
    finish(report, args.output)


if __name__ == "__main__":
    main()
