"""Continued training of a model that is there: its loss is Transformers', its folder keeps all but the weights."""

import dataclasses
import filecmp
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx
from lms import parity
from safetensors.numpy import load_file, save_file

from zett import cli
from zett.config import Config, from_dict
from zett.errors import UserError
from zett.files.tensors import INDEX_FILE, WEIGHTS_FILE
from zett.lms import load_base_model
from zett.mesh import make_mesh
from zett.recipes.language_model import LanguageModelRecipe
from zett.train.run import train
from zett.train.workdir import only_run

pytestmark = pytest.mark.xdist_group("nshot")
SMALL = dataclasses.replace(tiny.CONFIG, num_layers=1)


def settings(corpus, start, **changes) -> Config:
    values = {
        "recipe": "lm",
        "start": str(start),
        "data": {"text": str(corpus), "batch_size": 4, "length": 32},
        "optim": {"learning_rate": 3e-3, "warmup_steps": 1},
        "train": {
            "steps": 6, "log_every": 1, "eval_every": 3, "checkpoint_every": 2, "eval_windows": 4, "dtype": "float32",
            "activations": "float32",
        },
    }  # fmt: skip
    for name, value in changes.items():
        values[name] = values[name] | value if isinstance(value, dict) else value
    return from_dict(values)


def recipe_for(config, workdir) -> LanguageModelRecipe:
    return LanguageModelRecipe(config, workdir, make_mesh(config.mesh))


def recipe_and_params(config, workdir):
    recipe = recipe_for(config, workdir)
    return recipe, recipe.start()


# ------------------------------------------------------------------------------------------------------- the loss

CAUSAL = ["llama-gqa", "gpt2-plain", "qwen3-tied", "gemma2-tied"]


@pytest.mark.parametrize("variant", CAUSAL)
def test_the_first_loss_is_transformers(variant, corpus, tmp_path):
    """Tied and untied rows, learned positions, softcaps, scaled inputs."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = tiny.tokenizer_folder(tmp_path / "base")
    kind, fields = parity.make.VARIANTS[variant]
    positions = {"n_positions" if "n_positions" in fields else "max_position_embeddings": 64}
    model_class = getattr(transformers, kind)
    torch.manual_seed(0)
    config = model_class.config_class(**fields | positions | {"vocab_size": tiny.tokenizer().get_vocab_size()})
    model = model_class(config).float().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.2 * torch.randn_like(weight)
    model.save_pretrained(folder)
    recipe, params = recipe_and_params(settings(corpus, folder, data={"resegment_share": 0.5}), tmp_path)
    batch = recipe.batch(0)
    loss, _ = jax.jit(recipe.loss)(params, recipe.frozen, batch)
    roles = recipe.base.vocab.roles
    opened = np.pad(batch["targets"], ((0, 0), (1, 0)), constant_values=roles.get("bos", roles.get("eos")))
    ids = torch.from_numpy(opened.astype(np.int64))
    with torch.no_grad():
        assert float(loss) == pytest.approx(float(model(ids, labels=ids).loss), rel=1e-5)


def test_without_bos_and_eos_texts_open_with_the_mean_row(corpus, tmp_path):
    folder = parity.base_folder("llama-gqa", tmp_path / "base", bos_token_id=None, eos_token_id=None)
    recipe, params = recipe_and_params(settings(corpus, folder), tmp_path)
    base = load_base_model(folder)
    assert not {"bos", "eos"} & base.vocab.roles.keys()
    batch = recipe.batch(0)
    x = np.array(base.table.input)[np.roll(batch["targets"], 1, axis=1)]
    x[:, 0] = base.bos_row
    logits = base.table.unembed(nnx.merge(base.graphdef, base.params)(jnp.asarray(x)))
    nats = -jnp.take_along_axis(jax.nn.log_softmax(logits), batch["targets"][..., None], -1)
    assert float(recipe.loss(params, recipe.frozen, batch)[0]) == pytest.approx(float(nats.mean()), rel=1e-5)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder as others write them: two shards, two dtypes, rows beyond the tokenizer, a buffer, files not read here."""
    folder = tiny.base_folder(tmp_path_factory.mktemp("nshot") / "base", config=SMALL)
    tensors = load_file(folder / WEIGHTS_FILE)
    (folder / WEIGHTS_FILE).unlink()
    config = json.loads((folder / "config.json").read_text())
    extra = np.random.default_rng(5).standard_normal((3, config["hidden_size"]))
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = np.concatenate([tensors[name], extra.astype(tensors[name].dtype)])
    tensors["model.norm.weight"] = tensors["model.norm.weight"].astype(np.float32)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(2, np.float32)
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[:5], "model-00002-of-00002.safetensors": names[5:]}
    for file, some in shards.items():
        save_file({name: tensors[name] for name in some}, folder / file, metadata={"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": {name: file for file, some in shards.items() for name in some}}
    (folder / INDEX_FILE).write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": config["vocab_size"] + 3, "unheard_of": [1]}))
    (folder / "generation_config.json").write_text('{"suppress_tokens": [5], "temperature": 0.5}')
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "LICENSE.txt").write_text("Mine.")
    (folder / "README.md").write_text("# Mine")
    return folder


def test_microbatches_change_nothing(base, corpus, tmp_path):
    results = []
    for number in (1, 2):
        recipe, params = recipe_and_params(settings(corpus, base, train={"microbatches": number}), tmp_path)
        results.append(jax.jit(jax.value_and_grad(lambda p, b, r=recipe: r.loss(p, r.frozen, b)[0]))(params, recipe.batch(0)))
    for one, other in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_each_part_of_the_rows_reads_its_part_of_the_text(base, corpus, tmp_path):
    whole, _ = recipe_and_params(settings(corpus, base), tmp_path)
    halves, _ = recipe_and_params(settings(corpus, base, data={"parts": 2}), tmp_path)
    assert sorted(halves.batches) == [0, 1]
    batch = halves.batch(3)
    for rows in ([0], [1, 2], [3]):  # whichever rows a process makes
        np.testing.assert_array_equal(halves.batch(3, np.asarray(rows))["targets"], batch["targets"][rows])
    assert sum(len(part.tokens) for part in halves.batches.values()) == len(whole.batches[0].tokens)
    first = {tuple(row) for step in range(9) for row in halves.batch(step)["targets"][:2]}
    second = {tuple(row) for step in range(9) for row in halves.batch(step)["targets"][2:]}
    assert len(first) == len(second) == 18 and not first & second


# ------------------------------------------------------------------------------------------------------------ a run


@pytest.fixture(scope="module")
def run(base, corpus, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("nshot") / "run"
    return workdir, train(settings(corpus, base), workdir)


def tensors_of(folder):
    return {name: x for file in sorted(folder.glob("*.safetensors")) for name, x in load_file(file).items()}


def test_it_learns_and_keeps_all_but_the_weights(run, base):
    workdir, evaluation = run
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0] - 0.3
    assert [line["eval/bits_per_byte"] for line in lines if "eval/bits_per_byte" in line][-1] == evaluation["score"]
    export = workdir / "export"
    changed = {"README.md", "training.json", INDEX_FILE, *(path.name for path in base.glob("*.safetensors"))}
    kept = {path.name for path in base.iterdir()} - changed
    assert {path.name for path in export.iterdir()} == kept | changed | {"README_before.md"}
    assert {"config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja", "LICENSE.txt"} <= kept
    assert filecmp.cmpfiles(base, export, kept, shallow=False)[0] == list(kept)
    assert (export / "README_before.md").read_text() == "# Mine" and "trained further" in (export / "README.md").read_text()
    assert (
        json.loads((export / INDEX_FILE).read_text())["weight_map"] == json.loads((base / INDEX_FILE).read_text())["weight_map"]
    )
    before, after = tensors_of(base), tensors_of(export)
    assert {name: (x.dtype, x.shape) for name, x in before.items()} == {name: (x.dtype, x.shape) for name, x in after.items()}
    assert {str(x.dtype) for x in after.values()} == {"bfloat16", "float32"}
    untrained = [name for name in after if np.array_equal(after[name], before[name])]
    assert untrained == ["model.layers.0.self_attn.rotary_emb.inv_freq"]
    size = len(load_base_model(base).vocab)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        np.testing.assert_array_equal(after[name][size:], before[name][size:])


def test_the_exported_folder_computes_in_transformers_what_it_does_here(run):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = run[0] / "export"
    model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"]
    ours = load_base_model(folder)
    ids = np.asarray([transformers.AutoTokenizer.from_pretrained(folder)("The old cat sat on a mat.")["input_ids"]])
    with torch.no_grad():
        theirs = model.eval()(torch.from_numpy(ids)).logits.numpy()[..., : len(ours.vocab)]
    logits = ours.table.unembed(nnx.merge(ours.graphdef, ours.params)(ours.table.embed(ids)))
    np.testing.assert_allclose(logits, theirs, rtol=1e-4, atol=1e-4)


def test_a_resumed_run_ends_with_the_same_bits(run, base, corpus, tmp_path):
    shutil.copytree(run[0], tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "6")
    shutil.rmtree(tmp_path / "run" / "export")
    assert train(settings(corpus, base), tmp_path / "run") == run[1]
    whole, resumed = tensors_of(run[0] / "export"), tensors_of(tmp_path / "run" / "export")
    for name, x in whole.items():
        np.testing.assert_array_equal(x, resumed[name], err_msg=name)
    with pytest.raises(UserError, match=r"holds a run with config\.start"):
        train(settings(corpus, "pico"), tmp_path / "run")


def test_the_tied_table_alone(corpus, tmp_path):
    base = tiny.base_folder(tmp_path / "base", tied=True, dtype="float32", config=SMALL)
    train(settings(corpus, base, train={"trained": "table", "steps": 2, "eval_every": 2, "microbatches": 2}), tmp_path / "run")
    before, after = tensors_of(base), tensors_of(tmp_path / "run" / "export")
    assert before.keys() == after.keys() and all(x.dtype == np.float32 for x in after.values())
    assert [name for name in before if not np.array_equal(before[name], after[name])] == ["model.embed_tokens.weight"]


def test_a_runs_checkpoint_is_exported(run, tmp_path, capsys):
    """While the run goes on, too: what it is writing just then stays."""
    workdir = tmp_path / "run"
    shutil.copytree(run[0], workdir)
    being_written = workdir / "checkpoints" / "99.orbax-checkpoint-tmp" / "part"
    being_written.parent.mkdir()
    being_written.write_text("")
    with pytest.raises(SystemExit) as stopped, only_run(workdir):
        cli.main(["export", "--hypernet", str(workdir), "--checkpoint", "latest", "--output", str(tmp_path / "out")])
    assert stopped.value.code == 0, capsys.readouterr().err
    assert being_written.exists()
    for path in (run[0] / "export").iterdir():
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes(), path.name


def test_what_was_trained_is_transferred(run, tmp_path):
    from zett.transfer import transfer

    target = tiny.tokenizer_folder(tmp_path / "tokenizer", "unigram", 280)
    transfer(run[0] / "export", target, tmp_path / "out", method="fvt")
    assert len(load_base_model(tmp_path / "out").vocab) == len(load_base_model(tmp_path / "out").table.input)


# ------------------------------------------------------------------------------------------------------- mistakes


def test_mistakes(base, corpus, tmp_path):
    with pytest.raises(UserError, match=r"config\.train\.trained is 'table'; without config\.start"):
        from_dict({"recipe": "lm", "train": {"trained": "table"}})
    with pytest.raises(UserError, match=r"config\.data\.length is 65; config\.start, .* has positions for 64 tokens"):
        recipe_for(settings(corpus, base, data={"length": 65}), tmp_path)
    with pytest.raises(UserError, match="bidirectional encoder"):
        recipe_for(settings(corpus, parity.base_folder("bert-masked_lm", tmp_path / "bert")), tmp_path)
    with pytest.raises(UserError, match="there is no folder"):
        recipe_for(settings(corpus, tmp_path / "nothing"), tmp_path)
    (tmp_path / "short.txt").write_text("Too short a text.\n" * 3)
    with pytest.raises(UserError, match=r"short\.txt:train has \d+ tokens; there have to be more than config\.data\.length"):
        recipe_for(settings(tmp_path / "short.txt", base), tmp_path)
