"""Which folders may be replaced: those that zett wrote, and a model's with nothing else in it."""

import json

import pytest
import tiny

from zett.errors import UserError
from zett.export import export
from zett.files import folders
from zett.files.folders import check_output, foreign
from zett.transfer import transfer


def write(folder, *names, **jsons):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    for name, content in jsons.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_a_plain_model_may_be_replaced_and_nothing_beside_it(tmp_path):
    names = [
        "model-00001-of-00002.safetensors", "model.safetensors.index.json", "tokenizer.json", "vocab.json",
        "chat_template.jinja", "README.md", "LICENSE.txt", "modules.json", "1_Pooling/config.json",
        "additional_chat_templates/tools.jinja",
    ]  # fmt: skip
    model = write(tmp_path / "model", *names, config={"model_type": "llama"})
    assert foreign(model) == []
    write(model, "notes.md", "1_Pooling/mine.txt", "checkpoints/1/x", "checkpoints/2/x", "data/model.safetensors")
    assert foreign(model) == ["1_Pooling/mine.txt", "checkpoints/", "data/", "notes.md"]
    with pytest.raises(UserError, match=r"would be lost: 1_Pooling/mine.txt, checkpoints/, data/, notes.md; give another"):
        check_output(model, overwrite=True)


@pytest.mark.parametrize("config", [{}, {"name": "app"}, [1], {"model_type": "llama"}])
def test_a_stranger_project_with_a_config(config, tmp_path):
    project = write(tmp_path / "project", "README.md", "LICENSE", config=config)
    assert foreign(project) == ["LICENSE", "README.md", "config.json"]
    write(project, *"abcdefg")
    with pytest.raises(UserError, match=r"LICENSE, README.md, a, b, c and 5 more"):
        check_output(project, overwrite=True)


def test_a_workdir_with_checkpoints(tmp_path):
    workdir = write(
        tmp_path / "run", "checkpoints/10/state", "export/model.safetensors", "metrics.jsonl", config={"recipe": "lm"}
    )
    for command in (lambda: transfer("pico", "pico", workdir, method="fvt", overwrite=True), lambda: export("pico", workdir)):
        with pytest.raises(UserError):
            command()
    with pytest.raises(UserError, match=r"would be lost: checkpoints/, config.json, export/, metrics.jsonl"):
        export("pico", workdir, overwrite=True)
    assert (workdir / "checkpoints" / "10" / "state").read_text() == "x"


def test_an_exported_hypernetwork_may_be_replaced(tmp_path):
    output = export("pico", tmp_path / "out")
    assert foreign(output) == []
    export("pico", output, overwrite=True)
    write(output, "source_tokenizer/mine.txt", "plot.png")
    with pytest.raises(UserError, match=r"would be lost: plot.png, source_tokenizer/mine.txt"):
        export("pico", output, overwrite=True)
    for inside in (output, output / "again"):
        with pytest.raises(UserError, match="which is read from"):
            export(output, inside, overwrite=True)
    with pytest.raises(UserError, match="output is ''"):
        export("pico", "")


def test_the_marker(tmp_path):
    base, target = tiny.base_folder(tmp_path / "base"), tiny.tokenizer_folder(tmp_path / "target", size=400)
    output = transfer(base, target, tmp_path / "out", method="random", seed=3)
    marker = json.loads((output / folders.MARKER).read_text())
    assert marker["format"] == "zett-folder-1" and marker["command"] == "transfer"
    assert marker["settings"] == {
        "model": str(base), "revision": None, "tokenizer": str(target), "method": "random", "language": None, "hypernet": None,
        "special": "keep-target", "like": None, "map": {}, "seed": 3, "text": [], "output": str(tmp_path / "out"),
    }  # fmt: skip
    assert sorted([*marker["files"], "zett.json"]) == sorted(path.name for path in output.iterdir())
    # A name that a model's folder could have, and zett did not write.
    write(output, "merges.txt")
    assert foreign(output) == ["merges.txt"]
    # Nothing follows from a marker of another kind.
    write(output, zett={"format": "other", "files": ["merges.txt"]})
    assert foreign(output) == ["zett.json"]


def test_outputs_need_a_name():
    from zett.config import Config
    from zett.demos.quickstart import quickstart
    from zett.train.run import train

    for call, message in [
        (lambda: quickstart(""), "output is ''"),
        (lambda: train(Config(), " "), "--workdir is ' '"),
        (lambda: transfer("pico", "pico", "", method="fvt"), "output is ''"),
    ]:
        with pytest.raises(UserError, match=message):
            call()
