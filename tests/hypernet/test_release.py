"""A released hypernetwork: read back as it was written, and whatever is damaged is named."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import tiny
from hypernet.networks import CONFIG, WIDTH, base_of, params_of, table_for, trained_for
from vocabularies import vocabulary

from zett.errors import UserError
from zett.export import export
from zett.files.resolve import BASE_ROWS
from zett.hypernet.release import add_base_rows, load_hypernet, rows_to_keep, save_hypernet
from zett.lms.base import load_base_model
from zett.vocab import load_tokenizer

pytestmark = pytest.mark.xdist_group("hypernet")


@pytest.fixture(scope="module")
def base():
    source = vocabulary("bpe", 400)
    return base_of(table_for(source), source)


@pytest.fixture
def saved(tmp_path, base):
    save_hypernet(tmp_path / "hypernet", trained_for(base), base.vocab, {"step": 3})
    return tmp_path / "hypernet"


def test_saved_and_loaded(saved, base):
    loaded, target = load_hypernet(saved), vocabulary("unigram", 600)
    known = {"name": "tiny", "fingerprint": base.fingerprint}
    assert (loaded.config, loaded.hidden_size, loaded.tied, loaded.base) == (CONFIG, WIDTH, False, known)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, params_of())
    expected, found = (hypernet(base, target) for hypernet in (trained_for(base), loaded))
    np.testing.assert_array_equal(found.input, expected.input)
    assert load_tokenizer(loaded.folder / "source_tokenizer").tokens == base.vocab.tokens
    assert json.loads((saved / "training.json").read_text()) == {"step": 3}
    assert not list(saved.rglob("*.tmp"))


def test_a_release_of_an_earlier_version_has_no_such_field_and_the_same_rows(saved, base):
    before = load_hypernet(saved)
    rewrite(saved / "config.json", lambda content: content["hypernet"].pop("untie"))
    after = load_hypernet(saved)
    assert after.config == before.config and not after.config.untie
    target = vocabulary("unigram", 600)
    np.testing.assert_array_equal(after(base, target).input, before(base, target).input)


def rewrite(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def change_tensors(path, change):
    from safetensors.numpy import load_file, save_file

    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda f: (f / "config.json").unlink(), "is not a hypernetwork: config.json is missing"),
        (lambda f: (f / "model.safetensors").unlink(), "is not a hypernetwork: model.safetensors is missing"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be read as a hypernetwork"),
        (lambda f: (f / "config.json").write_text("[]"), "has format None; expected 'zett-hypernet-1'"),
        (lambda f: (f / "config.json").write_bytes(b"\xff"), "cannot be read as a hypernetwork"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\x00" * 20), "cannot be read as a hypernetwork"),
        (lambda f: rewrite(f / "config.json", lambda c: c.pop("tied")), r"config\.json has no field 'tied'"),
        (lambda f: rewrite(f / "config.json", lambda c: c.update(base={})), r"config\.json has no field 'name'"),
        (lambda f: rewrite(f / "config.json", lambda c: c.update(format="other")), "has format 'other'"),
        (lambda f: rewrite(f / "config.json", lambda c: c["hypernet"].update(widht=3)), "widht does not exist; did you mean"),
        (lambda f: rewrite(f / "config.json", lambda c: c.update(hidden_size=13)), r"does not fit.*fallback.*piece\.kernel"),
        (lambda f: rewrite(f / "config.json", lambda c: c.update(tied=True)), r"does not fit its config.*heads\.1\."),
        (lambda f: change_tensors(f / "model.safetensors", lambda t: t.pop("norm.scale")), r"does not fit.*: norm\.scale"),
        (lambda f: change_tensors(f / "model.safetensors", lambda t: t.update(extra=np.ones(2))), "unknown: extra"),
        (
            lambda f: change_tensors(f / "model.safetensors", lambda t: t.update({"norm.bias": np.ones(3, np.float32)})),
            r"misshapen or unknown: norm\.bias",
        ),
    ],
)
def test_damage_is_named(saved, damage, message):
    damage(saved)
    with pytest.raises(UserError, match=message) as raised:
        load_hypernet(saved)
    assert str(saved) in str(raised.value)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"there is no folder .*nowhere with a hypernetwork"):
        load_hypernet(tmp_path / "nowhere")


def test_rows_of_the_base_are_added_to_a_folder_of_an_earlier_version(tmp_path):
    model = tiny.base_folder(tmp_path / "model", config=dataclasses.replace(tiny.CONFIG, hidden_size=WIDTH, head_dim=6))
    base, other = load_base_model(model, body=False), tiny.base_folder(tmp_path / "other")
    save_hypernet(tmp_path / "old", trained_for(base), base.vocab, {"step": 3})
    with pytest.raises(UserError, match=r"other \(\w{12}\) is not the model that .*old was trained for, '.*model' \(\w{12}\)"):
        export(tmp_path / "old", tmp_path / "new", base=other)
    assert not (tmp_path / "new").exists()
    made = export(tmp_path / "old", tmp_path / "new", base=model)
    assert add_base_rows(tmp_path / "old", model) == tmp_path / "old" / BASE_ROWS
    assert {path.name for path in made.iterdir()} == {path.name for path in (tmp_path / "old").iterdir()}
    assert (made / BASE_ROWS).read_bytes() == (tmp_path / "old" / BASE_ROWS).read_bytes()
    again = export(made, tmp_path / "again", overwrite=True)  # kept from then on
    assert (again / BASE_ROWS).read_bytes() == (made / BASE_ROWS).read_bytes()
    assert load_hypernet(again).fit(base).exact


def test_a_hypernetwork_that_does_not_know_its_base_keeps_no_rows_of_it(base, saved):
    unknown = dataclasses.replace(load_hypernet(saved), base={"name": "tiny", "fingerprint": None, "vocab_size": 400})
    assert unknown.fit(base).exact is None and "of which no more is known" in unknown.about(base)
    with pytest.raises(UserError, match="was trained for, which it does not know"):
        rows_to_keep(unknown, base)


def test_the_one_for_smollm2_in_the_package():
    """int8 in the file, floats in memory, small enough for a package, and with what its base model is known by."""
    hypernet = load_hypernet("smollm2")
    assert {np.asarray(leaf).dtype.name for leaf in jax.tree.leaves(hypernet.params)} <= {"float32", "bfloat16"}
    assert hypernet.hidden_size == 576 and hypernet.tied and hypernet.base_rows is not None
    assert len(hypernet.source_tokenizer()) == 49152
    assert sum(file.stat().st_size for file in hypernet.folder.rglob("*") if file.is_file()) < 24 * 2**20
    assert "int8" in (hypernet.folder / "README.md").read_text()
