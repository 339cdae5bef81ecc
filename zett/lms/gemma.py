"""The Gemma family, first generation: Llama with scaled input rows, norms of `1 + weight`, wide heads and GELU."""

import dataclasses
from typing import Any, ClassVar

from zett.lms import llama
from zett.lms.decoder import DecoderConfig


@dataclasses.dataclass(frozen=True)
class GemmaConfig(DecoderConfig):
    defaults: ClassVar[dict[str, Any]] = {
        "head_dim": 256,
        "num_key_value_heads": 16,
        "hidden_act": "gelu_pytorch_tanh",
        "max_position_embeddings": 8192,
    }
    norm_offset: ClassVar[float] = 1.0
    scaled_inputs: ClassVar[bool] = True

    @classmethod
    def _fields(cls, hf: dict) -> dict[str, Any]:
        # Google's first config files say "gelu" and mean its tanh approximation; Transformers does not read hidden_activation.
        activation = "gelu_pytorch_tanh" if hf["hidden_act"] == "gelu" else hf["hidden_act"]
        return super()._fields({**hf, "hidden_act": activation, "hidden_activation": None})


FAMILY = dataclasses.replace(llama.FAMILY, model_types=("gemma",), Config=GemmaConfig, tied_default=True)
