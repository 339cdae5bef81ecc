"""Whether answers are the original's: with models that write what they are told to, in turns and without."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import tiny
import tokenizers as tk
from lms.folders import edit_json

from zett.cli import run_command
from zett.errors import UserError
from zett.evaluate.evaluate import evaluate
from zett.evaluate.prompts import read_prompts
from zett.evaluate.report import table
from zett.evaluate.results import load
from zett.evaluate.saving import save
from zett.evaluate.tasks.agreement import Agreement, Answer, _costs, compared_answers, first_alike, written
from zett.generate import encode_prompt, ends_of
from zett.lms.base import load_base_model
from zett.lms.body import Body
from zett.methods import make_method
from zett.table import EmbeddingTable
from zett.vocab import load_tokenizer

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PROMPTS = ["def f(x):", "import json"]


def chat_tokenizer(kind="bpe", size=300) -> tk.Tokenizer:
    tokenizer = tk.Tokenizer.from_str(tiny.tokenizer(kind, size).to_str())
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    return tokenizer


def as_chat(folder):
    """The folder of a tokenizer, with a chat template whose turns end by the eos."""
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    edit_json(folder / "tokenizer_config.json", eos_token="<|im_end|>", tokenizer_class="PreTrainedTokenizerFast")
    edit_json(folder / "config.json", eos_token_id=chat_tokenizer().token_to_id("<|im_end|>"))
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return load_base_model(tiny.base_folder(tmp_path_factory.mktemp("plain") / "model", dtype="float32"))


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    folder = tiny.base_folder(tmp_path_factory.mktemp("chat") / "model", dtype="float32", own=chat_tokenizer())
    return load_base_model(as_chat(folder))


def scripted(base, *texts):
    """The model with layers that change nothing: each of the tokens, all distinct, is followed by the next one of its text."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((len(base.table.input), base.table.input.shape[1])).astype(np.float32)
    output = np.zeros_like(rows)
    for ids in texts:
        output[ids[1:]] = 9 * rows[ids[:-1]] / np.linalg.norm(rows[ids[:-1]], axis=1, keepdims=True)
    params = {**base.params, "layers": jax.tree.map(np.zeros_like, base.params["layers"])}
    return dataclasses.replace(base, params=params, table=EmbeddingTable.of(rows, output))


# ------------------------------------------------------------------------------------------------------------ comparing


@pytest.mark.parametrize(
    ("theirs", "ours", "word", "line", "prefix"),
    [
        (Answer("The sea.\nIt", False), Answer("The sea.\nWe", False), True, True, 9 / 11),
        (Answer("The sea.", True), Answer("The sea.", True), True, True, 1),
        (Answer("The sea.", True), Answer("The sea. A", False), True, False, 1),
        (Answer("The sea.", True), Answer("The", True), True, False, 3 / 8),
        (Answer("The sea.", True), Answer("There", False), False, False, 3 / 8),
        (Answer("The sea is", False), Answer("The sea is bl", False), True, True, 1),
        (Answer("The sea is", False), Answer("", True), False, False, 0),
        (Answer("é", True), Answer("è", True), False, False, 1 / 2),  # they have their first byte in common
        (Answer("", True), Answer("", True), True, True, 1),
        (Answer("", True), Answer("A", False), False, False, 0),
    ],
)
def test_answers_are_compared_in_bytes(theirs, ours, word, line, prefix):
    assert first_alike(theirs.word, ours.word) is word and first_alike(theirs.line, ours.line) is line
    scores, means = compared_answers([theirs], [ours])
    assert scores.tolist() == [float(line)] and means["first_word"] == word
    assert means["common_prefix"] == pytest.approx(prefix)
    assert means["empty"] == (ours == Answer("", True) and theirs.text != "")
    assert means["ends_early"] == (ours.ended and theirs.text.startswith(ours.text) and ours.text != theirs.text)
    assert means.get("ends_alike") == (float(ours == theirs) if theirs.ended else None)


def test_writing_stops_where_another_text_begins(plain):
    ids = plain.vocab.tokenizer.encode("a: bcdé!", add_special_tokens=False).ids
    assert len(set(ids)) == len(ids)
    model = scripted(plain, ids)
    found = written(model, "a:", len(ids) - 2)
    assert found == Answer("bcdé!", False) and found.whole == " bcdé!"  # the space before it is kept apart
    assert written(model, "a:", 99, "bxd").text == "bc"
    end = next(iter(ends_of(plain)))
    assert written(scripted(plain, [*ids, end]), "a:", 99, "bcdé!") == Answer("bcdé!", True)
    assert written(scripted(plain, [*ids[:4], end]), "a:", 99, "bcdé!") == Answer("b", True)


# ------------------------------------------------------------------------------------------------------- probabilities


def test_costs_are_those_of_a_plain_computation(chat):
    prompt, answer = "<|im_start|>user\ndef", Answer("f(x):\n    return é", True, " ")
    ids = encode_prompt(chat.vocab, prompt + answer.whole)
    first = len(encode_prompt(chat.vocab, prompt))
    h = Body(chat.graphdef, chat.params)(chat.table.embed(np.asarray(ids)[None]))
    log_p = np.asarray(jax.nn.log_softmax(chat.table.unembed(h)[0]))[first - 1 :]
    end = np.exp(log_p[:, sorted(ends_of(chat))]).sum(1)
    bits, at_once, within, after = _costs(chat, chat.table, prompt, answer)
    assert bits == pytest.approx(-log_p[np.arange(len(ids) - first), ids[first:]].sum() / np.log(2), rel=1e-4)
    assert (at_once, after) == pytest.approx((end[0], end[-1]), rel=1e-3)
    assert within == pytest.approx(1 - np.prod(1 - end[:-1]), rel=1e-3)


# ----------------------------------------------------------------------------------------------------------- as a task


def test_the_original_agrees_with_itself_and_so_does_the_same_table(plain):
    task = Agreement(tokens=6)
    items = task.items(plain, PROMPTS)
    own, copy = task.details(plain, items), task.details(plain.with_vocabulary(plain.table, plain.vocab), items)
    assert own[0].tolist() == copy[0].tolist() == [1, 1] and own[1] == copy[1]
    assert own[1]["first_word"] == own[1]["common_prefix"] == 1 and own[1]["ends_early"] == 0
    other = dataclasses.replace(plain.table, input=plain.table.input[::-1])
    assert task.score(plain.with_vocabulary(other, plain.vocab), items).mean() < 1


def test_turns_that_end_at_once_are_seen(chat):
    """The failure of a chat model whose end of a turn is too probable after other rows have moved."""
    task = Agreement(tokens=6)
    items = task.items(chat, PROMPTS)
    assert items.prompts[0] == "<|im_start|>user\ndef f(x):<|im_end|>\n<|im_start|>assistant\n"
    end = chat.vocab.special["<|im_end|>"]
    before = task.details(chat, items)[1]
    bias = np.zeros(len(chat.vocab), np.float32)
    bias[end] = 1e4
    ending = chat.with_vocabulary(dataclasses.replace(chat.table, bias=bias), chat.vocab)
    scores, means = task.details(ending, items)
    assert scores.tolist() == [0, 0] and means["empty"] == means["ends_early"] == means["end_at_once"] == 1
    assert before["empty"] == 0 and before["end_at_once"] < 0.9


def test_special_tokens_of_the_turns_have_to_be_there(chat, tmp_path):
    target = load_tokenizer(tiny.tokenizer_folder(tmp_path / "target", "unigram", 290))
    model = chat.with_vocabulary(make_method("fvt")(chat, target), target)
    task = Agreement(tokens=2)
    items = task.items(chat, PROMPTS[:1])
    with pytest.raises(UserError, match=r"has no token '<\|im_start\|>', which is in the chat template of .* map-to-source"):
        task.details(model, items)


def test_an_evaluation_takes_over_the_special_tokens(chat, tmp_path):
    target = load_tokenizer(tiny.tokenizer_folder(tmp_path / "target", "unigram", 290))
    settings = {"hypernets": {}, "methods": ["fvt", "mean"], "task": "agreement", "prompts": PROMPTS, "progress": False}
    report = evaluate(chat, {"target": target}, **settings)
    scores = report.targets[0].scores
    assert report.targets[0].vocab_size == len(target) + 2 and report.settings["special"] == "map-to-source"
    assert report.original["bits_per_byte"] == 1 and report.original["details"]["first_word"] == 1
    assert 0 <= scores["fvt"].details["end_within"] <= 1 and scores["fvt"].ratio == scores["fvt"].bits_per_byte
    save(report, tmp_path / "report")
    assert load(tmp_path / "report").targets[0].scores == scores
    shown = table(report)
    assert "share: first lines as the original's" in shown and "target, fvt " in shown and "first word" in shown
    with pytest.raises(UserError, match="special 'keep' does not exist"):
        evaluate(chat, {"target": target}, special="keep", **settings)
    with pytest.raises(UserError, match="only the task 'agreement' has them answered"):
        evaluate(chat, {"target": target}, hypernets={}, prompts=PROMPTS)


def test_command_line(plain, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("def f(x):\n\nimport json\n")
    given = ["--model", str(plain.folder), "--hypernet", "none", "--tokenizer", str(plain.folder), "--method", "fvt"]
    given += ["--task", "agreement", "--prompts", str(tmp_path / "prompts.txt"), "--output", str(tmp_path / "out")]
    assert run_command("eval", given, "zett eval") == 0
    assert "100%" in capsys.readouterr().out
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert content["text"]["windows"] == 2 and content["settings"]["measure"] == "first lines as the original's"
    with pytest.raises(UserError, match="no evaluation task 'agreemant'; did you mean agreement"):
        run_command("eval", [*given[:6], "--task", "agreemant"], "zett eval")


def test_prompts_of_the_package_and_of_files(tmp_path):
    prompts, record = read_prompts(None)
    assert len(prompts) == len(set(prompts)) >= 50 and record["windows"] == len(prompts)
    assert all(len(prompt) < 120 for prompt in prompts)
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "one\ntwo"}) + "\n" + json.dumps({"text": "three"}))
    assert read_prompts(tmp_path / "a.jsonl")[0] == ["one\ntwo", "three"]
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    assert read_prompts(tmp_path / "a.txt")[0] == ["one", "two"]
    with pytest.raises(UserError, match="no prompt to answer"):
        read_prompts([" "])
