"""The recipe "hypernet" with config.train.body: changes of the body that serve all tokenizers, from training to a folder."""

import dataclasses

import jax
import numpy as np
import pytest
from recipes.test_hypernet import prepared, recipe_for, settings_for
from recipes.test_untied import graded, moved
from runs import interrupted_after
from safetensors.numpy import load_file

from zett.belongs import AnotherModel
from zett.errors import UserError
from zett.evaluate.tasks import reading_task
from zett.export import export
from zett.hypernet.release import CHANGES, load_hypernet, save_hypernet
from zett.lms import load_base_model
from zett.mesh import match, paths
from zett.plan.shapes import How
from zett.recipes.hypernet import OWN, HypernetStep, trained_for
from zett.recipes.hypernet_plan import check_init, shapes_of
from zett.train.run import train
from zett.transfer import transfer
from zett.vocab import load_tokenizer

pytestmark = pytest.mark.xdist_group("changed_body")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, corpus):
    yield from prepared(tmp_path_factory, corpus)


def settings(folder, *, body: bool = True, **changes):
    changes["train"] = {"body": body} | changes.get("train", {})
    return settings_for(folder, **changes)


@pytest.fixture(scope="module")
def recipe(folder):
    return recipe_for(settings(folder), folder)


@pytest.fixture(scope="module")
def frozen(folder, recipe):
    """The step that leaves the body as it is, for the same batches."""
    return HypernetStep(settings(folder, body=False), recipe.base, recipe.mesh)


def test_at_first_nothing_is_changed(recipe, frozen, tmp_path):
    """A run that starts from a hypernetwork for the body as it is has its loss, and its gradient for what that has, too."""
    params, batch = moved(frozen.init()), recipe.batch(1)
    save_hypernet(tmp_path, trained_for(frozen.base, frozen.config, params), frozen.base.vocab, {})
    go_on = HypernetStep(dataclasses.replace(recipe.config, start=str(tmp_path)), recipe.base, recipe.mesh)
    found = go_on.start()
    assert {p: np.shape(x) for p, x in paths(found).items()} == {p: np.shape(x) for p, x in paths(recipe.init()).items()}
    assert not any(np.any(x) for x in jax.tree.leaves(found[CHANGES]))
    (loss, _), gradient = graded(go_on)(found, go_on.frozen, batch)
    (expected, _), one = graded(frozen)(params, frozen.frozen, batch)
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    changes = gradient.pop(CHANGES)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), gradient, one)
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(changes))


def test_the_gradient_is_that_of_the_body(recipe):
    """By a difference along it: no part of the loss holds it back; and microbatches change nothing."""
    params, batch = moved(recipe.init(), 0.02), recipe.batch(2)
    (_, _), gradient = graded(recipe)(params, recipe.frozen, batch)
    norm = np.sqrt(sum(float(np.square(x).sum()) for x in jax.tree.leaves(gradient[CHANGES])))
    step = 0.02 / norm

    def loss(sign):
        there = jax.tree.map(lambda x, g: np.asarray(x + sign * step * g), params[CHANGES], gradient[CHANGES])
        return float(graded(recipe)(params | {CHANGES: there}, recipe.frozen, batch)[0][0])

    assert (loss(1) - loss(-1)) / (2 * step) == pytest.approx(norm**2, rel=0.02)
    config = dataclasses.replace(recipe.config, train=dataclasses.replace(recipe.config.train, microbatches=2))
    parts = HypernetStep(config, recipe.base, recipe.mesh)
    other = graded(parts)(params, parts.frozen, batch)[1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-5), gradient, other)


def test_the_teacher_is_the_body_as_it_was(folder, recipe):
    """What is compared with does not follow the changes."""
    taught = recipe_for(settings(folder, loss={"token": 0.0, "hidden": 1.0, "lexical": 0.0}), folder)
    jax.tree.map(np.testing.assert_array_equal, taught.frozen["teacher_body"], recipe.frozen["body"])
    batch, params = taught.batch(1), taught.init()
    before = float(graded(taught)(params, taught.frozen, batch)[0][0])
    changed = params | {CHANGES: moved(params[CHANGES], 0.3)}
    assert float(graded(taught)(changed, taught.frozen, batch)[0][0]) > before


def test_a_run_from_training_to_a_folder(folder, tmp_path):
    """Trained, interrupted, resumed, as int8, transferred: the folder computes what the run has evaluated."""
    config = settings(folder, train={"steps": 4, "eval_every": 4, "checkpoint_every": 2})
    evaluation = train(config, tmp_path / "run")
    assert set(evaluation) == {str(folder / "target"), OWN, "score"} and evaluation[OWN] != 1
    assert evaluation["score"] == pytest.approx(evaluation[str(folder / "target")])
    with pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
        patch.setattr("zett.train.loop.make_step", interrupted_after(2))
        train(config, tmp_path / "again")
    assert train(config, tmp_path / "again") == evaluation
    stored, again = (load_file(tmp_path / name / "export" / "model.safetensors") for name in ("run", "again"))
    jax.tree.map(np.testing.assert_array_equal, stored, again)

    trained, base = load_hypernet(tmp_path / "run" / "export"), load_base_model(folder / "base")
    assert trained.fit(base).exact and trained.changes is not None
    assert "changes of its body" in (trained.folder / "README.md").read_text()
    small = load_hypernet(export(trained.folder, tmp_path / "small", weights="int8"))
    for path, x in paths(small.changes).items():
        there = paths(trained.changes)[path]
        np.testing.assert_allclose(x.astype(np.float32), there, atol=0.01 * np.abs(there).max())

    kept = dataclasses.replace(trained, changes=None)
    save_hypernet(tmp_path / "kept", kept, base.vocab, {})
    half = load_hypernet(export(trained.folder, tmp_path / "half", mean_with=tmp_path / "kept"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b / 2, rtol=1e-6), half.changes, trained.changes)

    output = transfer(folder / "base", folder / "target", tmp_path / "out", hypernet=trained.folder, text=[folder / "text"])
    model, adapted = load_base_model(output), trained.adapted(base)
    for path, x in paths(model.params).items():
        np.testing.assert_allclose(x, paths(adapted.params)[path], rtol=1e-6, err_msg=path)
        assert not np.array_equal(x, paths(base.params)[path]), path
    assert "Its body has been changed, too: the same changes for every tokenizer" in (output / "README.md").read_text()
    windows = [text.read_text()[:400] for text in sorted((folder / "text").iterdir())[:3]]
    task = reading_task(base)
    items = task.items(base, windows)
    target = load_tokenizer(folder / "target")
    np.testing.assert_allclose(task.score(model, items), task.score(trained.model(base, target), items), rtol=1e-5)
    assert trained.model(base, target).original is base


def test_what_training_can_start_from(recipe, frozen):
    """From changes only with changes, or the body as it is would be given rows for another."""
    trained = trained_for(recipe.base, recipe.config, recipe.init())
    check_init(dataclasses.replace(recipe.config, start="x"), trained)
    with pytest.raises(UserError, match=r"config\.start, x, changes the body.*config\.train\.body is False"):
        check_init(dataclasses.replace(frozen.config, start="x"), trained)


def test_changes_of_another_body_are_refused(recipe, tmp_path):
    trained = trained_for(recipe.base, recipe.config, recipe.init())
    norm = {"norm": {"scale": np.zeros(7, np.float32)}}
    with pytest.raises(AnotherModel, match=r"it changes a body of other shapes: norm\.scale"):
        dataclasses.replace(trained, changes=trained.changes | norm).fit(recipe.base)
    with pytest.raises(AnotherModel, match="that of this one cannot be read here"):  # one that is quantised, or not ported
        trained.fit(dataclasses.replace(recipe.base, config=None))
    save_hypernet(tmp_path, dataclasses.replace(trained, changes={"norm": {"scale": np.zeros(4, np.int8)}}), None, {})
    with pytest.raises(UserError, match=r"does not fit its config: .*body\.norm\.scale"):
        load_hypernet(tmp_path)


def test_a_plan_counts_the_body(folder, recipe, frozen):
    two, one = (shapes_of(step.config) for step in (recipe, frozen))
    assert {p: x.shape for p, x in paths(two.trained).items()} == {p: np.shape(x) for p, x in paths(recipe.init()).items()}
    assert two.specs == match({p: np.shape(x) for p, x in paths(recipe.init()).items()}, recipe.rules)
    more = 4 * sum(np.prod(np.shape(x)) for x in jax.tree.leaves(recipe.frozen["body"]))
    sums = [{part.name: part.bytes for part in shapes.parts((1, 1, 1), How())} for shapes in (two, one)]
    assert sums[0]["hypernetwork, and changes of the body"] - sums[1]["hypernetwork"] == more
    assert sums[0]["frozen body"] == sums[1]["frozen body"] and sums[0]["changed body and its gradient"] == 2 * more
    assert two.work.body_backward > one.work.body_backward and two.work.hypernet == one.work.hypernet
    assert recipe.flops(recipe.batch(0)) - frozen.flops(recipe.batch(0)) == pytest.approx(
        two.work.body_backward - one.work.body_backward
    )
