"""The recipe "hypernet" with output rows of their own for a tied base model: what it starts from, learns, writes and plans."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from recipes.test_hypernet import prepared, recipe_for, settings_for
from safetensors.numpy import load_file

from zett.errors import UserError
from zett.export import export
from zett.hypernet.network import predict_rows
from zett.hypernet.release import load_hypernet, save_hypernet
from zett.lms import load_base_model
from zett.plan.shapes import How
from zett.recipes.hypernet import HypernetStep, trained_for
from zett.recipes.hypernet_plan import check_init, shapes_of
from zett.train.run import train
from zett.transfer import transfer
from zett.vocab import load_tokenizer

pytestmark = pytest.mark.xdist_group("untied")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, corpus):
    yield from prepared(tmp_path_factory, corpus, tied=True)


def settings(folder, *, untie: bool = True, **changes):
    config = settings_for(folder, **changes)
    return dataclasses.replace(config, hypernet=dataclasses.replace(config.hypernet, untie=untie))


@pytest.fixture(scope="module")
def recipe(folder):
    return recipe_for(settings(folder), folder)


@pytest.fixture(scope="module")
def tied(folder, recipe):
    """The step of a tied hypernetwork, for the same batches."""
    return HypernetStep(settings(folder, untie=False), recipe.base, recipe.mesh)


@functools.cache
def graded(step):
    return jax.jit(jax.value_and_grad(step.loss, has_aux=True))


def moved(params, by=0.1):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: np.asarray(x + by * rng.normal(size=x.shape), np.float32), params)


def test_training_starts_where_a_tied_hypernetwork_ended(recipe, tied, tmp_path):
    """With the same loss on the same batch; from then on the two heads learn different things."""
    params = moved(tied.init())
    save_hypernet(tmp_path, trained_for(tied.base, tied.config, params), tied.base.vocab, {})
    go_on = HypernetStep(dataclasses.replace(recipe.config, start=str(tmp_path)), recipe.base, recipe.mesh)
    found, batch = go_on.start(), recipe.batch(1)
    assert {path: x.shape for path, x in flat(found).items()} == {path: x.shape for path, x in flat(recipe.init()).items()}
    for head in found["heads"].values():
        jax.tree.map(np.testing.assert_array_equal, head, params["heads"][0])
    assert not any(np.shares_memory(*pair) for pair in zip(*map(jax.tree.leaves, found["heads"].values())))
    jax.tree.map(np.testing.assert_array_equal, *({k: v for k, v in p.items() if k != "heads"} for p in (found, params)))
    d = recipe.hidden_size
    rows = np.asarray(predict_rows(go_on.graphdef, found, recipe.frozen["rows"], batch["forms"]))
    before = np.asarray(predict_rows(tied.graphdef, params, recipe.frozen["rows"], batch["forms"]))
    assert rows.shape == (len(batch["same"]), 2 * d)
    np.testing.assert_allclose(rows, np.tile(before, 2), rtol=1e-6, atol=1e-6)  # two programs, which may round differently
    (loss, metrics), gradient = graded(go_on)(found, go_on.frozen, batch)
    (expected, its), one = graded(tied)(params, tied.frozen, batch)
    assert float(loss) == pytest.approx(float(expected), rel=1e-6) and metrics.keys() == its.keys()
    # What the one head learns from both uses of its rows, the two learn from one each.
    both = [gradient["heads"][i]["dense"]["kernel"] for i in range(2)]
    np.testing.assert_allclose(both[0] + both[1], one["heads"][0]["dense"]["kernel"], rtol=1e-3, atol=1e-5)
    assert all(np.abs(x).max() > 0 for x in both) and not np.allclose(*both, rtol=0.1)


def flat(params) -> dict:
    return {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(params)}


def test_what_training_can_start_from(folder, recipe, tied, tmp_path):
    """Not from two heads to one; and where the base has output rows, the setting says nothing."""
    two, one = (trained_for(step.base, step.config, step.init()) for step in (recipe, tied))
    check_init(dataclasses.replace(recipe.config, start="x"), two)
    with pytest.raises(UserError, match=r"config\.hypernet\.untie is False, and config\.start, x, has True"):
        check_init(dataclasses.replace(tied.config, start="x"), two)
    for config in (recipe.config, tied.config):
        for trained in (one, two):
            check_init(dataclasses.replace(config, start="x"), dataclasses.replace(trained, tied=False))


def test_gradients_and_microbatches(folder, recipe):
    """Both heads and all else learn, the same in parts."""
    params, batch = moved(recipe.init()), recipe.batch(2)
    (loss, _), gradient = graded(recipe)(params, recipe.frozen, batch)
    for name, x in flat(gradient).items():
        assert bool(np.abs(x).max() > 0) == ("fallback" not in name), name
    config = dataclasses.replace(recipe.config, train=dataclasses.replace(recipe.config.train, microbatches=2))
    parts = HypernetStep(config, recipe.base, recipe.mesh)
    (again, _), other = graded(parts)(params, parts.frozen, batch)
    assert float(again) == pytest.approx(float(loss), rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-5), gradient, other)


@pytest.mark.slow
def test_a_run_from_training_to_a_folder(folder, tmp_path):
    """Trained, exported, as int8, transferred: the model that is written computes what was evaluated."""
    config = settings(folder, train={"steps": 4, "eval_every": 4, "checkpoint_every": 4})
    train(config, tmp_path / "run")
    trained, base = load_hypernet(tmp_path / "run" / "export"), load_base_model(folder / "base")
    assert trained.tied and trained.config.untie and trained.kinds == 2 and trained.fit(base).exact
    assert "Output rows of their own" in (trained.folder / "README.md").read_text()
    target = load_tokenizer(folder / "target")
    table = trained(base, target)
    assert np.abs(table.output - table.input).max() > 1e-3
    small = export(trained.folder, tmp_path / "small", weights="int8")
    again = load_hypernet(small)
    assert again.config == trained.config and load_file(small / "model.safetensors")["heads.1.dense.kernel"].dtype == np.int8
    np.testing.assert_allclose(again(base, target).output, table.output, atol=0.05 * np.std(table.output))
    output = transfer(folder / "base", folder / "target", tmp_path / "out", hypernet=trained.folder)
    model = load_base_model(output)
    assert model.hf_config["tie_word_embeddings"] is False
    np.testing.assert_array_equal(model.table.input, table.input)
    np.testing.assert_array_equal(model.table.output, table.output)


def test_a_plan_counts_the_second_head(folder, recipe, tied):
    two, one = (shapes_of(step.config) for step in (recipe, tied))
    sizes = [{path: x.shape for path, x in flat(shapes.trained).items()} for shapes in (two, one)]
    more = {path: shape for path, shape in sizes[0].items() if path not in sizes[1]}
    assert all("['heads']['1']" in path for path in more)
    head = {path: shape for path, shape in sizes[1].items() if "['heads']['0']" in path}
    assert sorted(more.values()) == sorted(head.values()) and len(more) == 8
    assert two.specs.keys() - one.specs.keys() == {f"heads.1.{path}" for path in ("dense.kernel", "dense.bias")} | {
        f"heads.1.projector.{path}" for path in ("up.kernel", "up.bias", "down.kernel", "down.bias", "norm.scale", "norm.bias")
    }
    kernels = sum(np.prod(shape) for path, shape in more.items() if path.endswith("['kernel']"))
    assert two.work.hypernet - one.work.hypernet == pytest.approx(3 * 2 * kernels * two.rows)
    assert two.work.total - two.work.hypernet == one.work.total - one.work.hypernet
    bytes_of = [{part.name: part.bytes for part in shapes.parts((1, 1, 1), How())} for shapes in (two, one)]
    rows, d = shapes_rows(recipe), recipe.hidden_size
    name = "predicted rows and their gradient"
    assert bytes_of[0][name] - bytes_of[1][name] == 4 * 2 * rows * d
    assert bytes_of[0]["source rows"] == bytes_of[1]["source rows"]
    assert bytes_of[0]["hypernetwork"] - bytes_of[1]["hypernetwork"] == 4 * sum(np.prod(shape) for shape in more.values())
    batch = recipe.batch(0)
    assert recipe.flops(batch) - tied.flops(batch) == pytest.approx(3 * 2 * kernels * int(batch["num_valid"]))


def shapes_rows(recipe) -> int:
    return len(recipe.batch(0)["same"])
