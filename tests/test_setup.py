"""What options change in PyTorch itself."""

from __future__ import annotations

import pytest
import torch

import main
from utils.run import setup


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
