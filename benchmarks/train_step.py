"""The training step of a hypernetwork, with random weights in the shapes of real models, and what its savings are worth.

    python -m benchmarks.train_step --output benchmarks/results/train_step.json
    python -m benchmarks.train_step --shape mistral --layers 4 --batch 8 --rows 2048      # cut down to what fits
    python -m benchmarks.train_step --shape gpt2 --variant lean padded --repeats 10

Measured is the step that training compiles, under the settings of configs/NAME.py. Variants, each in a process of its own:

- lean: as it is
- packed: source rows are projected at every position, and all of the last layer is computed at every position
- padded: likewise, and a row holds one token, padded to S positions (what the paper's code does)
- whole-logits: as it is, but with the logits of all positions at once
- loss-chunked and loss-whole: the logits, the loss and its gradients alone, by both ways, over all rows of the config

All have the same batch, whose surface forms are drawn with the lengths of sampled vocabularies (2.3 of at most 7 on average).
What a step has to compute is counted by zett/plan/flops.py. Unless told what to cut, an accelerator measures whole shapes and a
CPU what it can do in minutes; the report says what was cut. With several devices, one is measured.
"""

import dataclasses
import functools
import json
import statistics
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np

from benchmarks.common import HAS_PEAK, SEED, arguments, finish, forget_peak, peak_bytes

ROOT = Path(__file__).parents[1]
SHAPES = ("gpt2", "tinyllama", "mistral")
VARIANTS = ("lean", "packed", "padded", "whole-logits", "loss-chunked", "loss-whole")
LENGTHS = (0.33, 0.31, 0.19, 0.09, 0.05, 0.02, 0.01)  # shares of tokens of 1 to 7 pieces
# What two cores do in minutes: layers of the body, texts and rows. Texts and rows are in the proportion of the whole step.
ON_CPU = {
    "gpt2": {"batch": 16, "rows": 4096},
    "tinyllama": {"layers": 2, "batch": 4, "rows": 1024},
    "mistral": {"layers": 2, "hypernet_layers": 1, "batch": 2, "rows": 512},
}
LOSS_ON_CPU = {"batch": 32}
OPTIONS = ("layers", "hypernet_layers", "batch", "rows", "microbatches", "remat", "remat_hypernet")
# TFLOP/s that the bounds of the design notes are stated for: what was measured of an H200's bfloat16 products.
REFERENCE = 790.0


def zipf(rng: np.random.Generator, size: int, shape: tuple) -> np.ndarray:
    """Ids below `size` of which the r-th is drawn with a probability proportional to 1/r, as words are."""
    return np.minimum(size ** rng.random(shape), size - 1).astype(np.int32)


def draw_forms(vocab_size: int, rows: int, max_pieces: int):
    """Surface forms of `rows` tokens."""
    from zett.vocab import SurfaceForms
    from zett.vocab.forms import FEATURES

    rng = np.random.default_rng(SEED)
    shares = np.asarray(LENGTHS[:max_pieces])
    lengths = rng.choice(len(shares), rows, p=shares / shares.sum()) + 1
    pieces = np.where(np.arange(max_pieces) < lengths[:, None], zipf(rng, vocab_size, (rows, max_pieces)), 0)
    features = rng.standard_normal((rows, len(FEATURES)), np.float32)
    same = np.where(lengths == 1, pieces[:, 0], -1)
    return SurfaceForms(pieces, lengths.astype(np.int32), features, same.astype(np.int32))


def make_batch(config, vocab_size: int, variant: str) -> dict:
    """What HypernetRecipe.batch gives with config.sampler.rows = 0, but drawn at random; for one device."""
    from benchmarks.packing import one_a_row, without_savings
    from zett.hypernet.packing import pack_forms, renumbered

    data, rows = config.data, config.sampler.max_size
    drawn = draw_forms(vocab_size, rows, config.hypernet.max_pieces)
    packed = one_a_row(drawn) if variant == "padded" else pack_forms(drawn, multiple=max(rows // 32, 1))
    sources, forms = renumbered(packed, vocab_size)
    if variant in ("packed", "padded"):
        sources, forms = without_savings(sources, forms)
    rng = np.random.default_rng(SEED + 1)
    return {
        "targets": zipf(rng, rows, (data.batch_size, data.length)),
        "weights": np.ones((data.batch_size, data.length), np.float32),
        "bytes": np.full(data.batch_size, 4 * data.length, np.float32),
        "sources": sources,
        "forms": forms,
        "log_weight": np.zeros(rows, np.float32),
        "num_valid": np.int32(rows),
        "same": drawn.same,
    }


def random_base(config, layers: int | None):
    """The base model of `config` with random weights, in the dtypes of training; `layers`: how many, if not all."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from zett.lms import BaseModel
    from zett.lms.family import family_of, is_tied
    from zett.lms.known import hf_config_of
    from zett.lms.layers import product_dtype
    from zett.table import EmbeddingTable

    hf, dtype = hf_config_of(config.base), product_dtype(config.train.dtype)
    if layers:
        hf["n_layer" if "n_layer" in hf else "num_hidden_layers"] = layers
    family = family_of(hf)
    shape = family.Config.from_hf(hf)
    make_body = functools.partial(family.Body, shape, dtype=dtype, remat=config.train.remat)
    graphdef, abstract = nnx.split(nnx.eval_shape(lambda: make_body(rngs=nnx.Rngs(0))))
    keys = iter(jax.random.split(jax.random.key(SEED), 1000))

    @functools.partial(jax.jit, static_argnums=(1, 2, 3))
    def normal(key, size, dtype, mean):
        return (mean + 0.02 * jax.random.normal(key, size)).astype(dtype)

    def leaf(path, x):
        return normal(next(keys), x.shape, dtype if x.ndim > 2 else jnp.float32, float(path[-1].key == "scale"))

    body = jax.tree_util.tree_map_with_path(leaf, nnx.to_pure_dict(abstract))
    rows = (hf["vocab_size"], shape.hidden_size)
    table = EmbeddingTable.of(*(normal(next(keys), rows, jnp.float32, 0.0) for _ in range(2 - is_tied(hf))))
    return BaseModel(config.base, Path(), hf, shape, graphdef, body, table, types.SimpleNamespace(roles={}), None)


def configure(args):
    """The config of a shape with what the command line changes of it; on a CPU, with what it can do."""
    import jax

    from zett.config_file import load_config

    if jax.default_backend() == "cpu" and not any(getattr(args, name) for name in OPTIONS):
        vars(args).update(LOSS_ON_CPU if args.variant[0].startswith("loss-") else ON_CPU[args.shape[0]])
    given = {"data.batch_size": args.batch, "sampler.max_size": args.rows, "train.microbatches": args.microbatches}
    given |= {"hypernet.layers": args.hypernet_layers, "train.remat": args.remat, "train.remat_hypernet": args.remat_hypernet}
    fixed = [("mesh.data", "1"), ("mesh.fsdp", "1"), ("data.parts", "1")]
    if args.rows:
        fixed.append(("sampler.min_size", str(min(args.rows, 300))))
    overrides = [(name, str(value)) for name, value in given.items() if value is not None]
    return load_config(str(ROOT / "configs" / f"{args.shape[0]}.py"), fixed + overrides)


def whole_cross_entropy(h, out_rows, bias, targets, weights, *, num_valid, softcap, chunk, dtype):
    """`chunked_cross_entropy`, as one would write it."""
    import jax.numpy as jnp
    import optax

    from zett.lms.layers import dot

    h, targets, weights = h.reshape(-1, h.shape[-1]).astype(jnp.float32), targets.ravel(), weights.ravel()
    logits = dot(h, out_rows.T, dtype)
    logits = (logits if softcap is None else softcap * jnp.tanh(logits / softcap)) + bias
    logits = jnp.where(jnp.arange(len(out_rows)) < num_valid, logits, -1e30)
    return (optax.softmax_cross_entropy_with_integer_labels(logits, targets) * weights).sum()


def take_savings_away(variant: str) -> None:
    """Make this process compute what `variant` computes."""
    from benchmarks.packing import everywhere
    from zett.hypernet.network import Layer
    from zett.objectives import likelihood

    if variant == "whole-logits":
        likelihood.chunked_cross_entropy = whole_cross_entropy
    elif variant != "lean":
        Layer.__call__ = everywhere


def clocked(run, state, repeats: int) -> tuple:
    """The last `run(state)`, and median seconds and the most memory; the first run is not counted if there are others."""
    import jax

    if HAS_PEAK:
        forget_peak()
    wall, cpu = [], []
    for _ in range(repeats):
        clock, cpu_clock = time.perf_counter(), time.process_time()
        state = run(state)
        wall.append(time.perf_counter() - clock)
        cpu.append(time.process_time() - cpu_clock)
    stats = jax.devices()[0].memory_stats() or {}
    peak = stats.get("peak_bytes_in_use") or (peak_bytes() if HAS_PEAK else None)
    seconds = {name: statistics.median(some[1:] or some) for name, some in (("seconds", wall), ("cpu_seconds", cpu))}
    return state, seconds | {"peak_gigabytes": peak and peak / 1e9}


def measure_loss(args) -> dict:
    """Logits, loss and gradients alone."""
    import jax
    import jax.numpy as jnp

    from zett.lms.family import family_of
    from zett.lms.known import hf_config_of
    from zett.lms.layers import activation_dtype, product_dtype
    from zett.losses import chunked_cross_entropy

    config = configure(args)
    dtype, hf = product_dtype(config.train.dtype), hf_config_of(config.base)
    d, rows = family_of(hf).Config.from_hf(hf).hidden_size, config.sampler.max_size
    n = config.data.batch_size * config.data.length
    loss = {"loss-chunked": chunked_cross_entropy, "loss-whole": whole_cross_entropy}[args.variant[0]]
    keys = jax.random.split(jax.random.key(SEED), 2)
    h = jax.random.normal(keys[0], (config.data.batch_size, config.data.length, d), activation_dtype("auto", dtype))
    out_rows = 0.02 * jax.random.normal(keys[1], (rows, d))
    targets = jnp.asarray(zipf(np.random.default_rng(SEED), rows, h.shape[:2]))
    settings = {"num_valid": rows, "softcap": None, "chunk": 1024, "dtype": dtype}

    def mean(h, out_rows):
        return loss(h, out_rows, jnp.zeros(rows), targets, jnp.ones(targets.shape), **settings) / n

    step = jax.jit(jax.value_and_grad(mean, (0, 1))).lower(h, out_rows).compile()
    result, timed = clocked(lambda _: jax.block_until_ready(step(h, out_rows)), None, args.repeats)
    norms = {f"grad_{name}": float(jnp.linalg.norm(x.astype(jnp.float32))) for name, x in zip(("h", "rows"), result[1])}
    return timed | {
        "temporary_gigabytes": step.memory_analysis().temp_size_in_bytes / 1e9,
        "counted_tflop": {"total": 3 * 2.0 * n * rows * d / 1e12},
        "first_step": {"loss": float(result[0]), **norms},
        "logits": [n, rows],
    }


def measure(args) -> dict:
    """One variant of one shape, in this process."""
    import jax

    from zett.lms.layers import activation_dtype
    from zett.mesh import global_batch, one_device
    from zett.optim import make_optimizer
    from zett.recipes.hypernet import HypernetStep
    from zett.train.step import abstract_state, initial_state, make_step

    class Step(HypernetStep):
        def init(self):
            # The correction starts at zero, and with it the gradient of all that comes before.
            params = super().init()
            for number, head in params["heads"].items():
                kernel = head["dense"]["kernel"]
                head["dense"]["kernel"] = 0.02 * jax.random.normal(jax.random.key(SEED + number), kernel.shape)
            return params

    variant = args.variant[0]
    take_savings_away(variant)
    config = configure(args)
    mesh = one_device()
    base = random_base(config, args.layers)
    recipe = Step(config, base, mesh)
    optimizer = make_optimizer(config.optim, config.train.steps)
    state = initial_state(recipe, optimizer, abstract_state(recipe, optimizer, mesh))
    vocab_size = base.hf_config["vocab_size"]
    batch = make_batch(config, vocab_size, variant)
    placed = global_batch(mesh, batch, recipe.batch_specs, config.data.batch_size)
    clock = time.perf_counter()
    step = make_step(recipe, optimizer).lower(state, recipe.frozen, placed).compile()
    compile_seconds = time.perf_counter() - clock
    metrics: dict = {}

    def run(state):
        state, values = jax.block_until_ready(step(state, recipe.frozen, placed))
        if not metrics:
            metrics.update({name: float(values[name]) for name in ("loss", "lm", "lexical", "grad_norm")})
        return state

    state, timed = clocked(run, state, args.repeats)
    counted, setting = count(config, base, state.params, variant)
    return timed | {
        "compile_seconds": compile_seconds,
        "temporary_gigabytes": step.memory_analysis().temp_size_in_bytes / 1e9,
        "counted_tflop": {part: value / 1e12 for part, value in dataclasses.asdict(counted).items()}
        | {"total": counted.total / 1e12},
        "first_step": metrics,
        "setting": {
            "base": config.base,
            "cut": [name for name in ("layers", "hypernet_layers", "batch", "rows") if getattr(args, name) is not None],
            **setting,
            "products": recipe.dtype.name,
            "activations": activation_dtype(config.train.activations, recipe.dtype).name,
        },
    }


def count(config, base, params, variant: str):
    """FLOPs that a step of the variant has to compute, and what says of which size it is, on which device."""
    import jax

    from zett.mesh import paths
    from zett.plan.devices import find_device
    from zett.plan.flops import hypernet_step

    drawn = draw_forms(base.hf_config["vocab_size"], config.sampler.max_size, config.hypernet.max_pieces)
    used = np.concatenate([pieces[:n] for pieces, n in zip(drawn.pieces, drawn.lengths)])
    positions = {"padded": drawn.pieces.size}.get(variant, len(used))
    distinct = None if variant in ("packed", "padded") else len(np.unique(used))
    body, hypernet = ({path: x.shape for path, x in paths(tree).items()} for tree in (base.params, params))
    counted = hypernet_step(
        body, base.config, hypernet, batch=config.data.batch_size, length=config.data.length,
        rows=len(drawn), pieces=positions, distinct=distinct,
    )  # fmt: skip
    device = find_device(jax.devices()[0].device_kind)
    return counted, {
        "batch": [config.data.batch_size, config.data.length],
        "rows": len(drawn),
        "mean_pieces": float(drawn.lengths.mean()),
        "distinct_pieces": len(np.unique(used)),
        "body_layers": base.config.num_layers,
        "hypernet_layers": config.hypernet.layers,
        "hypernet_parameters": sum(x.size for x in jax.tree.leaves(params)),
        "microbatches": config.train.microbatches,
        "remat": [config.train.remat, config.train.remat_hypernet],
        "device": jax.devices()[0].device_kind,
        "peak_tflop_per_second": device and device.peak / 1e12,
    }


def in_a_process(shape: str, variant: str, options: dict) -> dict:
    """`measure` in a process of its own, so that its memory is its own; a variant that does not fit says so."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not None]
    command = [sys.executable, "-m", "benchmarks.train_step", "--shape", shape, "--variant", variant, "--one", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 0:
        return json.loads(done.stdout)
    reason = "out of memory" if done.returncode == -9 or "RESOURCE_EXHAUSTED" in done.stderr else done.stderr[-600:]
    return {"failed": reason}


def ratios(run: dict, other: dict) -> dict:
    """Of what a variant takes, over another, and how far their results differ."""
    names = ("seconds", "cpu_seconds", "temporary_gigabytes")
    first, second = other["first_step"], run["first_step"]
    return {name: run[name] / other[name] for name in names} | {
        "counted": run["counted_tflop"]["total"] / other["counted_tflop"]["total"],
        "largest_relative_difference": max(abs(second[key] / first[key] - 1) for key in first),
    }


def compared(variants: dict[str, dict]) -> dict:
    """What the variants of a shape say together."""
    whole = {name: run for name, run in variants.items() if "failed" not in run}
    settings = [run.pop("setting") for run in whole.values() if "setting" in run]
    report: dict = {"setting": settings[0]} if settings else {}
    for name, other in (("packed", "lean"), ("padded", "lean"), ("whole-logits", "lean"), ("loss-whole", "loss-chunked")):
        if name in whole and other in whole:
            report[f"{name}_over_{other}"] = ratios(whole[name], whole[other])
    lean = whole.get("lean")
    if lean:
        setting, needed = settings[0], lean["counted_tflop"]["total"]
        peak = setting["peak_tflop_per_second"]
        report |= {
            "tokens_per_second": setting["batch"][0] * setting["batch"][1] / lean["seconds"],
            "tflop_per_second": needed / lean["seconds"],
            "share_of_peak": peak and needed / lean["seconds"] / peak,
            "bound_seconds": peak and needed / peak,
            "bound_seconds_at_790_tflop_per_second": needed / REFERENCE,
        }
    return report | {"variants": variants}


def main() -> None:
    parser = arguments(__doc__, repeats=2)
    parser.add_argument("--shape", nargs="+", choices=SHAPES, help="default: all")
    parser.add_argument("--variant", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--layers", type=int, help="of the body")
    parser.add_argument("--hypernet-layers", type=int)
    parser.add_argument("--batch", type=int, help="texts")
    parser.add_argument("--rows", type=int, help="predicted rows")
    parser.add_argument("--microbatches", type=int, help="parts that the texts go through the body in")
    parser.add_argument("--remat", choices=("none", "dots", "full"))
    parser.add_argument("--remat-hypernet", choices=("none", "dots", "full"))
    parser.add_argument("--one", action="store_true", help="measure one variant in this process")
    args = parser.parse_args()
    if args.one:
        print(json.dumps((measure_loss if args.variant[0].startswith("loss-") else measure)(args)))
        return
    # The devices belong to the processes that measure; none of them is touched here before they are done.
    options = {name: getattr(args, name) for name in (*OPTIONS, "repeats")}
    shapes = {}
    for shape in args.shape or SHAPES:
        variants = {}
        for variant in args.variant:
            variants[variant] = in_a_process(shape, variant, options)
            print(shape, variant, variants[variant].get("failed") or f"{variants[variant]['seconds']:.3f} s", file=sys.stderr)
        shapes[shape] = compared(variants)
    finish({"shapes": shapes}, args.output)


if __name__ == "__main__":
    main()
