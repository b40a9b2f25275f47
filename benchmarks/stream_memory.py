"""Does a streaming network take more memory, or more time, the longer the video?

    python benchmarks/stream_memory.py [--backbone erf] [--frames 2000] [--json FILE]
    python benchmarks/stream_memory.py --soak [--json FILE]

Labels a video of random frames as `--inference` does, decoding, network and overlay video included, with an untrained
network on one thread, and prints at marks along the way the resident memory of the process and the median time of a
frame since the mark before. Flat means: within 2 % of the mark at a tenth of the way.

--soak: two hours of the synthetic world at 15 Hz, 108,000 frames, by an LMANet, as fast as they can be labelled; the
frames are some seconds of a drive, over and over.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

import main
from datasets import synthetic
from datasets.labels import default_palette
from datasets.source import Source, open_source
from datasets.source.read_ahead import ReadAhead
from engine import Stepper, stream
from models import build_model
from utils.output.outputs import InferenceOutput
from utils.output.report import environment
from utils.output.video import VideoWriter
from utils.views import Views

CLASSES = 19
HOURS, RATE = 2, 15  # of the soak
MARKS = 10


class Drive(Source):
    """Seconds of a synthetic drive, over and over: a stream that does not end by itself."""

    def __init__(self, size: tuple[int, int], seconds: int = 4):
        super().__init__("synthetic", "stream", step=1, fps=RATE)
        (video,) = synthetic.videos("test", 1, seconds * RATE, size, RATE)
        self.frames = [video.frame(i) for i in range(len(video))]

    def _entries(self):
        index = 0
        while not self._stopping.is_set():
            frame = self.frames[index % len(self.frames)]
            yield None, lambda frame=frame: frame
            index += 1


def resident() -> float:
    """Resident memory of this process in MiB (Linux)."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def write_video(path: Path, frames: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    with VideoWriter(path, 25) as writer:
        for _ in range(frames):
            coarse = rng.integers(0, 256, (size[0] // 8, size[1] // 8, 3), np.uint8)
            writer.write(coarse.repeat(8, 0).repeat(8, 1))


def follow(labelled: Iterable[tuple], every: int) -> tuple[dict[int, float], dict[int, float]]:
    """engine.stream's frames -> {frames done: MiB}, {frames done: median ms of a frame since the mark before}."""
    memory, times, spent = {}, {}, []
    for i, (_, _, seconds) in enumerate(labelled, 1):
        spent.append(1000 * seconds)
        if i % every == 0:
            memory[i], times[i] = resident(), statistics.median(spent)
            spent.clear()
    return memory, times


def measure(
    backbone: str, method: str, frames: int, size: tuple[int, int], *, soak: bool = False
) -> tuple[dict[int, float], dict[int, float]]:
    """`follow` of a video, or of an endless drive, of which `frames` are labelled."""
    torch.set_num_threads(1)
    args = main.parse_args(
        ["--inference", "--method", method, "--backbone", backbone, "--savedir", "unused"]
    )
    model = build_model(args, CLASSES).eval()
    stepper = Stepper(model, Views(model.size_rule), nullcontext())
    with TemporaryDirectory() as folder:
        video = Path(folder) / "video.mp4"
        if not soak:
            write_video(video, frames, size)
        with (
            Drive(size) if soak else open_source(str(video)) as source,
            ReadAhead(source) as ahead,
            InferenceOutput(
                Path(folder), "video", ["overlay"], source.fps, default_palette(CLASSES), 0.5
            ) as output,
        ):

            def written():
                for frame, prediction, seconds in stream(
                    stepper, islice(ahead, frames), device=torch.device("cpu")
                ):
                    output.write(frame.image, frame.name, prediction.numpy())
                    yield frame, prediction, seconds

            return follow(written(), max(frames // MARKS, 1))


def growth(marks: dict[int, float]) -> float:
    """The largest later mark relative to the first one."""
    first, *later = marks.values()
    return max(later) / first - 1


def run(argv: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="erf")
    parser.add_argument("--method", default=None, help="default: single; lma for the soak")
    parser.add_argument(
        "--frames",
        type=int,
        default=None,
        help=f"default: 2000; {HOURS * 3600 * RATE} for the soak",
    )
    parser.add_argument("--size", nargs=2, type=int, default=(64, 128), metavar=("H", "W"))
    parser.add_argument(
        "--soak", action="store_true", help="two hours of a synthetic stream, compressed"
    )
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    method = args.method or ("lma" if args.soak else "single")
    frames = args.frames or (HOURS * 3600 * RATE if args.soak else 2000)
    memory, times = measure(args.backbone, method, frames, tuple(args.size), soak=args.soak)
    print("frames   MiB     ms a frame")
    for done in memory:
        print(f"{done:6d}  {memory[done]:6.1f}  {times[done]:6.2f}")
    print(
        f"after the first mark memory grew by {100 * growth(memory):.2f} %; "
        f"the slowest part took {100 * growth(times):.0f} % more time a frame"
    )
    result = {
        "marks": memory,
        "growth": growth(memory),
        "times": times,
        "environment": environment(),
    }
    if args.json:
        args.json.write_text(json.dumps(result, indent=2))
    return result


if __name__ == "__main__":
    run()
