"""Donors: models that own the target tokenizer, and whose rows say what its tokens mean."""

import dataclasses
import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from zett import progress
from zett.errors import UserError
from zett.lms.base import BaseModel, load_base_model
from zett.methods.method import Method
from zett.methods.mixing import shared_tokens
from zett.vocab import Vocabulary

KNOWN = 0.5  # of the new tokens, the share that a donor has to have


@dataclasses.dataclass(frozen=True)
class DonorMethod(Method):
    """What methods with a donor share. name: theirs in METHODS."""

    donor: str | None = None

    name: ClassVar[str]
    needs: ClassVar[str] = "a model that was trained with the target tokenizer"
    per_layer: ClassVar[bool] = True
    first: ClassVar[str] = "donor"

    def precheck(self, model: str | Path) -> None:
        check_given(self.donor, self.name)

    def check(self, base: BaseModel) -> None:
        """UserError if the donor cannot be read."""
        self._donor  # noqa: B018

    def inputs(self) -> tuple[str, ...]:
        return (self.donor,) if self.donor else ()

    @functools.cached_property
    def _donor(self) -> BaseModel:
        return load_donor(self.donor, self.name)


def check_given(donor: str | None, method: str) -> str:
    """UserError if there is no donor."""
    if not donor:
        raise UserError(
            f"method {method} needs a donor, a model that was trained with the target tokenizer: {method}:donor=MODEL "
            "(a folder, a GGUF file or a name on the Hugging Face Hub)"
        )
    return donor


def load_donor(donor: str | None, method: str) -> BaseModel:
    """The donor's table and tokenizer. Warns of what a stranger's rows can do."""
    with progress.phase(f"reading the donor {check_given(donor, method)}"):
        found = load_base_model(str(donor), body=False)
    logging.getLogger("zett").warning(
        'zett: warning: rows are made from those of the donor %s: one that you do not trust can carry "breaker tokens", '
        "harmless there and harmful in this model (arXiv 2601.00065); zett inspect --model RESULT lists rows that stand out",
        donor,
    )
    return found


def donor_ids(donor: BaseModel, target: Vocabulary) -> np.ndarray:
    """`[V]` the donor's id of each target token: that with the same bytes, or of the same special token; else -1."""
    ids = np.asarray([donor.vocab.id_of.get(token, -1) if token else -1 for token in target.tokens], np.int64)
    for text, i in target.special.items():
        if ids[i] < 0:
            ids[i] = donor.vocab.special.get(text, -1)
    return ids


def shared_by_all(
    base: BaseModel, target: Vocabulary, donor: BaseModel, ids: np.ndarray, method: str, least: int
) -> tuple[np.ndarray, np.ndarray]:
    """The tokens that base model, target and donor share: their ids in the donor and in the base.

    ids: those of the donor by target id. UserError if they are fewer than `least`.
    """
    shared, source = shared_tokens(base, target)
    known = ids[shared] >= 0
    if known.sum() < least:
        raise UserError(
            f"method {method}: the base model {base.name}, the donor {donor.name} and the target tokenizer share "
            f"{known.sum():,} tokens; at least {least:,} are needed"
        )
    return ids[shared[known]], source[known]


def check_knows(donor: BaseModel, ids: np.ndarray, new: Sequence[int] | np.ndarray) -> None:
    """UserError unless the donor has most of the `new` target tokens: its own tokenizer has to be the target's."""
    found = int((ids[new] >= 0).sum())
    if found < KNOWN * len(new):
        raise UserError(
            f"the donor {donor.name} has {found:,} of the {len(new):,} tokens of the target tokenizer that the base model "
            "lacks; give a model that was trained with the target tokenizer"
        )
    if found < len(new):
        progress.say(f"{len(new) - found:,} tokens that the donor lacks get the mean of their pieces' rows")


def check_finite(donor: BaseModel, rows: np.ndarray) -> None:
    """UserError for rows of the donor with infinities or NaN, which would spread to all that is made from them."""
    if not np.isfinite(rows).all():
        raise UserError(f"the donor {donor.name} has embedding rows that are not finite numbers")
