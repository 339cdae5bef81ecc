"""Values that no run can have: each is refused by the name of its field or flag, before anything is made."""

import dataclasses
import re
import time
import typing

import numpy as np
import pytest
import tiny

import zett
from zett.cli import main
from zett.config import Config, TrainConfig, from_dict
from zett.errors import UserError
from zett.evaluate.targets import load_target
from zett.transfer import transfer
from zett.values import check_seed, nearest


def numbers():
    """Every number in a config: section ("" for the config itself), field, type."""
    sections = {name: hint for name, hint in typing.get_type_hints(Config).items() if dataclasses.is_dataclass(hint)}
    for section, cls in {"": Config, **sections}.items():
        for name, hint in typing.get_type_hints(cls).items():
            if hint in (int, float):
                yield section, name, hint


@pytest.mark.parametrize(("section", "name", "hint"), numbers())
def test_every_number_has_a_range(section, name, hint):
    field = f"config.{section}.{name}" if section else f"config.{name}"
    for value in (10**19, -(10**19), *([float("nan"), float("inf"), 10**400] if hint is float else [])):
        with pytest.raises(UserError, match=rf"^{re.escape(field)} is .*; it has to be (at least|greater than) .* and "):
            from_dict({section: {name: value}} if section else {name: value})


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("optim", {"learning_rate": -1e-3}, r"config\.optim\.learning_rate is -0\.001; it has to be greater than 0"),
        ("optim", {"learning_rate": 0}, r"config\.optim\.learning_rate is 0\.0; it has to be greater than 0"),
        ("optim", {"matrix_learning_rate": -1}, r"config\.optim\.matrix_learning_rate is -1\.0"),
        ("optim", {"clip": -1.0}, r"config\.optim\.clip is -1\.0; it has to be greater than 0"),
        ("optim", {"weight_decay": -0.1}, r"config\.optim\.weight_decay is -0\.1; it has to be at least 0"),
        ("optim", {"warmup_steps": -5}, r"config\.optim\.warmup_steps is -5; it has to be at least 0"),
        ("optim", {"final_share": 2.0}, r"config\.optim\.final_share is 2\.0; it has to be at least 0 and at most 1"),
        ("optim", {"b2": 1.0}, r"config\.optim\.b2 is 1\.0; it has to be at least 0 and less than 1"),
        ("train", {"steps": -1}, r"config\.train\.steps is -1; it has to be at least 1"),
        ("train", {"eval_windows": 0}, r"config\.train\.eval_windows is 0; it has to be at least 1"),
        ("train", {"workers": 10**6}, r"config\.train\.workers is 1000000; it has to be at least 1 and at most 1,024"),
        ("data", {"length": -1}, r"config\.data\.length is -1"),
        ("data", {"batch_size": 10**12}, r"config\.data\.batch_size is 1000000000000; .* at most 1,048,576"),
        ("data", {"resegment_rate": 1.5}, r"config\.data\.resegment_rate is 1\.5"),
        ("tokenizer", {"vocab_size": -8}, r"config\.tokenizer\.vocab_size is -8"),
        ("hypernet", {"layers": 0}, r"config\.hypernet\.layers is 0"),
        ("hypernet", {"heads": 0}, r"config\.hypernet\.heads is 0"),
        ("hypernet", {"input_std": 0}, r"config\.hypernet\.input_std is 0\.0; it has to be greater than 0"),
        ("sampler", {"noise_std": -1.0}, r"config\.sampler\.noise_std is -1\.0"),
        ("sampler", {"max_size": 10**9}, r"config\.sampler\.max_size is 1000000000; .* at most 1,048,576"),
        ("sampler", {"text_weights": [float("nan")]}, r"config\.sampler\.text_weights is \(nan,\); .* finite number"),
        ("sampler", {"lowercase": -0.1}, r"config\.sampler\.lowercase is -0\.1"),
        ("loss", {"lexical": -1.0}, r"config\.loss\.lexical is -1\.0"),
        ("loss", {"mask_share": 0}, r"config\.loss\.mask_share is 0\.0; it has to be greater than 0 and less than 1"),
        ("model", {"num_heads": 3}, r"config\.model\.hidden_size is 256; .* a multiple of twice config\.model\.num_heads"),
        ("model", {"num_kv_heads": 3}, r"config\.model\.num_kv_heads is 3; it has to divide config\.model\.num_heads \(4\)"),
        ("mesh", {"fsdp": -2}, r"config\.mesh\.fsdp is -2; it has to be at least -1"),
        ("train", {"steps": 2.5}, r"config\.train\.steps is 2\.5 \(float\); it has to be a whole number, such as 1000 or 1e3"),
        ("train", {"steps": float("inf")}, r"config\.train\.steps is inf \(float\); it has to be a whole number"),
    ],
)  # fmt: skip
def test_absurd_values_are_refused(section, values, message):
    with pytest.raises(UserError, match=message):
        from_dict({section: values})


def test_a_whole_number_may_be_written_as_any():
    config = from_dict({"train": {"steps": 1e3}, "seed": 7.0})
    assert (config.train.steps, config.seed) == (1000, 7) and isinstance(config.train.steps, int)
    assert TrainConfig(steps=np.int64(3)).steps == 3
    with pytest.raises(UserError, match=r"config\.train\.steps is 'many'; it has to be at least 1"):
        TrainConfig(steps="many")


def test_nearest_lists_all_where_none_is_close():
    assert nearest("zzz", ["b", "a"]) == "there are a, b"


def refused(argv: list, capsys) -> str:
    with pytest.raises(SystemExit) as exit:
        main([str(word) for word in argv])
    *said, error = capsys.readouterr().err.splitlines()
    assert exit.value.code == 2 and error.startswith("zett: error: ") and "error" not in " ".join(said), (said, error)
    return error


# ------------------------------------------------------------------------------------------------------------ seeds


@pytest.mark.parametrize("seed", ["-1", str(2**32)])
def test_seeds_are_refused_by_name(seed, tmp_path, capsys):
    expected = f"seed is {seed}; it has to be a whole number, at least 0 and at most 4,294,967,295"
    target = tiny.tokenizer_folder(tmp_path / "target")
    output = tmp_path / "out"
    transfers = ["transfer", "--model", "pico", "--tokenizer", target, "--output", output, "--method", "random"]
    assert expected in refused([*transfers, "--seed", seed], capsys)
    assert expected in refused(["eval", "--output", output, "--seed", seed], capsys)
    (tmp_path / "run.py").write_text("def get_config():\n    return {}\n")
    trains = ["train", "--config", tmp_path / "run.py", "--workdir", output, f"--config.seed={seed}"]
    assert f"config.seed is {seed}; it has to be at least 0 and at most 4,294,967,295" in refused(trains, capsys)
    assert not output.exists()


@pytest.mark.parametrize("seed", [-1, 1.5, True, "0"])
def test_seeds_in_python(seed, tmp_path):
    calls = [
        lambda: zett.evaluate("pico", seed=seed),
        lambda: transfer("pico", tmp_path, tmp_path / "out", method="fvt", seed=seed),
        lambda: check_seed(seed),
    ]
    for call in calls:
        with pytest.raises(UserError, match=f"^seed is {seed!r}; it has to be a whole number"):
            call()
    check_seed(np.int64(2**32 - 1))


# ---------------------------------------------------------------------------------------------------------- targets


@pytest.mark.parametrize(
    "spec", ["bpe-999999999k", "unigram-1048577", "prose-bpe-1025k", "bpe-" + "9" * 5000, "bpe-299", "bpe-0"]
)
def test_targets_of_an_absurd_size(spec, corpus):
    clock = time.process_time()
    with pytest.raises(UserError, match=rf"target '{spec}' asks for .* entries; trained here are from 300, .* to 1024k"):
        load_target(spec, corpus)
    assert time.process_time() - clock < 2  # no measure of speed: training one would take hours


def test_the_command_line_says_so_too(tmp_path, capsys):
    error = refused(["eval", "--model", "no/such/model", "--tokenizer", "bpe-999999999k", "--output", tmp_path / "out"], capsys)
    assert "target 'bpe-999999999k' asks for 999999999k entries" in error
