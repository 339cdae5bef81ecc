"""A trained hypernetwork: a method that gives a base model the table of any vocabulary."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from zett import progress
from zett.belongs import AnotherModel
from zett.config import HypernetConfig
from zett.errors import UserError
from zett.files.resolve import SOURCE_TOKENIZER
from zett.files.tensors import listed
from zett.hypernet.base_rows import ALIKE, SAME, BaseRows, Fit, how_alike, same_ids
from zett.hypernet.embed import Embedder
from zett.hypernet.emission import emitted, side_by_side
from zett.hypernet.kept import line_ends, towards_own
from zett.hypernet.network import hypernet_graph, kinds_of_rows, shape_words
from zett.hypernet.packing import limit_pieces
from zett.hypernet.scaling import bias_residual, column_stats
from zett.lms.base import BaseModel, body_shapes, load_base_model
from zett.lms.family import family_of
from zett.lms.weights import flatten
from zett.mesh import to_host
from zett.methods.method import Method
from zett.table import EmbeddingTable
from zett.vocab import SurfaceForms, Vocabulary, load_tokenizer, surface_forms
from zett.vocab.forms import with_distance


@dataclasses.dataclass(frozen=True)
class TrainedHypernet(Method):
    """A hypernetwork with its parameters: a method like those of zett/methods.

    hidden_size, tied: of the base model's rows; a tied one's output rows may be predicted all the same (config.untie).
    changes: of the base model's body, to be added to it, where that was trained, too; None: its body stays as it is.
    base: name and fingerprint of the base model that it belongs to. Published ones do not know a fingerprint (None); their base
    has "vocab_size" ids, and they bring the tokenizer that tokens are to be decomposed with. base_rows: some rows of that base,
    by which variants of it are known; None: it works with its base alone.
    """

    config: HypernetConfig
    params: dict
    hidden_size: int
    tied: bool
    base: dict
    folder: Path | None = None
    base_rows: BaseRows | None = None
    changes: dict | None = None

    needs: ClassVar[str] = "a hypernetwork trained for the base model"

    def __repr__(self) -> str:
        size = sum(np.size(x) for x in jax.tree.leaves(self.params))
        where = "" if self.folder is None else f", in {self.folder}"
        return f"TrainedHypernet(for {self.base['name']!r}, {shape_words(self.config)}, {size:,} parameters{where})"

    def check(self, base: BaseModel) -> None:
        """UserError if the hypernetwork belongs to another `BaseModel`; to be called before anything that takes its time."""
        self.fit(base)

    def fit(self, base: BaseModel) -> Fit:
        """Whether `base` is the model that it was trained for, or a variant of it; AnotherModel (a UserError) if it is neither.

        The first is known by all values of its rows, a variant by the same tokenizer and rows that are alike.
        """
        cosine = self.quick_look(base)
        if self.base["fingerprint"] is None:
            return Fit(None, None)
        if cosine is None or cosine >= SAME:
            with progress.phase(f"reading the rows of {base.name} for its fingerprint", "fingerprint" not in vars(base)):
                found = base.fingerprint
            if found == self.base["fingerprint"]:
                return Fit(True, 1.0)
        if cosine is None:
            theirs = str(self.base["fingerprint"])
            raise AnotherModel(
                f"the hypernetwork {self.folder or ''} was trained for the base model {self.base['name']!r} ({theirs[:12]}), "
                f"and this one is another ({found[:12]})",
                "if it is a variant, give the base model, too (--base DIR): the hypernetwork has no rows of it to compare with",
            )
        same, ids = same_ids(self._tokens, base.vocab.tokens)
        if not ids or same < ids:
            raise self._another(base, self._how_alike(base, cosine))
        return Fit(False, cosine)

    def about(self, base: BaseModel) -> str:
        where = f"hypernetwork {self.folder}" if self.folder is not None else "hypernetwork"
        return f"{where}: {base.name} is {self.fit(base).words(self.its_base)}{self.body_words}"

    def record(self, target: Vocabulary) -> dict:
        return {} if self.changes is None else {"body": "body has been changed, too"}

    @property
    def body_words(self) -> str:
        """The end of a sentence about it."""
        return "" if self.changes is None else "; its body is changed, too"

    @property
    def kinds(self) -> int:
        """Of rows that it predicts: 1, input rows alone, or 2."""
        return kinds_of_rows(self.config, self.tied)

    @property
    def its_base(self) -> str:
        return f"its base model {self.base['name']!r}"

    def quick_look(self, base: BaseModel) -> float | None:
        """Median cosine of some rows with those of the model that it was trained for; None if none of these are at hand.

        AnotherModel for rows that are not alike, or of another shape. It takes no time, and `base` may be without its body.
        """
        self._check_shape(base)
        if self.base_rows is None or self.base["fingerprint"] is None:
            return None
        cosine = self.base_rows.cosine(base.table)
        if not cosine >= ALIKE:
            raise self._another(base, self._how_alike(base, cosine))
        return cosine

    def _another(self, base: BaseModel, why: str) -> AnotherModel:
        where, name = self.folder or "", self.base["name"]
        return AnotherModel(
            f"the hypernetwork {where} was trained for the base model {name!r}, and {base.name} is another", why
        )

    def _how_alike(self, base: BaseModel, cosine: float) -> str:
        return how_alike(cosine, self.hidden_size, *same_ids(self._tokens, base.vocab.tokens))

    def _check_shape(self, base: BaseModel) -> None:
        table = base.table
        width, tied = table.input.shape[1], table.output is None
        if (width, tied) != (self.hidden_size, self.tied):
            raise self._another(
                base, f"it has rows of width {width} and tied={tied}, not {self.hidden_size} and tied={self.tied}"
            )
        size, own = self.base.get("vocab_size"), int(table.num_valid)
        if size is not None and size != own:
            raise UserError(f"the hypernetwork was made for a base model of {size} tokens; this one has {own}")
        if self.changes is None:
            return
        if base.config is None:
            raise self._another(base, "it changes the body of its base model, and that of this one cannot be read here")
        theirs = body_shapes(family_of(base.hf_config), base.config)
        ours = {path: np.shape(x) for path, x in flatten(self.changes).items()}
        if wrong := sorted(path for path in {*ours, *theirs} if ours.get(path) != theirs.get(path)):
            raise self._another(base, f"it changes a body of other shapes: {listed(wrong)}")

    @functools.cached_property
    def _tokens(self) -> tuple[bytes, ...] | None:
        found = self.source_tokenizer()
        return None if found is None else tuple(found.tokens)

    def adapted(self, base: BaseModel) -> BaseModel:
        """`base` with the changes of its body, if there are any; it has to be there with its body then."""
        return base if self.changes is None else base.with_changes(self.changes)

    @property
    def reads_body(self) -> bool:
        return self.changes is not None

    def graphdef(self, dtype):
        return hypernet_graph(self.config, self.hidden_size, self.tied, dtype)

    def language_number(self, language: str | int | None) -> int | None:
        """The number of a language that is given by code or number; None if the hypernetwork knows no languages."""
        codes = self.config.languages
        if not codes:
            if language is not None:
                raise UserError(f"the hypernetwork {self.folder or ''} has no languages; leave language (--language) out")
            return None
        if str(language) in codes:
            return codes.index(str(language))
        if str(language).isdecimal() and int(str(language)) < len(codes):
            return int(str(language))
        given = "needs a language (--language)" if language is None else f"does not know the language {language!r}"
        raise UserError(
            f"the hypernetwork {self.folder or ''} {given}: one of {', '.join(codes)}, or a number from 0 to {len(codes) - 1}"
        )

    def rows(
        self, tokenizer: str | Path | Vocabulary, model: Any = None, *, language: str | int | None = None
    ) -> EmbeddingTable:
        """What `zett.transfer` writes for the tokenizer, in float32: `.input`, `.output` and `.bias` as NumPy arrays.

        tokenizer: a folder with tokenizer.json, that file, a Hub name, or a `Vocabulary`; row i is the row of its token i.
        model: the base model, as a `BaseModel` or what `load_base_model` takes; None: the one whose name the hypernetwork
        knows. output is None where the output rows are the input rows. UserError if the hypernetwork belongs to another model.
        """
        model = self._model(model)
        progress.say(self.about(model))
        target = tokenizer if isinstance(tokenizer, Vocabulary) else load_tokenizer(tokenizer)
        return towards_own(self(model, target, language=language), model, target, 0.0, line_ends(model))

    def embed(self, tokens: Sequence[str | bytes], model: Any = None, *, language: str | int | None = None) -> EmbeddingTable:
        """Rows of single tokens, as they stand in a text (" world") or as bytes; those of the last tokens are kept.

        They are the rows that the tokens would have as parts of the base model's vocabulary; see `Embedder`, which has more
        settings. float32 arrays on the host, row i that of token i; output is None where the output rows are the input rows.
        model, language: as in `rows`. UserError.
        """
        key = (str(model) if isinstance(model, str | Path) else id(model), language)
        if key not in self._embedders:  # an embedder keeps its model, so that no other one gets this id
            self._embedders.clear()
            self._embedders[key] = Embedder(self, self._model(model), language=language)
        return self._embedders[key](tokens)

    @functools.cached_property
    def _embedders(self) -> dict[tuple, Embedder]:
        """The last that was used."""
        return {}

    def _model(self, model: Any) -> BaseModel:
        if model is None or isinstance(model, str | Path):
            return load_base_model(self.base["name"] if model is None else model, body=False)
        return model

    def __call__(
        self, base: BaseModel, target: Vocabulary, *, seed: int = 0, language: str | int | None = None, dtype=jnp.float32,
        chunk: int | None = None,
    ) -> EmbeddingTable:  # fmt: skip
        """The table of `target` for `base`, float32, on the host. UserError if the hypernetwork belongs to another base model.

        seed is not used. language: of the target, by code or number. dtype: of products. chunk: positions computed at a time.
        """
        self.check(base)
        return self.table(base, target, language=language, dtype=dtype, chunk=chunk)

    def table(
        self, base: BaseModel, target: Vocabulary, *, language: str | int | None = None, dtype=jnp.float32,
        chunk: int | None = None,
    ) -> EmbeddingTable:  # fmt: skip
        """What calling it returns, for a `base` that has been checked, or whose rows another checked model's are mixed with."""
        source, number = self.source_of(base), self.language_number(language)
        with progress.phase(f"taking {len(target):,} tokens apart into pieces of the base model's tokenizer"):
            forms = limit_pieces(surface_forms(target, source, self.config.max_pieces), self.config.max_pieces)
            forms = with_distance(forms) if self.config.distance else forms
        table, size = base.table, self.base.get("vocab_size", len(source))
        # Piece ids from `size` on stand for fallback rows, not for the padding of the table.
        if forms.pieces.max(initial=0) >= size + self.config.fallback_rows:
            raise UserError(
                f"the hypernetwork has no row for the source id {forms.pieces.max()}; its source tokenizer is another"
            )
        sides = [np.asarray(rows)[:size] for rows in (table.input, table.output) if rows is not None]
        predicted = self.predicted(sides, forms, language=number, dtype=dtype, chunk=chunk)
        special = np.asarray([i for i in range(len(forms)) if 0 <= forms.same[i] < size and not target.tokens[i]], np.int64)
        d, columns, times = self.hidden_size, self.hidden_size * self.kinds, self.kinds // len(sides)
        predicted[special, :columns] = np.tile(side_by_side(sides, forms.same[special]), times)
        means = np.concatenate([side.mean(0, dtype=np.float32) for side in sides])
        predicted[forms.lengths == 0, :columns] = np.tile(means, times)
        bias = (
            None
            if table.bias is None
            else self.output_bias(np.asarray(table.bias, np.float32)[:size], predicted, forms, special)
        )
        return EmbeddingTable.of(predicted[:, :d], predicted[:, d:columns] if self.kinds == 2 else None, bias)

    def source_of(self, base: BaseModel) -> Vocabulary:
        """The vocabulary whose pieces the hypernetwork reads."""
        if self.base["fingerprint"] is not None:
            return base.vocab
        found = self.source_tokenizer()
        if found is None:
            raise UserError(f"{self.folder} has no tokenizer.json, the source tokenizer that the hypernetwork was trained with")
        # The ids of the base come first in it, and the base's own tokenizer describes its special tokens better.
        return dataclasses.replace(found, special=base.vocab.special, roles=base.vocab.roles, ends=base.vocab.ends)

    def predicted(
        self, sides: list[np.ndarray], forms: SurfaceForms, *, language: int | None = None, dtype=jnp.float32,
        chunk: int | None = None,
    ) -> np.ndarray:  # fmt: skip
        """What the network predicts for all tokens, `[V, E]` float32, or `[V, E + 1]` with a bias; 0 for those without pieces.

        E: columns of input rows, and beside them those of output rows if there are any. sides: the source's input rows, and its
        output rows unless they are tied. language: the number of one.
        """
        chunk = chunk or self.chunk()
        # With rescale "source", each row is scaled by the mean and deviation of the whole table, so these are computed first.
        stats = column_stats(sides, len(sides[0])) if self.config.rescale == "source" else None
        graphdef = self.graphdef(dtype)
        params = jax.tree.map(jnp.asarray, self.params)  # moved to the device once, and not again for every chunk
        predicted = np.zeros((len(forms), self.hidden_size * self.kinds + self.config.bias), np.float32)
        progress.say(f"compiling the hypernetwork, and making rows of {len(forms):,} tokens")
        with progress.bar(int((forms.lengths > 0).sum()), "rows", "row") as advance:
            for ids, rows in emitted(graphdef, params, sides, forms, stats=stats, language=language, chunk=chunk):
                predicted[ids] = to_host(rows)[: len(ids)]
                advance(len(ids))
        return predicted

    def source_tokenizer(self) -> Vocabulary | None:
        """The tokenizer in its folder, if there is one."""
        if self.folder is None:
            return None
        folder = self.folder / SOURCE_TOKENIZER if (self.folder / SOURCE_TOKENIZER).is_dir() else self.folder
        return load_tokenizer(folder) if (folder / "tokenizer.json").is_file() else None

    def chunk(self) -> int:
        """How many positions are computed at a time: fewer if rows are wide, so that they take no more than a few GB of memory.

        On a CPU it is also as many as its caches like.
        """
        most = 2048 if jax.default_backend() == "cpu" else 8192
        return max(512, min(most, 2**24 // (self.hidden_size * len(self.params["heads"]))))

    def output_bias(self, theirs, predicted, forms: SurfaceForms, special) -> np.ndarray:
        """Output bias `[V]` of a masked language model, with or without a head for it; special: tokens that keep theirs."""
        bias = bias_residual(self.config, theirs, forms)
        if self.config.bias:
            bias += np.where(forms.lengths > 0, predicted[:, -1], 0.0)
        bias[special] = theirs[forms.same[special]]
        return bias
