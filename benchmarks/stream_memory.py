"""Does the memory of a streaming network grow with the length of the video?

    python benchmarks/stream_memory.py [--backbone erf] [--frames 2000] [--json FILE]

Steps random frames through an untrained network, single-threaded, and prints the resident memory of the process at
marks along the way. Flat means: within 2 % of the mark at a tenth of the way.
"""
from __future__ import annotations

import argparse
import gc
import json
import sys
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

import main
from engine import Stepper, stream
from models import build_model
from utils.report import environment
from utils.views import Views


def resident() -> float:
    """Resident memory of this process in MiB (Linux)."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2 ** 20


class Frames:
    """A source of random frames, made one at a time."""

    def __init__(self, count: int, size: tuple[int, int]):
        self.count, self.size = count, size

    def __iter__(self):
        generator = torch.Generator().manual_seed(0)
        for _ in range(self.count):
            yield argparse.Namespace(image=torch.randint(0, 256, (*self.size, 3), generator=generator,
                                                         dtype=torch.uint8).numpy())


def measure(backbone: str, method: str, frames: int, size: tuple[int, int]) -> dict[int, float]:
    """Frames done -> MiB, at each tenth of the way."""
    torch.set_num_threads(1)
    args = main.parse_args(["--inference", "--method", method, "--backbone", backbone, "--savedir", "unused"])
    model = build_model(args, 19).eval()
    stepper = Stepper(model, Views(model.size_rule), nullcontext())
    marks, every = {}, max(frames // 10, 1)
    for i, _ in enumerate(stream(stepper, Frames(frames, size), device=torch.device("cpu")), 1):
        if i % every == 0:
            marks[i] = resident()
    return marks


def growth(marks: dict[int, float]) -> float:
    """The largest later mark relative to the first one."""
    first, *later = marks.values()
    return max(later) / first - 1


def run(argv: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="erf")
    parser.add_argument("--method", default="single")
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--size", nargs=2, type=int, default=(64, 128), metavar=("H", "W"))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    marks = measure(args.backbone, args.method, args.frames, tuple(args.size))
    print("frames   MiB")
    for frames, memory in marks.items():
        print(f"{frames:6d}  {memory:6.1f}")
    print(f"growth after the first mark: {100 * growth(marks):.2f} %")
    result = {"marks": marks, "growth": growth(marks), "environment": environment()}
    if args.json:
        args.json.write_text(json.dumps(result, indent=2))
    return result


if __name__ == "__main__":
    run()
