"""What a config leaves open, chosen from the memory of devices, and kept by a run."""

import dataclasses
import json

import pytest

from zett.config import Config, from_dict, to_dict
from zett.errors import UserError
from zett.plan import choose
from zett.plan.choose import chosen, recorded
from zett.plan.devices import Device
from zett.train import run as train_run

ONE = (1, 1, 1)


def config_of(**train) -> Config:
    return from_dict({"data": {"batch_size": 24, "length": 64}, "train": train})


def choice_of(config: Config) -> tuple:
    return config.train.microbatches, config.train.remat, config.train.remat_hypernet


def test_a_cpu_keeps_everything():
    assert choice_of(chosen(config_of(), ONE)) == (1, "none", "none")
    assert choice_of(chosen(config_of(microbatches=2, remat="full"), ONE)) == (2, "full", "none")
    assert choice_of(chosen(config_of(microbatches=0), ONE)) == (1, "none", "none")
    fixed = config_of(microbatches=4, remat="dots", remat_hypernet="full")
    assert chosen(fixed, ONE) is fixed


@pytest.mark.parametrize("bandwidth", [0.0, 3e12])
def test_with_less_memory_there_are_more_microbatches(bandwidth, monkeypatch):
    found = []
    for gib in (8.0, 0.15, 0.1, 0.01):
        monkeypatch.setattr(choose, "this_device", lambda gib=gib: Device("x", (), 1e14, gib, bandwidth))
        found.append(choice_of(chosen(config_of(microbatches=0), ONE)))
    numbers = [number for number, _, _ in found]
    # Powers of two that divide the 24 texts of a batch; if nothing fits, what takes least.
    assert numbers == sorted(numbers) and numbers[0] == 1 and numbers[-1] == 8
    assert found[0][1:] == (("dots", "dots") if bandwidth else ("none", "none"))
    assert not bandwidth or found[-1][1:] == ("full", "full")
    assert chosen(config_of(microbatches=0), (4, 1, 1)).train.microbatches <= 2  # each device gets a row of each


def test_a_run_keeps_what_was_chosen(tmp_path, monkeypatch):
    monkeypatch.setattr(choose, "this_device", lambda: Device("x", (), 1e14, 8.0, 3e12))
    first = train_run._settled(config_of(microbatches=0), tmp_path)
    assert choice_of(first) == (1, "dots", "dots")
    (tmp_path / "config.json").write_text(json.dumps(to_dict(dataclasses.replace(first))))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    # On other devices, too; what the command line says goes before.
    monkeypatch.setattr(choose, "this_device", lambda: Device("y", (), 1e14, 0.01, 3e12))
    assert choice_of(train_run._settled(config_of(microbatches=0), tmp_path)) == (1, "dots", "dots")
    assert choice_of(train_run._settled(config_of(microbatches=8, remat="full"), tmp_path)) == (8, "full", "dots")


def test_a_model_of_unknown_shape_needs_a_number(monkeypatch):
    monkeypatch.setattr(choose, "this_device", lambda: Device("x", (), 1e14, 8.0, 3e12))
    unknown = dataclasses.replace(config_of(), base="nobody/model")
    assert choice_of(chosen(unknown, ONE)) == (1, "dots", "dots")
    with pytest.raises(UserError, match="the shape of 'nobody/model' is not known"):
        chosen(dataclasses.replace(unknown, train=config_of(microbatches=0).train), ONE)


def test_runs_of_earlier_versions_had_no_choice():
    before = to_dict(config_of(microbatches=4, remat="none", remat_hypernet="full"))
    assert choice_of(recorded(config_of(microbatches=0), before)) == (4, "none", "full")
    assert choice_of(recorded(config_of(), {})) == (1, "auto", "auto")


def test_what_was_chosen_is_checked_like_anything():
    with pytest.raises(UserError, match="it has to divide"):
        recorded(config_of(microbatches=0), {"train": {"microbatches": 5}})
