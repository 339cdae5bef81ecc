"""The Llama family (Llama 1, 2 and 3, TinyLlama, SmolLM): RMSNorm, rotary positions, grouped-query attention, SwiGLU."""

import dataclasses

from zett.lms.decoder import (
    ATTENTION_WEIGHTS,
    FINAL_NORM,
    MLP_WEIGHTS,
    NORM_WEIGHTS,
    ROTARY_BUFFERS,
    Decoder,
    DecoderConfig,
)
from zett.lms.family import Family


@dataclasses.dataclass(frozen=True)
class LlamaConfig(DecoderConfig):
    def to_hf(self) -> dict:
        """The part of a Hugging Face `config.json` that this class stands for."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": self.activation,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.intermediate_size,
            "rope_theta": self.rope.theta,
            "rope_parameters": self.rope.to_hf(),
            "rms_norm_eps": self.norm_eps,
            "attention_bias": self.attention_bias,
            "mlp_bias": self.mlp_bias,
            "max_position_embeddings": self.max_positions,
        }


LlamaBody = Decoder

FAMILY = Family(
    model_types=("llama",),
    Config=LlamaConfig,
    Body=LlamaBody,
    weights=(*ATTENTION_WEIGHTS, *MLP_WEIGHTS, *NORM_WEIGHTS, FINAL_NORM),
    input_rows="model.embed_tokens.weight",
    output_rows="lm_head.weight",
    prefix="model.",
    ignored=ROTARY_BUFFERS,
)
