"""The hypernetwork: surface forms + source table -> `EmbeddingTable`.

After ZeTT (arXiv 2405.07883): source rows of a token's pieces -> rescaling -> dense -> projector -> a few transformer layers
over the pieces -> the first position -> one head for input and one for output rows. Two changes make a single training stage
enough (arXiv 2503.20083): the heads predict a *correction* to the mean of the pieces' rows, and their last layer starts at
zero, so that training starts from FVT. One is this project's: the network also sees how the vocabulary around the token looks
(FEATURES).

Most tokens have one to three pieces, so several share a row of P positions ("packed"), kept apart by the attention mask;
padding each to S positions would waste two thirds of the work. For the same reason a source row is projected once, however many
tokens it is a piece of, and the end of the last layer is computed at tokens' first positions alone. Shapes: N packed rows, P
positions, R predicted tokens, S pieces of a token, U source rows, E columns of them (input and output side by side), W width.

With encoder "roberta", rescale "fitted" and no residual it is the paper's own network, which zett/compat/ reads.
"""

import dataclasses
import functools
import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from zett import config as config_lib
from zett import progress
from zett.config import HypernetConfig
from zett.errors import UserError
from zett.files import hub
from zett.files.jsonfile import write_json
from zett.lms.layers import LayerNorm, Linear, Remat, checkpointed
from zett.mesh import gathered, paths, scattered, to_host
from zett.table import EmbeddingTable
from zett.vocab import SurfaceForms, Vocabulary, load_tokenizer, surface_forms
from zett.vocab.vocabulary import FEATURES


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PackedForms:
    """Surface forms of R tokens as the network reads them, several tokens a row.

    packed `[N, P]` source ids; owner `[N, P]` the token of each position (R at padding); position `[N, P]` in the token;
    first `[R]` where each token begins in `[N * P]`; pieces `[R, S]` and lengths `[R]` as in SurfaceForms; features `[R, 5]`;
    language `[]`, a number among the config's languages, or None. With one, P is S + 1, and the last position of each token,
    marked by the position S, stands for its language.
    """

    packed: np.ndarray
    owner: np.ndarray
    position: np.ndarray
    first: np.ndarray
    pieces: np.ndarray
    lengths: np.ndarray
    features: np.ndarray
    language: np.ndarray | None = None


def pack_forms(forms: SurfaceForms, *, multiple: int = 256, language: int | None = None, groups: int = 1) -> PackedForms:
    """Pack surface forms in rows; their number is a multiple of `multiple`, so that few shapes are compiled.

    groups: if more than 1, token i is packed in group i % groups, all of one shape, `[groups, ...]`; they have to divide R.
    """
    if groups > 1:
        if len(forms) % groups:
            raise ValueError(f"{len(forms)} tokens cannot be packed in {groups} groups alike")
        step = max(multiple // groups, 1)
        parts = [
            pack_forms(forms.take(np.arange(g, len(forms), groups)), multiple=step, language=language) for g in range(groups)
        ]
        most = max(len(part.packed) for part in parts)
        return jax.tree.map(lambda *x: np.stack(x), *(_with_rows(part, most) for part in parts))
    rows, most = forms.pieces.shape
    extra = int(language is not None)
    s, lengths = most + extra, np.where(forms.lengths > 0, forms.lengths + extra, 0)
    waiting = [np.flatnonzero(lengths == n).tolist()[::-1] for n in range(s + 1)]
    owner_rows, offsets = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
    row = 0
    # First fit decreasing: the longest that is left opens a row, then the longest that fits, until it is full.
    for longest in range(s, 0, -1):
        while waiting[longest]:
            free = s
            for n in range(longest, 0, -1):
                while waiting[n] and n <= free:
                    token = waiting[n].pop()
                    owner_rows[token], offsets[token] = row, s - free
                    free -= n
            row += 1
    n_rows = -(-max(row, 1) // multiple) * multiple
    packed = np.zeros((n_rows, s), np.int32)
    owner = np.full((n_rows, s), rows, np.int32)
    position = np.zeros((n_rows, s), np.int32)
    inside = np.arange(s) < lengths[:, None]
    tokens, k = np.nonzero(inside)
    where = (owner_rows[tokens], offsets[tokens] + k)
    pieces = np.pad(forms.pieces, ((0, 0), (0, extra)))
    is_piece = k < forms.lengths[tokens]
    packed[where] = np.where(is_piece, pieces[inside], 0)
    owner[where], position[where] = tokens, np.where(is_piece, k, most)
    first = (owner_rows * s + offsets).astype(np.int32)
    features = np.clip(forms.features, -4, 4)
    number = None if language is None else np.asarray(language, np.int32)
    return PackedForms(packed, owner, position, first, forms.pieces, forms.lengths, features, number)


def _with_rows(forms: PackedForms, number: int) -> PackedForms:
    """With empty rows at the end."""
    (n, width), tokens = forms.packed.shape, len(forms.lengths)
    empty = np.zeros((number - n, width), np.int32)
    return dataclasses.replace(
        forms,
        packed=np.concatenate([forms.packed, empty]),
        owner=np.concatenate([forms.owner, np.full_like(empty, tokens)]),
        position=np.concatenate([forms.position, empty]),
    )


class Projector(nnx.Module):
    """Two dense layers with GELU, added to the input and normalised."""

    def __init__(self, width: int, hidden: int, dtype, rngs: nnx.Rngs):
        self.up = Linear(width, hidden, use_bias=True, dtype=dtype, rngs=rngs)
        self.down = Linear(hidden, width, use_bias=True, dtype=dtype, rngs=rngs)
        self.norm = LayerNorm(width, 1e-6)

    def __call__(self, x):
        return self.norm(x + nnx.gelu(self.down(nnx.gelu(self.up(x)))))


class Layer(nnx.Module):
    """A transformer layer over the positions of packed rows."""

    def __init__(self, c: HypernetConfig, dtype, rngs: nnx.Rngs):
        linear = functools.partial(Linear, use_bias=True, dtype=dtype, rngs=rngs)
        self.qkv = linear(c.width, 3 * c.width)
        self.out = linear(c.width, c.width, std=(2 * c.layers * c.width) ** -0.5)
        self.up = linear(c.width, c.feed_forward)
        self.down = linear(c.feed_forward, c.width, std=(2 * c.layers * c.feed_forward) ** -0.5)
        self.norm_attention, self.norm_mlp = LayerNorm(c.width, 1e-5), LayerNorm(c.width, 1e-5)
        self.config = c

    def _attend(self, x_NPW, mask_NPP):
        """What each position gathers from the others, before the output product."""
        q, k, v = jnp.split(self.qkv(x_NPW).reshape(*x_NPW.shape[:2], self.config.heads, -1), 3, axis=-1)
        scores = jnp.einsum("nphk,nqhk->nhpq", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
        weights = jax.nn.softmax(jnp.where(mask_NPP[:, None], scores, -1e30), -1).astype(v.dtype)
        return jnp.einsum("nhpq,nqhk->nphk", weights, v).reshape(x_NPW.shape)

    def _mlp(self, x):
        return self.down(nnx.gelu(self.up(x), approximate=self.config.encoder != "roberta"))

    def __call__(self, x, mask, first=None):
        """`[N, P, W]`; or `[R, W]`, computed only at the positions `first [R]` of the flattened rows."""
        pre = self.config.norm == "pre"
        gathered = self._attend(self.norm_attention(x) if pre else x, mask)
        if first is not None:
            x, gathered = (part.reshape(-1, part.shape[-1])[first] for part in (x, gathered))
        x = x + self.out(gathered)
        if pre:
            return x + self._mlp(self.norm_mlp(x))
        x = self.norm_attention(x)
        return self.norm_mlp(x + self._mlp(x))


class Head(nnx.Module):
    """Projector and dense layer to D columns; the dense layer starts at zero where its output is a correction."""

    def __init__(self, c: HypernetConfig, columns: int, dtype, rngs: nnx.Rngs):
        self.projector = Projector(c.width, c.feed_forward, dtype, rngs)
        std = c.width**-0.5 if c.residual == "none" else 0.0
        self.dense = Linear(c.width, columns, use_bias=True, dtype=dtype, rngs=rngs, std=std)

    def __call__(self, x):
        return self.dense(self.projector(x))


class Scale(nnx.Module):
    """`x * scale + shift` per column, with fitted factors that stay as they are."""

    def __init__(self, columns: int):
        self.scale, self.shift = nnx.Param(jnp.ones(columns)), nnx.Param(jnp.zeros(columns))

    def __call__(self, x):
        return x * jax.lax.stop_gradient(self.scale[...]) + jax.lax.stop_gradient(self.shift[...])


class Hypernet(nnx.Module):
    """Predicts rows for packed surface forms. `tied`: source rows and predictions are input rows alone.

    dtype: of matrix products. activations: of what is between them. remat: what a backward pass keeps of each layer.
    """

    def __init__(
        self, c: HypernetConfig, *, hidden_size: int, tied: bool, dtype, activations=jnp.float32, remat: Remat = "none",
        rngs: nnx.Rngs,
    ):  # fmt: skip
        sides = 1 if tied else 2
        self.piece = Linear(sides * hidden_size, c.width, use_bias=True, dtype=dtype, rngs=rngs)
        self.projector = Projector(c.width, c.feed_forward, dtype, rngs)
        self.positions = nnx.Param(0.02 * jax.random.normal(rngs.params(), (c.max_pieces, c.width)))
        self.features = Linear(len(FEATURES), c.width, use_bias=True, dtype=dtype, rngs=rngs) if c.features else None
        self.layers = nnx.List([Layer(c, dtype, rngs) for _ in range(c.layers)])
        roberta = c.encoder == "roberta"
        self.norm_pieces = LayerNorm(c.width, 1e-5) if roberta else None
        self.norm = None if roberta else LayerNorm(c.width, 1e-6)
        self.heads = nnx.List([Head(c, hidden_size, dtype, rngs) for _ in range(sides)])
        # Rows of what the source vocabulary lacks: of each byte, in units of the rescaled source rows.
        self.fallback = nnx.Param(0.02 * jax.random.normal(rngs.params(), (c.fallback_rows, sides * hidden_size)))
        fitted = c.rescale == "fitted"
        self.scale_in = Scale(sides * hidden_size) if fitted else None
        self.scale_out = Scale(sides * hidden_size) if fitted else None
        number = len(c.languages)
        self.languages = nnx.Param(0.02 * jax.random.normal(rngs.params(), (number, c.width))) if number else None
        self.bias = Linear(c.width, 1, use_bias=True, dtype=dtype, rngs=rngs, std=0.0) if c.bias else None
        self.config, self.hidden_size, self.activations, self.remat = c, hidden_size, activations, remat

    def __repr__(self) -> str:  # of nnx it would be every parameter
        return f"Hypernet({_shape_of(self.config)}, rows of width {self.hidden_size})"

    def __call__(self, rows_UE, forms: PackedForms, stats=None):
        """Predicted rows `[R, E]` for `forms`, from the source rows `rows_UE`; with a bias, `[R, E + 1]`, where it is last.

        stats: mean and standard deviation `[E]` of the source table's columns, if `rows_UE` is not all of the table.
        """
        if stats is None:
            stats = rows_UE.mean(0), rows_UE.std(0) + 1e-8
        scaled = self.scaled(rows_UE, stats)
        return self.predicted(forms, scaled, self.projected(scaled), stats)

    def scaled(self, rows_UE, stats):
        """Source rows as the network reads them."""
        return (rows_UE - stats[0]) / stats[1] if self.scale_in is None else self.scale_in(rows_UE)

    def projected(self, scaled):
        """`[..., W]` of scaled rows `[..., E]`."""
        factor = self.config.input_std if self.scale_in is None else 1.0
        return self.piece(scaled * factor).astype(self.activations)

    def predicted(self, forms: PackedForms, scaled_UE, projected_UW, stats):
        """Rows for `forms`; see `__call__`."""
        c = self.config
        # Of the source rows nothing is trained, so that only the product of the fallback rows needs its input's gradient.
        x = jnp.concatenate([projected_UW, self.projected(self.fallback[...])])[forms.packed]
        positions = self.positions[...][forms.position].astype(x.dtype)
        projector = checkpointed(self.projector, self.remat)
        x = projector(x + positions) if self.norm_pieces is None else projector(x) + positions
        if self.features is not None:
            features = jnp.concatenate([forms.features, jnp.zeros((1, len(FEATURES)))])
            x = x + self.features(features).astype(x.dtype)[forms.owner]
        if self.languages is not None:
            language = self.languages[...][forms.language].astype(x.dtype)
            x = jnp.where(forms.position[..., None] == c.max_pieces, language, x)
        if self.norm_pieces is not None:
            x = self.norm_pieces(x)
        mask = forms.owner[:, :, None] == forms.owner[:, None, :]
        for layer in self.layers[:-1]:
            x = checkpointed(layer, self.remat)(x, mask)
        x_RW = checkpointed(self.layers[-1], self.remat)(x, mask, forms.first)
        if self.norm is not None:
            x_RW = self.norm(x_RW)
        rows_RE = jnp.concatenate([checkpointed(head, self.remat)(x_RW).astype(jnp.float32) for head in self.heads], -1)
        if self.scale_out is not None:
            rows_RE = self.scale_out(rows_RE)
        else:
            correction = rows_RE * (c.residual_scale * self.hidden_size**-0.5)
            rows_RE = (self._residual(scaled_UE, forms) + correction) * stats[1] + stats[0]
        return rows_RE if self.bias is None else jnp.concatenate([rows_RE, self.bias(x_RW).astype(jnp.float32)], -1)

    def _residual(self, scaled_UE, forms: PackedForms):
        """What the correction is added to, `[R, E]`: the first piece's row, or the mean of all pieces'."""
        if self.config.residual == "none":
            return 0.0
        lengths_R = forms.lengths if self.config.residual == "mean" else jnp.ones_like(forms.lengths)
        weights_RS = (jnp.arange(forms.pieces.shape[1]) < lengths_R[:, None]) / jnp.maximum(lengths_R, 1)[:, None]
        number = forms.pieces - scaled_UE.shape[0]  # of a fallback row; negative for source rows
        # By piece, since all pieces' rows at once would be S times the result; the few fallback rows by a product, since a
        # gradient by way of their ids would have a row for each source row, too.
        total = 0.0
        for s in range(forms.pieces.shape[1]):
            weight_R = jnp.where(number[:, s] < 0, weights_RS[:, s], 0.0)
            total += scaled_UE[jnp.minimum(forms.pieces[:, s], scaled_UE.shape[0] - 1)] * weight_R[:, None]
        chosen = number[:, :, None] == jnp.arange(self.config.fallback_rows)
        return total + jnp.einsum("rsf,rs->rf", chosen, weights_RS) @ self.fallback[...]


def predict(hypernet: Hypernet, rows_UE, forms: PackedForms, stats, mesh: Mesh):
    """Predicted rows `[R, E]`, whole on every device of `mesh`; of several, each has one group of the forms, `[G, ...]`."""
    if mesh.size == 1:
        return hypernet(rows_UE, forms, stats)
    scaled_UE = hypernet.scaled(rows_UE, stats)
    projected_UW = gathered(hypernet.projected(scattered(scaled_UE, mesh)), mesh)
    # Over the groups nothing is shared, so that each device computes its own.
    rows_GRE = jax.vmap(lambda group: hypernet.predicted(group, scaled_UE, projected_UW, stats))(forms)
    return gathered(rows_GRE, mesh)


def partition_rules(c: HypernetConfig) -> list[tuple[str, PartitionSpec]]:
    """How the parameters lie on a mesh; every one is matched by one rule, and every rule is used."""
    # Every device has tokens of its own, so a kernel that is cut is gathered where it is used, on the axis "tensor", too.
    cut, whole = PartitionSpec(("fsdp", "tensor")), PartitionSpec()
    rules = [
        (r"piece\.kernel|(.*\.)?projector\.(up|down)\.kernel|layers\.\d+\.(qkv|out|up|down)\.kernel", cut),
        (r"heads\.\d+\.dense\.kernel", cut),
        (r"(.+\.)?(bias|scale|shift)", whole),
        (r"positions|fallback", whole),
    ]
    rules += [(r"features\.kernel", whole)] if c.features else []
    rules += [(r"languages", whole)] if c.languages else []
    rules += [(r"bias\.kernel", whole)] if c.bias else []
    return rules


def source_rows(table: EmbeddingTable):
    """Rows that the network reads, `[V, E]`: input and output rows side by side, or the one kind there is when tied."""
    return table.input if table.output is None else jnp.concatenate([table.input, table.output], -1)


# ------------------------------------------------------------------------------------------------- a trained hypernetwork


@dataclasses.dataclass(frozen=True)
class TrainedHypernet:
    """A hypernetwork with its parameters: a transfer method like the training-free ones.

    base: name and fingerprint of the base model that it belongs to. Published ones do not know a fingerprint (None); their base
    has "vocab_size" ids, and they bring the tokenizer that tokens are to be decomposed with.
    """

    config: HypernetConfig
    params: dict
    hidden_size: int
    tied: bool
    base: dict
    folder: Path | None = None

    def __repr__(self) -> str:
        size = sum(np.size(x) for x in jax.tree.leaves(self.params))
        where = "" if self.folder is None else f", in {self.folder}"
        return f"TrainedHypernet(for {self.base['name']!r}, {_shape_of(self.config)}, {size:,} parameters{where})"

    def check_base(self, fingerprint: str) -> None:
        """UserError if the base model with this fingerprint is not the one that the hypernetwork was trained for."""
        if fingerprint != self.base["fingerprint"]:
            raise UserError(
                f"the hypernetwork {self.folder or ''} was trained for the base model {self.base['name']!r} "
                f"({str(self.base['fingerprint'])[:12]}), and this one is another ({fingerprint[:12]})"
            )

    def check_model(self, base) -> None:
        """UserError if the hypernetwork belongs to another `BaseModel`; to be called before anything that takes its time."""
        if self.base["fingerprint"] is not None:
            known = "fingerprint" in vars(base)
            with progress.phase(f"comparing the rows of {base.name} with those the hypernetwork was trained for", not known):
                self.check_base(base.fingerprint)
        self._check_rows(base.table)

    def _check_rows(self, table: EmbeddingTable) -> None:
        if table.input.shape[1] != self.hidden_size or (table.output is None) != self.tied:
            raise UserError(f"the hypernetwork was made for rows of width {self.hidden_size} and tied={self.tied}")
        size, own = self.base.get("vocab_size"), int(table.num_valid)
        if size is not None and size != own:
            raise UserError(f"the hypernetwork was made for a base model of {size} tokens; this one has {own}")

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
        from zett.lms import load_base_model

        if model is None or isinstance(model, str | Path):
            model = load_base_model(self.base["name"] if model is None else model, body=False)
        self.check_model(model)
        target = tokenizer if isinstance(tokenizer, Vocabulary) else load_tokenizer(tokenizer)
        return self.table_for(model, target, language=language)

    def table_for(self, base, target: Vocabulary, *, language: str | int | None = None, dtype=jnp.float32) -> EmbeddingTable:
        """The table of `target` for a `BaseModel`. UserError if the hypernetwork belongs to another one."""
        if self.base["fingerprint"] is not None:
            source = base.vocab
        else:
            found = self.source_tokenizer()
            if found is None:
                raise UserError(
                    f"{self.folder} has no tokenizer.json, the source tokenizer that the hypernetwork was trained with"
                )
            # Its ids begin with the base's, whose special tokens are the better described ones.
            source = dataclasses.replace(found, special=base.vocab.special, roles=base.vocab.roles, ends=base.vocab.ends)
        self.check_model(base)
        with progress.phase(f"taking {len(target):,} tokens apart into pieces of the base model's tokenizer"):
            forms = surface_forms(target, source, self.config.max_pieces)
        return self(base.table, source, target, forms, language=language, dtype=dtype)

    def source_tokenizer(self) -> Vocabulary | None:
        """The tokenizer in its folder, if there is one."""
        if self.folder is None:
            return None
        folder = self.folder / SOURCE_TOKENIZER if (self.folder / SOURCE_TOKENIZER).is_dir() else self.folder
        return load_tokenizer(folder) if (folder / "tokenizer.json").is_file() else None

    def chunk(self) -> int:
        """Rows that are made at a time, fewer of wide ones: what a chunk takes in memory stays within a few GB."""
        return max(512, min(4096, 2**23 // (self.hidden_size * len(self.params["heads"]))))

    def __call__(
        self,
        table: EmbeddingTable,
        source: Vocabulary,
        target: Vocabulary,
        forms: SurfaceForms,
        *,
        seed: int = 0,
        fingerprint: str | None = None,
        language: str | int | None = None,
        dtype=jnp.float32,
        chunk: int | None = None,
    ) -> EmbeddingTable:
        """The table of `target`, made in chunks. UserError if `table`, or `fingerprint`, is that of another base model."""
        if fingerprint is not None:
            self.check_base(fingerprint)
        self._check_rows(table)
        size = self.base.get("vocab_size", len(source))  # piece ids from there on have fallback rows, not the table's padding
        forms = limit_pieces(forms, self.config.max_pieces)
        if forms.pieces.max(initial=0) >= size + self.config.fallback_rows:
            raise UserError(
                f"the hypernetwork has no row for the source id {forms.pieces.max()}; its source tokenizer is another"
            )
        number = self.language_number(language)
        sides = [np.asarray(rows)[:size] for rows in (table.input, table.output) if rows is not None]

        def rows_of(ids) -> np.ndarray:
            return np.concatenate([side[ids] for side in sides], -1).astype(np.float32)

        # Rescaled with the table's own mean and deviation, each row depends on all of them.
        stats = column_stats(sides, size) if self.config.rescale == "source" else None
        graphdef, d = self.graphdef(dtype), self.hidden_size
        chunk = chunk or self.chunk()
        params = jax.tree.map(jnp.asarray, self.params)  # on the device once, not with every chunk
        predicted = np.empty((len(forms), d * len(sides) + self.config.bias), np.float32)
        progress.say(f"compiling the hypernetwork, and making rows of {len(forms):,} tokens")
        with progress.bar(len(forms), "rows", "row") as advance:
            for start in range(0, len(forms), chunk):
                ids = np.arange(start, start + chunk) % len(forms)  # the last chunk is filled up, so that one shape is compiled
                used, packed = renumbered(pack_forms(forms.take(ids), multiple=max(chunk // 8, 1), language=number), size)
                part = to_host(predict_rows(graphdef, params, rows_of(used), packed, stats))
                predicted[start : start + chunk] = part[: len(forms) - start]
                advance(min(chunk, len(forms) - start))
        special = np.asarray([i for i in range(len(forms)) if 0 <= forms.same[i] < size and not target.tokens[i]], np.int64)
        nothing = forms.lengths == 0
        columns = d * len(sides)
        predicted[special, :columns] = rows_of(forms.same[special])
        predicted[nothing, :columns] = np.concatenate([side.mean(0, dtype=np.float32) for side in sides])
        bias = None if table.bias is None else self._bias(np.asarray(table.bias, np.float32)[:size], predicted, forms, special)
        return EmbeddingTable.of(predicted[:, :d], None if self.tied else predicted[:, d:columns], bias)

    def _bias(self, theirs, predicted, forms: SurfaceForms, special) -> np.ndarray:
        """Output bias `[V]` of a masked language model, with or without a head for it."""
        bias = bias_residual(self.config, theirs, forms)
        if self.config.bias:
            bias += np.where(forms.lengths > 0, predicted[:, -1], 0.0)
        bias[special] = theirs[forms.same[special]]
        return bias


def _shape_of(c: HypernetConfig) -> str:
    return f"{c.layers} layers of width {c.width}, at most {c.max_pieces} pieces"


def bias_residual(c: HypernetConfig, theirs_V: np.ndarray, forms: SurfaceForms) -> np.ndarray:
    """What a predicted output bias is added to, `[R]` float32, and the bias itself where none is predicted.

    That is the mean of the pieces' biases (FVT), or with residual "none", as in published hypernetworks, nothing.
    """
    if c.bias and c.residual == "none":
        return np.where(forms.lengths > 0, 0.0, theirs_V.mean()).astype(np.float32)
    usable = (np.arange(forms.pieces.shape[1]) < forms.lengths[:, None]) & (forms.pieces < len(theirs_V))
    total = np.where(usable, theirs_V[np.minimum(forms.pieces, len(theirs_V) - 1)], 0.0).sum(1)
    return np.where(usable.any(1), total / np.maximum(usable.sum(1), 1), theirs_V.mean()).astype(np.float32)


def renumbered(packed: PackedForms, size: int, *, multiple: int = 1) -> tuple[np.ndarray, PackedForms]:
    """Source ids `[U]` of the rows that `packed` reads, of `size` in all, and `packed` with numbers among them in place of ids.

    So each row is projected once, and only what is used lies on the device. U is `size` or, if less, a power of two or the
    middle of two, so that few shapes are compiled; it is made a multiple of `multiple`. Fallback rows, from the id `size` on,
    are numbered from U on.
    """
    both = np.append(packed.packed, packed.pieces)
    used = np.unique(np.append(both[both < size], 0))
    power = max(1 << (len(used) - 1).bit_length(), 1024)
    room = power * 3 // 4 if len(used) <= power * 3 // 4 else power
    if room >= size:
        used, room = np.arange(size), size
    room = -(-room // multiple) * multiple

    def number(ids):
        return np.where(ids < size, np.searchsorted(used, ids), ids - size + room).astype(np.int32)

    new = dataclasses.replace(packed, packed=number(packed.packed), pieces=number(packed.pieces))
    return np.pad(used, (0, room - len(used)), mode="edge"), new


def column_stats(sides, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation `[E]` of the columns of the first `size` source rows; sides: input rows, and output rows."""
    total = []
    for side in sides:
        parts = [slice(start, min(start + 4096, size)) for start in range(0, size, 4096)]  # a wide copy of all may not fit
        mean = sum(np.asarray(side[part], np.float64).sum(0) for part in parts) / size
        square = sum(np.square(np.asarray(side[part], np.float64) - mean).sum(0) for part in parts) / size
        total.append((mean, np.sqrt(square) + 1e-8))
    mean, std = (np.concatenate(both).astype(np.float32) for both in zip(*total))
    return mean, std


@functools.partial(jax.jit, static_argnums=0)
def predict_rows(graphdef, params, rows, packed: PackedForms, stats=None):
    """What a Hypernet of `graphdef` and `params` gives; compiled once a shape."""
    return nnx.merge(graphdef, params)(rows, packed, stats)


def fit_scales(graphdef, params: dict, rows, seed: int) -> dict:
    """`params` for rescale "fitted": source rows get mean 0 and `input_std`, and predictions for 2,048 random source tokens the
    mean and standard deviation of the source rows `[V, E]`, all per column (arXiv 2405.07883, section 3.2)."""
    rows = np.asarray(rows, np.float32)
    ids = np.random.default_rng([seed, 5]).permutation(len(rows))[:2048].astype(np.int32)
    config = nnx.merge(graphdef, params).config
    number = len(ids)
    pieces = limit_pieces(
        SurfaceForms(ids[:, None], np.ones(number, np.int32), np.zeros((number, len(FEATURES)), np.float32), ids),
        config.max_pieces,
    )
    mean, std = rows.mean(0), rows.std(0) + 1e-8
    scale = config.input_std / std
    unchanged = {"scale": jnp.ones(rows.shape[1]), "shift": jnp.zeros(rows.shape[1])}
    params = params | {"scale_in": {"scale": jnp.asarray(scale), "shift": jnp.asarray(-mean * scale)}, "scale_out": unchanged}
    packed = pack_forms(pieces, multiple=1, language=0 if config.languages else None)
    first = np.asarray(predict_rows(graphdef, params, rows, packed))[:, : rows.shape[1]]
    scale = std / (first.std(0) + 1e-8)
    return params | {"scale_out": {"scale": jnp.asarray(scale), "shift": jnp.asarray(mean - first.mean(0) * scale)}}


@functools.cache
def hypernet_graph(config: HypernetConfig, hidden_size: int, tied: bool, dtype, **settings):
    """The static half of a Hypernet, to be merged with its parameters; settings: its `activations` and `remat`."""
    return nnx.split(nnx.eval_shape(lambda: make_hypernet(config, hidden_size, tied, dtype, 0, **settings)))[0]


def hypernet_shapes(config: HypernetConfig, hidden_size: int, tied: bool) -> dict[str, tuple]:
    """Shapes of a Hypernet's parameters by dotted path."""
    abstract = nnx.split(nnx.eval_shape(lambda: make_hypernet(config, hidden_size, tied, jnp.float32, 0)))[1]
    return {path: leaf.shape for path, leaf in paths(nnx.to_pure_dict(abstract)).items()}


def make_hypernet(config: HypernetConfig, hidden_size: int, tied: bool, dtype, seed: int, **settings) -> Hypernet:
    """A Hypernet with fresh parameters."""
    return Hypernet(config, hidden_size=hidden_size, tied=tied, dtype=dtype, rngs=nnx.Rngs(seed), **settings)


def limit_pieces(forms: SurfaceForms, size: int) -> SurfaceForms:
    """The forms with `size` piece positions: cut or padded."""
    extra = max(size - forms.pieces.shape[1], 0)
    pieces = np.pad(forms.pieces[:, :size], ((0, 0), (0, extra)))
    return dataclasses.replace(forms, pieces=pieces, lengths=np.minimum(forms.lengths, size))


FORMAT = "zett-hypernet-1"
SOURCE_TOKENIZER = "source_tokenizer"


def save_hypernet(folder: str | Path, trained: TrainedHypernet, source: Vocabulary | None, record: dict) -> None:
    """Write the released form: config.json, model.safetensors, source_tokenizer/ (if there is one), training.json."""
    from zett.files.tensors import write_tensors

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    flat = {".".join(map(_key, path)): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(trained.params)}
    write_tensors(folder / "model.safetensors", flat, {"format": FORMAT})
    write_json(
        folder / "config.json",
        {
            "format": FORMAT,
            "hypernet": dataclasses.asdict(trained.config),
            "hidden_size": trained.hidden_size,
            "tied": trained.tied,
            "base": trained.base,
        },
    )
    write_json(folder / "training.json", record)
    if source is None:
        return
    (folder / SOURCE_TOKENIZER).mkdir(exist_ok=True)
    source.tokenizer.save(str(folder / SOURCE_TOKENIZER / "tokenizer.json"))
    if source.folder is not None:
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            if (source.folder / name).exists():
                (folder / SOURCE_TOKENIZER / name).write_bytes((source.folder / name).read_bytes())


def _key(entry) -> str:
    return str(getattr(entry, "key", getattr(entry, "idx", entry)))


def shipped(name: str) -> Path:
    """A folder of the package's own models: "pico" or "pico-hypernet"."""
    return Path(__file__).parent / "assets" / name


def find_hypernet(name: str | Path, revision: str | None = None) -> Path:
    """The local folder of a hypernetwork, downloaded if `name` is one on the Hub; UserError if there is none."""
    if os.fspath(name) == "pico":
        return shipped("pico-hypernet")
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists() or not hub.is_name(os.fspath(name)):
        raise UserError(f"no such hypernetwork folder: {folder}")
    small = ["*.json", "*.txt", "*.md", "LICENSE*", f"{SOURCE_TOKENIZER}/*"]
    folder = hub.download(os.fspath(name), [*small, "*.safetensors"], revision=revision, kind="hypernetwork")
    if not any(folder.glob("*.safetensors")):
        folder = hub.download(os.fspath(name), [*small, "*.msgpack"], revision=revision, kind="hypernetwork")
    return folder


def load_hypernet(path: str | Path, *, revision: str | None = None) -> TrainedHypernet:
    """A hypernetwork: "pico" for the one in the package, a folder, or a name on the Hugging Face Hub (at `revision`).

    The folder is one of `save_hypernet`, or of those that the authors of ZeTT published. UserError if it is none.
    """
    import safetensors
    from safetensors.numpy import load_file

    from zett.compat.published import MODEL_TYPE, read_published

    folder = find_hypernet(path, revision)
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if isinstance(content, dict) and content.get("model_type") == MODEL_TYPE:
            return read_published(folder, content)
        found = content.get("format") if isinstance(content, dict) else None
        if found != FORMAT:
            run = (folder / "checkpoints").is_dir()
            hint = "; a run's hypernetwork is in its folder export, or made by `zett export`" if run else ""
            raise UserError(f"{folder / 'config.json'} has format {found!r}; expected {FORMAT!r}{hint}")
        flat = load_file(folder / "model.safetensors")
    except FileNotFoundError:
        missing = next(name for name in ("config.json", "model.safetensors") if not (folder / name).exists())
        raise UserError(f"{folder} is not a hypernetwork: {missing} is missing") from None
    except UserError:
        raise
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise UserError(f"{folder} cannot be read as a hypernetwork: {error}") from None
    try:
        hidden_size, tied, base = int(content["hidden_size"]), bool(content["tied"]), dict(content["base"])
        config = config_lib.from_dict(content["hypernet"], HypernetConfig, where=f"{folder}/config.json: hypernet")
        base["name"], base["fingerprint"]
    except KeyError as error:
        raise UserError(f"{folder / 'config.json'} has no field {error}; it is not a hypernetwork's") from None
    expected = nnx.to_pure_dict(nnx.split(nnx.eval_shape(lambda: make_hypernet(config, hidden_size, tied, jnp.float32, 0)))[1])
    leaves, structure = jax.tree_util.tree_flatten_with_path(expected)
    names = [".".join(map(_key, leaf_path)) for leaf_path, _ in leaves]
    wrong = [n for n, (_, leaf) in zip(names, leaves) if n not in flat or flat[n].shape != leaf.shape]
    wrong += sorted(set(flat) - set(names))
    if wrong:
        raise UserError(
            f"{folder / 'model.safetensors'} does not fit its config: missing, misshapen or unknown: {', '.join(wrong)}"
        )
    params = jax.tree_util.tree_unflatten(structure, [flat[n] for n in names])
    return TrainedHypernet(config, params, hidden_size, tied, base, folder)
