"""Streaming does not grow: the short form of benchmarks/stream_memory.py."""
from __future__ import annotations

import sys

import pytest

from command import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

from stream_memory import growth, measure


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_after_400_frames_is_within_2_percent_of_that_after_40():
    assert growth(measure("erf", "single", 400, (32, 64))) < 0.02


def test_growth_is_seen():
    assert growth({10: 100.0, 20: 101.0, 30: 103.0}) == pytest.approx(0.03)
