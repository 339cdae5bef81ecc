"""What a dry run predicts, against steps that were measured on one H100 (80 GB, HBM3) in November 2026."""

import dataclasses
import re
from pathlib import Path

import pytest

from zett.config import Config, from_dict
from zett.config_file import load_config
from zett.plan.devices import DEVICES
from zett.plan.report import plan, tables
from zett.plan.time import Cost, optimizer_cost, seconds, widths

ONE = [("mesh.data", "1"), ("mesh.fsdp", "1"), ("data.parts", "1")]
# As the steps were when they were measured: everything kept of SmolLM2, the loss in chunks of 1024 positions.
THEN = {"remat": "none", "remat_hypernet": "none", "loss_chunk": 1024}
H100 = next(device for device in DEVICES if device.name == "h100")


def smollm2(train=THEN) -> Config:
    """The run that trained the first hypernetwork for SmolLM2: 20M parameters, Muon."""
    return from_dict({
        "base": "HuggingFaceTB/SmolLM2-135M", "data": {"batch_size": 64, "length": 256},
        "hypernet": {"width": 768, "layers": 3, "heads": 12, "feed_forward": 1536, "max_pieces": 8},
        "sampler": {"min_size": 4000, "max_size": 32768, "rows": 8192}, "optim": {"name": "muon"}, "train": dict(train),
    })  # fmt: skip


def mistral(**train) -> Config:
    settings = {"microbatches": 4, "remat": "dots", "remat_hypernet": "full", "loss_chunk": 1024} | train
    changes = [(f"train.{name}", str(value)) for name, value in settings.items()]
    return load_config(str(Path(__file__).parents[2] / "configs" / "mistral.py"), ONE + changes)


# Source: this project's first run for SmolLM2 (71 ms a step, 17 GB at its peak), and benchmarks/train_step.py at Mistral-7B's
# whole shape (1.5206 s, 44.10 GB), with 4 microbatches.
@pytest.mark.parametrize(
    ("config", "measured_seconds", "measured_bytes"), [(smollm2(), 0.071, 17e9), (mistral(), 1.5206, 44.10e9)], ids=["s", "m"]
)
def test_predictions_are_near_what_was_measured(config, measured_seconds, measured_bytes):
    report = plan(config, devices=1, device="h100")
    (found,) = report["devices"]
    assert found["step_seconds"] == pytest.approx(measured_seconds, rel=0.15)
    assert report["memory_total"] == found["memory"] == pytest.approx(measured_bytes, rel=0.10)
    shown = tables(report)
    assert "two steps measured on one H100" in shown and "kernel" in shown
    assert re.search(r"^h100 +79 +0?[.\d]+", shown, re.M)


def test_what_is_left_open_is_chosen_from_memory():
    config = mistral(microbatches=0, remat="auto", remat_hypernet="auto", loss_chunk=0)
    chosen = {name: plan(config, devices=1, device=name)["devices"][0] for name in ("h200", "h100", "a100-40gb")}
    assert all(row["fits"] for name, row in chosen.items() if name != "a100-40gb")
    # With more memory less is computed again, and in fewer parts.
    assert chosen["h200"]["microbatches"] < chosen["h100"]["microbatches"]
    assert chosen["h200"]["remat"] == ["dots", "dots"]
    assert chosen["h200"]["memory"] > chosen["h100"]["memory"] > chosen["a100-40gb"]["memory"]
    # If nothing fits, it is what takes least.
    assert chosen["a100-40gb"]["remat"] == ["full", "full"] and chosen["a100-40gb"]["microbatches"] == 128
    fixed = mistral(microbatches=8, remat="auto", remat_hypernet="auto")
    assert plan(fixed, devices=1, device="h100")["devices"][0]["microbatches"] == 8


def test_keeping_less_is_faster_where_memory_traffic_is_most_of_the_time():
    everything, products = (
        plan(smollm2(THEN | {"remat": remat, "remat_hypernet": remat}), devices=1, device="h100") for remat in ("none", "dots")
    )
    assert products["devices"][0]["step_seconds"] < 0.9 * everything["devices"][0]["step_seconds"]
    assert products["memory_total"] < 0.6 * everything["memory_total"]
    auto = plan(smollm2({}), devices=1, device="h100")
    assert auto["remat"] == ["dots", "dots"] and "remat dots" in tables(auto)


def test_seconds_scale_with_the_device():
    products, traffic, starts = Cost("", 1e12, 0, 0), Cost("", 0, 1e9, 0), Cost("", 0, 0, 100)
    assert seconds([products, traffic, starts], H100) == pytest.approx(
        sum(seconds([c], H100) for c in (products, traffic, starts))
    )
    twice = dataclasses.replace(H100, peak=2 * H100.peak)
    assert seconds([products], twice) == pytest.approx(seconds([products], H100) / 2)
    assert seconds([traffic], twice) == seconds([traffic], H100) == pytest.approx(1e9 / (0.776 * 3.35e12))
    assert all(device.bandwidth > 1e11 for device in DEVICES)


def test_parts_are_counted_from_shapes():
    assert widths({"layers.q.kernel": (3, 4, 5), "head.kernel": (4, 7), "norm.scale": (3, 4)}.items()) == 3 * 5 + 7
    muon = from_dict({"optim": {"name": "muon"}}).optim
    # Each of five steps multiplies x with its transpose, the square with itself, and the result with x.
    assert optimizer_cost(muon, 0.0, [(2, 3, 5)]).flops == 2 * 5 * 2 * (3 * 3 * 5 + 3 * 3 * 3 + 3 * 3 * 5)
    assert optimizer_cost(Config().optim, 8.0, [(3, 5)]).flops == 0
