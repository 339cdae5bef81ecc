"""The hypernetwork: surface forms + source table -> `EmbeddingTable`.

After ZeTT (arXiv 2405.07883): source rows of a token's pieces -> rescaling -> dense -> projector -> a few transformer layers
over the pieces -> the first position -> one head for input and one for output rows. Two changes make a single training stage
enough (arXiv 2503.20083): the heads predict a *correction* to the mean of the pieces' rows, and their last layer starts at
zero, so that training starts from FVT. A third is new here: the network also sees what the vocabulary around the token is like
(FEATURES), and if wanted how far it is from the source (DISTANCE).

Tokens come packed, several a row (zett/hypernet/packing.py). To save more work, a source row is projected once, however many
tokens it is a piece of, and the end of the last layer is computed at tokens' first positions alone. Shapes: N packed rows, P
positions, R predicted tokens, S pieces of a token, U source rows, E columns of them (input and output side by side), W width.

With encoder "roberta", rescale "fitted" and no residual it is the paper's own network, which zett/hypernet/published.py reads.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from zett.config import HypernetConfig
from zett.hypernet.packing import PackedForms
from zett.lms.attention import attention, attention_by, by_cudnn
from zett.lms.layers import LayerNorm, Linear, Remat, checkpointed, dot
from zett.mesh import gathered, paths, scattered
from zett.vocab.forms import DISTANCE, FEATURES


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

    def _attend(self, x_NPW, owner_NP):
        """Attention of each position to the others of its token, before the output product."""
        q, k, v = jnp.split(self.qkv(x_NPW).reshape(*x_NPW.shape[:2], self.config.heads, -1), 3, axis=-1)
        rows, length = rows_together(*owner_NP.shape)
        if by_cudnn(self.qkv.dtype, q.shape[-1], length, True):
            # Products of a few positions are too small for a GPU, and their layouts are not those of q, k and v. Many rows as
            # one text, in which each position sees its own token, are not.
            owner = owner_NP.reshape(rows, length)
            q, k, v = (part.reshape(rows, length, *part.shape[2:]) for part in (q, k, v))
            same = (owner[:, :, None] == owner[:, None, :])[:, None]
            return attention(q, k, v, mask=same, causal=False, dtype=self.qkv.dtype).reshape(x_NPW.shape)
        mask_NPP = owner_NP[:, :, None] == owner_NP[:, None, :]
        scores = jnp.einsum("nphk,nqhk->nhpq", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
        weights = jax.nn.softmax(jnp.where(mask_NPP[:, None], scores, -1e30), -1).astype(v.dtype)
        return jnp.einsum("nhpq,nqhk->nphk", weights, v).reshape(x_NPW.shape)

    def _mlp(self, x):
        return self.down(nnx.gelu(self.up(x), approximate=self.config.encoder != "roberta"))

    def __call__(self, x, owner, first=None):
        """Output `[N, P, W]`. With `first [R]`, positions of the flattened rows, it is computed at these alone: `[R, W]`.

        owner: the token of each position, which sees the positions of the same one.
        """
        pre = self.config.norm == "pre"
        gathered = self._attend(self.norm_attention(x) if pre else x, owner)
        if first is not None:
            x, gathered = (part.reshape(-1, part.shape[-1])[first] for part in (x, gathered))
        return self._after(x, self.out(gathered))

    def _after(self, x, attended):
        """The rest of the layer; attended: what attention adds to `x`."""
        x = x + attended
        if self.config.norm == "pre":
            return x + self._mlp(self.norm_mlp(x))
        x = self.norm_attention(x)
        return self.norm_mlp(x + self._mlp(x))

    def own_value(self) -> tuple[jax.Array, jax.Array]:
        """Kernel and bias of what attention adds to a position that sees itself alone: its value, after the output product."""
        c, product = self.config, functools.partial(jnp.dot, precision="highest")
        assert self.qkv.bias is not None and self.out.bias is not None
        # Query, key and value of a head lie together.
        kernel, bias = (
            part[...].reshape(-1, c.heads, 3, c.width // c.heads)[:, :, 2] for part in (self.qkv.kernel, self.qkv.bias)
        )
        kernel, bias, out = (part.astype(jnp.float32) for part in (kernel, bias, self.out.kernel[...]))
        return product(kernel.reshape(c.width, c.width), out), product(bias.reshape(c.width), out) + self.out.bias[...]

    def alone(self, x, value):
        """Output for positions `[..., W]` that see themselves alone, with fewer products; value: what `own_value` gives."""
        kernel, bias = value
        read = self.norm_attention(x) if self.config.norm == "pre" else x
        return self._after(x, dot(read, kernel, self.out.dtype) + bias.astype(x.dtype))


def rows_together(rows: int, positions: int) -> tuple[int, int]:
    """How many texts, and of which length, packed rows are joined to: as many rows a text as 128 positions hold.

    The number is a power of two, as the number of rows is a multiple of one.
    """
    together = next(n for n in (16, 8, 4, 2, 1) if rows % n == 0 and (n * positions <= 128 or n == 1))
    return rows // together, together * positions


class Head(nnx.Module):
    """Projector and dense layer to D columns. If the output is a correction, the dense layer starts at zero."""

    def __init__(self, c: HypernetConfig, columns: int, dtype, rngs: nnx.Rngs):
        self.projector = Projector(c.width, c.feed_forward, dtype, rngs)
        std = c.width**-0.5 if c.residual == "none" else 0.0
        self.dense = Linear(c.width, columns, use_bias=True, dtype=dtype, rngs=rngs, std=std)

    def __call__(self, x):
        return self.dense(self.projector(x))


class Scale(nnx.Module):
    """`x * scale + shift` per column. The factors are fitted at the start of training, and not trained."""

    def __init__(self, columns: int):
        self.scale, self.shift = nnx.Param(jnp.ones(columns)), nnx.Param(jnp.zeros(columns))

    def __call__(self, x):
        return x * jax.lax.stop_gradient(self.scale[...]) + jax.lax.stop_gradient(self.shift[...])


class Hypernet(nnx.Module):
    """Predicts rows for packed surface forms. tied: the source has input rows only, and so has what is predicted, but for
    `config.untie`: then both heads correct the same rows.

    dtype: of matrix products. activations: dtype of the values between the products. remat: what a backward pass keeps of each
    layer.
    """

    def __init__(
        self, c: HypernetConfig, *, hidden_size: int, tied: bool, dtype, activations=jnp.float32, remat: Remat = "none",
        rngs: nnx.Rngs,
    ):  # fmt: skip
        sides = 1 if tied else 2
        self.piece = Linear(sides * hidden_size, c.width, use_bias=True, dtype=dtype, rngs=rngs)
        self.projector = Projector(c.width, c.feed_forward, dtype, rngs)
        self.positions = nnx.Param(0.02 * jax.random.normal(rngs.params(), (c.max_pieces, c.width)))
        self.features = Linear(num_features(c), c.width, use_bias=True, dtype=dtype, rngs=rngs) if c.features else None
        self.layers = nnx.List([Layer(c, dtype, rngs) for _ in range(c.layers)])
        roberta = c.encoder == "roberta"
        self.norm_pieces = LayerNorm(c.width, 1e-5) if roberta else None
        self.norm = None if roberta else LayerNorm(c.width, 1e-6)
        heads = [Head(c, hidden_size, dtype, rngs) for _ in range(sides)]
        # Rows for what the source vocabulary lacks (one for each byte in our own), on the scale of the rescaled source rows.
        self.fallback = nnx.Param(0.02 * jax.random.normal(rngs.params(), (c.fallback_rows, sides * hidden_size)))
        fitted = c.rescale == "fitted"
        self.scale_in = Scale(sides * hidden_size) if fitted else None
        self.scale_out = Scale(kinds_of_rows(c, tied) * hidden_size) if fitted else None
        number = len(c.languages)
        self.languages = nnx.Param(0.02 * jax.random.normal(rngs.params(), (number, c.width))) if number else None
        self.bias = Linear(c.width, 1, use_bias=True, dtype=dtype, rngs=rngs, std=0.0) if c.bias else None
        # The last one to be made, so that all else has the same fresh values with and without it.
        self.untied = kinds_of_rows(c, tied) > sides
        self.heads = nnx.List([*heads, *([Head(c, hidden_size, dtype, rngs)] if self.untied else [])])
        self.config, self.hidden_size, self.activations, self.remat = c, hidden_size, activations, remat

    def __repr__(self) -> str:  # that of nnx would print every parameter
        return f"Hypernet({shape_words(self.config)}, rows of width {self.hidden_size})"

    def __call__(self, rows_UE, forms: PackedForms, stats=None):
        """Predicted rows `[R, E]` for `forms`, from the source rows `rows_UE`. With a bias, `[R, E + 1]`, the bias last.

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
        # Source rows are not trained, so their projection needs no gradient of its input. Fallback rows need one, and so are
        # projected apart.
        x = jnp.concatenate([projected_UW, self.projected(self.fallback[...])])[forms.packed]
        return self.rows_of(self.placed(x, forms.position), forms, scaled_UE, stats)

    def placed(self, projected, position):
        """Projected rows `[..., W]` at their positions in tokens, through the projector."""
        positions = self.positions[...][position].astype(projected.dtype)
        projector = checkpointed(self.projector, self.remat)
        return projector(projected + positions) if self.norm_pieces is None else projector(projected) + positions

    def rows_of(self, x, forms: PackedForms, scaled_UE, stats):
        """Rows for `forms` from their placed pieces `x [N, P, W]`."""
        c = self.config
        if self.features is not None:
            features = jnp.concatenate([forms.features, jnp.zeros((1, num_features(c)))])
            x = x + self.features(features).astype(x.dtype)[forms.owner]
        if self.languages is not None:
            language = self.languages[...][forms.language].astype(x.dtype)
            x = jnp.where(forms.position[..., None] == c.max_pieces, language, x)
        if self.norm_pieces is not None:
            x = self.norm_pieces(x)
        for layer in self.layers[:-1]:
            x = checkpointed(layer, self.remat)(x, forms.owner)
        x_RW = checkpointed(self.layers[-1], self.remat)(x, forms.owner, forms.first)
        return self._finished(x_RW, stats, lambda: self._residual(scaled_UE, forms))

    def rows_alone(self, scaled_RE, features_RF, values, stats):
        """Rows `[R, E]` of tokens of one piece, from the scaled rows of these; values: `own_value()` of every layer."""
        x = self.projected(scaled_RE)
        x = self.placed(x, jnp.zeros(len(x), jnp.int32))
        if self.features is not None:
            x = x + self.features(features_RF).astype(x.dtype)
        if self.norm_pieces is not None:
            x = self.norm_pieces(x)
        for layer, value in zip(self.layers, values):
            x = layer.alone(x, value)
        return self._finished(x, stats, lambda: 0.0 if self.config.residual == "none" else scaled_RE)

    def _finished(self, x_RW, stats, residual: Callable):
        """Rows from what the last layer gives; `residual` makes what the correction is added to, where there is one."""
        c = self.config
        if self.norm is not None:
            x_RW = self.norm(x_RW)
        rows_RE = jnp.concatenate([checkpointed(head, self.remat)(x_RW).astype(jnp.float32) for head in self.heads], -1)
        if self.scale_out is not None:
            rows_RE = self.scale_out(rows_RE)
        else:
            correction = rows_RE * (c.residual_scale * self.hidden_size**-0.5)
            mean, std, start = self._for_heads(stats[0]), self._for_heads(stats[1]), self._for_heads(residual())
            rows_RE = (start + correction) * std + mean
        return rows_RE if self.bias is None else jnp.concatenate([rows_RE, self.bias(x_RW).astype(jnp.float32)], -1)

    def _for_heads(self, x):
        """Values for the source's columns as values for those of the heads: where rows are untied, for each head the same."""
        return jnp.concatenate([x, x], -1) if self.untied and jnp.ndim(x) else x

    def _residual(self, scaled_UE, forms: PackedForms):
        """What the correction is added to, `[R, E]`: the rows of a token's pieces, by `piece_weights`."""
        if self.config.residual == "none":
            return 0.0
        weights_RS = piece_weights(self.config.residual, forms.lengths, forms.pieces.shape[1])
        number = forms.pieces - scaled_UE.shape[0]  # the number of a fallback row; negative for source rows
        # One piece at a time, since the rows of all pieces at once would be S times as large as the result. The few fallback
        # rows are looked up by a matrix product: the gradient of an indexing would hold a row for each source row, too.
        total = 0.0
        for s in range(forms.pieces.shape[1]):
            weight_R = jnp.where(number[:, s] < 0, weights_RS[:, s], 0.0)
            total += scaled_UE[jnp.minimum(forms.pieces[:, s], scaled_UE.shape[0] - 1)] * weight_R[:, None]
        chosen = number[:, :, None] == jnp.arange(self.config.fallback_rows)
        return total + jnp.einsum("rsf,rs->rf", chosen, weights_RS) @ self.fallback[...]


def piece_weights(residual: str, lengths_R, pieces: int):
    """How much each of a token's pieces counts in what its correction is added to, `[R, S]`, adding up to 1.

    "mean": all alike; "first" and "last": that one alone; "weighted": each half as much as the one before it.
    """
    place, lengths_R1 = jnp.arange(pieces), lengths_R[:, None]
    if residual == "last":
        return (place == lengths_R1 - 1).astype(jnp.float32)
    inside = place < (jnp.minimum(lengths_R1, 1) if residual == "first" else lengths_R1)
    weights_RS = inside * (0.5**place if residual == "weighted" else 1.0)
    return weights_RS / jnp.maximum(weights_RS.sum(1, keepdims=True), 1e-9)


def predict(hypernet: Hypernet, rows_UE, forms: PackedForms, stats, mesh: Mesh):
    """Predicted rows `[R, E]`, whole on every device of `mesh`. Each of several devices computes one group `[G, ...]`."""
    if mesh.size == 1:
        return hypernet(rows_UE, forms, stats)
    scaled_UE = hypernet.scaled(rows_UE, stats)
    projected_UW = gathered(hypernet.projected(scattered(scaled_UE, mesh)), mesh)
    # The groups share nothing, so that each device computes its own one. How cuDNN's attention is cut there is not tried yet.
    with attention_by("xla"):
        rows_GRE = jax.vmap(lambda group: hypernet.predicted(group, scaled_UE, projected_UW, stats))(forms)
    return gathered(rows_GRE, mesh)


def partition_rules(c: HypernetConfig) -> list[tuple[str, PartitionSpec]]:
    """How the parameters lie on a mesh. Each is matched by exactly one rule, and each rule matches something."""
    # Every device has its own tokens. So a kernel that is cut is gathered before it is used, also along the axis "tensor".
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


def num_features(c: HypernetConfig) -> int:
    """Numbers about each token, F, that the forms of a network hold, whether or not it reads them."""
    return len(FEATURES) + c.distance * len(DISTANCE)


def shape_words(c: HypernetConfig) -> str:
    return f"{c.layers} layers of width {c.width}, at most {c.max_pieces} pieces"


def kinds_of_rows(c: HypernetConfig, tied: bool) -> int:
    """How many kinds of rows are predicted: 1 if output rows are the input rows, else 2."""
    return 1 if tied and not c.untie else 2


def untied_params(params: dict, c: HypernetConfig) -> dict:
    """The parameters of a hypernetwork for tied rows as those of one with `untie`, whose output rows are its input rows.

    c: the config of either.
    """
    copied = {"heads": {i: jax.tree.map(np.array, params["heads"][0]) for i in range(2)}}
    if c.rescale == "fitted":
        copied["scale_out"] = {name: np.tile(x, 2) for name, x in params["scale_out"].items()}
    return params | copied


@functools.partial(jax.jit, static_argnums=0)
def predict_rows(graphdef, params, rows, packed: PackedForms, stats=None):
    """Rows predicted by the Hypernet made of `graphdef` and `params`. Compiled once for each shape."""
    return nnx.merge(graphdef, params)(rows, packed, stats)


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
