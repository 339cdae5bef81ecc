"""A transfer as a whole: what is measured, said, recorded and pushed; bad input and bad luck; Hugging Face opens the result."""

import errno
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
from flax import nnx

from zett.cli import run_command
from zett.errors import UserError
from zett.lms import load_base_model
from zett.methods.fvt import FVT
from zett.methods.hypernet import HypernetMethod
from zett.methods.mean import Mean
from zett.transfer import INSTEAD, transfer

SHARED = Path(__file__).parents[2] / "shared" / "data" / "tokenizers"


@pytest.fixture(scope="module")
def tied_folder(tmp_path_factory):
    return tiny.base_folder(tmp_path_factory.mktemp("tied") / "model", tied=True)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def method_of(folder: Path) -> str:
    """What its record says."""
    return json.loads((folder / "zett.json").read_text())["settings"]["method"]


# ------------------------------------------------------------------------------------------------ what was run


def made_with(folder: Path) -> str:
    """What the card says that was run."""
    return (folder / "README.md").read_text().split("Made with:\n\n```\n")[1].split("\n```")[0]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


SETTINGS = [
    {"method": "random", "seed": 3, "special": "add-missing", "text": ["with space.txt", "text.txt"]},
    {"method": HypernetMethod("pico")},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_call_in_the_card_makes_the_same_again(settings, tmp_path, target_folder, monkeypatch):
    import zett

    write_texts(tmp_path, monkeypatch)
    output = transfer("pico", target_folder, "it's out", **settings)
    before, call = content(output), made_with(output)
    assert call.startswith("zett.transfer('pico', ")
    shutil.rmtree(output)
    eval(call, {"zett": zett})
    assert content(output) == before


ARGUMENTS = [
    "--method random --seed 3 --special add-missing --text 'with space.txt' text.txt",
    "--method hypernet:pico",
]


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_the_command_in_the_card_makes_the_same_again(arguments, tmp_path, target_folder, monkeypatch):
    write_texts(tmp_path, monkeypatch)
    given = ["--model", "pico", "--tokenizer", str(target_folder), "--output", "it's out", *shlex.split(arguments)]
    assert run_command("transfer", given, "zett transfer") == 0
    output = Path("it's out")
    before, command = content(output), made_with(output)
    shutil.rmtree(output)
    zett, name, *again = shlex.split(command)
    assert (zett, name) == ("zett", "transfer") and run_command(name, again, "zett transfer") == 0
    assert content(output) == before


def write_texts(folder: Path, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    for name in ("with space.txt", "text.txt"):
        (folder / name).write_text("".join(tiny.TEXT[:9]))


class Own(Mean):
    """A method that is nowhere registered."""


def test_methods_of_ones_own(tmp_path, base_folder, target_folder):
    output = transfer(base_folder, target_folder, tmp_path / "out", method=Own())
    assert "method=Own()" in made_with(output)
    assert method_of(output) == "Own()"
    output = transfer(base_folder, target_folder, tmp_path / "fvt", method=FVT())
    assert "method='fvt'" in made_with(output)


# ------------------------------------------------------------------------------------------ what goes with it


def test_what_was_measured_is_in_the_card(tmp_path, base_folder, target_folder):
    text = tmp_path / "text.txt"
    text.write_text("".join(tiny.TEXT))
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.jsonl").write_text('{"text": "a short row"}\n{"text": "another"}\n')
    output = transfer(base_folder, target_folder, tmp_path / "out", method="fvt", text=[text, tmp_path / "more"])
    card = (output / "README.md").read_text()
    assert f"on all {text.stat().st_size + 18:,} bytes of text.txt, more" in card
    after, before, ratio = map(float, re.search(r"([\d.]+) bits per byte, ([\d.]+) before \(([\d.]+) times\)", card).groups())
    assert 1 < before < 30 and ratio == pytest.approx(after / before, abs=1e-3)
    assert f"text=[{str(text)!r}, " in made_with(output)
    (tmp_path / "folder").mkdir()  # a table in a folder: the same texts, the same numbers
    rows = json.dumps({"text": text.read_text()}) + "\n" + (tmp_path / "more" / "a.jsonl").read_text()
    (tmp_path / "folder" / "a.jsonl").write_text(rows)
    other = transfer(base_folder, target_folder, tmp_path / "other", method="fvt", text=tmp_path / "folder")
    assert f"{after:.4f} bits per byte, {before:.4f} before" in (other / "README.md").read_text()
    again = transfer(base_folder, base_folder, tmp_path / "same", method="fvt", measure=[text])
    assert "(1.000 times)" in (again / "README.md").read_text()  # its own tokenizer


def test_what_cannot_be_measured(tmp_path, base_folder, target_folder):
    (tmp_path / "binary").write_bytes(b"caf\xe9 " * 1000)
    (tmp_path / "empty").write_text("\n")
    for name, message in [("binary", "not UTF-8 text: byte 3"), ("empty", "holds no text"), ("absent", "cannot be read")]:
        with pytest.raises(UserError, match=message):
            transfer(base_folder, target_folder, tmp_path / "out", method="fvt", measure=[tmp_path / name])
    assert not (tmp_path / "out").exists()


def test_pushing(tmp_path, base_folder, target_folder, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for name, message in [
        ("me/my-model", "needs a login: run `hf auth login`"),
        ("not a name", "not a name that a model can"),
    ]:
        with pytest.raises(UserError, match=message):
            transfer(base_folder, target_folder, tmp_path / "out", method="mean", push=name)
    monkeypatch.setenv("HF_TOKEN", "hf_something")
    with pytest.raises(UserError, match="the Hugging Face Hub cannot be reached"):  # HF_HUB_OFFLINE
        transfer(base_folder, target_folder, tmp_path / "out", method="mean", push="me/my-model")
    assert names(tmp_path) == []  # said before anything was done


def test_options_of_the_command(tmp_path, base_folder, target_folder, capsys):
    from zett.cli import main

    text = tmp_path / "text.txt"
    text.write_text("".join(tiny.TEXT))
    arguments = ["--model", base_folder, "--tokenizer", target_folder, "--output", tmp_path / "out", "--method", "mean"]
    arguments += ["--revision", "main", "--measure", text, "--push", "not a name"]
    with pytest.raises(SystemExit) as exit:
        main(["transfer", *map(str, arguments)])
    assert exit.value.code == 2 and "'not a name' is not a name that a model can have" in capsys.readouterr().err


def test_pushing_uploads_the_folder(tmp_path, base_folder, target_folder, monkeypatch):
    from huggingface_hub import HfApi

    calls = {}
    monkeypatch.setattr(HfApi, "whoami", lambda self: {})
    monkeypatch.setattr(HfApi, "create_repo", lambda self, name, **settings: calls.update(repo=name))
    monkeypatch.setattr(HfApi, "upload_folder", lambda self, **settings: calls.update(settings))
    output = transfer(base_folder, target_folder, tmp_path / "out", method="mean", push="me/my-model")
    assert calls["repo"] == calls["repo_id"] == "me/my-model" and calls["folder_path"] == output

    def fail(self, **settings):
        raise OSError("connection lost")

    monkeypatch.setattr(HfApi, "upload_folder", fail)
    with pytest.raises(UserError, match=r"out2 is written, but could not be pushed \(connection lost\); later: hf upload"):
        transfer(base_folder, target_folder, tmp_path / "out2", method="mean", push="me/my-model")
    assert load_base_model(tmp_path / "out2", body=False)


# ----------------------------------------------------------------------------------------------------- bad input, bad luck


def test_bad_input(tmp_path, base_folder, target_folder):
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out"
    cases = [
        ((tmp_path / "absent", target_folder, out, "fvt", None), "there is no folder .*absent"),
        ((base_folder, tmp_path / "empty", out, "fvt", None), "empty"),
        ((base_folder, tmp_path / "absent", out, "fvt", None), "absent"),
        ((base_folder, base_folder / "config.json", out, "fvt", None), "config.json"),
        ((base_folder, target_folder, out, "fvvt", None), "method 'fvvt' does not exist; did you mean fvt"),
        ((base_folder, target_folder, out, "fvt", "x"), "hypernet is 'x', but the method 'fvt' makes no use of it"),
        ((base_folder, target_folder, out, "hypernet", None), "needs a hypernetwork made for"),
    ]
    for (model, tokenizer, output, method, hypernet), message in cases:
        with pytest.raises(UserError, match=message):
            transfer(model, tokenizer, output, method=method, hypernet=hypernet)
        assert names(tmp_path) == ["empty"]


def test_without_a_hypernetwork_that_fits_it_is_the_best_method_that_needs_nothing(
    tmp_path, base_folder, target_folder, monkeypatch, caplog
):
    out = transfer(base_folder, target_folder, tmp_path / "out")
    assert f"the package has none for {base_folder}: " in caplog.text and f"rows are made by {INSTEAD}," in caplog.text
    assert method_of(out) == INSTEAD
    same = transfer(base_folder, target_folder, tmp_path / "same", method=INSTEAD)
    made, expected = (load_base_model(folder, body=False).table for folder in (out, same))
    np.testing.assert_array_equal(made.input, expected.input)
    # One that is seen to be another's only when rows are compared.
    monkeypatch.setattr(HypernetMethod, "precheck", lambda self, model: None)
    caplog.clear()
    assert method_of(transfer(base_folder, target_folder, tmp_path / "late")) == INSTEAD
    assert f"rows are made by {INSTEAD}," in caplog.text
    with pytest.raises(UserError, match="needs a hypernetwork made for"):
        transfer(base_folder, target_folder, tmp_path / "no", method="hypernet")
    with pytest.raises(UserError):  # of a base model, only a hypernetwork makes use
        transfer(base_folder, target_folder, tmp_path / "no", base=base_folder)


def test_outputs_that_exist(tmp_path, base_folder, target_folder):
    out = tmp_path / "out"
    out.mkdir()  # an empty folder is fine
    transfer(base_folder, target_folder, out, method="mean")
    with pytest.raises(UserError, match="exists and is not empty"):
        transfer(base_folder, target_folder, out, method="fvt")
    assert "mean" in (out / "README.md").read_text()
    (out / "results.txt").write_text("x")
    with pytest.raises(UserError, match=r"holds what zett did not write, which would be lost: results.txt; give another"):
        transfer(base_folder, target_folder, out, method="fvt", overwrite=True)
    (out / "results.txt").unlink()
    transfer(base_folder, target_folder, out, method="fvt", overwrite=True)
    assert "fvt" in (out / "README.md").read_text()
    assert names(tmp_path) == ["out"]


def test_overwrite_never_deletes_what_it_should_not(tmp_path, target_folder):
    base_folder = tiny.base_folder(tmp_path / "models" / "base")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    (tmp_path / "models" / "config.json").write_text("{}")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "models")
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent")
    for output, message in [
        (base_folder, "is .*, which is read from"),
        (base_folder / "new", "lies in .*, which is read from"),
        (target_folder / "new", "lies in .*, which is read from"),
        (target_folder, "is .*, which is read from"),
        (tmp_path / "models", "contains .*, which is read from"),
        (tmp_path / "link", "contains .*, which is read from"),
        (tmp_path / "thesis", "would be lost: chapter.tex"),
        (tmp_path / "file", "is a file"),
        (tmp_path / "nowhere", "is a link to nothing"),
        ("", "output is ''"),
        (".", "is the current folder"),
    ]:
        with pytest.raises(UserError, match=message):
            transfer(base_folder, target_folder, output, method="fvt", overwrite=True)
    assert (tmp_path / "thesis" / "chapter.tex").exists() and load_base_model(base_folder)
    assert names(tmp_path) == ["file", "link", "models", "nowhere", "thesis"] and names(tmp_path / "models") == [
        "base",
        "config.json",
    ]


def test_full_disk(tmp_path, base_folder, target_folder, monkeypatch):
    out = tmp_path / "out"
    transfer(base_folder, target_folder, out, method="mean")
    before = {p.name: p.read_bytes() for p in out.iterdir()}

    def full(file, *args):
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("zett.lms.folder.write_tensors", full)
    with pytest.raises(UserError, match="no space left"):
        transfer(base_folder, target_folder, out, method="fvt", overwrite=True)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert names(tmp_path) == ["out"]


# --------------------------------------------------------------------------------------------------------- Hugging Face


def our_logits(folder: Path, ids: np.ndarray) -> np.ndarray:
    base = load_base_model(folder)
    body = nnx.merge(base.graphdef, base.params)
    return np.asarray(base.table.unembed(body(base.table.embed(ids))))


@pytest.mark.parametrize("which", ["base_folder", "tied_folder"])
def test_transformers_loads_it_and_agrees(which, request, tmp_path, target_folder):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    output = transfer(request.getfixturevalue(which), target_folder, tmp_path / "out", method="fvt")
    tokenizer = AutoTokenizer.from_pretrained(output)
    text = "def f(x):\n    return x + 1  # ünïcode\n"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids == tiny.tokenizer(size=400).encode(text).ids and tokenizer.decode(ids) == text
    model, info = AutoModelForCausalLM.from_pretrained(output, dtype=torch.float32, output_loading_info=True)
    assert not any(info.values()), info
    assert model.config.vocab_size == len(tokenizer) == 400
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    with torch.no_grad():
        theirs = model(torch.tensor([ids])).logits.numpy()
    np.testing.assert_allclose(our_logits(output, np.asarray([ids])), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "mistral-v1", "bert-base-uncased", "unigram-16k-multi"])
def test_real_tokenizers_come_back_as_they_were(name, tmp_path, base_folder):
    if not (SHARED / name).is_dir():
        pytest.skip(f"{SHARED / name} is not on this machine")
    from transformers import AutoTokenizer

    output = transfer(base_folder, SHARED / name, tmp_path / "out", method="fvt")
    theirs, ours = AutoTokenizer.from_pretrained(SHARED / name), AutoTokenizer.from_pretrained(output)
    text = "Hello, World!  Grüße\n\tфывa 123 你好 <s>"
    assert ours(text)["input_ids"] == theirs(text)["input_ids"] and type(ours) is type(theirs)
    assert json.loads((output / "config.json").read_text())["vocab_size"] >= len(ours)
