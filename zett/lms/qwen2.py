"""The Qwen2 and Qwen2.5 family: Llama with biases of queries, keys and values; upper layers may have a window."""

import dataclasses
from typing import Any, ClassVar

from zett.lms import llama
from zett.lms.decoder import DecoderConfig, layer_windows


@dataclasses.dataclass(frozen=True)
class Qwen2Config(DecoderConfig):
    defaults: ClassVar[dict[str, Any]] = {
        "num_key_value_heads": 32,
        "sliding_window": 4096,
        "max_window_layers": 28,
        "max_position_embeddings": 32768,
    }

    @property
    def qkv_bias(self) -> bool:
        return True

    @classmethod
    def _fields(cls, hf: dict) -> dict[str, Any]:
        return super()._fields({**hf, "attention_bias": False}) | {"windows": upper_windows(hf)}


def upper_windows(hf: dict) -> tuple[int | None, ...] | None:
    """The windows of layers from `max_window_layers` on, if `use_sliding_window`."""
    hf = {**hf, "sliding_window": hf["sliding_window"] if hf.get("use_sliding_window") else None}
    above = [hf["sliding_window"] is not None and i >= hf["max_window_layers"] for i in range(hf["num_hidden_layers"])]
    return layer_windows(hf, above)


FAMILY = dataclasses.replace(llama.FAMILY, model_types=("qwen2",), Config=Qwen2Config)
