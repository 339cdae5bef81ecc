"""A trained hypernetwork (arXiv 2405.07883) predicts the rows of every token."""

import dataclasses
import functools
from pathlib import Path
from typing import ClassVar

from zett.belongs import check_belongs
from zett.errors import UserError
from zett.hypernet.release import load_hypernet
from zett.hypernet.trained import TrainedHypernet
from zett.lms.base import BaseModel
from zett.lms.layers import product_dtype
from zett.methods.method import Method
from zett.table import EmbeddingTable
from zett.vocab import Vocabulary

DTYPE = "dtype of method 'hypernet'"


@dataclasses.dataclass(frozen=True)
class HypernetMethod(Method):
    """Rows that a hypernetwork trained for this base model predicts.

    path: its folder or Hub name; if left out, the hypernetwork in the package, which is for the base model "pico". language:
    that of the target, by code or number, for a hypernetwork that knows languages. dtype: of matrix products; "bfloat16"
    changes rows by as much as storing them in it does; "auto" takes it where the hardware multiplies it.
    """

    path: str | None = None
    language: str | None = None
    dtype: str = "float32"

    needs: ClassVar[str] = "a hypernetwork trained for the base model"
    first: ClassVar[str] = "path"

    def __call__(self, base: BaseModel, target: Vocabulary, *, seed: int = 0) -> EmbeddingTable:
        """`seed` is not used. UserError if the hypernetwork belongs to another base model."""
        self._check_path(base.name)
        return self._trained(base, target, language=self.language, dtype=product_dtype(self.dtype, DTYPE))

    def precheck(self, model: str | Path) -> None:
        product_dtype(self.dtype, DTYPE)
        self._check_path(str(model))
        check_belongs(model, self.path or "pico")

    def check(self, base: BaseModel) -> None:
        """UserError unless the hypernetwork belongs to `base`, and knows the language."""
        self._check_path(base.name)
        self._trained.check(base)
        self._trained.language_number(self.language)

    def _check_path(self, base: str) -> None:
        if self.path is None and base != "pico":
            raise UserError(
                f"method 'hypernet' needs a hypernetwork made for {base}: give its folder (--hypernet DIR, or hypernet:DIR), "
                "or take a method that needs none, such as fvt"
            )

    @functools.cached_property
    def _trained(self) -> TrainedHypernet:
        return load_hypernet(self.path or "pico")
