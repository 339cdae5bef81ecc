"""Refining a transferred model against the one that it was made from."""

import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import tiny
from recipes.test_language_model import tensors_of
from runs import ROOT, environment

from zett.config import Config, from_dict, to_dict
from zett.errors import UserError
from zett.lms import load_base_model
from zett.mesh import make_mesh
from zett.plan.shapes import How
from zett.recipes.refinement import RefinementRecipe
from zett.recipes.refinement_plan import shapes_of
from zett.train.run import train
from zett.transfer import transfer

pytestmark = pytest.mark.xdist_group("refinement")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small model, and the same with another tokenizer."""
    folder = tmp_path_factory.mktemp("refinement")
    tiny.base_folder(folder / "original", tied=True, dtype="float32")
    target = tiny.tokenizer_folder(folder / "tokenizer", "unigram", 330)
    transfer(folder / "original", target, folder / "start", method="fvt")
    return folder


def settings(corpus, folder, *, loss=None, train=None, **changes) -> Config:
    return from_dict(
        {
            "recipe": "refinement",
            "base": str(folder / "original"),
            "start": str(folder / "start"),
            "data": {"text": str(corpus), "batch_size": 4, "length": 32},
            "loss": {"hidden": 0.5, "chunk": 0.1} | (loss or {}),
            "optim": {"learning_rate": 1e-2, "warmup_steps": 1, "weight_decay": 0.0},
            "train": {
                "steps": 6, "log_every": 1, "eval_every": 3, "checkpoint_every": 2, "eval_windows": 4, "dtype": "float32",
                "activations": "float32", **(train or {}),
            },
        }
        | changes
    )  # fmt: skip


def recipe_for(config, workdir) -> RefinementRecipe:
    return RefinementRecipe(config, workdir, make_mesh(config.mesh))


@pytest.fixture(scope="module")
def run(folder, corpus, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("refinement") / "run"
    return workdir, train(settings(corpus, folder, train={"body_rank": 2, "eval_first": True}), workdir)


def test_rows_and_low_rank_changes_learn(run, folder):
    """From the transferred model as it is; the changes are in the body's matrices in the end, and nothing else differs."""
    workdir, evaluation = run
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    scores = {line["step"]: line["eval/ratio"] for line in lines if "eval/ratio" in line}
    assert sorted(scores) == [0, 3, 6] and scores[6] < scores[0] - 0.01 and evaluation["ratio"] == scores[6]
    losses = [line for line in lines if "loss" in line]
    assert losses[-1]["hidden"] < losses[0]["hidden"] and losses[-1]["lm"] < losses[0]["lm"]
    before, after = tensors_of(folder / "start"), tensors_of(workdir / "export")
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {name for name in before if "proj" in name or "embed" in name}
    for name in changed - {"model.embed_tokens.weight"}:
        difference = (after[name] - before[name]).astype(np.float64)
        assert np.linalg.matrix_rank(difference, tol=1e-5 * np.linalg.norm(difference)) <= 2, name
    assert "changes of rank 2" in (workdir / "export" / "README.md").read_text()


def test_the_folder_is_what_was_trained(run, folder, corpus, tmp_path):
    workdir, evaluation = run
    again = recipe_for(settings(corpus, folder, start=str(workdir / "export")), tmp_path)
    assert again.evaluate(again.start())["bits_per_byte"] == pytest.approx(evaluation["bits_per_byte"], rel=1e-5)
    params = again.original.params
    assert params is not again.frozen["body"] and again.frozen["teacher_body"] is params  # the original's differs


def test_a_resumed_run_ends_with_the_same_bits(run, folder, corpus, tmp_path):
    shutil.copytree(run[0], tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "6")
    shutil.rmtree(tmp_path / "run" / "export")
    config = settings(corpus, folder, train={"body_rank": 2, "eval_first": True})
    assert train(config, tmp_path / "run") == run[1]
    jax.tree.map(np.testing.assert_array_equal, tensors_of(run[0] / "export"), tensors_of(tmp_path / "run" / "export"))


def test_rows_alone_share_the_originals_body(folder, corpus, tmp_path):
    recipe = recipe_for(settings(corpus, folder), tmp_path)
    assert recipe.original.params is recipe.frozen["body"]
    batch = recipe.batch(0)
    assert batch["place_weights"].sum() > 20 and batch["chunk_weights"].sum() > 20
    params = recipe.start()
    gradient = jax.jit(jax.grad(lambda p, b: recipe.loss(p, recipe.frozen, b)[0]))(params, batch)
    assert gradient.keys() == {"input"} and np.abs(gradient["input"]).max() > 0


def test_the_whole_body_learns_and_the_teacher_stays(folder, corpus, tmp_path):
    recipe = recipe_for(settings(corpus, folder, train={"body": True}), tmp_path)
    assert recipe.frozen["teacher_body"] is recipe.original.params and "body" not in recipe.frozen
    gradient = jax.jit(jax.grad(lambda p, b: recipe.loss(p, recipe.frozen, b)[0]))(recipe.start(), recipe.batch(0))
    assert gradient.keys() == {"input", "body"}
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(gradient))


@pytest.mark.slow
def test_all_of_the_body_is_in_the_folder(folder, corpus, tmp_path):
    train(settings(corpus, folder, train={"body": True, "steps": 2}), tmp_path / "run")
    before, after = tensors_of(folder / "start"), tensors_of(tmp_path / "run" / "export")
    assert all(np.abs(before[name] - after[name]).max() > 0 for name in before)
    assert "Trained: all parameters" in (tmp_path / "run" / "export" / "README.md").read_text()


def test_a_body_is_trained_in_one_way(folder, corpus, tmp_path):
    with pytest.raises(UserError, match=r"body_rank is 2 and config\.train\.body True"):
        recipe_for(settings(corpus, folder, train={"body": True, "body_rank": 2}), tmp_path)


def test_the_original_itself_has_nothing_to_learn_from_itself(folder, corpus, tmp_path):
    """But the next token."""
    recipe = recipe_for(settings(corpus, folder, start=str(folder / "original")), tmp_path)
    _, metrics = jax.jit(lambda p, b: recipe.loss(p, recipe.frozen, b))(recipe.start(), recipe.batch(0))
    assert abs(float(metrics["hidden"])) < 1e-6 and abs(float(metrics["chunk"])) < 1e-6 and float(metrics["lm"]) > 1


def test_without_a_comparison_there_is_no_original(folder, corpus, tmp_path):
    recipe = recipe_for(settings(corpus, folder, loss={"hidden": 0.0, "chunk": 0.0}, base=str(tmp_path / "none")), tmp_path)
    assert recipe.original is None and recipe.batch(0).keys() == {"targets", "weights", "bytes"}
    assert recipe.evaluate(recipe.start()).keys() == {"bits_per_byte", "score"}


def test_output_rows_of_a_tied_model_are_trained_apart(folder, corpus, tmp_path):
    """They begin as the input rows, so that the loss is the same, and end in a folder that is untied."""
    config = settings(corpus, folder, train={"untie": True, "steps": 3, "eval_first": True})
    apart, together = (recipe_for(c, tmp_path) for c in (config, settings(corpus, folder)))
    params, batch = apart.start(), apart.batch(0)
    assert params.keys() == apart.init().keys() == {"input", "output"}
    np.testing.assert_array_equal(params["input"], params["output"])
    assert not np.shares_memory(params["input"], params["output"])
    losses = [jax.jit(r.loss)(p, r.frozen, batch)[0] for r, p in ((apart, params), (together, together.start()))]
    assert float(losses[0]) == pytest.approx(float(losses[1]), rel=1e-6)
    evaluation = train(config, tmp_path / "run")
    model = load_base_model(tmp_path / "run" / "export")
    assert model.hf_config["tie_word_embeddings"] is False and not np.array_equal(model.table.input, model.table.output)
    assert "output rows apart from input rows" in (tmp_path / "run" / "export" / "README.md").read_text()
    again = recipe_for(settings(corpus, folder, start=str(tmp_path / "run" / "export")), tmp_path)  # it has output rows now
    assert again.evaluate(again.start())["bits_per_byte"] == pytest.approx(evaluation["bits_per_byte"], rel=1e-5)
    planned, one = shapes_of(config), shapes_of(settings(corpus, folder))
    assert {name: x.shape for name, x in planned.trained.items()} == {name: x.shape for name, x in params.items()}
    bytes_of = [{part.name: part.bytes for part in plan.parts((1, 1, 1), How())} for plan in (planned, one)]
    assert bytes_of[0]["parameters"] == 2 * bytes_of[1]["parameters"] and planned.work.total == one.work.total


SHARDED = """
import json, sys
import jax, optax
from zett.config import from_dict
from zett.mesh import global_batch, local_rows, make_mesh
from zett.optim import make_optimizer
from zett.recipes.refinement import RefinementRecipe
from zett.train.step import abstract_state, initial_state, make_step
config = from_dict(json.loads(sys.argv[1]))
mesh = make_mesh(config.mesh)
recipe, optimizer = RefinementRecipe(config, None, mesh), make_optimizer(config.optim, 10)
state = initial_state(recipe, optimizer, abstract_state(recipe, optimizer, mesh))
step = make_step(recipe, optimizer)
for number in range(2):
    batch = global_batch(mesh, recipe.batch(number, local_rows(mesh, 4)), recipe.batch_specs, 4)
    state, metrics = step(state, recipe.frozen, batch)
    print(json.dumps({name: float(value) for name, value in metrics.items()}))
"""


@pytest.mark.slow
def test_four_devices_compute_what_one_does(folder, corpus):
    found = []
    for devices, mesh in ((1, {}), (4, {"data": 1, "fsdp": 2, "tensor": 2})):
        config = settings(corpus, folder, mesh=mesh, train={"body_rank": 2})
        run = [sys.executable, "-c", SHARDED, json.dumps(to_dict(config))]
        done = subprocess.run(run, cwd=ROOT, env=environment(devices), capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        found.append([json.loads(line) for line in done.stdout.splitlines()])
    for one, other in zip(*found, strict=True):
        assert one.keys() == other.keys() and {"hidden", "chunk"} <= one.keys()
        for name in one:
            np.testing.assert_allclose(one[name], other[name], rtol=5e-4, err_msg=name)


def test_a_plan_counts_the_original(folder, corpus):
    with_it, alone = (shapes_of(settings(corpus, folder, loss=loss)) for loss in ({}, {"hidden": 0.0, "chunk": 0.0}))
    assert with_it.work.teacher > 0 == alone.work.teacher and with_it.work.body_forward == alone.work.body_forward
    recipe = recipe_for(settings(corpus, folder), None)
    assert recipe.flops({}) == pytest.approx(with_it.work.total, rel=0.01)
    more = {part.name for part in with_it.parts((1, 1, 1), How())} - {part.name for part in alone.parts((1, 1, 1), How())}
    assert more == {"rows of the original", "states of the teacher"}
    assert list(with_it.trained) == ["input"]


TEMPLATE = "{% for m in messages %}<|endoftext|>{{ m.role }}: {{ m.content }}<|pad|>{% endfor %}"


def test_texts_in_turns(folder, corpus, tmp_path):
    """A share of the rows has the special tokens of the chat template, the others are what they were without."""
    start = tmp_path / "start"
    shutil.copytree(folder / "start", start)
    (start / "chat_template.jinja").write_text(TEMPLATE)
    data = {"text": str(corpus), "batch_size": 8, "length": 32}
    plain = recipe_for(settings(corpus, folder, start=str(start), data=data), tmp_path / "a")
    mixed = recipe_for(settings(corpus, folder, start=str(start), data=data | {"turns": 0.5}), tmp_path / "b")
    special = sorted(mixed.base.vocab.tokenizer.token_to_id(text) for text in ("<|endoftext|>", "<|pad|>"))
    framed, marked = 0, 0
    for step in range(4):
        before, after = plain.batch(step)["targets"], mixed.batch(step)["targets"]
        assert np.array_equal(after, np.concatenate([mixed.batch(step, np.asarray([row]))["targets"] for row in range(8)]))
        for row, (one, other) in enumerate(zip(before, after)):
            if mixed._in_turns(step, row):
                framed += 1
                marked += bool(np.isin(special, other).any())
                assert b"user: " in b"".join(mixed.base.vocab.tokens[i] for i in mixed.turned[0].tokens[:200])
            else:
                assert np.array_equal(one, other)
    assert 8 < framed < 24 and framed / 2 < marked <= framed
    batch = mixed.batch(0)
    value, metrics = jax.jit(lambda p, b: mixed.loss(p, mixed.frozen, b))(mixed.start(), batch)
    assert np.isfinite(value) and metrics["hidden"] > 0 and batch["place_weights"].sum() > 20


def test_turns_of_conversations(folder, corpus, tmp_path):
    """The rows in turns are conversations from a file, and nothing else."""
    start = tmp_path / "start"
    shutil.copytree(folder / "start", start)
    (start / "chat_template.jinja").write_text(TEMPLATE)
    messages = [{"role": "user", "content": "def f"}, {"role": "assistant", "content": "import x"}]
    (tmp_path / "chats.jsonl").write_text((json.dumps({"messages": messages}) + "\n") * 9)
    data = {"text": str(corpus), "batch_size": 4, "length": 32, "turns": 0.5, "chats": str(tmp_path / "chats.jsonl")}
    recipe = recipe_for(settings(corpus, folder, start=str(start), data=data), tmp_path / "a")
    text = b"".join(recipe.base.vocab.tokens[i] for i in recipe.turned[0].tokens)
    assert text.count(b"user: def f") == text.count(b"assistant: import x") == 9
    with pytest.raises(UserError, match=r"config\.data\.chats is 'a', but config\.data\.turns is 0"):
        from_dict({"recipe": "hypernet", "data": {"chats": "a"}})


def test_mistakes(folder, corpus, tmp_path):
    with pytest.raises(UserError, match=r"config\.start is None; config\.recipe 'refinement' needs it"):
        from_dict({"recipe": "refinement"})
    with pytest.raises(UserError, match=r"config\.train\.untie is True; of a hypernetwork, config\.hypernet\.untie makes"):
        from_dict({"recipe": "hypernet", "train": {"untie": True}})
    with pytest.raises(UserError, match=r"an original model, which config\.recipe 'lm' has not"):
        from_dict({"recipe": "lm", "loss": {"hidden": 1.0}})
    assert load_base_model(folder / "start", body=False).vocab.kind == "Unigram"
    with pytest.raises(UserError, match="has no chat template"):
        recipe_for(settings(corpus, folder, data={"text": str(corpus), "batch_size": 4, "length": 32, "turns": 0.5}), tmp_path)
    with pytest.raises(UserError, match=r"config\.data\.turns is 0\.5; a model from scratch has no chat template"):
        from_dict({"recipe": "lm", "data": {"turns": 0.5}})
