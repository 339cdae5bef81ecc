"""The plot of a report shows whatever is in it, and nothing lies on anything else."""

import dataclasses
import math

import pytest
from evaluate.reports import report

from zett.evaluate.plot import figure

RATIOS = {
    "bad": {"hypernet": [900.0, 1.2], "fvt": [3.0, 1.2], "mean": [3.0, 0.5], "random": [20.0, 1.2]},
    "one": {"fvt": [1.003, 1.0]},
    "many": {name: [1.3, 1.3] * 6 for name in ("a", "b", "c", "d", "e-with-a-long-name", "fvt", "mean", "random")},
    "no number": {"hypernet": [math.nan, math.inf], "fvt": [2.0, 1.2]},
}


@pytest.mark.parametrize("case", RATIOS)
def test_the_plot_hides_nothing(case):
    number = len(next(iter(RATIOS[case].values())))
    names = [f"{'a-tokenizer-with-quite-a-name-' * (n % 3)}{n}" for n in range(number)]
    fig = figure(dataclasses.replace(report(RATIOS[case], names), base={"name": "a-base-model-with-a-long-name-" * 3}))
    fig.canvas.draw()
    ratios, lengths = fig.axes
    assert "logarithmic" in ratios.get_title("left") and "further left is better" in ratios.get_title("left")
    finite = sum(math.isfinite(r[n]) for r in RATIOS[case].values() for n in range(number))
    assert (len(ratios.patches), len(lengths.patches)) == (finite, number)
    for axes in fig.axes:
        boxes = [bar.get_window_extent() for bar in axes.patches]
        texts = [text.get_window_extent() for text in axes.texts]
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
        assert not any(a.overlaps(b) for i, a in enumerate(texts) for b in texts[:i])
        within = axes.bbox.padded(1)
        assert all(within.x0 <= box.x0 and box.x1 <= within.x1 for box in [*boxes, *texts])
    labels = [label.get_window_extent() for label in ratios.get_yticklabels()]
    assert not any(a.overlaps(b) for i, a in enumerate(labels) for b in labels[:i])
    head = [
        fig._suptitle.get_window_extent(),
        ratios.get_legend().get_window_extent(),
        *labels,
        fig._supxlabel.get_window_extent(),
    ]
    assert not any(a.overlaps(b) for i, a in enumerate(head) for b in head[:i])
    assert all(box.x0 >= 0 and box.x1 <= fig.bbox.x1 for box in head)
    words = [text.get_text() for text in ratios.texts]
    assert [w for w in words if "worse than fvt" in w] == {"bad": ["900×, worse than fvt"]}.get(case, [])
    assert words.count("no number") == 2 * (case == "no number")
