"""The SmolLM3 family: Llama with every fourth layer without positions."""

import dataclasses
from typing import Any, ClassVar

from zett.lms import llama
from zett.lms.decoder import DecoderConfig, layer_windows
from zett.lms.rope import Rope


@dataclasses.dataclass(frozen=True)
class SmolLM3Config(DecoderConfig):
    rotated: tuple[bool, ...] = (True,) * 4  # whether a layer has positions

    defaults: ClassVar[dict[str, Any]] = {
        "num_key_value_heads": 4,
        "sliding_window": None,
        "no_rope_layer_interval": 4,
        "max_position_embeddings": 32768,
    }
    rope_theta: ClassVar[float] = 2_000_000.0

    @property
    def ropes(self) -> tuple[Rope | None, ...]:
        return tuple(self.rope if rotated else None for rotated in self.rotated)

    @classmethod
    def _fields(cls, hf: dict) -> dict[str, Any]:
        number, interval = hf["num_hidden_layers"], hf["no_rope_layer_interval"]
        # In spite of the field's name, 1 stands for a layer with positions.
        rotated = hf.get("no_rope_layers") or [(i + 1) % interval != 0 for i in range(number)]
        local = bool(hf.get("use_sliding_window")) and hf["sliding_window"] is not None
        windows = layer_windows(hf, [local and not has_rope for has_rope in rotated[:number]])
        return super()._fields(hf) | {"windows": windows, "rotated": tuple(bool(x) for x in rotated[:number])}


FAMILY = dataclasses.replace(llama.FAMILY, model_types=("smollm3",), Config=SmolLM3Config, tied_default=True)
