"""Where a name leads: a folder, a file, the package's own, the Hub, or nowhere."""

import pytest

from zett.errors import UserError
from zett.files import hub
from zett.files.resolve import ASSETS, BASE_MODEL, HYPERNETWORK, TOKENIZER, find, local

KINDS = (BASE_MODEL, HYPERNETWORK, TOKENIZER)
WORDS = [kind.words for kind in KINDS]


def write(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("{}")
    return folder


@pytest.mark.parametrize("kind", KINDS, ids=WORDS)
def test_folders(kind, tmp_path, monkeypatch):
    folder = write(tmp_path / "here", "config.json", "tokenizer.json")
    assert find(folder, kind) == find(str(folder), kind) == local(folder, kind) == folder
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find("~/here", kind) == folder
    monkeypatch.chdir(tmp_path)
    assert find("here", kind).resolve() == folder


@pytest.mark.parametrize(("kind", "own"), [(BASE_MODEL, "pico"), (HYPERNETWORK, "pico-hypernet"), (TOKENIZER, "pico")])
def test_the_packages_own(kind, own, tmp_path, monkeypatch):
    assert find("pico", kind) == local("pico", kind) == ASSETS / own and (ASSETS / own / "config.json").is_file()
    write(tmp_path / "pico", "config.json")
    monkeypatch.chdir(tmp_path)
    assert find("pico", kind) == ASSETS / own and find("./pico", kind).resolve() == tmp_path / "pico"
    monkeypatch.setattr("zett.files.resolve.ASSETS", tmp_path / "nothing")
    with pytest.raises(UserError, match=rf"this installation lacks the {kind.words} 'pico' \(.*nothing/{own}\); install the"):
        find("pico", kind)


@pytest.mark.parametrize("kind", KINDS, ids=WORDS)
def test_what_is_no_folder(kind, tmp_path):
    file = tmp_path / "model.bin"
    file.write_text("x")
    with pytest.raises(UserError, match=rf"^{file} is a file; give the folder of the {kind.words}$"):
        find(file, kind)
    for absent in (tmp_path / "absent", "a/b/c", "not a name"):
        with pytest.raises(UserError, match=rf"^there is no folder .* with a {kind.words}$"):
            find(absent, kind)
    for empty in ("", " "):
        with pytest.raises(UserError, match=rf"^the name of the {kind.words} is '{empty}'; give its folder"):
            find(empty, kind)


def test_a_base_model_has_a_config(tmp_path):
    folder = write(tmp_path / "empty")
    with pytest.raises(UserError, match=rf"^{folder} is not the folder of a base model: it has no config.json$"):
        find(folder, BASE_MODEL)
    assert find(folder, HYPERNETWORK) == folder  # said when it is read: a run's workdir is taken, too

    def check(path):
        raise UserError(f"{path.name} is an adapter")

    with pytest.raises(UserError, match=r"^empty is an adapter$"):  # which says more than that there is no config
        find(folder, BASE_MODEL, check=check)


def test_names_on_the_hub(tmp_path, monkeypatch):
    """Of lists of files the first that brings weights; what it is asked for goes on to the Hub."""
    calls = []

    def download(name, patterns, **settings):
        calls.append((name, tuple(patterns), settings))
        return write(tmp_path / "download", "config.json", *(["weights.msgpack"] if "*.msgpack" in patterns else []))

    monkeypatch.setattr(hub, "download", download)
    assert find("someone/hypernet", HYPERNETWORK, revision="main") == tmp_path / "download"
    assert [patterns[-1] for _, patterns, _ in calls] == ["*.safetensors", "*.msgpack"]
    assert all(name == "someone/hypernet" and settings["revision"] == "main" for name, _, settings in calls)
    calls.clear()
    find("gpt2", BASE_MODEL)
    ((name, patterns, settings),) = calls if len(calls) == 1 else [calls[0]]
    assert name == "gpt2" and settings["wanted"] == "config.json" and settings["what"] == "base model"
    assert "*.safetensors" in patterns and settings["ignored"] == BASE_MODEL.ignored


def test_the_hub_is_not_asked_for_what_is_here(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "download", lambda *_, **__: pytest.fail("the Hub was asked"))
    write(tmp_path / "someone" / "model", "config.json")
    monkeypatch.chdir(tmp_path)
    assert find("someone/model", BASE_MODEL).resolve() == tmp_path / "someone" / "model"
