"""Tiny models of the shapes that clients meet, each with a tokenizer such as its kind has, and with padding rows."""

import functools
import json
import random
from pathlib import Path

import numpy as np
import tokenizers as tk
from encoders import random_body
from safetensors.numpy import save_file
from tiny import TEXT

from zett.vocab.train import train_tokenizer

SHAPE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
DECODER = SHAPE | {"num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 64}
ROLES = ("bos", "eos", "pad", "unk", "cls", "sep", "mask")
# model_type -> architecture, config, special tokens by role, rows beyond the tokenizer
KINDS = {
    "llama": ("LlamaForCausalLM", DECODER, {"bos": "<s>", "eos": "</s>", "unk": "<unk>"}, 0),
    "gpt2": ("GPT2LMHeadModel", {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64},
             {"bos": "<|endoftext|>", "eos": "<|endoftext|>"}, 0),
    "gemma3_text": ("Gemma3ForCausalLM", DECODER | {"sliding_window": 8},
                    {"pad": "<pad>", "eos": "<eos>", "bos": "<bos>", "unk": "<unk>"}, 5),
    "qwen3": ("Qwen3ForCausalLM", DECODER | {"tie_word_embeddings": False}, {"eos": "<|im_end|>", "pad": "<|endoftext|>"}, 20),
    "bert": ("BertForMaskedLM", SHAPE | {"max_position_embeddings": 64},
             {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}, 0),
    "xlm-roberta": ("XLMRobertaForMaskedLM", SHAPE | {"max_position_embeddings": 66, "type_vocab_size": 1},
                    {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>"}, 0),
}  # fmt: skip
LATE = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>"]  # Qwen's come after the vocabulary
LINES = [line for line in "".join(TEXT).split("\n") if line.strip()]


@functools.cache
def tokenizer(kind: str, size: int = 500):
    special = list(dict.fromkeys(KINDS[kind][2].values()))
    if kind == "qwen3":
        made = _trained("bpe", size, [])
        made.normalizer = tk.normalizers.NFC()
        made.add_special_tokens(LATE[:3])
        made.add_tokens([tk.AddedToken(LATE[3], normalized=False)])
        return made
    if kind == "gpt2":
        made = _trained("bpe", size, special)
        made.pre_tokenizer = tk.pre_tokenizers.ByteLevel(add_prefix_space=False)
        return made
    if kind == "bert":
        made = _trained("wordpiece", size, [*special, *(f"[unused{i}]" for i in range(9))])
        made.normalizer = tk.normalizers.BertNormalizer(lowercase=True)
        made.decoder = tk.decoders.WordPiece()
        return _framed(made, "[CLS]", "[SEP]")
    if kind == "xlm-roberta":
        made = _trained("unigram", size, special[:4])
        made.normalizer, made.pre_tokenizer = tk.normalizers.NFKC(), tk.pre_tokenizers.Metaspace()
        made.add_special_tokens(["<mask>"])
        return _framed(made, "<s>", "</s>")
    made = _trained("sentencepiece-bpe", size, special)
    if kind == "gemma3_text":
        made.pre_tokenizer = tk.pre_tokenizers.Split(" ", "merged_with_previous")
        made.add_special_tokens(["<start_of_turn>", "<end_of_turn>"])
        made.add_tokens([tk.AddedToken("▁" * n, normalized=False) for n in (2, 3, 4)])
    else:
        made.normalizer = tk.normalizers.Sequence([tk.normalizers.Prepend("▁"), tk.normalizers.Replace(" ", "▁")])
        made.pre_tokenizer = None
    return _framed(made, special[0] if kind == "llama" else "<bos>", None)


def _trained(how: str, size: int, special: list[str]):
    """With the special tokens first."""
    spec = json.loads(train_tokenizer(how, size, TEXT).to_str())
    model = spec["model"]
    entries = list(model["vocab"].items()) if isinstance(model["vocab"], dict) else [(text, s) for text, s in model["vocab"]]
    gone = {"<|endoftext|>", "<|pad|>", "<unk>", "[UNK]"}
    entries = [(text, value) for text, value in entries if text not in gone]
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    spec["added_tokens"] = [{"id": i, "content": text, **plain} for i, text in enumerate(special) if "unused" not in text]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {text: i for i, text in enumerate([*special, *(text for text, _ in entries)])}
    else:
        model["vocab"] = [*([text, 0.0] for text in special), *([text, score] for text, score in entries)]
        model["unk_id"] = special.index("<unk>")
    if "<unk>" not in special and model["type"] == "BPE":
        model["unk_token"] = None
    return tk.Tokenizer.from_str(json.dumps(spec))


def _framed(made, before: str | None, after: str | None):
    around = [text for text in (before, after) if text]
    made.post_processor = tk.processors.TemplateProcessing(
        single=" ".join(filter(None, [before, "$A", after])),
        pair=" ".join(filter(None, [before, "$A", after, "$B", after])),
        special_tokens=[(text, made.token_to_id(text)) for text in around],
    )
    return made


def model_folder(folder: Path, kind: str, **fields) -> Path:
    """A random model of the kind; returns `folder`. fields: of its config.json."""
    architecture, shape, roles, beyond = KINDS[kind]
    made = tokenizer(kind)
    folder.mkdir(parents=True)
    made.save(str(folder / "tokenizer.json"))
    special = {f"{role}_token": text for role, text in roles.items()}
    decoder = {
        str(i): {"content": t.content, "special": t.special, "normalized": t.normalized, "lstrip": False, "rstrip": False,
                 "single_word": False}
        for i, t in sorted(made.get_added_tokens_decoder().items())
    }  # fmt: skip
    tokenizer_config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config | {"added_tokens_decoder": decoder}))
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    rows = made.get_vocab_size() + beyond
    ids = {f"{role}_token_id": made.token_to_id(roles[role]) if role in roles else None for role in ("bos", "eos", "pad")}
    config = (
        shape | ids | {"model_type": kind, "vocab_size": rows, "architectures": [architecture], "dtype": "float32"} | fields
    )
    (folder / "config.json").write_text(json.dumps(config))
    if architecture.endswith("CausalLM") or kind == "gpt2":
        (folder / "generation_config.json").write_text(json.dumps({k: v for k, v in ids.items() if v is not None}))
    save_file(_tensors(kind, config, rows), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _tensors(kind: str, config: dict, rows: int) -> dict[str, np.ndarray]:
    family, tensors, rng = random_body(config)
    names = [family.input_rows, *([] if config.get("tie_word_embeddings", True) and kind != "llama" else [family.output_rows])]
    tensors |= {name: rng.standard_normal((rows, 16)).astype(np.float32) for name in names}
    if family.bias is not None:
        tensors[family.bias] = rng.standard_normal(rows).astype(np.float32)
    return tensors


def random_texts(number: int, seed: int = 0) -> list[str]:
    """Lines of this project's code, shuffled words of it, and odd characters."""
    rng = random.Random(seed)
    words = " ".join(LINES).split()
    odd = ["  ", "\n", "naïve", "東京", "🙂", "\t", "12345", "tHe", "_", "</s>", "▁▁▁"]
    texts = [rng.choice(LINES) for _ in range(number // 2)]
    texts += ["".join(rng.choice([" ", " ", ""]) + rng.choice(words) for _ in range(rng.randint(1, 12))) for _ in range(number)]
    return texts + [f"{rng.choice(words)}{rng.choice(odd)}{rng.choice(words)}" for _ in range(number // 2)]
