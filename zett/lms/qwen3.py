"""The Qwen3 family, dense: Qwen2 with normalised queries and keys, and biases only if asked for."""

import dataclasses
from typing import Any, ClassVar, Literal

from zett.lms import llama
from zett.lms.decoder import QK_NORM_WEIGHTS, DecoderConfig
from zett.lms.qwen2 import upper_windows


@dataclasses.dataclass(frozen=True)
class Qwen3Config(DecoderConfig):
    defaults: ClassVar[dict[str, Any]] = {
        "num_key_value_heads": 32,
        "head_dim": 128,
        "sliding_window": 4096,
        "max_window_layers": 28,
        "max_position_embeddings": 32768,
    }
    qk_norm: ClassVar[Literal["head"]] = "head"

    @classmethod
    def _fields(cls, hf: dict) -> dict[str, Any]:
        return super()._fields(hf) | {"windows": upper_windows(hf)}


FAMILY = dataclasses.replace(
    llama.FAMILY, model_types=("qwen3",), Config=Qwen3Config, weights=(*llama.FAMILY.weights, *QK_NORM_WEIGHTS)
)
