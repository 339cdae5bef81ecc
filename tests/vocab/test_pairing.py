"""Which special token gets whose row, and why; which mode is advisable; and that everything that speaks of it says the same."""

import json

import numpy as np
import pytest
import tiny
from special_tokens import bpe, text_pairs

from zett.files.jsonfile import read_json
from zett.inspect.compare import inspect
from zett.inspect.page import page
from zett.inspect.terminal import tables
from zett.transfer import transfer
from zett.vocab import load_tokenizer
from zett.vocab.adapt import adapt_special, follow_ids
from zett.vocab.pairing import pair_special, pairing
from zett.vocab.vocabulary import Vocabulary


def specials(**roles: str) -> Vocabulary:
    """A vocabulary of special tokens only, by role."""
    special = {text: i for i, text in enumerate(dict.fromkeys(roles.values()))}
    ids = {role: special[text] for role, text in roles.items()}
    return Vocabulary((b"",) * len(special), special, ids, np.zeros(len(special), np.float32), "", (), None)


@pytest.mark.parametrize(
    "target, source, pairs",
    [
        (dict(bos="<s>", eos="</s>"), dict(bos="<|x|>", eos="<|x|>"), {0: 0, 1: 0}),
        (dict(bos="<s>", eos="</s>"), dict(eos="<s>", bos="</s>"), {0: 0, 1: 1}),  # the text says more than the role
        (dict(cls="[CLS]", sep="[SEP]", mask="[MASK]"), dict(bos="<s>", eos="</s>"), {0: 0, 1: 1}),
        (dict(bos="<s>", pad="<pad>"), dict(cls="[CLS]", sep="[SEP]"), {0: 0}),
        (dict(pad="<pad>", unk="<unk>"), dict(eos="</s>"), {0: 0}),
        (dict(bos="<e>", eos="<e>", pad="<e>"), dict(pad="<pad>", bos="<s>", eos="</s>"), {0: 2}),  # what ends a text does
        (dict(eos="</s>", pad="<pad>"), dict(bos="<s>"), {}),  # what begins a text neither ends nor pads one
        (dict(bos="<s>"), {}, {}),
    ],
)
def test_special_tokens_find_their_partners(target, source, pairs):
    assert pair_special(specials(**target), specials(**source)) == pairs


# As in SmolLM2: an instructed model keeps the token that its texts ended with, and begins and ends with others.
SMOL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SMOL_ROLES = dict(bos="<|im_start|>", eos="<|im_end|>", pad="<|im_end|>", unk="<|endoftext|>")
GPT2_ROLES = dict(bos="<|endoftext|>", eos="<|endoftext|>", unk="<|endoftext|>")
LLAMA_ROLES = dict(bos="<s>", eos="</s>")


def smol(folder=None, template="<|im_start|>user\n{{ messages[0].content }}<|im_end|>"):
    vocab = bpe(SMOL, ["<tool_response>"], folder=folder, declared=SMOL_ROLES)
    if folder is None or template is None:
        return vocab
    (folder / "chat_template.jinja").write_text(template)
    return load_tokenizer(folder)


def gpt2(folder=None):
    return bpe(["<|endoftext|>"], folder=folder, declared=GPT2_ROLES)


def reasons(target, source):
    return {token.text: token.reason for token in pairing(target, source).tokens if token.reason}


# --------------------------------------------------------------------------------------------------------------- pairing


def test_the_same_text_goes_before_the_role():
    assert text_pairs(gpt2(), smol()) == {"<|endoftext|>": "<|endoftext|>"}
    assert reasons(gpt2(), smol()) == {"<|endoftext|>": "same text"}


def test_reasons():
    llama = bpe(["<s>", "</s>"], declared=LLAMA_ROLES)
    chat = bpe(["<bos>", "[SEP]", "<pad>", "<end_of_turn>"], declared=dict(bos="<bos>", sep="[SEP]", pad="<pad>"))
    assert reasons(chat, llama) == {
        "<bos>": "same role",
        "[SEP]": "nearest role",
        "<pad>": "eos stands in",
        "<end_of_turn>": "eos stands in",
    }
    assert reasons(bpe(["<start_of_turn>"]), smol()) == {"<start_of_turn>": "same use"}


def test_one_token_for_several_roles_is_what_ends_a_text():
    target = bpe(["<|end|>"], declared=dict(bos="<|end|>", eos="<|end|>", pad="<|end|>"))
    assert text_pairs(target, bpe(["<s>", "</s>", "<pad>"], declared=LLAMA_ROLES | dict(pad="<pad>"))) == {"<|end|>": "</s>"}


def test_a_bos_neither_ends_nor_pads():
    source = bpe(["<s>"], declared=dict(bos="<s>"))
    target = bpe(["<e>", "<p>"], declared=dict(eos="<e>", pad="<p>"))
    assert text_pairs(target, source) == {}
    # A bos that shares the row of what ends a text, in a base with one token for both, does not end one.
    target = bpe(["<s>", "</s>"], declared=LLAMA_ROLES)
    assert text_pairs(target, gpt2()) == {"<s>": "<|endoftext|>", "</s>": "<|endoftext|>"}
    assert follow_ids(dict(eos_token_id=[256]), target, gpt2()) == dict(eos_token_id=target.roles["eos"])


# ------------------------------------------------------------------------------------------------------------ ids in configs


def with_configs(folder, config, generation, declared=None):
    bpe(["<a>", "<b>", "<c>", "<d>"], folder=folder, declared=declared)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps(generation))
    return load_tokenizer(folder)


def test_configs_name_roles_too(tmp_path):
    vocab = with_configs(
        tmp_path / "a", dict(bos_token_id=256, eos_token_id=257, pad_token_id=300), dict(eos_token_id=[258, 257])
    )
    assert vocab.roles == dict(bos=256, eos=258) and vocab.ends == (258, 257)  # 300 is nothing
    vocab = with_configs(tmp_path / "b", dict(text_config=dict(pad_token_id=259)), {}, declared=dict(eos="<a>"))
    assert vocab.roles == dict(eos=256, pad=259) and vocab.ends == (256,)
    # A tokenizer's own word goes first, and a config that names ordinary tokens is wrong.
    vocab = with_configs(tmp_path / "c", dict(bos_token_id=1, eos_token_id=257), {}, declared=dict(eos="<a>"))
    assert vocab.roles == dict(eos=256) and vocab.ends == (256, 257)
    for part in ("config", "generation_config"):
        (tmp_path / "c" / f"{part}.json").write_text("[1]")
    assert load_tokenizer(tmp_path / "c").ends == (256,)


def test_every_end_of_a_text_has_that_role(tmp_path):
    source = with_configs(tmp_path / "a", {}, dict(eos_token_id=[257, 258]), declared=dict(eos="<b>"))
    target = bpe(["<c>", "</s>"], declared=dict(eos="</s>"))
    assert text_pairs(target, source) == {"<c>": "<c>", "</s>": "<b>"}
    # Both end a text in the result, the own one first.
    assert follow_ids(dict(eos_token_id=[257, 258]), target, source) == dict(eos_token_id=[257, 256])
    assert {t.text: t.role for t in pairing(source, source).tokens} == {"<a>": "", "<b>": "eos", "<c>": "eos", "<d>": ""}


def test_a_role_is_kept_where_its_token_is():
    source = bpe(["</s>", "<p>"], declared=dict(eos="</s>", pad="<p>"))
    target = bpe(["<p>", "</s>"], declared=dict(eos="</s>"))
    assert follow_ids(dict(pad_token_id=257, bos_token_id=7), target, source) == dict(pad_token_id=256, bos_token_id=None)


def test_a_declared_token_has_no_other_role_by_its_name():
    """Qwen pads with <|endoftext|> and has no bos, whatever others do with a token of that name."""
    assert bpe(SMOL, declared=dict(eos="<|im_end|>", pad="<|endoftext|>")).roles == dict(eos=258, pad=256)
    assert bpe(SMOL).roles == dict(bos=256, eos=256)


def test_a_separator_ends_texts_in_both_configs():
    target = bpe(["[CLS]", "[SEP]"], declared=dict(cls="[CLS]", sep="[SEP]"))
    for several in (False, True):
        assert follow_ids(dict(eos_token_id=256, bos_token_id=256), target, gpt2(), several=several) == dict(
            eos_token_id=257, bos_token_id=None
        )


# -------------------------------------------------------------------------------------------------------------- adapting


def declared(folder):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    return {role: config.get(f"{role}_token") for role in ("bos", "eos", "pad")}


@pytest.mark.parametrize(
    "source, target, result",
    [
        # The base model has one token for all: so has the result.
        (dict(bos="<e>", eos="<e>", pad="<e>"), LLAMA_ROLES, dict(bos="<e>", eos="<e>", pad="<e>")),
        # It does not, and the tokenizer has.
        (LLAMA_ROLES, dict(bos="<e>", eos="<e>", pad="<e>"), dict(bos="<s>", eos="</s>", pad="</s>")),
        (dict(eos="</s>"), dict(bos="<e>", eos="<e>", pad="<e>"), dict(bos=None, eos="</s>", pad="</s>")),
        (dict(bos="<s>"), dict(bos="<e>", eos="<e>", pad="<e>"), dict(bos="<s>", eos=None, pad=None)),
        # The tokenizer keeps what it pads with, which is not what texts end with.
        (LLAMA_ROLES, dict(pad="<pad>"), dict(bos="<s>", eos="</s>", pad="<pad>")),
        (LLAMA_ROLES, dict(eos="<e>", pad="<pad>"), dict(bos="<s>", eos="</s>", pad="<pad>")),
        (SMOL_ROLES, GPT2_ROLES | dict(pad="<pad>"), dict(bos="<|im_start|>", eos="<|im_end|>", pad="<|im_end|>")),
    ],
)
def test_roles_are_never_run_together(source, target, result, tmp_path):
    base, given = (bpe(dict.fromkeys(roles.values()), declared=roles) for roles in (source, target))
    adapt_special(given, base, "map-to-source", tmp_path)
    assert declared(tmp_path) == result


def test_add_missing_does_not_make_an_end_the_beginning(tmp_path):
    base = bpe(["<|endoftext|>", "</s>"], declared=dict(bos="<|endoftext|>", eos="</s>"))
    target = bpe(["<|endoftext|>"], declared=dict(eos="<|endoftext|>"))
    adapt_special(target, base, "add-missing", tmp_path)
    assert declared(tmp_path) == dict(bos=None, eos="<|endoftext|>", pad=None)


def test_the_name_of_what_ends_a_text_goes_to_what_ended_one(tmp_path):
    target = bpe(["[CLS]", "[SEP]"], declared=dict(cls="[CLS]", sep="[SEP]"))
    new = adapt_special(target, gpt2(), "map-to-source", tmp_path)
    assert new.special == {"[CLS]": 256, "<|endoftext|>": 257} and new.roles["cls"] == 256


@pytest.mark.parametrize("mode", ["add-missing", "map-to-source"])
def test_what_a_copied_template_spells_is_added(mode, tmp_path):
    """By its own name, though the tokenizer has a counterpart with another one; special or not."""
    source = smol(tmp_path / "base", "<|im_start|>{{ x }}<|im_end|><tool_response>")
    target = bpe(["<|endoftext|>", "<start_of_turn>", "<end_of_turn>"], declared=GPT2_ROLES)
    (tmp_path / "out").mkdir()
    new = adapt_special(target, source, mode, tmp_path / "out")
    spelt = ["<|im_start|>", "<|im_end|>", "<tool_response>"]
    pairs = text_pairs(new, source)
    assert all(new.tokenizer.token_to_id(text) is not None and pairs[text] == text for text in spelt)
    assert new.tokenizer.encode("".join(spelt)).tokens == spelt
    assert (tmp_path / "out" / "chat_template.jinja").read_bytes() == (tmp_path / "base" / "chat_template.jinja").read_bytes()


def test_token_types_are_not_handed_to_models_that_have_none(tmp_path):
    source = smol(tmp_path / "base")
    (tmp_path / "base" / "config.json").write_text('{"model_type": "llama"}')
    target = bpe(["[SEP]"], declared=dict(sep="[SEP]"), folder=tmp_path / "target")
    config = dict(sep_token="[SEP]", model_input_names=["input_ids", "token_type_ids", "attention_mask"])
    (tmp_path / "target" / "tokenizer_config.json").write_text(json.dumps(config))
    for mode in ("add-missing", "map-to-source"):
        (tmp_path / mode).mkdir()
        adapt_special(target, source, mode, tmp_path / mode)
        assert read_json(tmp_path / mode / "tokenizer_config.json")["model_input_names"] == ["input_ids", "attention_mask"]


# ---------------------------------------------------------------------------------------------------------------- advice


def test_the_mode_to_take(tmp_path):
    chat, base = smol(tmp_path / "chat"), smol()
    assert pairing(gpt2(), chat).mode == "map-to-source" and "chat template" in pairing(gpt2(), chat).why
    assert pairing(chat, chat).mode == "keep-target"
    assert pairing(gpt2(), base).mode == "add-missing" and "<|im_end|> (eos, pad)" in pairing(gpt2(), base).why
    llama = bpe(["<s>", "</s>"], declared=LLAMA_ROLES)
    assert pairing(bpe(["<bos>", "<eos>"], declared=dict(bos="<bos>", eos="<eos>")), llama).mode == "keep-target"


def test_the_same_is_said_everywhere(tmp_path, caplog):
    base = tiny.base_folder(tmp_path / "base")
    bpe(["<e>", "<image>"], folder=tmp_path / "target", declared=dict(bos="<e>", eos="<e>"))
    target, source = load_tokenizer(tmp_path / "target"), load_tokenizer(base)
    found = pairing(target, source)
    report = inspect(base, tmp_path / "target")
    assert report["advice"] == {"mode": found.mode, "why": found.why} and found.mode == "add-missing"
    assert [token["reason"] for token in report["special"]] == [token.reason for token in found.tokens]
    assert f"--special {found.mode}" in tables(report) and f"--special {found.mode}" in page(report)
    output = transfer(base, tmp_path / "target", tmp_path / "out", method="mean")
    assert f"zett: --special {found.mode} is recommended, because {found.why}" in [r.message for r in caplog.records]
    card = (output / "README.md").read_text()
    assert f"Recommended: `--special {found.mode}`, because the tokenizer has no counterpart of the base model's" in card
    for token in found.tokens:
        row = next(line for line in card.splitlines() if f"`{token.text}`".replace("|", "\\|") in line)
        assert token.fate in row and token.role in row and (token.fate != "paired" or token.reason in row)
