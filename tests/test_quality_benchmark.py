"""benchmarks/quality.py: its choices are configs that can be run, and what is told of the results is what they say."""

import dataclasses
import json
import math

import pytest
from runs import ROOT

from benchmarks import quality
from zett.config import Config
from zett.config_file import load_config


@pytest.mark.parametrize("name", quality.VARIANTS)
def test_each_choice_is_a_config_that_differs_in_it_alone(name):
    path = str(ROOT / "configs" / "pico.py")
    base, changed = (load_config(path, (quality.PROTOCOL | more).items()) for more in ({}, quality.VARIANTS[name]))
    different = {
        f"{section.name}.{field.name}"
        for section in dataclasses.fields(Config)
        if dataclasses.is_dataclass(getattr(base, section.name))
        for field in dataclasses.fields(getattr(base, section.name))
        if getattr(getattr(base, section.name), field.name) != getattr(getattr(changed, section.name), field.name)
    }
    assert different == set(quality.VARIANTS[name])


def found(**scores: list[float]) -> dict:
    """Results of runs by variant, one score a seed."""
    runs = {
        f"{name}/{seed}": {"curve": [{"step": 0, "score": 2.0}, {"step": 9, "score": x, "bpe-2k": x}], "cpu_seconds": 10.0}
        for name, values in scores.items()
        for seed, x in enumerate(values)
    }
    return {"config": "c", "protocol": {}, "runs": runs}


def test_differences_are_those_of_the_same_seed(tmp_path):
    results = found(base=[1.0, 2.0], better=[0.9, 1.8], alone=[1.1])
    rows = quality.summary(results)
    assert rows["better"]["difference"] == pytest.approx(-0.1) and rows["better"]["spread"] == pytest.approx(0, abs=1e-9)
    assert rows["alone"]["difference"] == pytest.approx(0.1) and math.isnan(rows["alone"]["spread"])
    assert rows["better"]["ratios"] == {"score": pytest.approx(1.35), "bpe-2k": pytest.approx(1.35)}
    lines = quality.table(results).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| alone", "| better", "| base"]  # the best mean first
    quality.plot(results, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_what_is_there_is_not_run_again(tmp_path, monkeypatch, capsys):
    results = found(base=[1.0], untie=[1.0])
    assert list(quality.missing(results, ["base", "untie", "chunk"], [0, 1])) == [
        ("chunk", 0), ("base", 1), ("untie", 1), ("chunk", 1),
    ]  # fmt: skip
    file = tmp_path / "quality.json"
    file.write_text(json.dumps(results))
    monkeypatch.setattr("sys.argv", ["quality", "--output", str(file), "--variants", "base"])
    with pytest.raises(SystemExit, match="give another --output"):  # those are runs of another config
        quality.main()
    monkeypatch.setattr("sys.argv", ["quality", "--output", str(file), "--report"])
    quality.main()
    assert "| untie | 1 | 1.000 |" in capsys.readouterr().out
