"""A released hypernetwork: read back as it was written, and whatever is damaged is named."""

import json

import jax
import numpy as np
import pytest
from hypernet.networks import CONFIG, WIDTH, base_of, params_of, table_for, trained_for
from vocabularies import vocabulary

from zett.errors import UserError
from zett.hypernet.release import load_hypernet, save_hypernet
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
