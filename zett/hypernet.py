"""The hypernetwork: surface forms + source table -> `EmbeddingTable`.

After ZeTT (arXiv 2405.07883): source rows of a token's pieces -> rescaling -> dense -> projector -> a few transformer layers
over the pieces -> the first position -> one head for input and one for output rows. Two changes make a single training stage
enough (arXiv 2503.20083): the heads predict a *correction* to the mean of the pieces' rows, and their last layer starts at
zero, so that training starts from FVT. One is this project's: the network also sees how the vocabulary around the token looks
(FEATURES).

Most tokens have one to three pieces, so several share a row of P positions ("packed"), kept apart by the attention mask;
padding each to S positions would waste two thirds of the work. Shapes: N packed rows, P positions, R predicted tokens, S pieces
of a token, E columns of the source rows (input and output side by side), W width.
"""

import dataclasses
import functools
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zett import config as config_lib
from zett.config import HypernetConfig
from zett.errors import UserError
from zett.lms.layers import LayerNorm, Linear
from zett.table import EmbeddingTable
from zett.vocab.vocabulary import FEATURES, SurfaceForms, Vocabulary


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PackedForms:
    """Surface forms of R tokens as the network reads them, several tokens a row.

    packed `[N, P]` source ids; owner `[N, P]` the token of each position (R at padding); position `[N, P]` in the token;
    first `[R]` where each token begins in `[N * P]`; pieces `[R, S]` and lengths `[R]` as in SurfaceForms; features `[R, 5]`.
    """

    packed: np.ndarray
    owner: np.ndarray
    position: np.ndarray
    first: np.ndarray
    pieces: np.ndarray
    lengths: np.ndarray
    features: np.ndarray


def pack_forms(forms: SurfaceForms, *, multiple: int = 256) -> PackedForms:
    """Pack surface forms in rows of S positions; their number is a multiple of `multiple`, so that few shapes are compiled."""
    rows, s = forms.pieces.shape
    waiting = [np.flatnonzero(forms.lengths == n).tolist()[::-1] for n in range(s + 1)]
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
    inside = np.arange(s) < forms.lengths[:, None]
    tokens, k = np.nonzero(inside)
    where = (owner_rows[tokens], offsets[tokens] + k)
    packed[where], owner[where], position[where] = forms.pieces[inside], tokens, k
    first = (owner_rows * s + offsets).astype(np.int32)
    features = np.clip(forms.features, -4, 4)
    return PackedForms(packed, owner, position, first, forms.pieces, forms.lengths, features)


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
        q, k, v = jnp.split(self.qkv(x_NPW).reshape(*x_NPW.shape[:2], self.config.heads, -1), 3, axis=-1)
        scores = jnp.einsum("nphk,nqhk->nhpq", q, k).astype(jnp.float32) * q.shape[-1] ** -0.5
        weights = jax.nn.softmax(jnp.where(mask_NPP[:, None], scores, -1e30), -1).astype(v.dtype)
        return self.out(jnp.einsum("nhpq,nqhk->nphk", weights, v).reshape(x_NPW.shape))

    def _mlp(self, x):
        return self.down(nnx.gelu(self.up(x)))

    def __call__(self, x, mask):
        if self.config.norm == "pre":
            x = x + self._attend(self.norm_attention(x), mask)
            return x + self._mlp(self.norm_mlp(x))
        x = self.norm_attention(x + self._attend(x, mask))
        return self.norm_mlp(x + self._mlp(x))


class Head(nnx.Module):
    """Projector and dense layer to D columns; the dense layer starts at zero where its output is a correction."""

    def __init__(self, c: HypernetConfig, columns: int, dtype, rngs: nnx.Rngs):
        self.projector = Projector(c.width, c.feed_forward, dtype, rngs)
        std = c.width**-0.5 if c.residual == "none" else 0.0
        self.dense = Linear(c.width, columns, use_bias=True, dtype=dtype, rngs=rngs, std=std)

    def __call__(self, x):
        return self.dense(self.projector(x))


class Hypernet(nnx.Module):
    """Predicts rows for packed surface forms. `tied`: source rows and predictions are input rows alone."""

    def __init__(self, c: HypernetConfig, *, hidden_size: int, tied: bool, dtype, rngs: nnx.Rngs):
        sides = 1 if tied else 2
        self.piece = Linear(sides * hidden_size, c.width, use_bias=True, dtype=dtype, rngs=rngs)
        self.projector = Projector(c.width, c.feed_forward, dtype, rngs)
        self.positions = nnx.Param(0.02 * jax.random.normal(rngs.params(), (c.max_pieces, c.width)))
        self.features = Linear(len(FEATURES), c.width, use_bias=True, dtype=dtype, rngs=rngs) if c.features else None
        self.layers = nnx.List([Layer(c, dtype, rngs) for _ in range(c.layers)])
        self.norm = LayerNorm(c.width, 1e-6)
        self.heads = nnx.List([Head(c, hidden_size, dtype, rngs) for _ in range(sides)])
        # Rows of the bytes that the source vocabulary lacks, in units of the rescaled source rows.
        self.fallback = nnx.Param(0.02 * jax.random.normal(rngs.params(), (256, sides * hidden_size)))
        self.config, self.hidden_size = c, hidden_size

    def __call__(self, rows_VE, forms: PackedForms):
        """Predicted rows `[R, E]` for `forms`, from the source rows `rows_VE`."""
        c = self.config
        mean_E = rows_VE.mean(0)
        std_E = rows_VE.std(0) + 1e-8
        scaled = jnp.concatenate([(rows_VE - mean_E) / std_E, self.fallback[...]])
        x = self.piece(scaled[forms.packed] * c.input_std) + self.positions[...][forms.position]
        x = self.projector(x)
        if self.features is not None:
            features = jnp.concatenate([forms.features, jnp.zeros((1, len(FEATURES)))])
            x = x + self.features(features)[forms.owner]
        mask = forms.owner[:, :, None] == forms.owner[:, None, :]
        for layer in self.layers:
            x = layer(x, mask)
        x_RW = self.norm(x.reshape(-1, c.width)[forms.first])
        correction = jnp.concatenate([head(x_RW) for head in self.heads], -1) * (c.residual_scale * self.hidden_size**-0.5)
        return (self._residual(scaled, forms) + correction) * std_E + mean_E

    def _residual(self, scaled, forms: PackedForms):
        if self.config.residual == "none":
            return jnp.zeros((forms.lengths.shape[0], scaled.shape[1]))
        if self.config.residual == "first":
            return scaled[forms.pieces[:, 0]]
        used = (jnp.arange(forms.pieces.shape[1]) < forms.lengths[:, None]).astype(scaled.dtype)
        return jnp.einsum("rse,rs->re", scaled[forms.pieces], used / jnp.maximum(forms.lengths, 1)[:, None])


def source_rows(table: EmbeddingTable):
    """Rows that the network reads, `[V, E]`: input and output rows side by side, or the one kind there is when tied."""
    return table.input if table.output is None else jnp.concatenate([table.input, table.output], -1)


# ------------------------------------------------------------------------------------------------- a trained hypernetwork


@dataclasses.dataclass(frozen=True)
class TrainedHypernet:
    """A hypernetwork with its parameters: a transfer method like the training-free ones."""

    config: HypernetConfig
    params: dict
    hidden_size: int
    tied: bool
    base: dict  # name and fingerprint of the base model that it belongs to
    folder: Path | None = None

    def check_base(self, fingerprint: str) -> None:
        """UserError if the base model with this fingerprint is not the one that the hypernetwork was trained for."""
        if fingerprint != self.base["fingerprint"]:
            raise UserError(
                f"the hypernetwork {self.folder or ''} was trained for the base model {self.base['name']!r} "
                f"({self.base['fingerprint'][:12]}), and this one is another ({fingerprint[:12]})"
            )

    def graphdef(self, dtype):
        return hypernet_graph(self.config, self.hidden_size, self.tied, dtype)

    def __call__(
        self,
        table: EmbeddingTable,
        source: Vocabulary,
        target: Vocabulary,
        forms: SurfaceForms,
        *,
        seed: int = 0,
        fingerprint: str | None = None,
        dtype=jnp.float32,
        chunk: int = 4096,
    ) -> EmbeddingTable:
        """The table of `target`. UserError if `fingerprint` says that `table` is of another base model."""
        if fingerprint is not None:
            self.check_base(fingerprint)
        if table.input.shape[1] != self.hidden_size or (table.output is None) != self.tied:
            raise UserError(f"the hypernetwork was made for rows of width {self.hidden_size} and tied={self.tied}")
        forms = limit_pieces(forms, self.config.max_pieces)
        rows = source_rows(table)[: len(source)]  # piece ids from there on are bytes, not padding
        parts = []
        for start in range(0, len(forms), chunk):
            ids = np.arange(start, start + chunk) % len(forms)  # the last chunk is filled up, so that one shape is compiled
            packed = pack_forms(forms.take(ids), multiple=max(chunk // 4, 1))
            parts.append(np.asarray(predict_rows(self.graphdef(dtype), self.params, rows, packed)))
        predicted = np.concatenate(parts)[: len(forms)]
        special = np.asarray([i for i in range(len(forms)) if forms.same[i] >= 0 and not target.tokens[i]], np.int64)
        predicted[special] = np.asarray(rows)[forms.same[special]]
        predicted[forms.lengths == 0] = np.asarray(rows).mean(0)
        d = self.hidden_size
        return EmbeddingTable.of(predicted[:, :d], None if self.tied else predicted[:, d:])


@functools.partial(jax.jit, static_argnums=0)
def predict_rows(graphdef, params, rows, packed: PackedForms):
    """Rows `[R, E]` for packed forms, from the source rows `[V, E]`; compiled once a shape."""
    return nnx.merge(graphdef, params)(rows, packed)


@functools.cache
def hypernet_graph(config: HypernetConfig, hidden_size: int, tied: bool, dtype):
    """The static half of a Hypernet, to be merged with its parameters."""
    return nnx.split(nnx.eval_shape(lambda: make_hypernet(config, hidden_size, tied, dtype, 0)))[0]


def make_hypernet(config: HypernetConfig, hidden_size: int, tied: bool, dtype, seed: int) -> Hypernet:
    """A Hypernet with fresh parameters."""
    return Hypernet(config, hidden_size=hidden_size, tied=tied, dtype=dtype, rngs=nnx.Rngs(seed))


def limit_pieces(forms: SurfaceForms, size: int) -> SurfaceForms:
    """The forms with `size` piece positions: cut or padded."""
    extra = max(size - forms.pieces.shape[1], 0)
    pieces = np.pad(forms.pieces[:, :size], ((0, 0), (0, extra)))
    return dataclasses.replace(forms, pieces=pieces, lengths=np.minimum(forms.lengths, size))


FORMAT = "zett-hypernet-1"


def save_hypernet(folder: str | Path, trained: TrainedHypernet, source: Vocabulary, record: dict) -> None:
    """Write the released form: config.json, model.safetensors, source_tokenizer/, training.json."""
    from safetensors.numpy import save

    from zett.checkpoint import write_json

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    flat = {".".join(map(_key, path)): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(trained.params)}
    # Not save_file, which would make it unreadable to others.
    (folder / "model.safetensors").write_bytes(save(flat, {"format": FORMAT}))
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
    (folder / "source_tokenizer").mkdir(exist_ok=True)
    source.tokenizer.save(str(folder / "source_tokenizer" / "tokenizer.json"))
    if source.folder is not None:
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            if (source.folder / name).exists():
                (folder / "source_tokenizer" / name).write_bytes((source.folder / name).read_bytes())


def _key(entry) -> str:
    return str(getattr(entry, "key", getattr(entry, "idx", entry)))


def shipped(name: str) -> Path:
    """A folder of the package's own models: "pico" or "pico-hypernet"."""
    return Path(__file__).parent / "assets" / name


def load_hypernet(path: str | Path) -> TrainedHypernet:
    """A hypernetwork from a folder of `save_hypernet`, or "pico" for the one in the package. UserError if it is none."""
    import safetensors
    from safetensors.numpy import load_file

    folder = shipped("pico-hypernet") if os.fspath(path) == "pico" else Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(f"no such hypernetwork folder: {folder}")
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        flat = load_file(folder / "model.safetensors")
    except FileNotFoundError:
        missing = next(name for name in ("config.json", "model.safetensors") if not (folder / name).exists())
        raise UserError(f"{folder} is not a hypernetwork: {missing} is missing") from None
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise UserError(f"{folder} cannot be read as a hypernetwork: {error}") from None
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise UserError(f"{folder / 'config.json'} has format {found!r}; expected {FORMAT!r}")
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
