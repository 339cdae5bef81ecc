"""Work is cut to the time that is left."""

from zett.demos.pace import Pace, clamped


def test_time_passes():
    pace = Pace(100.0)
    before = pace.spent
    assert 0 <= before <= pace.spent < 50 and 50 < pace.left <= 100


def test_work_stays_within_its_limits():
    assert [clamped(x, (5, 90)) for x in (-3.0, 5.5, 48.9, 1e9)] == [5, 5, 48, 90]
    assert clamped(48.9, (5, 90), 20) == 40
