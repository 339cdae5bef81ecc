"""`--dry_run`: what it prints, and every fault named."""

import dataclasses
import json
import math
import re

import jax
import pytest

from zett.cli import main
from zett.config import from_dict
from zett.errors import UserError
from zett.plan import machine
from zett.plan.report import plan, tables

TINY = """
from ml_collections import ConfigDict

def get_config():
    return ConfigDict(dict(
        base="pico", data=dict(text="python", batch_size=8, length=32),
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
            main(["train", "--config", str(tmp_path / "tiny.py"), *arguments])
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
        assert not re.search(rf"{re.escape(nothing)}(?!\d)", out.replace("<0.001", "")), out


@pytest.fixture(scope="module")
def report():
    return plan(from_dict({"sampler": {"rows": 0}}), devices=1, device="h100")


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
def test_durations_have_the_unit_that_they_need(seconds, words, report):
    (device,) = report["devices"]
    shown = tables(report | {"steps": 1, "devices": [device | {"step_seconds": seconds}]})
    row = next(line for line in shown.splitlines() if line.startswith("h100"))
    assert re.split(r"  +", row)[3] == words


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
    # Eight devices share the products and the traffic, but each starts all kernels.
    alone = json.loads(command("--dry_run", "json", "--devices", "1", "--device", "h100")[1])["devices"][0]["step_seconds"]
    assert alone / 8 < h100["step_seconds"] < alone
    assert h100["share_of_peak"] == pytest.approx(sum(report["flops"].values()) / 8 / 989e12 / h100["step_seconds"])
    assert h100["fewest"]["mesh"] == {"data": 1, "fsdp": 1, "tensor": 1} and report["unchecked"] == []
    report = json.loads(command("--dry_run", "json", "--config.mesh.fsdp=4")[1])  # which does not fit the one that is here
    assert report["mesh"] == {"data": 1, "fsdp": 4, "tensor": 1}


def test_all_faults_are_told_at_once(command):
    faults = ["--config.train.eval_targets=bpe8k,gpt2", "--config.start=no/such/run"]
    faults += ["--config.data.length=4096", "--config.sampler.texts=python,no/such/folder"]
    code, out, err = command("--dry_run", "--devices=3", *faults)
    assert code == 2 and err.count("\n") == 1
    for expected in (
        "config.data.length is 4096; pico has positions for 2048", "no/such/folder", "bpe8k",
        "config.start names 'no/such/run'",
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
    assert report["parameters"]["body"] + report["parameters"]["vocabulary"] == 278_295_186
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
    published = 7_241_732_096
    assert whole["parameters"]["trained"] == published
    assert table["parameters"]["trained"] == 2 * 32000 * 4096
    # About six FLOPs for each parameter and token; the table alone leaves out a third of the body's.
    tokens = whole["tokens_per_step"]
    assert sum(whole["flops"].values()) == pytest.approx(6 * tokens * (published - 32000 * 4096), rel=0.02)
    assert whole["flops"]["body_backward"] / table["flops"]["body_backward"] == pytest.approx(2, rel=0.02)
    assert whole["devices"][0]["fewest"]["number"] > 1 == table["devices"][0]["fewest"]["number"]
