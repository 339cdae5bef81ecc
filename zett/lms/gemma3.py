"""The Gemma 3 family, text: Gemma 2 without soft caps, with normalised queries and keys, five local layers to a global one.

Local and global layers rotate with different frequencies.
"""

import dataclasses
from typing import Any, ClassVar, Literal

from zett.lms import gemma2
from zett.lms.decoder import QK_NORM_WEIGHTS, DecoderConfig, layer_windows
from zett.lms.rope import Rope


@dataclasses.dataclass(frozen=True)
class Gemma3Config(DecoderConfig):
    """`rope` is that of the global layers, `local_rope` that of the layers with a window."""

    local_rope: Rope = Rope()

    defaults: ClassVar[dict[str, Any]] = {
        "head_dim": 256,
        "num_key_value_heads": 4,
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": 4096,
        "sliding_window_pattern": 6,
        "query_pre_attn_scalar": 256,
        "max_position_embeddings": 131072,
    }
    rope_theta: ClassVar[float] = 1_000_000.0
    qk_norm: ClassVar[Literal["head"]] = "head"
    norm_offset: ClassVar[float] = 1.0
    scaled_inputs: ClassVar[bool] = True

    @property
    def ropes(self) -> tuple[Rope | None, ...]:
        return tuple(self.rope if window is None else self.local_rope for window in self.layer_windows)

    @classmethod
    def _fields(cls, hf: dict) -> dict[str, Any]:
        if hf.get("attn_logit_softcapping") is not None:
            raise ValueError("attn_logit_softcapping is set, which no Gemma 3 model computes")
        pattern = hf["sliding_window_pattern"]
        return super()._fields(hf) | {
            "windows": layer_windows(hf, [(i + 1) % pattern != 0 for i in range(hf["num_hidden_layers"])]),
            "attention_scale": hf["query_pre_attn_scalar"] ** -0.5,
            "logit_softcap": hf.get("final_logit_softcapping"),
            "local_rope": cls._rope_of(hf, "sliding_attention"),
        }

    @classmethod
    def _rope(cls, hf: dict) -> Rope:
        return cls._rope_of(hf, "full_attention")

    @classmethod
    def _rope_of(cls, hf: dict, layer_type: str) -> Rope:
        # Older files have rope_theta and rope_scaling for the global layers, and rope_local_base_freq for the local ones.
        parameters = dict((hf.get("rope_parameters") or {}).get(layer_type) or {})
        if layer_type == "sliding_attention":
            hf = {**hf, "rope_theta": hf.get("rope_local_base_freq", 10000.0)}
        else:
            parameters |= hf.get("rope_scaling") or {}
        return Rope.from_hf(hf, theta=cls.rope_theta, parameters=parameters)


FAMILY = dataclasses.replace(
    gemma2.FAMILY, model_types=("gemma3_text",), Config=Gemma3Config, weights=(*gemma2.FAMILY.weights, *QK_NORM_WEIGHTS)
)
