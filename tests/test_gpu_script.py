"""tests/gpu.py, which waits for a GPU, runs its parts on a CPU too."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import gpu
from command import ROOT


def dry_run(tmp_path, *parts) -> tuple[int, dict]:
    path = tmp_path / "gpu.json"
    command = [sys.executable, "tests/gpu.py", "--dry-run", "--json", str(path), "--only", *parts]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    return done.returncode, json.loads(path.read_text())


def test_its_parts_run_on_a_cpu_and_what_needs_a_gpu_is_left_out(tmp_path):
    parts = ("machine", "networks", "mrcfa", "etc", "kernels", "memcheck")
    code, found = dry_run(tmp_path, *parts, "training fp32")
    assert code == 0, found
    assert {name: found[name]["state"] for name in found} == {
        "machine": "passed",
        "networks": "passed",
        "mrcfa": "passed",
        "etc": "passed",
        "training fp32": "passed",
        "kernels": "left out",
        "memcheck": "left out",
    }
    assert found["training fp32"]["result"]["step"] > 0, "it was stopped in the middle, and saved"


@pytest.mark.slow
def test_all_of_it_runs_on_a_cpu(tmp_path):
    names = [part.name for part in gpu.parts("cpu", tmp_path, dry=True)]
    code, found = dry_run(tmp_path, *names)
    assert code == 0 and set(found) == set(names)


def test_a_part_that_fails_or_takes_too_long_does_not_stop_the_others():
    fails = gpu.run(gpu.Part("fails", [sys.executable, "-c", "print('why'); 1 / 0"], 30))
    assert fails["state"] == "failed" and fails["output"][0] == "why"
    slow = gpu.run(gpu.Part("slow", [sys.executable, "-c", "import time; time.sleep(60)"], 1))
    assert slow["state"] == "out of time" and slow["seconds"] < 20
    absent = gpu.run(gpu.Part("absent", ["x"], 1, needs="no-such-program"))
    assert absent["state"] == "left out" and "no-such-program" in absent["why"]
