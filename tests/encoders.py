"""Tiny masked language models that several tests share."""

import json
from pathlib import Path

import jax
import numpy as np
import tokenizers as tk
from flax import nnx
from safetensors.numpy import save_file
from tiny import TEXT

from zett.lms import weights
from zett.lms.base import BaseModel, load_base_model
from zett.lms.family import Family, family_of

# A tiny encoder of each kind, with its special tokens as the published ones have them: in another order than the mask's.
SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
KINDS = {
    "bert": (BERT, {"max_position_embeddings": 64, "pad_token_id": 0}),
    "xlm-roberta": (ROBERTA, {"max_position_embeddings": 66, "pad_token_id": 1, "type_vocab_size": 1}),
    "modernbert": (BERT, {"max_position_embeddings": 64, "pad_token_id": 0, "local_attention": 12}),
}


def random_body(config: dict) -> tuple[Family, dict[str, np.ndarray], np.random.Generator]:
    """Of a config.json the family, its body's tensors, and what draws further numbers."""
    family = family_of(config)
    ours = family.Config.from_hf(config)
    shapes = nnx.to_pure_dict(nnx.split(nnx.eval_shape(lambda: family.Body(ours, rngs=nnx.Rngs(0))))[1])
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: 0.25 * rng.standard_normal(x.shape), shapes)
    return family, weights.body_tensors(params, family, ours, np.float32), rng


def own_tokenizer(special: list[str], *, lower: bool = False):
    """At most 400 entries, and special tokens around a text: byte-level BPE, or a lower-casing WordPiece."""
    if lower:
        tokenizer = tk.Tokenizer(tk.models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = tk.normalizers.Lowercase()
        tokenizer.pre_tokenizer = tk.pre_tokenizers.BertPreTokenizer()
        trainer = tk.trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    else:
        tokenizer = tk.Tokenizer(tk.models.BPE())
        tokenizer.pre_tokenizer = tk.pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = tk.pre_tokenizers.ByteLevel.alphabet()
        trainer = tk.trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXT, trainer)
    before, after = (special[2], special[3]) if special is BERT else (special[0], special[2])
    tokenizer.post_processor = tk.processors.TemplateProcessing(
        single=f"{before} $A {after}", special_tokens=[(t, tokenizer.token_to_id(t)) for t in (before, after)]
    )
    return tokenizer


def encoder_folder(folder: Path, kind: str, *, head: bool = True, lower: bool | None = None, **fields) -> Path:
    """A random masked language model of `kind`; returns `folder`."""
    special, own = KINDS[kind]
    folder.mkdir(parents=True)
    tokenizer = own_tokenizer(special, lower=kind == "bert" if lower is None else lower)
    tokenizer.save(str(folder / "tokenizer.json"))
    size = tokenizer.get_vocab_size()
    names = {"xlm-roberta": "XLMRoberta", "bert": "Bert", "modernbert": "ModernBert"}
    ids = dict.fromkeys(["bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"]) if kind == "modernbert" else {}
    config = (
        SHAPE | own | ids | {"model_type": kind, "vocab_size": size, "architectures": [names[kind] + "ForMaskedLM"]} | fields
    )
    (folder / "config.json").write_text(json.dumps(config))
    family, tensors, rng = random_body(config)
    tied = config.get("tie_word_embeddings", True)
    rows = [family.input_rows] + ([] if tied else [family.output_rows])
    tensors |= {name: 0.5 * rng.standard_normal((size, 16)).astype(np.float32) for name in rows}
    bias = rng.standard_normal(size).astype(np.float32)
    tensors |= {name: bias.copy() for name in (family.bias, *([] if tied else [f"{family.output_rows[:-7]}.bias"]))}
    if not config.get("decoder_bias", True):
        del tensors[family.bias]
    if not head:
        tensors = {name: x for name, x in tensors.items() if name.startswith(family.prefix)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def bases_in(folder: Path) -> dict[str, BaseModel]:
    """A `BaseModel` of each kind."""
    return {kind: load_base_model(encoder_folder(folder / kind, kind)) for kind in KINDS}


def torch_nats(folder, ids, labels) -> float:
    """What Transformers' masked-language-model loss says of texts `[B][W]`, summed; label -100 does not count."""
    import torch
    import transformers

    model = transformers.AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32).eval()
    total = 0.0
    for text, label in zip(ids, labels):
        with torch.no_grad():
            loss = model(torch.tensor([text]), labels=torch.tensor([label])).loss
        total += float(loss) * sum(x != -100 for x in label)
    return total
