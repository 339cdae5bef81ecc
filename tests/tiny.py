"""Tiny models and tokenizers that several tests share."""

import functools
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from zett.lms.folder import save_base_model
from zett.lms.llama import LlamaBody, LlamaConfig
from zett.table import EmbeddingTable
from zett.vocab.train import save_tokenizer, train_tokenizer

TEXT = Path(__file__).read_text().splitlines(keepends=True)
CONFIG = LlamaConfig(
    hidden_size=16, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=4, intermediate_size=24, max_positions=64
)  # fmt: skip


@functools.cache
def tokenizer(kind: str = "bpe", size: int = 300):
    return train_tokenizer(kind, size, TEXT)


def tokenizer_folder(folder: Path, kind: str = "bpe", size: int = 300) -> Path:
    save_tokenizer(tokenizer(kind, size), folder)
    return folder


def base_folder(
    folder: Path, *, tied: bool = False, dtype: str = "bfloat16", config: LlamaConfig = CONFIG, own=None, seed: int = 1
) -> Path:
    """A random Llama with a byte-level BPE tokenizer of about 300 tokens, or with its `own`. seed: of its rows."""
    body = nnx.to_pure_dict(nnx.split(LlamaBody(config, rngs=nnx.Rngs(0)))[1])
    body = jax.tree.map(lambda x: x + 0.1 * np.random.default_rng(0).standard_normal(x.shape).astype(np.float32), body)
    rng = np.random.default_rng(seed)
    source = tokenizer() if own is None else own
    shape = (source.get_vocab_size(), config.hidden_size)
    rows, output = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    table = EmbeddingTable.of(rows, None if tied else output)
    save_base_model(folder, config, body, table, source, dtype=dtype, record={"step": 1})
    return folder
