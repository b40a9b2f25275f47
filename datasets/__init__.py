"""Data sets: the one way to build one from parsed options.

The module of a data set (options/datasets.py names it) has two functions of parsed options:

    videos_of(args, split) -> list of videos, labelled or not
    labels_of(args) -> names and colours of its classes

With --class-map labels may be read as those of another label set (class_map.py); a training may
learn from several data sets (mixing.py).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from random import Random

from .class_map import LabelMap, MappedVideo, find_map, label_map
from .clip import ClipDataset, FlowSource, Video
from .labels import LabelSet
from .mixing import Part, extra_part
from .pipeline import evaluation_transform, training_transform
from .root import data_root

READ_BY_MAP = ("training", "evaluation")

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
    unknown_flows: bool = False,
) -> ClipDataset:
    """The clips of a split, as parsed options (main.parse_args) describe them.

    augment: whether to draw augmentations (default: when training, on the training split).
    draw, startup: the method's `training_offsets` and `startup`; without them the options' own
    offsets, as far as they reach. with_flows: items bring optical flow, the videos' own or that of
    `flow_source`. unknown_flows: what is not known of it may be NaN. FileNotFoundError says where
    data was looked for and how to name its folder.
    """
    if augment is None:
        augment = args.training and split == args.train_split
    videos = list_videos(args, split)
    labels = label_set(args)
    # Cityscapes' test split, say, has dummies only.
    if not any(len(video.labelled) for video in videos):
        raise ValueError(
            f"no frame of the {split} split of --dataset {args.dataset} has a label: choose "
            f"another split, or label it with --inference --source-split {split}"
        )
    # In training offsets are drawn per clip; in evaluation they follow from the frame's place.
    parts = [own_part(args, videos)]
    if augment:
        parts += [extra_part(args, extra, labels) for extra in args.extra_data]
        return ClipDataset(
            [video for part in parts for video in part.videos],
            labels,
            training_transform(args),
            seed=args.seed,
            parts=parts,
            with_flows=with_flows,
            flow_source=flow_source,
            # A synthetic past brings its flow; the pasts of other clips do not.
            unknown_flows=unknown_flows or (args.synthetic_past > 0 and args.flow != "given"),
            draw=draw or partial(always, args.offsets),
        )
    return ClipDataset(
        videos,
        labels,
        evaluation_transform(args),
        seed=args.seed,
        parts=parts,
        with_flows=with_flows,
        flow_source=flow_source,
        startup=startup or partial(existing, args.offsets),
    )


def own_part(args, videos: list[Video]) -> Part:
    """The videos of args.dataset, and what --class-map leaves out of their labels."""
    mapped = mapped_labels(args)
    return Part(args.dataset, videos, left_out=mapped.left_out if mapped else ())


def existing(offsets: tuple[int, ...], past: int) -> tuple[int, ...]:
    """The offsets that reach none but the `past` frames there are: how most methods begin."""
    return tuple(offset for offset in offsets if -offset <= past)


def always(offsets: tuple[int, ...], rng: Random) -> tuple[int, ...]:
    """The same offsets for every training clip."""
    return offsets


def list_videos(args, split: str) -> list[Video]:
    """The videos of a split, labelled or not."""
    videos = import_module(args.dataset_module).videos_of(args, split)
    mapped = mapped_labels(args)
    if mapped is None:
        return videos
    return [MappedVideo(video, mapped.table) for video in videos]


def label_set(args) -> LabelSet:
    """Names and colours of the classes in which args.dataset is read."""
    mapped = mapped_labels(args)
    return own_label_set(args) if mapped is None else mapped.labels


def own_label_set(args) -> LabelSet:
    """Names and colours of the classes of args.dataset."""
    return import_module(args.dataset_module).labels_of(args)


def mapped_labels(args) -> LabelMap | None:
    """How --class-map reads the labels of args.dataset; None where they are read as they are."""
    # Labelling reads no labels, and a check looks at the data as it is.
    if not args.class_map or args.job not in READ_BY_MAP:
        return None
    class_map = find_map(args.class_map)
    # Weights that name the map's targets as their classes were trained by it, or by one like it.
    learnt = args.training or class_map.leads_to(args.trained_classes)
    return label_map(class_map, own_label_set(args), learnt=learnt)
