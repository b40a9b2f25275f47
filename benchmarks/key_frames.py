"""What does a frame between two key frames cost, and how much faster does a stream become?

    python benchmarks/key_frames.py [--backbone swiftnet18] [--size 360x480] [--json FILE]

A frame from tensor to labels: the step, logits enlarged to the frame, best class, by networks that
are prepared for inference as `main.py` does, with untrained weights, on consecutive frames of the
synthetic world. All take turns; ratios of least process CPU times, which a busy machine disturbs
least (one thread). The stream is `--interval` such frames behind each key frame. Goals: with DIS
and warping a frame costs at most 0.15 of a key frame, with the light network and the filter 0.4,
and a stream of interval 4 is at least 3 times as fast as `single`.
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
from smooth import size_of, two_frames
from timing import COMPARED, interleaved
from torch import Tensor

import main
from models import build_model
from models.deploy import for_inference
from utils.predictions import label_map
from utils.run.allocator import keep_freed_memory
from utils.run.benchmark import machine

CLASSES = 11
ROUNDS = 9
# By name: the words that make the method.
WAYS = {
    "warp, dis ultrafast": "--propagate warp --flow dis --dis-preset ultrafast",
    "warp, dis fast": "--propagate warp --flow dis --dis-preset fast",
    "gsv, light": "--propagate gsv --flow light",
    "gsv, dis fast": "--propagate gsv --flow dis",
    "hold": "--propagate hold",
}


def network(words: str, backbone: str):
    """Prepared for inference, as the jobs do it."""
    argv = ["--inference", "--savedir", "unused", "--backbone", backbone, *words.split()]
    return for_inference(build_model(main.parse_args(argv), CLASSES).eval())


def labels(model, frame: Tensor, state, key: bool | None) -> Tensor:
    """(H, W) of one frame."""
    logits, _ = model.step(frame, state, key=key)
    size = tuple(frame.shape[-2:])
    return label_map(model.upsample(logits, size), size, model.backbone.align_corners)


def computations(backbone: str, size: tuple[int, int]) -> dict[str, Callable]:
    """What takes turns, by name."""
    single = network("--method single", backbone)
    fitting = tuple(single.size_rule.fit(side) for side in size)
    before, frame = two_frames(fitting)
    found = {"single": lambda: labels(single, frame, None, None)}
    for name, words in WAYS.items():
        model = network(f"--method flow {words}", backbone)
        _, state = model.step(before, model.start(), key=True)
        # bound now: the loop goes on to the next model
        found[name] = lambda model=model, state=state: labels(model, frame, state, False)
        if name == "gsv, light":
            found["gsv, key frame"] = lambda model=model: labels(model, frame, None, True)
    return found


def stream_speed(key: float, other: float, single: float, interval: int) -> float:
    """How many times as fast as `single` a stream is, from milliseconds a frame."""
    return (interval + 1) * single / (key + interval * other)


def run(argv: list[str] | None = None) -> dict:
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    # As main.py runs
    keep_freed_memory()
    with torch.inference_mode():
        rows = interleaved(computations(args.backbone, args.size), args.rounds, "cpu")
    times = {name: row[COMPARED["cpu"]] for name, row in rows.items()}
    result = {
        "backbone": args.backbone,
        "size": args.size,
        "threads": args.threads,
        "interval": args.interval,
        "ms": times,
        "share_of_key": {},
        "stream": {},
        "environment": machine(),
    }
    height, width = args.size
    print(f"{args.backbone} at {height}x{width}, {args.threads} thread(s)")
    print(f"{'':22}{'ms':>8}{'of a key frame':>16}{f'stream, interval {args.interval}':>22}")
    for name, spent in times.items():
        key = times["gsv, key frame"] if name.startswith("gsv") else times["single"]
        result["share_of_key"][name] = spent / key
        result["stream"][name] = stream_speed(key, spent, times["single"], args.interval)
        print(
            f"{name:22}{spent:8.1f}{result['share_of_key'][name]:16.3f}"
            f"{result['stream'][name]:20.2f} x"
        )
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return result


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="swiftnet18")
    parser.add_argument("--size", type=size_of, default=(360, 480), metavar="HxW")
    parser.add_argument("--interval", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    return parser.parse_args(argv)


if __name__ == "__main__":
    run()
