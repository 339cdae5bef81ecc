"""`evaluate_drafts` and `zett eval --task drafts`: the right models, methods and numbers get into the table and the file."""

import dataclasses
import json

import pytest
import tiny
from evaluate.lines import write_corpus

from zett import evaluate_drafts, load_base_model, load_tokenizer
from zett.cli import run_command
from zett.errors import UserError
from zett.evaluate.tasks import make_task
from zett.evaluate.windows import measured_windows
from zett.methods import make_method
from zett.transfer import transfer

SIZES = {"prompts": 3, "prompt_tokens": 8, "new_tokens": 10, "draft_tokens": 2, "window": 64, "batch_size": 4}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Folders of a big model, a small one, a draft made of it, and a text."""
    folder = tmp_path_factory.mktemp("drafts")
    (folder / "corpus").mkdir()
    big = tiny.base_folder(folder / "big", dtype="float32")
    config = dataclasses.replace(tiny.CONFIG, num_layers=1)
    small = tiny.base_folder(folder / "small", config=config, own=tiny.tokenizer(size=350), dtype="float32", seed=2)
    draft = transfer(small, big, folder / "draft", method="weighted", like=big)
    return big, small, draft, write_corpus(folder / "corpus")


def test_methods_and_a_draft_that_one_of_them_made(places):
    big, small, draft, corpus = places
    made = evaluate_drafts(small, big, text=corpus, **SIZES)
    assert [result.name for result in made.targets] == ["fvt", "first_last", "weighted"]
    (alone,) = evaluate_drafts(draft, big, text=corpus, **SIZES).targets
    assert alone.name == "as it is" and alone.seconds == 0
    numbers = [name for name in dataclasses.asdict(alone) if name not in ("name", "seconds")]
    assert [getattr(alone, n) for n in numbers] == pytest.approx([getattr(made.targets[2], n) for n in numbers], rel=1e-5)
    loaded = load_base_model(big)
    (itself,) = evaluate_drafts(loaded, loaded, text=corpus, **SIZES).targets
    assert (itself.right, itself.kept) == (1, 1) and itself.sampled == pytest.approx(1) and itself.sampled_length > 1.99
    base, target = load_base_model(small), load_tokenizer(big)
    task = make_task("drafts", prompt=8, tokens=10)
    windows, _ = measured_windows(corpus, 3 * 64, 64, text_column="text", prose="prose", specs=(), seed=0)
    items = task.items(loaded, windows)
    fvt = base.with_vocabulary(make_method("fvt")(base, target), target)
    assert made.targets[0].right == pytest.approx(items.mean(task.score(fvt, items)))


def test_the_command(places, tmp_path, capsys):
    big, small, draft, corpus = map(str, places)
    words = ["--task", "drafts", "--target-model", big, "--text", corpus, "--window", "64", "--prompt-count", "3"]
    words += ["--prompt-tokens", "8", "--new-tokens", "10", "--draft-tokens", "2", "--output", str(tmp_path / "out")]
    assert run_command("eval", ["--model", small, "--method", "mean", *words], "zett eval") == 0
    shown = capsys.readouterr().out
    assert "small drafts for big (300 tokens)" in shown and "\nmean " in shown and "3 beginnings of 8 tokens" in shown
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert content["target_model"]["name"] == big and [t["name"] for t in content["targets"]] == ["mean"]
    assert content["settings"]["command"] and 0 <= content["targets"][0]["sampled"] < 1
    with pytest.raises(UserError, match="--overwrite"):
        run_command("eval", ["--model", draft, *words], "zett eval")
    assert run_command("eval", ["--model", draft, *words, "--overwrite", "--json"], "zett eval") == 0
    assert json.loads(capsys.readouterr().out)["targets"][0]["name"] == "as it is"


def test_models_without_a_body_are_refused(places):
    big, *_, corpus = places
    with pytest.raises(UserError, match="without its body"):
        evaluate_drafts(load_base_model(big, body=False), big, text=corpus, **SIZES)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task", "draft"], "there is no evaluation task 'draft'; did you mean drafts"),
        (["--task", "drafts"], "needs the model that is drafted for: give --target-model"),
        (["--target-model", "pico"], "--target-model is 'pico', but nothing drafts for it; give --task drafts"),
        (["--task", "drafts", "--target-model", "pico", "--tokenizer", "x"], "--tokenizer is 'x', but drafts have that of"),
        (["--task", "drafts", "--target-model", "pico", "--prompts", "x"], "--task drafts has no use for --prompts x"),
        (["--task", "drafts", "--target-model", "pico", "--prompt-count", "0"], "prompts is 0; it has to be a whole number"),
        (
            ["--task", "drafts", "--target-model", "pico", "--temperature", "0"],
            "temperature is 0.0; it has to be greater than 0",
        ),
    ],
)
def test_arguments_that_make_no_sense(words, message, tmp_path):
    with pytest.raises(UserError, match=message):
        run_command("eval", [*words, "--output", str(tmp_path / "out")], "zett eval")
