"""Keys and values of the tokens that a body has read, so that a text can be read on from there.

T: columns that there is room for; N and K as in `zett.lms.layers`.
"""

import dataclasses

import jax
import jax.numpy as jnp

from zett.lms.config import BodyConfig


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    """What the layers keep of each text of a batch: keys and values `[layers, B, T, N, K]`.

    used: `[B]`, how many columns of each text count. The next tokens are put behind these, over whatever stands there, so a
    smaller `used` takes tokens back. There has to be room for all that is read: JAX does not complain if there is none.
    """

    keys: jax.Array
    values: jax.Array
    used: jax.Array

    @classmethod
    def empty(cls, config: BodyConfig, size: int, *, batch: int = 1, dtype=jnp.float32) -> "Cache":
        """For texts of up to `size` tokens."""
        shape = (config.num_layers, batch, size, config.num_kv_heads, config.head_dim)
        return cls(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), jnp.zeros(batch, jnp.int32))

    @property
    def size(self) -> int:
        return self.keys.shape[2]

    def columns(self, length: int):
        """Where the next `length` tokens are put, `[B, L]`."""
        return self.used[:, None] + jnp.arange(length)


@dataclasses.dataclass
class LayerCache:
    """A layer's part of a `Cache`, keys and values `[B, T, N, K]`. Attention, called once in a layer, replaces them."""

    keys: jax.Array
    values: jax.Array
    used: jax.Array

    def extend(self, k_BLNK, v_BLNK):
        """Keys and values with those of the next tokens put in, `[B, T, N, K]`."""
        put = jax.vmap(lambda kept, new, at: jax.lax.dynamic_update_slice_in_dim(kept, new.astype(kept.dtype), at, 0))
        self.keys, self.values = put(self.keys, k_BLNK, self.used), put(self.values, v_BLNK, self.used)
        return self.keys, self.values

    def mask(self, length: int, window):
        """`[B, 1, L, T]`: of the next `length` tokens, each sees itself and what is before it, less than `window` back."""
        back = (self.used[:, None] + jnp.arange(length))[:, :, None] - jnp.arange(self.keys.shape[1])
        seen = back >= 0
        return (seen if window is None else seen & (back < window))[:, None]
