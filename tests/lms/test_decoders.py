"""The decoder families with RMSNorm against Transformers: golden files everywhere, fresh ones where PyTorch is installed."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from lms import parity
from safetensors.numpy import load_file, save_file

from zett.evaluate.tasks.bits_per_byte import BitsPerByte
from zett.lms import load_base_model
from zett.lms.family import FAMILIES, family_of, is_tied
from zett.lms.llama import LlamaConfig
from zett.lms.phi3 import Phi3Config
from zett.lms.rope import Rope

VARIANTS = list(parity.make.DECODERS)


@pytest.mark.parametrize("variant", parity.by_family(VARIANTS))
def test_parity(variant, tmp_path):
    parity.check_parity(variant, tmp_path, apart=variant in ("llama-dynamic", "phi3-longrope"))


@pytest.mark.slow
def test_golden_files_are_those_of_this_transformers():
    parity.check_golden_files(VARIANTS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant", ["llama-gqa", "gemma-tied", "gemma2-tied", "gemma3_text-tied", "phi3-longrope", "olmo2-plain", "qwen3-window"]
)
def test_bfloat16(variant, tmp_path):
    parity.check_bfloat16(variant, tmp_path)


def test_files_without_prefix(tmp_path):
    """As the classes without head write them; with the frequencies that old ones carry."""
    folder = parity.base_folder("gemma-tied", tmp_path)
    whole = load_base_model(folder, remat="dots")
    assert nnx.merge(whole.graphdef, whole.params).remat == "dots"
    tensors = load_file(folder / "model.safetensors")
    tensors = {name.removeprefix("model."): value for name, value in tensors.items()}
    save_file(tensors | {"layers.0.self_attn.rotary_emb.inv_freq": np.ones(3)}, folder / "model.safetensors")
    bare = load_base_model(folder)
    assert bare.fingerprint == whole.fingerprint
    jax.tree.map(np.testing.assert_array_equal, bare.params, whole.params)


def test_causality_and_windows(tmp_path):
    base = load_base_model(parity.base_folder("mistral-window", tmp_path))
    run = jax.jit(lambda x: nnx.merge(base.graphdef, base.params)(x))
    x = np.asarray(base.table.embed(np.arange(16)[None]))
    changed = x.copy()
    changed[:, 3] = 1.0
    moved = np.abs(np.asarray(run(changed) - run(x))).max(-1)[0] > 1e-5
    # Two layers of five columns each, the column itself among them: the change reaches eight columns on.
    assert moved.tolist() == [False] * 3 + [True] * 9 + [False] * 4


def test_bits_per_byte_know_the_cap_of_the_logits(tmp_path):
    base = load_base_model(parity.base_folder("gemma3_text-softcap", tmp_path))
    assert base.config.logit_softcap == 3.0
    task = BitsPerByte()
    items = task.items(base, ["e t a o i n s h r d"])
    ids = np.arange(5, 15)[None]
    assert base.vocab.tokenizer.encode(items.texts[0]).ids == ids[0].tolist()
    x = jnp.concatenate([base.bos_row[None], base.table.embed(ids[0, :-1])])[None]
    products = np.asarray(nnx.merge(base.graphdef, base.params)(x))[0] @ np.asarray(base.table.output_rows).T
    assert np.abs(products).max() > 4
    logits = 3.0 * np.tanh(products / 3.0)
    expected = (np.log(np.exp(logits).sum(-1)) - logits[np.arange(10), ids[0]]).sum()
    assert task.score(base, items)[0] * np.log(2) == pytest.approx(expected, rel=1e-4)


# ---------------------------------------------------------------------------------------------------------- configs

SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4, "num_attention_heads": 4}
LONGROPE = {"short_factor": [1.0, 2.0], "long_factor": [3.0, 4.0]}
# As files that Transformers 4 or the publishers wrote have it.
CONFIGS = [
    *[(kind, {}) for kind in FAMILIES],
    ("llama", {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}, "num_key_value_heads": 2}),
    ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1, "high_freq_factor": 4}}),
    ("mistral", {"sliding_window": None, "head_dim": 8}),
    ("qwen2", {"use_sliding_window": True, "max_window_layers": 2, "sliding_window": 9}),
    ("qwen3", {"use_sliding_window": False, "sliding_window": 9, "max_window_layers": 0, "head_dim": 8}),
    ("gemma", {"hidden_act": "gelu", "hidden_activation": None, "head_dim": 8}),
    ("gemma2", {"final_logit_softcapping": None, "sliding_window": 7}),
    ("gemma3_text", {"rope_theta": 1e6, "rope_local_base_freq": 500.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
    ("gemma3_text", {"sliding_window_pattern": 2, "sliding_window": 9, "query_pre_attn_scalar": 144}),
    ("phi3", {"rope_scaling": {"type": "longrope", **LONGROPE}, "max_position_embeddings": 131072, "sliding_window": 9,
              "original_max_position_embeddings": 4096}),
    ("phi3", {"rope_scaling": {"type": "longrope", **LONGROPE}, "original_max_position_embeddings": 1024}),
    ("smollm3", {"no_rope_layers": [1, 0, 1, 0], "use_sliding_window": True, "sliding_window": 8}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "fields"), CONFIGS)
def test_configs_mean_what_transformers_makes_of_them(kind, fields):
    transformers = pytest.importorskip("transformers")
    own = {**SMALL, **fields}
    theirs = transformers.AutoConfig.for_model(kind, **{k: dict(v) if isinstance(v, dict) else v for k, v in own.items()})
    family = family_of({"model_type": kind})
    if not kind.startswith(("gpt", "bert", "roberta", "xlm", "modern", "starcoder")):
        assert family.Config.from_hf(own) == family.Config.from_hf(theirs.to_dict())
    assert is_tied({"model_type": kind}) == is_tied(theirs.to_dict())


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("llama", {"hidden_act": "swiglu"}, "hidden_act is 'swiglu'; supported: "),
        ("llama", {"rope_scaling": {"rope_type": "proportional"}}, "rope type 'proportional' is not supported"),
        ("llama", {"rope_scaling": {"type": "linear"}}, "rope type 'linear' needs factor"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ("qwen3", {"layer_types": ["sliding_attention"] * 4}, "there is no sliding_window"),
        ("qwen2", {"layer_types": ["full_attention"] * 3}, "layer_types has 3 entries"),
        ("gemma2", {"layer_types": ["chunked_attention"] * 4}, "chunked_attention"),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is set"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "use_bidirectional_attention is set"),
        (
            "phi3",
            {"rope_scaling": {"type": "su", "short_factor": [1.0], "long_factor": [1.0]}},
            "short_factor has 1 numbers; heads of width 4 need 2",
        ),
    ],
)
def test_settings_that_are_not_computed_are_refused(kind, fields, message):
    with pytest.raises(ValueError, match=message):
        family_of({"model_type": kind}).Config.from_hf({**SMALL, "max_position_embeddings": 64, **fields})


def test_old_names_of_longrope():
    config = Phi3Config
    old, new = (config.from_hf({**SMALL, "rope_scaling": {"type": kind, **LONGROPE}}) for kind in ("su", "longrope"))
    assert old == new and dict(new.rope.scaling)["original_max_position_embeddings"] == 4096


def test_llama_config_round_trip():
    config = LlamaConfig
    for variant in VARIANTS:
        if variant.startswith("llama"):
            _, hf_config, _ = parity.read_golden(variant)
            assert config.from_hf(config.from_hf(hf_config).to_hf()) == config.from_hf(hf_config)


def test_rope_that_depends_on_length():
    scaling = (("factor", 4.0), ("rope_type", "dynamic"))
    short, _ = Rope(100.0, scaling=scaling).frequencies(8, 32, jnp.arange(32)[None])
    np.testing.assert_allclose(short, 100.0 ** -(np.arange(4) / 4), rtol=1e-5)
    long, _ = Rope(100.0, scaling=scaling).frequencies(8, 32, jnp.arange(64)[None])
    np.testing.assert_allclose(long, (100.0 * 5 ** (8 / 6)) ** -(np.arange(4) / 4), rtol=1e-5)
    _, factor = Rope(scaling=(("factor", None), ("original_max_position_embeddings", 16), ("rope_type", "yarn"))).frequencies(
        8, 64, None
    )
    assert factor == pytest.approx(0.1 * math.log(4) + 1)
