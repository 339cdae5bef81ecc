"""Where bits are lost: what every class of tokens costs, and that nothing is lost on the way."""

import dataclasses
import json

import numpy as np
import pytest
from evaluate.lines import LINES

from zett.errors import UserError
from zett.evaluate import results
from zett.evaluate.evaluate import evaluate
from zett.evaluate.excess import content, excess_bits
from zett.evaluate.excess_plot import excess_figure
from zett.evaluate.excess_report import excess_tables
from zett.evaluate.saving import save
from zett.evaluate.targets import load_target
from zett.evaluate.tasks import make_task
from zett.evaluate.tasks.encoded import encode_items
from zett.evaluate.tasks.items import Items
from zett.evaluate.trial import token_task

TEXTS = ["".join(LINES), LINES[3] + "x = 12345  # привет 🙂", "  \n"]
TARGETS = ["bpe-350", "unigram-350", "wordpiece-350"]


@pytest.fixture(scope="module")
def report(base, corpus):
    """Of texts with letters of others, digits, and white space that WordPiece drops whole."""
    targets = {name: load_target(name, corpus) for name in TARGETS}
    return evaluate(base, targets, windows=TEXTS, methods=["fvt", "random"], classes=True, batch_size=2, progress=False)


def test_classes_add_up_to_what_is_lost(report):
    for target in report.targets:
        for method, excess in target.excess.items():
            lost = target.scores[method].bits_per_byte - report.original["bits_per_byte"]
            assert excess.bits == pytest.approx(lost, abs=1e-9)
            for classes in (excess.pieces, excess.content):
                assert sum(one.bits for one in classes) == pytest.approx(lost, abs=1e-9)
                assert sum(one.tokens for one in classes) == round(target.tokens_per_byte * report.text["bytes"])
    names = [{one.name for one in target.excess["fvt"].content} for target in report.targets]
    assert {"letters", "digits", "whitespace", "punctuation"} <= names[0] and "bytes" in names[0]
    assert "no tokens" in names[2] and "no tokens" not in names[0]


def test_the_worst_tokens_are_told(report, base):
    for target in report.targets:
        worst = target.excess["random"].worst
        assert 0 < len(worst) <= 100 and [t.bits for t in worst] == sorted((t.bits for t in worst), reverse=True)
    worst = report.targets[1].excess["random"].worst
    spelled = {t.token: t for t in worst if len(t.pieces) > 1 and t.token.isascii() and "\\" not in t.token}
    assert spelled and all("".join(t.pieces) == name and t.count > 0 for name, t in spelled.items())


def test_the_original_tokenizer_loses_nothing(base, model):
    found = evaluate(base, [model], windows=TEXTS, methods="fvt", classes=True, progress=False).targets[0].excess["fvt"]
    assert found.pieces[0].name == "shared"
    assert found.bits == pytest.approx(0, abs=1e-6) and all(abs(one.bits) < 1e-6 for one in (*found.pieces, *found.content))


def test_excess_stays_in_its_chunk(base, corpus):
    """Between two shared boundaries it is shared out by what the target's tokens cost."""
    target = load_target("unigram-350", corpus)
    items = Items(("".join(LINES[:3]),), np.ones(1))
    ours, theirs = encode_items(items, target), encode_items(items, base.vocab)
    rng = np.random.default_rng(0)
    bits = [rng.random(side.ids.shape) * (np.arange(side.ids.shape[1]) < side.lengths[:, None]) for side in (ours, theirs)]
    found, without = excess_bits(target, ours, bits[0], base.vocab, theirs, bits[1])
    ends = [np.cumsum([len(v.tokens[i]) for i in e.ids[0, : e.lengths[0]]]) for v, e in ((target, ours), (base.vocab, theirs))]
    shared = sorted(set(ends[0]) & set(ends[1]))
    assert without == 0 and 5 < len(shared) < len(ends[0]) and shared[-1] == ends[0][-1] == ends[1][-1]
    begin = [0, 0]
    for end in shared:
        stop = [int(np.searchsorted(ends[0], end)) + 1, int(np.searchsorted(ends[1], end)) + 1]
        a, b = (bits[side][0, begin[side] : stop[side]] for side in (0, 1))
        np.testing.assert_allclose(found[0, begin[0] : stop[0]], a * (1 - b.sum() / a.sum()), atol=1e-12)
        begin = stop
    assert not found[0, begin[0] :].any()


@pytest.mark.parametrize(
    ("token", "name"),
    [
        (b" the", "letters"), (b"x1", "letters"), ("naïve".encode(), "other letters"), ("東京".encode(), "other letters"),
        ("हि".encode(), "other letters"), (b" 12", "digits"), (b"3.", "digits"), (b"    ", "whitespace"), (b"\n", "whitespace"),
        (b"):\n", "punctuation"), ("— “".encode(), "punctuation"), (b"\xe6\x9d", "bytes"), (b"", "no text"),
    ],
)  # fmt: skip
def test_what_tokens_spell(token, name):
    assert content(token) == name


def test_it_is_in_the_report(report, tmp_path):
    text = excess_tables(report)
    assert max(map(len, text.splitlines())) <= 120 and text.count("costs most") == 3
    first = report.targets[0].excess["fvt"]
    assert all(f"{one.bits:.4f}" in text for one in (*first.pieces, *first.content))
    files = save(report, tmp_path)
    assert [file.name for file in files] == ["report.json", "report.png", "classes.png"]
    assert json.dumps(dataclasses.asdict(results.load(tmp_path))) == json.dumps(dataclasses.asdict(report))
    without = dataclasses.replace(report, targets=[dataclasses.replace(t, excess=None) for t in report.targets])
    assert excess_tables(without) == "" and len(save(without, tmp_path)) == 2 and not files[2].exists()


def test_the_plot_hides_nothing(report):
    fig = excess_figure(report)
    fig.canvas.draw()
    assert len(fig.axes) == 6
    for axes, (target, kind) in zip(fig.axes, [(t, kind) for t in report.targets for kind in ("pieces", "content")]):
        bars = [bar.get_width() for bar in axes.patches]
        bits = [one.bits for found in target.excess.values() for one in getattr(found, kind)]
        np.testing.assert_allclose(bars, bits)
        assert all(axes.bbox.padded(1).x0 <= b.get_window_extent().x0 for b in axes.patches)
        assert all(b.get_window_extent().x1 <= axes.bbox.padded(1).x1 for b in axes.patches)
    head = [fig._suptitle, fig.axes[0].get_legend(), *(axes._left_title for axes in fig.axes)]
    boxes = [part.get_window_extent() for part in head]
    assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[:n])


def test_masked_models_have_no_classes():
    with pytest.raises(UserError, match="measured in masked bits per byte"):
        token_task(make_task("masked_bits_per_byte"))
