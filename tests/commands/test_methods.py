"""`zett methods`."""

from zett.cli import run_command
from zett.methods import METHODS, method_class


def test_it_lists_every_method_with_what_it_needs_and_its_settings(capsys):
    assert run_command("methods", [], "zett methods") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == list(METHODS)
    for name in METHODS:
        kind = method_class(name)
        entry = lines[lines.index(name) + 1 :]
        assert entry[0].strip() == kind.__doc__.splitlines()[0] and entry[1] == f"  needs {kind.needs}"
    assert "  hypernet:path=None" in lines and "  hypernet:language=None" in lines
    assert max(map(len, lines)) <= 110
