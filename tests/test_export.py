"""Exporting a released hypernetwork: in fewer bytes, and again as it is."""

import pytest

from zett import cli
from zett.errors import UserError
from zett.export import export
from zett.hypernet.release import load_hypernet


def test_int8_and_again_as_it_is(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["export", "--hypernet", "pico", "--weights", "int8", "--output", str(tmp_path / "small")])
    assert stopped.value.code == 0 and f"wrote {tmp_path / 'small'}" in capsys.readouterr().out
    files = [load_hypernet(hypernet).folder / "model.safetensors" for hypernet in ("pico", tmp_path / "small")]
    assert files[1].stat().st_size < 0.3 * files[0].stat().st_size
    export(tmp_path / "small", tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == files[1].read_bytes()


def test_an_unknown_form_writes_nothing(tmp_path):
    with pytest.raises(UserError, match=r"weights is 'int4'; it has to be one of float32, bfloat16, int8"):
        export("pico", tmp_path / "out", weights="int4")
    assert not any(tmp_path.iterdir())
