"""The Mistral family: Llama with a sliding window in every layer, or in none."""

import dataclasses
from typing import Any, ClassVar

from zett.lms import llama
from zett.lms.decoder import DecoderConfig


@dataclasses.dataclass(frozen=True)
class MistralConfig(DecoderConfig):
    defaults: ClassVar[dict[str, Any]] = {
        "num_key_value_heads": 8,
        "sliding_window": 4096,
        "max_position_embeddings": 131072,
    }

    @classmethod
    def _fields(cls, hf: dict) -> dict[str, Any]:
        window = hf["sliding_window"]
        return super()._fields({**hf, "attention_bias": False}) | {
            "windows": None if window is None else (window,) * hf["num_hidden_layers"]
        }


FAMILY = dataclasses.replace(llama.FAMILY, model_types=("mistral",), Config=MistralConfig)
