"""Evaluation with a tiny random base model and small tokenizers trained here."""

import argparse
import dataclasses
import hashlib
import json
import math
from pathlib import Path

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
    from zett.lms.folder import save_base_model
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


def test_whole_windows_leave_nothing_out():
    from zett.evaluate.cutting import whole_windows

    documents = ["".join(LINES), "short", "x" * 70 + "é" * 30, LINES[0] * 2, LINES[0] * 2]
    pieces = whole_windows(documents, window=64)
    assert "".join(pieces) == "".join(documents) and max(len(p.encode()) for p in pieces) <= 64
    some = whole_windows(documents, window=64, limit=200)
    assert 100 < sum(len(p.encode()) for p in some) <= 200
    assert [p for p in pieces if p in some] == some or len(set(pieces)) < len(pieces)
    assert whole_windows(["\ud800 half"], window=64) == ["? half"]


@pytest.mark.parametrize(
    ("a", "b", "length"),
    [(b"", b"", 0), (b"abc", b"", 0), (b"abc", b"abc", 3), (b"Hello World", b"helloworld", 8), (b"abcbdab", b"bdcaba", 4)],
)
def test_common_bytes(a, b, length):
    from zett.evaluate.lost import common_bytes

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


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A file of 27 KB, most of whose lines are short."""
    path = tmp_path_factory.mktemp("given") / "given.txt"
    path.write_text("".join(f"{line[: 5 + i % 7]}\n" for i, line in enumerate(LINES * 375)))
    return path


def measured(text, specs=(), text_bytes=None, prose="prose"):
    """The record, and its line in a table's head."""
    from zett.evaluate.windows import measured_windows, text_words

    windows, record = measured_windows(str(text), text_bytes, 128, text_column="text", prose=prose, specs=specs, seed=0)
    assert record["bytes"] == sum(len(w.encode()) for w in windows) and max(len(w.encode()) for w in windows) <= 128
    return record, text_words(record)


def test_a_given_file_is_measured_whole(base, model, file, corpus):
    from zett.evaluate import evaluate
    from zett.evaluate.report import table

    size = file.stat().st_size
    report = evaluate(base, [model], text=str(file), window=512, methods=["mean"], progress=False)
    assert (report.text["split"], report.text["bytes"], report.text["of_bytes"]) == ("whole", size, size)
    line = f"text: given.txt, whole: {size:,} bytes, in {report.text['windows']} windows of up to 512"
    assert table(report).splitlines()[1] == line
    text, line = measured(file.parent, text_bytes=4000)  # or as much as is asked for
    assert 3500 < text["bytes"] <= 4000 and line == f"{file.parent.name}: {text['bytes']:,} of {size:,} bytes"
    assert measured(file, ["prose-bpe-300"], prose=corpus)[0]["split"] == "whole"  # it is trained on something else


def test_a_file_that_trains_a_target_is_not_measured_whole(file):
    size = file.stat().st_size
    for spec, prose in (("bpe-300", "prose"), ("prose-bpe-300", f"{file.parent}/./{file.name}")):
        text, line = measured(file, ["gpt2", spec], prose=prose)
        assert text["split"] == "valid" and 300 < text["bytes"] == text["of_bytes"] < size / 20
        assert line == f"given.txt, held out: {text['bytes']:,} bytes (on the rest of its {size:,} is trained {spec})"


def test_a_folder_with_a_split_of_its_own_is_measured_by_it(corpus):
    size = (Path(corpus) / "valid.txt").stat().st_size
    text, line = measured(corpus)
    assert text["split"] == "valid" and line.endswith(f", held out: {size:,} bytes")
    assert measured(corpus, ["bpe-300"])[1].endswith(f", held out: {size:,} bytes (on its training files is trained bpe-300)")
    assert measured(f"{corpus}/valid.txt", ["prose-bpe-300"], prose=corpus)[0]["split"] == "whole"
    with pytest.raises(UserError, match=r"train\.txt is measured as part of .*, and trains a target"):
        measured(f"{corpus}/train.txt", ["prose-bpe-300"], prose=corpus)


def test_runs_are_evaluated_on_all_of_a_file_that_does_not_train_them(file, corpus):
    from zett.data.sources import open_text
    from zett.evaluate.windows import text_to_measure

    def measured_by(spec, *training):
        return "".join(text_to_measure(str(spec), training, open_text, "text"))

    text = file.read_text()
    assert measured_by(file, "python", corpus) == text
    assert measured_by(f"{file}|{corpus}", "python") == text + (Path(corpus) / "valid.txt").read_text()
    for same in (str(file), f"{file.parent}/../{file.parent.name}/{file.name}|python"):
        held_out = measured_by(file, "prose", same)
        assert text.endswith(held_out) and 0 < len(held_out) < len(text) / 20
    assert measured_by(corpus, corpus) == (Path(corpus) / "valid.txt").read_text()


def test_python_text_is_measured_as_ever():
    from zett.data.sources import open_text
    from zett.evaluate.cutting import byte_windows

    text, line = measured("python", text_bytes=2048)
    windows = byte_windows(open_text("python", split="valid"), window=128, count=16)
    assert text["sha256"] == hashlib.sha256("\0".join(windows).encode()).hexdigest() and text["split"] == "valid"
    assert text["of_bytes"] > 100_000 and line == f"python, held out: {text['bytes']:,} of {text['of_bytes']:,} bytes"


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
        ({"text_bytes": 64}, "64 bytes are to be measured, in windows of 128"),
        ({"text_bytes": None, "window": 8}, "window is 8 bytes"),
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


def _invented(report, ratios: dict[str, list[float]], names: list[str]):
    """The report with other targets and methods."""
    old = report.targets[0]
    one = old.scores["fvt"]
    targets = []
    for n, name in enumerate(names):
        scores = {m: dataclasses.replace(one, ratio=r[n], ratio_error=0.05 * r[n]) for m, r in ratios.items()}
        targets.append(dataclasses.replace(old, name=name, relative_length=(0.4, 1, 7)[n % 3], scores=scores))
    return dataclasses.replace(report, targets=targets)


RATIOS = {
    "bad": {"hypernet": [900.0, 1.2], "fvt": [3.0, 1.2], "mean": [3.0, 0.5], "random": [20.0, 1.2]},
    "one": {"fvt": [1.003, 1.0]},
    "many": {name: [1.3, 1.3] * 6 for name in ("a", "b", "c", "d", "e-with-a-long-name", "fvt", "mean", "random")},
    "no number": {"hypernet": [math.nan, math.inf], "fvt": [2.0, 1.2]},
}


@pytest.mark.parametrize("case", RATIOS)
def test_the_plot_hides_nothing(report, case):
    from zett.evaluate.plot import figure

    number = len(next(iter(RATIOS[case].values())))
    names = [f"{'a-tokenizer-with-quite-a-name-' * (n % 3)}{n}" for n in range(number)]
    report = _invented(report, RATIOS[case], names)
    fig = figure(dataclasses.replace(report, base={"name": "a-base-model-with-a-long-name-" * 3}))
    fig.canvas.draw()
    ratios, lengths = fig.axes
    assert "logarithmic" in ratios.get_title("left") and "further left is better" in ratios.get_title("left")
    finite = sum(math.isfinite(r[n]) for r in RATIOS[case].values() for n in range(number))
    assert (len(ratios.patches), len(lengths.patches)) == (finite, number)
    for axes in fig.axes:
        boxes = [bar.get_window_extent() for bar in axes.patches]
        texts = [text.get_window_extent() for text in axes.texts]
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
        assert not any(a.overlaps(b) for i, a in enumerate(texts) for b in texts[:i])
        within = axes.bbox.padded(1)
        assert all(within.x0 <= box.x0 and box.x1 <= within.x1 for box in [*boxes, *texts])
    labels = [label.get_window_extent() for label in ratios.get_yticklabels()]
    assert not any(a.overlaps(b) for i, a in enumerate(labels) for b in labels[:i])
    head = [
        fig._suptitle.get_window_extent(),
        ratios.get_legend().get_window_extent(),
        *labels,
        fig._supxlabel.get_window_extent(),
    ]
    assert not any(a.overlaps(b) for i, a in enumerate(head) for b in head[:i])
    assert all(box.x0 >= 0 and box.x1 <= fig.bbox.x1 for box in head)
    words = [text.get_text() for text in ratios.texts]
    assert [w for w in words if "worse than fvt" in w] == {"bad": ["900×, worse than fvt"]}.get(case, [])
    assert words.count("no number") == 2 * (case == "no number")


def test_command_line(model, corpus, tmp_path, capsys):
    from zett.inspect import add_arguments, run

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    output = str(tmp_path / "out")
    given = ["--model", model, "--hypernet", "none", "--tokenizer", "bpe-350", "--target", model, "--method", "fvt", "mean"]
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


def test_reports_replace_reports_alone(tmp_path, monkeypatch):
    from zett.evaluate import report as reports

    monkeypatch.chdir(tmp_path)
    folder = tmp_path / reports.DEFAULT_OUTPUT
    assert reports.check_output(None, False).resolve() == folder
    folder.mkdir(parents=True)
    (folder / "report.png").write_text("a year of work")
    with pytest.raises(UserError, match=r"report.png was not written by zett eval; .* --overwrite"):
        reports.check_output(None, False)
    with pytest.raises(UserError, match=r"holds a report already \(report.png\)"):
        reports.check_output(str(folder), False)
    assert reports.check_output(str(folder), True) == folder
    (folder / "report.json").write_text('{"base": {}, "targets": [], "settings": {}}')
    assert reports.check_output(None, False).resolve() == folder
    (tmp_path / "tokenizer").mkdir()
    with pytest.raises(UserError, match="--output tokenizer/new lies in tokenizer, which is read from"):
        reports.check_output("tokenizer/new", False, ["pico", "tokenizer"])
    with pytest.raises(UserError, match="--output is ''"):
        reports.check_output("", False)


def test_hypernetworks_get_names():
    from zett.commands.eval import _named_hypernets

    assert _named_hypernets(None, "pico") == {"hypernet": "pico"}
    assert _named_hypernets(None, "other") == _named_hypernets(["none"], "pico") == {}
    assert _named_hypernets(["runs/a/export"], "pico") == {"hypernet": "runs/a/export"}
    assert _named_hypernets(["quickstart=runs/a", "pico"], "pico") == {"quickstart": "runs/a", "pico": "pico"}
    with pytest.raises(UserError, match="NAME=DIR"):
        _named_hypernets(["runs/a", "other/a"], "pico")
