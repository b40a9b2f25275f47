"""--benchmark: time every stage of an inference: benchmark.json, benchmark.txt."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import options
from datasets import label_set
from datasets.source import open_source
from datasets.source.read_ahead import ReadAhead
from engine import stream
from utils.output.inference import InferenceOutput
from utils.output.video import VideoWriter
from utils.predictions import frame_tensor, label_map
from utils.run import benchmark as speed
from utils.run import savedir
from utils.run.setup import views_of
from utils.stepper import Stepper
from utils.views import pad_edges

from .classes import labels_to_show
from .common import make_model, prepare, start
from .keys import has_keys, policy_of
from .work_size import WorkSize

SIZE = (512, 1024)  # of the video that is made where none is given


def run(args) -> None:
    device, console = start(args)
    folder = Path(args.savedir)
    labels = labels_to_show(args) if args.class_map else label_set(args)
    model = make_model(args, labels, device, console, complete=True).eval()
    savedir.acquire(folder, args)
    savedir.record(folder, args.job, options.recipe(args), model)
    args.max_frames = args.max_frames or speed.FRAMES
    parameters = used_parameters(model)
    with TemporaryDirectory() as temporary:
        spec = source_to_time(args, Path(temporary))
        size, frame = first_image(args, spec)
        # Counted before preparation, which folds layers away.
        flops = speed.step_flops(model, model_input(model, frame_tensor(frame, device)))
        bench = Bench(args, prepare(args, model), labels, device, Path(temporary))
        result = bench.measure(spec)
    result |= {
        "size": size,
        "work_size": frame.shape[:2],
        "parameters": parameters,
        "flops": flops,
        "peak_memory": speed.peak_memory(device),
        "options": options.values(args),
        "environment": speed.machine(),
    }
    speed.write(folder, result)
    console.note(speed.table(result))


def used_parameters(model) -> int:
    """How many parameters labelling uses: not those of heads for training alone."""
    unused = {id(p) for part in model.training_parts() for p in part.parameters()}
    return sum(p.numel() for p in model.parameters() if id(p) not in unused)


def source_to_time(args, folder: Path) -> str:
    """--source, or a video that is made for it."""
    path = folder / "video.mp4"
    if not args.source:
        speed.write_test_video(path, args.work_size or SIZE, args.max_frames)
        return str(path)
    if args.source[0] == "-":
        return str(store_pipe(args, path))
    return args.source[0]


def store_pipe(args, path: Path) -> Path:
    """The frames of a pipe as a video: they come once, and are read three times."""
    with open_source("-", step=args.frame_step) as source, VideoWriter(path, source.fps) as writer:
        for frame in islice(source, args.max_frames):
            writer.write(frame.image)
    return path


def first_image(args, spec: str):
    """(H, W) of a source's frames, and its first image at working size."""
    with open_source(spec, step=args.frame_step) as source:
        image = next(iter(source)).image
    return image.shape[:2], WorkSize(args)(image)


def model_input(model, frame: torch.Tensor) -> torch.Tensor:
    """frame (1, 3, H, W) padded to a size the network takes."""
    return pad_edges(frame, model.size_rule)


class Bench:
    """Times one network on one source, twice: stage by stage, and as --inference runs."""

    def __init__(self, args, model, labels, device: torch.device, folder: Path):
        self.args = args
        self.model = model
        self.labels = labels
        self.device = device
        self.folder = folder
        policy = policy_of(args)
        self.stepper = Stepper(model, views_of(args, model), nullcontext(), policy=policy)
        self.keys: list[bool] = []  # of each frame, for methods with key frames
        self.resize = WorkSize(args)

    def measure(self, spec: str) -> dict:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        # Later frames of a stream, not its beginning: a memory fills before its steps take their
        # full time.
        filled = 1 - min(self.model.offsets, default=0)
        warm_up = max(speed.WARM_UP, filled)
        result = speed.summary(self.one_after_another(spec), warm_up, self.keys)
        self.stepper.reset()
        result["overlapped_fps"] = speed.throughput(self.overlapping(spec), warm_up)
        return result

    def one_after_another(self, spec: str) -> dict[str, list[float]]:
        """Seconds of each stage on each frame of a source."""
        with (
            open_source(spec, step=self.args.frame_step) as source,
            self.output("stages", source) as output,
        ):
            stages = {
                "pre-process": self.preprocess,
                "network": self.network,
                "post-process": self.postprocess,
                "write": partial(self.write, output),
            }
            return speed.measure(islice(source, self.args.max_frames), stages, self.device)

    def preprocess(self, frame):
        image = self.resize(frame.image)
        return frame, frame_tensor(image, self.device)

    def network(self, pair):
        frame, image = pair
        scores = self.stepper(image)
        if self.stepper.decision:
            self.keys.append(self.stepper.decision.key)
        return frame, scores

    def postprocess(self, pair):
        frame, scores = pair
        align_corners = self.model.backbone.align_corners
        return frame, label_map(scores, frame.image.shape[:2], align_corners)

    def write(self, output: InferenceOutput, pair) -> None:
        frame, prediction = pair
        output.write(frame.image, frame.name, prediction.numpy(), decision=self.stepper.decision)

    def overlapping(self, spec: str):
        """The same frames as --inference labels them; yields after each."""
        with (
            open_source(spec, step=self.args.frame_step) as source,
            ReadAhead(source, latest=source.live, resize=self.resize) as frames,
            self.output("overlapped", source) as output,
        ):
            limited = islice(frames, self.args.max_frames)
            for frame, prediction, *_ in stream(self.stepper, limited, device=self.device):
                self.write(output, (frame, prediction))
                yield frame.name

    def output(self, name: str, source) -> InferenceOutput:
        args = self.args
        return InferenceOutput(
            self.folder,
            name,
            args.output,
            fps=source.fps,
            palette=self.labels.palette,
            alpha=args.alpha,
            key_strip=has_keys(args) and args.key_strip,
        )
