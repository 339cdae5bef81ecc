"""Generated text: against Transformers where PyTorch is installed, and with models that write what they are told to."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny
import tokenizers as tk
from lms import parity
from lms.folders import edit_json

from zett import generate as write
from zett import load_base_model, load_tokenizer
from zett.errors import UserError
from zett.generate import chat_prompt, choose, continuation, encode_prompt, ends_of, generate_ids, read_tokens
from zett.lms.body import Body
from zett.methods import make_method
from zett.table import EmbeddingTable
from zett.transfer import transfer
from zett.vocab.load import vocabulary_of

CAUSAL = [*parity.make.DECODERS, *parity.variants("gpt2", "gpt_neox", "starcoder2")]
START = [7, 11, 23, 8, 30]


@pytest.mark.parametrize("variant", parity.by_family(CAUSAL))
def test_greedy_ids_are_those_of_transformers(variant, tmp_path):
    """Beyond windows, and for LongRoPE beyond the length at which frequencies change."""
    torch = pytest.importorskip("torch")
    import transformers

    folder = parity.torch_folder(variant, tmp_path)
    base = load_base_model(folder)
    base = dataclasses.replace(base, vocab=dataclasses.replace(base.vocab, ends=()))  # so that many tokens are compared
    written = list(generate_ids(base, START, max_tokens=20))
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.generation_config.eos_token_id = None
    number = min(20, base.config.room - len(START))
    theirs = model.generate(torch.tensor([START]), do_sample=False, max_new_tokens=number, pad_token_id=0)[0, len(START) :]
    assert written == theirs.tolist() and len(written) == number


def test_frequencies_that_change_with_length(tmp_path):
    base = load_base_model(parity.base_folder("phi3-longrope", tmp_path))
    assert base.config.restarts == (12,)
    ids = [*START, *generate_ids(base, START, max_tokens=12)]
    for length in (12, len(ids) - 1):
        h = Body(base.graphdef, base.params)(base.table.embed(np.asarray([ids[:length]])))
        first = len(START) - 1 if length == 12 else 12
        assert ids[first + 1 : length + 1] == np.asarray(base.table.unembed(h))[0, first:].argmax(-1).tolist()


# ------------------------------------------------------------------------------------------------------- scripted models


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return load_base_model(tiny.base_folder(tmp_path_factory.mktemp("base") / "model", dtype="float32"))


def scripted(base, ids):
    """The model with layers that change nothing, and output rows by which each of `ids`, all distinct, follows that before."""
    rows = np.asarray(base.table.input, np.float32)
    output = np.zeros_like(rows)
    output[ids[1:]] = rows[ids[:-1]] / np.linalg.norm(rows[ids[:-1]], axis=1, keepdims=True)
    params = {**base.params, "layers": jax.tree.map(np.zeros_like, base.params["layers"])}
    return dataclasses.replace(base, params=params, table=EmbeddingTable.of(rows, output))


def encode(base, text):
    return base.vocab.tokenizer.encode(text, add_special_tokens=False).ids


SIGNS = "a: é€😀!"  # of one to four bytes, each of which is a token


def test_characters_of_several_tokens(base):
    ids = encode(base, SIGNS)
    prompt, wanted = SIGNS[:2], SIGNS[2:]
    number = len(ids) - len(encode(base, prompt))
    assert len(set(ids)) == len(ids) and number > len(wanted)
    model = scripted(base, ids)
    assert write(model, prompt, max_tokens=number) == wanted
    assert write(model, prompt, max_tokens=number - 2) == wanted[:-2]  # a character that is not complete is left out
    assert write(model, prompt, max_tokens=number, stop="€") == wanted[:2]
    seen = []
    assert write(model, prompt, max_tokens=number, stop=lambda text: seen.append(text) or "€" in text) == wanted[:3]
    assert seen[-1] == wanted[:3] and all(wanted.startswith(text) for text in seen)


def test_any_end_of_the_configs_ends_a_text(tmp_path):
    folder = tiny.base_folder(tmp_path / "model", dtype="float32")
    special = [i for _, i in sorted(load_tokenizer(folder).special.items())]
    edit_json(folder / "config.json", eos_token_id=special[0])
    edit_json(folder / "generation_config.json", eos_token_id=[special[0], special[1]])
    base = load_base_model(folder)
    assert ends_of(base) == set(special[:2])
    for end in special[:2]:
        ids = [*encode(base, "a: é"), end, *encode(base, "!")]
        model = scripted(base, ids)
        assert write(model, "a:", max_tokens=9) == " é"
        assert list(generate_ids(model, ids[:2], max_tokens=9)) == ids[2:-1]  # the end is the last


def test_sentencepiece_text_keeps_the_space_at_its_beginning():
    vocab = vocabulary_of(tiny.tokenizer("sentencepiece-bpe", 400))
    prompt, whole = "import json", "import json from Path"
    ids, more = encode_prompt(vocab, prompt), vocab.tokenizer.encode(whole).ids
    assert more[: len(ids)] == ids and continuation(vocab, ids, more[len(ids) :]) == " from Path"


# -------------------------------------------------------------------------------------------------------------- sampling


def test_equal_seeds_draw_equal_texts(base):
    texts = [write(base, "def f(", max_tokens=12, temperature=1.0, seed=seed) for seed in (3, 3, 4)]
    greedy = write(base, "def f(", max_tokens=12)
    assert texts[0] == texts[1] and len({*texts, greedy}) == 3
    assert write(base, "def f(", max_tokens=12, temperature=1e-6, seed=3) == greedy


def test_tokens_are_drawn_as_often_as_they_are_probable():
    logits, rng = np.asarray([0.0, 1.0, -1e30, 2.0], np.float32), np.random.default_rng(0)
    shares = np.bincount([choose(logits, 2.0, rng) for _ in range(4000)], minlength=4) / 4000
    expected = np.exp([0.0, 0.5, -np.inf, 1.0])
    np.testing.assert_allclose(shares, expected / expected.sum(), atol=0.03)


# -------------------------------------------------------------------------------------------------- vocabularies, prompts


def test_a_model_in_memory_writes_as_its_folder_does(tmp_path, base):
    target = tiny.tokenizer_folder(tmp_path / "target", "unigram", 280)
    folder = transfer(base.folder, target, tmp_path / "out", method="fvt")
    vocab = load_tokenizer(target)
    memory = base.with_vocabulary(make_method("fvt")(base, vocab, seed=0), vocab)
    loaded = load_base_model(folder)
    assert ends_of(memory) == ends_of(loaded)
    options = {"max_tokens": 16, "temperature": 0.5, "seed": 1}
    assert write(memory, "def f(x):", **options) == write(loaded, "def f(x):", **options) != ""


def with_template(template: str, tokenizer=None):
    tokenizer = tk.Tokenizer.from_str((tokenizer or tiny.tokenizer()).to_str())
    tokenizer.add_special_tokens(["<s>", "</s>", "<|user|>"])
    special = [(name, tokenizer.token_to_id(name)) for name in ("<s>", "</s>")]
    tokenizer.post_processor = tk.processors.TemplateProcessing(single=template, pair="$A $B", special_tokens=special)
    return vocabulary_of(tokenizer, {"bos": "<s>", "eos": "</s>"})


def test_prompts_are_opened_as_the_tokenizer_does_and_not_closed():
    vocab = with_template("<s> $A </s>")
    begin, user, plain = vocab.special["<s>"], vocab.special["<|user|>"], vocab.tokenizer.encode("a", add_special_tokens=False)
    assert encode_prompt(vocab, "a") == encode_prompt(vocab, "<s>a") == [begin, *plain.ids]
    assert encode_prompt(vocab, "<|user|>a") == [begin, user, *plain.ids] and encode_prompt(vocab, "") == [begin]
    assert encode_prompt(with_template("$A"), "a") == plain.ids and encode_prompt(with_template("$A"), "") == [begin]
    bare = tk.Tokenizer(tk.models.BPE({"a": 0, "b": 1}, []))
    with pytest.raises(UserError, match="the prompt is '', and the tokenizer has no token that begins a text"):
        encode_prompt(vocabulary_of(bare), "")


def test_chat_templates(tmp_path):
    folder = tiny.tokenizer_folder(tmp_path / "tokenizer")
    messages = [{"role": "user", "content": "Hi"}]
    with pytest.raises(UserError, match="has no chat template"):
        chat_prompt(load_tokenizer(folder), messages)
    template = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|a|>{% endif %}"
    )
    (folder / "chat_template.jinja").write_text(template)
    assert chat_prompt(load_tokenizer(folder), messages) == "<|user|>Hi<|a|>"
    (folder / "chat_template.jinja").write_text("{{ raise_exception('roles have to alternate') }}")
    with pytest.raises(UserError, match="does not take these messages: roles have to alternate"):
        chat_prompt(load_tokenizer(folder), messages)


def test_two_programs_serve_prompts_of_many_lengths(base):
    read_tokens.clear_cache()
    for prompt in ("a", "def f(x):", "import json\n" * 4):
        write(base, prompt, max_tokens=3)
    assert read_tokens._cache_size() == 2


# ---------------------------------------------------------------------------------------------------------------- refused


def test_what_cannot_be_written_is_refused(base, tmp_path):
    encoder = load_base_model(parity.base_folder("bert-masked_lm", tmp_path / "bert"))
    with pytest.raises(UserError, match="bidirectional encoder"):
        write(encoder, "a")
    with pytest.raises(UserError, match="without its body"):
        write(load_base_model(base.folder, body=False), "a")
    with pytest.raises(UserError, match=r"the prompt has 64 tokens; .* has 64 positions: give less text"):
        generate_ids(base, [5] * 64)
    assert len(list(generate_ids(base, [5] * 62, max_tokens=9))) <= 2
    with pytest.raises(UserError, match="no token to go on from"):
        generate_ids(base, [])


@pytest.mark.parametrize(
    "option", [{"max_tokens": 0}, {"max_tokens": 1.5}, {"temperature": -1}, {"temperature": float("nan")}, {"seed": -1},
               {"stop": ""}, {"stop": 3}],
)  # fmt: skip
def test_values_that_make_no_sense_are_refused(base, option):
    ((name, value),) = option.items()
    with pytest.raises(UserError, match=f"{name} is {value!r}; it has to be"):
        write(base, "a", **option)
