"""A hypernetwork of another base model is refused from two small files, before JAX is loaded."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from flax import nnx

from zett.belongs import check_belongs, shipped_candidates
from zett.config import HypernetConfig
from zett.errors import UserError
from zett.evaluate.evaluate import evaluate
from zett.hypernet.network import make_hypernet
from zett.hypernet.release import load_hypernet, save_hypernet
from zett.hypernet.trained import TrainedHypernet
from zett.lms import load_base_model
from zett.transfer import transfer

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny.base_folder(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def hypernet(base, tmp_path_factory):
    folder, own = tmp_path_factory.mktemp("hypernet") / "tiny", load_base_model(base)
    config = HypernetConfig(width=16, layers=1, heads=2, feed_forward=16)
    params = nnx.to_pure_dict(nnx.split(make_hypernet(config, 16, False, np.float32, 0))[1])
    trained = TrainedHypernet(config, params, 16, False, {"name": "tiny", "fingerprint": own.fingerprint})
    save_hypernet(folder, trained, own.vocab, {})
    return folder


def retokenized(base: Path, folder: Path, change) -> Path:
    """A copy of the model whose vocabulary is `change` of what it was."""
    shutil.copytree(base, folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"] = change(content["model"]["vocab"])
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


def test_its_own_model_and_a_new_version_of_its_tokenizer_pass(base, hypernet, tmp_path):
    check_belongs(base, hypernet)
    check_belongs("pico", "pico")
    check_belongs(retokenized(base, tmp_path / "more", lambda vocab: vocab | {"new": len(vocab)}), hypernet)
    check_belongs("someone/model", "someone/hypernet")  # not on this machine: nothing is said
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("[")
    check_belongs(tmp_path / "broken", hypernet)


def test_others_are_refused(base, hypernet, tmp_path):
    with pytest.raises(
        UserError, match="trained for the base model 'tiny', and pico is another: it has rows of width 256, not 16"
    ):
        check_belongs("pico", hypernet)
    other = retokenized(base, tmp_path / "other", lambda vocab: {token: len(vocab) - i for token, i in vocab.items()})
    with pytest.raises(UserError, match=r"of \d+ tokens of its tokenizer, \d+ are the same with the same ids"):
        check_belongs(other, hypernet)


def test_tied_rows_are_no_untied_ones(base, hypernet, tmp_path):
    shutil.copytree(base, tmp_path / "tied")
    config = json.loads((base / "config.json").read_text())
    for tied in (True, False):
        (tmp_path / "tied" / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": tied}))
        if tied:
            with pytest.raises(UserError, match="is another: its output rows are its input rows"):
                check_belongs(tmp_path / "tied", hypernet)
        else:
            check_belongs(tmp_path / "tied", hypernet)


def test_those_in_the_package_that_may_be_for_a_model(base):
    assert "pico" in shipped_candidates("pico") and "pico" in shipped_candidates(ROOT / "zett" / "assets" / "pico")
    message = r"needs a hypernetwork made for .*; in the package: .*pico \(it has rows of width 16, not 256\)"
    with pytest.raises(UserError, match=message):
        shipped_candidates(base)


def test_the_command_refuses_it_without_loading_jax(hypernet, tmp_path):
    code = (
        "import sys; from zett.cli import run_command\n"
        "def refused(command, *argv):\n"
        "    try: run_command(command, [*argv, '--model', 'pico', '--hypernet', sys.argv[1]], 'zett')\n"
        "    except ValueError as error: print('is another' in str(error), 'jax' in sys.modules)\n"
        "refused('transfer', '--tokenizer', 'x', '--output', sys.argv[2]); refused('eval')"
    )
    argv = [sys.executable, "-c", code, str(hypernet), str(tmp_path / "out")]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "True False\nTrue False\n", done.stderr
    assert not (tmp_path / "out").exists()


def test_the_command_says_that_none_in_the_package_fits(base, tmp_path):
    """At once, without JAX, with exit code 2 and one line."""
    argv = [sys.executable, "-c", "from zett.cli import main; main()", "transfer", "--model", str(base)]
    argv += ["--tokenizer", "x", "--output", str(tmp_path / "out"), "--method", "hypernet"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "in the package: " in done.stderr and "pico (it has rows of width 16, not 256)" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_model_that_differs_in_its_rows_alone_is_refused_before_anything_slow(base, hypernet, tmp_path):
    config = dataclasses.replace(tiny.CONFIG, num_layers=1)  # of the body's shape, which is in the fingerprint, too
    other = tiny.base_folder(tmp_path / "other", config=config)
    check_belongs(other, hypernet)
    for refused in (
        # The tokenizers do not exist, which would be the next mistake.
        lambda: transfer(other, tmp_path / "absent", tmp_path / "out", hypernet=hypernet),
        lambda: evaluate(str(other), tmp_path / "absent", hypernets=hypernet, text="/nowhere"),
        lambda: load_hypernet(hypernet).rows(tmp_path / "absent", other),
    ):
        with pytest.raises(UserError, match="trained for the base model 'tiny'"):
            refused()
    assert not (tmp_path / "out").exists()
