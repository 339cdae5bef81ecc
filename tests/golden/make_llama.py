"""Write the golden files of tests/test_llama.py: tiny random Llamas and what Transformers computes with them, in float32.

To renew them (needs PyTorch): `python tests/golden/make_llama.py`. The test that regenerates them tells when that is needed.
"""

import json
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
SMALL = {
    "vocab_size": 40,
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
VARIANTS = {
    "gqa": {},
    "mha_tied": {"num_key_value_heads": 4, "tie_word_embeddings": True},
    "head_dim": {"head_dim": 10},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "rope_llama3": {"rope_parameters": LLAMA3},
    "rope_linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0}, "rms_norm_eps": 1e-3},
}
# Real tokens of each row; all, padding at the left, padding at the right.
LENGTH = 10
MASK = np.asarray([[1] * LENGTH, [0] * 3 + [1] * 7, [1] * 6 + [0] * 4], np.int64)


def compute(variant: str) -> tuple[dict[str, np.ndarray], dict]:
    """Tensors (Hugging Face weights; `golden.*`: inputs, all hidden states, logits, gradient) and the config of a variant."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**{**SMALL, **VARIANTS[variant]}, attn_implementation="eager")
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Transformers starts norms at one, biases at zero and the rest small: nothing that a wrong port would stumble over.
            parameter.copy_(torch.randn_like(parameter) * 0.25 + (1.0 if "norm" in name else 0.0))
    ids = torch.randint(0, config.vocab_size, MASK.shape)
    mask = torch.from_numpy(MASK)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    out = model(ids, attention_mask=mask, position_ids=positions, output_hidden_states=True, use_cache=False)
    loss = (torch.log_softmax(out.logits, -1)[:, :-1].gather(-1, ids[:, 1:, None])[..., 0] * mask[:, 1:] * mask[:, :-1]).sum()
    loss.backward()
    tensors = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    if config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    tensors["golden.ids"], tensors["golden.mask"] = ids.numpy(), MASK
    tensors["golden.hidden"] = torch.stack(out.hidden_states).detach().numpy()
    tensors["golden.logits"] = out.logits.detach().numpy()
    tensors["golden.input_gradient"] = model.get_input_embeddings().weight.grad.numpy()
    return {name: np.ascontiguousarray(value) for name, value in tensors.items()}, config.to_diff_dict()


def main():
    from safetensors.numpy import save_file

    for variant in VARIANTS:
        tensors, config = compute(variant)
        config.pop("transformers_version", None)
        save_file(tensors, FOLDER / f"llama_{variant}.safetensors", metadata={"config": json.dumps(config, sort_keys=True)})


if __name__ == "__main__":
    main()
