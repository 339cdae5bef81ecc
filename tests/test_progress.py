"""Commands say what they do before it takes its time; Python says nothing unless logging is asked to."""

import json
import time
from pathlib import Path

import pytest
import tiny

from zett import cli, progress
from zett.progress import bar, phase, say, shown
from zett.transfer import transfer


def run(*argv, capsys):
    """(exit code, stdout, lines of stderr)."""
    with pytest.raises(SystemExit) as exit:
        cli.main([str(arg) for arg in argv])
    captured = capsys.readouterr()
    return exit.value.code, captured.out, captured.err.splitlines()


def in_order(lines, *beginnings):
    found = [next((i for i, line in enumerate(lines) if line.startswith(b)), None) for b in beginnings]
    assert None not in found and found == sorted(found), (found, lines)


def test_what_is_said_is_shown_only_inside(capsys):
    say("before")
    with shown():
        say("inside")
    with shown(False):
        say("not shown")
    with phase("silent"), bar(2, "rows", "row") as advance:
        advance(2)
    assert capsys.readouterr() == ("", "inside\n")


def test_signs_of_life(capsys, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.05)
    with shown():
        with phase("compiling"):
            time.sleep(0.3)
        with bar(1000, "rows", "row") as advance:
            time.sleep(0.12)
            advance(500)
            time.sleep(0.12)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "compiling" and lines.count("compiling: 0 s") >= 2
    assert "rows: 0 s" in lines and lines[-1] == "rows: 500 of 1,000, 0:00 left"
    time.sleep(0.1)
    assert capsys.readouterr().err == ""  # the thread has ended


def test_lines_are_about_the_innermost(capsys, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.05)
    with shown(), phase("making"):
        with phase("compiling"):
            time.sleep(0.4)
        time.sleep(0.4)
    lines = capsys.readouterr().err.splitlines()
    inner = [i for i, line in enumerate(lines) if line == "compiling: 0 s"]
    outer = [i for i, line in enumerate(lines) if line == "making: 0 s"]
    assert lines[:2] == ["making", "compiling"] and len(inner) > 1
    assert max(outer) > max(inner) and not any(min(inner) < i < max(inner) for i in outer)


def test_handlers_of_libraries_do_not_say_it_again(capsys, caplog):
    with shown():
        say("once")  # caplog is a handler on the root logger
    assert caplog.records == [] and capsys.readouterr().err == "once\n"


def test_a_transfer_says_what_it_does(tmp_path, capsys):
    base, target = tiny.base_folder(tmp_path / "base"), tiny.tokenizer_folder(tmp_path / "target", size=400)
    text = tmp_path / "text.txt"
    text.write_text("".join(tiny.TEXT))
    code, out, lines = run(
        *("transfer", "--model", base, "--tokenizer", target, "--output", tmp_path / "out", "--method", "fvt", "--text", text),
        capsys=capsys,
    )
    assert code == 0 and out == f"wrote {tmp_path / 'out'}\n"
    in_order(
        lines,
        "loading JAX",
        f"reading the base model {base}",
        "reading the tokenizer",
        "making the rows",
        "writing",
        "measured: ",
    )
    card = (tmp_path / "out" / "README.md").read_text()
    measured = next(line for line in lines if line.startswith("measured: "))
    assert measured.removeprefix("measured: ") in card and "bits per byte" in measured
    transfer(base, target, tmp_path / "quiet", method="fvt")
    assert capsys.readouterr() == ("", "")


def test_the_emission_of_rows_counts_them(capsys, monkeypatch):
    import zett

    monkeypatch.setattr(progress, "EVERY", 0.02)
    hypernet, base = zett.load_hypernet("pico"), zett.load_base_model("pico", body=False)
    monkeypatch.setattr(type(hypernet), "chunk", lambda self: 512)
    with shown():
        hypernet.rows(base.vocab, base)
    lines = capsys.readouterr().err.splitlines()
    began = "reading the rows of pico for its fingerprint", "taking 6,144 tokens", "compiling the hypernetwork, and making rows"
    in_order(lines, *began)
    assert any(line.startswith("rows: ") and " of 6,144, " in line and line.endswith(" left") for line in lines)


def test_json_alone_is_printed(tmp_path, capsys):
    code, out, lines = run("inspect", "--model", "pico", "--tokenizer", "pico", "--json", "-", capsys=capsys)
    assert code == 0 and json.loads(out) and lines == []
    code, _, lines = run("inspect", "--model", "pico", "--tokenizer", "pico", capsys=capsys)
    assert code == 0 and lines == ["taking 6,144 tokens apart into pieces of the base model's tokenizer"]


def test_a_training_says_what_it_does_before_its_first_step(corpus, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])
    small = {
        "data.text": corpus, "data.batch_size": 4, "data.length": 32, "tokenizer.vocab_size": 300, "model.hidden_size": 16,
        "model.num_layers": 1, "model.intermediate_size": 32, "train.eval_windows": 4, "train.steps": 3, "train.log_every": 3,
    }  # fmt: skip
    settings = [f"--config.{name}={value}" for name, value in small.items()]
    code, _, lines = run("train", "--config", "configs/pico_base.py", "--workdir", tmp_path / "run", *settings, capsys=capsys)
    assert code == 0
    in_order(
        lines, "loading JAX", "training a tokenizer of 300", "opening the texts", "cutting", "making the parameters",
        "preparing the first batch", "compiling the training step", "evaluating after step 3", "writing",
    )  # fmt: skip
    assert not any(line.startswith("step") for line in lines[: lines.index("compiling the training step, and the first one")])


def test_slow_steps_are_counted_until_there_are_metrics(tmp_path, capsys, monkeypatch):
    import types

    from zett.config import TrainConfig
    from zett.train.metrics import Metrics

    clock = [0.0]
    monkeypatch.setattr("zett.train.metrics.time", types.SimpleNamespace(perf_counter=lambda: clock[0], time=lambda: 0.0))
    metrics = Metrics(tmp_path, TrainConfig(steps=8, log_every=2), tokens_per_step=10, config={})
    metrics.start(0)
    for step in range(1, 9):
        clock[0] += 30
        metrics.step(step, {"loss": 1.0}, 0.0, 0.0)
    metrics.close()
    lines = [line.split("  ")[0] + "  " + line.split("  ")[-1] for line in capsys.readouterr().err.splitlines()]
    assert lines[:3] == ["step 1/8  step 1/8", "step 2/8  left 3:00", "step 3/8  left 2:30"]
    assert sum(line.startswith("step 5") for line in lines) == 0  # with metrics, their lines are enough
