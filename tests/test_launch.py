"""Starts under launchers, by the variables that they set: two real processes that find each other."""

import subprocess
import sys

import pytest
from runs import ROOT, environment, free_port

JOIN = """
import jax
from zett.mesh import start_processes
from zett.config_file import load_config
from zett.train.run import train
start_processes(None, None, None)
from jax.experimental import multihost_utils
numbers = multihost_utils.process_allgather(jax.numpy.asarray(jax.process_index()))
# In one write, since Gloo writes to the same stream from threads of its own.
print(f"{jax.process_index()} {jax.device_count()} {numbers.tolist()}\\n", end="", flush=True)
"""


def slurm(i: int) -> dict:
    step = {"SLURM_JOB_ID": "4711", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    return step | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)}


def open_mpi(i: int) -> dict:
    world = {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://127.0.0.1:34911", "OMPI_COMM_WORLD_SIZE": "2"}
    return world | {"OMPI_COMM_WORLD_RANK": str(i), "OMPI_COMM_WORLD_LOCAL_RANK": str(i)}


def outputs_of(code: str, launcher, *arguments: list[str]) -> list[tuple[int, str, str]]:
    """(exit code, stdout, stderr) of two processes that a launcher has started, each with arguments of its own."""
    # Both launchers leave the port to JAX, which takes one by the number of the job; here another job may have it.
    common = environment(2) | {"JAX_COORDINATOR_PORT": str(free_port())}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, *own], cwd=ROOT, env=common | launcher(i), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for i, own in enumerate(arguments or ([], []))
    ]  # fmt: skip
    outputs = [process.communicate(timeout=900) for process in running]
    return [(process.returncode, *output) for process, output in zip(running, outputs)]


@pytest.mark.parametrize("launcher", [slurm, open_mpi])
def test_processes_find_each_other(launcher):
    for i, (code, stdout, stderr) in enumerate(outputs_of(JOIN, launcher)):
        assert code == 0 and f"{i} 4 [0, 1]" in stdout, stderr


def test_without_a_launcher_it_says_so():
    ((code, _, stderr),) = outputs_of(JOIN, lambda i: {}, [])
    assert code and "found no TPU pod" in stderr and "give --coordinator" in stderr


def test_a_workdir_that_is_not_shared_is_refused(tmp_path):
    run = "import zett.train.run; zett.train.run.SHARED_TRIES = 1; from zett.cli import main; main()"
    arguments = [
        ["train", "--config", "configs/pico.py", "--distributed", "--workdir", str(tmp_path / str(i))] for i in range(2)
    ]
    for code, _, stderr in outputs_of(run, slurm, *arguments):
        assert code == 2 and "is not the same folder on all hosts" in stderr
