"""Kill a training run with SIGKILL at random moments, every other one while a checkpoint is written, and compare its end.

    python tests/train/kill_resume.py --kills 50

The run that was killed has to end with the same bits as one that was left alone: parameters, metrics. Linux and macOS.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

TEXT = "".join(f"def function_{i}(x):\n    return x * {i} + {i % 7}\n\n" for i in range(3000))


def config(corpus: Path, steps: int):
    from zett.config import from_dict

    return from_dict(
        {
            "recipe": "lm",
            "data": {"text": str(corpus), "batch_size": 4, "length": 32, "resegment_share": 0.5},
            "tokenizer": {"vocab_size": 300},
            "model": {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "intermediate_size": 32},
            "train": {
                "steps": steps, "log_every": 7, "eval_every": 50, "checkpoint_every": 5, "eval_windows": 4, "dtype": "float32",
            },
        }
    )  # fmt: skip


def start(corpus: Path, workdir: Path, steps: int, log: Path) -> int:
    """Train in a forked child; returns its process id. Forking spares the seconds of importing."""
    pid = os.fork()
    if pid:
        return pid
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 2)
        from zett.train.run import train

        train(config(corpus, steps), workdir)
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)


def newest(workdir: Path) -> int:
    return max((int(p.name) for p in workdir.glob("checkpoints/*") if p.name.isdigit()), default=0)


def kill_and_resume(folder: Path, kills: int, steps: int, seed: int = 0) -> dict:
    """Both runs; AssertionError if they differ. Returns counts."""
    import jax

    # Imported before the forks.
    import zett.recipes.language_model
    import zett.train.run  # noqa: F401

    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "compiled"))
    jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    corpus = folder / "corpus"
    corpus.mkdir()
    for i in range(20):
        (corpus / f"{i}.txt").write_text(TEXT[i * 4000 :][:4000])
    whole, killed, log = folder / "whole", folder / "killed", folder / "log.txt"
    _, status = os.waitpid(start(corpus, whole, steps, log), 0)
    assert status == 0, log.read_text()[-2000:]
    rng = np.random.default_rng(seed)
    done = during_checkpoint = 0
    while done < kills:
        before = newest(killed)
        pid = start(corpus, killed, steps, log)
        in_checkpoint = bool(done % 2)
        deadline = None
        while True:
            if os.waitpid(pid, os.WNOHANG)[0]:
                raise AssertionError(f"the run ended after {done} kills; more steps are needed\n{log.read_text()[-2000:]}")
            if deadline is None and newest(killed) > before:  # at least one more checkpoint, so that the run gets on
                deadline = time.monotonic() + rng.uniform(0, 0.4)
            if deadline is not None and time.monotonic() >= deadline:
                writing = any("tmp" in p.name for p in killed.glob("checkpoints/*"))
                if not in_checkpoint or writing:
                    during_checkpoint += writing
                    break
            time.sleep(0.0005)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        done += 1
    _, status = os.waitpid(start(corpus, killed, steps, log), 0)
    assert status == 0, log.read_text()[-2000:]
    compare(whole, killed)
    return {"kills": done, "while a checkpoint was written": during_checkpoint, "steps": steps}


def compare(whole: Path, killed: Path) -> None:
    """Released parameters and every logged number that does not tell the time have to be the same."""
    a, b = ((w / "export" / "model.safetensors").read_bytes() for w in (whole, killed))
    assert a == b, "the exported parameters differ"
    timed = {"time", "steps_per_s", "step_seconds", "tokens_per_s", "waiting_for_data", "tflops_per_s", "mfu"}
    timed |= {"trained_seconds", "process_memory_gb", "device_memory_gb"}
    lines = []
    for workdir in (whole, killed):
        records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        lines.append([{k: v for k, v in record.items() if k not in timed} for record in records])
    assert lines[0] == lines[1], "the metrics differ"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clock = time.perf_counter()
        result = kill_and_resume(Path(folder), args.kills, args.steps, args.seed)
    print(json.dumps({**result, "seconds": round(time.perf_counter() - clock), "equal": "bit for bit"}))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main()
