"""The Llama port against Transformers: golden files everywhere, fresh ones where PyTorch is installed."""

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors import safe_open

from zett.lms import llama, weights
from zett.table import EmbeddingTable

GOLDEN = Path(__file__).parent / "golden"
VARIANTS = sorted(path.stem.removeprefix("llama_") for path in GOLDEN.glob("llama_*.safetensors"))


def read_golden(variant: str) -> tuple[dict[str, np.ndarray], dict]:
    with safe_open(GOLDEN / f"llama_{variant}.safetensors", framework="numpy") as f:
        return {name: f.get_tensor(name) for name in f.keys()}, json.loads(f.metadata()["config"])


def load(tensors: dict, hf_config: dict, folder: Path):
    """The port's body and table from Hugging Face tensors, by way of a safetensors file."""
    weights.write_tensors(folder / "model.safetensors", {k: v for k, v in tensors.items() if "golden" not in k}, {})
    config = llama.LlamaConfig.from_hf(hf_config)
    graphdef, abstract = nnx.split(nnx.eval_shape(lambda: llama.LlamaBody(config, rngs=nnx.Rngs(0))))
    shapes = {path: leaf.shape for path, leaf in weights.flatten(nnx.to_pure_dict(abstract)).items()}
    stored = weights.stored_tensors(folder)
    tied = hf_config["tie_word_embeddings"]
    weights.check_tensors(stored, llama, config, shapes, vocab_size=hf_config["vocab_size"], tied=tied)
    rows = weights.read_tensor(stored, llama.INPUT_ROWS)
    output = None if tied else weights.read_tensor(stored, llama.OUTPUT_ROWS)
    return graphdef, weights.load_body(stored, llama, config, shapes), EmbeddingTable.of(rows, output)


def check_parity(tensors: dict, hf_config: dict, folder: Path):
    graphdef, params, table = load(tensors, hf_config, folder)
    ids, mask = tensors["golden.ids"], tensors["golden.mask"].astype(bool)

    @jax.jit
    def run(rows, params):
        used = EmbeddingTable.of(rows, table.output)
        h, hidden = nnx.merge(graphdef, params)(used.embed(ids), mask_BL=mask, keep_hidden=True)
        logits = used.unembed(h)
        scores = jnp.take_along_axis(jax.nn.log_softmax(logits)[:, :-1], ids[:, 1:, None], -1)[..., 0]
        return (scores * mask[:, 1:] * mask[:, :-1]).sum(), (logits, hidden)

    with jax.default_matmul_precision("highest"):  # an accelerator's default is less than float32
        (_, (logits, hidden)), gradient = jax.value_and_grad(run, has_aux=True)(jnp.asarray(table.input), params)
    # What a model computes at padding is nobody's business, and differs.
    np.testing.assert_allclose(logits[mask], tensors["golden.logits"][mask], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(hidden[:, mask], tensors["golden.hidden"][:, mask], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(gradient, tensors["golden.input_gradient"], rtol=1e-4, atol=1e-4)


def test_there_are_golden_files():
    assert len(VARIANTS) >= 6


@pytest.mark.parametrize("variant", VARIANTS)
def test_parity_with_golden_files(variant, tmp_path):
    check_parity(*read_golden(variant), tmp_path)


def _make_llama():
    pytest.importorskip("torch")
    spec = importlib.util.spec_from_file_location("make_llama", GOLDEN / "make_llama.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_golden_files_are_those_of_this_transformers():
    make_llama = _make_llama()
    assert sorted(make_llama.VARIANTS) == VARIANTS
    for variant in VARIANTS:
        stored, _ = read_golden(variant)
        fresh, _ = make_llama.compute(variant)
        assert sorted(fresh) == sorted(stored)
        for name, value in fresh.items():
            note = f"{variant} {name}: renew with `python tests/golden/make_llama.py` if Transformers is right"
            np.testing.assert_allclose(value, stored[name], rtol=1e-4, atol=1e-4, err_msg=note)


def test_causality_and_padding_change_nothing(tmp_path):
    tensors, hf_config = read_golden("gqa")
    graphdef, params, table = load(tensors, hf_config, tmp_path)
    body = nnx.merge(graphdef, params)
    x = jnp.asarray(table.input)[tensors["golden.ids"][:1]]
    h = body(x)
    np.testing.assert_allclose(body(x.at[:, 6:].set(1.0))[:, :6], h[:, :6], atol=1e-5)
    padded = jnp.concatenate([jnp.full_like(x[:, :4], 3.0), x, jnp.full_like(x[:, :2], 3.0)], 1)
    mask = np.zeros((1, padded.shape[1]), bool)
    mask[:, 4:-2] = True
    np.testing.assert_allclose(body(padded, mask_BL=mask)[:, 4:-2], h, atol=1e-5)


def test_scanned_layers_are_unrolled_layers(tmp_path, monkeypatch):
    from zett.lms import layers

    tensors, hf_config = read_golden("gqa")
    graphdef, params, table = load(tensors, hf_config, tmp_path)
    x = jnp.asarray(table.input)[tensors["golden.ids"]]
    unrolled = nnx.merge(graphdef, params)(x)
    monkeypatch.setattr(layers, "UNROLLED", 0)
    np.testing.assert_allclose(nnx.merge(graphdef, params)(x), unrolled, atol=1e-5)


def test_config_round_trip_and_old_spelling():
    for variant in VARIANTS:
        _, hf_config = read_golden(variant)
        config = llama.LlamaConfig.from_hf(hf_config)
        assert llama.LlamaConfig.from_hf(config.to_hf()) == config
    old = {**hf_config, "rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
    del old["rope_parameters"]
    new = {**hf_config, "rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0}}
    theirs, ours = (llama.inverse_frequencies(llama.LlamaConfig.from_hf(c)) for c in (old, new))
    np.testing.assert_array_equal(theirs, ours)


@pytest.mark.parametrize("change", [{"hidden_act": "gelu"}, {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}])
def test_settings_that_are_not_computed_are_refused(change):
    _, hf_config = read_golden("gqa")
    with pytest.raises(ValueError, match=r"gelu|yarn"):
        llama.LlamaConfig.from_hf({**hf_config, **change})
