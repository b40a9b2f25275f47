"""What does it cost to measure everything in the pass that measures mIoU?

    python benchmarks/metrics.py [--backbone swiftnet18] [--size 360x480] [--json FILE]

An evaluation of a drive through the synthetic world, as `main.py --eval-mode` does it, with an
untrained network: "mIoU alone", and "all" (mIoU, VC, TC in all three modes, latency-aware mIoU).
Optical flow is known beforehand and does not count. Both take turns; the ratio is that of least
process CPU times, which a busy machine disturbs least (one thread). The goal is 1.25.
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
from timing import interleaved, ratio

import main
from datasets import label_set
from engine import evaluate
from jobs.common import prepare, scoring_data
from jobs.live import arrivals_of
from jobs.scoring import metrics_for
from models import build_model
from utils.metrics.temporal import Temporal
from utils.run.allocator import keep_freed_memory
from utils.run.benchmark import machine
from utils.run.loading import evaluation_loader
from utils.run.setup import views_of

CPU = torch.device("cpu")
ALL = "miou vc tc latency --tc-modes strict nearest etc --latency-ms 100".split()
FRAMES = 20
ROUNDS = 5
GOAL = 1.25


def options(backbone: str, size: tuple[int, int], metrics: list[str]):
    words = "--eval-mode --method single --dataset synthetic --savedir unused".split()
    sides = [str(side) for side in size]
    words += ["--backbone", backbone, "--synthetic-size", *sides, "--work-size", *sides]
    words += ["--synthetic-videos", "1", "1", "1", "--synthetic-length", str(FRAMES)]
    return main.parse_args([*words, "--metrics", *metrics])


class Evaluation:
    """A pass over the frames of one drive."""

    def __init__(self, args, known: dict):
        """known: motion by place, filled in the first pass and shared."""
        self.args = args
        self.known = known
        model = build_model(args, len(label_set(args).names)).eval()
        self.data = scoring_data(args, "val", model)
        self.model = prepare(args, model)
        # Rendering a frame does not count.
        self.clips = list(evaluation_loader(self.data, 0))

    def __call__(self) -> dict:
        args = self.args
        views = views_of(args, self.model)
        metrics = metrics_for(args, self.model, self.data, views, CPU)
        for metric in metrics:
            if isinstance(metric, Temporal):
                metric.motion = self.remembered(metric.motion)
        live = "latency" in args.metrics
        return evaluate(
            self.model,
            self.clips,
            metrics,
            device=CPU,
            views=views,
            autocast=torch.autocast("cpu", enabled=False),
            stepping=True,
            arrivals=arrivals_of(args, self.data, self.model) if live else None,
        )

    def remembered(self, motion: Callable) -> Callable:
        def recall(*place):
            if place not in self.known:
                self.known[place] = motion(*place)
            return self.known[place]

        return recall


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="swiftnet18")
    parser.add_argument("--size", default="360x480")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    return parser.parse_args(argv)


def run(argv: list[str] | None = None) -> dict:
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    # As main.py runs
    keep_freed_memory()
    size = tuple(int(side) for side in args.size.split("x"))
    known: dict = {}
    passes = {
        "mIoU alone": Evaluation(options(args.backbone, size, ["miou"]), known),
        "all": Evaluation(options(args.backbone, size, ALL), known),
    }
    rows = interleaved(passes, args.rounds, "cpu")
    found = ratio(rows, "all", "mIoU alone", "cpu")
    print(
        f"{args.backbone} {args.size}, {FRAMES} frames: all / mIoU alone = {found:.3f} "
        f"(goal {GOAL})"
    )
    result = {"goal": GOAL, "ratio": found, "rows": rows, "environment": machine()}
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return result


if __name__ == "__main__":
    run()
