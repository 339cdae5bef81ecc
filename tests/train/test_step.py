"""The state of a run is born where it belongs: in parts, on the devices that keep them."""

import json
import subprocess
import sys

import pytest
from runs import ROOT, environment
from tiny import base_folder

# Prints, for each config, what is found of its first state on eight devices.
PROGRAM = """
import json, math, re, sys
from pathlib import Path

import jax

from zett.checkpoint import checksum
from zett.config import from_dict
from zett.mesh import make_mesh, one_device
from zett.optim import make_optimizer
from zett.recipes import recipe_class
from zett.train.step import abstract_state, initial_state


def state_on(mesh, config, workdir):
    recipe = recipe_class(config.recipe).to_export(config, workdir, mesh)
    optimizer = make_optimizer(config.optim, 10)
    make, traced = recipe.init, []

    def init():
        params = make()
        traced.extend(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(params))
        return params

    recipe.init = init
    abstract = abstract_state(recipe, optimizer, mesh)
    return recipe, abstract, initial_state(recipe, optimizer, abstract), all(traced)


def largest(program):
    "Elements of the largest array of a compiled program of one device."
    return max(math.prod(map(int, dims.split(","))) for dims in re.findall(r"[fsu]32\\[([0-9,]+)\\]", program))


for number, values in enumerate(json.loads(sys.argv[1])):
    config, workdir = from_dict(values), Path(sys.argv[2]) / str(number)
    recipe, abstract, state, traced = state_on(make_mesh(config.mesh), config, workdir)
    pairs = list(zip(jax.tree.leaves(abstract), jax.tree.leaves(state), strict=True))
    big = max((x for _, x in pairs), key=lambda x: x.size)
    shardings = jax.tree.map(lambda x: x.sharding, abstract.params)
    average = jax.tree.map(lambda x: x.sharding, state.average) == shardings if config.train.average else None
    program = jax.jit(recipe.init, out_shardings=shardings).lower().compile().as_text()
    print(json.dumps({
        "as told": all(a.sharding == b.sharding and (a.shape, a.dtype) == (b.shape, b.dtype) for a, b in pairs),
        "traced": traced,
        "average": average,
        "devices": len(big.sharding.device_set),
        "share": max(shard.data.size for shard in big.addressable_shards) / big.size,
        "made at once": largest(program) / big.size,
        "as on one device": int(checksum(state.params)) == int(checksum(state_on(one_device(), config, workdir)[2].params)),
    }))
"""

MESH = {"data": 1, "fsdp": 4, "tensor": 2}
TINY = {
    "model": {"hidden_size": 64, "num_layers": 2, "num_heads": 2, "intermediate_size": 128},
    "tokenizer": {"vocab_size": 304},
}


@pytest.fixture(scope="module")
def found(corpus, tmp_path_factory):
    """Of a fresh language model, of one that goes on from a base model, and of a fresh hypernetwork."""
    folder = tmp_path_factory.mktemp("state")
    base = str(base_folder(folder / "base"))
    texts = {"mesh": MESH, "data": {"text": str(corpus), "length": 32}}
    hypernet = {"width": 128, "heads": 2, "layers": 1, "feed_forward": 128}  # whose kernels are larger than its rows of bytes
    configs = [
        texts | TINY | {"recipe": "lm", "train": {"average": 0.9}},
        texts | {"recipe": "lm", "start": base},
        texts | {"recipe": "hypernet", "base": base, "hypernet": hypernet},
    ]
    command = [sys.executable, "-c", PROGRAM, json.dumps(configs), str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment(8), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("number", range(3), ids=["fresh", "further", "hypernet"])
def test_a_state_lies_as_its_abstract_one_says(found, number):
    result = found[number]
    assert result["as told"] and result["devices"] == 8 and result["as on one device"]
    assert result["share"] <= 1 / 4, result
    assert result["average"] is (True if number == 0 else None)  # of the fresh one, which has an average


@pytest.mark.parametrize("number", [0, 2], ids=["fresh", "hypernet"])
def test_nothing_is_ever_whole_on_one_device(found, number):
    """Parameters are made by a program, of which each device runs its own part."""
    result = found[number]
    assert result["traced"] and result["made at once"] <= 1 / 4, result
