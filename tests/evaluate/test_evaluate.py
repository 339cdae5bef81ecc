"""Evaluation with a tiny random base model and small tokenizers trained here."""

import pytest
from encoders import encoder_folder
from evaluate.lines import LINES

from zett.errors import UserError
from zett.evaluate.evaluate import evaluate
from zett.evaluate.plot import figure
from zett.evaluate.report import table
from zett.evaluate.targets import load_target
from zett.lms import base as lms_base
from zett.methods import make_method
from zett.transfer import transfer


@pytest.fixture(scope="module")
def report(base, corpus):
    targets = ["bpe-350", "unigram-350", "wordpiece-350"]
    return evaluate(base, targets, text=corpus, text_bytes=2048, window=128, batch_size=8, progress=False)


def test_report_is_consistent(report):
    original = report.original["bits_per_byte"]
    assert report.methods == ["fvt", "mean", "random"]
    for target in report.targets:
        fvt = target.scores["fvt"]
        for score in target.scores.values():
            assert score.ratio == pytest.approx(score.bits_per_byte / original)
            assert 0 < score.ratio_error < 0.3 * score.ratio
            if fvt.bits_per_byte > original:
                gap = (score.bits_per_byte - original) / (fvt.bits_per_byte - original)
                assert score.fvt_gap_left == pytest.approx(gap)
            else:
                assert score.fvt_gap_left is None
        assert target.relative_length == pytest.approx(target.tokens_per_byte / report.original["tokens_per_byte"])
        assert 0.5 < target.shared <= 1
    assert all(f"{s.ratio:.3f}" in table(report) for t in report.targets for s in t.scores.values())
    lost = {t.name: t.bytes_lost for t in report.targets}
    assert lost["bpe-350"] == lost["unigram-350"] == 0
    assert 0 < lost["wordpiece-350"] < 0.5


def test_the_original_tokenizer_costs_nothing(base, model, corpus):
    result = evaluate(base, [model], text=corpus, text_bytes=1024, window=128, methods=["fvt"], progress=False)
    (target,) = result.targets
    assert target.name == "tiny"
    assert target.scores["fvt"].ratio == pytest.approx(1, abs=1e-6)
    assert target.scores["fvt"].ratio_error == pytest.approx(0, abs=1e-6)
    assert target.relative_length == target.shared == 1


def test_the_models_tokenizer_is_read_once(model, corpus, monkeypatch):
    read, load = [], lms_base.load_tokenizer
    monkeypatch.setattr(lms_base, "load_tokenizer", lambda folder, **rows: read.append(folder) or load(folder, **rows))
    result = evaluate(model, "bpe-350", text=corpus, text_bytes=512, window=128, methods=["mean"], progress=False)
    assert len(read) == 1 and result.targets[0].scores["mean"].ratio > 0


def test_own_methods_and_windows(base, corpus):
    target = load_target("bpe-350", corpus)
    methods = {"ours": make_method("mean"), "mean": make_method("mean"), "fvt": make_method("fvt")}
    result = evaluate(base, {"mine": target}, windows=LINES[:4], methods=methods, progress=False)
    scores = result.targets[0].scores
    assert scores["ours"].bits_per_byte == scores["mean"].bits_per_byte
    assert result.text["bytes"] == sum(len(line.encode()) for line in LINES[:4])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"methods": ["ftv"]}, "did you mean fvt"),
        ({"methods": []}, "no method"),
        ({"targets": []}, "no target"),
        ({"windows": []}, "no text"),
        ({"text_bytes": 64}, "64 bytes are to be measured, in windows of 128"),
        ({"text_bytes": None, "window": 8}, "window is 8 bytes"),
        ({"text": "/nowhere"}, "/nowhere"),
    ],
)
def test_mistakes_are_named(base, corpus, arguments, message):
    with pytest.raises(UserError, match=message):
        evaluate(
            base, **{"targets": ["bpe-350"], "text": corpus, "text_bytes": 512, "window": 128, "progress": False} | arguments
        )


def test_models_that_are_made_already(base, model, corpus, tmp_path):
    """A transferred folder reads as its table does, and the original itself loses nothing; methods stand beside."""
    target, made = load_target("bpe-350", corpus), tmp_path / "made"
    transfer(model, target.folder, made, method="fvt")
    measured = {"text": corpus, "text_bytes": 1024, "window": 128, "progress": False}
    result = evaluate(base, compare=[made, model], methods="mean", **measured)
    assert [t.name for t in result.targets] == ["made", "tiny"] and result.methods == ["as it is", "mean"]
    theirs = evaluate(base, target.folder, methods=["fvt", "mean"], **measured).targets[0].scores
    ours = result.targets[0].scores
    assert ours["as it is"].bits_per_byte == pytest.approx(theirs["fvt"].bits_per_byte, rel=1e-4)
    assert ours["mean"].bits_per_byte == pytest.approx(theirs["mean"].bits_per_byte, rel=1e-6)
    assert result.targets[1].scores["as it is"].ratio == pytest.approx(1, abs=1e-6)
    alone = evaluate(base, compare={"mine": made}, **measured)
    assert alone.methods == ["as it is"] and "mine" in table(alone)
    assert figure(alone).axes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokenizer": ["bpe-350"]}, "tokenizer is .*bpe-350.*tokenizers of their own"),
        ({"compare": []}, "no model to compare"),
        ({"special": "keep-target"}, "special is 'keep-target'"),
        ({"compare": ["a/b", "c/b"]}, "two folders are called 'b'"),
    ],
)
def test_mistakes_with_models_to_compare(base, model, corpus, arguments, message):
    with pytest.raises(UserError, match=message):
        evaluate(base, **{"compare": model, "text": corpus, "text_bytes": 512, "window": 128} | arguments)


def test_an_encoder_is_not_compared_with_a_causal_model(base, corpus, tmp_path):
    encoder = encoder_folder(tmp_path / "encoder", "bert")
    with pytest.raises(UserError, match=r"is an encoder and .* a causal model"):
        evaluate(base, compare=encoder, text=corpus, text_bytes=512, window=128)
