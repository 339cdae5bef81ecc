"""What the config of every body has, whatever its family, so that no code has to ask whether a field is there."""

import dataclasses
from typing import ClassVar, Self


@dataclasses.dataclass(frozen=True)
class BodyConfig:
    """Shape of a body. Field names follow this project; `from_hf` maps Hugging Face's.

    head: whether there are logits; False for an encoder whose files lack the masked-language-model head. The properties are the
    defaults of most families; another family overrides them by a property or a field of the same name.
    """

    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    max_positions: int
    head: bool = True

    causal: ClassVar[bool] = True  # a token sees only what comes before it; False: the body is a bidirectional encoder
    own_head_dim: ClassVar[bool] = False  # whether `head_dim` is a setting, rather than the width divided by `num_heads`

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""
        return self.hidden_size // self.num_heads

    @property
    def num_kv_heads(self) -> int:
        """How many heads of keys and values there are; each serves num_heads / num_kv_heads heads of queries."""
        return self.num_heads

    @property
    def layer_windows(self) -> tuple[int | None, ...]:
        """For each layer, how far it looks, as `attention.attention` counts it; None: everywhere."""
        return (None,) * self.num_layers

    @property
    def logit_softcap(self) -> float | None:
        """Logits are `logit_softcap * tanh(logits / logit_softcap)`; None: they are as they are."""
        return None

    @property
    def first_position(self) -> int:
        """Row of the table of positions that a text's first token gets."""
        return 0

    @property
    def output_bias(self) -> bool:
        """Whether the model has an output bias, in a family whose models may have one."""
        return True

    @property
    def room(self) -> int:
        """How many tokens a text may have at most, special ones included."""
        return self.max_positions - self.first_position

    @property
    def restarts(self) -> tuple[int, ...]:
        """Lengths beyond which a text is read in another way from its first token on, so that no cache of it can be kept."""
        return ()

    @classmethod
    def from_hf(cls, hf: dict) -> Self:
        """Map a Hugging Face `config.json`; ValueError for a setting that is not computed here."""
        raise NotImplementedError
