"""What several jobs do: the network with its weights, data to score, the savedir, notes."""

from __future__ import annotations

from collections.abc import Callable

import torch

import options
from datasets import build_dataset
from datasets.labels import other_classes
from models import build_model
from models.deploy import for_inference
from models.deploy.layout import channels_last
from models.parts.frozen import Frozen
from options.shipped import DEFAULT, SHIPPED
from utils.checkpoint import load_weights, network_of, resolve
from utils.console import Console
from utils.run.allocator import keep_freed_memory
from utils.run.dist import fingerprint, rank, require_same_on_all_ranks
from utils.run.setup import PRECISIONS, begin, multiplies_bf16
from utils.run.stopping import StopRequest

from .classes import merging_of, trained_classes
from .flow_cache import require_flow_cache
from .given_flow import flow_files, require_flows, uses_given_flow
from .new_classes import entries_to_leave, start_known_classes

ON_STOP = "; --resume goes on from here"
NEED_WEIGHTS = {"evaluation": "--eval-mode", "inference": "--inference"}


def require(args) -> None:
    """What a run cannot do without. ValueError says which option is missing.

    Folders of weights become the files that they stand for.
    """
    if args.inference and not (args.source or args.source_split):
        raise ValueError(
            "--inference needs --source: a video file, folder, glob, camera index, stream address "
            "or -; or --source-split: the videos of a split of --dataset"
        )
    if args.job in NEED_WEIGHTS and not args.weights:
        raise ValueError(f"{NEED_WEIGHTS[args.job]} needs --weights: the checkpoint to run")
    require_flow_cache(args)
    # A resumed training has its weights in its own checkpoint; the files may be gone.
    if not (args.training and args.resume):
        args.weights = [str(resolve(path)) for path in args.weights]


def start(args) -> tuple[torch.device, Console]:
    """What every run begins with: memory, device, ranks that agree, notes about the options."""
    require(args)
    # Before the first large tensor.
    keep_freed_memory()
    args.trained_classes = trained_classes(args)
    if args.teacher_weights:
        args.teacher_network = teacher_network(args)
    device = begin(args)
    console = Console(rank())
    require_same_on_all_ranks("options", options.same_on_all_ranks(args))
    if args.default_weights:
        ours = SHIPPED[DEFAULT]
        console.note(f"no --weights: {DEFAULT}, {ours.what}; {ours.terms}")
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


def teacher_network(args) -> dict:
    """What the teacher's weights say of their network."""
    found = network_of([args.teacher_weights])
    backbone = found.get("backbone", args.teacher_backbone)
    if backbone != args.teacher_backbone:
        raise ValueError(
            f"--teacher-weights {args.teacher_weights} are for --teacher-backbone {backbone}, not "
            f"for {args.teacher_backbone}"
        )
    return {name: value for name, value in found.items() if hasattr(args, name)}


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
    if resumes:
        load_separate(args, model)
    if args.weights and not resumes:
        report = load_weights(
            model,
            args.weights,
            complete=complete,
            new_classes=args.new_classes,
            leave=entries_to_leave(args, model, labels) if args.new_classes else (),
        )
        console.note(str(report))
        if args.new_classes:
            start_known_classes(args, model, labels, console)
        others = "" if merging else other_classes(report.classes, labels.names)
        if others and complete:
            raise ValueError(f"{others}: choose another --dataset, or give a --class-map")
        if others and not args.new_classes:
            console.warn(f"{others}: --new-classes makes the outputs new")
    elif args.training and not args.train_encoder and not resumes:
        console.note(
            "neither --weights nor --train-encoder: the encoder stays as it was drawn, at random"
        )
    load_teacher(args, model, labels, console)
    # Files may differ from machine to machine: better told now than by a loss that is odd.
    require_same_on_all_ranks("weights", [fingerprint(model)])
    return channels_last(model.to(device))


def load_separate(args, model) -> None:
    """Fill what a checkpoint leaves out, on a resume. ValueError where its file is not named."""
    parts = [part for part in model.modules() if isinstance(part, Frozen) and part.needs_weights]
    if not parts:
        return
    if not args.weights:
        raise ValueError(
            "--resume: the checkpoint holds no weights of the optical flow network: give its file "
            "to --weights again"
        )
    load_weights(model, [resolve(path) for path in args.weights])


def load_teacher(args, model, labels, console: Console) -> None:
    """Fill the network that teaches, where there is one. ValueError where it is for others."""
    teacher = getattr(model, "teacher", None)
    if teacher is None:
        return
    report = load_weights(teacher.frozen, args.teacher_weights, complete=True)
    console.note(f"teacher: {report}")
    others = other_classes(report.classes, labels.names)
    if others:
        raise ValueError(f"--teacher-weights {args.teacher_weights}: {others}")


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
    if is_scored_over_time(args) and max(map(len, data.videos)) < 2:
        raise ValueError(
            f"--clip-list with --metrics {' '.join(args.metrics)} needs the frames around the "
            f"labelled ones, and no clip of {args.data_root} has them: is its leftImg8bit_sequence "
            "there?"
        )
    require_same_on_all_ranks(f"data to score ({split})", [data.summary()])
    return data.stepping() if data.dense or is_scored_over_time(args) else data


def is_scored_over_time(args) -> bool:
    """Whether clips with few labels are labelled frame by frame: TC needs no labels, and a viewer
    sees every frame."""
    if not (args.clip_list and args.job == "evaluation"):
        return False
    return bool({"tc", "latency"} & set(args.metrics))


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
