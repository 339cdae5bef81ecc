"""Settings of all tests: CPU only, compiled quickly, quiet, nothing from or into the user's caches, no network."""

import inspect
import os
import random
import re
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

import pytest

# Before anything imports JAX. Tests compare numbers, which an accelerator rounds in its own way.
os.environ["JAX_PLATFORMS"] = "cpu"
# Most of the time goes to compiling programs that run once. LLVM's optimisations change neither what is computed nor, as XLA's
# own passes stay, the memory that it takes.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# The older emitters of fused loops take half as long, where XLA still has them: it ends the process for flags that it lacks.
older = "--xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else ""
os.environ.setdefault("XLA_FLAGS", older)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
# One cache for all workers and the processes that tests start. With it, what several of them run is compiled once.
_OWN_CACHE = "ZETT_TEST_CACHE" not in os.environ
if _OWN_CACHE:
    os.environ["ZETT_TEST_CACHE"] = tempfile.mkdtemp(prefix="zett-test-cache-")
os.environ["ZETT_CACHE"] = os.environ["ZETT_TEST_CACHE"]
os.environ["HF_HOME"] = os.path.join(os.environ["ZETT_CACHE"], "huggingface")
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.path.join(os.environ["ZETT_CACHE"], "compiled")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


def pytest_unconfigure(config):
    if _OWN_CACHE:
        shutil.rmtree(os.environ.pop("ZETT_TEST_CACHE"), ignore_errors=True)


# CI runs the quick tests in an environment without PyTorch, then, in one with it, all that this leaves to be tested.


def pytest_addoption(parser):
    parser.addoption("--write-passed", metavar="FILE", help="write the names of the tests that pass into FILE")
    parser.addoption("--skip-passed", metavar="FILE", help="leave out what FILE names and PyTorch cannot change")


class WritePassed:
    def __init__(self, path: str):
        self._path = Path(path)
        self._path.write_text("")

    def pytest_runtest_logreport(self, report):
        if report.when == "call" and report.passed:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(report.nodeid + "\n")


def pytest_configure(config):
    path = config.getoption("--write-passed")
    if path and not hasattr(config, "workerinput"):  # workers report to the process that started them
        config.pluginmanager.register(WritePassed(path))


def pytest_collection_modifyitems(config, items):
    path = config.getoption("--skip-passed")
    passed = set(Path(path).read_text(encoding="utf-8").splitlines()) if path else set()

    def is_done(item) -> bool:
        # Transformers does other things where PyTorch is installed; and some tests say that it is not imported.
        return item.nodeid in passed and not re.search("torch|transformers", inspect.getsource(item.function))

    done = [item for item in items if is_done(item)]
    if done:
        config.hook.pytest_deselected(items=done)
        items[:] = [item for item in items if not is_done(item)]


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


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory) -> Path:
    """A small base model."""
    import tiny  # which loads JAX, so not before the environment is set

    return tiny.base_folder(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def target_folder(tmp_path_factory) -> Path:
    """A tokenizer that is not the base model's, with a chat template and with a file that is not a tokenizer's."""
    import tiny

    folder = tiny.tokenizer_folder(tmp_path_factory.mktemp("target") / "tokenizer", size=400)
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "notes.md").write_text("not a tokenizer file")
    return folder
