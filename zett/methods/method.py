"""What a method is."""

import dataclasses
from pathlib import Path
from typing import ClassVar, Protocol, Self

from zett.lms.base import BaseModel
from zett.table import EmbeddingTable
from zett.vocab import Vocabulary


class Method(Protocol):
    """Base model and target vocabulary -> the target's table: `len(target)` valid rows.

    baseline: whether it needs no training. Reports compare trained methods with the baselines. per_layer: whether it makes rows
    of any width from the rows in `base.table`, so that a table with a part for each layer can take its place
    (`zett.methods.per_layer`). needs: in words, what it takes beside a base model and a vocabulary. first: the setting that may
    be given without its name, as in "hypernet:DIR".
    """

    baseline: ClassVar[bool] = False
    per_layer: ClassVar[bool] = False
    needs: ClassVar[str] = "nothing"
    first: ClassVar[str | None] = None

    def precheck(self, model: str | Path) -> None:
        """UserError if small files already show that the method is not for this base model. Called before the model is read."""
        return

    def settled(self, base: BaseModel) -> Self:
        """The method with settings that follow from the model filled in. UserError if a quick look shows that it is not for it.

        Called before anything slow; `base` may be without its body.
        """
        return self

    def inputs(self) -> tuple[str | Path, ...]:
        """Folders and files that the method reads, which nothing may overwrite; names on the Hub may be among them."""
        return ()

    def check(self, base: BaseModel) -> None:
        """UserError if the method cannot be used with `base`. Called before anything slow."""
        return

    @property
    def reads_body(self) -> bool:
        """Whether a call needs the model with its body."""
        return False

    def adapted(self, base: BaseModel) -> BaseModel:
        """The model whose body reads the rows of a call: `base` itself, unless the method changes its body."""
        return base

    def model(self, base: BaseModel, target: Vocabulary, *, seed: int = 0) -> BaseModel:
        """`base` with the vocabulary `target`, and the body that goes with its rows."""
        return dataclasses.replace(
            base.with_vocabulary(self(base, target, seed=seed), target), params=self.adapted(base).params
        )

    def record(self, target: Vocabulary) -> dict:
        """What the call for `target` found out: for zett.json, and under "scaled" and "body" in words for the
        card."""
        return {}

    def about(self, base: BaseModel) -> str | None:
        """In words, what goes with `base`, which has been checked: for the terminal and for cards. None: nothing to say."""
        return None

    def __call__(self, base: BaseModel, target: Vocabulary, *, seed: int = 0) -> EmbeddingTable: ...
