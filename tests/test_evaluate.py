"""Evaluation with a tiny random base model and small tokenizers trained here."""

import argparse
import dataclasses
import json
import math

import numpy as np
import pytest

from zett.errors import UserError

LINES = [
    "def area(width, height):\n",
    '    """Return the area of a rectangle, which is the product of its sides."""\n',
    "    return width * height\n",
    "for name in sorted(table):  # über 1_000 Zeilen, naïve\n",
    "    print(name, table[name], sep=': ')\n",
    "\n",
    "class Rectangle(Shape):\n",
    "    sides: int = 4\n",
]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZETT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder with train.txt and valid.txt: the same lines in other orders."""
    folder = tmp_path_factory.mktemp("corpus")
    for seed, split in enumerate(("train", "valid")):
        rng = np.random.default_rng(seed)
        (folder / f"{split}.txt").write_text("".join(LINES[i] for i in rng.integers(len(LINES), size=800)))
    return str(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory, corpus):
    """A folder with a random Llama model of width 32 and a byte-level BPE tokenizer of 400 entries."""
    from flax import nnx

    from zett.data.sources import open_text
    from zett.lms import save_base_model
    from zett.lms.llama import LlamaBody, LlamaConfig
    from zett.table import EmbeddingTable
    from zett.vocab.train import train_tokenizer

    tokenizer = train_tokenizer("bpe", 400, open_text(corpus, split="train"))
    config = LlamaConfig(hidden_size=32, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=16, intermediate_size=64)
    params = nnx.to_pure_dict(nnx.split(LlamaBody(config, rngs=nnx.Rngs(0)))[1])
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=(tokenizer.get_vocab_size(), 32)).astype(np.float32) for _ in range(2)]
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_base_model(folder, config, params, EmbeddingTable.of(*rows), tokenizer, dtype="float32", record={})
    return str(folder)


@pytest.fixture(scope="module")
def base(model):
    from zett.lms import load_base_model

    return load_base_model(model)


@pytest.fixture(scope="module")
def report(base, corpus):
    from zett.evaluate import evaluate

    targets = ["bpe-350", "unigram-350", "wordpiece-350"]
    return evaluate(base, targets, text=corpus, text_bytes=2048, window=128, batch_size=8, progress=False)


# ------------------------------------------------------------------------------------------------------- bits per byte


def test_window_nats_equal_a_plain_computation(base):
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from zett.evaluate.bpb import bits_per_byte, encode_windows, window_nats

    windows = ["a", "".join(LINES), LINES[3]]
    encoded = encode_windows(windows, base.vocab.tokenizer)
    model = (base.graphdef, base.params, base.table.pad(512), base.bos_row)
    nats = window_nats(*model, encoded, batch_size=2)
    body = jax.jit(nnx.merge(base.graphdef, base.params))
    for window, mine in zip(windows, nats):
        ids = np.asarray(base.vocab.tokenizer.encode(window, add_special_tokens=False).ids)
        padded = np.pad(ids, (0, 256 - len(ids)))  # the model is causal: what follows changes nothing
        x = jnp.concatenate([base.bos_row[None], base.table.input[padded[:-1]]])[None]
        log_p = jax.nn.log_softmax(base.table.unembed(body(x))[0])
        assert mine == pytest.approx(-float(log_p[np.arange(len(ids)), ids].sum()), rel=1e-5)
    total = sum(len(w.encode()) for w in windows)
    assert bits_per_byte(*model, encoded) == pytest.approx(nats.sum() / math.log(2) / total, rel=1e-5)


@pytest.mark.parametrize(
    ("a", "b", "length"),
    [(b"", b"", 0), (b"abc", b"", 0), (b"abc", b"abc", 3), (b"Hello World", b"helloworld", 8), (b"abcbdab", b"bdcaba", 4)],
)
def test_common_bytes(a, b, length):
    from zett.evaluate import common_bytes

    assert common_bytes(a, b) == common_bytes(b, a) == length


# -------------------------------------------------------------------------------------------------------------- targets


def test_targets_are_cached_and_follow_the_text(corpus, tmp_path, monkeypatch):
    from zett.data.sources import open_text
    from zett.evaluate import targets
    from zett.evaluate.targets import load_target, trained_tokenizer

    documents = open_text(corpus, split="train")
    folder = trained_tokenizer("bpe", 300, documents)
    with monkeypatch.context() as patch:
        patch.setattr(targets, "train_tokenizer", None)  # not needed a second time
        assert load_target("bpe-300", corpus).folder == folder
        assert load_target("bpe-300", documents).tokens == load_target(str(folder)).tokens
    assert not [p for p in folder.parent.iterdir() if p.name.startswith(".")], "temporary folders are left"
    other = tmp_path / "train.txt"
    other.write_text("quick brown foxes jump over lazy dogs. " * 200)
    prose = load_target("prose-bpe-300", corpus, prose=str(tmp_path))
    assert any(b"quick" in token for token in prose.tokens)
    assert not any(b"quick" in token for token in load_target("bpe-300", corpus).tokens)


@pytest.mark.parametrize("spec", ["bpe8k", "bpe-", "unigram-8m", "prose-8k", "bpe-12"])
def test_a_misspelt_target_is_named(spec, corpus):
    from zett.evaluate.targets import load_target

    with pytest.raises(UserError, match=f"{spec!r}"):
        load_target(spec, corpus)


# ------------------------------------------------------------------------------------------------------------- evaluate


def test_report_is_consistent(report):
    original = report.original["bits_per_byte"]
    assert report.methods == ["fvt", "mean", "random"]
    for target in report.targets:
        fvt = target.scores["fvt"]
        for score in target.scores.values():
            assert score.ratio == pytest.approx(score.bits_per_byte / original)
            assert 0 < score.ratio_error < 0.3 * score.ratio
            if fvt.bits_per_byte > original:
                gap = (score.bits_per_byte - original) / (fvt.bits_per_byte - original)
                assert score.fvt_gap_left == pytest.approx(gap)
            else:
                assert score.fvt_gap_left is None
        assert target.relative_length == pytest.approx(target.tokens_per_byte / report.original["tokens_per_byte"])
        assert 0.5 < target.shared <= 1
    lost = {t.name: t.bytes_lost for t in report.targets}
    assert lost["bpe-350"] == lost["unigram-350"] == 0
    assert 0 < lost["wordpiece-350"] < 0.5


def test_the_original_tokenizer_costs_nothing(base, model, corpus):
    from zett.evaluate import evaluate

    result = evaluate(base, [model], text=corpus, text_bytes=1024, window=128, methods=["fvt"], progress=False)
    (target,) = result.targets
    assert target.name == "tiny"
    assert target.scores["fvt"].ratio == pytest.approx(1, abs=1e-6)
    assert target.scores["fvt"].ratio_error == pytest.approx(0, abs=1e-6)
    assert target.relative_length == target.shared == 1


def test_own_methods_and_windows(base, corpus):
    from zett.evaluate import evaluate
    from zett.evaluate.targets import load_target
    from zett.methods import METHODS

    target = load_target("bpe-350", corpus)
    result = evaluate(base, {"mine": target}, windows=LINES[:4], methods={"ours": METHODS["mean"], **METHODS}, progress=False)
    scores = result.targets[0].scores
    assert scores["ours"].bits_per_byte == scores["mean"].bits_per_byte
    assert result.text["bytes"] == sum(len(line.encode()) for line in LINES[:4])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"methods": ["ftv"]}, "did you mean fvt"),
        ({"methods": []}, "no method"),
        ({"targets": []}, "no target"),
        ({"windows": []}, "no text"),
        ({"text_bytes": 64}, "windows of 128"),
        ({"text": "/nowhere"}, "/nowhere"),
    ],
)
def test_mistakes_are_named(base, corpus, arguments, message):
    from zett.evaluate import evaluate

    with pytest.raises(UserError, match=message):
        evaluate(
            base, **{"targets": ["bpe-350"], "text": corpus, "text_bytes": 512, "window": 128, "progress": False} | arguments
        )


# --------------------------------------------------------------------------------------------------------------- report


def _with_hypernets(report):
    """The report with two methods more, as if they were hypernetworks."""
    targets = []
    for target in report.targets:
        fvt = target.scores["fvt"]
        ours = {name: dataclasses.replace(fvt, ratio=fvt.ratio * x) for name, x in (("quickstart", 0.97), ("shipped", 0.9))}
        targets.append(dataclasses.replace(target, scores=ours | target.scores))
    return dataclasses.replace(report, targets=targets)


def test_table_fits_and_tells_what_is_lost(report):
    from zett.evaluate.report import table

    for shown in (report, _with_hypernets(report)):
        text = table(shown)
        rows = text.split("\n\n")[1].splitlines()
        assert max(map(len, rows)) <= 110
        assert len(rows) == 3 + len(report.targets)
        assert all(f"{s.ratio:.3f}" in text for t in shown.targets for s in t.scores.values())
        assert "wordpiece-350*" in text and "drops" in text


def test_report_is_saved_and_loaded(report, tmp_path):
    from zett.evaluate import report as reports

    report = _with_hypernets(report)
    files = reports.save(report, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["report.json", "report.png"]
    loaded = reports.load(tmp_path / "out")
    assert json.dumps(dataclasses.asdict(loaded)) == json.dumps(dataclasses.asdict(report))
    image = files[1].read_bytes()
    assert image.startswith(b"\x89PNG") and len(image) > 10_000


def test_command_line(model, corpus, tmp_path, capsys):
    from zett.evaluate import add_arguments, run

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    output = str(tmp_path / "out")
    given = ["--model", model, "--hypernet", "none", "--target", "bpe-350", "--tokenizer", model, "--method", "fvt", "mean"]
    given += ["--text", corpus, "--text-bytes", "1024", "--window", "128", "--output", output]
    assert run(parser.parse_args(given)) == 0
    shown = capsys.readouterr().out
    assert "bpe-350" in shown and "report.json" in shown
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [t["name"] for t in content["targets"]] == ["bpe-350", "tiny"]
    assert content["environment"]["versions"]["jax"] and content["settings"]["command"]
    with pytest.raises(UserError, match="--overwrite"):
        run(parser.parse_args(given))
    assert run(parser.parse_args([*given, "--overwrite", "--json"])) == 0
    assert json.loads(capsys.readouterr().out)["base"]["name"] == model


def test_hypernetworks_get_names():
    from zett.evaluate import _named_hypernets

    assert _named_hypernets(None, "pico") == {"hypernet": "pico"}
    assert _named_hypernets(None, "other") == _named_hypernets(["none"], "pico") == {}
    assert _named_hypernets(["runs/a/export"], "pico") == {"hypernet": "runs/a/export"}
    assert _named_hypernets(["quickstart=runs/a", "pico"], "pico") == {"quickstart": "runs/a", "pico": "pico"}
    with pytest.raises(UserError, match="NAME=DIR"):
        _named_hypernets(["runs/a", "other/a"], "pico")
