"""What does optical flow cost, by where it comes from?

    python benchmarks/optical_flow.py [--quick] [--threads 1] [--device cuda] [--json FILE]

    providers   every network of --flow with random weights and every preset of DIS, which stays on
                the CPU; RAFT with 12 and with 6 iterations
    use         what else a method does: shrinking a frame for SwNet-seq's networks, bringing flow
                to a grid, warping the logits of 19 classes at a quarter and at an eighth

360x480, batch 1, float32. Medians over rounds in which all take turns, after one call each to warm
up; process CPU time beside wall time (on a busy machine trust CPU time, on one thread). --quick:
180x240, three rounds, without raft_large.
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
import torch.nn.functional as F
from timing import interleaved

from models.ops.warp import resize_flow, warp
from models.optical_flow import DIS, RAFT, FlowNetS, LightFlow
from models.optical_flow.dis import PRESETS
from utils.run.benchmark import machine

SIZES = {"full": (360, 480), "quick": (180, 240), "tiny": (40, 64)}
ROUNDS = {"full": 7, "quick": 3, "tiny": 3}
CLASSES = 19
SLOW = ("raft_large, 12",)  # left out of the smaller runs

PROVIDERS = {
    **{f"dis, {preset}": lambda preset=preset: DIS(preset) for preset in PRESETS},
    "light": LightFlow,
    "flownets": FlowNetS,
    "raft_small, 12": lambda: RAFT("small", 12),
    "raft_small, 6": lambda: RAFT("small", 6),
    "raft_large, 12": lambda: RAFT("large", 12),
}


def moving_pair(size: tuple[int, int], device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A random texture and the same 3 pixels further (1, 3, *size): DIS has something to match."""
    height, width = size
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, height // 4 + 1, width // 4 + 1, generator=generator)
    whole = F.interpolate(coarse, (height, width + 3), mode="bicubic").clamp(0, 1).to(device)
    return whole[..., 3:].contiguous(), whole[..., :width].contiguous()


def providers(size: tuple[int, int], names: list[str], rounds: int, device: str) -> dict:
    frame, previous = moving_pair(size, device)
    computes = {}
    for name in names:
        provider = PROVIDERS[name]().to(device).eval()
        computes[name] = lambda provider=provider: provider(frame, previous)
    return interleaved(computes, rounds, device)


def uses(size: tuple[int, int], rounds: int, device: str) -> dict:
    """What is done to frames and flow around a provider."""
    frame, _ = moving_pair(size, device)
    flow = torch.full((1, 2, *size), 3.0, device=device)
    light = LightFlow().to(device).eval()
    computes: dict[str, Callable] = {"shrink": lambda: light.shrink(frame)}
    for part in (4, 8):
        grid = (size[0] // part, size[1] // part)
        logits = torch.rand(1, CLASSES, *grid, device=device)
        cells = resize_flow(flow, grid, size)
        computes[f"flow to a grid, 1/{part}"] = lambda grid=grid: resize_flow(flow, grid, size)
        computes[f"warp, 1/{part}"] = lambda logits=logits, cells=cells: warp(logits, cells)
    return interleaved(computes, rounds, device)


def show(title: str, rows: dict[str, dict]) -> None:
    columns = ("wall_ms", "cpu_ms", "least_cpu_ms")
    print(f"\n{title:<24}" + "".join(f"{column:>14}" for column in columns))
    for name, row in rows.items():
        print(f"{name:<24}" + "".join(f"{row[column]:14.2f}" for column in columns))


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    size = {"action": "store_const", "dest": "size"}
    parser.add_argument("--quick", **size, const="quick", help="180x240, three rounds")
    parser.add_argument("--tiny", **size, const="tiny", help="for the tests")
    parser.add_argument("--rounds", type=int, help="default 7, with --quick 3")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path)
    parser.set_defaults(size="full")
    return parser.parse_args(argv)


def run(argv: list[str] | None = None) -> dict:
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    size = SIZES[args.size]
    rounds = args.rounds or ROUNDS[args.size]
    names = [name for name in PROVIDERS if args.size == "full" or name not in SLOW]
    where = machine()
    print(f"{where['cpu']}, {args.threads} threads, load {where['load']}; {size}")
    with torch.inference_mode():
        result = {
            "size": size,
            "rounds": rounds,
            "environment": where,
            "providers": providers(size, names, rounds, args.device),
            "use": uses(size, rounds, args.device),
        }
    show("providers", result["providers"])
    show("use", result["use"])
    if args.json:
        args.json.write_text(json.dumps(result, indent=2))
    return result


if __name__ == "__main__":
    run()
