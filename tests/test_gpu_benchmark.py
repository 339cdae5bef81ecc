"""benchmarks/gpu.sh, as far as a CPU can try it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("benchmarks.gpu", reason="the benchmarks are not part of the package")

from benchmarks import gpu, gpu_parts


def test_a_part_that_fails_is_recorded_and_stops_no_other(monkeypatch, capsys):
    def fails(small):
        yield "fine", {"seconds": 0.25}
        yield "not fine", lambda: 1 / 0
        yield "after it", {"seconds": 0.5}
        raise ValueError("RESOURCE_EXHAUSTED: too large")

    monkeypatch.setitem(gpu_parts.PARTS, "fails", fails)
    report = gpu_parts.run_part("fails", 100, True)
    assert report["runs"]["fine"] == {"seconds": 0.25} and report["runs"]["after it"] == {"seconds": 0.5}
    assert "ZeroDivisionError" in report["runs"]["not fine"]["failed"]
    assert report["runs"]["run 4"]["failed"] == "out of memory"
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["device"]["platform"] == "cpu" and "fine" in last["runs"]
    shown = "\n".join(gpu.lines("fails", report | {"wall_seconds": 3}))
    assert "250.00 ms" in shown and "not fine" in shown and "ZeroDivisionError" in shown


def test_what_does_not_begin_in_time_is_left_out():
    gpu_parts.PARTS["late"] = lambda small: iter([("late", lambda: {"seconds": 1.0})])
    try:
        assert gpu_parts.run_part("late", 0.0, True)["runs"] == {"late": {"failed": "no time left"}}
    finally:
        del gpu_parts.PARTS["late"]


def test_a_process_that_ends_badly_is_recorded():
    found = gpu.in_a_process("nonsense", 100, True)
    assert "KeyError" in found["failed"] and "nonsense" in found["failed"] and found["wall_seconds"] > 0
    assert gpu.in_a_process("rates", 0.05, True)["failed"] == "stopped after 0 s"


def test_whole_shapes_are_not_measured_on_a_cpu(tmp_path):
    report = gpu.run_parts(["rates"], 100, False, tmp_path / "gpu.json")
    assert "JAX sees no GPU on this machine" in report["parts"]["rates"]["failed"]
    assert not (tmp_path / "gpu.json").exists()


def test_kernels_are_summed_up_by_kind():
    names = ("sm90_xmma_gemm_bf16", "cudnn_generated_fort_native_sdpa_flash", "loop_fusion_3")
    assert [gpu_parts.kind_of(name) for name in names] == ["products", "attention", "elementwise"]
    hlo = '  ROOT %fusion.3 = f32[4]{0} fusion(%x), kind=kLoop, metadata={op_name="jit(step)/transpose(jvp())/mul"}'
    events = [("nvjet_tst_128", "custom-call.7", 3e6), ("loop_fusion_3", "fusion.3", 1e6)]
    found = gpu_parts.summed_up(events, gpu_parts.origins(hlo))
    assert found["kinds"] == {"products": 0.75, "elementwise": 0.25} and found["busy_seconds"] == pytest.approx(0.002)
    assert found["most"][1] == {"operation": "fusion.3", "share": 0.25, "from": "jit(step)/transpose(jvp())/mul"}
    assert "failed" in gpu_parts.summed_up([], {})


def test_the_time_of_all_parts_is_less_than_eight_minutes():
    assert gpu.SECONDS <= 480 and gpu.PARTS.keys() == (gpu_parts.PARTS.keys() - {"step"}) | {"flags"}


PARTS = ["rates", "smollm2", "emission"]  # variants and the other shapes take minutes: `benchmarks/gpu.sh --small`


@pytest.mark.slow
def test_parts_of_it_run_at_a_small_size(tmp_path):
    output = tmp_path / "gpu.json"
    options = ["--small", "--seconds", "900", "--parts", *PARTS, "--output", str(output)]
    command = [sys.executable, "-m", "benchmarks.gpu", *options]
    done = subprocess.run(command, cwd=Path(gpu.ROOT), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(output.read_text())
    assert report["device"]["platform"] == "cpu" and report["small"]
    assert list(report["parts"]) == PARTS
    assert {"now", "as first measured"} <= report["parts"]["smollm2"]["runs"].keys()
    assert report["parts"]["smollm2"]["runs"]["now"]["profile"]["kinds"]
