"""`evaluate_dynamic` and `zett eval --task dynamic`: the cost of what follows merged text, by a plain computation."""

import json

import jax
import numpy as np
import pytest
import tiny
from encoders import encoder_folder
from evaluate.lines import write_corpus

from zett import evaluate_dynamic, load_base_model
from zett.cli import run_command
from zett.dynamic.merging import TokenBatch, merge
from zett.dynamic.reading import merged_inputs, rows_by
from zett.errors import UserError
from zett.evaluate.dynamic import table
from zett.evaluate.tasks import make_task
from zett.lms.body import Body
from zett.methods import make_method

TEXTS = [*[line + line[:12] for line in tiny.TEXT if 20 < len(line) < 40][:6], "x"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_base_model(tiny.base_folder(tmp_path_factory.mktemp("base") / "model", dtype="float32"))


@pytest.mark.parametrize("merges", [0, 9])
def test_bits_are_those_of_the_rest(model, merges):
    task, rows = make_task("dynamic", batch_size=4, across=True), rows_by(make_method("fvt"), model)
    items = task.items(model, TEXTS)
    assert len(items) == 5 and "x" not in items.texts  # which has no word after its beginning, as another one
    cost = task.cost(model, items, rows, merges)
    body, read = jax.jit(lambda body, x: body(x)), items.read
    for start in range(0, len(items), 4):
        some = slice(start, start + 4)
        merged = merge(TokenBatch(read.vocab, read.ids[some], read.lengths[some], read.words[some]), merges)
        x_BLD, mask = merged_inputs(model, merged, rows)
        for row in range(len(x_BLD)):
            number, ids = start + row, model.vocab.tokenizer.encode(items.texts[start + row]).ids
            rest = items.targets[number, : items.counts[number]].tolist()
            assert ids == [*read.ids[number, : read.lengths[number]], *rest]
            own = np.asarray(model.table.input)[rest[:-1]]
            x = np.concatenate([model.bos_row[None], x_BLD[row][mask[row]], own])
            padded = np.zeros((1, 64, 16), np.float32)
            padded[0, : len(x)] = x
            h = np.asarray(body(Body(model.graphdef, model.params), padded))[0, len(x) - len(rest) : len(x)]
            logs = np.asarray(jax.nn.log_softmax(model.table.unembed(h)))
            assert cost.bits[number] == pytest.approx(-logs[np.arange(len(rest)), rest].sum() / np.log(2), rel=1e-4)
            assert items.weights[number] == sum(len(model.vocab.tokens[i]) for i in rest)
    assert (cost.after.sum() < cost.before.sum()) == (merges > 0)
    if merges == 0:
        np.testing.assert_array_equal(task.score(model, items), cost.bits)


def test_encoders(tmp_path):
    """Without merges they are the bits that masked texts cost; with merges, hidden words stay hidden."""
    model = load_base_model(encoder_folder(tmp_path / "bert", "bert"))
    task, masked = make_task("dynamic", batch_size=4, across=True), make_task("masked_bits_per_byte", batch_size=4)
    items = task.items(model, TEXTS[:6])
    np.testing.assert_allclose(task.score(model, items), masked.score(model, masked.items(model, TEXTS[:6])), rtol=1e-4)
    cost = task.cost(model, items, rows_by(make_method("fvt"), model), 9)
    assert cost.after.sum() < cost.before.sum() and np.isfinite(cost.bits).all() and cost.bits.min() > 0
    assert (cost.bits != task.score(model, items)).any()


def test_report_and_command(model, tmp_path, capsys):
    corpus = write_corpus(tmp_path)
    options = {"text": str(corpus), "text_bytes": 512, "window": 64, "batch_size": 4}
    report = evaluate_dynamic(model, merges=(4, 8), methods=("fvt", "random"), hypernets={}, across=True, **options)
    few, many = report.targets
    assert few.merges == 4 and few.tokens == many.tokens > few.left > many.left and set(few.ratio) == {"fvt", "random"}
    assert few.bits_per_byte["fvt"] == pytest.approx(report.original["bits_per_byte"] * few.ratio["fvt"])
    assert f"{many.reduction:.1%}" in table(report) and "merged across words, in batches of 4 texts" in table(report)
    arguments = [
        "--task",
        "dynamic",
        "--model",
        str(model.folder),
        "--text",
        str(corpus),
        "--text-bytes",
        "512",
        "--window",
        "64",
    ]
    arguments += [
        "--batch-size",
        "4",
        "--merges",
        "4",
        "8",
        "--across-words",
        "--method",
        "fvt",
        "random",
        "--hypernet",
        "none",
    ]
    assert run_command("eval", [*arguments, "--json", "--output", str(tmp_path / "out")], "zett eval") == 0
    shown = json.loads(capsys.readouterr().out)
    assert [one["ratio"] for one in shown["targets"]] == [pytest.approx(one.ratio) for one in (few, many)]
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--merges", "4"], "--merges 4 is of --task dynamic"),
        (["--across-words"], "--across-words is of --task dynamic"),
        (["--task", "dynamic", "--tokenizer", "bpe-2k"], "--task dynamic has no use for --tokenizer bpe-2k"),
        (["--task", "dynamic", "--merges", "0"], "merges is 0; it has to be a whole number, at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, words, tmp_path):
    with pytest.raises(UserError, match=words):
        run_command("eval", [*arguments, "--output", str(tmp_path / "out")], "zett eval")
