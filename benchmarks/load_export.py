"""A checkpoint of the size that people use, in and out: transfer and loading against a plain copy of the same files.

    python -m benchmarks.load_export --output benchmarks/results/load_export.json
    python -m benchmarks.load_export --gigabytes 1 --repeats 1            # a quick try

Random weights in the shape of Mistral-7B (bfloat16, shards of at most 5 GB) are written to --folder and deleted afterwards. It
needs two and a half times --gigabytes of free disk space. Every command is a process of its own, its files are not in the
system's cache when it begins, and its time runs until what it wrote is on the disk. Memory is the process's largest resident
set, which includes what is mapped from files.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from benchmarks.common import SEED, arguments, finish
from zett.files.jsonfile import write_json
from zett.files.tensors import INDEX_FILE, write_tensors

TOKENIZERS = Path(__file__).parents[2] / "shared" / "data" / "tokenizers"
HIDDEN, FEED_FORWARD, HEADS, KV_HEADS, VOCABULARY = 4096, 14336, 32, 8, 32000
SHARD = 5_000_000_000

PEAK = """
import atexit
from benchmarks.common import peak_bytes
atexit.register(lambda: print("peak", peak_bytes()))
"""
TRANSFER = f"{PEAK}\nfrom zett.cli import main; import sys; main(['transfer', *sys.argv[1:]])"
LOAD = f"""{PEAK}
import sys, jax
from zett.lms import load_base_model
base = load_base_model(sys.argv[1], dtype="bfloat16", param_dtype="bfloat16")
jax.block_until_ready(base.params)
print("body", sum(x.nbytes for x in jax.tree.leaves(base.params)))
"""


def layer_shapes() -> dict[str, tuple[int, int] | tuple[int]]:
    kv = HIDDEN // HEADS * KV_HEADS
    return {
        "self_attn.q_proj": (HIDDEN, HIDDEN),
        "self_attn.k_proj": (kv, HIDDEN),
        "self_attn.v_proj": (kv, HIDDEN),
        "self_attn.o_proj": (HIDDEN, HIDDEN),
        "mlp.gate_proj": (FEED_FORWARD, HIDDEN),
        "mlp.up_proj": (FEED_FORWARD, HIDDEN),
        "mlp.down_proj": (HIDDEN, FEED_FORWARD),
        "input_layernorm": (HIDDEN,),
        "post_attention_layernorm": (HIDDEN,),
    }


def write_checkpoint(folder: Path, gigabytes: float, tokenizer: Path) -> int:
    """A Llama folder of about this size; returns the bytes of its weights."""
    # The same values in every layer: making 7 billion random numbers would take longer than all the rest.
    rng = np.random.default_rng(SEED)
    shapes = layer_shapes()
    values = {s: (0.02 * rng.standard_normal(s, np.float32)).astype(jnp.bfloat16) for s in sorted({*shapes.values()})}
    rows = {name: (0.02 * rng.standard_normal((VOCABULARY, HIDDEN), np.float32)).astype(jnp.bfloat16) for name in "io"}
    size = sum(rows[name].nbytes for name in rows)
    layers = max(round((gigabytes * 1e9 - size) / sum(values[s].nbytes for s in shapes.values())), 1)
    tensors = {"model.embed_tokens.weight": rows["i"]}
    for i in range(layers):
        tensors |= {f"model.layers.{i}.{name}.weight": values[shape] for name, shape in shapes.items()}
    tensors |= {"model.norm.weight": values[(HIDDEN,)], "lm_head.weight": rows["o"]}
    shards: list[dict] = [{}]
    for name, value in tensors.items():
        if shards[-1] and sum(v.nbytes for v in shards[-1].values()) + value.nbytes > SHARD:
            shards.append({})
        shards[-1][name] = value
    weight_map = {}
    shutil.copytree(tokenizer, folder)
    for i, shard in enumerate(shards):
        name = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        write_tensors(folder / name, shard, {"format": "pt"})
        weight_map |= dict.fromkeys(shard, name)
    total = sum(value.nbytes for value in tensors.values())
    write_json(folder / INDEX_FILE, {"metadata": {"total_size": total}, "weight_map": weight_map})
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": HIDDEN,
        "intermediate_size": FEED_FORWARD, "num_hidden_layers": layers, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "vocab_size": VOCABULARY, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "max_position_embeddings": 32768, "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2,
        "dtype": "bfloat16",
    }  # fmt: skip
    write_json(folder / "config.json", config)
    return total


def forget(folder: Path) -> None:
    """Take a folder's files out of the system's cache."""
    os.sync()
    for path in folder.iterdir():
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measured(command: list[str], source: Path, result: Path | None) -> dict:
    """Seconds of a command that reads `source`, and what it prints; `result` is brought to the disk, then removed."""
    forget(source)
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    output = process.stdout.read() if process.stdout else ""
    _, status, usage = os.wait4(process.pid, 0)
    if result is not None:
        for path in result.iterdir():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
    seconds = time.perf_counter() - begin
    if status:
        raise SystemExit(f"{command[:3]} failed")
    if result is not None:
        shutil.rmtree(result)
    printed = {line.split()[0]: int(line.split()[1]) for line in output.splitlines() if line.startswith(("peak", "body"))}
    return {"seconds": seconds, "cpu_seconds": usage.ru_utime + usage.ru_stime, **printed}


def main() -> None:
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--gigabytes", type=float, default=14.5)
    parser.add_argument("--source", type=Path, default=TOKENIZERS / "mistral-v1", help="tokenizer of at most 32,000 ids")
    parser.add_argument("--target", type=Path, default=TOKENIZERS / "gpt2")
    parser.add_argument("--folder", type=Path, help="where to write (default: the system's temporary folder)")
    args = parser.parse_args()
    for folder in (args.source, args.target):
        if not (folder / "tokenizer.json").is_file():
            raise SystemExit(f"{folder} holds no tokenizer.json; give tokenizer folders as --source and --target")
    free = shutil.disk_usage(args.folder or tempfile.gettempdir()).free
    if free < 2.5e9 * args.gigabytes:
        raise SystemExit(f"{free / 1e9:.0f} GB are free, which is not enough for --gigabytes {args.gigabytes}")
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        base, copy, moved = (Path(scratch) / name for name in ("base", "copy", "transferred"))
        total = write_checkpoint(base, args.gigabytes, args.source)
        transfer = ["--model", base, "--tokenizer", args.target, "--method", "fvt", "--output", moved]
        commands = {
            "copy": (["cp", "-r", base, copy], copy),
            "transfer": ([sys.executable, "-c", TRANSFER, *transfer], moved),
            "load": ([sys.executable, "-c", LOAD, base], None),
        }
        runs: dict[str, list[dict]] = {name: [] for name in commands}
        for _ in range(args.repeats):
            for name, (command, result) in commands.items():
                runs[name].append(measured([str(word) for word in command], base, result))
                print(name, {k: round(v, 2) for k, v in runs[name][-1].items()}, file=sys.stderr)
    body = runs["load"][0]["body"]
    seconds = {name: statistics.median(run["seconds"] for run in some) for name, some in runs.items()}
    peak = {name: max(run["peak"] for run in runs[name]) for name in ("transfer", "load")}
    report = {
        "gigabytes": total / 1e9,
        "source": args.source.name,
        "target": args.target.name,
        "repeats": args.repeats,
        "seconds": seconds,
        "cpu_seconds": {name: statistics.median(run["cpu_seconds"] for run in some) for name, some in runs.items()},
        "gigabytes_a_second": {name: total / 1e9 / value for name, value in seconds.items()},
        "transfer_speed_over_copy": seconds["copy"] / seconds["transfer"],
        "load_speed_over_copy": seconds["copy"] / seconds["load"],
        "peak_gigabytes": {name: value / 1e9 for name, value in peak.items()},
        "body_gigabytes": body / 1e9,
        "load_peak_beside_the_body": (peak["load"] - body) / 1e9,
        "largest_tensor_gigabytes": HIDDEN * VOCABULARY * 2 / 1e9,
    }
    finish(report, args.output)


if __name__ == "__main__":
    main()
