"""Published hypernetworks: they compute what PyTorch and the original compute, and whatever else is in the files is refused."""

import dataclasses
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

sys.path.insert(0, str(Path(__file__).parent / "golden"))
import make_published as golden

from zett import cli
from zett.errors import UserError
from zett.export import export
from zett.hypernet.flax_msgpack import read_arrays
from zett.hypernet.published import MSGPACK
from zett.hypernet.release import load_hypernet
from zett.lms import load_base_model
from zett.lms.folder import save_base_model
from zett.table import EmbeddingTable
from zett.transfer import transfer
from zett.vocab import SurfaceForms, load_tokenizer
from zett.vocab.bytes import to_alphabet
from zett.vocab.train import save_tokenizer, train_tokenizer

pytestmark = pytest.mark.xdist_group("compat")
SHARED = Path(__file__).parents[2] / "shared" / "data" / "published_checkpoints"
SAMPLES = sorted(p.name for p in SHARED.iterdir() if p.is_dir()) if SHARED.is_dir() else []
FORMATS = ("model.safetensors", MSGPACK)


# ------------------------------------------------------------------------------------------------------ folders to read


def stored(name: str) -> dict[str, np.ndarray]:
    return load_file(golden.FOLDER / f"published-{name}.safetensors")


def weights_of(tensors: dict) -> dict[str, np.ndarray]:
    return {name.removeprefix("weights."): x for name, x in tensors.items() if name.startswith("weights.")}


def write(folder: Path, config: dict, weights: dict, file: str = "model.safetensors") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if file == MSGPACK:
        from flax.serialization import msgpack_serialize

        (folder / file).write_bytes(msgpack_serialize(golden.flax_tree(weights)))
    else:
        save_file({name: np.ascontiguousarray(x) for name, x in weights.items()}, folder / file)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of each golden case and format, by (case, format)."""
    root = tmp_path_factory.mktemp("published")
    made: dict = {}

    def of(case: str, file: str = "model.safetensors") -> Path:
        if (case, file) not in made:
            config = golden.CONFIG | golden.CASES[case]
            made[case, file] = write(root / f"{case}-{file}", config, weights_of(stored(case)), file)
        return made[case, file]

    return of


def predict(hypernet, given: dict, *, pad: int = 1, **how) -> EmbeddingTable:
    """The table for given surface forms; with the bias of a masked language model where that is predicted."""
    pieces = given["surface_forms"]
    lengths, n = (pieces != pad).sum(1).astype(np.int32), len(pieces)
    forms = SurfaceForms(pieces, lengths, np.zeros((n, 5), np.float32), np.full(n, -1, np.int32))
    rows, d = given["source_embeddings"], hypernet.hidden_size
    bias = np.zeros(len(rows), np.float32) if hypernet.config.bias else None
    table = EmbeddingTable.of(rows[:, :d], None if hypernet.tied else rows[:, d:], bias)
    if hypernet.config.languages:
        how = {"language": int(given["lang_index"].reshape(-1)[0])} | how
    return hypernet(table, range(n), types.SimpleNamespace(tokens=[b"token"] * n), forms, **how)


def compare(table: EmbeddingTable, expected: dict) -> None:
    for name, rows in (("in", table.input), ("out", table.output), ("bias", table.bias)):
        if rows is not None:
            np.testing.assert_allclose(rows, expected[f"predicted_{name}"], atol=1e-5)


# --------------------------------------------------------------------------------------------------------------- parity


@pytest.mark.parametrize("file", FORMATS)
@pytest.mark.parametrize("case", golden.CASES)
def test_parity(folder, case, file):
    given = stored(case)
    hypernet = load_hypernet(folder(case, file))
    table = predict(hypernet, given, pad=1)
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
    given = load_file(SHARED / sample / "expected.safetensors")
    compare(predict(load_hypernet(tmp_path), given, pad=1), given)


@pytest.mark.parametrize("case", ["decoder", "encoder"])
def test_chunks_and_padding_do_not_matter(folder, case):
    given, hypernet = stored(case), load_hypernet(folder(case))
    for chunk in (1, 5, 64):
        compare(predict(hypernet, given, chunk=chunk), given)
    wider = np.pad(given["surface_forms"], ((0, 0), (0, 3)), constant_values=1)
    compare(predict(hypernet, given | {"surface_forms": wider}), given)


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
    pieces, lengths = np.asarray([[3, 5, 0, 0, 0], [44, 2, 0, 0, 0], [7, 0, 0, 0, 0], [0] * 5]), np.asarray([2, 2, 1, 0])
    same = np.asarray([-1, -1, 9, -1])
    forms = SurfaceForms(pieces.astype(np.int32), lengths, np.zeros((4, 5), np.float32), same)
    theirs = np.arange(40, dtype=np.float32)
    table = EmbeddingTable.of(given["source_embeddings"], None, theirs)
    made = without(table, range(40), types.SimpleNamespace(tokens=[b"a", b"b", b"", b""]), forms, language="fr")
    np.testing.assert_allclose(made.bias, [4.0, 2.0, 9.0, theirs.mean()])
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


def test_another_base_model(folder):
    hypernet, given = load_hypernet(folder("decoder")), stored("decoder")
    for rows, message in (
        (given["source_embeddings"][:39], "made for a base model of 40 tokens; this one has 39"),
        (given["source_embeddings"][:, :5], "made for rows of width 6"),
    ):
        with pytest.raises(UserError, match=message):
            predict(hypernet, given | {"source_embeddings": rows})
    with pytest.raises(UserError, match="no row for the source id 49; its source tokenizer is another"):
        predict(hypernet, given | {"surface_forms": np.full((1, 5), 49, np.int32)})
    with pytest.raises(UserError, match="tied=False"):
        hypernet(EmbeddingTable.of(given["source_embeddings"][:, :6]), range(40), None, None)


def test_missing_files(tmp_path, folder):
    (tmp_path / "config.json").write_text((folder("decoder") / "config.json").read_text())
    with pytest.raises(UserError, match=r"model.safetensors or flax_model.msgpack is missing"):
        load_hypernet(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 9)
    with pytest.raises(UserError, match=r"model.safetensors is not a complete safetensors file"):
        load_hypernet(tmp_path)
    with pytest.raises(UserError, match="'someone/zett-hypernetwork', and on the Hugging Face Hub it could not be reached"):
        load_hypernet("someone/zett-hypernetwork")


# -------------------------------------------------------------------------------------------------------------- msgpack


def packed(file: Path, value) -> Path:
    import msgpack

    file.write_bytes(value if isinstance(value, bytes) else msgpack.packb(value))
    return file


def array(shape, dtype: str = "float32", content: bytes | None = None):
    import msgpack

    content = b"\0" * int(np.prod(shape)) * 4 if content is None else content
    return msgpack.ExtType(1, msgpack.packb((shape, dtype, content)))


def test_msgpack_files_of_flax(tmp_path, monkeypatch):
    from flax import serialization

    rng = np.random.default_rng(0)
    tree = {
        "a": {"b": rng.normal(size=(3, 5)).astype(np.float32), "c": rng.normal(size=7), "empty": {}},
        "scalar": np.asarray(2.5, np.float16), "none": np.zeros((0, 4), np.float32), "big": np.zeros((300, 70), np.float32),
        "ünï" * 20: np.ones(1, np.float32), **{f"n{i}": np.full(2, i, np.float32) for i in range(20)},
    }  # fmt: skip
    expected = {"a.b": tree["a"]["b"], "a.c": tree["a"]["c"]} | {k: v for k, v in tree.items() if k != "a"}
    for largest in (2**30, 64):  # arrays above it are written in parts
        monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", largest)
        (tmp_path / "x").write_bytes(serialization.msgpack_serialize(dict(tree)))
        found = read_arrays(tmp_path / "x")
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name].dtype == value.dtype
            np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize(
    "value, message",
    [
        (b"", "not a complete Flax msgpack file"),
        (b"\x01", "does not begin with a map"),
        ({"a": array([2])} | {"b": 1}, "b is not an array"),
        ({"a": {"b": "text"}}, "a.b is not an array"),
        ({"a": True}, "a is not an array"),
        ({"a": 1.5}, "a is not an array"),
        ({"a": None}, "a is not an array"),
        ({"a": -3}, "a is not an array"),
        ({"a": [1, 2]}, "2 exceeds max_array_len"),
        ({"a": []}, "a is not an array"),
        ({"a": b"raw"}, "a is not an array"),
        ({"a": {"b": {b"c": array([1])}}}, "the key b'c' is no text"),
        ({1: array([1])}, "int is not allowed for map key"),
        (b"\x82\xa1a\x80\xa1a\x80", "the key 'a' is no text, or there twice"),
        ({"a": array([2], "object", b"\0" * 16)}, "dtype 'object'; supported: float64, float32"),
        ({"a": array([2], "|V8", b"\0" * 16)}, "supported: float64, float32"),
        ({"a": array([2], "int32")}, "dtype 'int32'"),
        ({"a": array([3], content=b"\0" * 8)}, r"an array of shape \[3\] and float32 with 8 bytes"),
        ({"a": array([2**40, 2**40], content=b"\0" * 8)}, "an array of shape"),
        ({"a": array([-1], content=b"")}, "whose shape is no list of sizes"),
        ({"a": array([2**64 - 1, 0], content=b"")}, "whose shape is no list of sizes"),
        ({"a": array([2**63 - 1, 0], content=b"")}, "not a complete Flax msgpack file"),
        ({"a": array([0] * 40, content=b"")}, "40 exceeds max_array_len"),
        ({"a": array([2], "float32", "four" * 2)}, "an array of shape"),
        ({"a": array([True], content=b"\0" * 4)}, "whose shape is no list of sizes"),
        ({"a": array("no", content=b"")}, "whose shape is no list"),
        ({"__msgpack_chunked_array__": True, "shape": {}, "chunks": {}}, "is not an array|do not make an array"),
        ({"a": {"__msgpack_chunked_array__": True, "shape": {"0": 3}, "chunks": {"0": array([2])}}}, "the parts of a do not"),
        ({"a": {"__msgpack_chunked_array__": True, "shape": array([2]), "chunks": {"0": array([2])}}}, "the parts of a do not"),
        (
            {"a": {"__msgpack_chunked_array__": True, "shape": {"0": 2**64 - 1}, "chunks": {"0": array([2])}}},
            "the parts of a do",
        ),
        (b"\xdf\xff\xff\xff\xff", "4294967295 exceeds max_map_len"),
        (b"\xde\xff\xff\xa1a", "65535 exceeds max_map_len"),
        (b"\xde\x00\xff\xa1a", "incomplete"),
        ({f"{i}": {f"{j}": 1 for j in range(1000)} for i in range(1000)}, "more entries than any network"),
        (b"\x81\xa1a" * 100, "incomplete"),
        (b"\x81\xa1a" * 100 + b"\x80", "nested deeper"),
        (b"\x81\xa1a" * 100_000 + b"\x80", "not a complete Flax msgpack file"),
        (b"\x91" * 100_000 + b"\x90", "exceeds max_array_len"),
        (b"\x81\xa1a\xdd\xff\xff\xff\xff", "4294967295 exceeds max_array_len"),
        (b"\x81\xdb\xff\xff\xff\xffa", "incomplete"),
        (b"\x81\xa1a\xc9\xff\xff\xff\xff\x01", "exceeds max_ext_len"),
        (b"\x81\xa1a\xd6\xff\x00\x00\x00\x00", "a is not an array"),  # a time
        (b"\x81\xa1a\xc1", "not a complete Flax msgpack file"),  # a tag that the format does not have
        (b"\x81\xa1a\xd4\x02\x00", "of the extension type 2"),
        (b"\x81\xa1\xff\x80", "not a complete Flax msgpack file"),  # not UTF-8
        (b"\x80\x00", "extra data"),
    ],
)
def test_msgpack_files_that_are_refused(tmp_path, value, message):
    with pytest.raises(UserError, match=message) as raised:
        read_arrays(packed(tmp_path / "x.msgpack", value))
    assert str(tmp_path / "x.msgpack") in str(raised.value)


@given(st.data())
@settings(max_examples=300, deadline=None, database=None)
def test_damaged_msgpack_files_are_refused_or_hold_arrays(tmp_path_factory, data):
    """Cut short, changed or random, a file never does anything but that."""
    import msgpack

    whole = msgpack.packb({"a": {"b": array([2, 2]), "c": array([3])}, "d": array([1])})
    kind = data.draw(st.sampled_from(["cut", "changed", "random"]))
    if kind == "random":
        content = data.draw(st.binary(max_size=60))
    elif kind == "cut":
        content = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        place = data.draw(st.integers(0, len(whole) - 1))
        content = whole[:place] + bytes([data.draw(st.integers(0, 255))]) + whole[place + 1 :]
    file = tmp_path_factory.getbasetemp() / "damaged.msgpack"
    file.write_bytes(content)
    try:
        found = read_arrays(file)
    except UserError as error:
        assert str(file) in str(error)
    else:
        assert kind != "cut" and all(isinstance(x, np.ndarray) and x.dtype.kind in "fV" for x in found.values())


# --------------------------------------------------------------------------------------------------- transfer and export

TEXTS = ["the cat sat on a mat and saw two dogs\n", "Straße naïve Ünïcödé мир 東京\n", "def f(x):\n    return x + 1\n"] * 20


def byte_level(tokenizer):
    """A SentencePiece BPE tokenizer with the same ids, over bytes; what that takes in addition has ids after them."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    spec = json.loads(tokenizer.to_str())
    special = {t["content"] for t in spec["added_tokens"]} | {spec["model"].get("unk_token")}
    spelled = {token: to_alphabet(token.replace("▁", " ").encode()) for token in spec["model"]["vocab"] if token not in special}
    for b in range(256):
        token, char = f"<0x{b:02X}>", to_alphabet(bytes([b]))
        if token in spelled:
            spelled[token] = token if char in spelled.values() or b >= 128 else char
    vocab = {spelled.get(token, token): i for token, i in spec["model"]["vocab"].items()}
    merges = []
    for char in sorted({c for token in spelled for c in token if not token.startswith("<0x")}):
        letters = to_alphabet(char.replace("▁", " ").encode())
        for n in range(2, len(letters) + 1):
            merges.append((letters[: n - 1], letters[n - 1]))
            vocab.setdefault(letters[:n], len(vocab))
    for b in range(256):
        vocab.setdefault(to_alphabet(bytes([b])), len(vocab))
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in spec["model"]["merges"]]
    merges += [(spelled[a], spelled[b]) for a, b in pairs]
    made = Tokenizer(models.BPE(vocab, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return made


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny Llama with a SentencePiece tokenizer, its hypernetwork in the published form, and a target tokenizer."""
    import jax
    from flax import nnx

    from zett.lms.llama import LlamaBody

    root = tmp_path_factory.mktemp("base")
    tokenizer = train_tokenizer("sentencepiece-bpe", 360, TEXTS)
    size, d, rng = tokenizer.get_vocab_size(), tiny.CONFIG.hidden_size, np.random.default_rng(0)
    body = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.split(LlamaBody(tiny.CONFIG, rngs=nnx.Rngs(0)))[1]))
    table = EmbeddingTable.of(*(rng.normal(size=(size, d)).astype(np.float32) for _ in range(2)))
    save_base_model(root / "model", tiny.CONFIG, body, table, tokenizer, dtype="float32", record={})
    shipped = byte_level(tokenizer)
    extra = shipped.get_vocab_size() - size
    assert extra > 10
    config = golden.CONFIG | {"n_embd": d, "original_vocab_size": size, "hn_n_extra_tokens": extra}
    given = golden.inputs(config, 5)
    write(root / "published", config, weights_of(given))
    shipped.save(str(root / "published" / "tokenizer.json"))
    (root / "published" / "LICENSE").write_text("theirs")
    save_tokenizer(train_tokenizer("unigram", 330, [text.upper() + "Ελλάδα 𝔘" for text in TEXTS]), root / "target")
    return root


@pytest.fixture(scope="module")
def transferred(base):
    return transfer(base / "model", base / "target", base / "transferred", hypernet=base / "published")


def test_transfer_with_a_published_one(base, transferred):
    """Against PyTorch, with surface forms by the tokenizers library and the shipped tokenizer."""
    pytest.importorskip("torch")
    import tokenizers

    config, weights = json.loads((base / "published" / "config.json").read_text()), load_file(base / "published" / FORMATS[0])
    shipped = tokenizers.Tokenizer.from_file(str(base / "published" / "tokenizer.json"))
    rows = load_file(base / "model" / "model.safetensors")
    target, source = load_tokenizer(base / "target"), load_tokenizer(base / "model")
    assert shipped.get_vocab_size() > len(source)
    forms = surface_forms_by_library(target, shipped)
    assert (forms >= len(source)).any(1).sum() > 5  # fallback rows are used
    embeddings = np.concatenate([rows["model.embed_tokens.weight"], rows["lm_head.weight"]], 1)
    given = {f"weights.{name}": x for name, x in weights.items()} | {"surface_forms": forms, "source_embeddings": embeddings}
    expected = golden.outputs(config, given)
    new = load_file(transferred / "model.safetensors")
    text = np.asarray([bool(t) for t in target.tokens])
    np.testing.assert_allclose(new["model.embed_tokens.weight"][text], expected["predicted_in"][text], atol=1e-5)
    np.testing.assert_allclose(new["lm_head.weight"][text], expected["predicted_out"][text], atol=1e-5)
    special = target.roles["eos"]
    np.testing.assert_array_equal(new["lm_head.weight"][special], rows["lm_head.weight"][source.roles["eos"]])


def surface_forms_by_library(target, tokenizer) -> np.ndarray:
    """Padded with 1."""
    forms = np.full((len(target), 5), 1, np.int32)
    for i, token in enumerate(target.tokens):
        ids = [piece.id for piece in tokenizer.model.tokenize(to_alphabet(token))][:5]
        forms[i, : len(ids)] = ids
    return forms


def test_transfer_of_a_masked_model(tmp_path):
    """XLM-R: tied rows, a language, and a bias for every token."""
    pytest.importorskip("torch")
    from lms import parity
    from tokenizers import Tokenizer, models, pre_tokenizers

    model = parity.base_folder("xlm-roberta-masked_lm", tmp_path / "base")
    theirs, source = load_file(model / "model.safetensors"), load_tokenizer(model)
    rows = theirs["roberta.embeddings.word_embeddings.weight"]
    vocab = {source.tokenizer.id_to_token(i): i for i in range(len(source))}
    for b in range(256):
        vocab.setdefault(to_alphabet(bytes([b])), len(vocab))
    shipped = Tokenizer(models.BPE(vocab, []))
    shipped.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    sizes = {"n_embd": rows.shape[1], "original_vocab_size": len(source), "hn_n_extra_tokens": len(vocab) - len(source)}
    config = golden.CONFIG | golden.CASES["encoder"] | sizes
    given = golden.inputs(config, 6)
    write(tmp_path / "published", config, weights_of(given), MSGPACK)
    shipped.save(str(tmp_path / "published" / "tokenizer.json"))
    tiny.tokenizer_folder(tmp_path / "target", size=300)
    output = transfer(model, tmp_path / "target", tmp_path / "out", hypernet=tmp_path / "published", language="7")
    target, new = load_tokenizer(tmp_path / "target"), load_file(output / "model.safetensors")
    forms = surface_forms_by_library(target, shipped)
    expected = golden.outputs(config, given | {"surface_forms": forms, "source_embeddings": rows})
    text = np.asarray([bool(t) for t in target.tokens])
    found = new["roberta.embeddings.word_embeddings.weight"]
    np.testing.assert_allclose(found[text], expected["predicted_in"][text], atol=1e-5)
    np.testing.assert_allclose(new["lm_head.bias"][text], expected["predicted_bias"][text], atol=1e-5)
    pad = target.roles["pad"], source.roles["pad"]
    np.testing.assert_array_equal(found[pad[0]], rows[pad[1]])
    assert new["lm_head.bias"][pad[0]] == theirs["lm_head.bias"][pad[1]]
    assert "--language 7" in (output / "README.md").read_text()


def test_export_computes_the_same(base, transferred, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["export", "--hypernet", str(base / "published"), "--output", str(base / "exported")])
    assert stopped.value.code == 0 and f"wrote {base / 'exported'}" in capsys.readouterr().out
    names = {"LICENSE", "README.md", "config.json", "model.safetensors", "source_tokenizer", "training.json"}
    assert {p.name for p in (base / "exported").iterdir()} == names
    again = transfer(base / "model", base / "target", base / "again", hypernet=base / "exported")
    assert (again / "model.safetensors").read_bytes() == (transferred / "model.safetensors").read_bytes()
    twice = export(base / "exported", base / "twice")
    for name in names - {"source_tokenizer"}:
        assert (twice / name).read_bytes() == (base / "exported" / name).read_bytes()
    with pytest.raises(UserError, match="exists and is not empty"):
        export(base / "published", base / "exported")
    export(base / "published", base / "exported", overwrite=True)


@pytest.mark.parametrize("case", golden.CASES)
def test_export_without_a_tokenizer(tmp_path, folder, case, caplog):
    made = export(folder(case), tmp_path / "made")
    assert "no source tokenizer" in caplog.text and "missing" in (made / "README.md").read_text()
    compare(predict(load_hypernet(made), stored(case)), stored(case))
    with pytest.raises(UserError, match=r"has no tokenizer\.json, the source tokenizer"):
        load_hypernet(made).table_for(None, None)


def test_the_shipped_tokenizer_decides(base, tmp_path):
    """Not the base model's: it is asked for, and another one's ids are noticed."""
    folder = tmp_path / "hypernet"
    folder.mkdir()
    for name in ("config.json", FORMATS[0]):
        (folder / name).write_bytes((base / "published" / name).read_bytes())
    with pytest.raises(UserError, match=r"has no tokenizer\.json, the source tokenizer that the hypernetwork was"):
        transfer(base / "model", base / "target", tmp_path / "out", hypernet=folder)
    config = json.loads((folder / "config.json").read_text())
    write(folder, config | {"hn_n_extra_tokens": 1}, weights_of(golden.inputs(config | {"hn_n_extra_tokens": 1}, 5)))
    (folder / "tokenizer.json").write_bytes((base / "published" / "tokenizer.json").read_bytes())
    with pytest.raises(UserError, match="no row for the source id"):
        transfer(base / "model", base / "target", tmp_path / "out", hypernet=folder)
    assert not (tmp_path / "out").exists()


def test_other_bases_are_refused(base, tmp_path):
    tiny.base_folder(tmp_path / "other")
    with pytest.raises(UserError, match="made for a base model of 354 tokens; this one has 300"):
        transfer(tmp_path / "other", base / "target", tmp_path / "out", hypernet=base / "published")
    tiny.base_folder(tmp_path / "tied", tied=True)
    with pytest.raises(UserError, match="tied=False"):
        transfer(tmp_path / "tied", base / "target", tmp_path / "out", hypernet=base / "published")


def test_languages_of_a_transfer(base, capsys):
    arguments = ["--model", str(base / "model"), "--tokenizer", str(base / "target"), "--output", str(base / "no")]
    for more, message in (
        (["--hypernet", str(base / "published"), "--language", "de"], "has no languages; leave language (--language) out"),
        (["--method", "fvt", "--language", "de"], "language is 'de', but method 'fvt' makes no use of it"),
    ):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["transfer", *arguments, *more])
        assert stopped.value.code == 2 and message in capsys.readouterr().err
    assert not (base / "no").exists()


def test_exports_that_cannot_be(base, tmp_path, capsys):
    cases = [
        (["--hypernet", str(tmp_path / "nowhere")], "no such hypernetwork folder"),
        (["--hypernet", str(base / "model")], "has format None; expected 'zett-hypernet-1'"),
        (["--hypernet", str(base / "published"), "--checkpoint", "first"], "argument --checkpoint: invalid choice: 'first'"),
        (["--hypernet", str(base / "published"), "--push", "me/mine"], "push to me/mine"),
    ]
    for arguments, message in cases:
        with pytest.raises(SystemExit) as stopped:
            cli.main(["export", "--output", str(tmp_path / "out"), *arguments])
        assert stopped.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_evaluation_reads_published_ones(base):
    from zett.evaluate import evaluate

    report = evaluate(
        load_base_model(base / "model"), {"target": load_tokenizer(base / "target")}, methods=("mean",), windows=TEXTS[:6],
        hypernets={"published": base / "published"}, progress=False,
    )  # fmt: skip
    assert set(report.targets[0].scores) == {"published", "mean"}
