"""Data sets: the table of their names and the one way to build one."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from random import Random

from .clip import ClipDataset, Video
from .labels import LabelSet

DATASETS = {
    "synthetic": "datasets.synthetic",
    "camvid": "datasets.camvid",
    "cityscapes": "datasets.cityscapes",
    "folder": "datasets.folder",
}
ROOT_VARIABLES = {
    "camvid": "STREAMSEG_CAMVID",
    "cityscapes": "STREAMSEG_CITYSCAPES",
    "folder": "STREAMSEG_FOLDER",
}


def build_dataset(
    args,
    split: str,
    *,
    augment: bool | None = None,
    draw: Callable[[Random], tuple[int, ...]] | None = None,
    startup: Callable[[int], tuple[int, ...]] | None = None,
    with_flows: bool = False,
) -> ClipDataset:
    """The clips of a split, as parsed options (main.parse_args) describe them.

    augment: whether to draw augmentations (default: when training, on the training split). draw, startup: the
    method's `training_offsets` and `startup`; without them the options' own offsets, as far as they reach.
    FileNotFoundError says where data was looked for and how to name its folder.
    """
    from .pipeline import evaluation_transform, training_transform

    augment = args.training and split == args.train_split if augment is None else augment
    videos, labels = list_videos(args, split), label_set(args)
    if not any(len(video.labelled) for video in videos):
        raise ValueError(f"no frame of the {split} split of --dataset {args.dataset} has a label")
    if not augment:
        return ClipDataset(
            videos,
            labels,
            evaluation_transform(args),
            seed=args.seed,
            with_flows=with_flows,
            startup=startup or partial(existing, args.offsets),
        )
    return ClipDataset(
        videos,
        labels,
        training_transform(args),
        seed=args.seed,
        with_flows=with_flows,
        draw=draw or partial(always, args.offsets),
    )


def existing(offsets: tuple[int, ...], past: int) -> tuple[int, ...]:
    """The offsets that reach none but the `past` frames there are: how most methods begin a video."""
    return tuple(offset for offset in offsets if -offset <= past)


def always(offsets: tuple[int, ...], rng: Random) -> tuple[int, ...]:
    """The same offsets for every training clip."""
    return offsets


def list_videos(args, split: str) -> list[Video]:
    """The videos of a split, labelled or not."""
    source = import_module(DATASETS[args.dataset])
    if args.dataset == "synthetic":
        count = dict(zip(("train", "val", "test"), args.synthetic_videos, strict=True))[split]
        return source.videos(
            split,
            count,
            args.synthetic_length,
            tuple(args.synthetic_size),
            degrade=args.synthetic_degrade,
        )
    if args.dataset == "camvid":
        return source.videos(data_root(args), split, len(label_set(args).names))
    return source.videos(data_root(args), split)


def label_set(args) -> LabelSet:
    """Names and colours of the classes of args.dataset."""
    if args.dataset == "folder":
        return import_module(DATASETS["folder"]).label_set(data_root(args))
    source = import_module(DATASETS[args.dataset])
    return source.CAMVID12 if args.void_class else source.LABELS


def data_root(args) -> Path:
    """--data-root or the data set's environment variable. FileNotFoundError if neither is a folder."""
    variable = ROOT_VARIABLES[args.dataset]
    root = args.data_root or os.environ.get(variable)
    if not root:
        raise FileNotFoundError(
            f"--dataset {args.dataset} needs --data-root (or {variable}): the folder of the data"
        )
    if not Path(root).is_dir():
        raise FileNotFoundError(
            f"--data-root {root} is not a folder: give the folder of the {args.dataset} data"
        )
    return Path(root)
