"""Does the memory of a streaming network grow with the length of the video?

    python benchmarks/stream_memory.py [--backbone erf] [--frames 2000] [--json FILE]

Writes a video of random frames, then labels it as `--inference` does, decoding, network and overlay video included,
with an untrained network on one thread, and prints the resident memory of the process at marks along the way. Flat
means: within 2 % of the mark at a tenth of the way.
"""
from __future__ import annotations

import argparse
import gc
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

import main
from datasets.labels import default_palette
from datasets.read_ahead import ReadAhead
from datasets.source import open_source
from engine import Stepper, stream
from models import build_model
from utils.outputs import InferenceOutput
from utils.report import environment
from utils.video import VideoWriter
from utils.views import Views

CLASSES = 19


def resident() -> float:
    """Resident memory of this process in MiB (Linux)."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2 ** 20


def write_video(path: Path, frames: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    with VideoWriter(path, 25) as writer:
        for _ in range(frames):
            coarse = rng.integers(0, 256, (size[0] // 8, size[1] // 8, 3), np.uint8)
            writer.write(coarse.repeat(8, 0).repeat(8, 1))


def measure(backbone: str, method: str, frames: int, size: tuple[int, int]) -> dict[int, float]:
    """Frames done -> MiB, at each tenth of the way."""
    torch.set_num_threads(1)
    args = main.parse_args(["--inference", "--method", method, "--backbone", backbone, "--savedir", "unused"])
    model = build_model(args, CLASSES).eval()
    stepper = Stepper(model, Views(model.size_rule), nullcontext())
    marks, every = {}, max(frames // 10, 1)
    with TemporaryDirectory() as folder:
        video = Path(folder) / "video.mp4"
        write_video(video, frames, size)
        with open_source(str(video)) as source, ReadAhead(source) as ahead, InferenceOutput(
                Path(folder), "video", ["overlay"], source.fps, default_palette(CLASSES), 0.5) as output:
            for i, (frame, prediction, _) in enumerate(stream(stepper, ahead, device=torch.device("cpu")), 1):
                output.write(frame.image, frame.name, prediction.numpy())
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
