"""The hypernetwork as a method like the others."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from flax import nnx
from safetensors.numpy import load_file, save_file

from zett.config import HypernetConfig
from zett.errors import UserError
from zett.evaluate.evaluate import evaluate
from zett.export import export
from zett.files.resolve import HYPERNETWORK
from zett.hypernet.kept import towards_own
from zett.hypernet.network import make_hypernet
from zett.hypernet.release import load_hypernet, save_hypernet
from zett.hypernet.trained import TrainedHypernet
from zett.hypernet.variant import variant_table
from zett.lms import load_base_model
from zett.methods import make_method
from zett.table import EmbeddingTable
from zett.transfer import transfer
from zett.vocab import load_tokenizer

VOCABULARY = ("model.embed_tokens.weight", "lm_head.weight")


@pytest.fixture(scope="module")
def hypernet(base_folder, tmp_path_factory):
    base = load_base_model(base_folder)
    config = HypernetConfig(width=16, layers=1, heads=2, feed_forward=16)
    params = nnx.to_pure_dict(nnx.split(make_hypernet(config, 16, False, np.float32, 0))[1])
    trained = TrainedHypernet(config, params, 16, False, {"name": "tiny", "fingerprint": base.fingerprint})
    folder = tmp_path_factory.mktemp("hypernet") / "tiny"
    save_hypernet(folder, trained, base.vocab, {})
    return folder


def test_rows_of_a_hypernetwork(tmp_path, base_folder, target_folder, hypernet):
    output = transfer(base_folder, target_folder, tmp_path / "out", hypernet=hypernet)
    # In float32 also where a transfer reads the base's rows as they are stored.
    base, target = load_base_model(base_folder), load_tokenizer(target_folder)
    expected = load_hypernet(hypernet)(base, target)
    tensors = load_file(output / "model.safetensors")
    for name, rows in zip(VOCABULARY, (expected.input, expected.output)):
        np.testing.assert_array_equal(tensors[name], np.asarray(rows).astype(tensors[name].dtype))
    assert str(hypernet) in (output / "README.md").read_text()
    for method in (f"hypernet:{hypernet}", make_method("hypernet", path=str(hypernet))):
        again = transfer(base_folder, target_folder, tmp_path / f"again-{type(method).__name__}", method=method)
        assert (again / "model.safetensors").read_bytes() == (output / "model.safetensors").read_bytes()
    np.testing.assert_array_equal(make_method(f"hypernet:{hypernet}")(base, target).input, expected.input)


def test_shared_rows_go_back_towards_the_models_own(tmp_path, base_folder, target_folder, hypernet):
    base, target, fresh = load_base_model(base_folder), load_tokenizer(target_folder), load_hypernet(hypernet)
    params = jax.tree.map(lambda x: x + np.float32(0.1), fresh.params)  # a fresh one corrects nothing
    save_hypernet(tmp_path / "hypernet", dataclasses.replace(fresh, params=params), base.vocab, {})
    predicted, half, own = (
        make_method(f"hypernet:{tmp_path / 'hypernet'}", shared=shared)(base, target) for shared in (0.0, 0.5, 1.0)
    )
    same = np.asarray([base.vocab.id_of.get(token, -1) if token else -1 for token in target.tokens])
    assert 0 < (same >= 0).sum() < len(target)
    for side in ("input", "output"):
        rows, theirs = getattr(predicted, side), np.asarray(getattr(base.table, side), np.float32)
        expected = np.where((same >= 0)[:, None], theirs[same], rows)
        np.testing.assert_allclose(getattr(own, side), expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(getattr(half, side), (rows + expected) / 2, rtol=1e-5, atol=1e-6)
        assert np.abs(rows - expected).max() > 0.1
    newlines = make_method(f"hypernet:{tmp_path / 'hypernet'}", newlines=1.0)(base, target)
    blank = np.asarray([token != b"" and not token.strip(b"\r\n") for token in target.tokens]) & (same >= 0)
    assert 0 < blank.sum() < (same >= 0).sum()
    np.testing.assert_allclose(newlines.input, np.where(blank[:, None], own.input, predicted.input), rtol=1e-5, atol=1e-6)
    folder = shutil.copytree(base_folder, tmp_path / "chat")
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}\n")
    chat, method = load_base_model(folder), make_method(f"hypernet:{tmp_path / 'hypernet'}")
    np.testing.assert_array_equal(method(chat, target).input, newlines.input)
    np.testing.assert_array_equal(load_hypernet(tmp_path / "hypernet").rows(target, chat).input, newlines.input)
    assert "line ends keep their rows" in method.about(chat) and "line ends" not in method.about(base)
    moved = make_method(f"hypernet:{tmp_path / 'hypernet'}", newlines=0.0)
    np.testing.assert_array_equal(moved(chat, target).input, predicted.input)
    with pytest.raises(UserError, match=r"newlines is -1\.0; it has to be from 0"):
        make_method("hypernet:newlines=-1")
    with pytest.raises(UserError, match=r"shared is 1\.5; it has to be from 0"):
        make_method("hypernet:shared=1.5")
    output = transfer(base_folder, target_folder, tmp_path / "out", method="hypernet:shared=0.5", hypernet=hypernet)
    assert json.loads((output / "zett.json").read_text())["settings"]["method"] == "hypernet:shared=0.5"


def test_shared_output_rows_of_a_tied_model_go_back_to_its_input_rows(tmp_path):
    base = load_base_model(tiny.base_folder(tmp_path / "tied", tied=True))
    ones, twos = np.ones_like(base.table.input, np.float32), np.full_like(base.table.input, 2, np.float32)
    back = towards_own(EmbeddingTable.of(ones, twos), base, base.vocab, 1.0, 1.0)
    text = np.asarray([bool(token) for token in base.vocab.tokens])
    for rows in (back.input, back.output):
        np.testing.assert_allclose(rows[text], np.asarray(base.table.input, np.float32)[text], rtol=1e-6)


def test_the_dtype_of_its_products(tmp_path, base_folder, target_folder, hypernet):
    base, target, fresh = load_base_model(base_folder), load_tokenizer(target_folder), load_hypernet(hypernet)
    params = jax.tree.map(lambda x: x + np.float32(0.1), fresh.params)  # a fresh one corrects nothing
    save_hypernet(tmp_path / "moved", dataclasses.replace(fresh, params=params), None, {})
    made = (make_method(f"hypernet:{tmp_path / 'moved'}{more}") for more in ("", ",dtype=bfloat16"))
    exact, rounded = (method(base, target).input for method in made)
    assert 0 < np.linalg.norm(rounded - exact) < 0.01 * np.linalg.norm(exact)
    with pytest.raises(UserError, match="dtype of method 'hypernet' is 'int8'; it has to be 'float32', 'bfloat16' or 'auto'"):
        make_method(f"hypernet:{hypernet},dtype=int8").precheck(base_folder)


def test_of_another_base_model(tmp_path, base_folder, target_folder, hypernet):
    other = tiny.base_folder(tmp_path / "other", tied=True)
    with pytest.raises(UserError, match="trained for the base model 'tiny'"):
        transfer(other, target_folder, tmp_path / "out", hypernet=hypernet)
    method = make_method(f"hypernet:{hypernet}")
    with pytest.raises(UserError, match="trained for the base model 'tiny'"):
        method.check(load_base_model(other))
    with pytest.raises(UserError, match="trained for the base model 'tiny', and pico is another"):
        method.precheck("pico")
    method.precheck(base_folder)
    method.check(load_base_model(base_folder))


def test_the_packages_own_is_for_the_packages_base_model(base_folder):
    make_method("hypernet").precheck("pico")
    for check, base in (("precheck", base_folder), ("check", load_base_model(base_folder))):
        with pytest.raises(UserError, match=r"needs a hypernetwork made for .*model: give its folder"):
            getattr(make_method("hypernet"), check)(base)


def test_languages_of_one_that_knows_none(base_folder, hypernet):
    with pytest.raises(UserError, match="has no languages"):
        make_method(f"hypernet:{hypernet},language=de").check(load_base_model(base_folder))


# ------------------------------------------------------------------------------------------- variants of its base model


def with_rows(folder: Path, model: Path, change) -> Path:
    """A copy of the model with other rows."""
    shutil.copytree(model, folder)
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {name: change(tensors[name]) for name in VOCABULARY}, folder / "model.safetensors", {"format": "pt"})
    return folder


def in_8_bits(rows):
    values = rows.astype(np.float32)
    scale = np.abs(values).max(1, keepdims=True) / 127
    return (np.round(values / scale) * scale).astype(rows.dtype)


def moved(rows):
    values = rows.astype(np.float32)
    return (values + 0.1 * np.random.default_rng(3).standard_normal(values.shape)).astype(rows.dtype)


def shuffled(rows):
    return np.random.default_rng(0).permutation(rows)


@pytest.fixture(scope="module")
def new_hypernet(base_folder, hypernet, tmp_path_factory):
    """With rows of its base model, which those of earlier versions lack."""
    folder = tmp_path_factory.mktemp("new") / "hypernet"
    return export(hypernet, folder, base=base_folder)


def test_a_quantised_variant_is_taken_and_said_to_be_one(tmp_path, base_folder, target_folder, new_hypernet, caplog):
    caplog.set_level("INFO", "zett")
    model = with_rows(tmp_path / "q8", base_folder, in_8_bits)
    output = transfer(model, target_folder, tmp_path / "out", hypernet=new_hypernet)
    words = f"{model} is a variant of its base model 'tiny': same tokenizer, rows alike to a median cosine of 1.000"
    assert words in caplog.text and words in (output / "README.md").read_text()
    assert json.loads((output / "zett.json").read_text())["settings"]["about"].endswith(words)
    expected = load_hypernet(new_hypernet).table(load_base_model(model, body=False), load_tokenizer(target_folder))
    stored = load_file(output / "model.safetensors")[VOCABULARY[0]]
    np.testing.assert_array_equal(stored, np.asarray(expected.input).astype(stored.dtype))
    output = transfer(base_folder, target_folder, tmp_path / "own", hypernet=new_hypernet)
    assert "is exactly its base model 'tiny'" in (output / "README.md").read_text()


def test_rows_that_are_not_alike_are_refused_before_the_body_is_read(tmp_path, base_folder, target_folder, new_hypernet):
    model = with_rows(tmp_path / "other", base_folder, shuffled)
    (tmp_path / "text.txt").write_text("a text")  # measuring needs the body

    def body_is_read(*args, **settings):
        raise AssertionError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zett.lms.base.load_body", body_is_read)
        for refused in (
            lambda: transfer(model, target_folder, tmp_path / "out", hypernet=new_hypernet, text=tmp_path / "text.txt"),
            lambda: evaluate(model, target_folder, hypernets=new_hypernet),
        ):
            with pytest.raises(UserError, match=r"and .*other is another: rows of the same width, 16, are alike to a median"):
                refused()
    assert not (tmp_path / "out").exists()


def test_the_rows_of_a_variant_with_those_of_its_base(tmp_path, base_folder, target_folder, hypernet):
    """Also by a hypernetwork without rows of its base, since the base is at hand."""
    model = with_rows(tmp_path / "tuned", base_folder, moved)
    with pytest.raises(UserError, match=r"give the base model, too \(--base DIR\)"):
        transfer(model, target_folder, tmp_path / "no", hypernet=hypernet)
    given, base, target = load_base_model(model), load_base_model(base_folder), load_tokenizer(target_folder)
    for way in (None, "base", "difference"):
        output = tmp_path / f"out-{way}"
        transfer(model, target_folder, output, hypernet=hypernet, base=base_folder, variant=way)
        expected = variant_table(load_hypernet(hypernet), given, base, target, way or "variant")
        stored = load_file(output / "model.safetensors")[VOCABULARY[0]]
        np.testing.assert_array_equal(stored, np.asarray(expected.input).astype(stored.dtype))
        settings = json.loads((output / "zett.json").read_text())["settings"]
        assert (settings["base"], settings["variant"]) == (str(base_folder), way or "variant")
        assert f"base={str(base_folder)!r}, variant={way or 'variant'!r}" in (output / "README.md").read_text()
        assert f"{model} is a variant of {base_folder}: same tokenizer, rows alike to a median" in settings["about"]
    spec = f"hypernet:{hypernet},base={base_folder},variant=difference"
    again = transfer(model, target_folder, tmp_path / "again", method=spec)
    assert (again / "model.safetensors").read_bytes() == (output / "model.safetensors").read_bytes()


def test_a_base_that_is_none(tmp_path, base_folder, target_folder, hypernet, new_hypernet):
    model, unlike = (with_rows(tmp_path / name, base_folder, change) for name, change in (("a", moved), ("b", shuffled)))
    wider = tiny.base_folder(tmp_path / "wide", config=dataclasses.replace(tiny.CONFIG, hidden_size=32, head_dim=8))
    trained_for = "base is '.*b', but the hypernetwork .* trained for the base model 'tiny'"
    cases = [
        (model, {"hypernet": hypernet, "base": unlike}, trained_for),
        (unlike, {"hypernet": hypernet, "base": base_folder}, "b is no variant of .*: rows of the same width, 16, are alike"),
        (base_folder, {"hypernet": new_hypernet, "base": model}, "for which the hypernetwork was trained; swap the two"),
        (model, {"hypernet": hypernet, "base": wider}, "it has rows of width 32, not 16"),
        (wider, {"hypernet": hypernet, "base": base_folder}, "it has rows of width 32, not 16"),
        (model, {"hypernet": hypernet, "base": tmp_path / "absent"}, "there is no folder .*absent"),
        (model, {"method": "fvt", "base": base_folder}, "base is '.*', but the method 'fvt' makes no use of it"),
        (model, {"method": "fvt", "variant": "base"}, "variant is 'base', but the method 'fvt' makes no use of it"),
        (model, {"hypernet": new_hypernet, "variant": "base"}, "variant is 'base', which needs the rows of the model that"),
        (model, {"hypernet": hypernet, "base": base_folder, "variant": "bases"}, "variant is 'bases'; did you mean base"),
    ]
    for given, settings, message in cases:
        with pytest.raises(UserError, match=message):
            transfer(given, target_folder, tmp_path / "out", **settings)
        assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match=r"base is '.*', but there is no hypernetwork that could make use of it"):
        evaluate(model, target_folder, hypernets={}, base=base_folder, windows=["a text"])


# ------------------------------------------------------------------------------------------ hypernetworks in the package


@pytest.fixture
def packaged(new_hypernet, monkeypatch):
    monkeypatch.setitem(HYPERNETWORK.packaged, "tiny-hn", str(new_hypernet))


def test_one_in_the_package_is_found_by_the_model(tmp_path, base_folder, target_folder, new_hypernet, packaged, caplog):
    caplog.set_level("INFO", "zett")
    given = transfer(base_folder, target_folder, tmp_path / "given", hypernet=new_hypernet)
    found = transfer(base_folder, target_folder, tmp_path / "found")
    assert (given / "model.safetensors").read_bytes() == (found / "model.safetensors").read_bytes()
    assert f"hypernetwork tiny-hn: {base_folder} is exactly its base model 'tiny'" in caplog.text
    assert json.loads((found / "zett.json").read_text())["settings"]["hypernet"] == "tiny-hn"
    assert "hypernet='tiny-hn'" in (found / "README.md").read_text()
    variant = with_rows(tmp_path / "variant", base_folder, moved)
    assert make_method("hypernet").settled(load_base_model(variant, body=False)).path == "tiny-hn"
    # Of a variant with an unlike body the base is what is looked for.
    transfer(variant, target_folder, tmp_path / "base", base=base_folder, variant="base")
    assert f"{base_folder} is exactly its base model 'tiny'" in (tmp_path / "base" / "README.md").read_text()


def test_evaluation_finds_it_too(tmp_path, base_folder, target_folder, packaged):
    settings = {"methods": ["mean"], "windows": tiny.TEXT[:4], "progress": False}
    variant = with_rows(tmp_path / "variant", base_folder, moved)
    for model in (str(base_folder), load_base_model(variant)):
        report = evaluate(model, target_folder, **settings)
        assert report.hypernets == {"hypernet": "tiny-hn"} and list(report.targets[0].scores) == ["hypernet", "mean"]
    assert "is a variant of its base model 'tiny'" in report.settings["about"]["hypernet"]
    other = with_rows(tmp_path / "other", base_folder, shuffled)
    for model, hypernets in ((str(base_folder), {}), (str(other), None)):
        report = evaluate(model, target_folder, hypernets=hypernets, **settings)
        assert report.hypernets == {} and list(report.targets[0].scores) == ["mean"]
    report = evaluate(str(variant), target_folder, base=base_folder, variant="difference", **settings)
    assert "plus how the variant's rows have moved" in report.settings["about"]["hypernet"]


def test_where_none_in_the_package_fits(tmp_path, base_folder, target_folder, packaged):
    other = with_rows(tmp_path / "other", base_folder, shuffled)
    message = (
        r"method 'hypernet' needs a hypernetwork made for .*other: give its folder \(--hypernet DIR, or hypernet:DIR\), or "
        r"take a method that needs none, such as fvt; in the package: .*pico \(it has rows of width 16, not 256\).*"
        r"tiny-hn \(rows of the same width, 16, are alike to a median cosine of .*, and \d+ of \d+ ids have the same token"
    )
    with pytest.raises(UserError, match=message):
        transfer(other, target_folder, tmp_path / "out", method="hypernet")
    assert not (tmp_path / "out").exists()
