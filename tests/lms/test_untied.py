"""Tied models that get output rows of their own: the folders load in Transformers and here, and compute the same."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx
from lms import parity
from safetensors.numpy import load_file, save_file

from zett.errors import UserError
from zett.lms import load_base_model
from zett.lms.family import FAMILIES, family_of, is_tied
from zett.lms.folder import write_model, write_trained
from zett.methods import Method, make_method
from zett.table import EmbeddingTable
from zett.transfer import transfer
from zett.vocab import load_tokenizer

TIED = [
    name for name, (_, fields) in parity.make.VARIANTS.items()
    if is_tied({"model_type": name.rpartition("-")[0], **fields}) and "no_head" not in name
]  # fmt: skip
QUICK = ("gemma3_text-tied", "bert-masked_lm")


@dataclasses.dataclass(frozen=True)
class Apart(Method):
    """FVT's input rows, and random output rows."""

    def __call__(self, base, target, *, seed=0):
        table = make_method("fvt")(base, target)
        output = np.random.default_rng(seed).standard_normal(table.input.shape).astype(np.float32)
        return EmbeddingTable.of(table.input, output, table.bias)


def computed(folder, ids) -> np.ndarray:
    base = load_base_model(folder)
    body = jax.jit(lambda params, x: nnx.merge(base.graphdef, params)(x))
    return np.asarray(base.table.unembed(body(base.params, base.table.embed(jnp.asarray(ids))), base.config.logit_softcap))


def test_every_family_that_may_be_tied_is_here():
    kinds = {name.rpartition("-")[0] for name in TIED}
    assert set(FAMILIES) - kinds <= {"mistral", "smollm3"} and {family_of({"model_type": kind}).output_rows for kind in kinds}


@pytest.mark.parametrize("variant", [pytest.param(v, marks=[] if v in QUICK else pytest.mark.slow) for v in TIED])
def test_a_folder_with_output_rows_of_its_own(variant, tmp_path):
    kind, folder = variant.rpartition("-")[0], parity.base_folder(variant, tmp_path / "base")
    base = load_base_model(folder, body=False)
    target = parity.save_tokenizer(tmp_path / "target", [*parity.TOKENS[:20], "the", "cat"])
    table, output = Apart()(base, load_tokenizer(target)), tmp_path / "out"
    output.mkdir()
    write_model(output, base, load_tokenizer(target), table)
    before, after = load_file(folder / "model.safetensors"), load_file(output / "model.safetensors")
    family = family_of({"model_type": kind})
    biases = {copy for copy, name in family.copies.items() if name == family.bias} if base.names.bias else set()
    assert after.keys() == before.keys() | {family.output_rows} | biases
    assert json.loads((output / "config.json").read_text())["tie_word_embeddings"] is False
    again = load_base_model(output, body=False)
    for side in ("input", "output", "bias"):
        np.testing.assert_array_equal(getattr(again.table, side), getattr(table, side))
    ids = np.random.default_rng(0).integers(5, 22, (2, 12))
    found = computed(output, ids)
    torch_output(output, ids, found)


def torch_output(output, ids, found) -> None:
    """Where PyTorch is installed, it gives the same logits."""
    pytest.importorskip("torch")
    causal = load_base_model(output, body=False).causal
    kind = "AutoModelForCausalLM" if causal else "AutoModelForMaskedLM"
    expected = parity.torch_output(kind, output, ids, np.ones_like(ids))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_second_copy_of_tied_rows_becomes_the_output_rows(tmp_path, target_folder):
    folder = tiny.base_folder(tmp_path / "base", tied=True, dtype="float32")
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"]}, folder / "model.safetensors")
    output = transfer(folder, target_folder, tmp_path / "out", method="weighted:untie=true")
    table = load_base_model(output, body=False).table
    assert table.output is not None and not np.array_equal(table.input, table.output)


def test_trained_values_of_a_model_that_becomes_untied(tmp_path):
    """Rows beyond the tokenizer's ids are in both tables, and the next program finds an untied model."""
    folder = tiny.base_folder(tmp_path / "base", tied=True, dtype="float32")
    tensors, config = load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())
    rows = tensors["model.embed_tokens.weight"]
    wider = np.concatenate([rows, np.full((4, rows.shape[1]), 7, np.float32)])
    save_file({**tensors, "model.embed_tokens.weight": wider}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": len(wider)}))
    base = load_base_model(folder, body=False)
    for name, table in (("untied", EmbeddingTable.of(rows, -rows)), ("tied", EmbeddingTable.of(-rows))):
        (tmp_path / name).mkdir()
        write_trained(tmp_path / name, base, table)
    again = load_base_model(tmp_path / "untied", body=False)
    np.testing.assert_array_equal(again.table.output, -rows)
    np.testing.assert_array_equal(again.table.input, rows)
    np.testing.assert_array_equal(
        load_file(tmp_path / "untied" / "model.safetensors")["lm_head.weight"][len(rows) :], wider[len(rows) :]
    )
    assert (tmp_path / "tied" / "config.json").read_bytes() == (folder / "config.json").read_bytes()
    assert "lm_head.weight" not in load_file(tmp_path / "tied" / "model.safetensors")


def test_models_that_cannot_get_output_rows(tmp_path, target_folder):
    folder = tiny.base_folder(tmp_path / "base", tied=True)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "falcon"}))
    for method in ("first_last", "weighted"):
        with pytest.raises(UserError, match=r"is a model of type 'falcon' whose output rows are its input rows \(tied\)"):
            transfer(folder, target_folder, tmp_path / "out", method=f"{method}:untie=true")
    encoder = parity.base_folder("bert-no_head", tmp_path / "encoder")
    with pytest.raises(UserError, match="has no head, so that it cannot get output rows"):
        transfer(encoder, target_folder, tmp_path / "out", method="first_last:untie=true")
    assert not (tmp_path / "out").exists()
