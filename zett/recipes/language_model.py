"""The recipe "lm": train a small language model from scratch, with its own tokenizer, or any causal model further (n-shot).

Both go the same way, since a model from scratch is a base model with random weights.
"""

import dataclasses
import functools
import re
from itertools import groupby
from pathlib import Path
from typing import ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from zett.config import Config
from zett.data.chats import framed_chat, open_chats
from zett.data.documents import Documents, first_bytes
from zett.data.rows import RowTexts
from zett.data.sources import open_text
from zett.data.token_windows import LMBatches, Splits, token_stream
from zett.data.turns import Turns, framed_text
from zett.errors import UserError
from zett.evaluate.cutting import byte_windows
from zett.evaluate.tasks import reading_task
from zett.evaluate.windows import text_to_measure
from zett.generate import chat_writer
from zett.lms.attention import attention_by
from zett.lms.base import BaseModel, body_shapes, check_causal, load_base_model
from zett.lms.body import Body
from zett.lms.family import family_of
from zett.lms.layers import activation_dtype, product_dtype
from zett.lms.llama import FAMILY, LlamaConfig
from zett.lms.weights import VocabularyNames, partition_specs
from zett.mesh import Rules, local_rows, same_everywhere
from zett.objectives import WeightedSum
from zett.objectives.setting import Encoded, Setting, loss_positions
from zett.plan.flops import StepFlops, body_step
from zett.progress import phase, say
from zett.recipes.language_model_plan import check_config, shapes_of
from zett.recipes.language_model_release import release_fresh, release_further
from zett.table import EmbeddingTable
from zett.vocab import Vocabulary, load_tokenizer
from zett.vocab.alignment import Spelling
from zett.vocab.prompts import chat_template
from zett.vocab.train import save_tokenizer, train_tokenizer

ROWS = PartitionSpec("tensor", "fsdp")  # how the vocabulary's rows [V, D] are cut


class LanguageModelRecipe:
    """Parameters: "body" (not with config.train.trained "table"), "input", "output" if untied, "bias" if the model has one.

    With config.train.untie, the output rows of a tied model begin as a copy of its input rows.
    """

    sections: ClassVar[frozenset[str]] = frozenset({"tokenizer", "model", "loss"})
    objectives: ClassVar[tuple[str, ...]] = ("token",)
    check = staticmethod(check_config)
    shapes = staticmethod(shapes_of)

    def __init__(self, config: Config, workdir: Path, mesh: Mesh):
        self._prepare(config, workdir, mesh)
        self.batches: dict[int, LMBatches] = {}  # for each part of the text that the rows of this process read
        self.turned: dict[int, LMBatches] = {}  # the same, framed as turns
        self._open_texts()

    def _prepare(self, config: Config, workdir: Path, mesh: Mesh) -> None:
        """Everything but the texts."""
        self.config, self.workdir, self.mesh = config, workdir, mesh
        self.dtype = product_dtype(config.train.dtype)
        self.body_is_trained = self._trains_body()
        self.base = self._random() if config.start is None else self._load(config.start, body=not self.body_is_trained)
        self.tokens_per_step = config.data.batch_size * config.data.length
        self.frozen: dict = {} if self.body_is_trained else {"body": self.base.params}
        # This table stays on the host, since the devices hold the one that is trained.
        self.base = dataclasses.replace(self.base, params=None, table=jax.tree.map(np.asarray, self.base.table))
        self.objective = WeightedSum.of(self.objectives, config.loss, self._setting())
        self.frozen |= self.objective.frozen()
        self.batch_specs = self.objective.specs
        self.rules: Rules = [("input|output", ROWS)] + ([("bias", ROWS[:1])] if self.base.table.bias is not None else [])
        if self.body_is_trained:
            specs = partition_specs(family_of(self.base.hf_config), self.base.config)
            self.rules += [(rf"body\.{re.escape(path)}", PartitionSpec(*spec)) for path, spec in specs.items()]

    def _trains_body(self) -> bool:
        """Whether all parameters of the body are trained."""
        return self.config.train.trained == "all"

    def _setting(self) -> Setting:
        """How objectives compute."""
        activations = activation_dtype(self.config.train.activations, self.dtype)
        return Setting(
            self.base, self.mesh, self.dtype, activations, self.config.train.microbatches or 1,
            trains_body=self.body_is_trained, opening=False, loss=self.config.loss,
            positions=loss_positions(self.config, len(self.base.table.input)),
        )  # fmt: skip

    # ---------------------------------------------------------------------------------------------------- the base model

    def _random(self) -> BaseModel:
        """A base model without weights of its own yet: a small Llama and a tokenizer trained on the text."""
        m = self.config.model
        shape = LlamaConfig(
            hidden_size=m.hidden_size, num_layers=m.num_layers, num_heads=m.num_heads, num_kv_heads=m.num_kv_heads,
            head_dim=m.hidden_size // m.num_heads, intermediate_size=m.intermediate_size, max_positions=2048,
        )  # fmt: skip
        graphdef = nnx.split(nnx.eval_shape(functools.partial(self._fresh_body, shape)))[0]
        vocab = self._own_tokenizer()
        rows = np.zeros((len(vocab), m.hidden_size), np.float32)
        names = VocabularyNames((FAMILY.input_rows,), () if m.tied else (FAMILY.output_rows,))
        table = EmbeddingTable.of(rows, None if m.tied else rows)
        return BaseModel(m.name, Path(), shape.to_hf(), shape, graphdef, None, table, vocab, names)

    def _fresh_body(self, config):
        body = family_of(self.base.hf_config).Body if self.config.start else FAMILY.Body
        return body(config, dtype=self.dtype, remat=self.config.train.remat, rngs=nnx.Rngs(self.config.seed))

    def _own_tokenizer(self) -> Vocabulary:
        """The tokenizer of a fresh model, trained when the run starts for the first time."""
        data, settings, folder = self.config.data, self.config.tokenizer, self.workdir / "tokenizer"
        if not (folder / "tokenizer.json").exists():
            documents = self._open(data.text, stream_bytes=min(settings.sample_bytes, data.stream_bytes))
            sample = first_bytes(documents, settings.sample_bytes)
            with phase(f"training a tokenizer of {settings.vocab_size:,} entries"):
                save_tokenizer(train_tokenizer(settings.kind, settings.vocab_size, sample), folder)
        return load_tokenizer(folder)

    def _load(self, name: str, *, body: bool) -> BaseModel:
        length = self.config.data.length
        # A frozen body is kept in the dtype of its matrix products, which gives the same numbers with half the memory traffic.
        params = "float32" if self.body_is_trained or self.config.train.body_rank else self.dtype.name
        load = functools.partial(
            load_base_model, name, dtype=self.dtype.name, param_dtype=params, remat=self.config.train.remat, mesh=self.mesh
        )
        with phase(f"reading the model {name}"):
            base = load(body=body)
        if base.config is None:  # not ported: loading its body raises the error that says why
            base = load()
        check_causal(base)
        if self.config.train.untie and base.table.output is None:
            base = dataclasses.replace(base, table=dataclasses.replace(base.table, output=base.table.input))
        if length > base.config.max_positions:
            most = base.config.max_positions
            raise UserError(f"config.data.length is {length}; config.start, {name}, has positions for {most} tokens")
        return base

    def init(self) -> dict:
        """A random model. That of `config.start`, which `start` gives, has the same shapes."""
        table = self.base.table
        rows = table.input.shape
        params = {"input": 0.02 * jax.random.normal(jax.random.key(self.config.seed + 1), rows)}
        params |= {} if table.output is None else {"output": jnp.zeros(rows)}
        params |= {} if table.bias is None else {"bias": jnp.zeros(rows[0])}
        if not self.body_is_trained:
            return params
        return {"body": nnx.to_pure_dict(nnx.split(self._fresh_body(self.base.config))[1]), **params}

    def start(self) -> dict | None:
        if self.config.start is None:
            return None
        # The body is loaded again, and the table copied, since a step reuses the memory of the parameters that it gets.
        body = {"body": self._load(self.base.name, body=True).params} if self.body_is_trained else {}
        table = self.base.table
        rows = {"input": table.input, "output": table.output, "bias": table.bias}
        return body | {name: np.array(x, np.float32) for name, x in rows.items() if x is not None}

    # ------------------------------------------------------------------------------------------------------------- texts

    def _open(self, spec: str, **options) -> Documents:
        data = self.config.data
        options = {"stream_bytes": data.stream_bytes} | options
        return open_text(spec, text_column=data.text_column, package_bytes=data.package_bytes, **options)

    def _open_texts(self) -> None:
        config, data, vocab = self.config, self.config.data, self.base.vocab
        # A document ends with eos, or with bos if there is no eos.
        bos = vocab.roles.get("bos", vocab.roles.get("eos"))
        with phase("opening the texts"):
            self.texts = RowTexts(self._open(data.text), local_rows(self.mesh, data.batch_size), data)
        for number, documents in self.texts.parts.items():
            self.batches[number] = self._batches(documents, vocab.roles.get("eos", bos))
        if data.turns:
            write, key = chat_writer(vocab, answered=True), str(chat_template(vocab.folder))
            chats = None if data.chats is None else open_chats(data.chats, stream_bytes=data.stream_bytes)
            for number, documents in self.texts.parts.items():
                if chats is not None:
                    turns = Turns(chats, functools.partial(framed_chat, write=write), key)
                else:
                    # Messages are so short that some turns begin and end in each row: about a quarter of it.
                    frame = functools.partial(framed_text, limit=data.length, write=write)
                    turns = Turns(documents, frame, f"{data.length} {key}")
                # A turn ends with a token of its own, so that nothing has to separate documents.
                self.turned[number] = self._batches(turns, None)
        text = text_to_measure(data.valid_text or data.text, [data.text], self._open, data.text_column)
        held_out = byte_windows(text, count=config.train.eval_windows)
        if jax.process_count() > 1 and not same_everywhere(held_out):
            raise UserError(
                f"the processes do not have the same held-out text of {data.valid_text or data.text!r}; give all of them "
                "the same files, or a data set of the Hub"
            )
        self.task = reading_task(self.base, dtype=self.dtype)
        self.items = self.task.items(self.base, held_out)

    def _batches(self, documents: Documents, separator: int | None) -> LMBatches:
        data, vocab = self.config.data, self.base.vocab
        say(f"cutting {documents.name} into tokens, if that has not been done before")
        tokens = token_stream(documents, vocab.tokenizer, separator)
        if len(tokens) <= data.length:
            raise UserError(
                f"{documents.name} has {len(tokens)} tokens; there have to be more than config.data.length ({data.length})"
            )
        return LMBatches(
            tokens=tokens, batch_size=data.batch_size // data.parts, length=data.length, seed=self.config.seed,
            splits=Splits.of(vocab.tokens) if data.resegment_share else None, resegment_share=data.resegment_share,
            resegment_rate=data.resegment_rate,
        )  # fmt: skip

    def _in_turns(self, step: int, row: int) -> bool:
        """Whether a row of the batch is framed as turns."""
        share = self.config.data.turns
        return bool(share) and np.random.default_rng([self.config.seed, step, 9, row]).random() < share

    def batch(self, step: int, rows: np.ndarray | None = None) -> dict:
        """The texts of those rows of the batch that `rows` names (None: all)."""
        data = self.config.data
        rows = np.arange(data.batch_size) if rows is None else rows
        in_part = data.batch_size // data.parts

        def source(row: int) -> tuple[int, bool]:
            return self.texts.number(row), self._in_turns(step, int(row))

        ids = np.concatenate([
            (self.turned if in_turns else self.batches)[part](step, np.asarray(list(some)) % in_part)
            for (part, in_turns), some in groupby(rows, source)
        ])  # fmt: skip
        lengths = np.full(len(ids), data.length, np.int32)
        texts = Encoded(ids, lengths, self.base.vocab.byte_lengths[ids], spelled=ids, spelling=self._spelling)
        return self.objective.batch(texts, [])

    def _spelling(self) -> Spelling:
        """What the tokens of the texts spell, for objectives with a teacher."""
        return Spelling.of(self.base.vocab.tokens)

    # -------------------------------------------------------------------------------------------------------------- step

    def table(self, params) -> EmbeddingTable:
        return EmbeddingTable.of(params["input"], params.get("output"), params.get("bias"))

    def _body(self, params, frozen):
        return (params if self.body_is_trained else frozen)["body"]

    def loss(self, params, frozen, batch):
        with attention_by(self.config.train.attention):
            return self.objective(self.table(params), Body(self.base.graphdef, self._body(params, frozen)), frozen, batch)

    def flops(self, batch) -> float:
        return self._work.total

    @functools.cached_property
    def _work(self) -> StepFlops:
        """Counted FLOPs of a step, the same for every batch."""
        data, base = self.config.data, self.base
        return body_step(
            body_shapes(family_of(base.hf_config), base.config), base.config, batch=data.batch_size, length=data.length,
            rows=len(base.vocab), trained=self.body_is_trained,
        )  # fmt: skip

    def evaluate(self, params) -> dict[str, float]:
        model = dataclasses.replace(self.base, params=self._body(params, self.frozen), table=self.table(params))
        bits = self.items.mean(self.task.score(model, self.items))
        return {"bits_per_byte": bits, "score": bits}

    def export(self, params, folder: Path, record: dict) -> None:
        model = dataclasses.replace(self.base, params=params.get("body"), table=self.table(params))
        if self.config.start is None:
            release_fresh(folder, model, self.config, record, self.workdir, self._read_text())
        else:
            release_further(folder, model, self.config, record, self.workdir)

    def _read_text(self) -> tuple[int, int] | None:
        """Tokens and documents of the text that this process has read."""
        if not self.batches:
            return None
        return sum(len(part.tokens) for part in self.batches.values()), sum(map(len, self.texts.parts.values()))

    @classmethod
    def to_export(cls, config: Config, workdir: Path, mesh: Mesh) -> Self:
        recipe = cls.__new__(cls)
        recipe.batches = {}
        recipe._prepare(config, workdir, mesh)
        return recipe
