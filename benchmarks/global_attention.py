"""Memory and time of TMANet's attention against the textbook form that holds all scores.

    python benchmarks/global_attention.py [--sizes 256x512 1024x2048] [--frames 4] [--json FILE]

Each row is a process of its own, so that its peak memory is its own: "extra" is what the peak lies
above what query, keys and values take, with the result. Maps are those of stride 8, of 64 channels
for keys and 256 for values. All scores of 1024x2048 with four frames would be 16 GiB: where they
are more than --most MiB, the textbook form is not run. The goal is 256 MB at 1024x2048 with T = 4.
One thread, float32; a call at 1024x2048 takes minutes on a CPU.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor

from models.ops import global_attention
from utils.run.benchmark import machine

STRIDE = 8
KEYS = 64
VALUES = 256
GOAL = 256.0  # MB


def explicit(query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
    """The textbook form, as `global_attention` with scale 1."""
    q = query.flatten(2).transpose(1, 2)
    k = torch.cat([key.flatten(2) for key in keys], 2)
    v = torch.cat([value.flatten(2) for value in values], 2).transpose(1, 2)
    read = (q @ k).softmax(-1) @ v
    return read.transpose(1, 2).unflatten(2, query.shape[-2:])


def fused(query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
    return global_attention(query, keys, values, scale=1.0)


WAYS = {"ours": fused, "explicit": explicit}


def peak() -> float:
    """Of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


@torch.inference_mode()
def measure(way: str, size: tuple[int, int], frames: int) -> dict[str, float]:
    """One call, in this process."""
    torch.set_num_threads(1)
    compute = WAYS[way]
    grid = tuple(side // STRIDE for side in size)
    # Libraries load what they need.
    small = torch.rand(1, KEYS, 2, 3)
    compute(small, [small], [torch.rand(1, VALUES, 2, 3)])
    query = torch.randn(1, KEYS, *grid)
    keys = [torch.randn(1, KEYS, *grid) for _ in range(frames)]
    values = [torch.randn(1, VALUES, *grid) for _ in range(frames)]
    before = peak()
    began = time.process_time()
    compute(query, keys, values)
    return {"seconds": time.process_time() - began, "extra_mb": peak() - before}


def apart(way: str, size: tuple[int, int], frames: int) -> dict[str, float]:
    """The same in a process of its own."""
    words = [f"{size[0]}x{size[1]}", "--frames", str(frames), "--only", way]
    command = [sys.executable, __file__, "--sizes", *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def size_of(text: str) -> tuple[int, int]:
    """HxW -> (H, W)."""
    height, _, width = text.partition("x")
    return int(height), int(width)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = [size_of("256x512"), size_of("1024x2048")]
    parser.add_argument("--sizes", nargs="+", type=size_of, default=sizes)
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--most", type=float, default=2048, help="MiB of scores")
    parser.add_argument("--only", choices=WAYS, help="one row as JSON, in this process")
    parser.add_argument("--json", type=Path)
    return parser.parse_args(argv)


def run(argv: list[str] | None = None) -> dict:
    args = parse_args(argv)
    if args.only:
        row = measure(args.only, args.sizes[0], args.frames)
        print(json.dumps(row))
        return row
    result = {"goal_mb": GOAL, "frames": args.frames, "environment": machine(), "rows": {}}
    print("size        way        seconds   extra MB")
    for height, width in args.sizes:
        places = (height // STRIDE) * (width // STRIDE)
        scores = args.frames * places**2 * 4 / 2**20
        for way in WAYS:
            if way == "explicit" and scores > args.most:
                print(f"{height}x{width:<7} {way:<9} not run: {scores:.0f} MiB of scores")
                continue
            row = apart(way, (height, width), args.frames)
            result["rows"][f"{height}x{width} {way}"] = row
            print(
                f"{height}x{width:<7} {way:<9} {row['seconds']:8.1f}   {row['extra_mb']:8.1f}",
                flush=True,
            )
    if args.json:
        args.json.write_text(json.dumps(result, indent=2))
    return result


if __name__ == "__main__":
    run()
