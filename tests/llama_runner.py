"""Folders in llama.cpp: converted by its own converter, run by xllamacpp."""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[1]


def converter() -> Path | None:
    """The folder with llama.cpp's converter, from LLAMA_CPP; it is in the source of llama-cpp-python, as vendor/llama.cpp."""
    folder = Path(os.environ.get("LLAMA_CPP", "/nowhere"))
    return folder if (folder / "convert_hf_to_gguf.py").is_file() else None


def to_gguf(folder: Path, file: Path) -> None:
    command = [sys.executable, "-m", "zett.gguf.llama_cpp", str(converter()), str(folder), str(file), "--outtype", "f32"]
    # The converter comes with a gguf package of its own.
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


class Runner:
    def __init__(self, file: Path):
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path, params.n_ctx, params.port, params.warmup = str(file), 512, 0, False
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
        self.server = xllamacpp.Server(params)

    def ask(self, path: str, **asked) -> list[int]:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.server.listening_address}/{path}", json.dumps(asked).encode(), headers)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)["tokens"]

    def tokens(self, text: str) -> list[int]:
        return self.ask("tokenize", content=text, add_special=True, parse_special=True)

    def greedy(self, ids: list[int], number: int) -> list[int]:
        return self.ask("completion", prompt=ids, n_predict=number, temperature=0.0, return_tokens=True, cache_prompt=False)
