"""Memory of a step, counted from shapes, against the compiler's own account of it."""

import itertools
import json
import math
import types
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from zett.config import Config, from_dict
from zett.hypernet.packing import pack_forms, renumbered
from zett.lms import BaseModel
from zett.lms.family import family_of
from zett.mesh import one_device
from zett.objectives.setting import Encoded
from zett.optim import make_optimizer
from zett.plan.memory import fullest
from zett.plan.shapes import PHASES, How, Shapes
from zett.recipes import recipe_class
from zett.recipes.hypernet import HypernetStep
from zett.table import EmbeddingTable
from zett.train.step import abstract_state, make_step
from zett.vocab import SurfaceForms

SHAPE = {
    "model_type": "llama", "vocab_size": 2000, "hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 9,
    "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False,
}  # fmt: skip
SETTINGS = {
    "data": {"batch_size": 32, "length": 128},
    "hypernet": {"width": 128, "feed_forward": 256, "heads": 2, "layers": 1, "max_pieces": 7},
    "sampler": {"rows": 0, "sizes": "fixed", "max_size": 4096},
    "train": {"dtype": "float32", "activations": "float32", "remat": "none", "remat_hypernet": "none", "loss_chunk": 1024},
}


PLAIN = How()


@pytest.fixture
def config_of(tmp_path):
    """Makes a config with SETTINGS and others, for a base model of SHAPE."""
    (tmp_path / "config.json").write_text(json.dumps(SHAPE))

    def make(train=None, **sections) -> Config:
        return from_dict(SETTINGS | {"base": str(tmp_path), "train": SETTINGS["train"] | (train or {})} | sections)

    return make


def shapes_of(config: Config) -> Shapes:
    return recipe_class(config.recipe).shapes(config)


# Memory is assigned before code is generated.
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def step_of(config: Config) -> tuple[HypernetStep, dict]:
    """The step of a run, without weights, and a batch."""
    family, rng = family_of(SHAPE), np.random.default_rng(0)
    shape = family.Config.from_hf(SHAPE)
    graphdef, body = nnx.split(nnx.eval_shape(lambda: family.Body(shape, remat=config.train.remat, rngs=nnx.Rngs(0))))
    table = EmbeddingTable.of(*np.zeros((2, 2000, 128), np.float32))
    vocab = types.SimpleNamespace(roles={"bos": 0})
    base = BaseModel("x", Path(), SHAPE, shape, graphdef, nnx.to_pure_dict(body), table, vocab, None)
    step = HypernetStep(config, base, one_device())
    size, most = config.sampler.max_size, config.hypernet.max_pieces
    lengths = rng.choice(np.arange(1, 8), size, p=[0.35, 0.3, 0.18, 0.09, 0.04, 0.03, 0.01]).astype(np.int32)
    pieces = rng.integers(0, 2000, (size, most)).astype(np.int32)
    forms = SurfaceForms(pieces, lengths, np.zeros((size, 5), np.float32), np.full(size, -1))
    sources, packed = renumbered(pack_forms(forms), 2000)
    ids, ordinary = np.ones((32, 128), np.int32), np.arange(size)
    texts = Encoded(ids, np.full(32, 128, np.int32), np.ones((32, 128), np.int32), ordinary, forms.same)
    batch = step.objective.batch(texts, []) | {
        "sources": sources, "forms": packed, "log_weight": np.zeros(size, np.float32), "num_valid": np.int32(size),
    }  # fmt: skip
    return step, batch


def true_step(config: Config):
    """The compiled step of a run, its state and frozen arrays, and its counted FLOPs; nothing is computed."""
    (step, batch), optimizer = step_of(config), make_optimizer(config.optim, 10)
    state = abstract_state(step, optimizer, step.mesh)
    return make_step(step, optimizer).lower(state, step.frozen, batch).compile(QUICKLY), (state, step.frozen), step.flops(batch)


# Both were 1.2 to 1.3 times what the compiler takes.
@pytest.mark.parametrize(
    "train", [{}, {"microbatches": 4, "remat": "full", "average": 0.999}], ids=["whole", "microbatches and an average"]
)
def test_memory_is_what_the_compiler_takes(train, config_of):
    config = config_of(train)
    compiled, arrays, counted = true_step(config)
    shapes = shapes_of(config)
    parts = shapes.parts((1, 1, 1), How.of(config))
    lasting = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(arrays))
    assert sum(part.bytes for part in parts if part.phases == PHASES) == pytest.approx(lasting, rel=0.001)
    taken = compiled.memory_analysis().temp_size_in_bytes + lasting
    assert 1 / 1.1 < fullest(parts)[1] / taken < 1.5, taken
    assert shapes.work.total == pytest.approx(counted, rel=0.03)


def test_more_devices_hold_less_each(config_of):
    shapes = shapes_of(config_of())
    sizes = [fullest(shapes.parts((1, number, 1), PLAIN))[1] for number in (1, 2, 4, 8)]
    # But for the predicted rows and the logits of a chunk, all is cut.
    assert all(2 > one / two > 1.5 for one, two in itertools.pairwise(sizes))
    copies = shapes.parts((8, 1, 1), PLAIN)
    one = {part.name: part.bytes for part in shapes.parts((1, 1, 1), PLAIN)}
    assert {part.name for part in copies if part.bytes == one[part.name] and part.phases == PHASES} == {
        "frozen body", "source rows", "hypernetwork", "moments of the optimizer",
    }  # fmt: skip


def test_muon_has_one_moment_of_matrices(config_of):
    both = [shapes_of(config_of(optim={"name": name})) for name in ("adamw", "muon")]
    adamw, muon = ({part.name: part.bytes for part in shapes.parts((1, 1, 1), PLAIN)} for shapes in both)
    assert muon["moments of the optimizer"] < 0.6 * adamw["moments of the optimizer"]


def test_what_reads_no_text_does_nothing_in_the_body(config_of):
    (step, batch), (lexical, without) = (step_of(config_of(loss={"token": weight})) for weight in (1.0, 0.0))
    work = shapes_of(step.config).work
    assert "targets" in batch and "targets" not in without
    assert lexical.flops(without) == step.flops(batch) - (work.total - work.hypernet)
