"""Rotary position frequencies and every way to scale them that Transformers' decoders have."""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np

# Ways to scale frequencies (Hugging Face's rope_type), and the fields that each of them needs.
ROPE_TYPES: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": ("factor",),
    "longrope": ("short_factor", "long_factor"),
}


@dataclasses.dataclass(frozen=True)
class Rope:
    """Rotary positions: base wavelength `theta`, share `partial` of each head that is rotated, and a scaling or none.

    scaling: sorted items of Hugging Face's `rope_parameters`, "rope_type" among them.
    """

    theta: float = 10000.0
    partial: float = 1.0
    scaling: tuple[tuple[str, Any], ...] | None = None

    @classmethod
    def from_hf(cls, hf: dict, *, theta: float = 10000.0, parameters: dict | None = None) -> "Rope":
        """Read a `config.json`; `theta` is the family's default. ValueError for a rope_type that is not computed.

        parameters: where the config has several entries, that of the layers that are meant.
        """
        # Transformers 5 writes rope_parameters; Transformers 4 wrote rope_theta and rope_scaling.
        found = dict(parameters if parameters is not None else hf.get("rope_scaling") or hf.get("rope_parameters") or {})
        theta = found.pop("rope_theta", None) or hf.get("rope_theta") or theta
        partial = found.pop("partial_rotary_factor", None) or hf.get("partial_rotary_factor") or 1.0
        rope_type = found["rope_type"] = found.get("rope_type") or found.pop("type", None) or "default"
        found.pop("type", None)
        if rope_type not in ROPE_TYPES:
            raise ValueError(f"rope type {rope_type!r} is not supported; supported: {', '.join(ROPE_TYPES)}")
        missing = [field for field in ROPE_TYPES[rope_type] if field not in found]
        if missing:
            raise ValueError(f"rope type {rope_type!r} needs {', '.join(missing)} beside it")
        if rope_type in ("llama3", "yarn", "longrope"):
            original = hf.get("original_max_position_embeddings") or found.get("original_max_position_embeddings")
            found["original_max_position_embeddings"] = original or hf["max_position_embeddings"]
        scaling = tuple(sorted((key, tuple(value) if isinstance(value, list) else value) for key, value in found.items()))
        return cls(float(theta), float(partial), None if rope_type == "default" else scaling)

    def to_hf(self) -> dict:
        """Hugging Face's `rope_parameters`."""
        scaling = {key: list(value) if isinstance(value, tuple) else value for key, value in self.scaling or ()}
        partial = {} if self.partial == 1.0 else {"partial_rotary_factor": self.partial}
        return {"rope_theta": self.theta, "rope_type": "default", **scaling, **partial}

    def check_width(self, head_dim: int) -> None:
        """ValueError if the scaling is that of heads of another width."""
        needed = int(head_dim * self.partial) // 2
        for name in ("short_factor", "long_factor"):
            factors = dict(self.scaling or {}).get(name)
            if factors is not None and len(factors) != needed:
                raise ValueError(f"{name} has {len(factors)} numbers; heads of width {head_dim} need {needed}")

    @property
    def restarts(self) -> tuple[int, ...]:
        """See `BodyConfig.restarts`. What "dynamic" does lies beyond the model's positions."""
        s = dict(self.scaling or {})
        return (s["original_max_position_embeddings"],) if s.get("rope_type") == "longrope" else ()

    def frequencies(self, head_dim: int, max_positions: int, positions_BL):
        """Inverse frequencies `[head_dim * partial / 2]` and the factor of cosines and sines.

        max_positions: the model's, by which some rope_types scale. "dynamic" and "longrope" depend on the largest position in
        the batch.
        """
        width = int(head_dim * self.partial)
        exponents = np.arange(0, width, 2, dtype=np.float64) / width
        inv_freq = 1.0 / self.theta**exponents
        s = dict(self.scaling or {})
        match s.get("rope_type"):
            case "linear":
                inv_freq /= s["factor"]
            case "llama3":
                low, high = s["low_freq_factor"], s["high_freq_factor"]
                wavelength = 2 * math.pi / inv_freq
                smooth = np.clip((s["original_max_position_embeddings"] / wavelength - low) / (high - low), 0, 1)
                inv_freq = (1 - smooth) * inv_freq / s["factor"] + smooth * inv_freq
            case "dynamic":
                longest = jnp.maximum(positions_BL.max() + 1, max_positions)
                stretch = s["factor"] * longest / max_positions - (s["factor"] - 1)
                return 1.0 / (self.theta * stretch ** (width / (width - 2))) ** exponents.astype(np.float32), 1.0
            case "yarn":
                return _yarn(inv_freq, width, self.theta, max_positions, s)
            case "longrope":
                return _longrope(inv_freq, max_positions, s, positions_BL)
        return inv_freq.astype(np.float32), 1.0


def _yarn(inv_freq, width, theta, max_positions, s):
    """YaRN (https://arxiv.org/abs/2309.00071): high frequencies stay, low ones are divided, with a ramp in between."""
    original = s["original_max_position_embeddings"]
    factor = max_positions / original if s["factor"] is None else s["factor"]

    def temperature(mscale: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0

    scale = s.get("attention_factor")
    if scale is None:
        both = s.get("mscale") and s.get("mscale_all_dim")
        scale = temperature(s["mscale"]) / temperature(s["mscale_all_dim"]) if both else temperature(1.0)

    def column(rotations: float) -> float:
        return width * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    first, last = column(s.get("beta_fast") or 32), column(s.get("beta_slow") or 1)
    if s.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, width - 1)
    ramp = np.clip((np.arange(width // 2) - first) / (last - first or 0.001), 0, 1)
    return (inv_freq / factor * ramp + inv_freq * (1 - ramp)).astype(np.float32), float(scale)


def _longrope(inv_freq, max_positions, s, positions_BL):
    """LongRoPE (https://arxiv.org/abs/2402.13753): a divisor for each frequency, and other ones for texts beyond the original
    length.
    """
    original = s["original_max_position_embeddings"]
    short, long = (np.asarray(s[name], np.float64) for name in ("short_factor", "long_factor"))
    factor = s.get("factor")
    factor = max_positions / original if factor is None else factor
    scale = s.get("attention_factor")
    if scale is None:
        scale = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
    chosen = jnp.where(positions_BL.max() + 1 > original, *((inv_freq / x).astype(np.float32) for x in (long, short)))
    return chosen, float(scale)
