"""--benchmark: how long each stage of labelling a video takes, and what the network needs.

Frames go through all stages one after another, each timed until the device has finished it. The first frame, on which
libraries choose their kernels and graphs are compiled, is reported apart; those after it until everything is warm are
not reported; percentiles are over the rest (nearest rank). How fast frames come out where stages overlap, as they do
in --inference, is measured in a second pass.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..files import write_text
from ..output.report import environment, plain
from ..output.video import VideoWriter

# frames of a benchmark, and how many after the first are not counted, by default
FRAMES = 50
WARM_UP = 5


def measure(
    frames: Iterable,
    stages: Mapping[str, Callable[[Any], Any]],
    device: torch.device,
    source: str = "decode",
) -> dict[str, list[float]]:
    """Seconds of every frame in every stage: what one returns the next one gets. ValueError where there are no frames.

    source: the name of the time that `frames` takes.
    """
    seconds: dict[str, list[float]] = {name: [] for name in (source, *stages)}
    coming = iter(frames)
    while True:
        value, spent = timed(lambda: next(coming, None), device)
        if value is None:
            break
        seconds[source].append(spent)
        for name, stage in stages.items():
            value, spent = timed(lambda stage=stage, value=value: stage(value), device)
            seconds[name].append(spent)
    if not seconds[source]:
        raise ValueError("there are no frames to measure")
    return seconds


def timed(compute: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    """What it returns, and the seconds until the device has finished it."""
    synchronise(device)
    started = time.perf_counter()
    result = compute()
    synchronise(device)
    return result, time.perf_counter() - started


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def summary(seconds: Mapping[str, Sequence[float]], warm_up: int) -> dict:
    """Of `measure`: "first_frame_ms" by stage; "stages" by name, and "total", each as `percentiles`.

    warm_up: frames after the first that are left out, fewer where hardly any would remain.
    """
    total = [sum(spent) for spent in zip(*seconds.values(), strict=True)]
    named = {**seconds, "total": total}
    skipped = min(1 + warm_up, len(total) // 2)
    return {
        "first_frame_ms": {name: 1000 * spent[0] for name, spent in named.items()},
        "warm_up_frames": max(skipped - 1, 0),
        "stages": {name: percentiles(spent[skipped:]) for name, spent in named.items()},
    }


def percentiles(seconds: Sequence[float]) -> dict:
    """Milliseconds of which 50, 90 and 99 % of the frames need no more; their mean; frames a second by the median."""
    ordered = sorted(seconds)
    values = {
        f"p{q}_ms": 1000 * ordered[max(math.ceil(q / 100 * len(ordered)), 1) - 1]
        for q in (50, 90, 99)
    }
    return values | {
        "mean_ms": 1000 * sum(ordered) / len(ordered),
        "frames": len(ordered),
        "fps": 1000 / max(values["p50_ms"], 1e-6),
    }


def throughput(outcome: Iterable, warm_up: int) -> float | None:
    """Frames a second at which an iterable yields, once warm; None where it yields too few."""
    moments = [time.perf_counter() for _ in outcome][warm_up:]
    return (len(moments) - 1) / (moments[-1] - moments[0]) if len(moments) > 1 else None


@torch.inference_mode()
def step_flops(model: nn.Module, frame: Tensor) -> int:
    """Floating-point operations of one step on frame (1, 3, H, W) with a full memory: 2 per multiply-add.

    Counted are convolutions and products as they are computed, of local attention its taps inside the map; where it is
    tiled also what it masks. For a network that is not yet compiled.
    """
    from torch.utils.flop_counter import FlopCounterMode

    state = model.start()
    for _ in range(-min(model.offsets, default=0)):
        state = model.observe(frame, state)
    with FlopCounterMode(display=False) as counter:
        model.step(frame, state)
    return counter.get_total_flops()


def peak_memory(device: torch.device) -> dict[str, float | None]:
    """MiB: of the process since it began, and on a GPU of tensors since the last reset."""
    result: dict[str, float | None] = {"process_mib": None}
    if os.name == "posix":
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        result["process_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    if device.type == "cuda":
        result["gpu_mib"] = torch.cuda.max_memory_allocated(device) / 2**20
    return result


def machine() -> dict:
    """utils.report.environment, what the processor can multiply, and how busy it is."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    return environment() | {
        "avx512": "avx512f" in flags,
        "avx512_bf16": "avx512_bf16" in flags,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def table(result: Mapping) -> str:
    """The result of a benchmark for people."""
    lines = [
        f"{'stage':<14}{'p50 ms':>9}{'p90 ms':>9}{'p99 ms':>9}{'mean ms':>9}{'frames/s':>10}{'first ms':>10}"
    ]
    for name, row in result["stages"].items():
        times = "".join(f"{row[key]:9.1f}" for key in ("p50_ms", "p90_ms", "p99_ms", "mean_ms"))
        lines.append(f"{name:<14}{times}{row['fps']:10.1f}{result['first_frame_ms'][name]:10.1f}")
    overlapped = result["overlapped_fps"]
    memory = result["peak_memory"]
    where = result["environment"]
    lines += [
        "",
        "frames/s of a stage: at its median; with stages overlapped, as --inference runs: "
        f"{overlapped and f'{overlapped:.1f}'}",
        f"{result['stages']['total']['frames']} frames of {'x'.join(map(str, result['size']))}, after the first "
        f"and {result['warm_up_frames']} to warm up; batch 1",
        f"parameters {result['parameters']:,}; {result['flops'] / 1e9:.1f} GFLOP a frame; peak memory "
        + ", ".join(
            f"{name.removesuffix('_mib')} {value:.0f} MiB"
            for name, value in memory.items()
            if value
        ),
        f"{', '.join(where['gpus']) or where['cpu']}, {where['threads']} threads, load {where['load']}, "
        f"AVX512_BF16 {'yes' if where['avx512_bf16'] else 'no'}, torch {where['torch']}",
    ]
    return "\n".join(lines)


def write(folder: Path, result: Mapping) -> None:
    """benchmark.json and benchmark.txt."""
    write_text(folder / "benchmark.json", json.dumps(plain(result), indent=2) + "\n")
    write_text(folder / "benchmark.txt", table(result) + "\n")


def moving_pattern(size: tuple[int, int], frames: int) -> Iterator[np.ndarray]:
    """Images (H, W, 3) uint8 that move: smooth blocks, so that they cost a decoder about what a film costs."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (-(-size[0] // 16) + 1, -(-size[1] // 16) + 1, 3), np.uint8)
    image = coarse.repeat(16, 0).repeat(16, 1)[: size[0], : size[1]]
    for t in range(frames):
        yield np.roll(image, 3 * t, axis=1)


def write_test_video(path: Path, size: tuple[int, int], frames: int) -> None:
    """A video for a benchmark without --source."""
    with VideoWriter(path, 25) as writer:
        for image in moving_pattern(size, frames):
            writer.write(np.ascontiguousarray(image))
