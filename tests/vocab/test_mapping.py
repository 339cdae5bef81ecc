"""Rows that somebody decides: `--map TOKEN=TEXT`."""

import dataclasses
import shlex

import numpy as np
import pytest
import tiny
from hypernet import networks
from special_tokens import bpe

from zett import load_base_model
from zett.errors import UserError
from zett.methods import make_method
from zett.transfer import transfer
from zett.vocab import surface_forms
from zett.vocab.mapping import with_map
from zett.vocab.pairing import pairing


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Untied, with the special tokens <|user|> and <s>."""
    own = bpe(["<|user|>", "<s>"]).tokenizer
    return load_base_model(tiny.base_folder(tmp_path_factory.mktemp("base") / "model", own=own, dtype="float32"))


@pytest.fixture(scope="module")
def target():
    return bpe(["<|im_start|>", "<|a=b|>", "<|im_end|>"])


def ids(base, text):
    return base.vocab.tokenizer.encode(text, add_special_tokens=False).ids


GIVEN = ["<|im_start|>=<|user|>", "<|a=b|>=to: <s>", "a=b"]


@pytest.mark.parametrize("method", ["fvt", "weighted", "first_last"])
def test_rows_are_those_of_the_texts(method, base, target):
    mapped = with_map(target, base.vocab, GIVEN)
    start, other, a = (target.tokenizer.token_to_id(text) for text in ("<|im_start|>", "<|a=b|>", "a"))
    pieces = ids(base, "to: <s>")
    assert len(pieces) == 5 and pieces[-1] == base.vocab.special["<s>"]
    table = make_method(method)(base, mapped)
    for ours, theirs in ((table.input, base.table.input), (table.output, base.table.output)):
        np.testing.assert_array_equal(ours[start], theirs[base.vocab.special["<|user|>"]])
        np.testing.assert_array_equal(ours[a], theirs[ids(base, "b")[0]])
    rows, output = np.asarray(base.table.input)[pieces], np.asarray(base.table.output)[pieces]
    weights = 0.5 ** np.arange(5)
    wanted = {
        "fvt": (rows.mean(0), output.mean(0)),
        "weighted": (rows.mean(0), weights @ output / weights.sum()),
        "first_last": (rows[-1], output[0]),
    }[method]
    np.testing.assert_allclose(table.input[other], wanted[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(table.output[other], wanted[1], rtol=1e-5, atol=1e-6)
    plain = make_method(method)(base, target)
    rest = np.setdiff1d(np.arange(len(target)), [start, other, a])
    np.testing.assert_array_equal(table.input[rest], plain.input[rest])


def test_hypernetworks_make_rows_of_the_pieces(target):
    """An untrained one makes their mean."""
    source = bpe(["<|user|>", "<s>"])
    base = networks.base_of(networks.table_for(source), source)
    mapped = with_map(target, source, {"<|a=b|>": "xy<s>", "<|im_start|>": "<|user|>"})
    table = networks.trained_for(base, moved=False)(base, mapped)
    start, other = (target.tokenizer.token_to_id(text) for text in ("<|im_start|>", "<|a=b|>"))
    pieces = source.tokenizer.encode("xy<s>").ids
    assert len(pieces) == 3
    for ours, theirs in ((table.input, base.table.input), (table.output, base.table.output)):
        np.testing.assert_array_equal(ours[start], theirs[source.special["<|user|>"]])
        np.testing.assert_allclose(ours[other], np.asarray(theirs)[pieces].mean(0), rtol=1e-4, atol=1e-4)


def test_few_pieces_fit(base, target):
    forms = surface_forms(with_map(target, base.vocab, {"<|a=b|>": "to: <s>", "<|im_end|>": "xy"}), base.vocab, 3)
    other, end = (target.tokenizer.token_to_id(text) for text in ("<|a=b|>", "<|im_end|>"))
    assert forms.pieces[other].tolist() == ids(base, "to:") and forms.lengths[other] == 3
    assert forms.pieces[end].tolist() == [*ids(base, "xy"), 0] and forms.same[end] == -1


def test_what_is_mapped_is_reported(base, target):
    mapped = with_map(target, base.vocab, GIVEN)
    told = {token.text: token for token in pairing(mapped, base.vocab).tokens if token.fate == "mapped"}
    assert [told[text].source_text for text in ("<|im_start|>", "<|a=b|>", "a")] == ["<|user|>", "to: <s>", "b"]
    assert told["<|im_start|>"].source_id == base.vocab.special["<|user|>"] and told["<|a=b|>"].source_id is None
    assert "<|user|>" not in pairing(mapped, base.vocab).texts("dropped")


@pytest.mark.parametrize("special", ["keep-target", "add-missing", "map-to-source"])
def test_commands_and_calls_say_it(special, base, tmp_path):
    """In the card, and so that they can be run again; the base model's special tokens may come in beside it."""
    from zett.cli import run_command

    bpe(["<|im_start|>", "<|a=b|>", "<|im_end|>"], folder=tmp_path / "target")
    words = ["--model", str(base.folder), "--tokenizer", str(tmp_path / "target"), "--output", str(tmp_path / "out")]
    words += ["--method", "fvt", "--special", special, "--map", GIVEN[0], "--map", GIVEN[1]]
    assert run_command("transfer", words, "zett transfer") == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "mapped `<\\|user\\|>`" in card and "mapped `to: <s>`" in card
    command = shlex.split(card.split("Made with:\n\n```\n")[1].split("\n```")[0])
    assert [command[i + 1] for i, word in enumerate(command) if word == "--map"] == GIVEN[:2]
    out = load_base_model(tmp_path / "out")
    given = {"<|im_start|>": "<|user|>", "<|a=b|>": "to: <s>"}
    again = load_base_model(
        transfer(base.folder, tmp_path / "target", tmp_path / "again", method="fvt", special=special, map=given)
    )
    np.testing.assert_array_equal(out.table.input, again.table.input)
    np.testing.assert_array_equal(out.table.input[256], base.table.input[base.vocab.special["<|user|>"]])
    np.testing.assert_allclose(out.table.input[257], np.asarray(base.table.input)[ids(base, "to: <s>")].mean(0), rtol=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ["<|im_strat|>=x"],
            r"map <\|im_strat\|>=x: '<\|im_strat\|>' is no token of the tokenizer \(did you mean <\|im_start\|>",
        ),
        (["<|im_start|>"], r"map <\|im_start\|>: '<\|im_start\|>' is no token of the tokenizer; write TOKEN=TEXT"),
        (["<|im_start|>="], r"map <\|im_start\|>=: it names no text; write TOKEN=TEXT"),
        ("=x", "'=x' is no token of the tokenizer; write TOKEN=TEXT"),
        ({"<|im_start|>": ""}, "it names no text"),
        (["a=b", "a=c"], "map gives the token 'a' two texts, 'b' and 'c'"),
    ],
)
def test_what_makes_no_sense_is_refused(given, message, base, target):
    with pytest.raises(UserError, match=message):
        with_map(target, base.vocab, given)


def test_texts_that_the_base_cannot_spell_are_refused(target):
    words = tiny.tokenizer("wordpiece", 300)
    from zett.vocab.load import vocabulary_of

    with pytest.raises(UserError, match="the base model's tokenizer has no tokens for the text '你'"):
        with_map(target, vocabulary_of(words), {"<|im_start|>": "你"})


def test_without_a_map_it_is_the_same_vocabulary(base, target):
    assert with_map(target, base.vocab, ()) is target
    assert not dataclasses.replace(target).mapped
