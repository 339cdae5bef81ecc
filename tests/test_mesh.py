"""The mesh: rules are strict, and a mesh of devices or processes changes no result."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec
from runs import ROOT, environment, free_port
from tiny import base_folder

from zett import mesh as meshes
from zett.config import HypernetConfig, MeshConfig
from zett.errors import UserError

pytestmark = pytest.mark.xdist_group("mesh")


@pytest.mark.parametrize(
    "config, devices, sizes",
    [
        (MeshConfig(), 8, (8, 1, 1)),
        (MeshConfig(data=2, fsdp=-1, tensor=2), 8, (2, 2, 2)),
        (MeshConfig(data=1, fsdp=4, tensor=1), 4, (1, 4, 1)),
    ],
)
def test_one_axis_takes_what_is_left(config, devices, sizes):
    assert meshes.mesh_sizes(config, devices) == sizes


@pytest.mark.parametrize("config", [MeshConfig(data=3), MeshConfig(data=-1, fsdp=-1), MeshConfig(data=0), MeshConfig(fsdp=16)])
def test_a_mesh_that_does_not_fit_is_refused(config):
    with pytest.raises(UserError, match=r"config\.mesh"):
        meshes.mesh_sizes(config, 8)


def test_rules_match_every_parameter_once_and_are_all_used():
    shapes = {"a.kernel": (2, 2), "a.bias": (2,)}
    rules = [(r".*\.kernel", PartitionSpec("fsdp")), (r".*\.bias", PartitionSpec())]
    assert meshes.match(shapes, rules) == {"a.kernel": PartitionSpec("fsdp"), "a.bias": PartitionSpec()}
    with pytest.raises(ValueError, match="b is matched by no rule; rule 'c' matches nothing"):
        meshes.match({**shapes, "b": (1,)}, [*rules, ("c", PartitionSpec())])
    with pytest.raises(ValueError, match=r"a\.bias is matched by \['\.\*bias', '\.\*\\\\\.bias'\]"):
        meshes.match(shapes, [(".*bias", PartitionSpec()), *rules])


@pytest.mark.parametrize(
    "config",
    [
        HypernetConfig(width=16, heads=2),
        HypernetConfig(width=16, heads=2, features=False, languages=("de", "fr"), bias=True),
        HypernetConfig(width=16, heads=2, encoder="roberta", norm="post", residual="none", rescale="fitted"),
        HypernetConfig(width=16, heads=2, untie=True),
        HypernetConfig(width=16, heads=2, encoder="roberta", norm="post", residual="none", rescale="fitted", untie=True),
    ],
)
@pytest.mark.parametrize("tied", [False, True])
def test_the_hypernetworks_rules_fit_every_config(config, tied):
    from flax import nnx

    from zett.hypernet.network import make_hypernet, partition_rules

    params = nnx.to_pure_dict(nnx.split(nnx.eval_shape(lambda: make_hypernet(config, 8, tied, jnp.float32, 0)))[1])
    specs = meshes.match({path: leaf.shape for path, leaf in meshes.paths(params).items()}, partition_rules(config))
    assert specs["layers.0.qkv.kernel"] == PartitionSpec(("fsdp", "tensor"))
    assert ("heads.1.dense.kernel" in specs) == (config.untie or not tied)


def test_moments_lie_like_their_parameters():
    mesh = jax.make_mesh((1, 1, 1), meshes.AXES, axis_types=(AxisType.Auto,) * 3)
    params = {"a": {"kernel": jnp.ones((4, 6))}, "b": jnp.ones(3)}
    state = optax.adamw(1e-3).init(params)
    found = meshes.paths(
        meshes.state_shardings(mesh, state, {"a.kernel": PartitionSpec("fsdp", "tensor"), "b": PartitionSpec()})
    )
    moments = {path: s for path, s in found.items() if path.endswith("a.kernel")}
    assert len(moments) == 2 and all(s.spec is not None for s in moments.values())


# ------------------------------------------------------------------------------------------------ a run on several devices

SETTINGS = {
    "data.batch_size": 8, "data.length": 32, "hypernet.width": 16, "hypernet.layers": 1, "hypernet.heads": 2,
    "hypernet.feed_forward": 32, "hypernet.max_pieces": 4, "sampler.texts": None, "sampler.min_size": 280,
    "sampler.max_size": 400, "sampler.pool": 1, "sampler.pool_bytes": 20000, "sampler.inventory_bytes": 20000,
    "sampler.rows": 0, "train.steps": 3, "train.log_every": 1, "train.eval_every": 3, "train.checkpoint_every": 3,
    "train.eval_windows": 4, "train.dtype": "float32", "data.parts": 2, "data.stream_bytes": 60_000,
}  # fmt: skip


def command(base, source, workdir, *more):
    settings = SETTINGS | {"base": base, "data.text": source, "sampler.texts": source, "train.eval_targets": "bpe-512"}
    overrides = [f"--config.{name}={value}" for name, value in settings.items()]
    return [sys.executable, "train.py", "--config", "configs/pico.py", "--workdir", str(workdir), *overrides, *more]


@pytest.fixture(scope="module")
def dataset(corpus, tmp_path_factory):
    """The corpus as a data set that is streamed, in two files and with a split of its own."""
    folder = tmp_path_factory.mktemp("dataset")
    texts = [json.dumps({"text": path.read_text()}) + "\n" for path in sorted(corpus.iterdir())]
    for name, part in (("train-0", texts[:28]), ("train-1", texts[28:56]), ("validation", texts[56:])):
        (folder / f"{name}.jsonl").write_text("".join(part))
    return f"hf:{folder}"


@pytest.fixture(scope="module")
def alone(dataset, tmp_path_factory):
    """(base, records of a run on one device)."""
    folder = tmp_path_factory.mktemp("mesh")
    base = base_folder(folder / "base")
    done = subprocess.run(
        command(base, dataset, folder / "run"), cwd=ROOT, env=environment(1), capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return base, records(folder / "run")


def records(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    names = ("step", "loss", "lm", "lexical", "hidden", "chunk", "grad_norm", "bits_per_byte", "eval/score")
    return [{k: v for k, v in line.items() if k in names} for line in lines]


def assert_close(a, b):
    assert [sorted(line) for line in a] == [sorted(line) for line in b]
    for one, other in zip(a, b):
        for name in one:
            # Corrections are next to zero in the first steps, and Muon makes all of them as large: rounding shows there.
            loose = 5e-4 if name == "lexical" else 0
            np.testing.assert_allclose(one[name], other[name], rtol=2e-4, atol=loose, err_msg=f"{name}, step {one['step']}")


def test_eight_devices_compute_what_one_does(alone, dataset, tmp_path):
    base, expected = alone
    sizes = ["--config.mesh.data=2", "--config.mesh.fsdp=2", "--config.mesh.tensor=2"]
    done = subprocess.run(
        command(base, dataset, tmp_path, *sizes), cwd=ROOT, env=environment(8), capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    assert_close(records(tmp_path), expected)
    assert "8 x" in json.loads((tmp_path / "starts.jsonl").read_text())["devices"]


@pytest.mark.slow
def test_what_the_original_says_is_the_same_on_eight_devices(alone, dataset, tmp_path):
    base, _ = alone
    taught = [f"--config.{name}" for name in ("loss.hidden=0.5", "loss.chunk=0.1", "loss.hidden_layers=(1,-1)")]
    axes = ["--config.mesh.data=2", "--config.mesh.fsdp=2", "--config.mesh.tensor=2"]
    for number, more in ((1, []), (8, [*axes, "--config.train.microbatches=2"])):
        run = command(base, dataset, tmp_path / str(number), *taught, *more)
        done = subprocess.run(run, cwd=ROOT, env=environment(number), capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr
    one, eight = (records(tmp_path / str(number)) for number in (1, 8))
    assert {"hidden", "chunk"} <= one[0].keys()
    assert_close(eight, one)


def processes(base, source, workdir, caches, *more):
    port = free_port()
    return [
        subprocess.Popen(
            command(
                base, source, workdir, "--config.mesh.fsdp=4", f"--coordinator=localhost:{port}", "--processes=2",
                f"--process={i}", *more,
            ),
            cwd=ROOT, env=environment(2, cache), stderr=subprocess.PIPE, text=True,
        )
        for i, cache in enumerate(caches)
    ]  # fmt: skip


def streams(cache: Path) -> set[str]:
    """What was read from data sets, without the folder that they are in."""
    infos = [json.loads(path.read_text()) for path in (cache / "streams").glob("*/info.json")]
    return {info["name"].partition(":")[2].rpartition("/")[2].partition(":")[2] for info in infos}


@pytest.mark.slow
def test_two_processes_compute_what_one_does(alone, dataset, tmp_path):
    """And each reads the texts of its own rows alone."""
    base, expected = alone
    caches = [tmp_path / f"cache-{i}" for i in range(2)]
    running = processes(base, dataset, tmp_path / "run", caches)
    errors = [p.communicate(timeout=900)[1] for p in running]
    assert [p.returncode for p in running] == [0, 0], errors
    assert_close(records(tmp_path / "run"), expected)
    assert (tmp_path / "run" / "export" / "model.safetensors").exists()
    for i, cache in enumerate(caches):
        assert streams(cache) == {"train", "valid", f"train, part {i} of 2"}
    assert streams(Path(os.environ["ZETT_CACHE"])) >= {f"train, part {i} of 2" for i in range(2)}


@pytest.mark.slow
def test_a_process_that_dies_takes_the_other_with_it(alone, dataset, tmp_path):
    base, _ = alone
    endless = ["--config.train.steps=1000000", "--config.train.eval_every=1000000"]
    run, cache = tmp_path / "run", tmp_path / "cache"  # both fill one cache at the same time
    first, second = processes(base, dataset, run, [cache, cache], *endless)
    try:
        deadline = time.monotonic() + 900
        while not (run / "metrics.jsonl").exists() or not records(run):
            assert first.poll() is None and second.poll() is None, (first.communicate(), second.communicate())
            assert time.monotonic() < deadline
            time.sleep(0.5)
        second.send_signal(signal.SIGKILL)
        _, stderr = first.communicate(timeout=300)
    finally:
        first.kill()
        second.kill()
    assert first.returncode != 0 and stderr.strip()
    assert streams(cache) == {"train", "valid", *(f"train, part {i} of 2" for i in range(2))}
    assert not list((cache / "streams").glob(".*.partial"))


def test_processes_that_have_read_different_things_are_told_apart():
    program = (
        "import sys, jax; from zett import mesh; mesh.start_processes(sys.argv[1], 2, int(sys.argv[2]));"
        "print(mesh.same_everywhere(['a', b'b']), mesh.same_everywhere(['a', sys.argv[2]]))"
    )
    port = free_port()
    start = [sys.executable, "-c", program, f"localhost:{port}"]
    running = [
        subprocess.Popen([*start, str(i)], cwd=ROOT, env=environment(1), stdout=subprocess.PIPE, text=True) for i in range(2)
    ]
    found = [p.communicate(timeout=900)[0].splitlines() for p in running]
    assert [lines[-1] for lines in found] == 2 * ["True False"]


def test_half_a_coordinator_is_refused():
    with pytest.raises(UserError, match="give all three"):
        meshes.start_processes("localhost:1", None, None)
