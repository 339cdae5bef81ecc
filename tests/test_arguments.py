"""From Python: one thing in the place of a list, names that are the same everywhere, rows as arrays, `help`, reprs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file
from test_belongs import base, hypernet  # noqa: F401

import zett
from zett.arguments import renamed, several
from zett.errors import UserError
from zett.vocab import surface_forms

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "en.txt"
    path.write_text("".join(tiny.TEXT))
    return path


def test_one_thing_is_a_list_of_one():
    assert several("abc") == ["abc"] and several(Path("a")) == [Path("a")] and several(("a", "b")) == ["a", "b"]
    assert renamed("new", None, "old", 1) == renamed("new", 1, "old", None) == 1 and renamed("new", None, "old", None) is None
    with pytest.raises(UserError, match="new is 1, and old, its old name, is 2; give new alone"):
        renamed("new", 1, "old", 2)


def test_inspect_takes_one_file_and_old_names(text):
    expected = zett.inspect("pico", "pico", text=[text])
    assert expected["text"]["all"]["bytes"] == len(text.read_bytes())
    assert zett.inspect("pico", "pico", text=str(text)) == zett.inspect(source="pico", target="pico", text=text) == expected
    table = text.with_name("pairs.csv")
    table.write_text("en,de\na cat,eine Katze\n")
    assert zett.inspect("pico", "pico", parallel=table) == zett.inspect("pico", "pico", parallel=[str(table)])
    with pytest.raises(UserError, match="tokenizer is missing"):
        zett.inspect("pico")


def test_evaluate_takes_one_of_everything_and_old_names(base, tmp_path):  # noqa: F811
    model, target = zett.load_base_model(base), tiny.tokenizer_folder(tmp_path / "target", size=350)
    settings = {"methods": "mean", "windows": "".join(tiny.TEXT)[:128], "progress": False}
    report = zett.evaluate(model, str(target), **settings)
    assert [t.name for t in report.targets] == ["target"] and report.methods == ["mean"] and report.text["windows"] == 1
    for again in (
        zett.evaluate(model, target, **settings),
        zett.evaluate(model, zett.load_tokenizer(target), **settings),
        zett.evaluate(base=model, targets=[target], **settings),
    ):
        assert [t.name for t in again.targets] == ["target"]
        assert again.targets[0].scores["mean"].bits_per_byte == report.targets[0].scores["mean"].bits_per_byte


def test_rows_are_what_a_transfer_writes(base, hypernet, tmp_path):  # noqa: F811
    target = tiny.tokenizer_folder(tmp_path / "target", size=400)
    output = zett.transfer(base, target, tmp_path / "out", hypernet=hypernet)
    written = load_file(output / "model.safetensors")
    trained = zett.load_hypernet(hypernet)
    for tokenizer in (target, str(target), target / "tokenizer.json", zett.load_tokenizer(target)):
        for model in (base, zett.load_base_model(base)):
            table = trained.rows(tokenizer, model)
            for name, rows in (("model.embed_tokens.weight", table.input), ("lm_head.weight", table.output)):
                assert type(rows) is np.ndarray and rows.dtype == np.float32 and rows.shape == (400, 16)
                np.testing.assert_array_equal(rows.astype(written[name].dtype), written[name])
    with pytest.raises(UserError, match="there is no folder 'tiny'"):
        trained.rows(target)  # its base model's name, which is nowhere
    assert zett.load_hypernet("pico").rows(target).input.shape == (400, 256)


def test_dtypes_that_are_not_there(base):  # noqa: F811
    message = "is 'float99'; it has to be 'float32', 'bfloat16' or 'auto'"
    with pytest.raises(UserError, match=f"^dtype {message}"):
        zett.evaluate(base, "bpe-350", dtype="float99")
    with pytest.raises(UserError, match=f"^dtype {message}"):
        zett.load_base_model(base, dtype="float99")
    with pytest.raises(UserError, match=f"^param_dtype {message}"):
        zett.load_base_model(base, param_dtype="float99")
    for wrong in ("int8", None, 3, "float16"):
        with pytest.raises(UserError, match="it has to be 'float32'"):
            zett.load_base_model(base, dtype=wrong)
    assert zett.load_base_model(base, dtype="auto", body=False).name == str(base)


def test_reprs_are_one_line(base, hypernet):  # noqa: F811
    import jax
    from flax import nnx

    from zett.hypernet.network import make_hypernet

    model, trained = zett.load_base_model(base), zett.load_hypernet(hypernet)
    network = make_hypernet(trained.config, 16, False, np.float32, 0)
    forms = surface_forms(model.vocab, model.vocab)
    assert isinstance(network, nnx.Module)
    for value in (model, model.vocab, model.table, forms, trained, network):
        shown = repr(value)
        assert "\n" not in shown and shown.startswith(type(value).__name__ + "(") and len(shown) < 250
    assert "300 tokens" in repr(model.vocab) and "input 300x16 float32" in repr(model.table)
    assert "tiny" in repr(trained) and str(base) in repr(model)
    assert repr(jax.tree.map(lambda x: None, model.table)).startswith("EmbeddingTable(")  # whatever its leaves are
    assert "EmbeddingTable(" in str(jax.eval_shape(lambda t: t, model.table))


def test_help_shows_the_public_names():
    code = (
        "import sys, zett; assert 'jax' not in sys.modules\n"
        "for name in zett.__all__: assert name in zett.__doc__, name\n"
        "import pydoc; text = pydoc.render_doc(zett, renderer=pydoc.plaintext)\n"
        "for name in zett.__all__:\n"
        "    line = getattr(zett, name).__doc__.splitlines()[0]\n"
        "    assert line in text, (name, line)\n"
        "from zett import *\nassert callable(transfer) and callable(evaluate) and isinstance(EmbeddingTable, type)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
