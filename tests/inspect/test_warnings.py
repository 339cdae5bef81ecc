"""What a user is told of a transfer: the same list in `zett inspect`, `zett transfer` and the card, the gravest first."""

import json
import logging

import pytest
import tiny
import tokenizers
from special_tokens import bpe
from tokenizers import normalizers
from vocabularies import DIGIT_MERGES, SHARED, bytes_and

from zett.cards import warnings_section
from zett.inspect.compare import inspect
from zett.inspect.terminal import tables
from zett.inspect.warnings import SEVERITIES, warnings_of
from zett.transfer import transfer
from zett.vocab import load_tokenizer
from zett.vocab.load import vocabulary_of
from zett.vocab.pairing import pairing


def found(source, target):
    """Severity and topic of each."""
    return [(w["severity"], w["topic"]) for w in warnings_of(source, target, pairing(target, source))]


def said(source, target, topic):
    return " ".join(w["what"] for w in warnings_of(source, target, pairing(target, source)) if w["topic"] == topic)


def framed(vocab, template):
    """The same tokenizer with something around a text."""
    names = [part for part in template.split() if part != "$A"]
    pieces = [(name, vocab.tokenizer.token_to_id(name)) for name in names]
    vocab.tokenizer.post_processor = tokenizers.processors.TemplateProcessing(template, special_tokens=pieces)
    return vocab


def model_folder(folder, tokenizer_folder=None, **config):
    """A base model's folder as far as its tokenizer and settings go."""
    vocab = bpe(["<s>", "</s>"], declared=dict(bos="<s>", eos="</s>"), folder=folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"], **config}))
    return load_tokenizer(vocab.folder)


def test_prompts_that_end_with_a_separator():
    source = bpe(["<s>", "</s>"], declared=dict(bos="<s>", eos="</s>"))
    target = framed(bpe(["[CLS]", "[SEP]"], declared=dict(cls="[CLS]", sep="[SEP]")), "[CLS] $A [SEP]")
    assert ("high", "end of prompts") in found(source, target) and "[SEP]" in said(source, target, "end of prompts")
    # An encoder's texts end so.
    encoder = bpe(["<s>", "</s>", "<mask>"], declared=dict(cls="<s>", sep="</s>", mask="<mask>"))
    assert "end of prompts" not in dict(map(reversed, found(encoder, target)))
    # So do the prompts of a base model that puts its own end there.
    assert "end of prompts" not in dict(map(reversed, found(framed(source, "<s> $A </s>"), target)))


def test_no_token_that_ends_a_text():
    source = bpe(["<s>", "</s>"], declared=dict(bos="<s>", eos="</s>"))
    assert found(source, bpe([]))[0] == ("high", "no end")
    assert "no end" not in dict(map(reversed, found(source, bpe(["[SEP]"], declared=dict(sep="[SEP]")))))
    chat = bpe(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], declared=dict(bos="<|im_start|>", eos="<|im_end|>"))
    gpt2 = bpe(["<|endoftext|>"], declared=dict(bos="<|endoftext|>", eos="<|endoftext|>"))
    assert ("high", "another end") in found(chat, gpt2)
    assert "<|im_end|>" in said(chat, gpt2, "another end") and "<|endoftext|>" in said(chat, gpt2, "another end")


def test_losses_by_what_is_lost():
    source = bpe([])
    for normaliser, severity in [(normalizers.Lowercase(), "high"), (normalizers.NFC(), "medium")]:
        target = bpe([])
        target.tokenizer.normalizer = normaliser
        assert (severity, "losses") in found(source, vocabulary_of(target.tokenizer))
    squeezed = bpe([])
    squeezed.tokenizer.normalizer = normalizers.Replace(tokenizers.Regex(" +"), " ")
    assert ("high", "losses") in found(source, vocabulary_of(squeezed.tokenizer))


@pytest.mark.parametrize(
    "config, warned",
    [
        (dict(model_input_names=["input_ids", "token_type_ids", "attention_mask"]), True),
        (dict(model_input_names=["input_ids", "attention_mask"]), False),
        (dict(tokenizer_class="BertTokenizer"), True),
        (dict(tokenizer_class="LlamaTokenizer"), False),
        ({}, False),
    ],
)
def test_token_type_ids(config, warned, tmp_path):
    source = model_folder(tmp_path / "base")
    target = bpe(["</s>"], declared=dict(eos="</s>"), folder=tmp_path / "target")
    (tmp_path / "target" / "tokenizer_config.json").write_text(json.dumps(config))
    assert (("high", "token_type_ids") in found(source, target)) == warned
    if warned:
        assert "refuses" in said(source, target, "token_type_ids")
        assert "row of token 0" in said(model_folder(tmp_path / "gpt2", model_type="gpt2"), target, "token_type_ids")
    bert = model_folder(tmp_path / "bert", type_vocab_size=2)
    assert ("high", "token_type_ids") not in found(bert, target)


def test_settings_that_are_left_out(tmp_path):
    source = model_folder(tmp_path / "base")
    assert "settings" not in dict(map(reversed, found(source, source)))
    settings = dict(suppress_tokens=[1], bad_words_ids=[[2]], forced_decoder_ids=None)
    (tmp_path / "base" / "generation_config.json").write_text(json.dumps(settings))
    assert said(source, source, "settings").count("bad_words_ids and suppress_tokens") == 1


@pytest.mark.parametrize(
    "kind, version, warned", [("mistral", "4.45.0", True), ("mistral", "5.1.0", False), ("llama", None, False)]
)
def test_a_folder_that_transformers_suspects(kind, version, warned, tmp_path, caplog, monkeypatch):
    """Transformers says so of the same folders, and of no tokenizer by itself."""
    import transformers

    source = model_folder(tmp_path / "base", model_type=kind, **({"transformers_version": version} if version else {}))
    large = tokenizers.Tokenizer.from_str(source.tokenizer.to_str())
    large.add_tokens([f"token-{i}" for i in range(100_001)])
    large.save(str(tmp_path / "base" / "tokenizer.json"))
    target = load_tokenizer(tmp_path / "base")
    assert ("transformers_version" in dict(map(reversed, found(source, target)))) == warned
    monkeypatch.setattr(transformers.logging.get_logger("transformers"), "propagate", True)
    monkeypatch.setattr(transformers.logging.get_logger("transformers"), "level", logging.WARNING)
    transformers.AutoTokenizer.from_pretrained(tmp_path / "base")
    assert any("incorrect regex pattern" in record.message for record in caplog.records) == warned


def test_templates_name_tokens_that_cannot_be_used(tmp_path):
    source = bpe(["<s>"], declared=dict(bos="<s>"))
    target = bpe(["<s>", "<image>"], folder=tmp_path / "t", declared=dict(bos="<s>"))
    assert "chat template" not in dict(map(reversed, found(source, target)))
    (tmp_path / "t" / "chat_template.jinja").write_text("<|im_start|><image>")
    text = said(source, target, "chat template")
    assert "writes <|im_start|>," in text and "uses <image>," in text


def test_the_same_list_everywhere(tmp_path, caplog, capsys):
    base = tiny.base_folder(tmp_path / "base")
    framed(bpe(["[CLS]", "[SEP]"]), "[CLS] $A [SEP]").tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "target").mkdir()
    (tmp_path / "tokenizer.json").rename(tmp_path / "target" / "tokenizer.json")
    report = inspect(base, tmp_path / "target")
    levels = [SEVERITIES.index(w["severity"]) for w in report["warnings"]]
    assert levels == sorted(levels) and levels[0] == 0 and "Grave:" in tables(report)
    source, target = load_tokenizer(base), load_tokenizer(tmp_path / "target")
    known = warnings_of(source, target, pairing(target, source))
    assert [w for w in report["warnings"] if w in known] == known
    output = transfer(base, tmp_path / "target", tmp_path / "out", method="mean")
    assert warnings_section(known) in (output / "README.md").read_text()
    lines = [record.message for record in caplog.records]
    for warning in known:
        assert any(warning["what"] in line for line in lines) == (warning["severity"] != "low")
    assert "end of prompts" in lines[0] and "grave" in lines[0]


def test_generate_takes_what_an_adapted_tokenizer_makes(tmp_path):
    """As it does not where BERT's tokenizer is written as it is, which is warned of."""
    torch = pytest.importorskip("torch")
    if not (SHARED / "wordpiece-16k-multi").is_dir():
        pytest.skip(f"{SHARED / 'wordpiece-16k-multi'} is not on this machine")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = tiny.base_folder(tmp_path / "base")
    for mode in ("keep-target", "map-to-source", "add-missing"):
        output = transfer(base, SHARED / "wordpiece-16k-multi", tmp_path / mode, method="mean", special=mode)
        card = (output / "README.md").read_text()
        inputs = AutoTokenizer.from_pretrained(output)("a", return_tensors="pt")
        model = AutoModelForCausalLM.from_pretrained(output)
        if mode == "keep-target":
            assert "token_type_ids" in card
            with pytest.raises(ValueError, match="token_type_ids"):
                model.generate(**inputs, max_new_tokens=1)
        else:
            assert "token_type_ids" not in card
            with torch.no_grad():
                assert model.generate(**inputs, max_new_tokens=1).shape[1] == inputs["input_ids"].shape[1] + 1


# --------------------------------------------------------------------------------------------------------- in the report


def topics(report):
    return [warning["topic"] for warning in report["warnings"]]


def test_warnings(tmp_path):
    plain, grouped = bytes_and([], []), bytes_and([a + b for a, b in DIGIT_MERGES], DIGIT_MERGES, r"\d{1,2}")
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
