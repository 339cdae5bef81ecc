"""`--dry_run`: parameters as published, memory as the compiler has it, and every fault named."""

import dataclasses
import itertools
import json
import math
import re
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import base_folder
from zett.memory import run_of
from zett.tasks.hypernet import HypernetLoss

from zett import flops, machine
from zett.cli import train_main
from zett.config import Config, MeshConfig, TrainConfig, from_dict
from zett.errors import UserError
from zett.hypernet.packing import pack_forms, renumbered
from zett.lms import BaseModel
from zett.lms.family import family_of
from zett.lms.known import KNOWN, hf_config_of
from zett.mesh import make_mesh
from zett.optim import make_optimizer
from zett.plan import step_flops, tables
from zett.plan.memory import fullest
from zett.plan.report import _duration, plan
from zett.plan.shapes import PHASES, base_of
from zett.recipes.hypernet import fresh_params
from zett.table import EmbeddingTable
from zett.train.metrics import Metrics, memory
from zett.train.step import TrainState, make_step
from zett.vocab import SurfaceForms

PUBLISHED = {
    "openai-community/gpt2": 124_439_808,
    "FacebookAI/xlm-roberta-base": 278_295_186,
    "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T": 1_100_048_384,
    "mistralai/Mistral-7B-v0.1": 7_241_732_096,
    "meta-llama/Meta-Llama-3-8B": 8_030_261_248,
    "Qwen/Qwen3-4B-Base": 4_022_468_096,
    "google/gemma-3-1b-pt": 999_885_952,
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_shapes_have_the_published_numbers_of_parameters(name):
    base = base_of(name, hf_config_of(name))
    assert sum(map(math.prod, [*base.body.values(), *base.table.values()])) == PUBLISHED[name]


def test_a_local_model_has_the_shape_of_its_config(tmp_path):
    base_folder(tmp_path / "base")
    assert hf_config_of(str(tmp_path / "base"))["hidden_size"] == 16
    assert hf_config_of("pico")["model_type"] == "llama"
    with pytest.raises(UserError, match=r"nobody/model.*mistralai/Mistral-7B-v0\.1"):
        hf_config_of("nobody/model")


# ---------------------------------------------------------------------------------------------- memory, as compiled

SHAPE = {
    "model_type": "llama", "vocab_size": 2000, "hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 9,
    "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False,
}  # fmt: skip
SETTINGS = {
    "data": {"batch_size": 32, "length": 128},
    "hypernet": {"width": 128, "feed_forward": 256, "heads": 2, "layers": 1, "max_pieces": 7},
    "sampler": {"rows": 0, "sizes": "fixed", "max_size": 4096},
    "train": {"dtype": "float32", "activations": "float32"},
}


def config_of(**train) -> Config:
    return from_dict(SETTINGS | {"train": SETTINGS["train"] | train})


# Memory is assigned before code is generated.
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def true_step(config: Config):
    """The compiled step of a run, its state and frozen arrays, and its counted FLOPs; nothing is computed."""
    family, rng = family_of(SHAPE), np.random.default_rng(0)
    shape = family.Config.from_hf(SHAPE)
    graphdef, body = nnx.split(nnx.eval_shape(lambda: family.Body(shape, remat=config.train.remat, rngs=nnx.Rngs(0))))
    table = EmbeddingTable.of(*np.zeros((2, 2000, 128), np.float32))
    vocab = types.SimpleNamespace(roles={"bos": 0})
    base = BaseModel("x", Path(), SHAPE, shape, graphdef, nnx.to_pure_dict(body), table, vocab, None)
    task, optimizer = HypernetLoss(config, base, make_mesh(MeshConfig())), make_optimizer(config.optim, 10)
    size, most = config.sampler.max_size, config.hypernet.max_pieces
    lengths = rng.choice(np.arange(1, 8), size, p=[0.35, 0.3, 0.18, 0.09, 0.04, 0.03, 0.01]).astype(np.int32)
    pieces = rng.integers(0, 2000, (size, most)).astype(np.int32)
    forms = SurfaceForms(pieces, lengths, np.zeros((size, 5), np.float32), np.full(size, -1))
    sources, packed = renumbered(pack_forms(forms), 2000)
    texts = {name: np.ones((32, 128), kind) for name, kind in (("targets", np.int32), ("weights", np.float32))}
    batch = texts | {
        "bytes": np.ones(32, np.float32), "texts": sources, "forms": packed, "log_weight": np.zeros(size, np.float32),
        "num_valid": np.int32(size), "same": forms.same,
    }  # fmt: skip
    params = jax.eval_shape(lambda: fresh_params(config, base))
    state = jax.eval_shape(lambda p: TrainState(jnp.zeros((), jnp.int32), p, optimizer.init(p)), params)
    return make_step(task, optimizer).lower(state, task.frozen, batch).compile(QUICKLY), (state, task.frozen), task.flops(batch)


# Both were 1.2 to 1.3 times what the compiler takes.
@pytest.mark.parametrize("train", [{}, {"microbatches": 4, "remat": "full"}], ids=["whole", "microbatches"])
def test_memory_is_what_the_compiler_takes(train):
    config = config_of(**train)
    compiled, arrays, counted = true_step(config)
    run = run_of(config, base_of("x", SHAPE))
    parts = memory(run, (1, 1, 1), config.train.microbatches)
    lasting = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(arrays))
    assert sum(part.bytes for part in parts if part.phases == PHASES) == pytest.approx(lasting, rel=0.001)
    taken = compiled.memory_analysis().temp_size_in_bytes + lasting
    assert 1 / 1.1 < fullest(parts)[1] / taken < 1.5, taken
    assert step_flops(run).total == pytest.approx(counted, rel=0.03)


def test_more_devices_hold_less_each():
    run = run_of(config_of(), base_of("x", SHAPE))
    sizes = [fullest(memory(run, (1, number, 1), 1))[1] for number in (1, 2, 4, 8)]
    # But for the predicted rows and the logits of a chunk, all is cut.
    assert all(2 > one / two > 1.5 for one, two in itertools.pairwise(sizes))
    copies = memory(run, (8, 1, 1), 1)
    one = {part.name: part.bytes for part in memory(run, (1, 1, 1), 1)}
    assert {part.name for part in copies if part.bytes == one[part.name] and part.phases == PHASES} == {
        "frozen body", "source rows", "hypernetwork", "moments of the optimizer",
    }  # fmt: skip


def test_muon_has_one_moment_of_matrices():
    both = [run_of(from_dict({**SETTINGS, "optim": {"name": name}}), base_of("x", SHAPE)) for name in ("adamw", "muon")]
    adamw, muon = ({part.name: part.bytes for part in memory(run, (1, 1, 1), 1)} for run in both)
    assert muon["moments of the optimizer"] < 0.6 * adamw["moments of the optimizer"]


# ------------------------------------------------------------------------------------------------------ the command

TINY = """
from ml_collections import ConfigDict

def get_config():
    return ConfigDict(dict(
        base="pico", data=dict(source="python", batch_size=8, length=32),
        hypernet=dict(width=16, heads=2, feed_forward=32), sampler=dict(rows=0),
        train=dict(steps=100, eval_targets=("bpe-1k",)),
    ))
"""


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs `train.py --dry_run` on TINY: (exit code, what it prints)."""
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    (tmp_path / "tiny.py").write_text(TINY)

    def run(*arguments):
        with pytest.raises(SystemExit) as stopped:
            train_main(["--config", str(tmp_path / "tiny.py"), *arguments])
        return stopped.value.code, *capsys.readouterr()

    return run


def test_it_prints_what_a_run_takes_and_writes_nothing(command, tmp_path):
    code, out, err = command("--dry_run", "--devices", "8", "--device", "h100")
    assert (code, err) == (0, "")
    for expected in ("3,148,032", "activations of the body", "at most", "in all", "h100", "100 steps of 256 tokens"):
        assert expected in out
    assert "a100" not in out and [path.name for path in tmp_path.iterdir()] == ["tiny.py"]


def test_nothing_is_told_as_nothing(command):
    code, out, _ = command("--dry_run", "--config.train.steps=1", "--config.hypernet.width=16")
    assert code == 0 and "on one device (data 1" in out and "1 step of 256 tokens: 256 tokens seen" in out
    assert "MiB" in out and "GFLOP" in out
    for nothing in ("0.0 h", "0.00", "0.00e9", "1 devices", "1 steps", "e-0", "e+0"):
        assert nothing not in out.replace("<0.001", ""), out


@pytest.mark.parametrize(
    "seconds, words",
    [
        (0.0312, "<1 s"),
        (3.04, "3 s"),
        (59.6, "60 s"),
        (130, "2.2 min"),
        (7199, "120.0 min"),
        (79600, "22.1 h"),
        (1e6, "11.6 days"),
    ],
)
def test_durations_have_the_unit_that_they_need(seconds, words):
    assert _duration(seconds) == words


def test_the_cpu_at_hand_is_measured(command):
    code, out, _ = command("--dry_run", "--device", "cpu")
    assert code == 0 and re.search(r"^cpu +[\d.]+ +[\d.]+ +[\d.]+ (s|min|h) ", out, re.M) and "measured just now" in out
    assert "h100" not in out
    report = json.loads(command("--dry_run", "json")[1])
    cpu = report["devices"][-1]
    # Within what any machine may do, and as its own rate has it.
    assert cpu["name"] == "cpu" and 1e8 < cpu["measured"] < 1e14 and 0.1 < cpu["memory_gib"] < 1e5
    assert cpu["step_seconds"] == pytest.approx(sum(report["flops"].values()) / (0.4 * cpu["measured"]))
    assert machine.product_rate("float32", jax.devices("cpu")[0]) == machine.product_rate("float32", jax.devices("cpu")[0])
    many = command("--dry_run", "--devices", "8", "--device", "cpu")[1]
    assert re.search(r"^cpu +[\d.]+ +1 +[\d.]+", many, re.M)  # one is there, whatever the mesh


def test_its_numbers_can_be_used(command):
    code, out, _ = command("--dry_run", "json", "--config.mesh.fsdp=4", "--config.mesh.data=2")
    report = json.loads(out)
    assert code == 0 and report["mesh"] == {"data": 2, "fsdp": 4, "tensor": 1}  # which is more devices than there are
    assert report["memory_total"] == sum(part["bytes"] for part in report["memory"] if part["counted"])
    h100 = next(device for device in report["devices"] if device["name"] == "h100")
    assert h100["step_seconds"] == pytest.approx(sum(report["flops"].values()) / (8 * 0.4 * 989e12))
    assert h100["fewest"]["mesh"] == {"data": 1, "fsdp": 1, "tensor": 1} and report["unchecked"] == []
    report = json.loads(command("--dry_run", "json", "--config.mesh.fsdp=4")[1])  # which does not fit the one that is here
    assert report["mesh"] == {"data": 1, "fsdp": 4, "tensor": 1}


def test_all_faults_are_told_at_once(command):
    faults = ["--config.train.eval_targets=bpe8k,gpt2", "--config.start=no/such/run"]
    faults += ["--config.data.length=4096", "--config.sampler.texts=python,no/such/folder"]
    code, out, err = command("--dry_run", "--devices=3", *faults)
    assert code == 2 and err.count("\n") == 1
    for expected in (
        "config.data.length is 4096; pico has positions for 2048", "no/such/folder", "bpe8k", "config.start names 'no/such/run'",
        "config.data.batch_size / config.train.microbatches is 8 / 1", "multiple of mesh data x fsdp, 3",
    ):  # fmt: skip
        assert expected in err, err
    code, out, _ = command("--dry_run", *faults[:2])  # what can be counted is told all the same
    assert code == 2 and "activations of the body" in out and "not on this machine: tokenizer gpt2" in out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--dry_run", "--device=h1000"), "did you mean h100"),
        (("--dry_run", "--devices=0"), "--devices is 0"),
        (("--dry_run", "--config.base=nobody/model"), "the shape of 'nobody/model' is not known"),
        (("--dry_run", "--config.mesh.tensor=3", "--devices=8"), "config.mesh asks for"),
        (("--dry_run", "--config.mesh.data=1", "--config.mesh.fsdp=8", "--config.hypernet.languages=de"), "languages"),
        (("--device=h100",), "belong to --dry_run"),
        ((), "--workdir"),
    ],
)
def test_what_cannot_be_counted_is_refused(command, arguments, message):
    code, _, err = command(*arguments)
    assert code == 2 and message in err and err.count("\n") == 1


def test_a_masked_language_model_is_planned():
    config = from_dict(
        {"base": "FacebookAI/xlm-roberta-base", "data": {"length": 128, "batch_size": 16}, "loss": {"mask_share": 0.15}}
    )
    report = plan(config, device="a100-40gb")
    assert report["parameters"]["body"] + report["parameters"]["vocabulary"] == PUBLISHED[config.base]
    assert report["flops"]["head"] == 6 * 16 * math.ceil(0.15 * 126) * report["rows"] * 768
    assert "a100-40gb" in tables(report)
    with pytest.raises(UserError, match="has positions for 512 tokens"):
        plan(dataclasses.replace(config, data=dataclasses.replace(config.data, length=513)))
    with pytest.raises(UserError, match=r"config\.hypernet\.bias"):
        plan(from_dict({"hypernet": {"bias": True}}))
    with pytest.raises(UserError, match="bidirectional"):
        plan(from_dict({"recipe": "lm", "start": config.base}))


def test_continued_training_is_planned():
    whole, table = (
        plan(from_dict({"recipe": "lm", "start": "mistralai/Mistral-7B-v0.1", "train": {"trained": what}}))
        for what in ("all", "table")
    )
    assert whole["parameters"]["trained"] == PUBLISHED["mistralai/Mistral-7B-v0.1"]
    assert table["parameters"]["trained"] == 2 * 32000 * 4096
    # About six FLOPs for each parameter and token; the table alone leaves out a third of the body's.
    tokens = whole["tokens_per_step"]
    assert sum(whole["flops"].values()) == pytest.approx(
        6 * tokens * (PUBLISHED["mistralai/Mistral-7B-v0.1"] - 32000 * 4096), rel=0.02
    )
    assert whole["flops"]["body_backward"] / table["flops"]["body_backward"] == pytest.approx(2, rel=0.02)
    assert whole["devices"][0]["fewest"]["number"] > 1 == table["devices"][0]["fewest"]["number"]
