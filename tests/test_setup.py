"""What options change in PyTorch itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import main
from utils.run import setup

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def products():
    """How float32 numbers are multiplied on a GPU, put back afterwards."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield lambda: (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32)
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


def begin(precision: str, device: str, monkeypatch) -> None:
    """utils.setup.begin as on a machine that has such a device."""
    monkeypatch.setattr(setup, "check_device", lambda args: torch.device(device))
    monkeypatch.setattr(setup, "join", lambda device: device)
    setup.begin(main.parse_args(["--eval-mode", "--savedir", "s", "--precision", precision]))


def test_float32_is_exact_on_a_gpu_unless_tf32_is_asked_for(products, monkeypatch):
    assert torch.backends.cudnn.allow_tf32, "PyTorch's default: else there is nothing to test"
    for precision in ("tf32", "fp32", "tf32", "bf16"):
        begin(precision, "cuda", monkeypatch)
        assert products() == (("high", True) if precision == "tf32" else ("highest", False))


def test_nothing_is_changed_on_a_cpu(products, monkeypatch):
    before = products()
    begin("fp32", "cpu", monkeypatch)
    assert products() == before


@pytest.mark.parametrize("device, places", [("cuda", "2 GPUs"), ("cpu", "2 processor cores")])
def test_more_ranks_than_the_machine_has_places_are_refused(device, places, monkeypatch):
    monkeypatch.setattr(setup, "choose_device", lambda name: torch.device(device))
    monkeypatch.setattr(setup.os, "sched_getaffinity", lambda process: {0, 1})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    words = ["--training", "--savedir", "s", "--gpus"]
    assert setup.check_device(main.parse_args([*words, "2"])).type == device
    with pytest.raises(ValueError, match=f"--gpus 64 .* this machine has {places}"):
        setup.check_device(main.parse_args([*words, "64"]))


@pytest.mark.parametrize(
    ("set_before", "count"),
    [({}, main.SPIN_COUNT), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_threads_wait_politely_unless_the_user_says_how(set_before, count, monkeypatch):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in set_before.items():
        monkeypatch.setenv(name, value)
    main.wait_politely()
    assert os.environ.get("GOMP_SPINCOUNT") == count


def test_how_threads_wait_is_said_before_torch_is_imported():
    """OpenMP reads it when it is loaded."""
    code = "import sys, main; main.wait_politely(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("text", "multiplies"),
    [
        ("flags\t\t: fpu avx2 fma\n", False),
        ("flags\t\t: fpu avx512f avx512_bf16\n", True),
        ("flags\t\t: fpu amx_bf16\n", True),
        ("Features\t: fp asimd bf16\n", True),
        ("processor\t: 0\n", True),
    ],
)
def test_processors_say_whether_they_multiply_bfloat16(text, multiplies, tmp_path):
    (tmp_path / "cpuinfo").write_text(text)
    assert setup.multiplies_bf16(tmp_path / "cpuinfo") == multiplies
    assert setup.multiplies_bf16(tmp_path / "missing"), "unknown"
