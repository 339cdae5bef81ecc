"""More tokens: used by the tokenizer, with rows by a method, and nothing else changed."""

import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers as tk
from lms.folders import edit_json
from safetensors.numpy import load_file
from surgery.shapes import KINDS, LINES, model_folder, random_texts, tokenizer
from vocabularies import MADE, byte_tokenizer, vocabulary

from zett.cli import run_command
from zett.errors import UserError
from zett.lms import load_base_model
from zett.methods import make_method
from zett.surgery.add_tokens import add_tokens, preview_add_tokens
from zett.surgery.edit import growing
from zett.surgery.grow import grown_from_list, grown_from_text
from zett.surgery.merging import Merging, words_of
from zett.surgery.spec import edit_spec
from zett.surgery.trim import trim
from zett.vocab import load_tokenizer
from zett.vocab.load import vocabulary_of

WORDS = "photosynthesis chloroplast mitochondria photosystem thylakoid".split()
DOMAIN = "".join(f"Of {a} and {b}, the {a} is older.\n" for a in WORDS for b in WORDS) * 2


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("text") / "text.txt"
    file.write_text(DOMAIN)
    return file


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory, text):
    """The folder of a model, and that of the one with 30 more tokens."""
    folder = tmp_path_factory.mktemp(request.param)
    base = model_folder(folder / "base", request.param)
    return base, add_tokens(base, folder / "out", from_text=str(text), n=30, method="fvt", pad_to_multiple_of=4)


def sizes(base: Path, output: Path) -> tuple[int, int, int, int]:
    """Ids of both tokenizers, and rows of both models."""
    ids = [tk.Tokenizer.from_file(str(f / "tokenizer.json")).get_vocab_size() for f in (base, output)]
    return *ids, *(json.loads((f / "config.json").read_text())["vocab_size"] for f in (base, output))


def test_old_ids_and_rows_stay(pair):
    base, output = pair
    old, new, rows, after = sizes(base, output)
    assert old < new <= old + 30 and after % 4 == 0 and after >= max(rows, new)
    before, now = load_file(base / "model.safetensors"), load_file(output / "model.safetensors")
    names = load_base_model(base, body=False).names
    for name in before:
        assert now[name].shape == ((after, *before[name].shape[1:]) if before[name].shape[0] == rows else before[name].shape)
        kept = old if name in (*names.input, *names.output, *names.bias) else len(before[name])
        np.testing.assert_array_equal(now[name][:kept], before[name][:kept])
        if kept == old and rows > new:  # what is left of the padding
            np.testing.assert_array_equal(now[name][new:rows], before[name][new:])
    a, b = (tk.Tokenizer.from_file(str(f / "tokenizer.json")).get_vocab() for f in (base, output))
    assert a.items() <= b.items()


def test_new_rows_are_the_methods(pair):
    base, output = pair
    old, new, rows, after = sizes(base, output)
    model, target = load_base_model(base, body=False), load_tokenizer(output, rows=after)
    table = make_method("fvt")(model, target)
    now = load_file(output / "model.safetensors")
    for names, column in ((model.names.input, table.input), (model.names.output, table.output), (model.names.bias, table.bias)):
        for name in names:
            np.testing.assert_array_equal(now[name][old:new], column[old:new])
            assert len(np.unique(now[name][old:new], axis=0)) > (new - old) * 0.8  # none left as padding
            filled = now[name][max(rows, new) :]
            np.testing.assert_allclose(filled, np.broadcast_to(now[name][:new].mean(0), filled.shape), atol=1e-5)


def test_transformers_uses_them(pair, tmp_path):
    from transformers import AutoTokenizer

    base, output = pair
    before, after = AutoTokenizer.from_pretrained(base), AutoTokenizer.from_pretrained(output)
    after.save_pretrained(tmp_path / "again")
    again = AutoTokenizer.from_pretrained(tmp_path / "again")
    old = sizes(base, output)[0]
    used: set[int] = set()
    for line in [*random_texts(40), *DOMAIN.split("\n")[:25]]:
        ids = after(line)["input_ids"]
        assert again(line)["input_ids"] == ids
        if max(ids, default=0) < old:
            assert before(line)["input_ids"] == ids
        used |= {i for i in ids if i >= old}
    assert len(used) >= 5
    assert (before.pad_token_id, before.eos_token_id, before.bos_token_id, before.mask_token_id) == (
        after.pad_token_id, after.eos_token_id, after.bos_token_id, after.mask_token_id
    )  # fmt: skip
    config, generation = (
        [json.loads((f / name).read_text()) if (f / name).exists() else {} for f in pair]
        for name in ("config.json", "generation_config.json")
    )
    for one, other in (config, generation):
        assert {k: v for k, v in one.items() if "_token_id" in k}.items() <= other.items()


def test_the_model_computes_the_same_for_old_tokens(pair):
    torch = pytest.importorskip("torch")
    import transformers

    base, output = pair
    old = sizes(base, output)[0]
    kind = json.loads((base / "config.json").read_text())["architectures"][0]
    models = [getattr(transformers, kind).from_pretrained(folder).eval() for folder in pair]
    ids = torch.as_tensor(np.random.default_rng(0).integers(4, old, 20))[None]
    with torch.no_grad():
        before, after = (model(ids).logits for model in models)
    torch.testing.assert_close(after[..., :old], before[..., :old], rtol=0, atol=1e-6)


def test_held_out_text_becomes_shorter(pair):
    report = json.loads((pair[1] / "zett.json").read_text())["settings"]["report"]
    before, after = report["tokens per byte of held-out text"]
    assert after < 0.8 * before and report["new tokens that held-out text uses"][1] >= 3


# ------------------------------------------------------------------------------------------------------- any tokenizer


@pytest.mark.parametrize("name", [*MADE, "bpe", "unigram", "sentencepiece-bpe", "wordpiece"])
def test_every_kind_of_tokenizer(name):
    """A text without new tokens is cut as before; a BPE's text with them, too, when they are taken apart."""
    vocab = vocabulary(name)
    try:
        growth = grown_from_text(vocab, [DOMAIN, "\n".join(LINES[:60]), "東京タワー " * 9], 40)
    except UserError as error:  # of characters or bytes alone, words of them are not joined
        assert "no neighbouring tokens" in str(error) and name in ("characters as words", "words")
        return
    edit = growing(growth.tokens, len(vocab), len(vocab), merges=growth.merges, scores=growth.scores)
    spec = json.loads(vocab.tokenizer.to_str())
    grown = tk.Tokenizer.from_str(json.dumps(edit_spec(spec, edit)))
    assert vocab.tokenizer.get_vocab().items() <= grown.get_vocab().items()
    apart = dict(zip(growth.merges, growth.tokens))
    texts = [*random_texts(80), *DOMAIN.split("\n")[:20]]
    old, new = (t.encode_batch(texts, add_special_tokens=False) for t in (vocab.tokenizer, grown))
    bpe = spec["model"]["type"] == "BPE"
    pieces = vocab.tokenizer.get_vocab()
    merged = {token: pair for pair, token in apart.items()} if len(apart) == len(growth.tokens) else {}

    def taken_apart(token: str) -> list[int]:
        if token in merged:
            return [i for part in merged[token] for i in taken_apart(part)]
        return [pieces[token]] if token in pieces else [pieces[f"<0x{byte:02X}>"] for byte in token.encode()]

    some = 0
    for x, y in zip(old, new):
        if max(y.ids, default=0) < len(vocab):
            assert x.ids == y.ids
        else:
            some += 1
        if bpe and merged:
            assert [i for token in y.tokens for i in taken_apart(token)] == x.ids
    assert some > 10


def test_characters_that_were_bytes():
    """Become tokens of their own, and are joined with others."""
    vocab = vocabulary("sentencepiece-bpe")
    text = "የሰው ልጅ ሁሉ ሲወለድ ነጻ ነው " * 30
    assert len(vocab.tokenizer.encode(text).ids) > 2 * len(text)
    growth = grown_from_text(vocab, [text], 30)
    edit = growing(growth.tokens, len(vocab), len(vocab), merges=growth.merges)
    grown = tk.Tokenizer.from_str(json.dumps(edit_spec(json.loads(vocab.tokenizer.to_str()), edit)))
    assert len(grown.encode(text).ids) < len(text) / 2
    assert any(len(token) == 1 for token in growth.tokens) and any("ነው" in token for token in growth.tokens)


def test_merging_goes_on_as_a_trainer_would():
    """Against pairs counted anew at each step."""
    vocab = vocabulary("bpe")
    words = words_of(vocab, LINES[:80])
    merging = Merging(vocab, words)
    texts = {i: text for text, i in vocab.tokenizer.get_vocab().items()}
    plain = [([texts[i] for i in word], n) for word, n in words.items()]
    known = set(texts.values())
    for _ in range(25):
        counts: dict[tuple[str, str], int] = {}
        for word, n in plain:
            for p in zip(word, word[1:]):  # noqa: RUF007
                counts[p] = counts.get(p, 0) + n
        most = max(n for p, n in counts.items() if p[0] + p[1] not in known)
        assert merging.step()
        best = merging.merges[-1]
        assert counts[best] == most and best[0] + best[1] not in known
        known.add(best[0] + best[1])
        for word, _ in plain:
            k = 0
            while k + 1 < len(word):
                if (word[k], word[k + 1]) == best:
                    word[k : k + 2] = ["".join(best)]
                k += 1
    assert merging.symbols() == [word for word, _ in plain]


# ---------------------------------------------------------------------------------------------------------- from a list


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_of_words(kind, tmp_path):
    """Each is one token, within a text, too, and no merge makes what is no token.

    https://github.com/stephantul/skeletoken/pull/81: merges for overlapping pairs, of which most made nothing.
    """
    base = model_folder(tmp_path / "base", kind)
    lead = " " if kind in ("gpt2", "qwen3") else ""
    (tmp_path / "words.txt").write_text("".join(f"{lead}{word}\n" for word in WORDS))
    output = add_tokens(base, tmp_path / "out", tokens=tmp_path / "words.txt", method="first_last")
    made = tk.Tokenizer.from_file(str(output / "tokenizer.json"))
    old = tk.Tokenizer.from_file(str(base / "tokenizer.json")).get_vocab_size()
    for word in WORDS:
        (i,) = made.encode(f"{lead}{word}", add_special_tokens=False).ids
        assert i >= old
    model = json.loads(made.to_str())["model"]
    for a, b in model.get("merges", []):
        assert {a, b, a + b} <= model["vocab"].keys()
    inside = made.encode(f"all {WORDS[0]} and {WORDS[1]}", add_special_tokens=False).ids
    assert sum(i >= old for i in inside) >= 2
    again = load_base_model(output, body=False)
    assert again.vocab.tokens[inside[-1]].strip() == WORDS[1].encode()


def test_a_tokenizer_that_puts_a_space_before_words():
    """Byte-level ones may: https://github.com/stephantul/skeletoken/pull/81."""
    made = tk.Tokenizer.from_str(tokenizer("gpt2").to_str())
    made.pre_tokenizer = tk.pre_tokenizers.ByteLevel(add_prefix_space=True)
    vocab = vocabulary_of(made)
    for word in (WORDS[0], f" {WORDS[0]}"):
        growth = grown_from_list(vocab, [word])
        edit = growing(growth.tokens, len(vocab), len(vocab), merges=growth.merges)
        grown = tk.Tokenizer.from_str(json.dumps(edit_spec(json.loads(made.to_str()), edit)))
        assert grown.encode(WORDS[0]).tokens == [f"Ġ{WORDS[0]}"]
        assert grown.encode(f"a {WORDS[0]}").tokens[1:] == [f"Ġ{WORDS[0]}"]


def test_tokens_that_cannot_be(tmp_path):
    base = model_folder(tmp_path / "base", "gpt2")
    tokens = ["two words", " return", "<|endoftext|>", " photosynthesis"]
    message = (
        r"3 of 4 tokens cannot be added: 'two words' is cut into several words before the tokenizer's model sees it; "
        r"' return' is a token already; '<\|endoftext\|>' is nothing, or an added token, for the tokenizer; leave them out"
    )
    with pytest.raises(UserError, match=message):
        add_tokens(base, tmp_path / "out", tokens=tokens, method="fvt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base"]
    output = add_tokens(base, tmp_path / "out", tokens=tokens, method="fvt", skip=True)
    made = tk.Tokenizer.from_file(str(output / "tokenizer.json"))
    assert len(made.encode(" photosynthesis").ids) == 1
    with pytest.raises(UserError, match="none of the 1 tokens can be added: the first, ' return', is a token already"):
        add_tokens(base, tmp_path / "other", tokens=[" return"], method="fvt", skip=True)


def test_tokens_that_no_merge_makes_stay_so():
    """Joining their parts would make them of texts that never had them."""
    vocab = vocabulary("like llama3")
    known = vocab.tokenizer.get_vocab()
    assert "Ġunreachable" in known and "unreachable" in known
    growth = grown_from_list(vocab, [" unreachableness"])
    assert "Ġunreachableness" in growth.tokens and not known.keys() & set(growth.tokens)
    letters = vocabulary_of(byte_tokenizer([b"a", b"b", b"c", b"ab", b"bc"]))
    with pytest.raises(UserError, match="'abc' would be made of a token that exists, but that no merge makes"):
        grown_from_list(letters, ["abc"])


CLASSES = {"gpt2": "GPT2Tokenizer", "qwen3": "Qwen2Tokenizer", "bert": "BertTokenizer", "llama": "LlamaTokenizer"}


@pytest.mark.parametrize("kind", CLASSES)
def test_classes_that_build_the_tokenizer_by_rules_of_their_own(kind, tmp_path):
    """After both edits, Transformers cuts texts as tokenizer.json does."""
    from transformers import AutoTokenizer

    base = model_folder(tmp_path / "base", kind)
    edit_json(base / "tokenizer_config.json", tokenizer_class=CLASSES[kind])
    (base / "vocab.txt").write_text("old\n")
    (tmp_path / "text.txt").write_text("\n".join(LINES[:40]))
    lead = " " if kind in ("gpt2", "qwen3") else ""
    more = add_tokens(base, tmp_path / "more", tokens=[f"{lead}{word}" for word in WORDS], method="fvt")
    fewer = trim(more, tmp_path / "fewer", text=str(tmp_path / "text.txt"))
    for output in (more, fewer):
        made, loaded = tk.Tokenizer.from_file(str(output / "tokenizer.json")), AutoTokenizer.from_pretrained(output)
        assert loaded.get_vocab() == made.get_vocab() and not (output / "vocab.txt").exists()
        for line in [*LINES[:40], "photosynthesis and so on"]:
            assert loaded(line, add_special_tokens=False)["input_ids"] == made.encode(line, add_special_tokens=False).ids


# -------------------------------------------------------------------------------------------- rows beyond the tokenizer


@pytest.mark.parametrize("fits", [True, False])
def test_padding_rows_are_used_first(fits, tmp_path):
    """New ids come right after the old ones, not after the padding, and get rows even if the table does not grow.

    https://github.com/hiyouga/LlamaFactory/pull/10547: Qwen's embedding has 271 rows more than its tokenizer.
    """
    base = model_folder(tmp_path / "base", "qwen3")  # 20 rows beyond
    tokens = [" photon"] if fits else [f" {word}" for word in WORDS]
    output = add_tokens(base, tmp_path / "out", tokens=tokens, method="fvt")
    old, new, rows, after = sizes(base, output)
    assert (rows, after) == (old + 20, old + 20 if fits else new) and (new <= old + 20) == fits
    model, made = load_base_model(base, body=False), tk.Tokenizer.from_file(str(output / "tokenizer.json"))
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        before, now = (load_file(f / "model.safetensors")[name] for f in (base, output))
        np.testing.assert_array_equal(now[:old], before[:old])
        assert (before[old : min(new, rows)] != now[old : min(new, rows)]).any(1).all()
        np.testing.assert_array_equal(before[new:], now[new:rows])
        for token in tokens:
            (i,) = made.encode(token).ids
            assert old <= i < new
            np.testing.assert_allclose(now[i], before[model.vocab.tokenizer.encode(token).ids].mean(0), rtol=1e-4, atol=1e-6)


def test_a_padding_row_that_a_setting_names(tmp_path):
    base = model_folder(tmp_path / "base", "qwen3")
    size = load_base_model(base, body=False).vocab
    edit_json(base / "config.json", image_token_id=len(size) + 3)
    with pytest.raises(UserError, match=r"image_token_id is \d+, which has a row but no token"):
        add_tokens(base, tmp_path / "out", tokens=[" photon"], method="fvt")


# ------------------------------------------------------------------------------------------------------ rows and command


@pytest.mark.slow
def test_the_usual_method_is_the_hypernetwork_of_the_package(tmp_path, text, capsys):
    argv = ["--model", "pico", "--output", str(tmp_path / "out"), "--from-text", str(text), "--n", "5"]
    assert run_command("add-tokens", argv, "zett add-tokens") == 0
    captured = capsys.readouterr()
    assert captured.out == f"wrote {tmp_path / 'out'}\n" and "5 new tokens" in captured.err
    settings = json.loads((tmp_path / "out" / "zett.json").read_text())["settings"]
    assert settings["method"] == "hypernet:path=pico"
    old = load_base_model("pico", body=False)
    table = make_method("hypernet:pico")(old, load_tokenizer(tmp_path / "out"))
    rows = load_base_model(tmp_path / "out", body=False).table.input
    np.testing.assert_array_equal(rows[: len(old.vocab)], old.table.input)
    np.testing.assert_array_equal(rows[len(old.vocab) :], np.asarray(table.input)[len(old.vocab) :].astype(rows.dtype))


def test_the_usual_method_without_a_hypernetwork(tmp_path, text, capsys):
    base = model_folder(tmp_path / "base", "gpt2")
    argv = ["--model", str(base), "--output", str(tmp_path / "out"), "--from-text", str(text), "--n", "3"]
    assert run_command("add-tokens", [*argv, "--dry-run"], "zett add-tokens") == 0
    preview = capsys.readouterr().out
    assert not (tmp_path / "out").exists() and "3 tokens would come: " in preview and preview.endswith("nothing was written\n")
    assert run_command("add-tokens", argv, "zett add-tokens") == 0
    captured = capsys.readouterr()
    assert captured.out == f"wrote {tmp_path / 'out'}\n" and "3 new tokens" in captured.err
    assert "rows are the means of their pieces' (fvt)" in captured.err
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"zett add-tokens {' '.join(argv[:4])}" in card and "New tokens, from id 499 on: `'" in card
    settings = json.loads((tmp_path / "out" / "zett.json").read_text())["settings"]
    assert settings["method"] == "fvt" and settings["report"] == preview_add_tokens(base, from_text=str(text), n=3).facts


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give either tokens .* or a text"),
        ({"tokens": ["a"], "from_text": "b"}, "give either tokens"),
        ({"tokens": []}, "tokens is an empty list"),
        ({"tokens": "absent.txt"}, "tokens absent.txt cannot be read"),
        ({"from_text": "short.txt"}, "the text has no neighbouring tokens that occur 2 times"),
        ({"from_text": "short.txt", "n": 0}, "n is 0; it has to be a whole number, at least 1"),
        ({"tokens": ["a"], "method": "ftv"}, "method 'ftv' does not exist"),
        ({"tokens": ["a"], "language": "de"}, "language is 'de', but the method 'fvt' makes no use of it"),
    ],
)
def test_bad_input(settings, message, tmp_path, monkeypatch):
    base = model_folder(tmp_path / "base", "gpt2")
    (tmp_path / "short.txt").write_text("a b c\nd e\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        add_tokens(base, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()
