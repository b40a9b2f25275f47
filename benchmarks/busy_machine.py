"""How long a frame takes beside other work, by how long OpenMP's threads spin while they wait.

    python benchmarks/busy_machine.py [--neighbours 1] [--frames 30] [--rounds 3] [--json FILE]

A thread that finds no work spins before it sleeps (GOMP_SPINCOUNT). On a quiet machine spinning
saves wake-ups; beside a busy process the threads spin away the time slices of the one that works.
Each setting labels frames of 256x512 with the shipped ERFNet in a process of its own, since the
setting is read once, before torch is imported; all take turns, on a quiet machine and beside
`--neighbours` busy processes. Medians over frames, the best of the rounds; milliseconds a frame.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

WEIGHTS = ROOT / "trained_models" / "erfnet_synthetic.pth"
SIZE = (256, 512)
WARM_UP = 5
UNSET = "unset"
SETTINGS = (UNSET, "0", "1000", "3000", "10000", "30000", "100000")
# A neighbour that never waits, as a compiler or another training.
BUSY = "while True: pass"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--neighbours", type=int, default=1)
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--settings", nargs="+", default=SETTINGS)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(milliseconds_per_frame(args.frames))
        return
    quiet = measure(args, neighbours=0)
    busy = measure(args, neighbours=args.neighbours)
    report(quiet, busy, args)


def measure(args, neighbours: int) -> dict[str, float]:
    """The best round of each setting, beside so many busy processes."""
    # Started once: their own start-up is over when the first child begins to measure.
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(neighbours)]
    try:
        found = {setting: [] for setting in args.settings}
        for _ in range(args.rounds):
            # All take turns, so that a change of the machine's speed meets all alike.
            for setting in args.settings:
                found[setting].append(run_child(setting, args.frames))
    finally:
        for other in others:
            other.kill()
            other.wait()
    return {setting: min(times) for setting, times in found.items()}


def run_child(setting: str, frames: int) -> float:
    # A variable of the shell's would decide in place of the setting.
    environment = {**os.environ, "GOMP_SPINCOUNT": setting}
    if setting == UNSET:
        del environment["GOMP_SPINCOUNT"]
    command = [sys.executable, __file__, "--child", "--frames", str(frames)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def milliseconds_per_frame(frames: int) -> float:
    """The median over frames of one stream, in this process."""
    # Only now: the child has read its environment, and the parent needs no torch.
    import torch

    import main as tool
    from models import build_model
    from models.deploy import for_inference
    from utils.checkpoint import load_weights, network_of

    words = ["--inference", "--source", "none", "--savedir", "none"]
    args = tool.parse_args(words, network_of([str(WEIGHTS)]))
    model = build_model(args, 11)
    load_weights(model, WEIGHTS, complete=True)
    # As --inference runs it: batch norm folded, channels last.
    model = for_inference(model)
    frame = torch.rand(1, 3, *SIZE)
    times = []
    with torch.inference_mode():
        for _ in range(WARM_UP + frames):
            started = time.perf_counter()
            model.step(frame, model.start())
            times.append(1000 * (time.perf_counter() - started))
    return median(times[WARM_UP:])


def report(quiet: dict[str, float], busy: dict[str, float], args) -> None:
    print(f"{os.cpu_count()} cores; ERFNet at {SIZE[0]}x{SIZE[1]}, milliseconds a frame")
    print(f"{'GOMP_SPINCOUNT':16}{'quiet':>10}{f'{args.neighbours} busy':>10}")
    for setting in quiet:
        print(f"{setting:16}{quiet[setting]:10.1f}{busy[setting]:10.1f}")
    if args.json:
        result = {"cores": os.cpu_count(), "quiet": quiet, "busy": busy}
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
