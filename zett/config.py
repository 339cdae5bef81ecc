"""Every setting of a run: frozen dataclasses, built from an ml_collections ConfigDict. All checks of values are here."""

import dataclasses
import functools
import math
import typing
from typing import Annotated

from zett import values
from zett.errors import UserError
from zett.values import Within

RecipeName = typing.Literal["lm", "hypernet", "refinement"]

Few = Annotated[int, Within(1, 1024)]  # layers, heads, threads, pieces of a token
Count = Annotated[int, Within(1, 2**20)]  # of rows, parts, windows
Number = Annotated[int, Within(1, 10**9)]  # of steps
Rows = Annotated[int, Within(0, 2**24)]  # or none
Bytes = Annotated[int, Within(1, 2**50)]
Entries = Annotated[int, Within(1, 2**20)]  # of a vocabulary; the largest in use have that many
Width = Annotated[int, Within(1, 2**20)]
Share = Annotated[float, Within(0, 1)]
Decay = Annotated[float, Within(0, 1, below=True)]  # of a running mean
Small = Annotated[float, Within(0, 100)]
Weight = Annotated[float, Within(0, 10**6)]
Rate = Annotated[float, Within(0, 100, above=True)]
Devices = Annotated[int, Within(-1, 2**20)]


@functools.cache
def _ranges(cls) -> dict[str, Within]:
    """The range of each field of the dataclass that has one."""
    hints = typing.get_type_hints(cls, include_extras=True)
    of = {name: [m for m in getattr(hint, "__metadata__", ()) if isinstance(m, Within)] for name, hint in hints.items()}
    return {name: found[0] for name, found in of.items() if found}


class Checked:
    """A section of the config, whose numbers are in their ranges; its name is that of the class, without "Config"."""

    def __post_init__(self):
        cls: typing.Any = type(self)
        section = cls.__name__.removesuffix("Config").lower()
        for name, within in _ranges(cls).items():
            value = getattr(self, name)
            if value not in within:
                raise UserError(f"config.{section}{'.' * bool(section)}{name} is {value!r}; it has to be {within}")


@dataclasses.dataclass(frozen=True)
class DataConfig(Checked):
    text: str = "python"  # "python", a file, a folder, "hf:NAME[:CONFIG]", or several with weights; see zett/data/sources.py
    valid_text: str | None = None  # files and folders whole; None: the held-out split of `text`
    text_column: str = "text"
    package_bytes: Bytes = 4_000_000  # of "python": the most that one package contributes
    stream_bytes: Bytes = 100_000_000  # of "hf:": the text after which reading stops, all parts together
    # Row b of a batch reads part b * parts // batch_size of the text, so that a host reads only its rows' parts.
    parts: Count = 1
    batch_size: Count = 16
    length: Count = 256  # tokens of a row
    # Share of rows whose text is framed as turns by the chat template of the model; see zett/data/turns.py. Their text is from
    # the conversations in `chats` (see zett/data/chats.py); None: paragraphs of `text`, as if they were messages.
    turns: Share = 0.0
    chats: str | None = None
    resegment_share: Share = 0.0  # recipe "lm": share of rows that are cut more finely at random (StochasTok)
    resegment_rate: Share = 0.3


@dataclasses.dataclass(frozen=True)
class TokenizerConfig(Checked):
    kind: str = "bpe"  # recipe "lm": the kind of tokenizer that is trained for the new model
    vocab_size: Entries = 6144
    sample_bytes: Bytes = 20_000_000


@dataclasses.dataclass(frozen=True)
class ModelConfig(Checked):
    """Recipe "lm": the shape of the Llama model that is trained."""

    hidden_size: Width = 256
    num_layers: Few = 4
    num_heads: Few = 4
    num_kv_heads: Few = 2
    intermediate_size: Width = 768
    tied: bool = False  # output rows are the input rows
    name: str = "pico"

    def __post_init__(self):
        super().__post_init__()
        if self.hidden_size % (2 * self.num_heads):
            raise UserError(
                f"config.model.hidden_size is {self.hidden_size}; it has to be a multiple of twice config.model.num_heads "
                f"({self.num_heads}), since positions rotate pairs of a head's columns"
            )
        if self.num_heads % self.num_kv_heads:
            raise UserError(
                f"config.model.num_kv_heads is {self.num_kv_heads}; it has to divide config.model.num_heads ({self.num_heads})"
            )


@dataclasses.dataclass(frozen=True)
class HypernetConfig(Checked):
    """The hypernetwork; every choice of the method is a field. Its parts are described in zett/hypernet/network.py."""

    width: Width = 256
    layers: Few = 3
    heads: Few = 4
    feed_forward: Width = 512
    max_pieces: Few = 8  # S: longer decompositions are cut
    encoder: typing.Literal["zett", "roberta"] = "zett"  # "roberta": the layers are to the letter RoBERTa's, as in the paper
    norm: typing.Literal["pre", "post"] = "pre"
    # What the correction is added to: the mean of the pieces' rows, one of them, or a mean in which each counts half as much
    # as the one before it.
    residual: typing.Literal["mean", "first", "last", "weighted", "none"] = "mean"
    residual_scale: Weight = 8.0  # corrections are multiplied by this over sqrt(D)
    # How rows are rescaled per column on the way in and out: with the source table's own mean and standard deviation, or with
    # factors that are fitted at the start of training and stored, such that the first predictions have the table's (the paper).
    rescale: typing.Literal["source", "fitted"] = "source"
    input_std: Rate = 1.0  # source rows are rescaled to mean 0 and this standard deviation, per column (the paper: 0.02)
    fallback_rows: Rows = 256  # trained rows for what the source vocabulary lacks: one a byte; other numbers in published ones
    features: bool = True  # tell the network how the vocabulary around the token looks: its log prior, size, longer tokens
    distance: bool = False  # with `features`: also how far the vocabulary is from the source's, its pieces and shared tokens
    languages: tuple[str, ...] = ()  # a code for each of sampler.texts; a vocabulary's language is told as one more position
    # Predict the output bias that masked language models have, as a correction like `residual`; else it is that of FVT.
    bias: bool = False
    # Where the base's output rows are its input rows (tied): predict output rows of their own, by a second head.
    untie: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.width % self.heads:
            raise UserError(
                f"config.hypernet.width is {self.width}, which is not a multiple of config.hypernet.heads ({self.heads})"
            )
        if self.distance and not self.features:
            raise UserError("config.hypernet.distance is True; it has to be False where config.hypernet.features is")
        if self.encoder == "roberta" and self.norm != "post":
            raise UserError(f"config.hypernet.norm is {self.norm!r}; with encoder 'roberta' it has to be 'post'")
        if self.rescale == "fitted" and self.residual != "none":
            raise UserError(f"config.hypernet.residual is {self.residual!r}; with rescale 'fitted' it has to be 'none'")
        if len(set(self.languages)) < len(self.languages):
            raise UserError(f"config.hypernet.languages names a language twice: {', '.join(self.languages)}")


@dataclasses.dataclass(frozen=True)
class SamplerConfig(Checked):
    """Which tokenizers a hypernetwork sees while it is trained; see zett/vocab/sampling/sampler.py."""

    texts: tuple[str, ...] = ()  # text sources that tokenizers are drawn from; none: config.data.text
    stream_bytes: Bytes = 100_000_000  # of each "hf:" source, the same on every host; no more than config.data.stream_bytes
    text_weights: tuple[float, ...] = ()  # of each source; none: all alike, and a pooled tokenizer is trained on one of them
    text_exponent: Small = 0.0  # weights are multiplied by the sizes of the sources to this power (for many languages: 0.1)
    one_text: bool = False  # whether a step has its tokenizer and its text from one source (a language), or from mixtures
    min_size: Entries = 1500
    max_size: Entries = 16384
    sizes: typing.Literal["log-uniform", "fixed"] = "log-uniform"  # between the two, or always the largest
    bpe: Weight = 0.5  # share of draws: byte-level BPE, cut from a pool of trained ones
    unigram: Weight = 0.3  # Unigram, thinned from a pool of trained ones
    substring: Weight = 0.2  # Unigram over random frequent substrings, as in the ZeTT paper
    wordpiece: Weight = 0.0  # longest match first over words and single signs, cut from a pool of trained ones
    near: Weight = 0.0  # byte-level BPE that begins with merges of the base model's own, and goes on from there
    superword: Weight = 0.0  # byte-level BPE with tokens of several words, cut from a pool of trained ones
    lowercase: Share = 0.5  # of "wordpiece": share of the pool that reads text in lower case
    pool: Count = 12  # trained tokenizers of each kind; at least one a text
    pool_bytes: Bytes = 3_000_000  # text that each of them is trained on
    inventory: Number = 200_000  # candidate substrings kept for "substring"
    inventory_bytes: Bytes = 16_000_000  # text that they are counted in
    shards: Count = 16  # parts of that text, of which every draw is another mixture; at least one a text
    queue: Rows = 0  # of "substring": instead, counted at every step in this many excerpts of text (the paper: 2048)
    queue_step: Count = 128  # of them new at every step
    max_bytes: Few = 16  # longest candidate
    # Of "substring": ln of the median of the noise, scores adding up to 1 (the paper: -11.5 and 4).
    noise_mean: Annotated[float, Within(-1000, 1000)] = -13.8
    noise_std: Small = 2.0
    rows: Rows = 2048  # rows predicted in a step: the batch's tokens, then random others; 0: the whole vocabulary

    def __post_init__(self):
        super().__post_init__()
        kinds = ("bpe", "unigram", "substring", "wordpiece", "near", "superword")
        if not any(getattr(self, kind) for kind in kinds):
            raise UserError(f"config.sampler.{', .'.join(kinds)} are all 0; at least one kind has to be drawn")
        given, wanted = len(self.text_weights), max(len(self.texts), 1)
        if given not in (0, wanted) or not all(0 < weight < math.inf for weight in self.text_weights):
            raise UserError(
                f"config.sampler.text_weights is {self.text_weights}; "
                f"it has to hold one finite number greater than 0 for each of the {wanted} texts, or none"
            )


@dataclasses.dataclass(frozen=True)
class LossConfig(Checked):
    # Weights of the objectives, by their names in zett/objectives; 0 leaves one out.
    token: Weight = 1.0  # the next token, or the tokens that are hidden from an encoder
    # What the original model makes of the same bytes with its own tokens; see zett/objectives/distillation.py.
    hidden: Weight = 0.0  # its hidden states where both tokenizers have a boundary
    hidden_layers: tuple[int, ...] = (-1,)  # -1: its output, 0: its input rows, 1: after a layer
    chunk: Weight = 0.0  # its probability of each chunk of text between two such boundaries
    # How far two probabilities p and q of a chunk are from each other: the binary cross-entropy of p^(1/T) and q^(1/T), or the
    # square of ln p - ln q, which for large T is the same to second order.
    chunk_distance: typing.Literal["cross-entropy", "squared"] = "squared"
    chunk_temperature: Annotated[float, Within(1, 1000)] = 100.0  # T
    chunk_ends: typing.Literal["words", "all"] = "words"  # whether chunks end only where no word goes on
    lexical: Weight = 0.1  # tokens that the source has keep their rows
    # Of a text's tokens, those that are hidden where the base is a masked language model.
    mask_share: Annotated[float, Within(0, 1, above=True, below=True)] = 0.15


@dataclasses.dataclass(frozen=True)
class OptimConfig(Checked):
    name: typing.Literal["adamw", "muon"] = "adamw"
    learning_rate: Rate = 1e-3
    matrix_learning_rate: Rate = 0.02  # of "muon": the rate of the matrices; all else has `learning_rate`
    warmup_steps: Annotated[int, Within(0, 10**9)] = 50
    schedule: typing.Literal["linear", "cosine", "constant"] = "cosine"
    final_share: Share = 0.0  # the last learning rate, as a share of the highest
    weight_decay: Small = 0.01
    b1: Decay = 0.9
    b2: Decay = 0.95
    clip: Annotated[float, Within(0, 10**12, above=True)] = 1.0  # largest norm of the gradient of the trained parameters


@dataclasses.dataclass(frozen=True)
class TrainConfig(Checked):
    steps: Number = 1000
    log_every: Number = 10
    eval_every: Number = 200
    eval_windows: Count = 256
    eval_targets: tuple[str, ...] = ("bpe-8k", "unigram-8k")  # kind-size or a tokenizer folder; recipe "hypernet"
    checkpoint_every: Number = 500
    keep: Count = 2  # checkpoints kept beside the best one
    trained: typing.Literal["all", "table"] = "all"  # recipe "lm" with config.start: everything, or the vocabulary's rows alone
    # Recipes "lm" and "refinement": of a config.start whose output rows are its input rows (tied), train each apart.
    untie: bool = False
    # Decay of a running mean of the trained parameters, such as 0.999, which is evaluated and exported in their place, while
    # training goes on with them; 0: none. After step t it is at most (1 + t) / (10 + t).
    average: Decay = 0.0
    # Recipe "refinement": beside the rows, a change of this rank of each matrix of the body; 0: the rows alone.
    body_rank: Annotated[int, Within(0, 4096)] = 0
    # Recipe "refinement": train all of the body, too. Recipe "hypernet": train changes of the base's body, too, which serve
    # all tokenizers; transferred models then have another body than the base model.
    body: bool = False
    # The most minutes that a run trains, compiling and evaluations not counted; 0: as many as its steps take. In the last half
    # of them the learning rate falls to 0, beside its schedule; an evaluation comes after each eighth.
    minutes: Annotated[float, Within(0, 10**6)] = 0.0
    # Evaluations in a row without a gain of 0.1 %, after which a run ends; 0: it does not end for that.
    patience: Annotated[int, Within(0, 1000)] = 0
    eval_first: bool = False  # also before the first step
    eval_original: bool = False  # recipe "refinement": beside config.base, even if no objective compares with it
    dtype: typing.Literal["auto", "bfloat16", "float32"] = "auto"  # of matrix products; sums and parameters are float32
    # The dtype of activations between matrix products; "auto" is float32 on CPUs and the dtype of the products elsewhere.
    activations: typing.Literal["auto", "bfloat16", "float32"] = "auto"
    # Parts of a batch that go through the model one after the other, their gradients added up. 0: chosen from the memory of the
    # devices at the start of the run, which keeps the number (zett/plan/choose.py).
    microbatches: Annotated[int, Within(0, 2**20)] = 1
    # What is kept of each layer for the backward pass, of the body and of the hypernetwork: everything, results of matrix
    # products, or inputs alone. "auto": everything on CPUs; elsewhere results of matrix products, or if memory is short inputs.
    remat: typing.Literal["auto", "none", "dots", "full"] = "auto"
    remat_hypernet: typing.Literal["auto", "none", "dots", "full"] = "auto"
    # Attention in training steps: XLA's own, or cuDNN's flash attention on NVIDIA GPUs. "auto": cuDNN's where it can be.
    attention: typing.Literal["auto", "xla", "cudnn"] = "auto"
    # Positions of a device's texts whose logits are in memory at a time. 0: 1024 on CPUs, elsewhere as many as 512 MiB hold.
    loss_chunk: Annotated[int, Within(0, 2**30)] = 0
    ahead: Few = 2  # batches prepared ahead of the device
    workers: Few = 1  # threads that prepare them
    # Steps in a row with a NaN or Inf in the gradient, all of them left out, after which the run stops.
    max_skipped: Number = 10
    track: tuple[typing.Literal["tensorboard", "wandb"], ...] = ()  # where metrics go beside metrics.jsonl


@dataclasses.dataclass(frozen=True)
class MeshConfig(Checked):
    """How the devices are arranged; see zett/mesh.py. One of the three may be -1: all devices that are left."""

    data: Devices = -1  # copies of everything, each with its own rows of the batch
    fsdp: Devices = 1  # parameters and the batch in so many parts
    tensor: Devices = 1  # each matrix product in so many parts


@dataclasses.dataclass(frozen=True)
class Config(Checked):
    recipe: RecipeName = "hypernet"
    seed: Annotated[int, values.SEED] = 0
    # Recipe "hypernet": the base model, a folder, a Hub name, or "pico" for the one in the package. Recipe "refinement": the
    # model that was there before the transfer, for objectives that compare with it.
    base: str = "pico"
    # What to start from; None: fresh parameters. Recipe "hypernet": a trained hypernetwork, a folder or "pico". Others: a model
    # and its tokenizer, a folder (as `zett transfer` writes it), a Hub name or "pico"; it replaces .model and .tokenizer.
    start: str | None = None
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
        super().__post_init__()
        if self.train.microbatches and self.data.batch_size % self.train.microbatches:
            raise UserError(
                f"config.train.microbatches is {self.train.microbatches}; it has to divide config.data.batch_size "
                f"({self.data.batch_size})"
            )
        needed = {
            "lm": ("token",), "refinement": ("token", "hidden", "chunk"), "hypernet": ("token", "hidden", "chunk", "lexical"),
        }[self.recipe]  # fmt: skip
        if not any(getattr(self.loss, name) for name in needed):
            names = ", ".join(f"config.loss.{name}" for name in needed)
            raise UserError(f"{names} {'are all' if len(needed) > 1 else 'is'} 0, so that there is nothing to learn")
        if self.recipe == "lm" and (self.loss.hidden or self.loss.chunk):
            raise UserError(
                "config.loss.hidden and config.loss.chunk compare with an original model, which config.recipe 'lm' has not; "
                "'refinement' has it, config.base"
            )
        if self.data.chats is not None and not self.data.turns:
            raise UserError(f"config.data.chats is {self.data.chats!r}, but config.data.turns is 0: no row would read them")
        if self.data.turns and self.recipe == "lm" and self.start is None:
            raise UserError(
                f"config.data.turns is {self.data.turns}; a model from scratch has no chat template, so it has to be 0"
            )
        if self.recipe == "refinement" and self.start is None:
            raise UserError("config.start is None; config.recipe 'refinement' needs it: the model that is refined")
        if self.recipe == "lm" and self.start is None and self.train.trained != "all":
            raise UserError(f"config.train.trained is {self.train.trained!r}; without config.start it has to be 'all'")
        if self.recipe == "hypernet" and self.train.untie:
            raise UserError(
                "config.train.untie is True; of a hypernetwork, config.hypernet.untie makes output rows of their own"
            )
        if self.data.batch_size % self.data.parts:
            raise UserError(
                f"config.data.parts is {self.data.parts}; it has to divide config.data.batch_size ({self.data.batch_size})"
            )
        if self.hypernet.fallback_rows != 256:
            raise UserError(
                f"config.hypernet.fallback_rows is {self.hypernet.fallback_rows}; training needs 256, one for each byte"
            )
        languages, sources = self.hypernet.languages, self.sampler.texts
        if languages and not (self.sampler.one_text and len(languages) == len(sources)):
            raise UserError(
                f"config.hypernet.languages names {len(languages)} languages; to train them, config.sampler.one_text has to "
                f"be True and config.sampler.texts a text for each (there are {len(sources)})"
            )
        if self.sampler.min_size > self.sampler.max_size:
            raise UserError(
                f"config.sampler.min_size ({self.sampler.min_size}) is above config.sampler.max_size ({self.sampler.max_size})"
            )


# Names that fields had in earlier versions, which files and command lines may still use.
RENAMED = {
    "task": "recipe",
    "init": "start",
    "data.source": "data.text",
    "data.valid_source": "data.valid_text",
    "sampler.sources": "sampler.texts",
    "sampler.source_weights": "sampler.text_weights",
    "sampler.source_exponent": "sampler.text_exponent",
    "sampler.one_source": "sampler.one_text",
}


def from_dict(given, where: str = "config") -> Config:
    """A config from a ConfigDict or dict. UserError names an unknown or ill-typed field and what would be right."""
    return values.from_dict(with_new_names(given, where), Config, where)


def with_new_names(given, where: str = "config") -> dict:
    """A nested dict in which fields with names of earlier versions have their own. UserError for a field under both names."""
    new = {name: dict(value.items()) if hasattr(value, "items") else value for name, value in given.items()}
    for old, name in RENAMED.items():
        *section, old_field = old.split(".")
        place = new.get(section[0], {}) if section else new
        if not isinstance(place, dict) or old_field not in place:
            continue
        field = name.split(".")[-1]
        if field in place:
            raise UserError(both_names(old, where))
        place[field] = place.pop(old_field)
    return new


def both_names(old: str, where: str = "config") -> str:
    """The error for a field that is there under its present name and under `old`, too."""
    return f"{where} has both {RENAMED[old]} and {old}, its old name; leave {old} out"


def to_dict(config) -> dict:
    """Plain nested dict of a config dataclass."""
    return dataclasses.asdict(config)
