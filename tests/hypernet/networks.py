"""Tiny hypernetworks, base models without a body, and surface forms that several tests share."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zett.config import HypernetConfig
from zett.hypernet.network import hypernet_graph, make_hypernet, predict_rows
from zett.hypernet.trained import TrainedHypernet
from zett.lms.base import BaseModel
from zett.lms.weights import VocabularyNames
from zett.table import EmbeddingTable
from zett.vocab import SurfaceForms, Vocabulary

WIDTH = 12  # of the rows
CONFIG = HypernetConfig(width=16, layers=2, heads=2, feed_forward=24, max_pieces=4)
UNTIED = dataclasses.replace(CONFIG, untie=True)
PAPER = dataclasses.replace(CONFIG, encoder="roberta", norm="post", residual="none", rescale="fitted", input_std=0.02)


def base_of(table: EmbeddingTable, vocab: Vocabulary) -> BaseModel:
    """A base model of which the table and the vocabulary are all that there is."""
    return BaseModel("tiny", Path(), {}, None, None, None, table, vocab, VocabularyNames(("input",)))


def table_for(vocab: Vocabulary, *, tied: bool = False) -> EmbeddingTable:
    rng = np.random.default_rng(0)
    rows = [(3 * rng.normal(size=(len(vocab), WIDTH)) + rng.normal(size=WIDTH)).astype(np.float32) for _ in range(2)]
    return EmbeddingTable.of(rows[0], None if tied else rows[1])


def params_of(config: HypernetConfig = CONFIG, *, tied: bool = False, moved: bool = True) -> dict:
    """Parameters; `moved`: from their initialisation at random, so that the correction is not zero."""
    params = nnx.to_pure_dict(nnx.split(make_hypernet(config, WIDTH, tied, jnp.float32, 0))[1])
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: np.asarray(x + 0.1 * moved * rng.normal(size=x.shape), np.float32), params)


def trained_for(base: BaseModel, config: HypernetConfig = CONFIG, *, moved: bool = True) -> TrainedHypernet:
    """A hypernetwork that belongs to `base`."""
    tied, name = base.table.output is None, {"name": base.name, "fingerprint": base.fingerprint}
    return TrainedHypernet(config, params_of(config, tied=tied, moved=moved), WIDTH, tied, name)


def predict(packed, rows, config: HypernetConfig = CONFIG, *, params: dict | None = None) -> np.ndarray:
    params = params_of(config) if params is None else params
    return np.asarray(predict_rows(hypernet_graph(config, WIDTH, False, jnp.float32), params, rows, packed))


def random_forms(lengths, s: int = 4, ids: int = 300, seed: int = 0) -> SurfaceForms:
    rng = np.random.default_rng(seed)
    lengths = np.asarray(lengths, np.int32)
    inside = np.arange(s) < lengths[:, None]
    pieces = np.where(inside, rng.integers(0, ids, (len(lengths), s)), 0).astype(np.int32)
    features = rng.normal(size=(len(lengths), 5)).astype(np.float32)
    return SurfaceForms(pieces, lengths, features, np.full(len(lengths), -1, np.int32))
