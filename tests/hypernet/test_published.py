"""Published hypernetworks: they compute what PyTorch and the original compute, and what is not known of them is refused."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypernet.golden import make_published as golden
from hypernet.published_folders import (
    FORMATS,
    base_with,
    characters,
    characters_into,
    compare,
    predict,
    stored,
    tokens_of,
    vocabulary_with,
    weights_of,
    write,
)
from safetensors.numpy import load_file

from zett.errors import UserError
from zett.hypernet.published import MSGPACK
from zett.hypernet.release import load_hypernet

pytestmark = pytest.mark.xdist_group("published")
SHARED = Path(__file__).parents[3] / "shared" / "data" / "published_checkpoints"
SAMPLES = sorted(p.name for p in SHARED.iterdir() if p.is_dir()) if SHARED.is_dir() else []


# --------------------------------------------------------------------------------------------------------------- parity


@pytest.mark.parametrize("file", FORMATS)
@pytest.mark.parametrize("case", golden.CASES)
def test_parity(folder, case, file):
    given = stored(case)
    hypernet = load_hypernet(folder(case, file))
    table = predict(hypernet, given)
    assert (table.output is None, table.bias is None) == ((case == "encoder"), case != "encoder")
    compare(table, given)
    assert np.abs(table.input).max() > 0.5 and np.ptp(table.input, 0).min() > 0.1


@pytest.mark.parametrize("case", golden.CASES)
def test_the_golden_files_are_what_torch_computes(case):
    pytest.importorskip("torch")
    for name, value in golden.case(case)[1].items():
        np.testing.assert_allclose(stored(case)[name], value, atol=1e-5, err_msg=name)


@pytest.mark.skipif(not SAMPLES, reason=f"no published checkpoints in {SHARED}")
@pytest.mark.parametrize("file", FORMATS)
@pytest.mark.parametrize("sample", SAMPLES)
def test_parity_with_the_original(tmp_path, sample, file):
    (tmp_path / file).symlink_to(SHARED / sample / file)
    (tmp_path / "config.json").symlink_to(SHARED / sample / "config.json")
    characters_into(tmp_path, json.loads((tmp_path / "config.json").read_text()))
    given = load_file(SHARED / sample / "expected.safetensors")
    compare(predict(load_hypernet(tmp_path), given), given)


@pytest.mark.parametrize("case", ["decoder", "encoder"])
def test_chunks_do_not_matter_nor_what_is_cut_off(folder, case):
    given, hypernet = stored(case), load_hypernet(folder(case))
    for chunk in (1, 5, 64):
        compare(predict(hypernet, given, chunk=chunk), given)
    full = (given["surface_forms"] != 1).all(1)
    longer = np.pad(given["surface_forms"], ((0, 0), (0, 3)), constant_values=1)
    longer[full, 5:] = 7
    assert full.any()
    compare(predict(hypernet, given | {"surface_forms": longer}), given)


def test_half_precision_files(tmp_path, folder):
    """Weights are stored as they come; in float32 they differ by their rounding alone."""
    import ml_dtypes

    config, given = json.loads((folder("single") / "config.json").read_text()), stored("single")
    for dtype in (np.float16, ml_dtypes.bfloat16):
        rounded = {name: x.astype(dtype) for name, x in weights_of(given).items()}
        made = [write(tmp_path / f"{dtype.__name__}-{file}", config, rounded, file) for file in FORMATS]
        tables = [predict(load_hypernet(path), given) for path in made]
        np.testing.assert_array_equal(tables[0].input, tables[1].input)
        np.testing.assert_allclose(tables[0].input, given["predicted_in"], atol=0.3)


# ---------------------------------------------------------------------------------------------------- bias and languages


def test_a_bias_is_predicted_for_masked_models_alone(folder):
    decoder, encoder, given = load_hypernet(folder("decoder")), load_hypernet(folder("encoder")), stored("encoder")
    assert golden.CONFIG["hn_predict_bias"] and not decoder.config.bias and "bias" not in decoder.params
    assert encoder.config.bias and predict(encoder, given).bias is not None
    without = dataclasses.replace(encoder, config=dataclasses.replace(encoder.config, bias=False), params=encoder.params)
    del without.params["bias"]
    assert predict(without, given).bias is None
    # A masked model whose hypernetwork has no head for it gets the mean of the pieces' biases.
    target = vocabulary_with((*tokens_of([[3, 5], [44, 2]]), b"", b""), mask=2)
    made = without(base_with(given, without, np.arange(40, dtype=np.float32), mask=9), target, language="fr")
    np.testing.assert_allclose(made.bias, [4.0, 2.0, 9.0, np.arange(40).mean()])
    np.testing.assert_array_equal(made.input[2], given["source_embeddings"][9])


def test_languages(folder):
    """By code or by number; "7" is a code here."""
    given, hypernet = stored("encoder"), load_hypernet(folder("encoder"))
    tables = [predict(hypernet, given, language=language).input for language in ("de", "fr", "7")]
    assert np.abs(tables[0] - tables[1]).max() > 0.1 < np.abs(tables[1] - tables[2]).max()
    for language, same in ((0, 0), ("0", 0), (1, 1), (7, 2), (2, 2)):
        np.testing.assert_array_equal(predict(hypernet, given, language=language).input, tables[same])
    for language, message in (
        (None, r"needs a language \(--language\): one of de, fr, 7, or a number from 0 to 2"),
        ("it", "does not know the language 'it': one of de, fr, 7"),
        (3, "does not know the language 3"),
        (-1, "does not know the language -1"),
    ):
        with pytest.raises(UserError, match=message):
            predict(hypernet, given, language=language)
    with pytest.raises(UserError, match="has no languages; leave language"):
        predict(load_hypernet(folder("decoder")), stored("decoder"), language="de")


def test_languages_without_codes_have_numbers(tmp_path, folder):
    config = json.loads((folder("encoder") / "config.json").read_text())
    del config["langs"]
    made = load_hypernet(write(tmp_path / "made", config, weights_of(stored("encoder"))))
    assert made.config.languages == ("0", "1", "2")
    compare(predict(made, stored("encoder"), language="2"), stored("encoder"))


# ------------------------------------------------------------------------------------------- what is not as it should be


@pytest.mark.parametrize(
    "change, message",
    [
        ({"hn_model_type": "t5"}, "hn_model_type is 't5'; only 'roberta' is supported"),
        ({"hn_model_name_or_path": "gpt2"}, "hn_model_name_or_path is 'gpt2'; only 'roberta-base'"),
        ({"hn_embed_using_source_embeddings": False}, "hn_embed_using_source_embeddings is False; only True"),
        ({"hn_embed_target_priors": True}, "hn_embed_target_priors is True"),
        ({"hn_add_inter_token_attention": True}, "hn_add_inter_token_attention is True"),
        ({"hn_concat_last_hidden_state": True}, "hn_concat_last_hidden_state is True"),
        ({"hn_language_adapter_bottleneck_dim": 8}, "hn_language_adapter_bottleneck_dim is 8; only 0"),
        ({"hn_new_idea": 1}, "hn_new_idea is not a field of published hypernetworks"),
        ({"hn_hidden_size": "16"}, "hn_hidden_size is '16'; it has to be a whole number of at least 1"),
        ({"hn_n_layers": None}, "hn_n_layers is None; it has to be a whole number"),
        ({"n_embd": 0}, "n_embd is 0; it has to be a whole number of at least 1"),
        ({"hn_n_extra_tokens": -1}, "hn_n_extra_tokens is -1; it has to be a whole number of at least 0"),
        ({"hn_single_head": 1}, "hn_single_head is 1; it has to be true or false"),
        ({"hn_num_attention_heads": 5}, r"hn_hidden_size is 16, which is not a multiple of hn_num_attention_heads \(5\)"),
        ({"hn_num_attention_heads": None}, r"not a multiple of hn_num_attention_heads \(0\)"),  # a head for every 64 columns
        ({"langs": ["de", "de", "fr"]}, r"langs is .* list n_langs \(3\) different codes"),
        ({"langs": "de"}, "langs is 'de'"),
        ({"n_langs": 2}, r"it has to list n_langs \(2\)"),
        ({"hn_surface_maxlen": 20}, "position_embeddings.embedding has 12 rows for hn_surface_maxlen 20"),
        ({"hn_n_layers": 3}, "model.encoder.layer.2.attention.self.query.kernel is missing"),
        ({"hn_n_layers": 1}, "model.encoder.layer.1.attention.output.LayerNorm.bias is not known"),
        ({"n_embd": 7}, r"input_projection.0.kernel is \[6, 16\], not \[7, 16\]"),
    ],
)
def test_configs_that_are_refused(tmp_path, folder, change, message):
    """By the name of the field, or of the tensors that do not fit it; and in the file."""
    config = json.loads((folder("encoder") / "config.json").read_text()) | change
    write(tmp_path, config, weights_of(stored("encoder")))
    with pytest.raises(UserError, match=message) as raised:
        load_hypernet(tmp_path)
    assert str(tmp_path) in str(raised.value)


def test_fields_of_the_base_model_say_nothing(tmp_path, folder):
    config = json.loads((folder("decoder") / "config.json").read_text())
    config |= {
        "rope_theta": 1e4,
        "hidden_act": "silu",
        "sliding_window": 4096,
        "hn_inter_token_attention_bias_by_priors": False,
    }
    compare(
        predict(load_hypernet(write(tmp_path, config, weights_of(stored("decoder")))), stored("decoder")), stored("decoder")
    )


@pytest.mark.parametrize("file", FORMATS)
def test_tensors_that_do_not_fit(tmp_path, folder, file):
    """All are named at once."""
    config, weights = json.loads((folder("decoder") / "config.json").read_text()), weights_of(stored("decoder"))
    del weights["scaler.w"]
    weights["bias_projection.bias"] = np.zeros(2, np.float32)
    weights["model.pooler.dense.weight"] = np.zeros((16, 16), np.float32)
    with pytest.raises(UserError) as raised:
        load_hypernet(write(tmp_path, config, weights, file))
    for fault in ("scaler.w is missing", "bias_projection.bias is [2], not [1]", "model.pooler.dense.kernel is not known"):
        assert fault in str(raised.value)
    assert (MSGPACK in str(raised.value)) == (file == MSGPACK)


def test_another_base_model(folder, tmp_path):
    hypernet, given = load_hypernet(folder("decoder")), stored("decoder")
    for rows, message in (
        (given["source_embeddings"][:39], "made for a base model of 40 tokens; this one has 39"),
        (given["source_embeddings"][:, :5], "rows of width 5 and tied=False, not 6"),
    ):
        with pytest.raises(UserError, match=message):
            predict(hypernet, given | {"source_embeddings": rows})
    characters(50).save(str(tmp_path / "tokenizer.json"))
    another = dataclasses.replace(hypernet, folder=tmp_path)
    with pytest.raises(UserError, match="no row for the source id 49; its source tokenizer is another"):
        predict(another, given | {"surface_forms": np.full((1, 5), 49, np.int32)})
    with pytest.raises(UserError, match="tied=False"):
        hypernet(base_with(given, dataclasses.replace(hypernet, tied=True)), vocabulary_with([b"a"]))


def test_missing_files(tmp_path, folder):
    (tmp_path / "config.json").write_text((folder("decoder") / "config.json").read_text())
    with pytest.raises(UserError, match=r"model.safetensors or flax_model.msgpack is missing"):
        load_hypernet(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 9)
    with pytest.raises(UserError, match=r"model.safetensors is not a complete safetensors file"):
        load_hypernet(tmp_path)
    with pytest.raises(UserError, match="'someone/zett-hypernetwork', and on the Hugging Face Hub it could not be reached"):
        load_hypernet("someone/zett-hypernetwork")
