"""The report of `zett inspect` in the terminal."""

from zett.inspect.terminal import WIDTH, columns, tables


def test_the_tables(everything):
    text = tables(everything)
    assert max(map(len, text.split("\n"))) <= WIDTH
    for word in ("2 more are reserved", "paired", "premium", "tok/B", "What to know", "single digits"):
        assert word in text
    assert columns(("a", "b"), [("東", "1"), ("xyz", "22")], right=[1]) == "a     b\n───────\n東    1\nxyz  22"
