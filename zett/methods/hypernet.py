"""A trained hypernetwork (arXiv 2405.07883) predicts the rows of every token."""

import dataclasses
import functools
from pathlib import Path
from typing import ClassVar, Self

from zett.belongs import check_belongs, shipped_candidates
from zett.choices import VARIANTS
from zett.errors import UserError
from zett.hypernet.base_rows import Fit
from zett.hypernet.embed import Embedder
from zett.hypernet.kept import line_ends, towards_own
from zett.hypernet.release import load_hypernet
from zett.hypernet.shipped import shipped_for
from zett.hypernet.trained import TrainedHypernet
from zett.hypernet.variant import fit_of, look_alike, variant_table
from zett.lms.base import BaseModel, load_base_model
from zett.lms.layers import product_dtype
from zett.methods.common import check_untie
from zett.methods.fit_scale import ScaleFit, fit_scale, texts_of
from zett.methods.method import Method
from zett.table import EmbeddingTable
from zett.values import nearest
from zett.vocab import Vocabulary

DTYPE = "dtype of method 'hypernet'"


@dataclasses.dataclass(frozen=True)
class HypernetMethod(Method):
    """Rows that a hypernetwork trained for this base model, or one that it is a variant of, predicts.

    path: its folder or Hub name; if left out, the one in the package that is for the model. language: that of the target, by
    code or number, for a hypernetwork that knows languages. base: the base model that it was trained for, where the model is a
    fine-tuned or quantised variant of it; variant: from which rows it then predicts: variant (the default, with or without
    a base), base, or difference (from the base's, plus how the variant's have moved from them). dtype: of matrix products;
    "bfloat16" changes rows by as much as storing them in it does; "auto" takes it where the hardware multiplies it. shared: how
    far the rows of tokens that the model has already go back to its own, from 0, as predicted, to 1, as they were: 0.5 keeps
    the answers of SmolLM2 nearer to what they were, and reads near tokenizers better and far ones worse. newlines: the same for
    tokens of line ends alone, where it is more than `shared`; None: 1 for a model with a chat template, whose turns are made of
    them and of special tokens, which keep their rows, too; else 0. fit_scale: a text file or folder; how far the predictions go
    from FVT's rows is then chosen such that the model reads it best.
    """

    path: str | None = None
    language: str | None = None
    base: str | None = None
    variant: str | None = None
    dtype: str = "float32"
    shared: float = 0.0
    newlines: float | None = None
    fit_scale: str | None = None

    needs: ClassVar[str] = "a hypernetwork trained for the base model"
    first: ClassVar[str] = "path"

    def __post_init__(self):
        for name in ("shared", "newlines"):
            if not 0 <= (getattr(self, name) or 0) <= 1:
                raise UserError(
                    f"{name} is {getattr(self, name)!r}; it has to be from 0, rows as predicted, to 1, the model's own"
                )
        if self.variant is None:
            return
        if self.variant not in VARIANTS:
            raise UserError(f"variant is {self.variant!r}; {nearest(self.variant, VARIANTS)}")
        if self.base is None and self.variant != "variant":
            raise UserError(
                f"variant is {self.variant!r}, which needs the rows of the model that the hypernetwork was trained for; give "
                "it as base (--base DIR)"
            )

    @classmethod
    def shipped(cls, language: str | int | None, base: str | Path | None, variant: str | None) -> Self:
        """The one in the package that is for the model."""
        return cls(None, None if language is None else str(language), None if base is None else str(base), variant)

    def __call__(self, base: BaseModel, target: Vocabulary, *, seed: int = 0) -> EmbeddingTable:
        """`seed` is not used. UserError if the hypernetwork belongs to another base model."""
        table = self._predicted(base, target)
        if self.fit_scale is None:
            return table
        table, self._scales[target] = fit_scale(self.adapted(base), target, table, self.fit_scale)
        return table

    def _predicted(self, base: BaseModel, target: Vocabulary) -> EmbeddingTable:
        trained, own, dtype = self._trained(base), self._base, product_dtype(self.dtype, DTYPE)
        if own is None:
            table = trained(base, target, language=self.language, dtype=dtype)
        else:
            self._fits(base)
            table = variant_table(trained, base, own, target, self.way, language=self.language, dtype=dtype)
        newlines = line_ends(base) if self.newlines is None else self.newlines
        return towards_own(table, base, target, self.shared, max(self.shared, newlines))

    def embedder(self, base: BaseModel) -> Embedder:
        """What makes rows of single tokens. UserError where the settings ask for more than the hypernetwork's own rows."""
        for name, value in self._beyond_rows().items():
            if value is not None:
                raise UserError(f"{name} is {value!r}, which single tokens make no use of; leave it out")
        return Embedder(self._trained(base), base, language=self.language)

    def _beyond_rows(self) -> dict:
        return {
            "base": self.base,
            "fit_scale": self.fit_scale,
            "shared": self.shared or None,
            "newlines": self.newlines or None,
        }

    def adapted(self, base: BaseModel) -> BaseModel:
        return self._trained(base).adapted(base)

    @property
    def reads_body(self) -> bool:
        return self.fit_scale is not None or (self.path is not None and self._given.reads_body)

    @functools.cached_property
    def _scales(self) -> dict[Vocabulary, ScaleFit]:
        """What was chosen, by the vocabulary."""
        return {}

    def record(self, target: Vocabulary) -> dict:
        fit, body = self._scales.get(target), {} if self.path is None else self._given.record(target)
        return body if fit is None else body | {"scale": dataclasses.asdict(fit), "scaled": fit.words()}

    def inputs(self) -> tuple[str | Path, ...]:
        return () if self.fit_scale is None else (self.fit_scale,)

    def precheck(self, model: str | Path) -> None:
        product_dtype(self.dtype, DTYPE)
        if self.fit_scale is not None:
            texts_of(self.fit_scale)
        first = model if self.base is None else self.base
        if self.path is None:
            shipped_candidates(first)
        else:
            for one in dict.fromkeys((first, model)):
                check_belongs(one, self.path)

    def settled(self, base: BaseModel) -> Self:
        if self.path is None:
            return dataclasses.replace(self, path=self._path(base)).settled(base)
        if self._base is None:
            self._trained(base).quick_look(base)
        else:
            self._fit_of_base(self._trained(base), self._base)
            look_alike(base, self._base)
        return self

    def check(self, base: BaseModel) -> None:
        """UserError unless the hypernetwork belongs to `base`, and knows the language."""
        self._fits(base)
        trained = self._trained(base)
        trained.language_number(self.language)
        check_untie(base, trained.kinds == 2)

    def about(self, base: BaseModel) -> str:
        trained = self._trained(base)
        said, fit = f"hypernetwork {self._path(base)}: {base.name} is ", self._fits(base)
        kept = "; line ends keep their rows, for its chat template" if self.newlines is None and line_ends(base) else ""
        if self._base is None:
            return said + fit.words(trained.its_base) + kept + trained.body_words
        own = self._fit_of_base(trained, self._base).words(trained.its_base)
        return f"{said}{fit.words(str(self.base))}; {self.base} is {own}; rows {VARIANTS[self.way]}{kept}{trained.body_words}"

    @property
    def way(self) -> str:
        """Which of VARIANTS is done."""
        return self.variant or next(iter(VARIANTS))

    def _path(self, base: BaseModel) -> str:
        return self.path or shipped_for(base if self._base is None else self._base)

    def _trained(self, base: BaseModel) -> TrainedHypernet:
        return load_hypernet(self._path(base)) if self.path is None else self._given

    @functools.cached_property
    def _given(self) -> TrainedHypernet:
        return load_hypernet(str(self.path))

    @functools.cached_property
    def _base(self) -> BaseModel | None:
        return None if self.base is None else load_base_model(self.base, body=False)

    def _fits(self, base: BaseModel) -> Fit:
        """UserError unless the hypernetwork is for `base`, or for the given base model, of which `base` is a variant."""
        trained, own = self._trained(base), self._base
        if own is None:
            return trained.fit(base)
        known, fit = self._fit_of_base(trained, own), fit_of(base, own)
        if known.exact is False and base.fingerprint == trained.base["fingerprint"]:
            raise UserError(
                f"base is {self.base!r}, a variant, and the model is {base.name}, for which the hypernetwork was trained; swap "
                "the two, or leave base out"
            )
        return fit

    def _fit_of_base(self, trained: TrainedHypernet, own: BaseModel) -> Fit:
        try:
            return trained.fit(own)
        except UserError as error:
            raise UserError(f"base is {self.base!r}, but {error}") from None
