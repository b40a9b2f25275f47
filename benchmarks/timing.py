"""Time of several computations that take turns, on a machine that does other things too."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

# What to wait for before a clock is read: a GPU works on while Python goes on
SYNCHRONIZE = {"cpu": lambda: None, "cuda": torch.cuda.synchronize}
# The row of `interleaved` to compare by: on a busy CPU, its own time is the steadier one
COMPARED = {"cpu": "least_cpu_ms", "cuda": "wall_ms"}


def once(compute: Callable, device: str) -> tuple[float, float]:
    """Wall and CPU seconds of one call."""
    synchronize = SYNCHRONIZE[device]
    synchronize()
    wall = time.perf_counter()
    cpu = time.process_time()
    compute()
    synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


def interleaved(computes: dict[str, Callable], rounds: int, device: str) -> dict[str, dict]:
    """Medians over rounds in which all take turns, after one call each to warm up."""
    for compute in computes.values():
        compute()
    spent = {name: [] for name in computes}
    for _ in range(rounds):
        for name, compute in computes.items():
            spent[name].append(once(compute, device))
    return {name: in_ms(pairs) for name, pairs in spent.items()}


def in_ms(pairs: list[tuple[float, float]]) -> dict[str, float]:
    """Wall and CPU seconds of several calls -> a row of a table."""
    walls, cpus = zip(*pairs, strict=True)
    return {
        "wall_ms": 1000 * statistics.median(walls),
        "cpu_ms": 1000 * statistics.median(cpus),
        "least_cpu_ms": 1000 * min(cpus),
    }


def ratio(rows: dict[str, dict], slow: str, fast: str, device: str) -> float:
    """How many times as long as `fast` the row `slow` takes."""
    key = COMPARED[device]
    # The clock of a process may show no time at all for something tiny
    return rows[slow][key] / max(rows[fast][key], 1e-6)
