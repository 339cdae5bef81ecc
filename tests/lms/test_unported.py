"""Architectures that are not computed here: their rows are found in their files, and exchanged."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
from lms.folders import edit_json, raw_tensors
from safetensors.numpy import save_file

from zett.errors import UserError
from zett.lms import load_base_model
from zett.methods import make_method
from zett.transfer import transfer
from zett.vocab import load_tokenizer
from zett.vocab.train import save_tokenizer

LLAMA = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24, num_key_value_heads=2)
OTHERS = {
    "OPT": dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=4, ffn_dim=24, word_embed_proj_dim=8),
    "Bloom": dict(hidden_size=16, n_layer=2, n_head=4),
    "Falcon": dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=4, tie_word_embeddings=False),
    "Mixtral": dict(**LLAMA, num_local_experts=4),
    "Qwen2Moe": dict(**LLAMA, moe_intermediate_size=12, shared_expert_intermediate_size=12, num_experts=4),
    "GPTJ": dict(n_embd=16, n_layer=2, n_head=2, rotary_dim=4, tie_word_embeddings=False),
    "T5": dict(d_model=16, num_layers=2, num_heads=4, d_kv=4, d_ff=24, decoder_start_token_id=1),
    "Albert": dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24, embedding_size=8),
    "DistilBert": dict(dim=16, n_layers=2, n_heads=4, hidden_dim=24),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_architectures_that_are_not_ported(kind, tmp_path, target_folder):
    """The result is the base model with its rows exchanged by hand, as PyTorch computes both."""
    torch = pytest.importorskip("torch")
    import transformers

    head = {"T5": "Seq2SeqLM", "Albert": "MaskedLM", "DistilBert": "MaskedLM"}.get(kind, "CausalLM")
    auto = getattr(transformers, f"AutoModelFor{head}")
    torch.manual_seed(0)
    config = {"vocab_size": 300, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1, **OTHERS[kind]}
    model = auto.from_config(getattr(transformers, f"{kind}Config")(**config)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(tmp_path / "base")
    save_tokenizer(tiny.tokenizer(), tmp_path / "base")
    output = transfer(tmp_path / "base", target_folder, tmp_path / "out", method="fvt")

    table = make_method("fvt")(load_base_model(tmp_path / "base", body=False), load_tokenizer(target_folder))
    assert (table.bias is not None) == (kind in ("GPTJ", "Albert", "DistilBert"))
    model.resize_token_embeddings(400, mean_resizing=False)
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(torch.tensor(table.input))
        model.get_output_embeddings().weight.copy_(torch.tensor(table.output_rows))
        if table.bias is not None:
            model.get_output_embeddings().bias.copy_(torch.tensor(table.bias))
    again, info = auto.from_pretrained(output, output_loading_info=True)
    assert not any(info.values()), info
    ids = torch.arange(2, 400, 11)[None]
    inputs = {"input_ids": ids, **({"decoder_input_ids": ids} if kind == "T5" else {})}
    with torch.no_grad():
        np.testing.assert_array_equal(again.eval()(**inputs).logits, model(**inputs).logits)
    before, after = raw_tensors(tmp_path / "base"), raw_tensors(output)
    assert before.keys() == after.keys()
    unchanged = {name for name in before if before[name] == after[name]}
    assert all(300 in before[name][1] for name in before.keys() - unchanged) and len(before) - len(unchanged) in (1, 2, 3)
    config = json.loads((output / "config.json").read_text())
    assert config["vocab_size"] == 400 and config["architectures"] == [type(model).__name__]


def write_strange(folder: Path, tensors: dict, **config) -> Path:
    """A model of an unknown architecture with these tensors, by shape."""
    tiny.tokenizer_folder(folder)
    values = {name: np.full(shape, i, np.float32) for i, (name, shape) in enumerate(tensors.items())}
    save_file(values, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "strange", "vocab_size": 300, "pad_token_id": 1, **config}))
    return folder


def test_nested_configs(tmp_path, target_folder):
    """The language model in a multimodal one."""
    tensors = {"vision.patches.weight": (7, 5), "language_model.model.embed_tokens.weight": (300, 4)}
    config = {"vocab_size": 300, "pad_token_id": 1, "tie_word_embeddings": True}
    model = write_strange(tmp_path / "model", tensors, text_config=config)
    edit_json(model / "config.json", vocab_size=...)
    after = json.loads((transfer(model, target_folder, tmp_path / "out", method="mean") / "config.json").read_text())
    assert after["text_config"]["vocab_size"] == 400 and "vocab_size" not in after
    assert raw_tensors(tmp_path / "out")["language_model.model.embed_tokens.weight"][1] == (400, 4)


def test_a_bias_of_zeros(tmp_path, target_folder):
    """BART's relatives have one of shape [1, V]."""
    model = write_strange(tmp_path / "model", {"final_logits_bias": (1, 300), "wte.weight": (300, 4)})
    tensors = raw_tensors(transfer(model, target_folder, tmp_path / "out", method="mean"))
    assert tensors["final_logits_bias"][1] == (1, 400) and not any(tensors["final_logits_bias"][3])
    model = write_strange(tmp_path / "other", {"wte.weight": (300, 4), "final_logits_bias": (1, 300)})
    with pytest.raises(UserError, match="final_logits_bias has a value for each token, of which no method knows"):
        transfer(model, target_folder, tmp_path / "no", method="mean")


def test_the_size_is_that_of_the_language_model(tmp_path, target_folder):
    """Also where the whole model's config repeats it, and where another part has a size of its own."""
    config = {"vocab_size": 300, "pad_token_id": 1}
    model = write_strange(tmp_path / "model", {"wte.weight": (300, 4)}, text_config=config, audio_config={"vocab_size": 7})
    after = json.loads((transfer(model, target_folder, tmp_path / "out", method="mean") / "config.json").read_text())
    assert (after["vocab_size"], after["text_config"]["vocab_size"], after["audio_config"]["vocab_size"]) == (400, 400, 7)
    edit_json(model / "config.json", vocab_size=...)
    after = json.loads((transfer(model, target_folder, tmp_path / "two", method="mean") / "config.json").read_text())
    assert (after["text_config"]["vocab_size"], after["audio_config"]["vocab_size"]) == (400, 7)


def test_ids_of_other_tokens_follow(tmp_path, target_folder):
    model = write_strange(tmp_path / "model", {"wte.weight": (300, 4)}, decoder_start_token_id=0, image_token_index=None)
    after = json.loads((transfer(model, target_folder, tmp_path / "out", method="mean") / "config.json").read_text())
    assert after["decoder_start_token_id"] == load_tokenizer(target_folder).roles["bos"]
    edit_json(model / "config.json", image_token_index=200)
    with pytest.raises(UserError, match=r"image_token_index is the token '.+' \(200\), which the target tokenizer lacks"):
        transfer(model, target_folder, tmp_path / "other", method="mean")


def test_ids_that_configs_leave_out(tmp_path, target_folder):
    """Since they are those of the model's class in Transformers, which would put in the ids of before."""
    model = write_strange(tmp_path / "model", {"wte.weight": (300, 4)}, model_type="pegasus")  # it starts with the id 0
    spec = json.loads((target_folder / "tokenizer.json").read_text())
    other = next(text for text, i in spec["model"]["vocab"].items() if i == 70)
    spec["model"]["vocab"] |= {"<|endoftext|>": 70, other: 0}
    spec["added_tokens"][0]["id"] = 70
    shutil.copytree(target_folder, tmp_path / "target")
    (tmp_path / "target" / "tokenizer.json").write_text(json.dumps(spec))
    after = json.loads((transfer(model, tmp_path / "target", tmp_path / "out", method="mean") / "config.json").read_text())
    assert "decoder_start_token_id" not in json.loads((model / "config.json").read_text())
    assert (after["decoder_start_token_id"], after["eos_token_id"]) == (70, 70)
    edit_json(model / "config.json", model_type="bart")  # with the id 2
    with pytest.raises(UserError, match=r"decoder_start_token_id is the token '.+' \(2\), which the target tokenizer lacks"):
        transfer(model, target_folder, tmp_path / "other", method="mean")


@pytest.mark.parametrize(
    ("tensors", "config", "message"),
    [
        ({"wte.weight": (300, 4), "codes": (300, 2)}, {}, "cannot tell .* 300 tokens; of the right size or name: codes, wte"),
        ({"wte.weight": (300, 4), "head.kernel": (4, 300)}, {}, "cannot tell .*head.kernel"),
        ({"wte.weight": (300, 4), "embed.weight": (300, 4)}, {}, "several tensors could be the input rows, .* embed.weight"),
        ({"wte.weight": (300, 4), "head.weight": (300, 4)}, {"tie_word_embeddings": True}, "head.weight differs from wte"),
        ({"wte.weight": (301, 4)}, {}, "cannot tell which .*: none"),
        ({"wte.weight": (300, 4)}, {"vocab_size": "many"}, "vocab_size is 'many'; it has to be a whole number"),
        ({"embeddings.position_embeddings.weight": (9, 4), "wte.weight": (300, 4)}, {"model_type": "mpnet", "pad_token_id": 5},
         "positions of a model of type 'mpnet' count from its padding id, which would change from 5 to 1"),
    ],
)  # fmt: skip
def test_vocabularies_that_are_not_certain(tensors, config, message, tmp_path, target_folder):
    model = write_strange(tmp_path / "model", tensors, **config)
    with pytest.raises(UserError, match=message):
        transfer(model, target_folder, tmp_path / "out", method="fvt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
