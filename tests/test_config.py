"""Config files, overrides from the command line, and every check of a value."""

import dataclasses

import pytest

from zett.config import Config, TrainConfig, from_dict, to_dict
from zett.config_file import load_config, split_overrides
from zett.errors import UserError
from zett.values import nearest

FILE = """
from ml_collections import ConfigDict

def get_config(kind="small"):
    c = ConfigDict({"recipe": "lm", "train": {"steps": 7}, "model": {"hidden_size": 8 if kind == "small" else 16}})
    c.tokenizer = ConfigDict({"vocab_size": 300})
    c.tokenizer.sample_bytes = c.tokenizer.get_ref("vocab_size") * 10
    return c
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "run.py"
    path.write_text(FILE)
    return str(path)


def load(file, *argv):
    rest, overrides = split_overrides(list(argv))
    assert rest == []
    return load_config(file, overrides)


def test_defaults_survive_a_round_trip():
    assert from_dict(to_dict(Config())) == Config()


def test_file_values_and_defaults(file):
    config = load(file)
    assert (config.recipe, config.train.steps, config.model.hidden_size) == ("lm", 7, 8)
    assert config.train.log_every == TrainConfig().log_every
    assert load(file + ":large").model.hidden_size == 16


@pytest.mark.parametrize(
    "argv, section, field, value",
    [
        (["--config.train.steps=200"], "train", "steps", 200),
        (["--config.train.steps", "200"], "train", "steps", 200),
        (["-config.train.steps=200"], "train", "steps", 200),
        (["--config.train.steps=1e3"], "train", "steps", 1000),
        (["--config.train.steps=1", "--config.train.steps=2"], "train", "steps", 2),
        (["--config.optim.learning_rate=3e-4"], "optim", "learning_rate", 3e-4),
        (["--config.optim.clip=1"], "optim", "clip", 1.0),
        (["--config.optim.name=muon"], "optim", "name", "muon"),
        (["--config.sampler.noise_mean", "-3.5"], "sampler", "noise_mean", -3.5),
        (["--config.train.eval_targets=('bpe-2k',)"], "train", "eval_targets", ("bpe-2k",)),
        (["--config.train.eval_targets=['a', 'b']"], "train", "eval_targets", ("a", "b")),
        (["--config.train.eval_targets=bpe-2k,unigram-8k"], "train", "eval_targets", ("bpe-2k", "unigram-8k")),
        (["--config.train.eval_targets=()"], "train", "eval_targets", ()),
        (["--config.data.valid_text=folder=with=equals"], "data", "valid_text", "folder=with=equals"),
        (["--config.data.valid_text=None"], "data", "valid_text", None),
        (["--noconfig.hypernet.features"], "hypernet", "features", False),
        (["--config.hypernet.features"], "hypernet", "features", True),
        (["--config.hypernet.features=false"], "hypernet", "features", False),
    ],
)
def test_overrides(file, argv, section, field, value):
    """As ml_collections has them, also for fields that the file leaves out."""
    found = getattr(getattr(load(file, *argv), section), field)
    assert found == value and type(found) is type(value)


def test_only_the_override_differs(file):
    changed = load(file, "--config.data.length=9")
    assert dataclasses.replace(changed, data=load(file).data) == load(file)


def test_references_follow_overrides(file):
    assert load(file, "--config.tokenizer.vocab_size=500").tokenizer.sample_bytes == 5000


def test_other_arguments_are_left():
    rest, overrides = split_overrides(["--workdir", "x", "--config.seed", "3", "--debug", "--config=f.py"])
    assert rest == ["--workdir", "x", "--debug", "--config=f.py"]
    assert overrides == [("seed", "3")]


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--config.train.stepz=3"], r"config\.train\.stepz does not exist; did you mean config\.train\.steps\?"),
        (["--config.trian.steps=3"], r"config\.trian does not exist; did you mean config\.train\?"),
        (["--config.steps=3"], r"config\.steps does not exist.*\(there is config\.train\.steps\)"),
        (["--config.seed.x=3"], r"config\.seed\.x does not exist; config\.seed holds a value"),
        (["--config.train=3"], r"config\.train is a section"),
        (["--config.train.steps"], r"--config\.train\.steps needs a value"),
        (["--config.train.steps=many"], r"config\.train\.steps is 'many'.*a whole number, such as 1000"),
        (["--config.train.steps=1.5"], r"config\.train\.steps is 1\.5 .*a whole number, such as 1000"),
        (["--config.train.steps=0"], r"config\.train\.steps is 0; it has to be at least 1 and at most 1,000,000,000$"),
        (["--config.optim.name=sgd"], r"config\.optim\.name is 'sgd'; it has to be one of 'adamw', 'muon'"),
        (["--config.hypernet.features=maybe"], r"config\.hypernet\.features is 'maybe'.*type bool"),
        (["--config.train.eval_targets=(1,)"], r"config\.train\.eval_targets\[0\] is 1 .*type str"),
        (["--config.hypernet.width=30"], r"config\.hypernet\.width is 30, which is not a multiple"),
        (["--config.sampler.min_size=99999"], r"config\.sampler\.min_size \(99999\) is above"),
    ],
)
def test_mistakes_name_field_and_remedy(file, argv, message):
    with pytest.raises(UserError, match=message):
        load(file, *argv)


@pytest.mark.parametrize(
    "content, message",
    [
        ("x = 1\n", r"does not define get_config"),
        ("def get_config():\n    return nothing\n", r"run\.py, line 2: NameError: name 'nothing'"),
        ("def get_config(:\n", r"run\.py.*SyntaxError"),
        ("def get_config():\n    return {'train': {'stepz': 1}}\n", r"config\.train\.stepz does not exist"),
        ("def get_config():\n    return {'train': 3}\n", r"config\.train is 3; it has to hold fields"),
        ("def get_config():\n    return {'seed': True}\n", r"config\.seed is True \(bool\)"),
        (
            "from ml_collections import config_dict\n"
            "def get_config():\n    return {'seed': config_dict.required_placeholder(int)}\n",
            r"leaves a required field open",
        ),
    ],
)
def test_bad_files(tmp_path, content, message):
    (tmp_path / "run.py").write_text(content)
    with pytest.raises(UserError, match=message):
        load(str(tmp_path / "run.py"))


def test_missing_file_names_the_nearest(file):
    with pytest.raises(UserError, match=r"no such config file: .*rum\.py; did you mean .*run\.py\?"):
        load(file.replace("run.py", "rum.py"))


def test_shipped_configs_load():
    from pathlib import Path

    files = sorted(Path(__file__).parents[1].glob("configs/*.py"))
    assert files
    for path in files:
        load_config(str(path))


def test_nearest_lists_all_where_none_is_close():
    assert nearest("zzz", ["b", "a"]) == "there are a, b"
