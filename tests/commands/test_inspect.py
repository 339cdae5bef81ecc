"""`zett inspect` at the command line: its outputs, what it leaves alone, and mistakes."""

import json
from pathlib import Path

import pytest
from vocabularies import vocabulary

from zett.cli import main
from zett.vocab.train import save_tokenizer

SAID = "taking 1,000 tokens apart into pieces of the base model's tokenizer"  # all that a run without a mistake says on stderr


def run(*argv, capsys):
    """(exit code, stdout, stderr)."""
    with pytest.raises(SystemExit) as exit:
        main(list(argv))
    captured = capsys.readouterr()
    return exit.value.code, captured.out, captured.err


def folder_of(vocab, folder: Path) -> str:
    save_tokenizer(vocab.tokenizer, folder)
    return str(folder)


def test_command(tmp_path, capsys):
    target = folder_of(vocabulary("unigram"), tmp_path / "unigram")
    html, made = tmp_path / "a.html", tmp_path / "a.json"
    arguments = ["inspect", "--model", "pico", "--tokenizer", target]
    code, out, _ = run(*arguments, "--html", str(html), "--json", str(made), "--hypernet", "pico", capsys=capsys)
    assert code == 0 and "Target tokens in source pieces" in out
    report = json.loads(made.read_text())
    assert report["pair"]["max_pieces"] == 8 and html.read_text().startswith("<!doctype html>")
    code, out, _ = run(*arguments, "--json", "-", "--max-pieces", "3", capsys=capsys)
    assert code == 0 and json.loads(out)["pair"]["max_pieces"] == 3
    # What it wrote itself it may write again.
    code, _, error = run(*arguments, "--html", str(html), "--json", str(made), capsys=capsys)
    assert (code, error) == (0, f"{SAID}\n") and json.loads(made.read_text())["pair"]["max_pieces"] != 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "a.json", "unigram"]


def test_files_that_inspect_did_not_write_stay(tmp_path, capsys):
    target = folder_of(vocabulary("unigram"), tmp_path / "unigram")
    for name in ("thesis.html", "data.json", "text.txt"):
        (tmp_path / name).write_text("<!doctype html> {} mine")
    (tmp_path / "text.html").write_text('<meta name="generator" content="zett inspect">')
    arguments = ["inspect", "--model", "pico", "--tokenizer", str(target), "--text", str(tmp_path / "text.txt")]
    thesis, data = str(tmp_path / "thesis.html"), str(tmp_path / "data.json")
    inside = str(tmp_path / "unigram" / "tokenizer.json")
    for extra, message in [
        (["--html", thesis], "thesis.html is there, and zett inspect did not write it; give another file, or --overwrite"),
        (["--json", data], "data.json is there, and zett inspect did not write it"),
        (["--json", str(tmp_path / "text.html")], "text.html is there, and zett inspect did not write it"),
        (["--json", inside, "--overwrite"], "lies in"),
        (["--json", str(tmp_path / "text.txt"), "--overwrite"], "text.txt, which is read from"),
        (["--html", ""], "--html is ''"),
        (["--json", " "], "--json is ' '"),
        (["--html", str(tmp_path)], "is a folder"),
        (["--html", str(tmp_path / "new"), "--json", str(tmp_path / "new")], "--json and --html are both"),
    ]:
        code, _, error = run(*arguments, *extra, capsys=capsys)
        assert code == 2 and message in error and error.count("\n") == 1, (extra, error)
    assert all((tmp_path / name).read_text() == "<!doctype html> {} mine" for name in ("thesis.html", "data.json", "text.txt"))
    code, _, error = run(*arguments, "--html", thesis, "--json", data, "--overwrite", capsys=capsys)
    assert (code, error) == (0, f"{SAID}\n") and "zett inspect" in Path(thesis).read_text()


def test_mistakes_at_the_command_line(tmp_path, capsys):
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    for extra, message in [
        (["--text", str(tmp_path / "latin.txt")], "latin.txt: not UTF-8 at byte 3"),
        (["--text", str(tmp_path / "absent")], "no such file or folder"),
        (["--hypernet", str(tmp_path)], "no hypernetwork there"),
        (["--hypernet", "pico", "--max-pieces", "3"], "both say S"),
        (["--max-pieces", "0"], "--max-pieces is 0"),
        (["--html", str(tmp_path / "absent" / "a.html")], "cannot write"),
    ]:
        code, _, error = run("inspect", "--model", "pico", "--tokenizer", "pico", *extra, capsys=capsys)
        *before, mistake = error.splitlines()
        assert code == 2 and message in mistake and not any("error" in line for line in before)
