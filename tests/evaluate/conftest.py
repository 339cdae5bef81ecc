"""A tiny random base model and a text, for the tests of this folder."""

import numpy as np
import pytest
from evaluate.lines import write_corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A folder with train.txt and valid.txt."""
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def model(tmp_path_factory, corpus):
    """A folder with a random Llama model of width 32 and a byte-level BPE tokenizer of 400 entries."""
    from flax import nnx

    from zett.data.sources import open_text
    from zett.lms.folder import save_base_model
    from zett.lms.llama import LlamaBody, LlamaConfig
    from zett.table import EmbeddingTable
    from zett.vocab.train import train_tokenizer

    tokenizer = train_tokenizer("bpe", 400, open_text(corpus, split="train"))
    config = LlamaConfig(hidden_size=32, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=16, intermediate_size=64)
    params = nnx.to_pure_dict(nnx.split(LlamaBody(config, rngs=nnx.Rngs(0)))[1])
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=(tokenizer.get_vocab_size(), 32)).astype(np.float32) for _ in range(2)]
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_base_model(folder, config, params, EmbeddingTable.of(*rows), tokenizer, dtype="float32", record={})
    return str(folder)


@pytest.fixture(scope="session")
def base(model):
    from zett.lms import load_base_model

    return load_base_model(model)
