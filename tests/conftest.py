"""Settings of all tests: CPU only, compiled quickly, quiet, nothing from or into the user's caches, no network."""

import os
import random
import shutil
import tempfile

import pytest

# Before anything imports JAX. Tests compare numbers, which an accelerator rounds in its own way.
os.environ["JAX_PLATFORMS"] = "cpu"
# Most of the time goes to compiling programs that run once. LLVM's optimisations change neither what is computed nor, as XLA's
# own passes stay, the memory that it takes.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["ZETT_CACHE"] = os.environ.get("ZETT_TEST_CACHE") or tempfile.mkdtemp(prefix="zett-test-cache-")
os.environ["HF_HOME"] = os.path.join(os.environ["ZETT_CACHE"], "huggingface")


def pytest_unconfigure(config):
    if "ZETT_TEST_CACHE" not in os.environ:
        shutil.rmtree(os.environ["ZETT_CACHE"], ignore_errors=True)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A folder of small text files, enough for a tiny tokenizer and a few training steps: 60 files, 90 KB."""
    rng = random.Random(0)
    words = "the cat sat on a mat and saw two dogs run over there while birds sang in old green trees near water".split()
    folder = tmp_path_factory.mktemp("corpus")
    for i in range(60):
        lines = [" ".join(rng.choices(words, k=rng.randint(4, 12))).capitalize() + "." for _ in range(30)]
        (folder / f"{i:02}.txt").write_text("\n".join(lines) + f"\ndef f{i}(x):\n    return x + {i}\n")
    return folder
