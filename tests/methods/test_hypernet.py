"""The hypernetwork as a method like the others."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny
from flax import nnx
from safetensors.numpy import load_file

from zett.config import HypernetConfig
from zett.errors import UserError
from zett.hypernet.network import make_hypernet
from zett.hypernet.release import load_hypernet, save_hypernet
from zett.hypernet.trained import TrainedHypernet
from zett.lms import load_base_model
from zett.methods import make_method
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
