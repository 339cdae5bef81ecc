"""The report of `zett inspect`: numbers that are known beforehand, and numbers that have to agree."""

import html
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import normalizers
from vocabularies import byte_tokenizer, bytes_and, shared

from zett.errors import UserError
from zett.inspect.compare import inspect
from zett.inspect.page import page
from zett.inspect.terminal import tables
from zett.vocab.bytes import UTF8_BYTES
from zett.vocab.load import vocabulary_of

ROOT = Path(__file__).parents[2]


def test_numbers_of_the_report(tmp_path):
    """Everything countable, against counting by hand."""
    source = vocabulary_of(bytes_and([b"ab"], [(b"a", b"b")]))
    target = vocabulary_of(bytes_and([b"ab", b"cd", b"abcd"], [(b"a", b"b"), (b"c", b"d"), (b"ab", b"cd")]))
    (tmp_path / "en.txt").write_text("abcd abx")
    (tmp_path / "p.csv").write_text("en,de\nab,abcdx\n")
    report = inspect(source, target, text=[tmp_path / "en.txt"], parallel=[tmp_path / "p.csv"], max_pieces=2)
    pair = report["pair"]
    assert pair["pieces_per_token"] == {"1": 257, "2": 1, "3": 1} and pair["shared"] == 257
    assert pair["longer"] == 1 and pair["longest"] == [{"token": "abcd", "pieces": 3}]
    text = report["text"]["languages"]["en"]
    assert (text["bytes"], text["source_tokens"], text["target_tokens"]) == (8, 6, 4)
    assert (text["target_shared"], text["target_longer"], text["relative_length"]) == (3, 1, 4 / 6)
    assert report["text"]["all"] == text
    german = report["premium"]["languages"]["de"]
    assert (german["pairs"], german["bytes"], german["source"], german["target"]) == (1, 2.5, 4.0, 2.0)
    assert inspect(source, source)["warnings"] == []


def test_the_numbers_in_one_piece_and_in_both_agree():
    merges = [(b"a", b"b"), (b" ", b"ab")]
    source = bytes_and([b"ab", b" ab"], merges)
    source.normalizer = normalizers.Lowercase()
    target = bytes_and([b"ab", b" ab", b"AB", b"Ab", b"abab"], merges)
    target.add_tokens([" ab"])  # written in the vocabulary as "Ġab"
    report = inspect(vocabulary_of(source), vocabulary_of(target))
    pair = report["pair"]
    # AB and Ab are ab in lower case; a source that has the letter A keeps it.
    assert pair["one_piece"] == {"both": 258, "repeated": 1, "cut": 0, "normalised": 2, "bytes": 0}
    assert pair["pieces_per_token"] == {"1": 261, "2": 1} and pair["shared"] == 258
    words = "261 in 1 piece: 258 in both, 1 again with the same bytes, 2 that are one after the source's normaliser"
    assert words in " ".join(tables(report).split()) and words in html.unescape(page(report))


@pytest.mark.parametrize(
    "source, target", [("bert-base-uncased", "wordpiece-16k-multi"), ("wordpiece-16k-multi", "mistral-v1")]
)
def test_the_numbers_of_real_tokenizers_agree(source, target):
    pair = inspect(shared(source), shared(target))["pair"]
    ways = pair["one_piece"]
    total = ways["both"] + ways["repeated"] - ways["cut"] + ways["normalised"] + ways["bytes"]
    assert total == pair["pieces_per_token"]["1"] and ways["both"] == pair["shared"] != total


def test_bytes_that_never_occur_in_utf8_are_no_loss():
    made = byte_tokenizer([bytes([b]) for b in UTF8_BYTES], [])
    report = inspect(vocabulary_of(made), vocabulary_of(made))
    assert report["warnings"] == [] and report["source"]["losses"] == []
    assert (report["source"]["single_bytes"], report["pair"]["bytes_without_source_token"]) == (243, 0)
    assert "all 243 that occur in UTF-8 are tokens" in tables(report)
    made = vocabulary_of(byte_tokenizer([bytes([b]) for b in UTF8_BYTES if b != 7], []))
    lacking = inspect(made, vocabulary_of(bytes_and([], [])))
    assert "no token for 1 of the 243 bytes in UTF-8" in lacking["warnings"][0]["what"]
    assert lacking["pair"]["one_piece"]["bytes"] == 1 + 13 and "242 of the 243 in UTF-8" in tables(lacking)


def test_a_tokenizer_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"there is no folder .*absent with a tokenizer"):
        inspect("pico", tmp_path / "absent")


def test_it_needs_neither_jax_nor_transformers(tmp_path):
    code = (
        "import sys; from zett.inspect.compare import inspect; inspect('pico', 'pico', text=['README.md'])\n"
        "print({'jax', 'flax', 'transformers', 'torch', 'matplotlib', 'datasets'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.stdout == "set()\n", done.stderr
