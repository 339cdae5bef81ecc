"""The hypernetwork: packing changes nothing, it starts from FVT, it is read back as written, and it trains to the bit."""

import copy
import dataclasses
import functools
import json
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from flax import nnx
from hypothesis import example, given, settings
from hypothesis import strategies as st
from vocabularies import vocabulary

from zett.config import Config, HypernetConfig, from_dict, to_dict
from zett.errors import UserError
from zett.export import export
from zett.hypernet.network import hypernet_graph, make_hypernet, predict_rows
from zett.hypernet.packing import limit_pieces, pack_forms, renumbered
from zett.hypernet.release import load_hypernet, save_hypernet
from zett.hypernet.scaling import column_stats, fit_scales, source_rows
from zett.hypernet.trained import TrainedHypernet
from zett.methods.fvt import fvt
from zett.table import EmbeddingTable
from zett.vocab import SurfaceForms, load_tokenizer, surface_forms
from zett.vocab.train import save_tokenizer

pytestmark = pytest.mark.xdist_group("hypernet")
WIDTH = 12  # of the rows
CONFIG = HypernetConfig(width=16, layers=2, heads=2, feed_forward=24, max_pieces=4)
BASE = {"name": "tiny", "fingerprint": "0123456789abcdef"}


@pytest.fixture(scope="module")
def source():
    return vocabulary("bpe", 400)


@pytest.fixture(scope="module")
def target():
    return vocabulary("unigram", 600)


@pytest.fixture(scope="module")
def forms(target, source):
    return surface_forms(target, source, CONFIG.max_pieces)


def table_for(source, tied=False):
    rng = np.random.default_rng(0)
    rows = [(3 * rng.normal(size=(len(source), WIDTH)) + rng.normal(size=WIDTH)).astype(np.float32) for _ in range(2)]
    return EmbeddingTable.of(rows[0], None if tied else rows[1])


def params_of(config=CONFIG, *, tied=False, trained=True):
    """Parameters; `trained`: moved from their initialisation at random, so that the correction is not zero."""
    params = nnx.to_pure_dict(nnx.split(make_hypernet(config, WIDTH, tied, jnp.float32, 0))[1])
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: np.asarray(x + 0.1 * trained * rng.normal(size=x.shape), np.float32), params)


def trained(config=CONFIG, *, tied=False, moved=True):
    return TrainedHypernet(config, params_of(config, tied=tied, trained=moved), WIDTH, tied, BASE)


def predict(packed, rows, config=CONFIG, *, tied=False, params=None):
    params = params_of(config, tied=tied) if params is None else params
    return np.asarray(predict_rows(hypernet_graph(config, WIDTH, tied, jnp.float32), params, rows, packed))


def random_forms(lengths, s=4, ids=300, seed=0) -> SurfaceForms:
    rng = np.random.default_rng(seed)
    lengths = np.asarray(lengths, np.int32)
    inside = np.arange(s) < lengths[:, None]
    pieces = np.where(inside, rng.integers(0, ids, (len(lengths), s)), 0).astype(np.int32)
    features = rng.normal(size=(len(lengths), 5)).astype(np.float32)
    return SurfaceForms(pieces, lengths, features, np.full(len(lengths), -1, np.int32))


# -------------------------------------------------------------------------------------------------------------- packing


@given(st.integers(1, 8).flatmap(lambda s: st.tuples(st.just(s), st.lists(st.integers(0, s), min_size=1, max_size=60))))
@example((4, [0]))
@example((4, [4, 3, 1, 2, 2, 0, 1, 1, 1, 1]))
@settings(max_examples=100, deadline=None)
def test_packing_is_lossless(drawn):
    s, lengths = drawn
    forms = random_forms(lengths, s)
    packed = pack_forms(forms, multiple=4)
    assert packed.packed.shape == packed.owner.shape == packed.position.shape and packed.packed.shape[1] == s
    assert len(packed.packed) % 4 == 0
    assert (packed.owner < len(lengths)).sum() == sum(lengths)  # every piece once, none over another
    flat = packed.packed.reshape(-1), packed.owner.reshape(-1), packed.position.reshape(-1)
    for token, length in enumerate(lengths):
        where = packed.first[token] + np.arange(length)
        assert where.max(initial=0) // s == where.min(initial=len(flat[0])) // s or not length  # in one row
        np.testing.assert_array_equal(flat[0][where], forms.pieces[token, :length])
        np.testing.assert_array_equal(flat[1][where], token)
        np.testing.assert_array_equal(flat[2][where], np.arange(length))


def test_packing_is_tight():
    packed = pack_forms(random_forms([1, 2, 3] * 100 + [4] * 10), multiple=1)
    assert len(packed.packed) == (6 * 100 + 40) // 4


@pytest.mark.parametrize("config", [CONFIG, dataclasses.replace(CONFIG, norm="post", residual="first", features=False)])
def test_packed_rows_equal_rows_of_their_own(source, config):
    rows = source_rows(table_for(source))
    forms = random_forms([1, 2, 3, 4, 1, 1, 2, 4, 3, 1], ids=len(source) + 256)
    together = predict(pack_forms(forms, multiple=1), rows, config)
    for i in range(len(forms)):
        alone = predict(pack_forms(forms.take(np.asarray([i])), multiple=1), rows, config)
        np.testing.assert_allclose(together[i], alone[0], atol=1e-5, rtol=1e-5)
    assert np.abs(together[0] - together[4]).max() > 0.01


@pytest.mark.parametrize("config", [CONFIG, dataclasses.replace(CONFIG, residual="first", layers=1)])
def test_only_the_rows_that_are_used_are_needed(config):
    """Values and gradients, with every piece's row there once, and the statistics of the whole table."""
    size = 3000
    rows = (3 * np.random.default_rng(0).normal(size=(size, 2 * WIDTH)) + 1).astype(np.float32)
    packed = pack_forms(random_forms(np.random.default_rng(1).integers(0, 5, 300), ids=size + 256), multiple=1)
    used, fewer = renumbered(packed, size)
    assert len(np.unique(used)) < len(used) == 768  # filled up
    stats = column_stats([rows[:, :WIDTH], rows[:, WIDTH:]], size)
    np.testing.assert_allclose(stats, (rows.mean(0), rows.std(0)), rtol=1e-5)
    graphdef, params = hypernet_graph(config, WIDTH, False, jnp.float32), params_of(config)

    def run(params, *inputs):
        predicted = predict_rows(graphdef, params, *inputs)
        return (predicted**2).sum(), predicted

    (_, whole), gradient = jax.value_and_grad(run, has_aux=True)(params, rows, packed)
    (_, part), gradient_part = jax.value_and_grad(run, has_aux=True)(params, rows[used], fewer, stats)
    np.testing.assert_allclose(part, whole, rtol=1e-4, atol=1e-4)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-1)  # sums of squares of thousands
    jax.tree.map(close, gradient_part, gradient)
    assert np.abs(gradient["fallback"]).max() > 1


def test_order_and_padding_do_not_matter(source):
    rows = source_rows(table_for(source))
    forms = random_forms(np.random.default_rng(0).integers(1, 5, 50))
    expected = predict(pack_forms(forms, multiple=1), rows)
    order = np.random.default_rng(1).permutation(50)
    shuffled = predict(pack_forms(forms.take(order), multiple=1), rows)
    np.testing.assert_allclose(shuffled, expected[order], atol=1e-5, rtol=1e-5)
    padded = pack_forms(forms, multiple=64)
    assert len(padded.packed) == 64
    np.testing.assert_allclose(predict(padded, rows), expected, atol=1e-5, rtol=1e-5)
    empty = padded.owner == len(forms)
    noise = np.random.default_rng(2).integers(0, 300, padded.packed.shape).astype(np.int32)
    noisy = dataclasses.replace(padded, packed=np.where(empty, noise, padded.packed))
    np.testing.assert_allclose(predict(noisy, rows), expected, atol=1e-5, rtol=1e-5)


PAPER = dataclasses.replace(CONFIG, encoder="roberta", norm="post", residual="none", rescale="fitted", input_std=0.02)


@pytest.mark.parametrize("config", [CONFIG, PAPER])
def test_a_language_is_one_more_position(source, config):
    """Each token's row depends on it, and on nothing of the tokens beside it; a language not asked about says nothing."""
    config = dataclasses.replace(config, languages=("de", "fr"))
    rows, params = source_rows(table_for(source)), params_of(config)
    forms = random_forms([1, 2, 3, 4, 1, 1, 2, 4, 3, 1], ids=len(source) + 256)
    packed = pack_forms(forms, multiple=1, language=1)
    assert packed.packed.shape[1] == 5 and (packed.owner < 10).sum() == forms.lengths.sum() + 10
    assert ((packed.position == 4) & (packed.owner < 10)).sum() == 10
    together = predict(packed, rows, config, params=params)
    for i in range(len(forms)):
        alone = predict(pack_forms(forms.take(np.asarray([i])), multiple=1, language=1), rows, config, params=params)
        np.testing.assert_allclose(together[i], alone[0], atol=1e-5, rtol=1e-5)
    other = predict(pack_forms(forms, multiple=1, language=0), rows, config, params=params)
    assert np.abs(together - other).max(1).min() > 1e-3
    changed = params | {"languages": params["languages"] * np.asarray([[2.0], [1.0]], np.float32)}
    np.testing.assert_array_equal(predict(packed, rows, config, params=changed), together)


# ------------------------------------------------------------------------------------------------------- initialisation


@pytest.mark.parametrize("tied", [False, True])
def test_it_starts_from_fvt(source, target, forms, tied):
    table = table_for(source, tied)
    predicted = trained(tied=tied, moved=False)(table, source, target, forms, chunk=64)
    expected = fvt(table, source, target, forms)
    # Of tokens that the source has FVT takes the rows; they are the mean of their pieces where the model keeps them whole.
    plain = np.asarray(
        [n > 0 and (s < 0 or (n == 1 and p == s)) for n, s, p in zip(forms.lengths, forms.same, forms.pieces[:, 0])]
    )
    assert plain.sum() > 400 and (forms.lengths > 1).sum() > 100
    np.testing.assert_allclose(predicted.input[plain], expected.input[plain], atol=1e-4)
    assert (predicted.output is None) == tied
    if not tied:
        np.testing.assert_allclose(predicted.output[plain], expected.output[plain], atol=1e-4)


def test_or_from_the_first_piece_or_from_the_mean_row(source, target, forms):
    table = table_for(source)
    used = forms.lengths > 0
    first = trained(dataclasses.replace(CONFIG, residual="first"), moved=False)(table, source, target, forms)
    np.testing.assert_allclose(first.input[used], table.input[forms.pieces[used, 0]], atol=1e-4)
    np.testing.assert_allclose(first.output[used], table.output[forms.pieces[used, 0]], atol=1e-4)
    none = trained(dataclasses.replace(CONFIG, residual="none"), moved=False)(table, source, target, forms)
    assert np.abs(none.input[used] - table.input.mean(0)).max() > 0.01  # a head that starts at random


def test_the_correction_is_scaled(source):
    """By residual_scale over sqrt(D), in units of each column's standard deviation."""
    rows = source_rows(table_for(source))
    packed = pack_forms(random_forms([1, 2, 3, 4]), multiple=1)
    params = params_of()
    start, one, two = (
        predict(packed, rows, dataclasses.replace(CONFIG, residual_scale=scale), params=params) for scale in (0.0, 1.0, 2.0)
    )
    np.testing.assert_allclose(two - start, 2 * (one - start), atol=1e-4)
    doubled = predict(packed, 2 * rows + 5, params=params)
    np.testing.assert_allclose(doubled, 2 * predict(packed, rows, params=params) + 5, atol=1e-3)


@pytest.mark.parametrize("tied", [False, True])
def test_fitted_scales(source, tied):
    """Source rows get the standard deviation that is asked for, first predictions that of the table; neither is trained."""
    rows = np.asarray(source_rows(table_for(source, tied)))
    graphdef = hypernet_graph(PAPER, WIDTH, tied, jnp.float32)
    params = fit_scales(graphdef, params_of(PAPER, tied=tied), rows, seed=3)
    scaled = rows * np.asarray(params["scale_in"]["scale"]) + np.asarray(params["scale_in"]["shift"])
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(0), 0.02, rtol=1e-4)
    ids = np.arange(len(source), dtype=np.int32)
    forms = random_forms([1] * len(source))
    forms.pieces[:, 0], forms.features[:] = ids, 0
    packed = pack_forms(forms, multiple=1)
    found = np.asarray(predict_rows(graphdef, params, rows, packed))
    np.testing.assert_allclose(found.mean(0), rows.mean(0), atol=1e-3)
    np.testing.assert_allclose(found.std(0), rows.std(0), rtol=1e-3)
    gradient = jax.grad(lambda p: jnp.square(predict_rows(graphdef, p, rows, packed)).sum())(params)
    for name in ("scale_in", "scale_out"):
        assert not any(np.asarray(x).any() for x in gradient[name].values())
    assert np.asarray(gradient["piece"]["kernel"]).any()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"encoder": "roberta"}, "config.hypernet.norm is 'pre'; with encoder 'roberta' it has to be 'post'"),
        ({"rescale": "fitted"}, "config.hypernet.residual is 'mean'; with rescale 'fitted' it has to be 'none'"),
        ({"languages": ("de", "de")}, "names a language twice: de, de"),
        ({"fallback_rows": 3}, "config.hypernet.fallback_rows is 3; training needs 256"),
    ],
)
def test_choices_that_do_not_go_together(changes, message):
    with pytest.raises(UserError, match=message):
        from_dict({"hypernet": changes})


def test_bytes_that_the_source_lacks_have_rows_of_their_own(source):
    rows = source_rows(table_for(source))
    forms = random_forms([1, 1])
    forms.pieces[:, 0] = len(source) + 7, len(source) + 8
    packed = pack_forms(forms)

    def total(params):
        return jnp.square(predict_rows(hypernet_graph(CONFIG, WIDTH, False, jnp.float32), params, rows, packed)).sum()

    gradient = np.asarray(jax.jit(jax.grad(total))(params_of())["fallback"])
    assert np.flatnonzero(np.abs(gradient).sum(1)).tolist() == [7, 8]


# ------------------------------------------------------------------------------------------------ a trained hypernetwork


def test_chunks_do_not_matter(source, target, forms):
    table = table_for(source)
    whole = trained()(table, source, target, forms)
    for chunk in (250, 600):
        parts = trained()(table, source, target, forms, chunk=chunk)
        np.testing.assert_allclose(parts.input, whole.input, atol=1e-4)
        np.testing.assert_allclose(parts.output, whole.output, atol=1e-4)
    assert whole.input.shape == (len(target), WIDTH) and int(whole.num_valid) == len(target)


def test_special_and_unused_tokens(source, target, forms):
    """Special tokens keep their partner's rows; what stands for nothing gets the mean row."""
    table = table_for(source)
    predicted = trained()(table, source, target, forms)
    paired = [i for i in target.special.values() if forms.same[i] >= 0]
    nothing = np.flatnonzero(forms.lengths == 0)
    assert len(paired) == 2 and len(nothing) > 90
    for mine, theirs in ((predicted.input, table.input), (predicted.output, table.output)):
        np.testing.assert_array_equal(mine[paired], theirs[forms.same[paired]])
        np.testing.assert_allclose(mine[nothing], np.broadcast_to(theirs.mean(0), (len(nothing), WIDTH)), atol=1e-5)


def test_padding_of_the_source_table_is_not_read(source, target, forms):
    table = table_for(source)
    predicted, padded = (trained()(t, source, target, forms) for t in (table, table.pad(512)))
    np.testing.assert_array_equal(predicted.input, padded.input)


def test_longer_forms_are_cut(source, target):
    table = table_for(source)
    longer, shorter = surface_forms(target, source, 9), surface_forms(target, source, 3)
    cut = limit_pieces(longer, 4)
    assert cut.pieces.shape[1] == 4 and cut.lengths.max() == 4 and limit_pieces(shorter, 4).pieces.shape[1] == 4
    expected = trained()(table, source, target, surface_forms(target, source, 4))
    np.testing.assert_array_equal(trained()(table, source, target, longer).input, expected.input)


def test_another_base_is_refused(source, target, forms):
    hypernet = trained()
    hypernet(table_for(source), source, target, forms, fingerprint=BASE["fingerprint"])
    with pytest.raises(
        UserError, match=r"trained for the base model 'tiny' \(0123456789ab\), and this one is another \(feed\)"
    ):
        hypernet(table_for(source), source, target, forms, fingerprint="feed")
    with pytest.raises(UserError, match="rows of width 12 and tied=False"):
        hypernet(table_for(source, tied=True), source, target, forms)


@pytest.fixture
def saved(tmp_path, source):
    save_hypernet(tmp_path / "hypernet", trained(), source, {"step": 3})
    return tmp_path / "hypernet"


def test_saved_and_loaded(saved, source, target, forms):
    loaded = load_hypernet(saved)
    assert (loaded.config, loaded.hidden_size, loaded.tied, loaded.base) == (CONFIG, WIDTH, False, BASE)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, params_of())
    expected, found = (h(table_for(source), source, target, forms) for h in (trained(), loaded))
    np.testing.assert_array_equal(found.input, expected.input)
    assert load_tokenizer(loaded.folder / "source_tokenizer").tokens == source.tokens
    assert json.loads((saved / "training.json").read_text()) == {"step": 3}
    assert not list(saved.rglob("*.tmp"))


def rewrite(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def change_tensors(path, change):
    from safetensors.numpy import load_file, save_file

    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda f: (f / "config.json").unlink(), "is not a hypernetwork: config.json is missing"),
        (lambda f: (f / "model.safetensors").unlink(), "is not a hypernetwork: model.safetensors is missing"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be read as a hypernetwork"),
        (lambda f: (f / "config.json").write_text("[]"), "has format None; expected 'zett-hypernet-1'"),
        (lambda f: (f / "config.json").write_bytes(b"\xff"), "cannot be read as a hypernetwork"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\x00" * 20), "cannot be read as a hypernetwork"),
        (lambda f: rewrite(f / "config.json", lambda c: c.pop("tied")), r"config\.json has no field 'tied'"),
        (lambda f: rewrite(f / "config.json", lambda c: c.update(base={})), r"config\.json has no field 'name'"),
        (lambda f: rewrite(f / "config.json", lambda c: c.update(format="other")), "has format 'other'"),
        (lambda f: rewrite(f / "config.json", lambda c: c["hypernet"].update(widht=3)), "widht does not exist; did you mean"),
        (lambda f: rewrite(f / "config.json", lambda c: c.update(hidden_size=13)), r"does not fit.*fallback.*piece\.kernel"),
        (lambda f: rewrite(f / "config.json", lambda c: c.update(tied=True)), r"does not fit its config.*heads\.1\."),
        (lambda f: change_tensors(f / "model.safetensors", lambda t: t.pop("norm.scale")), r"does not fit.*: norm\.scale"),
        (lambda f: change_tensors(f / "model.safetensors", lambda t: t.update(extra=np.ones(2))), "unknown: extra"),
        (
            lambda f: change_tensors(f / "model.safetensors", lambda t: t.update({"norm.bias": np.ones(3, np.float32)})),
            r"misshapen or unknown: norm\.bias",
        ),
    ],
)
def test_damage_is_named(saved, damage, message):
    damage(saved)
    with pytest.raises(UserError, match=message) as raised:
        load_hypernet(saved)
    assert str(saved) in str(raised.value)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="no such hypernetwork folder"):
        load_hypernet(tmp_path / "nowhere")


# ------------------------------------------------------------------------------------------------------------- training


def settings_for(folder, **changes) -> Config:
    values = {
        "recipe": "hypernet",
        "base": str(folder / "base"),
        "data": {"text": str(folder / "text"), "batch_size": 2, "length": 24},
        "hypernet": {"width": 16, "layers": 1, "heads": 2, "feed_forward": 16, "max_pieces": 6},
        "sampler": {
            "min_size": 320, "max_size": 420, "pool": 1, "pool_bytes": 20_000, "inventory": 500, "inventory_bytes": 20_000,
            "shards": 2, "rows": 1024,
        },
        "optim": {"learning_rate": 1e-2, "warmup_steps": 1},
        "train": {
            "steps": 6, "log_every": 2, "eval_every": 3, "checkpoint_every": 2, "eval_windows": 4, "dtype": "float32",
            "eval_targets": [str(folder / "target")],
        },
    }  # fmt: skip
    for section, fields in changes.items():
        values[section] |= fields
    return from_dict(values)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, corpus):
    folder = tmp_path_factory.mktemp("hypernet")
    (folder / "text").symlink_to(corpus)
    tiny.base_folder(folder / "base", dtype="float32")
    save_tokenizer(tiny.tokenizer("unigram", 330), folder / "target")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZETT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield folder


@pytest.fixture(scope="module")
def task(folder):
    from zett.tasks.hypernet import HypernetTask

    return HypernetTask(settings_for(folder), folder)


def test_a_batch_depends_on_seed_and_step_alone(folder, task):
    from zett.tasks.hypernet import HypernetTask

    again = HypernetTask(settings_for(folder), folder)
    batches = [task.batch(step) for step in range(4)]
    for step in (3, 1, 1, 0):
        jax.tree.map(np.testing.assert_array_equal, again.batch(step), batches[step])
    assert any(not np.array_equal(batches[0]["targets"], b["targets"]) for b in batches[1:])


def test_a_batch_spells_its_text(task):
    """Its ids count within the predicted rows, whose tokens are those of the draw."""
    for step in range(8):
        batch, draw = task.batch(step), task.sampler.draw(step)
        valid = int(batch["num_valid"])
        assert batch["targets"].max() < valid <= len(batch["same"])
        assert (batch["log_weight"][:valid] == 0).all()  # the vocabulary is smaller than the room
        number_of = {t: n for n, t in enumerate(draw.tokens) if t}
        spelled = []
        for row, weights in zip(batch["targets"], batch["weights"]):
            forms = batch["forms"]
            ids = [int(i) for i in row[weights > 0]]
            # Tokens are known by their features, which hold their length, and pieces.
            found = b"".join(b"".join(task.base.vocab.tokens[p] for p in forms.pieces[i, : forms.lengths[i]]) for i in ids)
            assert b"".join(task.base.vocab.tokens[p] for p in forms.pieces[ids[0], : forms.lengths[ids[0]]]) in number_of
            spelled.append(found.decode())
        for text in spelled:
            assert any(text.lstrip("\ufffd") in document for document in task.documents)
        assert batch["bytes"].tolist() == [len(t.encode()) for t in spelled]


@pytest.fixture(scope="module")
def value_and_grad(task):
    return jax.jit(jax.value_and_grad(task.loss, has_aux=True))


@functools.partial(jax.jit, static_argnums=0)
def run_body(graphdef, params, x):
    return nnx.merge(graphdef, params)(x)


def full_loss(task, params, batch):
    """Nats by a plain softmax over all valid rows with their log weights."""
    rows = np.asarray(predict_rows(task.graphdef, params, task.frozen["rows"], batch["forms"]))
    inputs, outputs = rows[:, : task.hidden_size], rows[:, -task.hidden_size :]
    first = np.broadcast_to(np.asarray(task.frozen["bos"]), (len(batch["targets"]), 1, task.hidden_size))
    x = np.concatenate([first, inputs[batch["targets"][:, :-1]]], 1)
    h = np.asarray(run_body(task.base.graphdef, task.frozen["body"], x), np.float64)
    logits = (h @ outputs.T.astype(np.float64) + batch["log_weight"])[..., : int(batch["num_valid"])]
    log_probabilities = logits - np.log(np.exp(logits - logits.max()).sum(-1, keepdims=True)) - logits.max()
    chosen = np.take_along_axis(log_probabilities, batch["targets"][..., None], -1)[..., 0]
    return -(chosen * batch["weights"]).sum()


def test_the_loss_is_a_softmax_over_all_rows(task, value_and_grad):
    params = task.init()
    for step in range(3):
        batch = task.batch(step)
        (total, metrics), _ = value_and_grad(params, task.frozen, batch)
        nats = full_loss(task, params, batch)
        assert float(metrics["lm"]) == pytest.approx(nats / batch["weights"].sum(), rel=1e-4)
        assert float(metrics["bits_per_byte"]) == pytest.approx(nats / math.log(2) / batch["bytes"].sum(), rel=1e-4)
        assert float(total) == pytest.approx(float(metrics["lm"] + 0.1 * metrics["lexical"]), rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [({"microbatches": 2}, 1e-5), ({"remat": "dots", "remat_hypernet": "full"}, 1e-5), ({"activations": "bfloat16"}, 0.05)],
)
def test_how_it_is_computed_changes_no_gradient(folder, task, value_and_grad, changes, tolerance):
    """In parts, again in the backward pass, or with bfloat16 between the products, within what that rounds."""
    from zett.tasks.hypernet import HypernetTask

    config = settings_for(folder)
    other = HypernetTask(dataclasses.replace(config, train=dataclasses.replace(config.train, **changes)), folder)
    batch = task.batch(1)
    rng = np.random.default_rng(0)  # the heads' last layers start at zero, and hold back the gradients of the layers below
    params = jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32), task.init())
    (loss, _), gradient = value_and_grad(params, task.frozen, batch)
    (other_loss, _), other_gradient = jax.jit(jax.value_and_grad(other.loss, has_aux=True))(params, other.frozen, batch)
    assert float(other_loss) == pytest.approx(float(loss), rel=tolerance)

    error = optax.global_norm(jax.tree.map(jnp.subtract, other_gradient, gradient)) / optax.global_norm(gradient)
    assert error < tolerance
    assert "activations" not in changes or error > 1e-3  # it is another type, and it is used


def test_rows_that_are_left_out_are_counted(task, monkeypatch):
    """Where there is room for few, the others stand for all tokens that are not in the batch."""
    monkeypatch.setattr("zett.tasks.hypernet.bucket", lambda size, step: size)
    small = copy.copy(task)
    small.config = dataclasses.replace(task.config, sampler=dataclasses.replace(task.config.sampler, rows=1))
    for step in range(4):
        batch, draw = small.batch(step), small.sampler.draw(step)
        used, all_tokens = len(np.unique(batch["targets"])), (draw.forms.lengths > 0).sum()
        weights = np.exp(batch["log_weight"][: int(batch["num_valid"])].astype(float))
        assert used + 256 == len(weights) < all_tokens
        assert (weights[:used] == 1).all() and weights.sum() == pytest.approx(all_tokens, rel=1e-5)


def test_padding_rows_change_nothing(task, value_and_grad):
    batch = task.batch(1)
    valid = int(batch["num_valid"])
    params = jax.tree.map(lambda x: x + 0.1, task.init())
    same = batch["same"].copy()
    same[valid:] = 5
    weight = batch["log_weight"].copy()
    weight[valid:] = 50
    (before, _), gradient = value_and_grad(params, task.frozen, batch)
    (after, _), gradient_after = value_and_grad(params, task.frozen, batch | {"same": same, "log_weight": weight})
    assert float(before) == float(after) and valid < len(same)
    jax.tree.map(np.testing.assert_array_equal, gradient, gradient_after)


def test_gradients_reach_all_parameters(task, value_and_grad):
    """From the second step on: the heads' last layers start at zero, and hold back those of the layers below."""
    params = task.init()
    batch = task.batch(0)
    _, first = value_and_grad(params, task.frozen, batch)
    assert all(np.abs(head["dense"]["kernel"]).max() > 0 for head in first["heads"].values())
    assert not np.abs(first["piece"]["kernel"]).any()
    params = jax.tree.map(lambda p, g: p - 0.01 * g, params, first)
    for path, leaf in jax.tree_util.tree_leaves_with_path(value_and_grad(params, task.frozen, batch)[1]):
        name = jax.tree_util.keystr(path)
        assert bool(np.abs(leaf).max() > 0) == ("fallback" not in name), name  # the source has all bytes
        assert np.isfinite(leaf).all()


def test_the_lexical_loss_holds_shared_rows(task):
    batch = task.batch(2)
    shared = (batch["same"] >= 0) & (np.arange(len(batch["same"])) < batch["num_valid"])
    rows = np.random.default_rng(0).normal(size=(len(shared), task.frozen["rows"].shape[1])).astype(np.float32)
    source, d = np.asarray(task.frozen["rows"]), task.hidden_size
    expected = np.mean([
        np.linalg.norm((rows - source[batch["same"]])[shared, side], axis=-1).mean()
        / np.linalg.norm(source[:, side], axis=-1).mean()
        for side in (slice(d), slice(d, None))
    ])  # fmt: skip
    assert float(task._lexical(rows, task.frozen["rows"], batch)) == pytest.approx(expected, rel=1e-4)
    kept = np.where(batch["same"][:, None] >= 0, source[batch["same"]], rows)
    assert float(task._lexical(kept, task.frozen["rows"], batch)) < 1e-4


def test_training_may_go_on_with_languages(folder, task, tmp_path):
    """From a hypernetwork that knows none; any other difference is named."""
    from zett.tasks.hypernet import HypernetLoss

    from zett.recipes.hypernet import trained_for

    params = task.init()
    save_hypernet(tmp_path, trained_for(task.base, task.config, params), task.base.vocab, {})
    config = settings_for(
        folder,
        hypernet={"languages": ("a", "b")},
        sampler={"texts": (str(folder / "text"),) * 2, "one_text": True},
    )
    go_on = dataclasses.replace(config, init=str(tmp_path))
    found = HypernetLoss(go_on, task.base, task.mesh).init()
    assert found.pop("languages").shape == (2, config.hypernet.width)
    jax.tree.map(np.testing.assert_array_equal, found, params)
    wider = dataclasses.replace(go_on, hypernet=dataclasses.replace(config.hypernet, feed_forward=32))
    with pytest.raises(UserError, match=r"config\.hypernet\.feed_forward is 32, and config\.start, .* has 16"):
        HypernetLoss(wider, task.base, task.mesh).init()


def records(workdir, key):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line[key] for line in lines if key in line}


def test_a_tiny_run(folder, tmp_path):
    """It trains, evaluates and exports; what it exports is loaded and applied; resumed it is the same to the bit."""
    from safetensors.numpy import load_file

    from zett.lms import load_base_model
    from zett.train.run import train

    config = settings_for(folder)
    evaluation = train(config, tmp_path / "whole")
    name = str(folder / "target")
    assert set(evaluation) == {name, "score"} and evaluation["score"] == pytest.approx(evaluation[name])
    assert set(records(tmp_path / "whole", "lm")) == {2, 4, 6}
    # The same in two parts; a schedule knows its length, so the first part is stopped and not shorter.
    import zett.train

    class Stop(Exception):
        pass

    make_step = zett.train.make_step

    def stopping(task, optimizer):
        step_fn = make_step(task, optimizer)

        def step(state, frozen, batch):
            if int(state.step) == 4:
                raise Stop
            return step_fn(state, frozen, batch)

        return step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zett.train, "make_step", stopping)
        with pytest.raises(Stop):
            train(config, tmp_path / "parts")
    assert train(config, tmp_path / "parts") == evaluation
    files = [load_file(tmp_path / w / "export" / "model.safetensors") for w in ("whole", "parts")]
    for key in files[0]:
        np.testing.assert_array_equal(files[0][key], files[1][key], err_msg=key)
    hypernet, base = load_hypernet(tmp_path / "parts" / "export"), load_base_model(folder / "base")
    assert hypernet.base["fingerprint"] == base.fingerprint and hypernet.config == config.hypernet
    assert np.abs(hypernet.params["heads"][0]["dense"]["kernel"]).max() > 0
    assert json.loads((tmp_path / "whole" / "export" / "training.json").read_text())["config"] == json.loads(
        json.dumps(to_dict(config))
    )
    target = load_tokenizer(folder / "target")
    forms = surface_forms(target, base.vocab, config.hypernet.max_pieces)
    table = hypernet(base.table, base.vocab, target, forms, fingerprint=base.fingerprint)
    assert table.input.shape == (len(target), base.table.input.shape[1]) and np.isfinite(table.input).all()
    assert load_tokenizer(hypernet.folder / "source_tokenizer").tokens == base.vocab.tokens


@pytest.mark.slow
def test_a_run_of_the_papers_network(folder, tmp_path):
    """Languages, RoBERTa's layers, fitted factors: it trains, and its checkpoints are exported before it has ended."""
    from zett import cli
    from zett.train.run import train

    choices = {
        "encoder": "roberta", "norm": "post", "residual": "none", "rescale": "fitted", "features": False,
        "languages": ("a", "b"),
    }  # fmt: skip
    text = str(folder / "text")
    config = settings_for(
        folder, hypernet=choices, sampler={"texts": (text, text), "one_text": True, "pool": 2, "substring": 0.0},
        train={"steps": 3, "eval_every": 2, "checkpoint_every": 1},
    )  # fmt: skip
    train(config, tmp_path / "run")
    hypernet = load_hypernet(tmp_path / "run" / "export")
    assert hypernet.config.languages == ("a", "b") and hypernet.config.encoder == "roberta"
    shutil.rmtree(tmp_path / "run" / "export")
    with pytest.raises(UserError, match=r"has format None.*a run's hypernetwork is in its folder export"):
        load_hypernet(tmp_path / "run")
    with pytest.raises(SystemExit) as stopped:
        cli.main(["export", "--hypernet", str(tmp_path / "run"), "--output", str(tmp_path / "out"), "--checkpoint", "latest"])
    assert stopped.value.code == 0
    made = load_hypernet(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "training.json").read_text())["step"] == 3
    assert made.base == hypernet.base and made.config == hypernet.config
    assert made.language_number("b") == 1 and "a run's" not in (tmp_path / "out" / "README.md").read_text()
    (tmp_path / "lm" / "checkpoints").mkdir(parents=True)
    for content in ({"recipe": "lm"}, to_dict(config)):
        (tmp_path / "lm" / "config.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match="has no checkpoint yet"):
            export(tmp_path / "lm", tmp_path / "no")
