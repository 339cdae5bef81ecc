"""Text in pieces of so many bytes."""

from evaluate.lines import LINES

from zett.evaluate.cutting import whole_windows


def test_whole_windows_leave_nothing_out():
    documents = ["".join(LINES), "short", "x" * 70 + "é" * 30, LINES[0] * 2, LINES[0] * 2]
    pieces = whole_windows(documents, window=64)
    assert "".join(pieces) == "".join(documents) and max(len(p.encode()) for p in pieces) <= 64
    some = whole_windows(documents, window=64, limit=200)
    assert 100 < sum(len(p.encode()) for p in some) <= 200
    assert [p for p in pieces if p in some] == some or len(set(pieces)) < len(pieces)
    assert whole_windows(["\ud800 half"], window=64) == ["? half"]
