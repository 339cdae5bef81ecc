"""Task "lm": train a language model: a small Llama and its tokenizer from scratch, or any causal model further (n-shot)."""

import dataclasses
import functools
import math
import re
import shutil
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from zett.cards import front_matter, training_card
from zett.config import Config
from zett.data.documents import Documents, first_bytes
from zett.data.rows import RowTexts
from zett.data.sources import open_text
from zett.data.token_windows import LMBatches, Splits, token_stream
from zett.errors import UserError
from zett.evaluate.bpb import bits_per_byte, byte_windows, encode_windows
from zett.evaluate.windows import text_to_measure
from zett.files.jsonfile import write_json
from zett.flops import body_step
from zett.lms import llama
from zett.lms.base import BaseModel, body_shapes, check_causal, load_base_model, save_base_model
from zett.lms.family import family_of
from zett.lms.layers import activation_dtype, product_dtype
from zett.lms.llama import LlamaBody, LlamaConfig
from zett.lms.weights import partition_specs
from zett.losses import chunked_cross_entropy, summed
from zett.mesh import BATCH, REPLICATED, Rules, local_rows, make_mesh, place, same_everywhere
from zett.progress import phase, say
from zett.table import EmbeddingTable
from zett.transfer import write_trained
from zett.vocab import Vocabulary, load_tokenizer
from zett.vocab.train import save_tokenizer, train_tokenizer

BEFORE = "README_before.md"  # what the card of the model that a training started from is called beside the new one
ROWS = PartitionSpec("tensor", "fsdp")  # of the vocabulary, [V, D]


class LMTask:
    """Parameters: "body" (not with config.train.trained "table"), "input", "output" if untied, "bias" if the model has one."""

    batch_specs: ClassVar[Mapping[str, PartitionSpec]] = {"inputs": BATCH, "targets": BATCH}

    def __init__(self, config: Config, workdir: Path, mesh: Mesh | None = None, *, texts: bool = True):
        """texts: whether there are texts to train on and to evaluate with; export needs none."""
        mesh = make_mesh(config.mesh) if mesh is None else mesh
        self.config, self.workdir, self.mesh = config, workdir, mesh
        self.dtype = product_dtype(config.train.dtype)
        self.activations = activation_dtype(config.train.activations, self.dtype)
        self.body_is_trained = config.train.trained == "all"
        self.base = None if config.init is None else self._load(config.init, body=not self.body_is_trained)
        self.vocab = self._own_tokenizer() if self.base is None else self.base.vocab
        # What opens a text, as in BaseModel.bos_row; None: the tokenizer has no such token.
        self.bos = self.vocab.roles.get("bos", self.vocab.roles.get("eos"))
        self.batches: dict[int, LMBatches] = {}  # of each part of the text that the rows of this process read
        if texts:
            self._open_texts()
        self.tokens_per_step = config.data.batch_size * config.data.length
        byte_lengths = self.vocab.byte_lengths.astype(np.float32)
        self.frozen = {"byte_lengths": place(byte_lengths, NamedSharding(mesh, REPLICATED))}
        self.rules: Rules
        if self.base is None:
            m = config.model
            self.model_config = LlamaConfig(
                hidden_size=m.hidden_size, num_layers=m.num_layers, num_heads=m.num_heads, num_kv_heads=m.num_kv_heads,
                head_dim=m.hidden_size // m.num_heads, intermediate_size=m.intermediate_size, max_positions=2048,
            )  # fmt: skip
            self.graphdef, _ = nnx.split(nnx.eval_shape(self._fresh_body))
            self.rules = [("input|output", ROWS)]
        else:
            self.model_config, self.graphdef = self.base.config, self.base.graphdef
            self.rules = [("input|output", ROWS)] + ([("bias", ROWS[:1])] if self.base.table.bias is not None else [])
        if self.body_is_trained:
            family = llama.FAMILY if self.base is None else family_of(self.base.hf_config)
            specs = partition_specs(family, self.model_config)
            self.rules = [*self.rules, *((rf"body\.{re.escape(path)}", PartitionSpec(*spec)) for path, spec in specs.items())]
        elif self.base is not None:
            self.frozen["body"] = self.base.params
            table = jax.tree.map(np.asarray, self.base.table)  # on the host, since the devices have the trained one
            self.base = dataclasses.replace(self.base, params=None, table=table)

    def _open(self, spec: str, **options) -> Documents:
        data = self.config.data
        options = {"stream_bytes": data.stream_bytes} | options
        return open_text(spec, text_column=data.text_column, package_bytes=data.package_bytes, **options)

    def _own_tokenizer(self) -> Vocabulary:
        """The tokenizer of a fresh model, trained when the run starts for the first time."""
        data, settings, folder = self.config.data, self.config.tokenizer, self.workdir / "tokenizer"
        if not (folder / "tokenizer.json").exists():
            documents = self._open(data.source, stream_bytes=min(settings.sample_bytes, data.stream_bytes))
            sample = first_bytes(documents, settings.sample_bytes)
            with phase(f"training a tokenizer of {settings.vocab_size:,} entries"):
                save_tokenizer(train_tokenizer(settings.kind, settings.vocab_size, sample), folder)
        return load_tokenizer(folder)

    def _open_texts(self) -> None:
        config, data = self.config, self.config.data
        with phase("opening the texts"):
            self.texts = RowTexts(self._open(data.source), local_rows(self.mesh, data.batch_size), data)
        for number, documents in self.texts.parts.items():
            say(f"cutting {documents.name} into tokens, if that has not been done before")
            tokens = token_stream(documents, self.vocab.tokenizer, self.vocab.roles.get("eos", self.bos))
            if len(tokens) <= data.length:
                raise UserError(
                    f"{documents.name} has {len(tokens)} tokens; there have to be more than config.data.length ({data.length})"
                )
            self.batches[number] = LMBatches(
                tokens=tokens,
                bos=0 if self.bos is None else self.bos,
                batch_size=data.batch_size // data.parts,
                length=data.length,
                seed=config.seed,
                splits=Splits.of(self.vocab.tokens) if data.resegment_share else None,
                resegment_share=data.resegment_share,
                resegment_rate=data.resegment_rate,
            )
        text = text_to_measure(data.valid_source or data.source, [data.source], self._open, data.text_column)
        held_out = byte_windows(text, count=config.train.eval_windows)
        if jax.process_count() > 1 and not same_everywhere(held_out):
            raise UserError(
                f"the processes do not have the same held-out text of {data.valid_source or data.source!r}; give all of them "
                "the same files, or a data set of the Hub"
            )
        self.windows = encode_windows(held_out, self.vocab.tokenizer)

    def _load(self, name: str, *, body: bool) -> BaseModel:
        length = self.config.data.length
        # A frozen body is read in the operand type of its products: half the memory traffic, the same numbers.
        params = "float32" if self.body_is_trained else self.dtype.name
        load = functools.partial(
            load_base_model, name, dtype=self.dtype.name, param_dtype=params, remat=self.config.train.remat, mesh=self.mesh
        )
        with phase(f"reading the model {name}"):
            base = load(body=body)
        if base.config is None:  # not ported, and why not is the error of loading its body
            base = load()
        check_causal(base)
        if length > base.config.max_positions:
            most = base.config.max_positions
            raise UserError(f"config.data.length is {length}; config.init, {name}, has positions for {most} tokens")
        return base

    def _fresh_body(self):
        rngs = nnx.Rngs(self.config.seed)
        return LlamaBody(self.model_config, dtype=self.dtype, remat=self.config.train.remat, rngs=rngs)

    def init(self):
        if self.base is None:
            body = nnx.to_pure_dict(nnx.split(self._fresh_body())[1])
            key = jax.random.key(self.config.seed + 1)
            shape = (len(self.vocab), self.model_config.hidden_size)
            return {"body": body, "input": 0.02 * jax.random.normal(key, shape), "output": jnp.zeros(shape)}
        # Loaded here, and the table copied: each step takes over the memory of the parameters before it.
        body = {"body": self._load(self.base.name, body=True).params} if self.body_is_trained else {}
        table = self.base.table
        rows = {"input": table.input, "output": table.output, "bias": table.bias}
        return body | {name: jnp.array(x, jnp.float32) for name, x in rows.items() if x is not None}

    def table(self, params) -> EmbeddingTable:
        return EmbeddingTable.of(params["input"], params.get("output"), params.get("bias"))

    def batch(self, step: int, rows: np.ndarray | None = None) -> dict:
        """The rows `rows` of the step (None: all): "inputs" and "targets"."""
        data = self.config.data
        rows = np.arange(data.batch_size) if rows is None else rows
        in_part = data.batch_size // data.parts
        made = [self.batches[part](step, np.asarray(list(some)) % in_part) for part, some in groupby(rows, self.texts.number)]
        return {name: np.concatenate([batch[name] for batch in made]) for name in self.batch_specs}

    def flops(self, batch) -> float:
        """Counted FLOPs of a step, the same for every batch."""
        family, data = llama.FAMILY if self.base is None else family_of(self.base.hf_config), self.config.data
        return body_step(
            body_shapes(family, self.model_config), self.model_config, batch=data.batch_size, length=data.length,
            rows=len(self.vocab), trained=self.body_is_trained,
        ).total  # fmt: skip

    def loss(self, params, frozen, batch):
        nats = summed(self._nats, params, frozen, batch, self.config.train.microbatches)
        bits = nats / math.log(2) / frozen["byte_lengths"][batch["targets"]].sum()
        return nats / batch["targets"].size, {"bits_per_byte": bits}

    def _nats(self, params, frozen, texts):
        table, targets = self.table(params), texts["targets"]
        x = table.embed(texts["inputs"])
        if self.bos is None:
            x = x.at[:, 0].set(self._opening_row(params))
        x = x.astype(self.activations)
        body = nnx.merge(self.graphdef, self._body(params, frozen))
        h = body(jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, BATCH)))
        return chunked_cross_entropy(
            h, table.output_rows, jnp.zeros(len(self.vocab)) if table.bias is None else table.bias, targets,
            jnp.ones(targets.shape, jnp.float32), num_valid=len(self.vocab), softcap=self.model_config.logit_softcap,
            chunk=1024 * self.mesh.shape["data"] * self.mesh.shape["fsdp"], dtype=self.dtype,
        )  # fmt: skip

    def _body(self, params, frozen):
        return (params if self.body_is_trained else frozen)["body"]

    def _opening_row(self, params):
        """`BaseModel.bos_row` of the trained model."""
        return params["input"].mean(0) if self.bos is None else params["input"][self.bos]

    def evaluate(self, params) -> dict[str, float]:
        body, opening = self._body(params, self.frozen), self._opening_row(params)
        bits = bits_per_byte(self.graphdef, body, self.table(params), opening, self.windows, dtype=self.dtype)
        return {"bits_per_byte": bits, "score": bits}

    def export(self, params, folder: Path, record: dict) -> None:
        if self.base is None:
            save_base_model(
                folder, self.model_config, params["body"], self.table(params), self.vocab.tokenizer,
                dtype="bfloat16", record=record,
            )  # fmt: skip
            card = training_card(self.config.model.name, self._about(params, record), self.workdir, record)
        else:
            write_trained(folder, self.base, self.table(params), params.get("body"))
            write_json(folder / "training.json", record)
            title, text = f"{Path(self.base.name).name}, trained further", self._about_further(self.base, record)
            card = front_matter(self.base.name) + training_card(title, text, self.workdir, record)
            if (before := self.base.folder / "README.md").is_file():
                shutil.copyfile(before, folder / BEFORE)
        (folder / "README.md").write_text(card, encoding="utf-8")

    def _about(self, params, record: dict) -> str:
        seen = record["step"] * self.tokens_per_step
        size = sum(x.size for x in jax.tree.leaves(params))
        read, epochs = "", ""
        if self.batches:
            all_tokens = sum(len(part.tokens) for part in self.batches.values())
            read = f", {all_tokens:,} tokens in {sum(map(len, self.texts.parts.values())):,} documents"
            epochs = f" ({seen / all_tokens:.2f} epochs)"
        return f"""
A small language model of the Llama architecture, trained from scratch by zett as an
instrument for measuring tokenizer transfer. It knows the text that it was trained on and nothing else.

- Parameters: {size:,}, of which {2 * params["input"].size:,} in the input and output rows of {len(self.vocab)} tokens
- Data: {self.config.data.source!r}{read}
- Tokens seen: {seen:,}{epochs}, a share of {self.config.data.resegment_share} of the
  rows cut more finely at random (StochasTok), as a stand-in for the odd spellings and spacings that large models have seen
- Held-out bits per byte: in windows of at most 512 bytes, each scored alone, on documents that were not trained on
- Licence of the weights: Apache-2.0
- Rebuild: `python train.py --config configs/{self.config.model.name}_base.py --workdir runs/{self.config.model.name}_base`
"""

    def _about_further(self, base: BaseModel, record: dict) -> str:
        before = f"; its own card is [{BEFORE}]({BEFORE})" if (base.folder / "README.md").is_file() else ""
        trained = "all parameters" if self.body_is_trained else "the rows of its vocabulary alone"
        return f"""
`{base.name}`, with the tokenizer that it had, trained further by zett to predict the next token of text.

- Started from: `{base.name}`{before}
- Trained: {trained}
- Data: {self.config.data.source!r}
- Tokens seen: {record["step"] * self.tokens_per_step:,}
- Held-out bits per byte: in windows of at most 512 bytes, each scored alone, on documents that were not trained on
- The licence of the model that it started from applies
"""
