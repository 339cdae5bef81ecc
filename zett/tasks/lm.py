"""Task "lm": train a small Llama model and its tokenizer from scratch."""

import functools
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from zett.cards import training_card
from zett.config import Config
from zett.data.lm import LMBatches, Splits, token_stream
from zett.data.text import first_bytes, open_text
from zett.evaluate.bpb import bits_per_byte, byte_windows, encode_windows
from zett.lms import llama
from zett.lms.layers import product_dtype
from zett.lms.llama import LlamaBody, LlamaConfig
from zett.lms.weights import partition_specs
from zett.losses import chunked_cross_entropy
from zett.mesh import BATCH, REPLICATED, Rules, make_mesh, place
from zett.table import EmbeddingTable
from zett.vocab.build import END_OF_TEXT, save_tokenizer, train_tokenizer


class LMTask:
    batch_specs: ClassVar[Mapping[str, PartitionSpec]] = {"inputs": BATCH, "targets": BATCH}

    def __init__(self, config: Config, workdir: Path, mesh: Mesh | None = None):
        import tokenizers

        mesh = make_mesh(config.mesh) if mesh is None else mesh
        self.config, self.workdir, self.mesh = config, workdir, mesh
        data = config.data
        opened = functools.partial(
            open_text, text_column=data.text_column, package_bytes=data.package_bytes, stream_bytes=data.stream_bytes
        )
        documents = opened(data.source, split="train")
        self.num_documents = len(documents)
        held_out = opened(data.valid_source or data.source, split="valid")
        path = workdir / "tokenizer" / "tokenizer.json"
        if not path.exists():
            sample = first_bytes(documents, config.tokenizer.sample_bytes)
            save_tokenizer(train_tokenizer(config.tokenizer.kind, config.tokenizer.vocab_size, sample), path.parent)
        self.tokenizer = tokenizers.Tokenizer.from_file(str(path))
        vocab = self.tokenizer.get_vocab_size()
        self.bos = self.tokenizer.get_vocab()[END_OF_TEXT]
        from zett.vocab.bytes import token_bytes  # here, because only this task needs it before a hypernetwork exists

        all_bytes = token_bytes(self.tokenizer)
        self.byte_lengths = np.asarray([len(b) for b in all_bytes], np.float32)
        self.batches = LMBatches(
            tokens=token_stream(documents, self.tokenizer, self.bos),
            bos=self.bos,
            batch_size=data.batch_size,
            length=data.length,
            seed=config.seed,
            splits=Splits.of(all_bytes) if data.resegment_share else None,
            resegment_share=data.resegment_share,
            resegment_rate=data.resegment_rate,
        )
        self.tokens_per_step = data.batch_size * data.length
        self.windows = encode_windows(byte_windows(held_out, count=config.train.eval_windows), self.tokenizer)
        m = config.model
        self.model_config = LlamaConfig(
            hidden_size=m.hidden_size, num_layers=m.num_layers, num_heads=m.num_heads, num_kv_heads=m.num_kv_heads,
            head_dim=m.hidden_size // m.num_heads, intermediate_size=m.intermediate_size, max_positions=2048,
        )  # fmt: skip
        self.vocab_size = vocab
        self.dtype = product_dtype(config.train.dtype)
        self.frozen = {"byte_lengths": place(self.byte_lengths, NamedSharding(mesh, REPLICATED))}
        self.graphdef, _ = nnx.split(nnx.eval_shape(self._body))
        body = partition_specs(llama, self.model_config)
        self.rules: Rules = [(rf"body\.{re.escape(path)}", PartitionSpec(*spec)) for path, spec in body.items()]
        self.rules = [*self.rules, ("input|output", PartitionSpec("tensor", "fsdp"))]

    def _body(self):
        rngs = nnx.Rngs(self.config.seed)
        return LlamaBody(self.model_config, dtype=self.dtype, remat=self.config.train.remat, rngs=rngs)

    def init(self):
        body = nnx.to_pure_dict(nnx.split(self._body())[1])
        key = jax.random.key(self.config.seed + 1)
        shape = (self.vocab_size, self.model_config.hidden_size)
        return {"body": body, "input": 0.02 * jax.random.normal(key, shape), "output": jnp.zeros(shape)}

    def table(self, params) -> EmbeddingTable:
        return EmbeddingTable.of(params["input"], params["output"])

    def batch(self, step: int, rows: np.ndarray | None = None) -> dict:
        """The rows `rows` of the step (None: all): "inputs" and "targets"."""
        return self.batches(step, rows)

    def loss(self, params, frozen, batch):
        body = nnx.merge(self.graphdef, params["body"])
        x = params["input"][batch["inputs"]]
        h = body(jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, BATCH)))
        targets = batch["targets"]
        nats = chunked_cross_entropy(
            h, params["output"], jnp.zeros(self.vocab_size), targets, jnp.ones(targets.shape, jnp.float32),
            num_valid=self.vocab_size, chunk=1024 * self.mesh.shape["data"] * self.mesh.shape["fsdp"], dtype=self.dtype,
        )  # fmt: skip
        bits = nats / math.log(2) / frozen["byte_lengths"][targets].sum()
        return nats / targets.size, {"bits_per_byte": bits}

    def evaluate(self, params) -> dict[str, float]:
        bits = bits_per_byte(
            self.graphdef, params["body"], self.table(params), params["input"][self.bos], self.windows, dtype=self.dtype
        )
        return {"bits_per_byte": bits, "score": bits}

    def export(self, params, folder: Path, record: dict) -> None:
        from zett.lms import save_base_model

        save_base_model(
            folder, self.model_config, params["body"], self.table(params), self.tokenizer, dtype="bfloat16", record=record
        )
        (folder / "README.md").write_text(
            training_card(self.config.model.name, self._about(params, record), self.workdir, record)
        )

    def _about(self, params, record: dict) -> str:
        seen = record["step"] * self.tokens_per_step
        size = sum(x.size for x in jax.tree.leaves(params))
        return f"""
A small language model of the Llama architecture, trained from scratch by zett as an
instrument for measuring tokenizer transfer. It knows the text that it was trained on and nothing else.

- Parameters: {size:,}, of which {2 * params["input"].size:,} in the input and output rows of {self.vocab_size} tokens
- Data: {self.config.data.source!r}, {len(self.batches.tokens):,} tokens in {self.num_documents:,} documents
- Tokens seen: {seen:,} ({seen / len(self.batches.tokens):.2f} epochs), a share of {self.config.data.resegment_share} of the
  rows cut more finely at random (StochasTok), as a stand-in for the odd spellings and spacings that large models have seen
- Held-out bits per byte: in windows of at most 512 bytes, each scored alone, on documents that were not trained on
- Licence of the weights: Apache-2.0
- Rebuild: `python train.py --config configs/{self.config.model.name}_base.py --workdir runs/{self.config.model.name}_base`
"""
