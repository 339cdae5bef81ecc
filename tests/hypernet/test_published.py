"""Published hypernetworks: they compute what PyTorch and the original compute, and what is not known of them is refused."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
import tokenizers as tk
from hypernet.golden import make_published as golden
from hypernet.networks import base_of
from safetensors.numpy import load_file, save_file

from zett import cli
from zett.errors import UserError
from zett.export import export
from zett.hypernet.published import MSGPACK
from zett.hypernet.release import load_hypernet
from zett.lms import load_base_model
from zett.lms.base import BaseModel
from zett.lms.folder import save_base_model
from zett.table import EmbeddingTable
from zett.transfer import transfer
from zett.vocab import Vocabulary, load_tokenizer
from zett.vocab.bytes import to_alphabet
from zett.vocab.train import save_tokenizer, train_tokenizer

pytestmark = pytest.mark.xdist_group("compat")
SHARED = Path(__file__).parents[3] / "shared" / "data" / "published_checkpoints"
SAMPLES = sorted(p.name for p in SHARED.iterdir() if p.is_dir()) if SHARED.is_dir() else []
FORMATS = ("model.safetensors", MSGPACK)


# ------------------------------------------------------------------------------------------------------ folders to read


def stored(name: str) -> dict[str, np.ndarray]:
    return load_file(golden.FOLDER / f"published-{name}.safetensors")


def weights_of(tensors: dict) -> dict[str, np.ndarray]:
    return {name.removeprefix("weights."): x for name, x in tensors.items() if name.startswith("weights.")}


def write(folder: Path, config: dict, weights: dict, file: str = "model.safetensors") -> Path:
    """With a source tokenizer of characters."""
    folder.mkdir(parents=True, exist_ok=True)
    characters_into(folder, config)
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


def characters(size: int):
    """A tokenizer of `size` single characters, so that every sequence of ids is the form of some token."""
    return tk.Tokenizer(tk.models.BPE({chr(0x4E00 + i): i for i in range(size)}, []))


def characters_into(folder: Path, config: dict) -> None:
    """The source tokenizer of a published hypernetwork: the base model's ids, and those of fallback rows."""
    characters(config.get("original_vocab_size", 0) + max(config.get("hn_n_extra_tokens", 0), 0)).save(
        str(folder / "tokenizer.json")
    )


def tokens_of(pieces, pad: int = 1) -> tuple[bytes, ...]:
    """Tokens that `characters` takes apart into these ids, but for padding."""
    return tuple("".join(chr(0x4E00 + i) for i in row if i != pad).encode() for row in np.asarray(pieces).tolist())


def vocabulary_with(tokens, **special: int) -> Vocabulary:
    """Of the tokens; special: ids by role."""
    texts = {f"<{role}>": i for role, i in special.items()}
    return Vocabulary(tuple(tokens), texts, special, np.zeros(len(tokens), np.float32), "BPE", (), None)


def base_with(given: dict, hypernet, bias: np.ndarray | None = None, **special: int) -> BaseModel:
    """A base model of the source rows and the tokenizer of the hypernetwork."""
    rows, d = given["source_embeddings"], hypernet.hidden_size
    table = EmbeddingTable.of(rows[:, :d], None if hypernet.tied else rows[:, d:], bias)
    return base_of(table, vocabulary_with(tokens_of(np.arange(len(rows))[:, None], pad=-1), **special))


def predict(hypernet, given: dict, **how) -> EmbeddingTable:
    """The table for given surface forms; with the bias of a masked language model where that is predicted."""
    bias = np.zeros(len(given["source_embeddings"]), np.float32) if hypernet.config.bias else None
    if hypernet.config.languages:
        how = {"language": int(given["lang_index"].reshape(-1)[0])} | how
    return hypernet(base_with(given, hypernet, bias), vocabulary_with(tokens_of(given["surface_forms"])), **how)


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
        (given["source_embeddings"][:, :5], "made for rows of width 6"),
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
    assert "language='7'" in (output / "README.md").read_text()


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
    published = shutil.copytree(folder(case), tmp_path / "published")
    (published / "tokenizer.json").unlink()
    made = export(published, tmp_path / "made")
    assert "no source tokenizer" in caplog.text and "missing" in (made / "README.md").read_text()
    with pytest.raises(UserError, match=r"has no tokenizer\.json, the source tokenizer"):
        predict(load_hypernet(made), stored(case))
    shutil.copy(folder(case) / "tokenizer.json", made)
    compare(predict(load_hypernet(made), stored(case)), stored(case))


def test_the_shipped_tokenizer_decides(base, tmp_path):
    """Not the base model's: it is asked for, and another one's ids are noticed."""
    (copy := tmp_path / "published").mkdir()
    for name in ("config.json", FORMATS[0]):
        (copy / name).write_bytes((base / "published" / name).read_bytes())
    with pytest.raises(UserError, match=r"has no tokenizer\.json, the source tokenizer that the hypernetwork was"):
        transfer(base / "model", base / "target", tmp_path / "out", hypernet=copy)
    config = json.loads((copy / "config.json").read_text())
    write(copy, config | {"hn_n_extra_tokens": 1}, weights_of(golden.inputs(config | {"hn_n_extra_tokens": 1}, 5)))
    (copy / "tokenizer.json").write_bytes((base / "published" / "tokenizer.json").read_bytes())
    with pytest.raises(UserError, match="no row for the source id"):
        transfer(base / "model", base / "target", tmp_path / "out", hypernet=copy)
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
        (["--method", "fvt", "--language", "de"], "language is 'de', but the method 'fvt' makes no use of it"),
    ):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["transfer", *arguments, *more])
        assert stopped.value.code == 2 and message in capsys.readouterr().err
    assert not (base / "no").exists()


def test_exports_that_cannot_be(base, tmp_path, capsys):
    cases = [
        (["--hypernet", str(tmp_path / "nowhere")], "with a hypernetwork"),
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
    from zett.evaluate.evaluate import evaluate

    report = evaluate(
        load_base_model(base / "model"), {"target": load_tokenizer(base / "target")}, methods=("mean",), windows=TEXTS[:6],
        hypernets={"published": base / "published"}, progress=False,
    )  # fmt: skip
    assert set(report.targets[0].scores) == {"published", "mean"}
