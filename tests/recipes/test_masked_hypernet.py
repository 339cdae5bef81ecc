"""The recipe "hypernet" for masked language models: its loss is Transformers', and what it trains is used by them."""

import copy
import dataclasses
import json
import subprocess
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from encoders import bases_in, encoder_folder, torch_nats
from flax import nnx
from runs import ROOT, environment
from tiny import tokenizer_folder

from zett.config import Config, from_dict
from zett.data.masked import frame_of
from zett.errors import UserError
from zett.hypernet.release import load_hypernet
from zett.lms import load_base_model
from zett.mesh import make_mesh
from zett.recipes.hypernet import HypernetRecipe
from zett.train import loop
from zett.train.run import train
from zett.transfer import transfer
from zett.vocab import surface_forms
from zett.vocab.sampling.packed import PackedTokens


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return bases_in(tmp_path_factory.mktemp("encoders"))


PAPER = {"encoder": "roberta", "norm": "post", "rescale": "fitted", "residual": "none", "features": False}
LANGUAGES = {"languages": ("de", "fr")}


def settings_for(base: Path, corpus: Path, *, hypernet=(), **sections) -> Config:
    values = {
        "base": str(base),
        "data": {"text": str(corpus), "batch_size": 4, "length": 32},
        "hypernet": {"width": 16, "layers": 1, "heads": 2, "feed_forward": 16, "max_pieces": 4, "bias": True, **dict(hypernet)},
        "sampler": {
            "max_size": 420, "sizes": "fixed", "bpe": 1.0, "unigram": 0.0, "substring": 0.0, "pool": 1, "pool_bytes": 20_000,
            "min_size": 320, "rows": 0,
        },
        "optim": {"learning_rate": 1e-2, "warmup_steps": 1},
        "train": {
            "steps": 12, "log_every": 1, "eval_every": 6, "checkpoint_every": 6, "eval_windows": 4, "dtype": "float32",
        },
    }  # fmt: skip
    for section, fields in sections.items():
        values[section] |= fields
    return from_dict(values)


class OwnTokenizer:
    """In place of a `Sampler`: draws the base model's own tokenizer, whose table a fresh hypernetwork predicts as it is."""

    def __init__(self, base, max_pieces: int):
        self._base = base
        forms = surface_forms(base.vocab, base.vocab, max_pieces)
        self._draw = types.SimpleNamespace(
            forms=forms, tokens=PackedTokens.of(base.vocab.tokens), text_number=None, encode=self._encode
        )

    def draw(self, step: int):
        return self._draw

    def _encode(self, texts, limit):
        ids = [self._base.vocab.tokenizer.encode(text, add_special_tokens=False).ids[:limit] for text in texts]
        return np.asarray([row + [0] * (limit - len(row)) for row in ids]), np.asarray([len(row) for row in ids])


def own_recipe(base: Path, corpus: Path, mesh=None) -> HypernetRecipe:
    """A recipe that draws the base's own tokenizer; on a mesh, its batches go through in two parts."""
    config = settings_for(base, corpus, data={"batch_size": 8}, train={"microbatches": 1 if mesh is None else 2})
    recipe = HypernetRecipe(config, Path("."), make_mesh(config.mesh) if mesh is None else mesh)
    recipe.batch.sampler = OwnTokenizer(recipe.base, 4)
    return recipe


@pytest.fixture(scope="module")
def first_step(bases, corpus):
    """(a recipe that draws the base's own tokenizer, a batch, its metrics and gradient with fresh parameters)."""
    recipe = own_recipe(bases["xlm-roberta"].folder, corpus)
    batch = recipe.batch(3)
    (_, metrics), gradient = jax.jit(jax.value_and_grad(recipe.loss, has_aux=True))(recipe.init(), recipe.frozen, batch)
    return recipe, batch, metrics, gradient


def check_first_loss(recipe: HypernetRecipe, batch: dict, metrics: dict) -> None:
    """The loss is Transformers' on the texts of the batch, taken out of their frames."""
    assert batch["inputs"].shape == (8, 32) and batch["targets"].shape == (8, 5)  # 15 % of 30
    frame = frame_of(recipe.base)
    own = np.asarray([frame.mask, *frame.before, *frame.after])
    texts, labels = [], []
    for row in range(8):
        used, inputs = batch["mask"][row], batch["inputs"][row]
        ids = np.where(inputs < 0, own[np.maximum(-1 - inputs, 0)], inputs)
        label = np.full(32, -100)
        label[batch["columns"][row][batch["weights"][row] > 0]] = batch["targets"][row][batch["weights"][row] > 0]
        assert ids[used][0] == own[1] and ids[used][-1] == own[2]
        texts.append(ids[used].tolist())
        labels.append(label[used].tolist())
    nats = torch_nats(recipe.base.folder, texts, labels)
    np.testing.assert_allclose(metrics["lm"], nats / batch["weights"].sum(), rtol=1e-5)
    np.testing.assert_allclose(metrics["bits_per_byte"], nats / np.log(2) / batch["bytes"].sum(), rtol=1e-5)


def test_the_first_loss_is_that_of_transformers(first_step):
    pytest.importorskip("torch")
    recipe, batch, metrics, gradient = first_step
    check_first_loss(recipe, batch, metrics)
    assert np.abs(gradient["bias"]["kernel"]).max() > 0


def test_the_first_loss_with_output_rows_of_their_own(corpus, tmp_path):
    pytest.importorskip("torch")
    recipe = own_recipe(encoder_folder(tmp_path / "base", "bert", lower=False, tie_word_embeddings=False), corpus)
    batch = recipe.batch(3)
    check_first_loss(recipe, batch, jax.jit(recipe.loss)(recipe.init(), recipe.frozen, batch)[1])


def test_a_batch_is_a_function_of_its_rows(bases, corpus, tmp_path):
    config = settings_for(bases["xlm-roberta"].folder, corpus)
    recipe = HypernetRecipe(config, tmp_path, make_mesh(config.mesh))
    whole, parts = recipe.batch(5), [recipe.batch(5, np.asarray(rows)) for rows in ([0, 1], [2, 3])]
    for name in ("inputs", "mask", "columns", "targets", "weights", "bytes"):
        np.testing.assert_array_equal(whole[name], np.concatenate([part[name] for part in parts]))
    assert (whole["inputs"] != recipe.batch(6)["inputs"]).any()
    # With fewer rows, ids count within them, and what is drawn at random is among them.
    of_fewer = copy.copy(recipe.batch)
    of_fewer.config = dataclasses.replace(config, sampler=dataclasses.replace(config.sampler, rows=64))
    fewer = of_fewer(5)
    np.testing.assert_array_equal(fewer["columns"], whole["columns"])
    assert fewer["inputs"].max() < fewer["num_valid"]


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("xlm-roberta", {"data": {"length": 65}}, r"config\.data\.length is 65; .* above 2, .* at most 64, the positions"),
        ("xlm-roberta", {"data": {"length": 2}}, r"config\.data\.length is 2; .* above 2"),
        ("modernbert", {}, r"config\.hypernet\.bias is True, but .* has no output bias"),
    ],
)
def test_what_cannot_be_trained(kind, settings, message, corpus, tmp_path):
    fields = {"decoder_bias": False} if kind == "modernbert" else {}
    folder = encoder_folder(tmp_path / "base", kind, **fields)
    with pytest.raises(UserError, match=message):
        config = settings_for(folder, corpus, **settings)
        HypernetRecipe(config, tmp_path, make_mesh(config.mesh))
    with pytest.raises(UserError, match=r"config\.loss\.mask_share is 1\.0; it has to be greater than 0 and less than 1"):
        from_dict({"loss": {"mask_share": 1.0}})


def logged(workdir: Path, key: str) -> list[float]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line[key] for line in lines if key in line]


def check_resumed(config: Config, folder: Path, evaluation: dict) -> None:
    """Stopped between checkpoints and started again, a run ends with the bits of the one in `folder / "whole"`."""
    make_step = loop.make_step

    def stopping(recipe, optimizer):
        step_fn = make_step(recipe, optimizer)

        def step(state, *rest):
            if int(state.step) == 7:
                raise InterruptedError
            return step_fn(state, *rest)

        return step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_step", stopping)
        with pytest.raises(InterruptedError):
            train(config, folder / "parts")
    assert train(config, folder / "parts") == evaluation
    files = [(folder / run / "export" / "model.safetensors").read_bytes() for run in ("whole", "parts")]
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("kind", "hypernet"), [pytest.param("xlm-roberta", LANGUAGES, marks=pytest.mark.slow), ("bert", PAPER)]
)
def test_a_tiny_run(kind, hypernet, bases, corpus, tmp_path):
    """It learns, goes on after an interruption to the same bits, and its models are Transformers' masked language models."""
    target = tokenizer_folder(tmp_path / "target", "unigram", 330)
    one = {"texts": (str(corpus), str(corpus)), "one_text": True} if "languages" in hypernet else {}
    config = settings_for(bases[kind].folder, corpus, hypernet=hypernet, sampler=one, train={"eval_targets": (str(target),)})
    evaluation = train(config, tmp_path / "whole")
    losses = logged(tmp_path / "whole", "lm")
    assert len(losses) == 12 and np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.1
    if "languages" in hypernet:  # once is enough
        check_resumed(config, tmp_path, evaluation)
    trained = load_hypernet(tmp_path / "whole" / "export")
    assert np.abs(trained.params["bias"]["kernel"]).max() > 0
    language = "fr" if "languages" in hypernet else None
    output = transfer(bases[kind].folder, target, tmp_path / "out", hypernet=tmp_path / "whole" / "export", language=language)
    new = load_base_model(output)
    fvt = load_base_model(transfer(bases[kind].folder, target, tmp_path / "fvt", method="fvt"))
    assert np.abs(new.table.bias - fvt.table.bias).max() > 1e-3
    pytest.importorskip("torch")
    import torch
    import transformers

    ids = np.random.default_rng(0).integers(5, len(new.vocab), (1, 20))
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(output, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = theirs(torch.from_numpy(ids)).logits.numpy()
    h = nnx.merge(new.graphdef, new.params)(new.table.embed(jnp.asarray(ids)))
    np.testing.assert_allclose(new.table.unembed(h), expected, rtol=1e-4, atol=1e-4)


ON_A_MESH = """
import json, pathlib, sys
import jax, numpy as np
from jax.sharding import AxisType
sys.path.insert(0, "tests")
from recipes.test_masked_hypernet import own_recipe
from zett.mesh import AXES, global_batch
mesh = jax.make_mesh((2, 2, 2), AXES, axis_types=(AxisType.Auto,) * 3)
recipe = own_recipe(*map(pathlib.Path, sys.argv[1:]), mesh=mesh)
batch = global_batch(mesh, recipe.batch(3), recipe.batch_specs, 8)
(_, metrics), gradient = jax.jit(jax.value_and_grad(recipe.loss, has_aux=True))(recipe.init(), recipe.frozen, batch)
squares = [float(np.square(np.asarray(x)).sum()) for x in jax.tree.leaves(gradient)]
print(json.dumps([float(metrics["lm"]), float(metrics["lexical"]), *squares]))
"""


@pytest.mark.slow
def test_on_a_mesh(first_step, corpus):
    """Eight devices that share the batch, in two parts one after the other: the loss and gradients of one device."""
    recipe, _, metrics, gradient = first_step
    done = subprocess.run(
        [sys.executable, "-c", ON_A_MESH, str(recipe.base.folder), str(corpus)],
        cwd=ROOT, env=environment(8), capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    squares = [np.square(x).sum() for x in jax.tree.leaves(gradient)]
    np.testing.assert_allclose(json.loads(done.stdout), [metrics["lm"], metrics["lexical"], *squares], rtol=1e-3, atol=1e-9)
