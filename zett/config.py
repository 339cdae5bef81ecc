"""Every setting of a run: frozen dataclasses, built from an ml_collections ConfigDict. All checks of values are here."""

import dataclasses
import difflib
import types
import typing

from zett.errors import UserError

Task = typing.Literal["lm", "hypernet"]


@dataclasses.dataclass(frozen=True)
class DataConfig:
    source: str = "python"  # "python", a file, a folder, "hf:NAME[:CONFIG]", or several with weights; see zett/data/text.py
    valid_source: str | None = None  # files and folders whole; None: the held-out split of `source`
    text_column: str = "text"
    package_bytes: int = 4_000_000  # of "python": the most that one package contributes
    stream_bytes: int = 100_000_000  # of "hf:": the text after which reading stops, all parts together
    parts: int = 1  # row b of a batch reads part b * parts // batch_size of the text, so that a host reads only its rows' parts
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
    encoder: typing.Literal["zett", "roberta"] = "zett"  # "roberta": the layers are to the letter RoBERTa's, as in the paper
    norm: typing.Literal["pre", "post"] = "pre"
    residual: typing.Literal["mean", "first", "none"] = "mean"  # what the correction is added to
    residual_scale: float = 8.0  # corrections are multiplied by this over sqrt(D)
    # How rows are rescaled per column on the way in and out: with the source table's own mean and standard deviation, or with
    # factors that are fitted at the start of training and stored, such that the first predictions have the table's (the paper).
    rescale: typing.Literal["source", "fitted"] = "source"
    input_std: float = 1.0  # source rows are rescaled to mean 0 and this standard deviation, per column (the paper: 0.02)
    fallback_rows: int = 256  # trained rows for what the source vocabulary lacks: one a byte; other numbers in published ones
    features: bool = True  # tell the network how the vocabulary around the token looks: its log prior, size, longer tokens
    languages: tuple[str, ...] = ()  # a code for each of sampler.sources; a vocabulary's language is told as one more position
    # Predict the output bias that masked language models have, as a correction like `residual`; else it is that of FVT.
    bias: bool = False

    def __post_init__(self):
        if self.heads < 1 or self.width % self.heads:
            raise UserError(
                f"config.hypernet.width is {self.width}, which is not a multiple of config.hypernet.heads ({self.heads})"
            )
        if self.encoder == "roberta" and self.norm != "post":
            raise UserError(f"config.hypernet.norm is {self.norm!r}; with encoder 'roberta' it has to be 'post'")
        if self.rescale == "fitted" and self.residual != "none":
            raise UserError(f"config.hypernet.residual is {self.residual!r}; with rescale 'fitted' it has to be 'none'")
        if len(set(self.languages)) < len(self.languages):
            raise UserError(f"config.hypernet.languages names a language twice: {', '.join(self.languages)}")


@dataclasses.dataclass(frozen=True)
class SamplerConfig:
    """Which tokenizers a hypernetwork sees while it is trained; see zett/vocab/sample.py."""

    sources: tuple[str, ...] = ()  # text sources that tokenizers are drawn from; none: config.data.source
    stream_bytes: int = 100_000_000  # of each "hf:" source, the same on every host; no more than config.data.stream_bytes
    source_weights: tuple[float, ...] = ()  # of each source; none: all alike, and a pooled tokenizer is trained on one of them
    source_exponent: float = 0.0  # weights are multiplied by the sizes of the sources to this power (for many languages: 0.1)
    one_source: bool = False  # whether a step has its tokenizer and its text from one source (a language), or from mixtures
    min_size: int = 1500
    max_size: int = 16384
    sizes: typing.Literal["log-uniform", "fixed"] = "log-uniform"  # between the two, or always the largest
    bpe: float = 0.5  # share of draws: byte-level BPE, cut from a pool of trained ones
    unigram: float = 0.3  # Unigram, thinned from a pool of trained ones
    substring: float = 0.2  # Unigram over random frequent substrings, as in the ZeTT paper
    wordpiece: float = 0.0  # longest match first over words and single signs, cut from a pool of trained ones
    lowercase: float = 0.5  # of "wordpiece": share of the pool that reads text in lower case
    pool: int = 12  # trained tokenizers of each kind; at least one a source
    pool_bytes: int = 3_000_000  # text that each of them is trained on
    inventory: int = 200_000  # candidate substrings kept for "substring"
    inventory_bytes: int = 16_000_000  # text that they are counted in
    shards: int = 16  # parts of that text, of which every draw is another mixture; at least one a source
    queue: int = 0  # of "substring": instead, counted at every step in this many excerpts of text (the paper: 2048)
    queue_step: int = 128  # of them new at every step
    max_bytes: int = 16  # longest candidate
    noise_mean: float = -13.8  # of "substring": ln of the median of the noise, scores adding up to 1 (the paper: -11.5 and 4)
    noise_std: float = 2.0
    rows: int = 2048  # rows predicted in a step: the batch's tokens, then random others; 0: the whole vocabulary

    def __post_init__(self):
        kinds = ("bpe", "unigram", "substring", "wordpiece")
        for name in (*kinds, "queue", "source_exponent", "rows"):
            if getattr(self, name) < 0:
                raise UserError(f"config.sampler.{name} is {getattr(self, name)}; it has to be 0 or more")
        for name in ("pool", "pool_bytes", "inventory", "inventory_bytes", "queue_step", "max_bytes"):
            if getattr(self, name) <= 0:
                raise UserError(f"config.sampler.{name} is {getattr(self, name)}; it has to be greater than 0")
        if not any(getattr(self, kind) for kind in kinds):
            raise UserError(f"config.sampler.{', .'.join(kinds)} are all 0; at least one kind has to be drawn")
        if not 0 <= self.lowercase <= 1:
            raise UserError(f"config.sampler.lowercase is {self.lowercase}; it is a share, between 0 and 1")
        given, wanted = len(self.source_weights), max(len(self.sources), 1)
        if given not in (0, wanted) or any(weight <= 0 for weight in self.source_weights):
            raise UserError(
                f"config.sampler.source_weights is {self.source_weights}; "
                f"it has to hold one number greater than 0 for each of the {wanted} sources, or none"
            )


@dataclasses.dataclass(frozen=True)
class LossConfig:
    lexical: float = 0.1  # weight of the lexical loss: tokens that the source has keep their rows
    mask_share: float = 0.15  # of a text's tokens, those that are hidden where the base is a masked language model

    def __post_init__(self):
        if not 0 < self.mask_share < 1:
            raise UserError(f"config.loss.mask_share is {self.mask_share}; it is a share, between 0 and 1")


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
    trained: typing.Literal["all", "table"] = "all"  # task "lm" with config.init: everything, or the vocabulary's rows alone
    dtype: typing.Literal["auto", "bfloat16", "float32"] = "auto"  # of matrix products; sums and parameters are float32
    # Of what is between products; "auto" is float32 on CPUs, elsewhere the dtype of the products.
    activations: typing.Literal["auto", "bfloat16", "float32"] = "auto"
    microbatches: int = 1  # parts of a batch that go through the model one after the other, their gradients added up
    # What is kept of each layer for the backward pass, of the body and of the hypernetwork: everything, results of matrix
    # products, or inputs alone.
    remat: typing.Literal["none", "dots", "full"] = "none"
    remat_hypernet: typing.Literal["none", "dots", "full"] = "none"
    ahead: int = 2  # batches prepared ahead of the device
    workers: int = 1  # threads that prepare them
    max_skipped: int = 10  # steps in a row with a NaN or Inf in the gradient, all of them left out, after which the run stops
    track: tuple[typing.Literal["tensorboard", "wandb"], ...] = ()  # where metrics go beside metrics.jsonl


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How the devices are arranged; see zett/mesh.py. One of the three may be -1: all devices that are left."""

    data: int = -1  # copies of everything, each with its own rows of the batch
    fsdp: int = 1  # parameters and the batch in so many parts
    tensor: int = 1  # each matrix product in so many parts


@dataclasses.dataclass(frozen=True)
class Config:
    task: Task = "hypernet"
    seed: int = 0
    base: str = "pico"  # task "hypernet": the base model, a folder, a Hub name, or "pico" for the one in the package
    # What to start from; None: fresh parameters. Task "hypernet": a trained hypernetwork, a folder or "pico". Task "lm": a
    # model and its tokenizer, a folder (as `zett transfer` writes it), a Hub name or "pico"; it replaces .model and .tokenizer.
    init: str | None = None
    data: DataConfig = DataConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    model: ModelConfig = ModelConfig()
    hypernet: HypernetConfig = HypernetConfig()
    sampler: SamplerConfig = SamplerConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    mesh: MeshConfig = MeshConfig()

    def __post_init__(self):
        positive = [
            "data.batch_size", "data.length", "data.parts", "data.stream_bytes", "sampler.stream_bytes", "tokenizer.vocab_size",
            "hypernet.width", "hypernet.layers", "hypernet.heads", "hypernet.max_pieces", "sampler.min_size", "sampler.shards",
            "train.steps", "train.log_every",
            "train.eval_every", "train.checkpoint_every", "train.keep", "train.ahead", "train.workers", "train.max_skipped",
            "train.microbatches", "optim.clip",
        ]  # fmt: skip
        for name in positive:
            section, field = name.split(".")
            value = getattr(getattr(self, section), field)
            if value <= 0:
                raise UserError(f"config.{name} is {value}; it has to be greater than 0")
        if self.data.batch_size % self.train.microbatches:
            raise UserError(
                f"config.train.microbatches is {self.train.microbatches}; it has to divide config.data.batch_size "
                f"({self.data.batch_size})"
            )
        if self.task == "lm" and self.init is None and self.train.trained != "all":
            raise UserError(f"config.train.trained is {self.train.trained!r}; without config.init it has to be 'all'")
        if self.data.batch_size % self.data.parts:
            raise UserError(
                f"config.data.parts is {self.data.parts}; it has to divide config.data.batch_size ({self.data.batch_size})"
            )
        if self.hypernet.fallback_rows != 256:
            raise UserError(
                f"config.hypernet.fallback_rows is {self.hypernet.fallback_rows}; training needs 256, one for each byte"
            )
        languages, sources = self.hypernet.languages, self.sampler.sources
        if languages and not (self.sampler.one_source and len(languages) == len(sources)):
            raise UserError(
                f"config.hypernet.languages names {len(languages)} languages; to train them, config.sampler.one_source has to "
                f"be True and config.sampler.sources a source for each (there are {len(sources)})"
            )
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
