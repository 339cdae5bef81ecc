"""`zett inspect`: facts that are known beforehand, texts by language, premiums, warnings, and the three outputs."""

import gzip
import itertools
import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest
import tokenizers
from tokenizers import Regex, models, normalizers, pre_tokenizers

from tests.test_cli import run
from tests.test_special import bpe
from tests.vocabularies import SHARED, byte_tokenizer, vocabulary
from zett import cli
from zett.data.documents import TextError
from zett.errors import UserError
from zett.inspect.compare import inspect
from zett.inspect.page import page
from zett.inspect.terminal import WIDTH, columns, tables
from zett.inspect.texts import parallel_texts, texts_by_language
from zett.inspect.describe import (
    describe,
    digit_scheme,
    normaliser_words,
    pre_tokeniser_words,
    show,
    splits_marks,
    unreachable,
)
from zett.vocab.bytes import UTF8_BYTES
from zett.vocab.load import vocabulary_of
from zett.vocab.train import save_tokenizer

ROOT = Path(__file__).parents[1]
CORPORA = SHARED.parent / "corpora"


def shared(name: str):
    if not (SHARED / name).is_dir():
        pytest.skip(f"{SHARED / name} is not on this machine")
    return vocabulary(name)


def bytes_and(tokens, merges, pattern=None):
    """Byte-level BPE of all bytes and these tokens; `pattern` cuts before."""
    made = byte_tokenizer(list(dict.fromkeys([bytes([b]) for b in range(256)] + tokens)), merges)
    parts = [pre_tokenizers.Split(Regex(pattern), "isolated")] if pattern else []
    made.pre_tokenizer = pre_tokenizers.Sequence([*parts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return made


# ---------------------------------------------------------------------------------------------------------------- digits

ONES = [(a, b) for a in map(bytes, zip(b"123456789")) for b in map(bytes, zip(b"123456789"))]
PAIRS = [a + b for a, b in ONES]
TRIPLES = [merge for pair in PAIRS for d in map(bytes, zip(b"123456789")) for merge in ((pair, d), (d, pair))]


@pytest.mark.parametrize(
    "merges, pattern, scheme, example",
    [
        ([], None, "single digits", "1|2|3|4|5|6|7"),
        (ONES, r"\d", "single digits", "1|2|3|4|5|6|7"),
        (ONES, r"\d{1,2}", "groups of 2 from the left", "12|34|56|7"),
        (ONES + TRIPLES, r"\d{1,3}", "groups of 3 from the left", "123|456|7"),
        (ONES + TRIPLES, r"\d{1,3}(?=(?:\d{3})*\b)", "groups of 3 from the right", "1|234|567"),
        (ONES[:40], r"\d{1,3}", "groups of up to 3 from the left, cut further as learnt", "12|3|45|6|7"),
        (ONES, None, "as learnt", "12|34|56|7"),
    ],
)
def test_digit_schemes(merges, pattern, scheme, example):
    found = digit_scheme(vocabulary_of(bytes_and([a + b for a, b in merges], merges, pattern)))
    assert (found.scheme, "|".join(found.example)) == (scheme, example)


@pytest.mark.parametrize(
    "name, scheme",
    [
        ("gpt2", "as learnt"),
        ("mistral-v1", "single digits"),
        ("bbpe-32k-pydocs-en", "groups of up to 3 from the left, cut further as learnt"),
        ("bert-base-uncased", "as learnt"),
        ("byte", "single digits"),
    ],
)
def test_digit_schemes_of_known_tokenizers(name, scheme):
    assert digit_scheme(shared(name)).scheme == scheme


def test_digits_that_a_vocabulary_lacks():
    made = tokenizers.Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0), ("▁", -1.0), ("1", -2.0)], 0, False))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    assert digit_scheme(vocabulary_of(made)).scheme == "digits are lost or unknown"


# ----------------------------------------------------------------------------------------------------------- reachability


def test_tokens_that_merges_cannot_reach():
    merges = [(b"a", b"b"), (b"ab", b"c")]
    vocab = vocabulary_of(bytes_and([b"ab", b"abc", b"bc", b"xyz", "é".encode()], merges))
    lost = unreachable(vocab)
    assert {vocab.tokens[i]: reason for i, reason in lost.items()} == dict.fromkeys([b"bc", b"xyz", "é".encode()], "model")


def test_tokens_that_the_pre_tokeniser_or_the_normaliser_keeps_from_appearing():
    merges = [(b"1", b"2"), (b"a", b"A"), (b"a", b"b")]
    made = bytes_and([b"12", b"aA", b"ab"], merges, r"\d")
    assert {vocabulary_of(made).tokens[i]: r for i, r in unreachable(vocabulary_of(made)).items()} == {b"12": "pre-tokeniser"}
    made.normalizer = normalizers.Lowercase()
    vocab = vocabulary_of(made)
    found = {vocab.tokens[i]: reason for i, reason in unreachable(vocab).items()}
    upper = {bytes([b]): "normaliser" for b in range(ord("A"), ord("Z") + 1)}
    assert found == {b"12": "pre-tokeniser", b"aA": "normaliser"} | upper


@pytest.mark.parametrize("name", ["gpt2", "mistral-v1", "wordpiece-16k-multi", "superword-bpe-16k-en", "bbpe-16k-ja"])
def test_all_tokens_of_trained_tokenizers_are_reached(name):
    assert not unreachable(shared(name))


def test_pieces_of_punctuation_inside_words_are_never_reached():
    vocab = shared("bert-base-uncased")
    lost = [vocab.tokenizer.id_to_token(i) for i in unreachable(vocab)]
    assert {"##!", "##?", "..."} <= set(lost) and all(
        not token.strip("#").isascii() or not token.strip("#").isalnum() for token in lost
    )


def test_unreachable_tokens_do_not_occur_in_text():
    """Nothing that is called unreachable comes out of a megabyte of real text."""
    vocab = shared("bert-base-uncased")
    lost = unreachable(vocab)
    assert len(lost) > 300
    file = CORPORA / "prose" / "en" / "valid.parquet"
    if not file.is_file():
        pytest.skip(f"{file} is not on this machine")
    text = texts_by_language([file])["en"]
    used = {i for encoding in vocab.tokenizer.encode_batch_fast(text) for i in encoding.ids}
    assert len(used) > 5000 and not used & lost.keys()


# ----------------------------------------------------------------------------------------------------------------- words


def test_normalisers_and_pre_tokenisers_in_words():
    made = bytes_and([], [])
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace("a", "b")])
    vocab = vocabulary_of(made)
    assert normaliser_words(vocab) == ["unifies compatible characters (NFKC)", "lower case", "replaces 'a' by 'b'"]
    assert pre_tokeniser_words(vocab) == ["not at all: tokens may span words"]
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words = pre_tokeniser_words(vocabulary_of(made))
    assert words[0] == "before a space, which belongs to the word after it" and "before 't" in words
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Digits(individual_digits=True)]
    )
    words = pre_tokeniser_words(vocabulary_of(made))
    assert words[0] == "at spaces, which are dropped" and "numbers: 1|2|3|4|5" in words and "inside don't" in words
    bert = normalizers.BertNormalizer()
    made.normalizer = bert
    assert "removes accents" in normaliser_words(vocabulary_of(made))


def test_combining_marks():
    assert splits_marks(vocabulary_of(bytes_and([], [], r"\p{L}+")))
    assert not splits_marks(vocabulary_of(bytes_and([], [], r"[\p{L}\p{M}]+")))


def test_tokens_in_print():
    assert [show(t) for t in (b" a", b"\n\t", b"\xe2\x82", "東\u200b".encode())] == ["␣a", "\\n\\t", "\\xe2\\x82", "東\\u200b"]


def test_what_surrounds_a_text():
    facts = describe(shared("bert-base-uncased"), "x")
    assert (facts["before_text"], facts["after_text"]) == (["[CLS]"], ["[SEP]"])
    assert facts["ids"] == 30522 and facts["special"] == 5 and facts["reserved"] == 994 and "letter case" in facts["losses"]


# ----------------------------------------------------------------------------------------------------------------- texts


def test_languages_of_files(tmp_path):
    (tmp_path / "docs" / "fr").mkdir(parents=True)
    (tmp_path / "docs" / "fr" / "train.txt").write_text("Bonjour")
    (tmp_path / "docs" / "de.md").write_text("Guten Tag")
    (tmp_path / "docs" / "readme.txt").write_text("Hello")
    (tmp_path / "docs" / "pt-BR.jsonl.gz").write_bytes(gzip.compress(b'{"text": "Oi"}\n{"text": null}\n'))
    (tmp_path / "docs" / "mixed.tsv").write_text('text\tlang\nHej "du\tsv\nHei\tfi\n')
    found = texts_by_language([tmp_path / "docs"])
    assert found == {
        "fr": ["Bonjour"],
        "de": ["Guten Tag"],
        "docs": ["Hello"],
        "pt-BR": ["Oi"],
        "sv": ['Hej "du'],
        "fi": ["Hei"],
    }
    assert list(found) == sorted(found)
    assert texts_by_language([tmp_path / "docs" / "readme.txt"]) == {"readme.txt": ["Hello"]}
    assert texts_by_language([tmp_path / "docs" / "de.md"], limit=5) == {"de": ["Guten"]}


PARALLEL = {"de": [("one", "eins"), ("two", "zwei")], "fr": [("one", "un")]}


def test_forms_of_parallel_text(tmp_path):
    (tmp_path / "columns.csv").write_text("\ufeffid,en,de,fr\n1,one,eins,un\n2,two,zwei,\n", encoding="utf-8")
    (tmp_path / "pairs.tsv").write_text("en\txx\tlang\none\teins\tde\none\tun\tfr\ntwo\tzwei\tde\n")
    long = [("1", "en", "one"), ("2", "en", "two"), ("1", "de", "eins"), ("2", "de", "zwei"), ("1", "fr", "un")]
    (tmp_path / "ids.jsonl").write_text("".join(json.dumps(dict(id=i, lang=g, text=t)) + "\n" for i, g, t in long))
    rows = [dict(book="b", verse=int(i), source=f"{g}-bible", lang=g, text=t) for i, g, t in long]
    (tmp_path / "verses.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("columns.csv", "pairs.tsv", "ids.jsonl", "verses.jsonl"):
        assert parallel_texts([tmp_path / name]) == ("en", PARALLEL), name
    turned = parallel_texts([tmp_path / "ids.jsonl"], "de")
    assert turned == ("de", {"en": [("eins", "one"), ("zwei", "two")], "fr": [("eins", "un")]})
    (tmp_path / "other.csv").write_text("de,fr\neins,un\nzwei,\n")
    assert parallel_texts([tmp_path / "other.csv"]) == ("de", {"fr": [("eins", "un")]})
    assert parallel_texts([tmp_path], "en")[0] == "en"


@pytest.mark.parametrize(
    "name, data, message",
    [
        ("a.txt", b"fine\n\xff", "a.txt: not UTF-8 at byte 5"),
        ("a.jsonl", b'{"text": "a"}\n[1]\n', "a.jsonl, line 2: expected a JSON object"),
        ("a.jsonl", b"{", "a.jsonl, line 1: not JSON"),
        ("a.parquet", b"PAR1", "a.parquet: not a readable parquet file"),
        ("a.csv", b"body\nx\n", "a.csv: no column 'text'; columns: body"),
        ("a.pdf", b"%PDF", "a.pdf: unknown kind of file"),
        ("a.txt", b" \n", "no text in"),
    ],
)
def test_texts_that_cannot_be_read(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(TextError, match=message):
        texts_by_language([tmp_path / name])


@pytest.mark.parametrize(
    "content, reference, message",
    [
        ("text,lang\na,de\n", None, "no column that says which texts belong together"),
        ("title,en\na,b\n", None, "not a table of parallel text"),
        ("de,fr\neins,un\n", "en", "no text in the reference language 'en' .* there are de, fr"),
        ("de,fr\neins,\n,un\n", None, "nothing in .* is in 'de' and in another language"),
    ],
)
def test_tables_that_are_not_parallel(tmp_path, content, reference, message):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(TextError, match=message):
        parallel_texts([tmp_path / "a.csv"], reference)


# ---------------------------------------------------------------------------------------------------------------- report


def folder_of(vocab, folder: Path) -> str:
    save_tokenizer(vocab.tokenizer, folder)
    return str(folder)


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
    assert words in " ".join(tables(report).split()) and words.replace("'", "&#x27;") in page(report)


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


def topics(report):
    return [warning["topic"] for warning in report["warnings"]]


def test_warnings(tmp_path):
    plain, grouped = bytes_and([], []), bytes_and([a + b for a, b in ONES], ONES, r"\d{1,2}")
    assert topics(inspect(vocabulary_of(plain), vocabulary_of(grouped), max_pieces=2)) == ["digits"]
    assert topics(inspect(vocabulary_of(plain), vocabulary_of(grouped), max_pieces=1)) == ["digits", "long tokens"]
    plain.normalizer = normalizers.Lowercase()
    found = inspect(vocabulary_of(bytes_and([], [])), vocabulary_of(plain))
    assert topics(found) == ["losses", "unreachable tokens"] and "letter case" in found["warnings"][0]["what"]
    assert topics(inspect(vocabulary_of(plain), vocabulary_of(bytes_and([], [])))) == ["unreachable tokens"]
    base, chat = bpe(["<s>", "<think>"], declared=dict(bos="<s>")), bpe(["<s>", "<image>"], declared=dict(bos="<s>"))
    found = inspect(base, chat)
    assert [w["what"] for w in found["warnings"] if w["topic"] == "special tokens"] == [
        "Of the tokenizer's, <image> has no counterpart in the base model.",
        "Of the base model's, <think> has no counterpart in the tokenizer.",
    ]
    framed = bpe(["<s>"], declared=dict(bos="<s>"))
    framed.tokenizer.post_processor = tokenizers.processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 256)])
    assert topics(inspect(framed, bpe(["<s>"], declared=dict(bos="<s>")))) == ["beginning of text", "combining marks"]


def test_hindi_and_premium_warnings(tmp_path):
    (tmp_path / "p.csv").write_text("en,de\nab,abababababab\n")
    short = vocabulary_of(bytes_and([b"ab", b"abab"], [(b"a", b"b"), (b"ab", b"ab")]))
    long = vocabulary_of(bytes_and([b"ab"], [(b"a", b"b")], r"\p{L}+"))
    found = inspect(short, long, parallel=[tmp_path / "p.csv"])
    assert topics(found) == ["combining marks", "token premium"] and "de (3.0 to 6.0)" in found["warnings"][-1]["what"]


# --------------------------------------------------------------------------------------------------------------- outputs


class Checker(HTMLParser):
    """Collects what a page loads or runs."""

    def __init__(self):
        super().__init__()
        self.tags, self.loads = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.loads += [value for name, value in attributes if name in ("src", "href", "srcset") or name.startswith("on")]


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspect")
    (folder / "<b>").mkdir()
    (folder / "<b>" / "x.txt").write_text("abc <script>alert(1)</script>")
    (folder / "p.csv").write_text("en,de,fr\nab,abcdx,<i>\n")
    nasty = bpe(["<s>", "<script>alert(1)</script>", '"><img src=x>'], declared=dict(bos="<s>"))
    source = vocabulary("bpe")
    return inspect(source, nasty, text=[folder / "<b>"], parallel=[folder / "p.csv"]) | {"folder": folder}


def test_the_page_is_self_contained_and_escaped(everything):
    html = page(everything)
    checker = Checker()
    checker.feed(html)
    assert checker.loads == [] and not {"script", "img", "link", "iframe", "i"} & set(checker.tags)
    assert "&lt;script&gt;" in html and "prefers-color-scheme: dark" in html and "http" not in html
    plots = html.split("<svg")[1:]
    assert len(plots) == 8  # each for wide screens and for phones
    for plot in plots:
        ElementTree.fromstring("<svg" + plot.split("</svg>")[0] + "</svg>")  # well-formed
    assert checker.tags.count("title") - 1 == sum(plot.count("<title>") for plot in plots) > 30


def test_plots_for_phones_are_legible(everything):
    """Drawn about as wide as a phone is, so that text keeps its size; it is cut nowhere and touches no other text."""
    html = page(everything)
    assert "initial-scale=1" in html and "@media (max-width: 40rem)" in html
    narrow = html.split('<div class="narrow"><svg')[1:]
    assert len(narrow) == 4
    for plot in narrow:
        svg = ElementTree.fromstring("<svg" + plot.split("</svg>")[0] + "</svg>")
        across, height = map(float, svg.get("viewBox").split()[2:])
        assert across < 400
        rows: dict[float, list[tuple[float, float]]] = {}
        for text in svg.iter("text"):
            x, y, size = float(text.get("x")), float(text.get("y")), 6.5 * len(text.text)
            begin = x - size * {"middle": 0.5, "end": 1}[text.get("text-anchor")]
            assert begin > -1 and begin + size < across + 1 and 8 < y < height
            rows.setdefault(y, []).append((begin, begin + size))
        for row in rows.values():
            assert all(a[1] < b[0] for a, b in itertools.pairwise(sorted(row)))


def test_the_tables(everything):
    text = tables(everything)
    assert max(map(len, text.split("\n"))) <= WIDTH
    for word in ("2 more are reserved", "paired", "premium", "tok/B", "What to know", "single digits"):
        assert word in text
    assert columns(("a", "b"), [("東", "1"), ("xyz", "22")], right=[1]) == "a     b\n───────\n東    1\nxyz  22"


def test_command(tmp_path, capsys):
    target = folder_of(vocabulary("unigram"), tmp_path / "unigram")
    html, made = tmp_path / "a.html", tmp_path / "a.json"
    arguments = ["inspect", "--source", "pico", "--target", target]
    code, out, _ = run(cli.main, *arguments, "--html", str(html), "--json", str(made), "--hypernet", "pico", capsys=capsys)
    assert code == 0 and "Target tokens in source pieces" in out
    report = json.loads(made.read_text())
    assert report["pair"]["max_pieces"] == 8 and html.read_text().startswith("<!doctype html>")
    code, out, _ = run(cli.main, *arguments, "--json", "-", "--max-pieces", "3", capsys=capsys)
    assert code == 0 and json.loads(out)["pair"]["max_pieces"] == 3
    # What it wrote itself it may write again.
    code, _, error = run(cli.main, *arguments, "--html", str(html), "--json", str(made), capsys=capsys)
    assert (code, error) == (0, "") and json.loads(made.read_text())["pair"]["max_pieces"] != 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "a.json", "unigram"]


def test_files_that_inspect_did_not_write_stay(tmp_path, capsys):
    target = folder_of(vocabulary("unigram"), tmp_path / "unigram")
    for name in ("thesis.html", "data.json", "text.txt"):
        (tmp_path / name).write_text("<!doctype html> {} mine")
    (tmp_path / "text.html").write_text('<meta name="generator" content="zett inspect">')
    arguments = ["inspect", "--source", "pico", "--target", str(target), "--text", str(tmp_path / "text.txt")]
    thesis, data = str(tmp_path / "thesis.html"), str(tmp_path / "data.json")
    inside = str(tmp_path / "unigram" / "tokenizer.json")
    for extra, message in [
        (["--html", thesis], "thesis.html is there, and zett inspect did not write it; give another file, or --overwrite"),
        (["--json", data], "data.json is there, and zett inspect did not write it"),
        (["--json", str(tmp_path / "text.html")], "text.html is there, and zett inspect did not write it"),
        (["--json", inside, "--overwrite"], "lies in"),
        (["--json", str(tmp_path / "text.txt"), "--overwrite"], "text.txt, which is read from"),
        (["--html", ""], "--html is ''"),
        (["--json", " "], "--json is ' '"),
        (["--html", str(tmp_path)], "is a folder"),
        (["--html", str(tmp_path / "new"), "--json", str(tmp_path / "new")], "--json and --html are both"),
    ]:
        code, _, error = run(cli.main, *arguments, *extra, capsys=capsys)
        assert code == 2 and message in error and error.count("\n") == 1, (extra, error)
    assert all((tmp_path / name).read_text() == "<!doctype html> {} mine" for name in ("thesis.html", "data.json", "text.txt"))
    code, _, error = run(cli.main, *arguments, "--html", thesis, "--json", data, "--overwrite", capsys=capsys)
    assert (code, error) == (0, "") and "zett inspect" in Path(thesis).read_text()


def test_mistakes_at_the_command_line(tmp_path, capsys):
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    for extra, message in [
        (["--text", str(tmp_path / "latin.txt")], "latin.txt: not UTF-8 at byte 3"),
        (["--text", str(tmp_path / "absent")], "no such file or folder"),
        (["--hypernet", str(tmp_path)], "no hypernetwork there"),
        (["--hypernet", "pico", "--max-pieces", "3"], "both say S"),
        (["--max-pieces", "0"], "--max-pieces is 0"),
        (["--html", str(tmp_path / "absent" / "a.html")], "cannot write"),
    ]:
        code, _, error = run(cli.main, "inspect", "--model", "pico", "--tokenizer", "pico", *extra, capsys=capsys)
        *before, mistake = error.splitlines()
        assert code == 2 and message in mistake and not any("error" in line for line in before)
    with pytest.raises(UserError, match="no such tokenizer folder"):
        inspect("pico", tmp_path / "absent")


def test_it_needs_neither_jax_nor_transformers(tmp_path):
    code = (
        "import sys; from zett.inspect import inspect; inspect('pico', 'pico', text=['README.md'])\n"
        "print({'jax', 'flax', 'transformers', 'torch', 'matplotlib', 'datasets'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.stdout == "set()\n", done.stderr
