"""Tokenizers that would take all memory or all time: each is refused by name, in transfer and in inspect."""

import json
import subprocess
import time

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from vocabularies import byte_tokenizer

from zett.cli import main
from zett.errors import UserError
from zett.vocab import load_tokenizer, patterns
from zett.vocab.bytes import SPARE_IDS
from zett.vocab.load import vocabulary_of

BYTES = [bytes([b]) for b in range(256)]
CATASTROPHES = [
    r"(a+)+$",
    r"(a|a)*b",
    r"(\w+\s?)+!",
    r"(x+x+)+y",
    r"(foo|fo|o)+z",
    r"([a-zA-Z]+)*[0-9]",
    r"^(([a-z])+.)+[A-Z]([a-z])+$",
    r"(.*)*\1x",
]
# As tokenizers in use have them: GPT-2's, Llama 3's, o200k's, BLOOM's, DeepSeek's.
SOUND = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}|\s+",
    r" ?[^(\s|[.,!?…。，、।۔،])]+",
    r"\p{N}{1,3}(?=(?:\p{N}{3})*\b)",
    "[一-龥぀-ゟ゠-ヿ]+",
]


def made(pattern: str, part: str = "pre_tokenizer") -> Tokenizer:
    tokenizer = byte_tokenizer(BYTES)
    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    if part == "normalizer":
        tokenizer.normalizer = normalizers.Replace(Regex(pattern), "x")
        tokenizer.pre_tokenizer = bytewise
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), bytewise])
    return tokenizer


@pytest.mark.parametrize("pattern", CATASTROPHES)
def test_the_library_panics_on_what_is_refused(pattern):
    """Else the test of a pattern would say nothing about texts."""
    text = patterns.slow_text(pattern)
    assert text is not None
    with pytest.raises(BaseException, match="retry-limit-in-match") as panic:
        made(pattern).encode(text)
    assert not isinstance(panic.value, Exception)


@pytest.mark.parametrize("pattern", SOUND)
def test_patterns_in_use_are_sound(pattern):
    assert patterns.slow_text(pattern) is None


@pytest.mark.parametrize("part", ["pre_tokenizer", "normalizer"])
def test_catastrophic_patterns_are_refused_by_name(part, tmp_path, capsys):
    target = tmp_path / "target"
    target.mkdir()
    made(CATASTROPHES[0], part).save(str(target / "tokenizer.json"))
    commands = [
        ["transfer", "--model", "pico", "--tokenizer", target, "--output", tmp_path / "out", "--method", "fvt"],
        ["inspect", "--model", "pico", "--tokenizer", target],
    ]
    for command in commands:
        with pytest.raises(SystemExit) as exit:
            main([str(word) for word in command])
        error = capsys.readouterr().err.splitlines()[-1]
        assert exit.value.code == 2
        assert error.startswith(f"zett: error: {target / 'tokenizer.json'}: the pattern '(a+)+$' of its ")
        assert "takes far too long on texts such as 'aaaa" in error
    assert not (tmp_path / "out").exists()


def test_one_that_never_ends_is_stopped(monkeypatch):
    """A matcher without a limit of its own."""
    endless = "import sys\nprint(0, flush=True)\nwhile True: pass"
    monkeypatch.setattr(patterns, "_TRY", endless)
    monkeypatch.setattr(patterns, "WALL_SECONDS", 2)
    assert patterns.slow_text("[a-c]never+") == next(patterns.texts_for("[a-c]never+"))


def test_the_budget_is_of_processor_time():
    """However long a busy machine takes; what is tried stays far within it."""
    endless = patterns._TRY.replace('print("done")', "while True: pass").replace(
        f"({patterns.CPU_SECONDS}, {patterns.CPU_SECONDS})", "(1, 1)"
    )
    done = subprocess.run(
        [patterns.sys.executable, "-c", endless], input=json.dumps(["a", ["a"]]), capture_output=True, text=True, timeout=60
    )
    assert done.returncode < 0 and "done" not in done.stdout


def test_a_text_that_slips_through_is_an_error_of_one_line(monkeypatch, capsys):
    text = patterns.slow_text(CATASTROPHES[0])
    monkeypatch.setattr("zett.commands.inspect.run", lambda args: made(CATASTROPHES[0]).encode(text))
    with pytest.raises(SystemExit) as exit:
        main(["inspect"])
    assert exit.value.code == 2
    assert "zett: error: a tokenizer cannot cope with a text: " in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------- sparse ids


def sparse(ids: list[int]) -> Tokenizer:
    return Tokenizer(models.WordLevel({f"w{i}": i for i in ids}, unk_token="w0"))


def test_an_id_far_beyond_the_tokens_is_refused_at_once(tmp_path):
    sparse([*range(8000), 3_000_000]).save(str(tmp_path / "tokenizer.json"))
    clock = time.perf_counter()
    with pytest.raises(UserError, match=r"'w3000000' has the id 3000000, but there are only 8001 tokens; .* at most 4 ids for"):
        load_tokenizer(tmp_path)
    assert time.perf_counter() - clock < 5


@pytest.mark.parametrize(
    ("ids", "allowed"),
    [
        ([*range(2000), 7999], True),
        ([*range(2000), 8004], False),
        ([0, SPARE_IDS - 1], True),
        ([0, SPARE_IDS], False),
    ],
)
def test_some_gaps_are_fine(ids, allowed):
    if allowed:
        assert len(vocabulary_of(sparse(ids))) == max(ids) + 1
    else:
        with pytest.raises(UserError, match="a model has a row for every id"):
            vocabulary_of(sparse(ids))
