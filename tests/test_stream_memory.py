"""Streaming takes no more memory and no more time, the longer it lasts.

Short forms of benchmarks/stream_memory.py.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from command import ROOT
from engine import Stepper, stream
from models.lma import LMANet
from toys import ToyBackbone
from utils.views import Views

sys.path.insert(0, str(ROOT / "benchmarks"))

from stream_memory import follow, growth, measure

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def assert_not_slower(times: dict[int, float]) -> None:
    """The fastest of the last three marks is little slower than the slowest of the first three."""
    marks = list(times.values())
    assert min(marks[-3:]) < 1.5 * max(marks[:3]), times


@linux
def test_memory_after_400_frames_is_within_2_percent_of_that_after_40():
    memory, _ = measure("erf", "single", 400, (32, 64))
    assert growth(memory) < 0.02


@linux
def test_ten_thousand_frames_through_a_memory_take_neither_more_memory_nor_more_time():
    """On a backbone of a few layers; marks after each thousand."""
    torch.manual_seed(0)
    model = LMANet(ToyBackbone(5), corr_size=5).eval()
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (16, 32, 3), np.uint8) for _ in range(64)]
    bank = [SimpleNamespace(image=image, work=None) for image in images]
    stepper = Stepper(model, Views(model.size_rule), nullcontext())
    frames = (bank[i % len(bank)] for i in range(10_000))
    memory, times = follow(stream(stepper, frames, device=torch.device("cpu")), 1000)
    assert list(memory) == list(range(1000, 10_001, 1000))
    assert growth(memory) < 0.02, memory
    assert_not_slower(times)


@linux
@pytest.mark.slow
def test_ten_thousand_frames_of_a_drive_through_an_lmanet_take_neither_more_memory_nor_more_time():
    """As the soak, with reading ahead and an overlay video."""
    memory, times = measure("erf", "lma", 10_000, (32, 64), soak=True)
    assert len(memory) == 10 and growth(memory) < 0.02, memory
    assert_not_slower(times)


def test_growth_is_seen():
    assert growth({10: 100.0, 20: 101.0, 30: 103.0}) == pytest.approx(0.03)
