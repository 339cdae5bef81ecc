"""What zett writes, in llama.cpp: its own converter takes it, and computes what Transformers computes.

Skipped unless LLAMA_CPP names a folder with the converter and xllamacpp is installed; see tests/llama_runner.py.
"""

import json
from pathlib import Path

import pytest
from llama_runner import Runner, converter, to_gguf
from surgery.shapes import LINES, model_folder, random_texts, tokenizer

import zett
from zett.gguf.llama_cpp import merge_scores
from zett.gguf.pretokenisers import PRE_TOKENISERS, as_json, name_of

TEXT = "\n".join(LINES)


def make(kind: str, command: str, folder: Path) -> Path:
    """A Llama with its own, SentencePiece's kind of tokenizer, or GPT-2's, and what else the command does to it."""
    text, other = folder / "text.txt", model_folder(folder / "other", "gpt2")
    text.write_text(TEXT)
    base = model_folder(folder / "base", "llama")
    if kind == "gpt2":
        like = {"like": other} if command == "draft" else {}
        base = zett.transfer(base, other, folder / "transferred", method="fvt", **like)
    if command == "trim":
        return zett.trim(base, folder / "out", text=str(text), vocab_size=420)
    return zett.add_tokens(base, folder / "out", from_text=str(text), n=30, method="fvt") if command == "add" else base


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "command"),
    [("gpt2", "transfer"), ("gpt2", "trim"), ("gpt2", "add"), ("gpt2", "draft"), ("llama", "as it is"), ("llama", "trim"),
     ("llama", "add")],
)  # fmt: skip
def test_tokens_and_greedy_text_are_those_of_transformers(kind, command, tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("xllamacpp")
    if converter() is None:
        pytest.skip("LLAMA_CPP names no folder with convert_hf_to_gguf.py")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = make(kind, command, tmp_path)
    to_gguf(folder, tmp_path / "out.gguf")
    runner, tokenizer = Runner(tmp_path / "out.gguf"), AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for line in [*LINES, *random_texts(60)]:
        assert runner.tokens(line) == tokenizer(line)["input_ids"], line
    for line in LINES[:5]:
        ids = tokenizer(line[:30])["input_ids"]
        for token in runner.greedy(ids, 12):  # the best by Transformers, too, or as good to rounding
            with torch.no_grad():
                logits = model(torch.tensor([ids])).logits[0, -1]
            assert logits[token] > logits.max() - 1e-3
            ids.append(token)


@pytest.mark.parametrize("name", ["gpt-2", "smollm", "llama-bpe", "qwen2", "tekken", "default"])
def test_names_of_pre_tokenizers(name):
    known = PRE_TOKENISERS[name]
    spec = {"model": {"type": "BPE", "ignore_merges": known.ignore_merges}, "pre_tokenizer": as_json(known)}
    assert PRE_TOKENISERS[name_of(spec)].steps == known.steps
    assert name_of({**spec, "model": {"type": "Unigram"}}) is None and name_of({**spec, "pre_tokenizer": None}) is None
    assert name_of({**spec, "pre_tokenizer": {"type": "Whitespace"}}) is None


def test_the_name_of_a_tokenizer_of_the_library():
    assert name_of(json.loads(tokenizer("gpt2").to_str())) == "gpt-2"


def test_scores_follow_merges():
    spec = {"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "aba": 3}, "merges": ["a b", ["ab", "a"]]}}
    assert merge_scores(spec) == {2: -1.0, 3: -2.0} and merge_scores({"model": {"type": "Unigram"}}) == {}
