"""What a masked language model reads: a text in the frame of its own tokenizer, with some of the tokens hidden.

The mask token and the tokens around a text ([CLS] and [SEP], or <s> and </s>) keep the base model's own input rows, whatever
tokenizer the text is in. They need not exist in that tokenizer, so they have ids below 0: the id -1 - k stands for row k of
`Frame.rows`. Shapes: B texts, L tokens of a text, W = L + the frame's tokens, M hidden tokens, K rows of the frame.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from zett.errors import UserError

MASK = -1


@dataclasses.dataclass(frozen=True)
class Frame:
    """Source ids of the mask token and of what the base model's tokenizer puts before and after a text."""

    mask: int
    before: tuple[int, ...]
    after: tuple[int, ...]

    def __len__(self) -> int:
        """Positions that it takes."""
        return len(self.before) + len(self.after)

    def rows(self, input_rows) -> np.ndarray:
        """The base model's rows `[K, D]` that the ids below 0 stand for, float32."""
        return np.asarray(input_rows[np.asarray([self.mask, *self.before, *self.after])]).astype(np.float32)

    def around(self, ids_BL: np.ndarray, lengths_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The texts in their frame, `[B, W]` int32, and which positions are in use, `[B, W]` bool."""
        size, length = len(self.before), ids_BL.shape[1]
        framed = np.full((len(ids_BL), length + len(self)), MASK, np.int32)
        framed[:, :size] = MASK - 1 - np.arange(size)
        framed[:, size : size + length] = np.where(np.arange(length) < lengths_B[:, None], ids_BL, MASK)
        after = MASK - 1 - size - np.arange(len(self.after))
        np.put_along_axis(framed, size + lengths_B[:, None] + np.arange(len(after)), after, 1)
        return framed, np.arange(framed.shape[1]) < lengths_B[:, None] + len(self)


def frame_of(base) -> Frame:
    """The frame of a masked language model (a `BaseModel`). UserError if it has no head or no mask token."""
    base = base.original or base  # a model with another vocabulary keeps the frame that its body was trained with
    kind, roles, tokenizer = base.hf_config["model_type"], base.vocab.roles, base.vocab.tokenizer
    if not base.config.head:
        raise UserError(
            f"{base.name} is a bidirectional encoder ({kind}) without a masked-language-model head; "
            "this needs the model with its head, or a causal language model"
        )
    if "mask" not in roles:
        raise UserError(f"the tokenizer of {base.name} ({kind}) has no mask token, which a masked language model needs")
    whole = tokenizer.encode("a", add_special_tokens=True)
    text = np.flatnonzero(np.logical_not(whole.special_tokens_mask))
    if 0 < len(text) < len(whole.ids):
        return Frame(roles["mask"], tuple(whole.ids[: text[0]]), tuple(whole.ids[text[-1] + 1 :]))
    # This tokenizer file puts nothing around a text, so take the tokens that have these roles.
    before, after = ([roles[role] for role in pair if role in roles][:1] for pair in (("cls", "bos"), ("sep", "eos")))
    return Frame(roles["mask"], tuple(before), tuple(after))


def text_room(base, frame: Frame) -> int:
    """The most tokens of a text that the base model has positions for."""
    return base.config.room - len(frame)


def hide(
    ids_BL: np.ndarray, lengths_B: np.ndarray, share: float, rngs: Sequence[np.random.Generator], others: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hide a `share` of each text's tokens, at least one, as BERT's training does (arXiv 1810.04805, section 3.1).

    Of the hidden ones 80 % become the mask token, 10 % a random token of the ids `others` and 10 % stay as they are. Returns
    the ids `[B, L]`, the columns of hidden tokens `[B, M]`, and weights `[B, M]`, 0 where a text has fewer than M of them.
    """
    hidden_BL = ids_BL.astype(np.int32)
    most = math.ceil(share * ids_BL.shape[1])
    columns = np.zeros((len(ids_BL), most), np.int32)
    weights = np.zeros((len(ids_BL), most), np.float32)
    for row, (length, rng) in enumerate(zip(lengths_B, rngs)):
        count = min(max(round(share * length), 1), length)
        chosen = np.sort(rng.permutation(length)[:count])
        fate, random = rng.random(count), others[rng.integers(len(others), size=count)]
        hidden_BL[row, chosen] = np.where(fate < 0.8, MASK, np.where(fate < 0.9, random, ids_BL[row, chosen]))
        columns[row, :count], weights[row, :count] = chosen, 1
    return hidden_BL, columns, weights


def embed(rows_VD, frame_KD, ids):
    """Input rows `[..., D]` of `ids [...]`: those of a table, or below 0 those of the frame."""
    own = rows_VD[jnp.maximum(ids, 0)]
    return jnp.where((ids < 0)[..., None], frame_KD[jnp.maximum(-1 - ids, 0)].astype(own.dtype), own)


def masked_texts(
    frame: Frame, ids_BL: np.ndarray, lengths_B: np.ndarray, bytes_BL: np.ndarray, share: float,
    rngs: Sequence[np.random.Generator], others: np.ndarray,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Texts to train on, by name: "inputs" and "mask" `[B, W]`, "columns" of the hidden tokens in them, "targets" and "weights"
    `[B, M]`, and "bytes" `[B]` that the hidden tokens stand for, of `bytes_BL`. For the rest see `hide`."""
    hidden_BL, columns, weights = hide(ids_BL, lengths_B, share, rngs, others)
    inputs, mask = frame.around(hidden_BL, lengths_B)
    return {
        "inputs": inputs,
        "mask": mask,
        "columns": columns + np.int32(len(frame.before)),
        "targets": np.take_along_axis(ids_BL, columns, 1).astype(np.int32),
        "weights": weights,
        "bytes": (np.take_along_axis(bytes_BL, columns, 1) * weights).sum(1).astype(np.float32),
    }
