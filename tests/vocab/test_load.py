"""Tokenizers are loaded from files of all forms, and what cannot be read is refused by name."""

import json
import sys

import pytest
import tokenizers
import transformers
from vocab.written import characters
from vocabularies import ODD, TEXTS, vocabulary

from zett.errors import UserError
from zett.vocab import load_tokenizer
from zett.vocab.load import MAX_FILE_BYTES
from zett.vocab.train import KINDS, save_tokenizer


@pytest.mark.parametrize(
    "content, message",
    [
        (characters({}), "the vocabulary is empty"),
        (characters({}, {"<s>": 0}), "the vocabulary is empty"),
        (characters({"a": 0, "b": 1, "c": 1}), "two tokens have the id 1: 'b' and 'c'"),
        # The library numbers an added token by the number of tokens, which here has been given away.
        (characters({"a": 0, "b": 2}, {"<s>": 3}), "two tokens have the id 2: '<s>' and 'b'"),
        (characters({"a": 0, "b": 2**32 - 1}), "token 'b' has the id 4294967295; ids up to 16777215 are supported"),
    ],
)
def test_what_cannot_be_read_is_named(content, message, tmp_path):
    (tmp_path / "tokenizer.json").write_text(content)
    for path in (tmp_path, tmp_path / "tokenizer.json", str(tmp_path)):
        with pytest.raises(UserError) as raised:
            load_tokenizer(path)
        assert str(tmp_path / "tokenizer.json") in str(raised.value) and message in str(raised.value)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": {}}', '{"version": "1.0", "model": {"type": "BPE"}}', "\udcff"])
def test_a_corrupt_file_is_named(content, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=r"tokenizer\.json is not a tokenizer: ."):
        load_tokenizer(tmp_path)


def test_a_part_that_makes_the_library_panic_is_named(tmp_path):
    spec = json.loads(characters({"a": 0})) | {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(UserError, match=r"tokenizer\.json is not a tokenizer: .*charsmap"):
        load_tokenizer(tmp_path)


def test_a_file_of_any_size_is_named(tmp_path):
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 2**20)  # a hole, which takes no room on the disk
    with pytest.raises(UserError, match=r"tokenizer\.json has 257 MiB; tokenizers of up to 256 MiB are read"):
        load_tokenizer(tmp_path)


def test_a_million_tokens(tmp_path):
    """Ids in the order of the file backwards, as no order is promised."""
    size = 1_000_000
    vocab = {f"x{i:x}": size - 1 - i for i in range(size)}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    spec = json.loads(characters({"a": 0}))
    spec |= {"pre_tokenizer": byte_level, "model": spec["model"] | {"vocab": vocab}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    vocab = load_tokenizer(tmp_path)
    assert len(vocab) == size and vocab.tokens[0] == b"xf423f" and vocab.tokens[-1] == b"x0"
    assert vocab.id_of[b"x7f"] == size - 1 - 0x7F and "characters outside the vocabulary" in vocab.losses


def test_a_missing_or_wrong_path_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("no tokenizer")
    for path, message in [
        (tmp_path, "holds no tokenizer"),
        (tmp_path / "nowhere", "there is no folder .*nowhere with a tokenizer"),
        ("./nowhere", "there is no folder nowhere with a tokenizer"),
        (tmp_path / "notes.txt", "notes.txt is not a tokenizer"),
    ]:
        with pytest.raises(UserError, match=message):
            load_tokenizer(path)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_corrupt_roles_are_named(content, tmp_path):
    save_tokenizer(vocabulary("bpe").tokenizer, tmp_path)
    (tmp_path / "special_tokens_map.json").write_text(content)
    with pytest.raises(UserError, match=r"special_tokens_map\.json is not"):
        load_tokenizer(tmp_path)


def test_settings_of_a_training_are_off(tmp_path):
    """Truncation, padding and BPE dropout would make a part of the text, more than the text, or something else each time."""
    tokenizer = vocabulary("bpe").tokenizer
    spec = json.loads(tokenizer.to_str())
    spec["model"]["dropout"] = 0.5
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(spec))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=100)
    save_tokenizer(tokenizer, tmp_path)
    expected = vocabulary("bpe").tokenizer.encode("def f(x): return self.value").ids
    loaded = load_tokenizer(tmp_path).tokenizer
    assert all(loaded.encode("def f(x): return self.value").ids == expected for _ in range(5))


# ------------------------------------------------------------------------------------------------------- slow tokenizers


def slow(folder, config: dict | None, **files: str):
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_slow_tokenizers_are_converted(tmp_path):
    fast = vocabulary("like gpt2")
    model = json.loads(fast.tokenizer.to_str())["model"]
    merges = "\n".join(["#version: 0.2", *map(" ".join, model["merges"])])
    files = dict(vocab__json=json.dumps(model["vocab"]), merges__txt=merges)
    read = load_tokenizer(slow(tmp_path / "gpt2", {"tokenizer_class": "GPT2Tokenizer"}, **files))
    assert read.tokens[2 : len(fast)] == fast.tokens[2:] and read.kind == fast.kind  # "<|pad|>" is special in one of them
    assert read.roles["eos"] == read.special["<|endoftext|>"]
    with pytest.raises(UserError, match="nothing that says which class of tokenizer"):
        load_tokenizer(slow(tmp_path / "bare", None, **files))

    fast = vocabulary("wordpiece, uncased")
    vocab = fast.tokenizer.get_vocab(with_added_tokens=False)
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    read = load_tokenizer(slow(tmp_path / "bert", config, vocab__txt="\n".join(sorted(vocab, key=vocab.get))))
    assert read.kind == "WordPiece" and "letter case" in read.losses
    assert all(read.tokens[i] == fast.tokens[i] for token, i in vocab.items() if token not in fast.special)


def test_byt5(tmp_path):
    read = load_tokenizer(slow(tmp_path, {"tokenizer_class": "ByT5Tokenizer"}))
    assert read.roles == {"pad": 0, "eos": 1, "unk": 2} and read.losses == () and len(read) == 3 + 256 + 125
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in [*ODD, "a</s>b", "<extra_id_3> x"]:
        ids = read.tokenizer.encode(text, add_special_tokens=False).ids
        assert ids == reference.encode(text, add_special_tokens=False)
        assert b"".join(read.tokens[i] for i in ids) == read.normalise(text)


def test_what_cannot_be_converted_is_named(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="Transformers has no fast form of CanineTokenizer"):
        load_tokenizer(slow(tmp_path / "canine", {"tokenizer_class": "CanineTokenizer"}))
    # Nobody is asked whether code may be run, and none is.
    config = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    with pytest.raises(UserError, match="custom code"):
        load_tokenizer(slow(tmp_path / "remote", config, own__py="raise SystemExit"))
    llama = slow(tmp_path / "llama", {"tokenizer_class": "LlamaTokenizer"}, tokenizer__model="no model")
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(UserError, match=r"reading tokenizer\.model takes a package: pip install sentencepiece"):
        load_tokenizer(llama)


def test_sentencepiece_models_are_converted(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    (tmp_path / "text").write_text("\n".join(TEXTS))
    for cls, kind, file in (("LlamaTokenizer", "bpe", "tokenizer.model"), ("T5Tokenizer", "unigram", "spiece.model")):
        options = dict(
            input=str(tmp_path / "text"), model_type=kind, vocab_size=1000, byte_fallback=kind == "bpe", minloglevel=2
        )
        folder = slow(tmp_path / cls, {"tokenizer_class": cls})
        sentencepiece.SentencePieceTrainer.train(model_prefix=str(folder / "x"), **options)
        (folder / "x.model").rename(folder / file)
        reference = sentencepiece.SentencePieceProcessor(model_file=str(folder / file))
        vocab = load_tokenizer(folder)
        for text in ("The house is big", "return self.x", "naïve"):
            assert vocab.tokenizer.encode(text, add_special_tokens=False).ids == reference.encode(text)
            ids = vocab.tokenizer.encode(text, add_special_tokens=False).ids
            assert b"".join(vocab.tokens[i] for i in ids) == vocab.normalise(text) == b" " + text.encode()


def test_saved_and_loaded(tmp_path):
    for kind in KINDS:
        save_tokenizer(vocabulary(kind).tokenizer, tmp_path / kind)
        loaded, made = load_tokenizer(tmp_path / kind), vocabulary(kind)
        assert (loaded.tokens, loaded.special, loaded.roles, loaded.kind) == (made.tokens, made.special, made.roles, made.kind)
        assert loaded.folder == tmp_path / kind
