"""BERT, RoBERTa, XLM-R, ModernBERT and sentence-embedding models against Transformers, and their transfer."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from lms import parity
from safetensors.numpy import load_file, save_file

from zett.errors import UserError
from zett.lms import load_base_model
from zett.lms.family import family_of
from zett.lms.pooling import pool, pooling_mode
from zett.lms.roberta import follow_padding
from zett.transfer import transfer

VARIANTS = parity.variants("bert", "roberta", "xlm-roberta", "modernbert")


@pytest.mark.parametrize("variant", parity.by_family(VARIANTS))
def test_parity(variant, tmp_path):
    parity.check_parity(variant, tmp_path)


@pytest.mark.slow
def test_golden_files_are_those_of_this_transformers():
    parity.check_golden_files(VARIANTS)


@pytest.mark.parametrize("variant", ["bert-masked_lm", "roberta-padding_id", "modernbert-masked_lm"])
def test_bfloat16_and_padding(variant, tmp_path):
    parity.check_bfloat16(variant, tmp_path)
    parity.check_padding(load_base_model(tmp_path))


def test_length(tmp_path):
    base = load_base_model(parity.base_folder("roberta-padding_id", tmp_path))
    with pytest.raises(ValueError, match="texts of 17 tokens, but the model has positions for 16"):
        jax.eval_shape(nnx.merge(base.graphdef, base.params), np.zeros((1, 17, 16), np.float32))


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("bert", parity.SHAPE),
        ("bert", {**parity.SHAPE, "hidden_act": "gelu_new", "type_vocab_size": 1, "max_position_embeddings": 99}),
        ("roberta", parity.SHAPE),
        ("xlm-roberta", {**parity.SHAPE, "pad_token_id": 7, "layer_norm_eps": 1e-5}),
        ("modernbert", parity.SHAPE),
        ("modernbert", {**parity.SHAPE, "global_attn_every_n_layers": 2, "global_rope_theta": 1e3, "local_rope_theta": 50.0}),
        ("modernbert", {**parity.SHAPE, "local_attention": 8, "norm_bias": True, "decoder_bias": False}),
    ],
)
def test_configs_mean_what_transformers_makes_of_them(kind, fields):
    parity.check_config(kind, fields)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("bert", {"is_decoder": True}, "is_decoder is true"),
        ("roberta", {"add_cross_attention": True}, "add_cross_attention is true"),
        ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ("xlm-roberta", {"pad_token_id": None}, "pad_token_id is null"),
        ("modernbert", {"hidden_activation": "mish"}, "mish"),
        ("modernbert", {"layer_types": ["full_attention"]}, "layer_types"),
    ],
)
def test_settings_that_are_not_computed_are_refused(kind, change, message):
    with pytest.raises(ValueError, match=message):
        family_of({"model_type": kind}).Config.from_hf({**parity.SHAPE, **change})


# ----------------------------------------------------------------------------------------------------------------- files


def old_file(folder, tensors: dict) -> None:
    """A file as the first BERTs have it: TensorFlow's names of norms, copies, buffers, and weights of other heads."""
    renamed = {}
    for name, value in tensors.items():
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        renamed[name] = value
    renamed["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"].copy()
    renamed["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"].copy()
    renamed["bert.embeddings.position_ids"] = np.arange(16)[None]
    renamed["bert.pooler.dense.weight"] = np.ones((16, 16), np.float32)
    renamed["bert.pooler.dense.bias"] = np.ones(16, np.float32)
    renamed["cls.seq_relationship.weight"] = np.ones((2, 16), np.float32)
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})


def test_names_that_files_have(tmp_path):
    plain = load_base_model(parity.base_folder("bert-masked_lm", tmp_path / "plain"))
    tensors = load_file(tmp_path / "plain" / "model.safetensors")
    folder = parity.base_folder("bert-masked_lm", tmp_path / "old")
    old_file(folder, tensors)
    old = load_base_model(folder)
    assert jax.tree.all(jax.tree.map(np.array_equal, plain.params, old.params))
    np.testing.assert_array_equal(old.table.bias, tensors["cls.predictions.bias"])
    assert old.table.output is None and len(old.names.output) == 1 and len(old.names.bias) == 2

    # Its encoder alone, with its prefix and without.
    encoder = {k: v for k, v in tensors.items() if k.startswith("bert.")}
    save_file(encoder, folder / "model.safetensors")
    with_prefix = load_base_model(folder)
    save_file({k.removeprefix("bert."): v for k, v in encoder.items()}, folder / "model.safetensors")
    without = load_base_model(folder)
    assert jax.tree.all(jax.tree.map(np.array_equal, with_prefix.params, without.params))
    assert not without.config.head and without.table.bias is None and "head" not in without.params

    save_file({**encoder, "cls.predictions.bias": tensors["cls.predictions.bias"]}, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"missing: cls\.predictions\.transform\.LayerNorm\.bias"):
        load_base_model(folder)
    save_file({**tensors, "cls.predictions.decoder.bias": np.zeros(32, np.float32)}, folder / "model.safetensors")
    with pytest.raises(UserError, match="should be the same, but differ"):
        load_base_model(folder)


def test_untied_the_output_layers_own_bias_counts(tmp_path):
    tensors = load_file(parity.base_folder("bert-switches", tmp_path) / "model.safetensors")
    used, unused = tensors["cls.predictions.decoder.bias"], tensors["cls.predictions.bias"]
    assert not np.array_equal(used, unused)
    np.testing.assert_array_equal(load_base_model(tmp_path, body=False).table.bias, used)


# -------------------------------------------------------------------------------------------------------------- transfer


def ours(folder, ids, mask) -> np.ndarray:
    """Logits, or hidden states of a model without head."""
    base = load_base_model(folder)
    body = nnx.merge(base.graphdef, base.params)
    h = jax.jit(body)(base.table.embed(jnp.asarray(ids)), mask_BL=jnp.asarray(mask, bool))
    return np.asarray(h if not base.config.head else base.table.unembed(h))


PADDED = np.concatenate([parity.make.MASK[:, ::-1], parity.make.MASK])


@pytest.mark.parametrize(
    ("variant", "order"),
    [
        ("bert-masked_lm", "moved"),
        ("bert-switches", "moved"),
        ("modernbert-masked_lm", "moved"),
        ("roberta-masked_lm", "moved"),
        ("roberta-padding_id", "first"),
        ("xlm-roberta-masked_lm", "absent"),
        ("xlm-roberta-no_head", "moved"),
    ],
)
def test_transfer_to_the_same_tokens_with_other_ids(variant, order, tmp_path):
    """All rows are shared, so that everything has to stay as it was, padding and positions too; in PyTorch and here."""
    pytest.importorskip("torch")
    folder = parity.torch_folder(variant, tmp_path / "base")
    padding = json.loads((folder / "config.json").read_text())["pad_token_id"]
    source = list(parity.TOKENS)
    source[0], source[padding] = source[padding], source[0]  # where the config has it
    parity.save_tokenizer(folder, source)
    target = {"moved": source[::-1], "first": ["[PAD]", *(t for t in source if t != "[PAD]")]}
    target["absent"] = [token for token in source if token != "[PAD]"]
    tokens = target[order]
    output = transfer(folder, parity.save_tokenizer(tmp_path / "target", tokens), tmp_path / "out", method="fvt")

    kind = "AutoModel" if "no_head" in variant else "AutoModelForMaskedLM"
    mask = PADDED if order != "absent" else PADDED[[0, 1, 5]]  # nothing pads at the left without a padding token
    ids = np.random.default_rng(0).choice([i for i in range(32) if i != padding], mask.shape)
    old = parity.torch_output(kind, folder, np.where(mask, ids, padding), mask)
    new_of = np.asarray([tokens.index(token) if token in tokens else 0 for token in source])
    new_ids = np.where(mask, new_of[ids], new_of[padding])
    new = parity.torch_output(kind, output, new_ids, mask)
    if kind != "AutoModel":
        old = old[..., [source.index(token) for token in tokens]]
    real = mask.astype(bool)
    np.testing.assert_allclose(new[real], old[real], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ours(output, new_ids, mask)[real], old[real], rtol=1e-4, atol=1e-4)
    if order != "absent":  # and back again
        back = transfer(output, folder, tmp_path / "back", method="fvt")
        old_ids = np.where(mask, ids, padding)
        np.testing.assert_allclose(ours(back, old_ids, mask)[real], ours(folder, old_ids, mask)[real], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["fvt", "mean", "random"])
def test_transfer_rewrites_every_copy(method, tmp_path):
    folder = parity.base_folder("bert-masked_lm", tmp_path / "base")
    old_file(folder, load_file(folder / "model.safetensors"))
    target = parity.save_tokenizer(tmp_path / "target", [*parity.TOKENS[:20], "the", "cat"])
    output = transfer(folder, target, tmp_path / "out", method=method)
    before, after = (load_file(f / "model.safetensors") for f in (folder, output))
    rows = {"bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"}
    biases = {"cls.predictions.bias", "cls.predictions.decoder.bias"}
    assert before.keys() == after.keys()
    for name, value in before.items():
        if name in rows | biases:
            assert after[name].shape[0] == 22 and np.array_equal(after[name], after[min(rows if name in rows else biases)])
            np.testing.assert_array_equal(after[name][:20], value[:20])
        else:
            np.testing.assert_array_equal(after[name], value)
    config = json.loads((output / "config.json").read_text())
    assert config["vocab_size"] == 22 and config["pad_token_id"] == 0
    assert load_base_model(output).table.bias.shape == (22,)


def test_the_table_of_positions_follows_the_padding_id():
    positions = np.arange(1, 6, dtype=np.float32)[:, None]  # padding's row, 2, is the padding id 1's
    for new, expected in [(1, [1, 2, 3, 4, 5]), (0, [2, 3, 4, 5]), (3, [0, 0, 0, 2, 3, 4, 5]), (None, [3, 4, 5])]:
        moved, fields = follow_padding(positions, 1, new)
        assert moved[:, 0].tolist() == expected
        if new != 1:
            assert fields == {"pad_token_id": -1 if new is None else new, "max_position_embeddings": len(expected)}
    assert follow_padding(positions[2:], -1, 2)[0][:, 0].tolist() == [0, 0, 0, 3, 4, 5]


def test_sentence_embeddings(tmp_path):
    torch = pytest.importorskip("torch")
    folder = parity.torch_folder("bert-no_head", tmp_path / "base")
    switches = {"word_embedding_dimension": 16, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(switches))
    modules = [{"idx": 0, "name": "0", "path": ""}, {"idx": 1, "name": "1", "path": "1_Pooling"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 16}')
    parity.save_tokenizer(folder)
    target = parity.save_tokenizer(tmp_path / "target", parity.TOKENS[::-1])
    output = transfer(folder, target, tmp_path / "out", method="fvt")
    for name in ("1_Pooling/config.json", "modules.json", "sentence_bert_config.json"):
        assert (output / name).read_bytes() == (folder / name).read_bytes()
    mask = parity.make.MASK[[0, 2]]
    ids = np.where(mask, np.random.default_rng(0).integers(1, 32, mask.shape), 0)
    embeddings = {}
    for where, used in ((folder, ids), (output, 31 - ids)):
        h = torch.from_numpy(parity.torch_output("AutoModel", where, used, mask))
        weight = torch.from_numpy(mask)[..., None]
        theirs = (h * weight).sum(1) / weight.sum(1)
        embeddings[where] = np.asarray(pool(jnp.asarray(ours(where, used, mask)), jnp.asarray(mask), pooling_mode(where)))
        np.testing.assert_allclose(embeddings[where], theirs, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(embeddings[folder], embeddings[output], rtol=1e-4, atol=1e-4)


def test_pooling_by_hand(tmp_path):
    h = jnp.asarray([[[1.0], [5.0], [3.0], [9.0]]])
    mask = jnp.asarray([[False, True, True, False]])
    assert [float(pool(h, mask, mode)[0, 0]) for mode in ("mean", "cls", "max", "last")] == [4.0, 5.0, 5.0, 3.0]
    (tmp_path / "1_Pooling").mkdir()
    for switches, message in [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, "pooling_mode_mean_tokens and pooling_mode_cls"),
        ({"pooling_mode_weightedmean_tokens": True}, "pooling_mode_weightedmean_tokens is not computed"),
        ({}, "no mode"),
    ]:
        (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(switches))
        with pytest.raises(UserError, match=message):
            pooling_mode(tmp_path)
