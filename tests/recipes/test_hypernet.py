"""The recipe "hypernet": its batches, its loss against a plain softmax, and a run that is the same to the bit."""

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
from safetensors.numpy import load_file

from zett import cli
from zett.config import Config, from_dict, to_dict
from zett.errors import UserError
from zett.export import export
from zett.hypernet.network import predict_rows
from zett.hypernet.release import load_hypernet, save_hypernet
from zett.lms import load_base_model
from zett.mesh import make_mesh
from zett.optim import make_optimizer
from zett.plan.choose import chosen
from zett.recipes.hypernet import HypernetRecipe, HypernetStep, trained_for
from zett.recipes.hypernet_batches import SPARE, Batches
from zett.train import loop
from zett.train.run import train
from zett.train.step import abstract_state, initial_state
from zett.vocab import load_tokenizer
from zett.vocab.forms import with_distance
from zett.vocab.train import save_tokenizer

pytestmark = pytest.mark.xdist_group("hypernet")


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
        values[section] = values.get(section, {}) | fields
    return from_dict(values)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, corpus):
    yield from prepared(tmp_path_factory, corpus)


def prepared(tmp_path_factory, corpus, **base):
    """A folder with a base model, a text and a target, and a cache of its own while it is in use."""
    folder = tmp_path_factory.mktemp("hypernet")
    (folder / "text").symlink_to(corpus)
    tiny.base_folder(folder / "base", dtype="float32", **base)
    save_tokenizer(tiny.tokenizer("unigram", 330), folder / "target")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZETT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield folder


def recipe_for(config: Config, folder) -> HypernetRecipe:
    return HypernetRecipe(config, folder, make_mesh(config.mesh))


@pytest.fixture(scope="module")
def recipe(folder):
    return recipe_for(settings_for(folder), folder)


def test_a_batch_depends_on_seed_and_step_alone(folder, recipe):
    again = recipe_for(settings_for(folder), folder)
    batches = [recipe.batch(step) for step in range(4)]
    for step in (3, 1, 1, 0):
        jax.tree.map(np.testing.assert_array_equal, again.batch(step), batches[step])
    assert any(not np.array_equal(batches[0]["targets"], b["targets"]) for b in batches[1:])


def test_a_batch_spells_its_text(recipe):
    """Its ids count within the predicted rows, whose tokens are those of the draw."""
    for step in range(8):
        batch, draw = recipe.batch(step), recipe.batch.sampler.draw(step)
        valid = int(batch["num_valid"])
        assert batch["targets"].max() < valid <= len(batch["same"])
        assert (batch["log_weight"][:valid] == 0).all()  # the vocabulary is smaller than the room
        number_of = {t: n for n, t in enumerate(draw.tokens) if t}
        spelled = []
        for row, weights in zip(batch["targets"], batch["weights"]):
            forms = batch["forms"]
            ids = [int(i) for i in row[weights > 0]]
            # Tokens are known by their features, which hold their length, and pieces.
            found = b"".join(b"".join(recipe.base.vocab.tokens[p] for p in forms.pieces[i, : forms.lengths[i]]) for i in ids)
            assert b"".join(recipe.base.vocab.tokens[p] for p in forms.pieces[ids[0], : forms.lengths[ids[0]]]) in number_of
            spelled.append(found.decode())
        for text in spelled:
            assert any(text.lstrip("\ufffd") in document for document in recipe.documents)
        assert batch["bytes"].tolist() == [len(t.encode()) for t in spelled]


@pytest.fixture(scope="module")
def value_and_grad(recipe):
    return jax.jit(jax.value_and_grad(recipe.loss, has_aux=True))


@functools.partial(jax.jit, static_argnums=0)
def run_body(graphdef, params, x):
    return nnx.merge(graphdef, params)(x)


def full_loss(recipe, params, batch):
    """Nats by a plain softmax over all valid rows with their log weights."""
    rows = np.asarray(predict_rows(recipe.graphdef, params, recipe.frozen["rows"], batch["forms"]))
    inputs, outputs = rows[:, : recipe.hidden_size], rows[:, -recipe.hidden_size :]
    first = np.broadcast_to(np.asarray(recipe.frozen["bos"]), (len(batch["targets"]), 1, recipe.hidden_size))
    x = np.concatenate([first, inputs[batch["targets"][:, :-1]]], 1)
    h = np.asarray(run_body(recipe.base.graphdef, recipe.frozen["body"], x), np.float64)
    logits = (h @ outputs.T.astype(np.float64) + batch["log_weight"])[..., : int(batch["num_valid"])]
    log_probabilities = logits - np.log(np.exp(logits - logits.max()).sum(-1, keepdims=True)) - logits.max()
    chosen = np.take_along_axis(log_probabilities, batch["targets"][..., None], -1)[..., 0]
    return -(chosen * batch["weights"]).sum()


def test_the_loss_is_a_softmax_over_all_rows(recipe, value_and_grad):
    params = recipe.init()
    for step in range(3):
        batch = recipe.batch(step)
        (total, metrics), _ = value_and_grad(params, recipe.frozen, batch)
        nats = full_loss(recipe, params, batch)
        assert float(metrics["lm"]) == pytest.approx(nats / batch["weights"].sum(), rel=1e-4)
        assert float(metrics["bits_per_byte"]) == pytest.approx(nats / math.log(2) / batch["bytes"].sum(), rel=1e-4)
        assert float(total) == pytest.approx(float(metrics["lm"] + 0.1 * metrics["lexical"]), rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [({"microbatches": 2}, 1e-5), ({"remat": "dots", "remat_hypernet": "full"}, 1e-5), ({"activations": "bfloat16"}, 0.05)],
)
def test_how_it_is_computed_changes_no_gradient(folder, recipe, value_and_grad, changes, tolerance):
    """In parts, again in the backward pass, or with bfloat16 between the products, within what that rounds."""
    config = settings_for(folder)
    other = recipe_for(dataclasses.replace(config, train=dataclasses.replace(config.train, **changes)), folder)
    batch = recipe.batch(1)
    rng = np.random.default_rng(0)  # the heads' last layers start at zero, and hold back the gradients of the layers below
    params = jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32), recipe.init())
    (loss, _), gradient = value_and_grad(params, recipe.frozen, batch)
    (other_loss, _), other_gradient = jax.jit(jax.value_and_grad(other.loss, has_aux=True))(params, other.frozen, batch)
    assert float(other_loss) == pytest.approx(float(loss), rel=tolerance)

    error = optax.global_norm(jax.tree.map(jnp.subtract, other_gradient, gradient)) / optax.global_norm(gradient)
    assert error < tolerance
    assert "activations" not in changes or error > 1e-3  # it is another type, and it is used


def test_rows_that_are_left_out_are_counted(recipe, monkeypatch):
    """Where there is room for few, the others stand for all tokens that are not in the batch."""
    monkeypatch.setattr("zett.recipes.hypernet_batches.bucket", lambda size, step: size)
    few = dataclasses.replace(recipe.config, sampler=dataclasses.replace(recipe.config.sampler, rows=1))
    made = recipe.batch
    small = Batches(few, recipe.base, recipe.mesh, recipe.objective, made.sampler, made.texts, few.data.length)
    for step in range(4):
        batch, draw = small(step), small.sampler.draw(step)
        used, all_tokens = len(np.unique(batch["targets"])), (draw.forms.lengths > 0).sum()
        weights = np.exp(batch["log_weight"][: int(batch["num_valid"])].astype(float))
        assert used + SPARE <= len(weights) < all_tokens
        assert (weights[:used] == 1).all() and weights.sum() == pytest.approx(all_tokens, rel=1e-5)


def test_padding_rows_change_nothing(recipe, value_and_grad):
    batch = recipe.batch(1)
    valid = int(batch["num_valid"])
    params = jax.tree.map(lambda x: x + 0.1, recipe.init())
    same = batch["same"].copy()
    same[valid:] = 5
    weight = batch["log_weight"].copy()
    weight[valid:] = 50
    (before, _), gradient = value_and_grad(params, recipe.frozen, batch)
    (after, _), gradient_after = value_and_grad(params, recipe.frozen, batch | {"same": same, "log_weight": weight})
    assert float(before) == float(after) and valid < len(same)
    jax.tree.map(np.testing.assert_array_equal, gradient, gradient_after)


def test_gradients_reach_all_parameters(recipe, value_and_grad):
    """From the second step on: the heads' last layers start at zero, and hold back those of the layers below."""
    params = recipe.init()
    batch = recipe.batch(0)
    _, first = value_and_grad(params, recipe.frozen, batch)
    assert all(np.abs(head["dense"]["kernel"]).max() > 0 for head in first["heads"].values())
    assert not np.abs(first["piece"]["kernel"]).any()
    params = jax.tree.map(lambda p, g: p - 0.01 * g, params, first)
    for path, leaf in jax.tree_util.tree_leaves_with_path(value_and_grad(params, recipe.frozen, batch)[1]):
        name = jax.tree_util.keystr(path)
        assert bool(np.abs(leaf).max() > 0) == ("fallback" not in name), name  # the source has all bytes
        assert np.isfinite(leaf).all()


def test_training_may_go_on_with_languages(folder, recipe, tmp_path):
    """From a hypernetwork that knows none; any other difference is named."""
    params = recipe.init()
    save_hypernet(tmp_path, trained_for(recipe.base, recipe.config, params), recipe.base.vocab, {})
    config = settings_for(
        folder,
        hypernet={"languages": ("a", "b")},
        sampler={"texts": (str(folder / "text"),) * 2, "one_text": True},
    )
    go_on = dataclasses.replace(config, start=str(tmp_path))
    found = HypernetStep(go_on, recipe.base, recipe.mesh).start()
    assert found.pop("languages").shape == (2, config.hypernet.width)
    jax.tree.map(np.testing.assert_array_equal, found, params)
    wider = dataclasses.replace(go_on, hypernet=dataclasses.replace(config.hypernet, feed_forward=32))
    with pytest.raises(UserError, match=r"config\.hypernet\.feed_forward is 32, and config\.start, .* has 16"):
        HypernetStep(wider, recipe.base, recipe.mesh).start()


def test_training_may_go_on_with_the_distance_of_vocabularies(folder, recipe, tmp_path):
    """From a hypernetwork that is not told it: what is new in the parameters is zero."""
    params = recipe.init()
    save_hypernet(tmp_path, trained_for(recipe.base, recipe.config, params), recipe.base.vocab, {})
    config = settings_for(folder, hypernet={"distance": True})
    found = HypernetStep(dataclasses.replace(config, start=str(tmp_path)), recipe.base, recipe.mesh).start()
    kernel = np.asarray(found["features"]["kernel"])
    assert kernel.shape == (7, config.hypernet.width) and not kernel[5:].any() and kernel[:5].any()
    found["features"]["kernel"] = kernel[:5]
    jax.tree.map(np.testing.assert_array_equal, found, params)
    far = recipe_for(config, folder)
    batch, forms = far.batch(3), with_distance(far.batch.sampler.draw(3).forms)
    assert batch["forms"].features.shape[-1] == 7
    np.testing.assert_allclose(batch["forms"].features[:, 5:], np.broadcast_to(forms.features[0, 5:], (len(batch["same"]), 2)))
    assert np.isfinite(far.loss(far.init(), far.frozen, batch)[0])


@pytest.mark.parametrize("weights", ["int8", "bfloat16"])
def test_what_was_stored_in_fewer_bits_is_trained_in_float32(recipe, tmp_path, weights):
    """Else small updates of it would be lost, and no checkpoint would fit."""
    save_hypernet(tmp_path, trained_for(recipe.base, recipe.config, recipe.init()), recipe.base.vocab, {}, weights)
    go_on = dataclasses.replace(recipe.config, start=str(tmp_path))
    further, optimizer = HypernetStep(go_on, recipe.base, recipe.mesh), make_optimizer(go_on.optim, 6)
    assert any(x.dtype != np.float32 for x in jax.tree.leaves(further.start()))
    abstract = abstract_state(further, optimizer, recipe.mesh)
    state = initial_state(further, optimizer, abstract)
    jax.tree.map(lambda x, wanted: np.testing.assert_equal((x.dtype, x.shape), (wanted.dtype, wanted.shape)), state, abstract)
    assert {x.dtype for x in jax.tree.leaves(state.params)} == {np.dtype(np.float32)}


def test_training_may_start_from_the_hypernetwork_of_a_variant(recipe, tmp_path):
    """Of one with rows that are alike; what such a run writes is then for its own base."""
    params, table = recipe.init(), recipe.base.table
    save_hypernet(tmp_path, trained_for(recipe.base, recipe.config, params), recipe.base.vocab, {})
    go_on = dataclasses.replace(recipe.config, start=str(tmp_path))

    def start(rows):
        base = dataclasses.replace(recipe.base, name="variant", table=dataclasses.replace(table, input=rows))
        return base, HypernetStep(go_on, base, recipe.mesh).start()

    rows = np.asarray(table.input)
    base, found = start(rows + 0.05 * rows.std() * np.random.default_rng(0).standard_normal(rows.shape).astype(np.float32))
    jax.tree.map(np.testing.assert_array_equal, found, params)
    assert trained_for(base, go_on, found).fit(base).exact
    with pytest.raises(UserError, match="and variant is another: rows of the same width"):
        start(np.random.default_rng(0).permutation(rows))


CHAT = "{% for m in messages %}<|endoftext|>{{ m.role }}: {{ m.content }}<|pad|>{% endfor %}"


@pytest.fixture(scope="module")
def chat(folder):
    """The base model as a chat model: its folder."""
    shutil.copytree(folder / "base", folder / "chat")
    (folder / "chat" / "chat_template.jinja").write_text(CHAT)
    return str(folder / "chat")


def test_texts_in_turns(chat, folder):
    """Special tokens of the chat template are among the rows of every step, and in some of the texts."""
    config = settings_for(folder, data={"turns": 0.5, "batch_size": 4}, loss={"hidden": 0.5, "chunk": 0.1})
    recipe = recipe_for(dataclasses.replace(config, base=chat), folder)
    special = [recipe.base.vocab.special[text] for text in ("<|endoftext|>", "<|pad|>")]
    batch = recipe.batch(0)
    assert sorted(batch["special_sources"]) == sorted(special) and len(batch["special"]) == 2
    assert batch["special"].max() < batch["num_valid"]
    in_turns = [np.isin(recipe.batch(step)["targets"], recipe.batch(step)["special"]).any(1) for step in range(4)]
    assert 2 < np.sum(in_turns) < 14
    step = next(step for step in range(4) if in_turns[step].any() and not in_turns[step].all())
    batch, draw = recipe.batch(step), recipe.batch._draw(step)
    ids, lengths = recipe.batch._encode(draw, step, np.arange(4))
    spelled = recipe.batch._turns.spelling(draw)
    for row, length, turned in zip(ids, lengths, in_turns[step]):
        text = b"".join(draw.tokens[i] for i in row[:length])
        assert (b"user: " in text) == turned
        symbols = np.concatenate([spelled.symbols[spelled.starts[i] : spelled.starts[i + 1]] for i in row[:length]])
        assert bytes(symbols[symbols < 256].astype(np.uint8)) == text
        assert set(symbols[symbols >= 256] - 256) <= set(special) and (symbols >= 256).any() == turned
    assert batch["place_weights"].sum() > 10
    compute = jax.jit(jax.value_and_grad(lambda params: recipe.loss(params, recipe.frozen, batch), has_aux=True))
    (value, metrics), gradient = compute(recipe.init())
    assert np.isfinite(value) and metrics["hidden"] > 0
    assert max(float(np.abs(g).max()) for g in jax.tree.leaves(gradient)) > 0


def test_turns_of_conversations(chat, folder, tmp_path):
    """Rows in turns are conversations from a file; one that is cut off has no end of its last turn."""
    messages = [{"role": "user", "content": "def f"}, {"role": "assistant", "content": "a" * 99}]
    (tmp_path / "chats.jsonl").write_text(json.dumps({"messages": messages, "complete": False}) + "\n")
    config = settings_for(folder, data={"turns": 1.0, "chats": str(tmp_path / "chats.jsonl"), "length": 64})
    recipe = recipe_for(dataclasses.replace(config, base=chat), folder)
    draw = recipe.batch._draw(0)
    for row, length in zip(*recipe.batch._encode(draw, 0, np.arange(2))):
        text = b"".join(draw.tokens[i] for i in row[:length])
        assert text.startswith(b"user: def fassistant: aaaa")
        # The first message begins and ends with a special token, the second only begins with one.
        assert np.sum(row[: row.tolist().index(max(row)) + 1] >= len(draw.forms) - 2) >= 2


def test_special_rows_are_the_bases_own(chat, folder):
    recipe = recipe_for(dataclasses.replace(settings_for(folder, data={"turns": 1.0}), base=chat), folder)
    batch = recipe.batch(0)
    compute = jax.jit(lambda params: recipe.table(params, recipe.frozen, batch).input)
    fresh = recipe.init()  # corrects nothing
    unchanged, moved = (np.asarray(compute(params)) for params in (fresh, jax.tree.map(lambda x: x + np.float32(0.05), fresh)))
    own = np.asarray(recipe.base.table.input, np.float32)[batch["special_sources"]]
    np.testing.assert_array_equal(moved[batch["special"]], own)
    same = (np.abs(moved - unchanged).max(1) < 1e-6)[: batch["num_valid"]]
    assert sorted(np.flatnonzero(same)) == sorted(batch["special"])


def records(workdir, key):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line[key] for line in lines if key in line}


def test_a_tiny_run(folder, tmp_path):
    """It trains, evaluates and exports; what it exports is loaded and applied; resumed it is the same to the bit."""
    config = settings_for(folder)
    evaluation = train(config, tmp_path / "whole")
    name = str(folder / "target")
    assert set(evaluation) == {name, "score"} and evaluation["score"] == pytest.approx(evaluation[name])
    assert set(records(tmp_path / "whole", "lm")) == {2, 4, 6}

    # The same in two parts; a schedule knows its length, so the first part is stopped and not shorter.
    class Stop(Exception):
        pass

    make_step = loop.make_step

    def stopping(recipe, optimizer):
        step_fn = make_step(recipe, optimizer)

        def step(state, frozen, batch):
            if int(state.step) == 4:
                raise Stop
            return step_fn(state, frozen, batch)

        return step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_step", stopping)
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
        json.dumps(to_dict(chosen(config, (1, 1, 1))))
    )
    target = load_tokenizer(folder / "target")
    table = hypernet(base, target)
    assert table.input.shape == (len(target), base.table.input.shape[1]) and np.isfinite(table.input).all()
    assert load_tokenizer(hypernet.folder / "source_tokenizer").tokens == base.vocab.tokens


@pytest.mark.slow
def test_a_run_of_the_papers_network(folder, tmp_path):
    """Languages, RoBERTa's layers, fitted factors: it trains, and its checkpoints are exported before it has ended."""
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


# ------------------------------------------------------------------------------------------- what the original model says

TAUGHT = {"hidden": 0.5, "chunk": 0.1, "hidden_layers": (1, -1)}


def test_what_is_learnt_from_the_original_is_computed_in_parts(folder, recipe):
    """The teacher reads the texts that the drawn tokenizer spells; all batches have one size; microbatches change nothing."""
    found = []
    for number in (1, 2):
        taught = recipe_for(settings_for(folder, loss=TAUGHT, train={"microbatches": number}), folder)
        batches = [taught.batch(step) for step in range(6)]
        assert len({str(jax.tree.map(np.shape, batch)) for batch in batches}) == 1
        for batch, plain in zip(batches, map(recipe.batch, range(6))):
            assert batch["place_weights"].sum() > 8 and batch["chunk_weights"].sum() > 4
            jax.tree.map(np.testing.assert_array_equal, {name: batch[name] for name in plain}, plain)
        assert taught.flops(batches[0]) > recipe.flops(recipe.batch(0))
        params = jax.tree.map(lambda x: x + 0.1, taught.init())
        found.append(jax.jit(jax.value_and_grad(taught.loss, has_aux=True))(params, taught.frozen, batches[1]))
    metrics = found[0][0][1]
    assert metrics.keys() == {"lm", "bits_per_byte", "hidden", "chunk", "lexical"} and 0 < metrics["hidden"] < 10
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), *found)


@pytest.mark.slow
def test_a_taught_run_is_resumed_with_the_same_bits(folder, tmp_path):
    config = settings_for(folder, loss=TAUGHT, train={"steps": 4, "eval_every": 4})
    train(config, tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    for name in ("checkpoints/4", "export"):
        shutil.rmtree(tmp_path / "again" / name)
    train(config, tmp_path / "again")
    whole, resumed = (load_file(tmp_path / name / "export" / "model.safetensors") for name in ("run", "again"))
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)
