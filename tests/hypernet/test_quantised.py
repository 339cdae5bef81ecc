"""Parameters of a hypernetwork in fewer bytes: what comes back is near, and what does not fit its scale is refused."""

import numpy as np
import pytest
from hypernet.networks import UNTIED, base_of, table_for, trained_for
from safetensors.numpy import load_file, save_file
from vocabularies import vocabulary

from zett.errors import UserError
from zett.hypernet.quantised import restored, stored
from zett.hypernet.release import load_hypernet, save_hypernet

pytestmark = pytest.mark.xdist_group("hypernet")


@pytest.fixture(scope="module")
def base():
    source = vocabulary("bpe", 400)
    return base_of(table_for(source), source)


@pytest.mark.parametrize("form, error", [("float32", 0), ("bfloat16", 2**-8), ("int8", 0.02)])
def test_rows_stay_alike(form, error, base, tmp_path):
    save_hypernet(tmp_path / form, trained_for(base), base.vocab, {}, form)
    save_hypernet(tmp_path / "plain", trained_for(base), base.vocab, {})
    target = vocabulary("unigram", 600)
    rows, plain = (np.asarray(load_hypernet(tmp_path / name)(base, target).input) for name in (form, "plain"))
    differences = np.linalg.norm(rows - plain, axis=1) / np.linalg.norm(plain, axis=1)
    assert differences.mean() <= error and (form == "float32" or differences.mean() > 0)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in (form, "plain")]
    assert sizes[0] < sizes[1] * {"float32": 1.01, "bfloat16": 0.6, "int8": 0.5}[form]


def test_both_heads_of_untied_rows_are_stored(base, tmp_path):
    tied = base_of(table_for(base.vocab, tied=True), base.vocab)
    save_hypernet(tmp_path, trained_for(tied, UNTIED), base.vocab, {}, "int8")
    tensors, loaded = load_file(tmp_path / "model.safetensors"), load_hypernet(tmp_path)
    assert {str(tensors[f"heads.{i}.dense.kernel"].dtype) for i in range(2)} == {"int8"}
    assert loaded.config == UNTIED and loaded.tied and loaded.kinds == 2
    for i, head in trained_for(tied, UNTIED).params["heads"].items():
        kernel = head["dense"]["kernel"]
        assert (np.abs(loaded.params["heads"][i]["dense"]["kernel"] - kernel) <= np.abs(kernel).max(0) / 254 + 1e-9).all()


def test_int8_is_right_to_half_a_step_of_its_column():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(40, 7)).astype(np.float32) * np.logspace(-3, 3, 7, dtype=np.float32)
    kernel[:, 2] = 0  # a column that training has not moved
    back = restored(stored({"a.kernel": kernel, "a.bias": kernel[0], "fallback": kernel}, "int8"))
    assert back.keys() == {"a.kernel", "a.bias", "fallback"} and back["a.kernel"].dtype == np.float32
    assert (np.abs(back["a.kernel"] - kernel) <= np.abs(kernel).max(0) / 254 + 1e-9).all()
    np.testing.assert_allclose(back["fallback"].astype(np.float32), kernel, rtol=2**-8)
    layers = np.stack([kernel, 100 * kernel[::-1], 0 * kernel])  # each has scales of its own
    again = restored(stored({"a.kernel": layers}, "int8"))["a.kernel"]
    assert (np.abs(again - layers) <= np.abs(layers).max(1, keepdims=True) / 254 + 1e-9).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda scales: scales.clear(),
        lambda scales: scales.update({name: x[:-1] for name, x in scales.items()}),
        lambda scales: scales.update({name: x.astype(np.float16) for name, x in scales.items()}),
    ],
)
def test_int8_without_its_scales_is_refused(change, base, tmp_path):
    save_hypernet(tmp_path, trained_for(base), base.vocab, {}, "int8")
    tensors = load_file(tmp_path / "model.safetensors")
    scales = {name: tensors.pop(name) for name in list(tensors) if name.endswith("kernel.scale")}
    change(scales)
    save_file(tensors | scales, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"does not fit its config: missing, misshapen or unknown: .*kernel"):
        load_hypernet(tmp_path)


def test_parameters_that_are_stored_as_they_are():
    params = {"a": np.ones(3, np.float16)}
    assert stored(params, None) == params and restored(params) == params
