"""Config files, overrides from the command line, and every check of a value."""

import dataclasses
from pathlib import Path

import pytest

from zett.config import Config, TrainConfig, from_dict, to_dict
from zett.config_file import load_config, split_overrides
from zett.errors import UserError

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
        (["--config.loss.token=0"], r"config\.loss\.token is 0, so that there is nothing to learn"),
        (["--config.loss.token=0", "--config.loss.lexical=0", "--config.recipe=hypernet"], r"loss\.lexical are all 0"),
    ],
)
def test_mistakes_name_field_and_remedy(file, argv, message):
    with pytest.raises(UserError, match=message):
        load(file, *argv)


OLD = """
from ml_collections import ConfigDict

def get_config():
    return ConfigDict(dict(
        task="hypernet", init="pico", data=dict(source="texts", valid_source="held"),
        sampler=dict(sources=("a", "b"), source_weights=(1.0, 2.0), source_exponent=0.5, one_source=True),
    ))
"""


def test_files_may_use_old_names(tmp_path):
    (tmp_path / "old.py").write_text(OLD)
    config = load(str(tmp_path / "old.py"))
    assert (config.recipe, config.start, config.data.text, config.data.valid_text) == ("hypernet", "pico", "texts", "held")
    s = config.sampler
    assert (s.texts, s.text_weights, s.text_exponent, s.one_text) == (("a", "b"), (1.0, 2.0), 0.5, True)
    assert from_dict({"data": {"source": "texts"}}).data.text == "texts"


@pytest.mark.parametrize("name", ["old.py", "new.py"])
def test_the_command_line_may_use_old_names(name, tmp_path):
    """Whichever the file uses."""
    (tmp_path / "old.py").write_text(OLD)
    (tmp_path / "new.py").write_text("def get_config():\n    return {'recipe': 'lm', 'data': {'text': 'texts'}}\n")
    old = ["--config.task=lm", "--config.init", "my-model", "--config.data.source=other", "--config.data.valid_source=None"]
    old += ["--config.sampler.sources=c,d", "--noconfig.sampler.one_source"]
    config = load(str(tmp_path / name), *old)
    assert (config.recipe, config.start, config.data.text, config.data.valid_text) == ("lm", "my-model", "other", None)
    assert config.sampler.texts == ("c", "d") and config.sampler.one_text is False
    new = load(str(tmp_path / name), "--config.data.text=other", "--config.recipe=lm")
    assert (new.recipe, new.data.text) == ("lm", "other")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"task": "lm", "recipe": "lm"}, "config has both recipe and task, its old name; leave task out"),
        ({"data": {"source": "a", "text": "a"}}, r"config has both data\.text and data\.source, its old name"),
        ({"sampler": {"sources": (), "texts": ("a",)}}, r"config has both sampler\.texts and sampler\.sources"),
    ],
)
def test_one_field_under_two_names_is_refused(values, message, tmp_path):
    with pytest.raises(UserError, match=message):
        from_dict(values)
    (tmp_path / "both.py").write_text(f"def get_config():\n    return {values!r}\n")
    with pytest.raises(UserError, match=message):
        load(str(tmp_path / "both.py"))


def test_one_field_under_two_names_is_refused_on_the_command_line(file):
    for argv in (["--config.data.source=a", "--config.data.text=b"], ["--config.recipe=lm", "--config.task=lm"]):
        with pytest.raises(
            UserError, match=r"the command line has both (data\.text|recipe) and (data\.source|task), its old name"
        ):
            load(file, *argv)


def test_references_follow_overrides_under_old_names(tmp_path):
    (tmp_path / "old.py").write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config():\n"
        "    c = ConfigDict({'data': {'source': 'a'}})\n"
        "    c.data.valid_source = c.data.get_ref('source') + '/held'\n"
        "    return c\n"
    )
    for name in ("source", "text"):
        assert load(str(tmp_path / "old.py"), f"--config.data.{name}=b").data.valid_text == "b/held"


TYPED = """
from zett.config import Config, DataConfig, TrainConfig

def get_config(steps="7"):
    return Config(recipe="lm", data=DataConfig(length=64), train=TrainConfig(steps=int(steps), eval_targets=("bpe-2k",)))
"""


def test_a_file_may_return_a_typed_config(tmp_path):
    (tmp_path / "typed.py").write_text(TYPED)
    file = str(tmp_path / "typed.py")
    expected = from_dict({"recipe": "lm", "data": {"length": 64}, "train": {"steps": 7, "eval_targets": ("bpe-2k",)}})
    assert load(file) == expected
    changed = load(file + ":9", "--config.data.text=texts", "--config.optim.name=muon", "--config.train.eval_targets=bpe-8k")
    assert (changed.train.steps, changed.data.text, changed.data.length) == (9, "texts", 64)
    assert changed.optim.name == "muon" and changed.train.eval_targets == ("bpe-8k",)
    with pytest.raises(UserError, match=r"config\.train\.steps is 0"):
        load(file + ":0")


@pytest.mark.parametrize(
    "content, message",
    [
        ("x = 1\n", r"does not define get_config"),
        ("def get_config():\n    return nothing\n", r"run\.py, line 2: NameError: name 'nothing'"),
        ("def get_config(:\n", r"run\.py.*SyntaxError"),
        ("def get_config():\n    return {'train': {'stepz': 1}}\n", r"config\.train\.stepz does not exist"),
        ("def get_config():\n    return {'train': 3}\n", r"config\.train is 3; it has to hold fields"),
        ("def get_config():\n    return {'data': 3}\n", r"config\.data is 3; it has to hold fields"),
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
    files = sorted(Path(__file__).parents[1].glob("configs/*.py"))
    assert files
    for path in files:
        load_config(str(path))
