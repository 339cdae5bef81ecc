"""A run in its workdir: which one it goes on with, and which it refuses."""

import dataclasses
import json
import shutil

import pytest
from runs import records, tiny_run

from zett.config import Config, from_dict, to_dict
from zett.errors import UserError
from zett.train.run import train

pytestmark = pytest.mark.xdist_group("train")


@pytest.fixture(scope="module")
def begun(corpus, tmp_path_factory):
    """The workdir of a run of two steps."""
    workdir = tmp_path_factory.mktemp("runs") / "begun"
    train(tiny_run(corpus, steps=2, log_every=1), workdir)
    return workdir


@pytest.mark.parametrize(
    "change, message",
    [
        ({"seed": 1}, r"holds a run with config\.seed = 0, not 1"),
        ({"model": {"hidden_size": 32}}, r"config\.model\.hidden_size = 16, not 32"),
        ({"data": {"length": 64}}, r"config\.data\.length = 32, not 64"),
        ({"recipe": "hypernet"}, r"config\.recipe = 'lm', not 'hypernet'"),
    ],
)
def test_another_config_is_refused(begun, corpus, change, message):
    values = to_dict(tiny_run(corpus))
    for name, value in change.items():
        values[name] = values[name] | value if isinstance(value, dict) else value
    before = (begun / "config.json").read_text()
    with pytest.raises(UserError, match=message):
        train(from_dict(values), begun)
    assert (begun / "config.json").read_text() == before


def test_a_damaged_workdir_is_named(corpus, tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json is not a config"):
        train(tiny_run(corpus), tmp_path)


def test_an_empty_corpus_is_named(corpus, tmp_path):
    (tmp_path / "texts").mkdir()
    with pytest.raises(UserError, match="no text for the 'train' split"):
        train(tiny_run(tmp_path / "texts"), tmp_path / "run")


def test_an_address_is_no_workdir():
    with pytest.raises(UserError, match="such as a mounted bucket"):
        train(Config(), "gs://bucket/run")


EARLIER = {
    "": {"recipe": "task", "start": "init"},
    "data": {"text": "source", "valid_text": "valid_source"},
    "sampler": {
        "texts": "sources", "text_weights": "source_weights", "text_exponent": "source_exponent", "one_text": "one_source",
    },
}  # fmt: skip


@pytest.fixture
def earlier(begun, tmp_path):
    """`begun` as an earlier version has written it: fields have their old names, and the weights of losses are fewer."""
    run = tmp_path / "run"
    shutil.copytree(begun, run)
    values = json.loads((run / "config.json").read_text())
    for section, names in EARLIER.items():
        place = values[section] if section else values
        for name, old in names.items():
            place[old] = place.pop(name)
    del values["loss"]["token"]
    (run / "config.json").write_text(json.dumps(values))
    return run


def test_a_run_of_an_earlier_version_goes_on(earlier, corpus):
    train(tiny_run(corpus, steps=3, eval_every=1, log_every=1), earlier)
    assert list(records(earlier)) == [1, 2, 3]  # not from the beginning
    starts = [json.loads(line) for line in (earlier / "starts.jsonl").read_text().splitlines()]
    assert [start["step"] for start in starts] == [0, 2]
    values = json.loads((earlier / "config.json").read_text())
    assert values["recipe"] == "lm" and values["data"]["text"] == str(corpus) and values["loss"]["token"] == 1
    assert not {"task", "init"} & values.keys() and not {"source", "valid_source"} & values["data"].keys()


def test_a_run_of_an_earlier_version_is_told_from_another(earlier, corpus, tmp_path):
    config = tiny_run(corpus)
    other = dataclasses.replace(config, data=dataclasses.replace(config.data, text=str(tmp_path)))
    with pytest.raises(UserError, match=r"holds a run with config\.data\.text = "):
        train(other, earlier)
    with pytest.raises(UserError, match=r"holds a run with config\.recipe = 'lm', not 'hypernet'"):
        train(dataclasses.replace(config, recipe="hypernet"), earlier)
    assert "task" in json.loads((earlier / "config.json").read_text())  # which is as it was


def test_a_config_with_both_names_is_no_runs(earlier, corpus):
    values = json.loads((earlier / "config.json").read_text())
    (earlier / "config.json").write_text(json.dumps(values | {"recipe": "lm"}))
    with pytest.raises(UserError, match=r"config\.json: config has both recipe and task, its old name; leave task out"):
        train(tiny_run(corpus), earlier)
