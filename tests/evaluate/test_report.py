"""A report as a table."""

import pytest
from evaluate.reports import FIVE, NAMES, report

from zett.evaluate.report import table


@pytest.mark.parametrize("methods", [("fvt", "mean", "random"), tuple(FIVE)])
def test_table_fits_and_tells_what_is_lost(methods):
    shown = report({name: FIVE[name] for name in methods}, NAMES, lossy="wordpiece-350")
    text = table(shown)
    rows = text.split("\n\n")[1].splitlines()
    assert max(map(len, rows)) <= 110
    assert len(rows) == 3 + len(shown.targets)
    assert all(f"{s.ratio:.3f}" in text for t in shown.targets for s in t.scores.values())
    assert "wordpiece-350*" in text and "drops" in text
