"""What a training learns from and is validated on, and what its labels hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import pad

from datasets import build_dataset
from datasets.class_weights import class_weights
from datasets.label_statistics import LOOKED_AT, LabelCounts, count_labels, label_problems
from utils.console import Console
from utils.run.dist import all_reduce_sum, rank, require_same_on_all_ranks, world_size
from utils.training import counted_labels
from utils.training.sampler import Share

from .common import scoring_data
from .flow_cache import whole_frames
from .given_flow import flow_files, uses_given_flow
from .keys import require_videos
from .scoring import SLOWEST


def training_data(args, model, console: Console):
    """The clips to train on, as the method draws them."""
    learns_given = model.wants_flows and args.flow == "given"
    given = learns_given or uses_given_flow(args, model)
    source = flow_files(args) if given else whole_frames(args, model)
    data = build_dataset(
        args,
        args.train_split,
        augment=True,
        draw=model.training_offsets,
        with_flows=model.wants_flows or given or source is not None,
        unknown_flows=not (model.needs_known_flows or given),
        flow_source=source,
    )
    require_same_on_all_ranks("training data", [data.summary()])
    tell_far_neighbours(args, model, data, console)
    return data


def tell_far_neighbours(args, model, data, console: Console) -> None:
    """Warn where clips teach nothing about time: their frames are one, or too far apart."""
    if not args.offsets or args.synthetic_past > 0:
        return
    advice = "--synthetic-past 1 makes them from one frame by a known motion"
    if max(map(len, data.videos)) == 1:
        console.warn(f"no video has a second frame, so that clips repeat one: {advice}")
        return
    rates = [video.fps for video in data.videos if video.fps]
    computes = model.wants_flows and args.flow != "given"
    if computes and rates and max(rates) < SLOWEST:
        console.warn(
            f"neighbouring frames are {1 / max(rates):.2g} seconds apart, and optical flow can "
            f"hardly follow: {advice}"
        )


def shares(data, console: Console) -> list[Share]:
    """How many clips of each part an epoch has; told where there are several."""
    first, *further = data.parts
    found = [Share(first.clips, first.clips)]
    for part in further:
        drawn = part.drawn(first.clips)
        console.note(
            f"--extra-data {part.name}: {drawn} of its {part.clips} clips an epoch, beside "
            f"{first.clips} of {first.name}"
        )
        found.append(Share(part.clips, drawn))
    return found


def splits_to_score(args, model) -> dict:
    """What is scored after each epoch, by the names that the log gives them."""
    splits = {}
    if args.iouTrain:
        splits["train"] = scoring_data(args, args.train_split, model)
    if args.iouVal:
        splits["val"] = scoring_data(args, args.val_split, model)
    for data in splits.values():
        require_videos(args, data)
    return splits


def label_counts(args, data, console: Console) -> LabelCounts:
    """Count the classes: in all labels where weights need it, else in some. Warns of odd counts."""

    def show(items, total):
        return console.progress(items, total, "counting classes")

    if args.class_weights == "balanced":
        counts = all_label_counts(args, data, show)
    else:
        counts = count_labels(data.videos, LOOKED_AT, workers=args.num_workers)
    problems = label_problems(
        counts.pixels,
        data.labels.names,
        counts.labels,
        counts.existing,
        # A rare class may stand in the labels that were not looked at.
        absent=counts.labels == counts.existing,
    )
    for problem in problems:
        console.warn(problem)
    return counts


def all_label_counts(args, data, progress) -> LabelCounts:
    """Count all labels, each rank its share; a resume finds them counted."""
    existing = sum(len(video.labelled) for video in data.videos)
    known = None
    if args.resume:
        known = counted_labels.stored(Path(args.savedir), described_labels(data))
    if known is not None:
        return LabelCounts(np.array(known), existing, existing)
    share = count_labels(
        data.videos, part=(rank(), world_size()), workers=args.num_workers, progress=progress
    )
    pixels = all_reduce_sum(torch.from_numpy(share.pixels)).numpy()
    return LabelCounts(pixels, existing, existing)


def store_counts(args, data, counts: LabelCounts) -> None:
    """Keep the counts of all labels in the savedir: a resume need not count again."""
    if args.class_weights == "balanced" and rank() == 0:
        counted_labels.store(Path(args.savedir), described_labels(data), counts.pixels)


def described_labels(data) -> str:
    """What tells one set of labels from another."""
    existing = sum(len(video.labelled) for video in data.videos)
    return f"{data.summary()}, {existing} labels of {', '.join(data.labels.names)}"


def set_class_weights(args, model, data, counts: LabelCounts, device: torch.device) -> None:
    """--class-weights as a buffer of the model; an "ignore" output has weight 0."""
    weights = class_weights(args.class_weights, data.num_classes, pixels=counts.pixels)
    if weights is not None:
        further = model.num_outputs - data.num_classes
        model.class_weights = pad(weights, (0, further)).to(device)
