"""Uses what CONTRIBUTING.md adds to a copy of the package: `python tests/toys.py FOLDER TEXT`, the copy first in PYTHONPATH.

Writes what it found to FOLDER/found.json, in one process, since most of the time goes to loading JAX.
"""

import contextlib
import io
import json
import shutil
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import tiny
from flax import nnx
from safetensors.numpy import load_file

import zett
from zett.cli import main
from zett.config import from_dict
from zett.evaluate.tasks import make_task
from zett.lms import load_base_model
from zett.methods import make_method
from zett.train.run import train


def command(*argv) -> str:
    """What a command prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        main([*map(str, argv)])
    return printed.getvalue()


def method(folder: Path) -> dict:
    """`zett methods`, `zett transfer`, and the table from Python."""
    arguments = ["--model", folder / "base", "--tokenizer", folder / "target", "--method", "toy:scale=0.5"]
    command("transfer", *arguments, "--output", folder / "moved")
    base, target = load_base_model(str(folder / "base")), zett.load_tokenizer(folder / "target")
    table = make_method("toy", scale=0.5)(base, target)
    pieces = base.vocab.decompose(target.tokens).padded(4)[0]
    same = [{token: i for i, token in enumerate(base.vocab.tokens) if token}.get(token) for token in target.tokens]
    new = np.asarray([i for i, row in enumerate(same) if row is None and target.tokens[i]])
    rows, source = np.asarray(table.input), np.asarray(base.table.input)
    written = load_file(folder / "moved" / "model.safetensors")["model.embed_tokens.weight"]
    return {
        "listed": command("methods"),
        "new": len(new),
        "right": bool((rows[new] == 0.5 * source[pieces[new, 0]]).all()),
        "written": bool((np.asarray(written, np.float32) == rows.astype(np.float32)).all()),
    }


def objective(folder: Path, text: Path) -> list[dict]:
    """Two steps with a weight: a line of metrics for each."""
    train(
        from_dict(
            {
                "base": str(folder / "base"),
                "data": {"text": str(text), "batch_size": 2, "length": 16},
                "hypernet": {"width": 16, "layers": 1, "heads": 2, "feed_forward": 16, "max_pieces": 4},
                "sampler": {
                    "min_size": 320, "max_size": 330, "bpe": 1.0, "unigram": 0.0, "substring": 0.0, "pool": 1,
                    "pool_bytes": 20_000, "rows": 512,
                },
                "loss": {"toy": 0.5},
                "train": {"steps": 2, "log_every": 1, "eval_windows": 2, "eval_targets": [str(folder / "target")]},
            }
        ),
        folder / "run",
    )  # fmt: skip
    lines = map(json.loads, (folder / "run" / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if "loss" in line]


def family(folder: Path) -> dict:
    """The same files under the new family's name compute the same."""
    shutil.copytree(folder / "base", folder / "toy")
    config = json.loads((folder / "toy" / "config.json").read_text())
    (folder / "toy" / "config.json").write_text(json.dumps(config | {"model_type": "toy"}))
    models = [load_base_model(str(folder / name)) for name in ("base", "toy")]
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 8, tiny.CONFIG.hidden_size)), jnp.float32)
    llama, toy = (np.asarray(nnx.merge(model.graphdef, model.params)(x)) for model in models)
    return {"type": models[1].hf_config["model_type"], "equal": bool((llama == toy).all()), "size": float(np.abs(llama).max())}


def task(folder: Path) -> dict:
    """Scores of a model with its own vocabulary and with another."""
    base, target = load_base_model(str(folder / "base")), zett.load_tokenizer(folder / "target")
    toy, texts = make_task("toy"), ["aaa bbb", "some more text", "for a tokenizer, text is a list of names"]
    items = toy.items(base, texts)
    moved = base.with_vocabulary(make_method("mean")(base, target), target)
    means = [items.mean(toy.score(model, items)) for model in (base, moved)]
    size = sum(len(text.encode()) for text in texts)
    expected = [sum(len(vocab.tokenizer.encode(text).ids) for text in texts) / size for vocab in (base.vocab, target)]
    return {"means": means, "expected": expected}


def run(folder: Path, text: Path) -> None:
    tiny.base_folder(folder / "base", dtype="float32")
    tiny.tokenizer_folder(folder / "target", "unigram", 420)
    found = {"package": zett.__file__, "method": method(folder), "objective": objective(folder, text)}
    found |= {"family": family(folder), "task": task(folder)}
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]))
