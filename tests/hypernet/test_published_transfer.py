"""Published hypernetworks in use: transfer, export and evaluation, with the source tokenizer that they bring."""

import json
import shutil

import numpy as np
import pytest
import tiny
from hypernet.golden import make_published as golden
from hypernet.published_folders import FORMATS, compare, predict, stored, weights_of, write
from safetensors.numpy import load_file, save_file

from zett import cli
from zett.errors import UserError
from zett.export import export
from zett.hypernet.published import MSGPACK
from zett.hypernet.release import load_hypernet
from zett.lms import load_base_model
from zett.lms.folder import save_base_model
from zett.table import EmbeddingTable
from zett.transfer import transfer
from zett.vocab import load_tokenizer
from zett.vocab.bytes import to_alphabet
from zett.vocab.train import save_tokenizer, train_tokenizer

pytestmark = pytest.mark.xdist_group("published")

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


def test_a_variant_with_its_base(base, tmp_path):
    """A published one knows no rows of its base; given, they tell whether the model is a variant."""
    published = load_hypernet(base / "published")
    for name, change in (("variant", lambda rows: rows * np.float32(1.01)), ("unlike", np.random.default_rng(0).permutation)):
        shutil.copytree(base / "model", tmp_path / name)
        tensors = load_file(tmp_path / name / "model.safetensors")
        changed = {key: change(tensors[key]) for key in ("model.embed_tokens.weight", "lm_head.weight")}
        save_file(tensors | changed, tmp_path / name / "model.safetensors", {"format": "pt"})
    settings = {"hypernet": base / "published", "base": base / "model", "variant": "base"}
    output = transfer(tmp_path / "variant", base / "target", tmp_path / "out", **settings)
    target, own = load_tokenizer(base / "target"), load_base_model(base / "model", body=False)
    expected = np.asarray(published.table(own, target).input)
    text = np.asarray([bool(token) for token in target.tokens])
    found = load_file(output / "model.safetensors")["model.embed_tokens.weight"]
    np.testing.assert_array_equal(found[text], expected.astype(found.dtype)[text])
    with pytest.raises(UserError, match=r"unlike is no variant of .*model: rows of the same width"):
        transfer(tmp_path / "unlike", base / "target", tmp_path / "no", **settings)


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
