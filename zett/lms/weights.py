"""Hugging Face safetensors <-> parameters of a body, strict in both directions.

A base family lists its tensors once, as rows of `Weight`; loading and saving both read that list, and every tensor that is
unknown, missing or misshapen is reported in one error.
"""

import dataclasses

TRANSPOSE = "transpose"


@dataclasses.dataclass(frozen=True)
class Weight:
    """One tensor, or one per layer where `key` holds `{i}`.

    key: Hugging Face name. path: dotted path in the body. transform: None or TRANSPOSE (torch stores `[out, in]`).
    when: name of a boolean field of the family's config that says whether the tensor exists.
    """

    key: str
    path: str
    transform: str | None = None
    when: str | None = None
