"""--benchmark: how long each stage of labelling a video takes, and what the network needs.

Frames go through all stages one after another, each timed until the device has finished it. The
first frame, on which libraries choose their kernels and graphs are compiled, is reported apart;
those after it until everything is warm are not reported; percentiles are over the rest (nearest
rank). How fast frames come out where stages overlap, as they do in --inference, is measured in a
second pass.
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
# stages: the network on all frames, and on those of a kind
NETWORK = "network"
KEY_FRAMES = "network: key"
OTHER_FRAMES = "network: other"


def measure(
    frames: Iterable,
    stages: Mapping[str, Callable[[Any], Any]],
    device: torch.device,
    source: str = "decode",
) -> dict[str, list[float]]:
    """Seconds of every frame in every stage: what one returns the next one gets.

    source: the name of the time that `frames` takes. ValueError where there are no frames.
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


def summary(
    seconds: Mapping[str, Sequence[float]], warm_up: int, keys: Sequence[bool] = ()
) -> dict:
    """What `measure` gave: "first_frame_ms" by stage; "stages" by name, each as `percentiles`.

    "total" is one more stage. warm_up: frames after the first that are left out, fewer where hardly
    any would remain. keys: which frames are key frames, for methods that have such: these and the
    others are stages of their own, besides the network's on all frames.
    """
    total = [sum(spent) for spent in zip(*seconds.values(), strict=True)]
    named = {**seconds, "total": total}
    skipped = min(1 + warm_up, len(total) // 2)
    stages = {}
    for name, spent in named.items():
        stages[name] = percentiles(spent[skipped:])
        if name == NETWORK:
            stages |= by_kind(spent, keys, skipped)
    return {
        "first_frame_ms": {name: 1000 * spent[0] for name, spent in named.items()},
        "warm_up_frames": max(skipped - 1, 0),
        "stages": stages,
    }


def by_kind(spent: Sequence[float], keys: Sequence[bool], skipped: int) -> dict[str, dict]:
    """The network's times on key frames and on others, apart; nothing where there are no kinds."""
    found = {}
    pairs = list(zip(spent, keys, strict=False))[skipped:]
    for kind, name in ((True, KEY_FRAMES), (False, OTHER_FRAMES)):
        times = [seconds for seconds, key in pairs if key is kind]
        if times:
            found[name] = percentiles(times)
    return found


def percentiles(seconds: Sequence[float]) -> dict:
    """Milliseconds of which 50, 90 and 99 % of the frames need no more, their mean, and the rate.

    The rate in frames a second is that of the median frame.
    """
    ordered = sorted(seconds)
    values = {}
    for q in (50, 90, 99):
        rank = max(math.ceil(q / 100 * len(ordered)), 1)
        values[f"p{q}_ms"] = 1000 * ordered[rank - 1]
    return values | {
        "mean_ms": 1000 * sum(ordered) / len(ordered),
        "frames": len(ordered),
        "fps": 1000 / max(values["p50_ms"], 1e-6),
    }


def throughput(outcome: Iterable, warm_up: int) -> float | None:
    """Frames a second at which an iterable yields, once warm; None where it yields too few."""
    moments = [time.perf_counter() for _ in outcome][warm_up:]
    if len(moments) < 2:
        return None
    return (len(moments) - 1) / (moments[-1] - moments[0])


@torch.inference_mode()
def step_flops(model: nn.Module, frame: Tensor) -> int:
    """Floating-point operations of one step on frame (1, 3, H, W) with a full memory.

    2 per multiply-add. Counted are convolutions and products as they are computed, of local
    attention its taps inside the map; where it is tiled also what it masks. For a network that is
    not yet compiled.
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

        # Linux counts in KiB, macOS in bytes.
        unit = 1 if sys.platform == "darwin" else 1024
        result["process_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    if device.type == "cuda":
        result["gpu_mib"] = torch.cuda.max_memory_allocated(device) / 2**20
    return result


def machine() -> dict:
    """utils.report.environment, what the processor can multiply, and how busy it is."""
    information = Path("/proc/cpuinfo")
    flags = information.read_text() if information.is_file() else ""
    load = None
    if hasattr(os, "getloadavg"):
        load = os.getloadavg()[0]
    return environment() | {
        "avx512": "avx512f" in flags,
        "avx512_bf16": "avx512_bf16" in flags,
        "load": load,
    }


def table(result: Mapping) -> str:
    """The result of a benchmark for people."""
    titles = ("p50 ms", "p90 ms", "p99 ms", "mean ms")
    head = "".join(f"{title:>9}" for title in titles)
    lines = [f"{'stage':<14}{head}{'frames/s':>10}{'first ms':>10}"]
    for name, row in result["stages"].items():
        times = "".join(f"{row[key]:9.1f}" for key in ("p50_ms", "p90_ms", "p99_ms", "mean_ms"))
        first = result["first_frame_ms"].get(name)
        shown = "" if first is None else f"{first:10.1f}"
        lines.append(f"{name:<14}{times}{row['fps']:10.1f}{shown}")
    return "\n".join([*lines, "", *notes(result)])


def notes(result: Mapping) -> list[str]:
    """What was measured, and where."""
    where = result["environment"]
    overlapped = result["overlapped_fps"]
    rate = f"{overlapped:.1f}" if overlapped else "None"
    frames = result["stages"]["total"]["frames"]
    size = "x".join(map(str, result["size"]))
    memory = [
        f"{name.removesuffix('_mib')} {value:.0f} MiB"
        for name, value in result["peak_memory"].items()
        if value
    ]
    device = ", ".join(where["gpus"]) or where["cpu"]
    kinds = []
    if KEY_FRAMES in result["stages"] and OTHER_FRAMES in result["stages"]:
        kinds = [key_frames_note(result["stages"])]
    bf16 = "yes" if where["avx512_bf16"] else "no"
    return [
        f"frames/s of a stage: at its median; with stages overlapped, as --inference runs: {rate}",
        f"{frames} frames of {size}, after the first and {result['warm_up_frames']} to warm up; "
        "batch 1",
        *kinds,
        f"parameters {result['parameters']:,}; {result['flops'] / 1e9:.1f} GFLOP a frame; peak "
        f"memory {', '.join(memory)}",
        f"{device}, {where['threads']} threads, load {where['load']}, AVX512_BF16 {bf16}, "
        f"torch {where['torch']}",
    ]


def key_frames_note(stages: Mapping) -> str:
    """What a frame costs by its kind, and as they come."""
    key, other, average = (stages[name]["mean_ms"] for name in (KEY_FRAMES, OTHER_FRAMES, NETWORK))
    return (
        f"the network takes {key:.1f} ms of a key frame, {other:.1f} ms of another "
        f"({other / key:.2f}), {average:.1f} ms on average"
    )


def write(folder: Path, result: Mapping) -> None:
    """benchmark.json and benchmark.txt."""
    write_text(folder / "benchmark.json", json.dumps(plain(result), indent=2) + "\n")
    write_text(folder / "benchmark.txt", table(result) + "\n")


def moving_pattern(size: tuple[int, int], frames: int) -> Iterator[np.ndarray]:
    """Images (H, W, 3) uint8 that move: blocks, which cost a decoder about what a film costs."""
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
