"""Machine code is kept, and made anew where any source of it has changed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import zett


def test_machine_code_follows_its_sources(tmp_path):
    """Compiled by one process, found by the next, and compiled anew where only a function that was inlined has changed."""
    code = """
import numpy as np
from zett.vocab.compiled.cutting import classify
table = np.arange(128, dtype=np.uint8)
print(classify(np.frombuffer(b"ab", np.uint8), table), sum(classify.stats.cache_hits.values()))
"""
    package = tmp_path / "zett"
    shutil.copytree(Path(zett.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__", "assets"))
    (package / "vocab" / "compiled" / "__pycache__").write_text("no folder, so that zett's cache folder is taken")
    environment = os.environ | {"ZETT_CACHE": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}

    def run() -> str:
        return subprocess.run(
            [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True
        ).stdout

    assert run() == "[97 98] 0\n"
    assert run() == "[97 98] 1\n"
    assert list((tmp_path / "cache" / "numba").rglob("cutting.classify*.nbc"))
    utf8 = package / "vocab" / "compiled" / "utf8.py"
    before, after = ("    a = np.int64(text[i])\n", "    a = np.int64(text[i] + 1)\n")
    assert before in utf8.read_text()
    utf8.write_text(utf8.read_text().replace(before, after))
    assert run() == "[98 99] 0\n"
