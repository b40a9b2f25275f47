"""Does a streaming network take more memory, or more time, the longer the video?

    python benchmarks/stream_memory.py [--backbone erf] [--frames 2000] [--json FILE]
    python benchmarks/stream_memory.py --soak [--json FILE]

Labels a video of random frames as `--inference` does, decoding, network and overlay video included,
with an untrained network on one thread. At marks along the way it prints the resident memory of the
process and the median time of a frame since the mark before. Flat means: within 2 % of the mark at
a tenth of the way.

--soak: two hours of the synthetic world at 15 Hz, 108,000 frames, by an LMANet, as fast as they can
be labelled. The frames are a few seconds of a drive, repeated.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
from collections.abc import Iterable, Iterator
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
from engine import Stepper, StreamedFrame, stream
from models import build_model
from utils.output.inference import InferenceOutput
from utils.output.report import environment
from utils.output.video import VideoWriter
from utils.views import Views

CLASSES = 19
HOURS = 2  # of the soak
RATE = 15  # frames a second, of the soak
MARKS = 10
# Method and number of frames
DEFAULTS = ("single", 2000)
SOAK_DEFAULTS = ("lma", HOURS * 3600 * RATE)
PAGE = 4096  # bytes of a page of memory, as Linux counts them


class Drive(Source):
    """A few seconds of a synthetic drive, repeated: a stream that does not end by itself."""

    def __init__(self, size: tuple[int, int], seconds: int = 4):
        super().__init__("synthetic", "stream", step=1, fps=RATE)
        (video,) = synthetic.videos("test", 1, seconds * RATE, size, fps=RATE)
        self.frames = [video.frame(i) for i in range(len(video))]

    def _entries(self):
        index = 0
        # The reader of a stream stops it
        while not self._stopping.is_set():
            frame = self.frames[index % len(self.frames)]
            yield None, lambda frame=frame: frame
            index += 1


def resident() -> float:
    """Resident memory of this process in MiB (Linux)."""
    # Garbage that waits to be collected is not growth
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])  # the second number: resident
    return pages * PAGE / 2**20  # MiB


def write_video(path: Path, frames: int, size: tuple[int, int]) -> None:
    """A video of random frames, size (H, W)."""
    height, width = size
    rng = np.random.default_rng(0)
    with VideoWriter(path, 25) as writer:
        for _ in range(frames):
            # Blocks of 8 x 8 pixels, which a video codec can compress
            coarse = rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
            writer.write(coarse.repeat(8, 0).repeat(8, 1))


def follow(
    labelled: Iterable[StreamedFrame], every: int
) -> tuple[dict[int, float], dict[int, float]]:
    """Marks of a video that engine.stream labels, by the number of frames done.

    -> resident memory in MiB, and median milliseconds of a frame since the mark before.
    """
    memory = {}
    times = {}
    spent = []
    for i, one in enumerate(labelled, 1):
        spent.append(1000 * one.seconds)
        if i % every == 0:
            memory[i] = resident()
            times[i] = statistics.median(spent)
            spent.clear()
    return memory, times


def measure(
    backbone: str, method: str, frames: int, size: tuple[int, int], *, soak: bool = False
) -> tuple[dict[int, float], dict[int, float]]:
    """`follow` of a video, or of an endless drive, of which `frames` are labelled."""
    # One thread: times vary less
    torch.set_num_threads(1)
    stepper = untrained(backbone, method)
    with (
        TemporaryDirectory() as name,
        open_stream(Path(name), frames, size, soak=soak) as source,
        ReadAhead(source) as ahead,
        overlay(Path(name), source.fps) as output,
    ):
        # A drive has no end of its own
        labelled = stream(stepper, islice(ahead, frames), device=torch.device("cpu"))
        return follow(written(labelled, output), max(frames // MARKS, 1))


def untrained(backbone: str, method: str) -> Stepper:
    argv = ["--inference", "--method", method, "--backbone", backbone, "--savedir", "unused"]
    model = build_model(main.parse_args(argv), CLASSES).eval()
    return Stepper(model, Views(model.size_rule), nullcontext())


def open_stream(folder: Path, frames: int, size: tuple[int, int], *, soak: bool) -> Source:
    """An endless drive for the soak, else a video file in the folder."""
    if soak:
        return Drive(size)
    video = folder / "video.mp4"
    write_video(video, frames, size)
    return open_source(str(video))


def overlay(folder: Path, fps: float) -> InferenceOutput:
    palette = default_palette(CLASSES)
    return InferenceOutput(folder, "video", ["overlay"], fps=fps, palette=palette, alpha=0.5)


def written(labelled: Iterable[StreamedFrame], output: InferenceOutput) -> Iterator[StreamedFrame]:
    """engine.stream's frames, each once it is written."""
    for one in labelled:
        output.write(one.frame.image, one.frame.name, one.prediction.numpy())
        yield one


def growth(marks: dict[int, float]) -> float:
    """The largest later mark relative to the first one."""
    # Until the first mark libraries still allocate what they keep
    first, *later = marks.values()
    return max(later) / first - 1


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    frames = f"default: {DEFAULTS[1]}; {SOAK_DEFAULTS[1]} for the soak"
    soak = "two hours of a synthetic stream, compressed"
    parser.add_argument("--backbone", default="erf")
    parser.add_argument("--method", default=None, help="default: single; lma for the soak")
    parser.add_argument("--frames", type=int, default=None, help=frames)
    parser.add_argument("--size", nargs=2, type=int, default=(64, 128), metavar=("H", "W"))
    parser.add_argument("--soak", action="store_true", help=soak)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    method, count = DEFAULTS
    if args.soak:
        method, count = SOAK_DEFAULTS
    args.method = args.method or method
    args.frames = args.frames or count
    return args


def run(argv: list[str] | None = None) -> dict:
    args = parse_args(argv)
    memory, times = measure(
        args.backbone, args.method, args.frames, tuple(args.size), soak=args.soak
    )
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
