"""What several jobs do: the network with its weights, data to score, the savedir, notes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

import numpy as np
import torch

import options
from datasets import build_dataset
from datasets.clip import RawClip, Transform
from datasets.labels import other_classes
from datasets.pipeline import work_steps
from datasets.transforms import Compose
from models import build_model
from models.deploy import for_inference
from models.deploy.layout import channels_last
from utils.checkpoint import classes_of, load_weights, read, resolve
from utils.console import Console
from utils.run.allocator import keep_freed_memory
from utils.run.dist import fingerprint, rank, require_same_on_all_ranks
from utils.run.setup import PRECISIONS, begin, multiplies_bf16
from utils.run.stopping import StopRequest

from .classes import merging_of, trained_classes
from .given_flow import flow_files, require_flows, uses_given_flow

ON_STOP = "; --resume goes on from here"
NEED_WEIGHTS = {"evaluation": "--eval-mode", "inference": "--inference"}


def require(args) -> None:
    """What a run cannot do without. ValueError says which option is missing.

    Folders of weights become the files that they stand for.
    """
    if args.inference and not args.source:
        raise ValueError(
            "--inference needs --source: a video file, folder, glob, camera index, stream address "
            "or -"
        )
    if args.job in NEED_WEIGHTS and not args.weights:
        raise ValueError(f"{NEED_WEIGHTS[args.job]} needs --weights: the checkpoint to run")
    # A resumed training has its weights in its own checkpoint; the files may be gone.
    if not (args.training and args.resume):
        args.weights = [str(resolve(path)) for path in args.weights]


def start(args) -> tuple[torch.device, Console]:
    """What every run begins with: memory, device, ranks that agree, notes about the options."""
    require(args)
    # Before the first large tensor.
    keep_freed_memory()
    args.trained_classes = trained_classes(args)
    device = begin(args)
    console = Console(rank())
    require_same_on_all_ranks("options", options.same_on_all_ranks(args))
    if args.of_weights:
        console.note(f"the weights say {' '.join(args.of_weights)}")
    if device.type == "cpu" and args.precision == "bf16" and not multiplies_bf16():
        console.warn(
            "this processor has no instructions for bfloat16: --precision bf16 is far slower than "
            "fp32 here"
        )
    if args.without_effect:
        console.warn(f"without effect in this run: {', '.join(args.without_effect)}")
    return device, console


def listen() -> StopRequest:
    """From now on a signal ends the run at the next frame or step."""
    return StopRequest(ON_STOP).listen()


def make_model(args, labels, device: torch.device, console: Console, *, complete: bool):
    """The network with its weights, on the device; channels last, which convolutions run faster in.

    complete: all weights must be there. ValueError where they are for other classes.
    """
    # Drawn from the seed on the CPU, so that all ranks and devices begin with the same weights.
    merging = merging_of(args, labels, console)
    model = build_model(args, len(merging.table if merging else labels.names))
    model.merging = merging
    resumes = args.training and args.resume  # its checkpoint holds the weights
    if args.weights and not resumes:
        report = load_weights(
            model,
            args.weights,
            complete=complete,
            new_classes=args.new_classes,
            leave=entries_of_classes(args, model, labels) if args.new_classes else (),
        )
        console.note(str(report))
        others = "" if merging else other_classes(report.classes, labels.names)
        if others and complete:
            raise ValueError(f"{others}: choose another --dataset, or give a --class-map")
        if others and not args.new_classes:
            console.warn(f"{others}: --new-classes makes the outputs new")
    elif args.training and not args.train_encoder and not resumes:
        console.note(
            "neither --weights nor --train-encoder: the encoder stays as it was drawn, at random"
        )
    # Files may differ from machine to machine: better told now than by a loss that is odd.
    require_same_on_all_ranks("weights", [fingerprint(model)])
    return channels_last(model.to(device))


def entries_of_classes(args, model, labels) -> list[str]:
    """The entries of the model that the weights hold for other classes of the same number.

    Where numbers differ, shapes tell; where they are equal, only names do.
    """
    trained = classes_of([read(path) for path in args.weights])
    if not other_classes(trained, labels.names):
        return []
    # What has another shape with one more class belongs to classes. No number is drawn for it.
    with torch.device("meta"):
        larger = build_model(args, len(labels.names) + 1).state_dict()
    return [name for name, entry in model.state_dict().items() if larger[name].shape != entry.shape]


def prepare(args, model):
    """The network for labelling alone: --precision and --compile, batch norm folded."""
    return for_inference(model, dtype=PRECISIONS[args.precision], compiled=args.compile)


def scoring_data(args, split: str, model):
    """A split without augmentation.

    Densely labelled videos are labelled by `step`, others by clips.
    """
    # Near the start of a video the method says which frames a read uses.
    given = uses_given_flow(args, model)
    data = build_dataset(
        args,
        split,
        augment=False,
        startup=model.startup,
        with_flows=given,
        flow_source=flow_files(args) if given else None,
    )
    if given:
        require_flows(args, data)
    require_same_on_all_ranks(f"data to score ({split})", [data.summary()])
    return data.stepping() if data.dense else data


def note_gaps(args, data, console: Console) -> None:
    """Say how often memory sees the labelled frame before a gap instead of missing frames."""
    gaps = sum(getattr(video, "gaps", 0) for video in data.videos)
    if args.offsets and gaps:
        console.note(
            f"{gaps} gaps in the {args.dataset} frames are bridged by the labelled frame before "
            "them"
        )


def consumers(stop: StopRequest, *consume: Callable) -> Callable:
    """A consumer of labelled frames: looks for a signal, then hands the frame to all."""

    def take(labelled) -> None:
        stop.check()
        for one in consume:
            one(labelled)

    return take


def size_warnings(args, height: int, width: int) -> list[str]:
    """What is odd about --work-size and --eval-crop for frames of this size."""
    found = []
    if args.work_size:
        high, wide = args.work_size
        if (high > wide) != (height > width) and high != wide and height != width:
            found.append(
                f"--work-size {high} {wide} is height, width; the frames are {height}x{width} "
                f"(HxW): did you mean --work-size {wide} {high}?"
            )
        height, width = args.work_size
    if args.eval_crop and (args.eval_crop[0] > height or args.eval_crop[1] > width):
        high, wide = args.eval_crop
        found.append(
            f"--eval-crop {high} {wide} is larger than the frames, {height}x{width} (HxW): it cuts "
            "nothing there"
        )
    return found


def resizing(args) -> Callable | None:
    """How an image comes to --work-size; None where it stays as it is."""
    steps = work_steps(args, labels=False)
    if not steps:
        return None
    return partial(resized, Compose(steps))


def resized(transform: Transform, image: np.ndarray) -> np.ndarray:
    """image (H, W, 3) uint8 at working size."""
    clip = transform(RawClip([image], [None], None), Random(0))
    return clip.frames[0]
