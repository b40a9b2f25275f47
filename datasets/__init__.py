"""Data sets: the one way to build one from parsed options.

The module of a data set (options/datasets.py names it) has two functions of parsed options:

    videos_of(args, split) -> list of videos, labelled or not
    labels_of(args) -> names and colours of its classes
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from random import Random

from .clip import ClipDataset, FlowSource, Video
from .labels import LabelSet
from .pipeline import evaluation_transform, training_transform
from .root import data_root

__all__ = ["ClipDataset", "build_dataset", "data_root", "label_set", "list_videos"]


def build_dataset(
    args,
    split: str,
    *,
    augment: bool | None = None,
    draw: Callable[[Random], tuple[int, ...]] | None = None,
    startup: Callable[[int], tuple[int, ...]] | None = None,
    with_flows: bool = False,
    flow_source: FlowSource | None = None,
) -> ClipDataset:
    """The clips of a split, as parsed options (main.parse_args) describe them.

    augment: whether to draw augmentations (default: when training, on the training split).
    draw, startup: the method's `training_offsets` and `startup`; without them the options' own
    offsets, as far as they reach. with_flows: items bring optical flow, the videos' own or that of
    `flow_source`. FileNotFoundError says where data was looked for and how to name
    its folder.
    """
    if augment is None:
        augment = args.training and split == args.train_split
    videos = list_videos(args, split)
    labels = label_set(args)
    # Cityscapes' test split, say, has dummies only.
    if not any(len(video.labelled) for video in videos):
        raise ValueError(f"no frame of the {split} split of --dataset {args.dataset} has a label")
    # In training offsets are drawn per clip; in evaluation they follow from the frame's place.
    if augment:
        return ClipDataset(
            videos,
            labels,
            training_transform(args),
            seed=args.seed,
            with_flows=with_flows,
            flow_source=flow_source,
            draw=draw or partial(always, args.offsets),
        )
    return ClipDataset(
        videos,
        labels,
        evaluation_transform(args),
        seed=args.seed,
        with_flows=with_flows,
        flow_source=flow_source,
        startup=startup or partial(existing, args.offsets),
    )


def existing(offsets: tuple[int, ...], past: int) -> tuple[int, ...]:
    """The offsets that reach none but the `past` frames there are: how most methods begin."""
    return tuple(offset for offset in offsets if -offset <= past)


def always(offsets: tuple[int, ...], rng: Random) -> tuple[int, ...]:
    """The same offsets for every training clip."""
    return offsets


def list_videos(args, split: str) -> list[Video]:
    """The videos of a split, labelled or not."""
    return import_module(args.dataset_module).videos_of(args, split)


def label_set(args) -> LabelSet:
    """Names and colours of the classes of args.dataset."""
    return import_module(args.dataset_module).labels_of(args)
