"""Special tokens: partners by role and by name, ids in configs, chat templates, and tokenizers that take over the base's."""

import json
import shutil

import numpy as np
import pytest
import tiny
import tokenizers
from safetensors.numpy import load_file
from special_tokens import bpe, text_pairs
from vocabularies import SHARED

from zett.choices import MODES
from zett.errors import UserError
from zett.transfer import transfer
from zett.vocab import load_tokenizer
from zett.vocab.adapt import adapt_special, follow_ids
from zett.vocab.load import vocabulary_of
from zett.vocab.pairing import MARKERS, WELL_KNOWN, pair_special, pairing
from zett.vocab.prompts import chat_template, missing_in_template

LLAMA3 = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|python_tag|>"]
CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>"]


# --------------------------------------------------------------------------------------------------------------- pairing


def test_the_tables_name_every_token_once():
    names = [name for table in (WELL_KNOWN, MARKERS) for names in table.values() for name in names]
    assert [name for name in names if names.count(name) > 1] == ["<|endoftext|>"] * 2  # bos and eos


def test_markers_pair_by_what_they_do():
    roles = dict(bos="<|begin_of_text|>", eos="<|end_of_text|>")
    llama, qwen = bpe(LLAMA3, declared=roles), bpe(CHATML[:3], CHATML[3:], declared=dict(eos="<|im_end|>", pad="<|endoftext|>"))
    assert text_pairs(qwen, llama) == {
        "<|endoftext|>": "<|end_of_text|>",  # Qwen pads with it, and declares no bos
        "<|im_start|>": "<|start_header_id|>",
        "<|im_end|>": "<|end_of_text|>",  # it ends a text before it ends a turn
        "<tool_call>": "<|python_tag|>",
    }
    assert text_pairs(llama, qwen) == {
        "<|begin_of_text|>": "<|endoftext|>",  # a bos elsewhere
        "<|end_of_text|>": "<|im_end|>",
        "<|start_header_id|>": "<|im_start|>",
        "<|eot_id|>": "<|im_end|>",
        "<|python_tag|>": "<tool_call>",
    }


def test_markers_of_a_chat_find_stand_ins_in_a_base_model():
    base = bpe(["<s>", "</s>"], declared=dict(bos="<s>", eos="</s>"))
    chat = bpe(["<start_of_turn>", "<end_of_turn>", "<image>"])
    assert text_pairs(chat, base) == {"<start_of_turn>": "<s>", "<end_of_turn>": "</s>"}


def test_the_report_says_what_becomes_of_each():
    source = bpe(["<s>", "</s>", "<|user|>", "<|reserved_7|>"], declared=dict(bos="<s>", eos="</s>"))
    target = bpe(["</s>", "[CLS]", "<image>"], declared=dict(eos="</s>", cls="[CLS]"))
    found = [(t.id, t.text, t.role, t.fate, t.source_id, t.source_text, t.reason) for t in pairing(target, source).tokens]
    assert found == [
        (256, "</s>", "eos", "copied", 257, "</s>", "same text"),
        (257, "[CLS]", "cls", "paired", 256, "<s>", "nearest role"),
        (258, "<image>", "image", "predicted", None, None, ""),
        (None, "<|user|>", "user", "dropped", 258, "<|user|>", ""),
    ]


def test_a_marker_without_a_partner_is_predicted_from_its_text():
    target, source = bpe([], ["<tool_call>"]), bpe(["<s>"])
    assert [t.fate for t in pairing(target, source).tokens][:1] == ["predicted"]
    assert target.tokens[256] == b"<tool_call>"


# ------------------------------------------------------------------------------------------------------------------- ids


def test_ids_in_configs_follow_the_tokenizer():
    source = bpe(LLAMA3, declared=dict(bos="<|begin_of_text|>", eos="<|end_of_text|>"))
    target = bpe(CHATML, declared=dict(eos="<|endoftext|>"))
    end, turn = source.special["<|end_of_text|>"], source.special["<|eot_id|>"]
    old = dict(bos_token_id=256, eos_token_id=[end, turn], pad_token_id=7, text_config=dict(eos_token_id=turn, width=3), x=1)
    new = follow_ids(old, target, source)
    ends = [target.special["<|endoftext|>"], target.special["<|im_end|>"]]
    # <|endoftext|> is the eos and no bos beside that; nothing pads.
    assert new == dict(
        bos_token_id=None, eos_token_id=ends, pad_token_id=None, text_config=dict(eos_token_id=ends[0], width=3), x=1
    )
    # A single id stays single where only one is allowed, and the list is for what else ends a text.
    assert follow_ids(dict(eos_token_id=turn), target, source) == dict(eos_token_id=ends[0])
    assert follow_ids(dict(eos_token_id=turn), target, source, several=True) == dict(eos_token_id=ends)
    nothing = bpe([])
    assert follow_ids(old, nothing, source)["eos_token_id"] is None


def test_padding_that_stands_on_the_end_token_does_not_end_a_text():
    source = bpe(["</s>"], declared=dict(eos="</s>"))
    target = bpe(["</s>", "<pad>"], declared=dict(eos="</s>", pad="<pad>"))
    assert follow_ids(dict(eos_token_id=256), target, source, several=True) == dict(eos_token_id=256)


# --------------------------------------------------------------------------------------------------------- chat templates


def test_chat_templates_are_found_and_checked(tmp_path):
    assert chat_template(None) is None and chat_template(tmp_path) is None
    template = "{{ bos_token }}<|im_start|>user\n{{ x[0] }}<|im_end|>[INST]<end_of_turn>"
    for named in (template, [dict(name="tool_use", template="x"), dict(name="default", template=template)]):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
        assert chat_template(tmp_path) == template
    (tmp_path / "chat_template.jinja").write_bytes(b"a\r\nb")
    assert chat_template(tmp_path) == "a\r\nb"
    for name, broken in [("chat_template.jinja", b"\xff"), ("tokenizer_config.json", b"{"), ("tokenizer_config.json", b"[]")]:
        (tmp_path / "chat_template.jinja").unlink(missing_ok=True)
        (tmp_path / name).write_bytes(broken)
        with pytest.raises(UserError, match=f"{name} holds no chat template"):
            chat_template(tmp_path)
    assert missing_in_template(template, bpe(CHATML).tokenizer) == ["[INST]", "<end_of_turn>"]
    assert missing_in_template(None, bpe(CHATML).tokenizer) == []


# -------------------------------------------------------------------------------------------------------------- adapting


def around(tokenizer):
    return tokenizer.convert_ids_to_tokens(tokenizer("x")["input_ids"])


@pytest.fixture
def source(tmp_path):
    """A chat model's tokenizer that puts <s> in front, with pad and a chat template."""
    vocab = bpe(
        ["<s>", "</s>", "<pad>", "<|user|>"], folder=tmp_path / "source", declared=dict(bos="<s>", eos="</s>", pad="<pad>")
    )
    frame = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", vocab.special["<s>"])])
    vocab.tokenizer.post_processor = frame
    vocab.tokenizer.save(str(tmp_path / "source" / "tokenizer.json"))
    (tmp_path / "source" / "chat_template.jinja").write_text("<s><|user|>{{ messages[0].content }}</s>\r\n", newline="")
    return load_tokenizer(tmp_path / "source")


KINDS = ["bpe", "unigram", "sentencepiece-bpe"]
FOLDERS = ["gpt2", "mistral-v1", "bert-base-uncased", "wmt-ende-unigram-32k"]


@pytest.fixture(params=KINDS + FOLDERS)
def target(request, tmp_path):
    if request.param in KINDS:
        return load_tokenizer(tiny.tokenizer_folder(tmp_path / "target", request.param))
    if not (SHARED / request.param).is_dir():
        pytest.skip(f"{SHARED / request.param} is not on this machine")
    return load_tokenizer(SHARED / request.param)


def test_keep_target_changes_nothing(source, target, tmp_path):
    assert adapt_special(target, source, "keep-target", tmp_path) is target and not (tmp_path / "tokenizer.json").exists()


@pytest.mark.parametrize("mode", ["map-to-source", "add-missing"])
def test_adapted_tokenizers(mode, source, target, tmp_path):
    """Ordinary text has the same ids, the source's tokens are there with their rows, and Transformers agrees."""
    from transformers import AutoTokenizer

    new = adapt_special(target, source, mode, tmp_path)
    text = "Hello, World! x = [1, 23] # grüße\n"
    assert (
        new.tokenizer.encode(text, add_special_tokens=False).ids == target.tokenizer.encode(text, add_special_tokens=False).ids
    )
    assert new.tokens[: len(target)] == target.tokens and not any(new.tokens[len(target) :])
    pairs = pair_special(new, source)
    assert set(source.special.values()) <= set(pairs.values())
    report = pairing(new, source, len(target)).tokens
    assert all((t.fate == "kept") == (t.id >= len(target)) for t in report) and "dropped" not in {t.fate for t in report}
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(text, add_special_tokens=False)["input_ids"] == new.tokenizer.encode(text, add_special_tokens=False).ids
    assert len(theirs) == len(new.tokenizer.get_vocab())
    # No target has one of its own.
    assert (tmp_path / "chat_template.jinja").read_bytes() == (source.folder / "chat_template.jinja").read_bytes()
    if mode == "map-to-source":
        assert source.special.keys() <= new.special.keys()
        assert (theirs.bos_token, theirs.eos_token, theirs.pad_token) == ("<s>", "</s>", "<pad>")
        assert {r: new.tokenizer.id_to_token(i) for r, i in new.roles.items() if r in source.roles} == {
            r: source.tokenizer.id_to_token(i) for r, i in source.roles.items()
        }
        assert around(theirs)[0] == "<s>" and around(theirs)[-1] not in new.special
        chat = theirs.apply_chat_template([dict(role="user", content="x")], tokenize=True, return_dict=False)
        assert theirs.convert_ids_to_tokens(chat)[:2] == ["<s>", "<|user|>"] and theirs.eos_token_id in chat
    else:
        own = {r: target.tokenizer.id_to_token(i) for r, i in target.roles.items()}
        assert all(getattr(theirs, f"{r}_token") == text for r, text in own.items())
        assert new.tokenizer.encode("x").ids == target.tokenizer.encode("x").ids  # what surrounds a text is the target's


@pytest.mark.parametrize("kind", ["RobertaProcessing", "BertProcessing"])
def test_an_encoders_frame_is_taken_over(kind, tmp_path):
    """In one and in two segments, with the mask that takes the space before it, whatever the target's own frame."""
    source = bpe(["<s>", "</s>"], declared=dict(cls="<s>", sep="</s>", mask="<mask>"))
    source.tokenizer.add_special_tokens([tokenizers.AddedToken("<mask>", lstrip=True, special=True)])
    source.tokenizer.post_processor = getattr(tokenizers.processors, kind)(("</s>", 257), ("<s>", 256))
    source = vocabulary_of(source.tokenizer, dict(cls="<s>", sep="</s>", mask="<mask>"))
    target = bpe(["[X]", "<|end|>"], declared=dict(sep="<|end|>"))
    target.tokenizer.post_processor = tokenizers.processors.ByteLevel(trim_offsets=False)
    new = adapt_special(target, source, "map-to-source", tmp_path)
    assert new.special == {"[X]": 256, "</s>": 257, "<s>": 258, "<mask>": 259}
    for texts in [("a <mask>",), ("a", "b")]:
        assert new.tokenizer.encode(*texts).tokens == source.tokenizer.encode(*texts).tokens
    assert [t.strip() for t in new.tokenizer.encode("a <mask>").tokens] == ["<s>", "a", "<mask>", "</s>"]


def test_texts_that_swap(tmp_path):
    """Each keeps its text and the row of that text, and has the role that the source gives it."""
    source = bpe(["<a>", "<b>"], declared=dict(bos="<a>", eos="<b>"))
    target = bpe(["<b>", "<a>"], declared=dict(bos="<b>", eos="<a>"))
    new = adapt_special(target, source, "map-to-source", tmp_path)
    assert new.special == {"<b>": 256, "<a>": 257} and new.roles == dict(bos=257, eos=256)


def test_a_name_that_is_taken_is_not_given_twice(tmp_path):
    source = bpe(["<s>"], declared=dict(bos="<s>"))
    target = bpe(["<bos>", "[CLS]"], ["<s>"], declared=dict(bos="<bos>", cls="[CLS]"))
    new = adapt_special(target, source, "map-to-source", tmp_path)
    assert new.tokenizer.get_vocab() == target.tokenizer.get_vocab() and new.roles["bos"] == 258


def test_holes_in_the_ids_stay(source, tmp_path):
    spec = json.loads(bpe(["<s>"]).tokenizer.to_str())
    spec["model"]["vocab"] = {text: 3 * i for text, i in spec["model"]["vocab"].items()} | {"<s>": 1}
    target = vocabulary_of(tokenizers.Tokenizer.from_str(json.dumps(spec)), dict(bos="<s>"))
    new = adapt_special(target, source, "add-missing", tmp_path)
    assert len(target) == 3 * 255 + 1 and new.special["</s>"] == len(target)
    assert new.tokens[: len(target)] == target.tokens


def test_unknown_modes(tmp_path):
    with pytest.raises(UserError, match="special 'add-mising' does not exist; did you mean add-missing"):
        transfer("pico", "nowhere", tmp_path / "out", method="fvt", special="add-mising")
    assert list(MODES) == ["keep-target", "map-to-source", "add-missing"]


# -------------------------------------------------------------------------------------------------------------- transfer


def test_transfer_appends_with_the_base_rows(tmp_path, caplog):
    base = tiny.base_folder(tmp_path / "base")
    bpe(["[CLS]"], folder=tmp_path / "target", declared=dict(cls="[CLS]"))
    (tmp_path / "target" / "chat_template.jinja").write_bytes(b"{{ x }}<|im_start|>\r\n")
    source = load_tokenizer(base)
    outputs = {
        mode: transfer(base, tmp_path / "target", tmp_path / mode, method="fvt", special=mode)
        for mode in ("keep-target", "add-missing")
    }
    assert any("<|im_start|>" in record.message for record in caplog.records)
    kept, added = (load_tokenizer(folder) for folder in outputs.values())
    assert (len(kept), len(added)) == (257, 258)  # the end token is [CLS]'s partner already, padding is not
    rows, old = (load_file(f / "model.safetensors")["model.embed_tokens.weight"] for f in (outputs["add-missing"], base))
    np.testing.assert_array_equal(rows[added.special["<|pad|>"]], old[source.special["<|pad|>"]])
    for folder in outputs.values():
        assert (folder / "chat_template.jinja").read_bytes() == b"{{ x }}<|im_start|>\r\n"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (outputs["keep-target"] / name).read_bytes() == (tmp_path / "target" / name).read_bytes()
    config = json.loads((outputs["add-missing"] / "config.json").read_text())
    assert config["vocab_size"] == 258 and config["pad_token_id"] == added.special["<|pad|>"]
    assert json.loads((outputs["keep-target"] / "config.json").read_text())["pad_token_id"] is None
    card = (outputs["add-missing"] / "README.md").read_text()
    assert "--special add-missing" in card and "files differ" in card and "kept" in card
    assert "files differ" not in (outputs["keep-target"] / "README.md").read_text()


@pytest.mark.parametrize("name", ["bert-base-uncased", "wordpiece-16k-multi"])
def test_an_encoder_keeps_its_frame(name, tmp_path):
    """[CLS] text [SEP], in one and two segments, as Transformers reads the result."""
    if not (SHARED / name).is_dir():
        pytest.skip(f"{SHARED / name} is not on this machine")
    from transformers import AutoTokenizer

    base = tiny.base_folder(tmp_path / "base")
    output = transfer(base, SHARED / name, tmp_path / "out", method="mean")
    tokenizer = AutoTokenizer.from_pretrained(output)
    assert tokenizer.convert_ids_to_tokens(tokenizer("a", "b")["input_ids"]) == ["[CLS]", "a", "[SEP]", "b", "[SEP]"]
    assert tokenizer.mask_token == "[MASK]" and tokenizer("a [MASK]")["input_ids"][2] == tokenizer.mask_token_id
    assert json.loads((output / "config.json").read_text())["pad_token_id"] == tokenizer.pad_token_id
    shutil.rmtree(output)
