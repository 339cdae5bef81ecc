"""Makes published-*.safetensors: hypernetworks in the published format with random weights, and what they compute in PyTorch.

The layers are Transformers' RoBERTa, the rest is plain PyTorch after the paper and the facts in zett/hypernet/published.py.
`python tests/hypernet/golden/make_published.py` writes all; tests/hypernet/test_published.py compares.
"""

import re
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
CONFIG = {
    "model_type": "zett_hypernetwork", "hn_model_type": "roberta", "hn_model_name_or_path": "roberta-base",
    "hn_hidden_size": 16, "hn_intermediate_size": 24, "hn_n_layers": 2, "hn_num_attention_heads": 4, "hn_surface_maxlen": 5,
    "hn_n_extra_tokens": 9,
    "hn_embed_using_source_embeddings": True, "hn_embed_target_priors": False, "hn_add_inter_token_attention": False,
    "hn_concat_last_hidden_state": False, "hn_language_adapter_bottleneck_dim": 0, "hn_rescale_embeddings": True,
    "hn_single_head": False, "hn_predict_bias": True, "hn_embed_lang_id": False, "separate_out_embeddings": True, "n_embd": 6,
    "n_langs": 1, "pad_token_id": 1, "original_vocab_size": 40, "vocab_size": 40, "use_unigram_bias": True,
    "hn_inter_token_attention_bias_by_priors": True, "hn_inter_token_attention_bias_scaler": 1.0, "hn_n_inter_token_blocks": 16,
    "hidden_size": 6, "num_hidden_layers": 32, "architectures": ["ZettHypernet"], "name": "tiny",
}  # fmt: skip
TIED = {"separate_out_embeddings": False}
LANGUAGES = {"hn_embed_lang_id": True, "n_langs": 3, "langs": ["de", "fr", "7"]}
# Name -> what differs from CONFIG.
CASES = {
    "decoder": {},
    "encoder": TIED | LANGUAGES,
    "single": {"hn_single_head": True},
    "plain": {"hn_rescale_embeddings": False, "hn_predict_bias": False, "hn_num_attention_heads": 2},
}


def shapes(config: dict) -> dict[str, tuple]:
    """Of all tensors by PyTorch's names."""
    w, f, d = config["hn_hidden_size"], config["hn_intermediate_size"], config["n_embd"]
    sides = 1 + config["separate_out_embeddings"]

    def dense(name, n_in, n_out):
        return {f"{name}.weight": (n_out, n_in), f"{name}.bias": (n_out,)}

    def norm(name):
        return {f"{name}.weight": (w,), f"{name}.bias": (w,)}

    def projector(name):
        return dense(f"{name}.dense1", w, f) | dense(f"{name}.dense2", f, w) | norm(f"{name}.ln")

    found = dense("input_projection.0", sides * d, w) | projector("input_projection.1")
    found |= {"fallback_embeddings.weight": (config["hn_n_extra_tokens"], sides * d)}
    table = "model.embeddings.{}_embeddings.weight".format
    found |= {table("position"): (12, w), table("token_type"): (1, w), table("word"): (2, w)} | norm(
        "model.embeddings.LayerNorm"
    )
    for i in range(config["hn_n_layers"]):
        layer = f"model.encoder.layer.{i}"
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            found |= dense(f"{layer}.attention.{name}", w, w)
        found |= norm(f"{layer}.attention.output.LayerNorm") | norm(f"{layer}.output.LayerNorm")
        found |= dense(f"{layer}.intermediate.dense", w, f) | dense(f"{layer}.output.dense", f, w)
    heads = ["output_projection"] + ["output_projection_out"] * (sides == 2 and not config["hn_single_head"])
    for name in heads:
        found |= projector(f"{name}.0") | dense(f"{name}.1", w, sides * d if config["hn_single_head"] else d)
    if config["hn_rescale_embeddings"]:
        scalers = {"in_scaler": sides * d, "scaler": d} | ({"out_scaler": d} if sides == 2 else {})
        found |= {f"{name}.{key}": (1, size) for name, size in scalers.items() for key in "wb"}
    if config["hn_predict_bias"]:
        found |= dense("bias_projection", w, 1)
    if config["hn_embed_lang_id"]:
        found |= {"lang_embeddings.weight": (config["n_langs"], w)}
    return found


def _weight(rng: np.random.Generator, name: str, shape: tuple) -> np.ndarray:
    """Such that each part has its say in the result."""
    if name.endswith((".ln.weight", "LayerNorm.weight", "scaler.w")):
        x = rng.normal(1, 0.3, shape)
    elif name.endswith(".weight") and "embeddings" not in name:
        x = rng.normal(0, 1.5 * shape[1] ** -0.5, shape)
    else:
        x = rng.normal(0, 1 if "embeddings" in name else 0.3, shape)
    return x.astype(np.float32)


def inputs(config: dict, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    weights = {f"weights.{name}": _weight(rng, name, shape) for name, shape in shapes(config).items()}
    size, s, pad = config["original_vocab_size"], config["hn_surface_maxlen"], config["pad_token_id"]
    lengths = np.r_[1, s, rng.integers(1, s + 1, 22)]
    forms = rng.integers(2, size + config["hn_n_extra_tokens"], (len(lengths), s)).astype(np.int32)
    forms[np.arange(s) >= lengths[:, None]] = pad
    rows = rng.normal(0.1, 1, (size, config["n_embd"] * (1 + config["separate_out_embeddings"]))).astype(np.float32)
    return weights | {
        "surface_forms": forms,
        "source_embeddings": rows,
        "lang_index": np.asarray(config["n_langs"] - 1, np.int32),
    }


def outputs(config: dict, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Predicted rows, and the bias of those that have a head for it."""
    import torch
    from torch.nn import functional as F
    from transformers import RobertaConfig, RobertaModel

    w = {name.removeprefix("weights."): torch.from_numpy(x) for name, x in given.items() if name.startswith("weights.")}
    forms, rows = torch.from_numpy(given["surface_forms"]).long(), torch.from_numpy(given["source_embeddings"])
    roberta = RobertaModel(
        RobertaConfig(
            vocab_size=2, hidden_size=config["hn_hidden_size"], num_hidden_layers=config["hn_n_layers"],
            num_attention_heads=config["hn_num_attention_heads"], intermediate_size=config["hn_intermediate_size"],
            max_position_embeddings=12, type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1,
        ),
        add_pooling_layer=False,
    ).eval()  # fmt: skip
    roberta.load_state_dict({name.removeprefix("model."): x for name, x in w.items() if name.startswith("model.")})

    def dense(name, x):
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def projector(name, x):
        h = F.gelu(dense(f"{name}.dense1", x), approximate="tanh")
        h = F.gelu(dense(f"{name}.dense2", h), approximate="tanh")
        return F.layer_norm(x + h, x.shape[-1:], w[f"{name}.ln.weight"], w[f"{name}.ln.bias"], 1e-6)

    def rescaled(name, x):
        return x * w[f"{name}.w"] + w[f"{name}.b"] if config["hn_rescale_embeddings"] else x

    size = config["original_vocab_size"]
    table = torch.cat([rescaled("in_scaler", rows), w["fallback_embeddings.weight"]])
    assert len(table) == size + config["hn_n_extra_tokens"]
    x = projector("input_projection.1", dense("input_projection.0", table[forms]))
    mask = forms != config["pad_token_id"]
    if config["hn_embed_lang_id"]:
        # Transformers will add a position and a type to it, which it does not have here.
        language = w["lang_embeddings.weight"][int(given["lang_index"])]
        language = language - w["model.embeddings.position_embeddings.weight"][x.shape[1]]
        language = language - w["model.embeddings.token_type_embeddings.weight"][0]
        x = torch.cat([x, language.expand(len(x), 1, -1)], 1)
        mask = F.pad(mask, (0, 1), value=True)
    positions = torch.arange(x.shape[1]).expand(len(x), -1)
    with torch.no_grad():
        h = roberta(inputs_embeds=x, attention_mask=mask.long(), position_ids=positions).last_hidden_state[:, 0]
    d, tied = config["n_embd"], not config["separate_out_embeddings"]
    first = dense("output_projection.1", projector("output_projection.0", h))
    found = {"predicted_in": rescaled("scaler", first[:, :d])}
    if not tied:
        second = first[:, d:]
        if not config["hn_single_head"]:
            second = dense("output_projection_out.1", projector("output_projection_out.0", h))
        found["predicted_out"] = rescaled("out_scaler", second)
    if config["hn_predict_bias"]:
        found["predicted_bias"] = dense("bias_projection", h)[:, 0]
    return {name: x.numpy() for name, x in found.items()}


def flax_tree(weights: dict) -> dict:
    """PyTorch's names and layout -> Flax's."""
    tree: dict = {}
    for name, x in weights.items():
        if "word_embeddings" in name:
            continue
        *path, leaf = re.sub(r"(projection\w*)\.(\d)", r"\1.layers_\2", name).split(".")
        if leaf == "weight":
            leaf = "embedding" if path[-1].endswith("_embeddings") else "scale" if x.ndim == 1 else "kernel"
        path = ["model", "embeddings", "lang_embedding"] if path == ["lang_embeddings"] else path
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = x.T.copy() if leaf == "kernel" else x
    tree["model"]["encoder"]["layer"]["inter_token_blocks"] = np.zeros((16, 4), np.float32)
    return tree


def case(name: str) -> tuple[dict, dict[str, np.ndarray]]:
    """Config, and all tensors."""
    config = CONFIG | CASES[name]
    given = inputs(config, sorted(CASES).index(name))
    return config, given | outputs(config, given)


if __name__ == "__main__":
    from safetensors.numpy import save_file

    for name in CASES:
        save_file(case(name)[1], FOLDER / f"published-{name}.safetensors")
