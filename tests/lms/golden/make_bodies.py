"""Write the golden files of test_decoders.py, test_gpt.py and test_encoders.py: what Transformers computes, in float32, with
tiny models whose weights are drawn anew from the names and shapes in each file.

To renew them (needs PyTorch): `python tests/lms/golden/make_bodies.py`. The tests that regenerate them tell when that is
needed.
"""

import json
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
LENGTH = 16
VOCAB = 32
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": VOCAB, "pad_token_id": 0}
NEOX = SMALL | {"intermediate_size": 24, "max_position_embeddings": 64}
STARCODER2 = NEOX | {"num_attention_heads": 4, "num_key_value_heads": 2}
BERT = SMALL | {"intermediate_size": 24, "max_position_embeddings": LENGTH}
ROBERTA = BERT | {"pad_token_id": 1, "max_position_embeddings": LENGTH + 2, "type_vocab_size": 1}
MODERNBERT = SMALL | {"intermediate_size": 24, "local_attention": 6} | dict.fromkeys(
    ["bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"]
)  # fmt: skip
LINEAR = {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0}
DECODER = STARCODER2 | {"hidden_size": 16, "num_hidden_layers": 2, "tie_word_embeddings": False}
WINDOW = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}
GEMMA = DECODER | {"head_dim": 6, "tie_word_embeddings": True}


def scaled(kind: str, **fields) -> dict:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 100.0, **fields}}


# Lengths are so small that the long ones of the 16 tokens are beyond windows and the positions of the original models.
DECODERS = {
    "llama-gqa": ("LlamaForCausalLM", DECODER),
    "llama-mha_tied": (
        "LlamaForCausalLM", DECODER | {"num_key_value_heads": 4, "tie_word_embeddings": True, "rms_norm_eps": 1e-3}
    ),
    "llama-head_dim": ("LlamaForCausalLM", DECODER | {"head_dim": 10}),
    "llama-biases": ("LlamaForCausalLM", DECODER | {"attention_bias": True, "mlp_bias": True, "hidden_act": "gelu"}),
    "llama-llama3": (
        "LlamaForCausalLM",
        DECODER | scaled("llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16),
    ),
    "llama-linear": ("LlamaForCausalLM", DECODER | scaled("linear", factor=2.0)),
    "llama-dynamic": ("LlamaForCausalLM", DECODER | scaled("dynamic", factor=2.0) | {"max_position_embeddings": 12}),
    "llama-yarn": (
        "LlamaForCausalLM",
        DECODER | {"head_dim": 16} | scaled("yarn", factor=4.0, original_max_position_embeddings=16),
    ),
    "mistral-window": ("MistralForCausalLM", DECODER | {"sliding_window": 5, "head_dim": 8}),
    "mistral-everywhere": ("MistralForCausalLM", DECODER | {"sliding_window": None}),
    "qwen2-tied": ("Qwen2ForCausalLM", DECODER | {"tie_word_embeddings": True}),
    "qwen2-window": (
        "Qwen2ForCausalLM",
        DECODER | WINDOW | {"num_attention_heads": 2}
        | scaled("yarn", factor=2.0, original_max_position_embeddings=64, beta_fast=4, mscale=0.7, mscale_all_dim=1.3,
                 truncate=False),
    ),
    "qwen3-tied": ("Qwen3ForCausalLM", DECODER | {"head_dim": 10, "tie_word_embeddings": True}),
    "qwen3-window": ("Qwen3ForCausalLM", DECODER | WINDOW | {"head_dim": 6, "attention_bias": True}),
    "gemma-tied": ("GemmaForCausalLM", GEMMA | {"num_key_value_heads": 1}),
    "gemma-untied": (
        "GemmaForCausalLM",
        GEMMA | {"tie_word_embeddings": False, "hidden_act": "gelu", "attention_bias": True, "rms_norm_eps": 1e-2},
    ),
    "gemma2-tied": ("Gemma2ForCausalLM", GEMMA | {"sliding_window": 5, "query_pre_attn_scalar": 12}),
    "gemma2-uncapped": (
        "Gemma2ForCausalLM",
        GEMMA | {"attn_logit_softcapping": None, "final_logit_softcapping": None, "attention_bias": True,
                 "tie_word_embeddings": False},
    ),
    "gemma3_text-tied": (
        "Gemma3ForCausalLM",
        GEMMA | {"num_hidden_layers": 3, "sliding_window": 5, "sliding_window_pattern": 3,
                 "rope_parameters": {
                     "full_attention": {"rope_type": "linear", "rope_theta": 900.0, "factor": 4.0},
                     "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
                 }},
    ),
    "gemma3_text-softcap": (
        "Gemma3ForCausalLM",
        GEMMA | {"final_logit_softcapping": 3.0, "attention_bias": True, "tie_word_embeddings": False,
                 "layer_types": ["full_attention", "sliding_attention"]},
    ),
    "phi3-window": ("Phi3ForCausalLM", DECODER | {"sliding_window": 5, "tie_word_embeddings": True}),
    "phi3-longrope": (
        "Phi3ForCausalLM",
        DECODER | {"num_attention_heads": 2, "partial_rotary_factor": 0.75, "original_max_position_embeddings": 12}
        | scaled("longrope", short_factor=[1.0, 1.5, 2.0], long_factor=[1.5, 3.0, 6.0]),
    ),
    "olmo2-plain": ("Olmo2ForCausalLM", DECODER),
    "olmo2-biases": (
        "Olmo2ForCausalLM", DECODER | {"attention_bias": True, "tie_word_embeddings": True, "num_key_value_heads": 4}
    ),
    "smollm3-window": (
        "SmolLM3ForCausalLM", DECODER | {"no_rope_layer_interval": 2, "use_sliding_window": True, "sliding_window": 5}
    ),
    "smollm3-biases": (
        "SmolLM3ForCausalLM", DECODER | {"no_rope_layers": [0, 1], "attention_bias": True, "mlp_bias": True}
    ),
}  # fmt: skip
# File name -> model class and the fields of its config; the family is the part before the first dash.
VARIANTS = DECODERS | {
    "gpt2-plain": ("GPT2LMHeadModel", SMALL | {"n_positions": LENGTH}),
    "gpt2-by_layer": (
        "GPT2LMHeadModel",
        SMALL | {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True, "activation_function": "gelu"},
    ),
    "gpt2-switches": (
        "GPT2LMHeadModel",
        SMALL | {"n_inner": 24, "activation_function": "relu", "scale_attn_weights": False, "layer_norm_epsilon": 1e-3,
                 "tie_word_embeddings": False},
    ),
    "gpt_neox-parallel": ("GPTNeoXForCausalLM", NEOX),
    "gpt_neox-sequential": (
        "GPTNeoXForCausalLM",
        NEOX | {"use_parallel_residual": False, "rotary_pct": 0.5, "rotary_emb_base": 100, "tie_word_embeddings": True,
                "hidden_act": "gelu_new", "layer_norm_eps": 1e-3},
    ),
    "gpt_neox-no_bias": (
        "GPTNeoXForCausalLM",
        NEOX | {"attention_bias": False, "rope_parameters": LINEAR | {"partial_rotary_factor": 1.0}, "hidden_act": "relu"},
    ),
    "starcoder2-plain": ("Starcoder2ForCausalLM", STARCODER2),
    "starcoder2-window": (
        "Starcoder2ForCausalLM",
        STARCODER2 | {"sliding_window": 5, "use_bias": False, "tie_word_embeddings": False, "norm_epsilon": 1e-3,
                      "hidden_act": "gelu", "rope_parameters": LINEAR},
    ),
    "bert-masked_lm": ("BertForMaskedLM", BERT),
    "bert-switches": (
        "BertForMaskedLM", BERT | {"hidden_act": "gelu_new", "layer_norm_eps": 1e-3, "tie_word_embeddings": False}
    ),
    "bert-no_head": ("BertModel", BERT | {"hidden_act": "relu", "type_vocab_size": 1}),
    "roberta-masked_lm": ("RobertaForMaskedLM", ROBERTA | {"hidden_act": "relu"}),
    "roberta-padding_id": (
        "RobertaForMaskedLM",
        ROBERTA | {"pad_token_id": 4, "max_position_embeddings": LENGTH + 5, "tie_word_embeddings": False},
    ),
    "xlm-roberta-masked_lm": ("XLMRobertaForMaskedLM", ROBERTA),
    "xlm-roberta-no_head": ("XLMRobertaModel", ROBERTA | {"layer_norm_eps": 1e-3}),
    "modernbert-masked_lm": ("ModernBertForMaskedLM", MODERNBERT),
    "modernbert-biases": (
        "ModernBertForMaskedLM",
        MODERNBERT | dict.fromkeys(["norm_bias", "attention_bias", "mlp_bias", "classifier_bias"], True)
        | {"decoder_bias": False, "hidden_activation": "silu", "classifier_activation": "relu", "norm_eps": 1e-3},
    ),
    "modernbert-layers": (
        "ModernBertForMaskedLM",
        MODERNBERT | {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "num_hidden_layers": 3,
                      "tie_word_embeddings": False,
                      "rope_parameters": {"full_attention": LINEAR, "sliding_attention": {"rope_theta": 50.0}}},
    ),
    "modernbert-no_head": ("ModernBertModel", MODERNBERT | {"local_attention": 4}),
}  # fmt: skip
# Real tokens of the first three rows: all, padding at the left, padding at the right. The fourth row holds two sequences.
MASK = np.asarray([[1] * LENGTH, [0] * 5 + [1] * 11, [1] * 9 + [0] * 7], np.int64)
PACKED = (7, 9)


def draw_weights(shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """Weights by name, the same everywhere: NumPy keeps this stream as it is."""
    stream = np.random.RandomState(0)
    weights = {}
    for name, shape in sorted(shapes.items()):
        # Norms around one. Transformers starts biases at zero and the rest small: nothing that a wrong port would stumble over.
        centre = 1.0 if len(shape) == 1 and name.endswith("weight") else 0.0
        weights[name] = (centre + 0.25 * stream.standard_normal(shape)).astype(np.float32)
    return weights


def projection(width: int) -> np.ndarray:
    """What the hidden states of a model without head are multiplied with to get something to differentiate."""
    return np.random.RandomState(1).standard_normal(width).astype(np.float32)


def build(variant: str):
    """The model of a variant, and the shapes of its weights."""
    import torch
    import transformers

    kind, fields = VARIANTS[variant]
    model_class = getattr(transformers, kind)
    config = model_class.config_class(**fields)
    config._attn_implementation = "eager"
    model = model_class(config).float().eval()
    tied = set(model.get_expanded_tied_weights_keys())
    shapes = {name: list(value.shape) for name, value in model.state_dict().items() if name not in tied}
    model.load_state_dict({k: torch.from_numpy(v) for k, v in draw_weights(shapes).items()}, strict=False)
    model.tie_weights()
    return model, shapes


def compute(variant: str) -> tuple[dict[str, np.ndarray], dict, dict]:
    """Inputs and results (all hidden states, logits, gradient), the config, and the shapes of the weights."""
    import torch

    model, shapes = build(variant)
    config = model.config
    stream = np.random.RandomState(2)
    ids = stream.randint(5, VOCAB, (4, LENGTH))
    ids[:3][MASK == 0] = config.pad_token_id
    runs = [(ids[:3], MASK), *((part[None], np.ones((1, len(part)), np.int64)) for part in np.split(ids[3], PACKED[:1]))]
    results = []
    for part, mask in runs:
        part, mask = torch.from_numpy(part), torch.from_numpy(mask)
        # RoBERTa makes its positions of the ids; the others would count padding.
        positions = {} if "roberta" in variant else {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}
        out = model(part, attention_mask=mask, output_hidden_states=True, **positions)
        hidden = torch.stack(out.hidden_states)
        if "logits" in out:
            scores = torch.log_softmax(out.logits, -1).gather(-1, part[..., None])[..., 0]
        else:
            scores = out.last_hidden_state @ torch.from_numpy(projection(config.hidden_size))
        (scores * mask).sum().backward()
        results.append((hidden, out.logits if "logits" in out else out.last_hidden_state))
    hidden, outputs = zip(*results)
    tensors = {
        "ids": ids.astype(np.int32),
        "hidden": torch.cat([hidden[0], torch.cat(hidden[1:], 2)], 1).detach().numpy(),
        "output": torch.cat([outputs[0], torch.cat(outputs[1:], 1)], 0).detach().numpy(),
        "input_gradient": model.get_input_embeddings().weight.grad.numpy(),
    }
    settings = {k: v for k, v in config.to_diff_dict().items() if k != "transformers_version"}
    return {name: np.ascontiguousarray(value) for name, value in tensors.items()}, settings, shapes


def main():
    from safetensors.numpy import save_file

    for variant in VARIANTS:
        tensors, config, shapes = compute(variant)
        metadata = {"config": json.dumps(config, sort_keys=True), "shapes": json.dumps(shapes, sort_keys=True)}
        save_file(tensors, FOLDER / f"{variant}.safetensors", metadata=metadata)


if __name__ == "__main__":
    main()
