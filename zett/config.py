"""Every setting of a run: frozen dataclasses, built from an ml_collections ConfigDict. All checks of values are here."""

import dataclasses
import difflib
import types
import typing

from zett.errors import UserError

Task = typing.Literal["lm", "hypernet"]


@dataclasses.dataclass(frozen=True)
class DataConfig:
    source: str = "python"  # "python", a file, a folder, or "hf:NAME[:CONFIG]"; see zett/data/text.py
    valid_source: str | None = None  # None: the held-out split of `source`
    text_column: str = "text"
    package_bytes: int = 4_000_000  # of "python": the most that one package contributes
    stream_bytes: int = 100_000_000  # of "hf:": the text after which reading stops
    batch_size: int = 16
    length: int = 256  # tokens of a row
    resegment_share: float = 0.0  # task "lm": share of rows that are cut more finely at random (StochasTok)
    resegment_rate: float = 0.3


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    kind: str = "bpe"  # task "lm": the kind of tokenizer that is trained for the new model
    vocab_size: int = 6144
    sample_bytes: int = 20_000_000


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Task "lm": the shape of the Llama model that is trained."""

    hidden_size: int = 256
    num_layers: int = 4
    num_heads: int = 4
    num_kv_heads: int = 2
    intermediate_size: int = 768
    name: str = "pico"


@dataclasses.dataclass(frozen=True)
class HypernetConfig:
    """The hypernetwork; every choice of the method is a field. Its parts are described in zett/hypernet.py."""

    width: int = 256
    layers: int = 3
    heads: int = 4
    feed_forward: int = 512
    max_pieces: int = 8  # S: longer decompositions are cut
    norm: typing.Literal["pre", "post"] = "pre"
    residual: typing.Literal["mean", "first", "none"] = "mean"  # what the correction is added to
    residual_scale: float = 8.0  # corrections are multiplied by this over sqrt(D)
    input_std: float = 1.0  # source rows are rescaled to mean 0 and this standard deviation, per column
    features: bool = True  # tell the network how the vocabulary around the token looks: its log prior, size, longer tokens


@dataclasses.dataclass(frozen=True)
class SamplerConfig:
    """Which tokenizers a hypernetwork sees while it is trained; see zett/vocab/sample.py."""

    sources: tuple[str, ...] = ()  # text sources that tokenizers are drawn from; none: config.data.source
    min_size: int = 1500
    max_size: int = 16384  # sizes are log-uniform between the two
    bpe: float = 0.5  # share of draws: byte-level BPE, cut from a pool of trained ones
    unigram: float = 0.3  # Unigram, thinned from a pool of trained ones
    substring: float = 0.2  # Unigram over random frequent substrings, as in the ZeTT paper
    pool: int = 12  # trained tokenizers of each kind
    pool_bytes: int = 3_000_000  # text that each of them is trained on
    inventory: int = 200_000  # candidate substrings kept for "substring"
    inventory_bytes: int = 16_000_000  # text that they are counted in
    shards: int = 16
    max_bytes: int = 16  # longest candidate
    noise_mean: float = -13.8  # of "substring": ln of the median of the noise, scores adding up to 1 (the paper: -11.5 and 4)
    noise_std: float = 2.0
    rows: int = 2048  # rows predicted in a step: the batch's tokens, then random others


@dataclasses.dataclass(frozen=True)
class LossConfig:
    lexical: float = 0.1  # weight of the lexical loss: tokens that the source has keep their rows


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    name: typing.Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 1e-3
    matrix_learning_rate: float = 0.02  # of "muon": the rate of the matrices; all else has `learning_rate`
    warmup_steps: int = 50
    schedule: typing.Literal["linear", "cosine", "constant"] = "cosine"
    final_share: float = 0.0  # the last learning rate, as a share of the highest
    weight_decay: float = 0.01
    b1: float = 0.9
    b2: float = 0.95
    clip: float = 1.0  # largest norm of the gradient of the trained parameters


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    steps: int = 1000
    log_every: int = 10
    eval_every: int = 200
    eval_windows: int = 256
    eval_targets: tuple[str, ...] = ("bpe-8k", "unigram-8k")  # kind-size or a tokenizer folder; task "hypernet"
    checkpoint_every: int = 500
    keep: int = 2  # checkpoints kept beside the best one
    dtype: typing.Literal["auto", "bfloat16", "float32"] = "auto"  # of matrix products; sums and parameters are float32
    ahead: int = 2  # batches prepared ahead of the device


@dataclasses.dataclass(frozen=True)
class Config:
    task: Task = "hypernet"
    seed: int = 0
    base: str = "pico"  # task "hypernet": the base model, a folder, a Hub name, or "pico" for the one in the package
    init: str | None = None  # task "hypernet": a trained hypernetwork to start from, a folder or "pico"; None: fresh parameters
    data: DataConfig = DataConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    model: ModelConfig = ModelConfig()
    hypernet: HypernetConfig = HypernetConfig()
    sampler: SamplerConfig = SamplerConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()

    def __post_init__(self):
        positive = [
            "data.batch_size", "data.length", "tokenizer.vocab_size", "hypernet.width", "hypernet.layers", "hypernet.heads",
            "hypernet.max_pieces", "sampler.rows", "sampler.min_size", "sampler.shards", "train.steps", "train.log_every",
            "train.eval_every", "train.checkpoint_every", "train.keep", "train.ahead", "optim.clip",
        ]  # fmt: skip
        for name in positive:
            section, field = name.split(".")
            value = getattr(getattr(self, section), field)
            if value <= 0:
                raise UserError(f"config.{name} is {value}; it has to be greater than 0")
        if self.hypernet.width % self.hypernet.heads:
            raise UserError(
                f"config.hypernet.width is {self.hypernet.width}, "
                f"which is not a multiple of config.hypernet.heads ({self.hypernet.heads})"
            )
        if self.sampler.bpe + self.sampler.unigram + self.sampler.substring <= 0:
            raise UserError("config.sampler.bpe, .unigram and .substring are all 0; at least one kind has to be drawn")
        if self.sampler.min_size > self.sampler.max_size:
            raise UserError(
                f"config.sampler.min_size ({self.sampler.min_size}) is above config.sampler.max_size ({self.sampler.max_size})"
            )


def from_dict(values, cls=Config, where: str = "config"):
    """Build `cls` from a ConfigDict or dict. UserError names an unknown or ill-typed field and what would be right."""
    values = dict(values.items())
    fields = {f.name: f for f in dataclasses.fields(cls)}
    built = {}
    hints = typing.get_type_hints(cls)
    for name, value in values.items():
        if name not in fields:
            raise UserError(f"{where}.{name} does not exist; {nearest(name, fields, where + '.')}")
        built[name] = checked(value, hints[name], f"{where}.{name}")
    return cls(**built)


def nearest(name: str, valid, prefix: str = "") -> str:
    """A hint that names the valid choice closest to `name`, or all of them."""
    close = difflib.get_close_matches(name, list(valid), n=1)
    return f"did you mean {prefix}{close[0]}?" if close else f"there are {', '.join(sorted(valid))}"


def to_dict(config) -> dict:
    """Plain nested dict of a config dataclass."""
    return dataclasses.asdict(config)


def checked(value, hint, where: str):
    """`value` if it is of type `hint`, else UserError; ints become floats and lists tuples where those are asked for."""
    if dataclasses.is_dataclass(hint):
        if not hasattr(value, "items"):
            raise UserError(f"{where} is {value!r}; it has to hold fields such as {where}.{dataclasses.fields(hint)[0].name}")
        return from_dict(value, hint, where)
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        if value not in typing.get_args(hint):
            raise UserError(f"{where} is {value!r}; it has to be one of {', '.join(map(repr, typing.get_args(hint)))}")
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        hint = next(h for h in typing.get_args(hint) if h is not type(None))
        origin = typing.get_origin(hint)
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, (tuple, list)):
            raise UserError(f"{where} is {value!r}; it has to be a tuple")
        return tuple(checked(v, typing.get_args(hint)[0], f"{where}[{i}]") for i, v in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise UserError(f"{where} is {value!r} ({type(value).__name__}); it has to be of type {hint.__name__}")
    return value
