"""How much more does `smooth` cost than `single` on the same backbone, and what for?

    python benchmarks/smooth.py [--backbones erf psp18] [--sizes 360x480 512x1024] [--json FILE]

A step of each, prepared for inference as `main.py` does, with untrained weights, on consecutive
frames of the synthetic world; the past is full. "flow" is the provider alone (DIS, for the frames
as they come), "blend" a step that is given its flow. Rounds in which all take turns; ratios of
least process CPU times, which a busy machine disturbs least (one thread). The goal is 1.15.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from timing import COMPARED, interleaved, ratio
from torch import Tensor

import main
from datasets import synthetic
from models import build_model
from models.deploy import for_inference
from utils.predictions import frame_tensor
from utils.run.allocator import keep_freed_memory
from utils.run.benchmark import machine

BACKBONES = ("swiftnet18", "erf", "psp18")
SIZES = ("360x480", "512x1024")
CLASSES = 11
ROUNDS = 7
GOAL = 1.15


def network(method: str, backbone: str):
    """Prepared for inference, as the jobs do it."""
    argv = ["--inference", "--savedir", "unused", "--method", method, "--backbone", backbone]
    model = build_model(main.parse_args(argv), CLASSES).eval()
    return for_inference(model, dtype=torch.float32, compiled=False)


def two_frames(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Consecutive frames (1, 3, H, W) of a drive."""
    (video,) = synthetic.videos("test", 1, 2, size)
    cpu = torch.device("cpu")
    return frame_tensor(video.frame(0), cpu), frame_tensor(video.frame(1), cpu)


def computations(backbone: str, size: tuple[int, int]) -> dict[str, Callable]:
    """What takes turns, by name."""
    single = network("single", backbone)
    smooth = network("smooth", backbone)
    fitting = tuple(single.size_rule.fit(side) for side in size)
    before, frame = two_frames(fitting)
    _, state = smooth.step(before, smooth.start())
    flow = smooth.optical_flow(frame, before)
    return {
        "single": lambda: single.step(frame, None),
        "smooth": lambda: smooth.step(frame, state),
        "flow given": lambda: smooth.step(frame, state, flow=flow),
        "flow alone": lambda: smooth.optical_flow(frame, before),
    }


def measure(backbone: str, size: tuple[int, int], rounds: int) -> dict:
    rows = interleaved(computations(backbone, size), rounds, "cpu")
    times = {name: row[COMPARED["cpu"]] for name, row in rows.items()}
    return {
        "ms": times,
        "ratio": ratio(rows, "smooth", "single", "cpu"),
        "ratio_given": ratio(rows, "flow given", "single", "cpu"),
    }


def size_of(text: str) -> tuple[int, int]:
    """HxW -> (H, W)."""
    height, _, width = text.partition("x")
    return int(height), int(width)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbones", nargs="+", default=BACKBONES)
    parser.add_argument("--sizes", nargs="+", type=size_of, default=[size_of(x) for x in SIZES])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    return parser.parse_args(argv)


def run(argv: list[str] | None = None) -> dict:
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    # As main.py runs
    keep_freed_memory()
    result = {"goal": GOAL, "threads": args.threads, "environment": machine(), "rows": {}}
    print("backbone  size        single    smooth    flow   smooth/single   with given flow   (ms)")
    with torch.inference_mode():
        for backbone in args.backbones:
            for height, width in args.sizes:
                row = measure(backbone, (height, width), args.rounds)
                result["rows"][f"{backbone} {height}x{width}"] = row
                show(backbone, f"{height}x{width}", row)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2))
    return result


def show(backbone: str, size: str, row: dict) -> None:
    times = row["ms"]
    print(
        f"{backbone:<9} {size:<9} {times['single']:8.1f}  {times['smooth']:8.1f}  "
        f"{times['flow alone']:6.1f}  {row['ratio']:14.3f}  {row['ratio_given']:16.3f}"
    )


if __name__ == "__main__":
    run()
