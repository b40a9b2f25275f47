"""Which classes a network says, in which ones it is scored and shown, and what joins the two."""

from __future__ import annotations

from datasets import label_set, own_label_set
from datasets.class_map import ClassMap, find_classes, find_map
from datasets.known_classes import known_set
from datasets.label_statistics import LOOKED_AT, count_labels
from datasets.labels import IGNORE, LabelSet, other_classes
from utils.checkpoint import classes_of, palette_of, read
from utils.console import Console
from utils.merging import Merging


def labels_to_show(args) -> LabelSet:
    """The classes of a labelled video: what --class-map makes of those that the weights bring;
    without weights that bring some, those of the data set."""
    contents = [read(path) for path in args.weights]
    names = classes_of(contents)
    palette = palette_of(contents)
    if args.class_map:
        own = LabelSet(names, palette) if palette else None
        return find_map(args.class_map).target_set(own)
    if names and palette:
        return LabelSet(names, palette)
    return label_set(args)


def trained_classes(args) -> tuple[str, ...]:
    """The classes that the weights name; none where no map asks for them."""
    if not args.class_map or args.training:
        return ()
    return classes_of([read(path) for path in args.weights])


def merging_of(args, labels: LabelSet, console: Console) -> Merging | None:
    """How the outputs of the network become `labels`; None where they are these.

    ValueError: weights whose classes the map does not know.
    """
    # A training reads labels by the map: its network has their classes.
    if not args.class_map or args.training:
        return None
    class_map = find_map(args.class_map)
    names = network_classes(args, class_map)
    if not other_classes(names, labels.names):
        return None
    if class_map.leads_to(names):
        table = find_classes(names, labels.names)  # its classes already, in another order
    else:
        table = class_map.table(names, labels.names)
    merging = Merging(table, len(labels.names))
    tell_merging(merging, names, labels.names, console)
    return merging


def network_classes(args, class_map: ClassMap) -> tuple[str, ...]:
    """The classes of the outputs, by id: as the weights say, else as the map does.

    ValueError where neither says in which order they come.
    """
    if args.trained_classes:
        return args.trained_classes
    # The order of lines is nobody's statement of ids; a known label set has ids.
    known = known_set(class_map.sources)
    if known is None and args.job != "evaluation":
        # A video has no classes of its own: the data set is the network's, as without a map.
        known = own_label_set(args)
    if known is None:
        raise ValueError(
            f"the weights do not name their classes, and {class_map.name} does not have those of "
            "a known label set, so their ids are unknown: map all classes of Cityscapes, CamVid or "
            "the synthetic world, or use weights that a training here has saved"
        )
    return known.names


def tell_merging(
    merging: Merging, names: tuple[str, ...], targets: tuple[str, ...], console: Console
) -> None:
    """Say what the map leaves without a counterpart, on either side."""
    absent = [targets[k] for k in merging.absent]
    ignored = [name for name, k in zip(names, merging.table, strict=True) if k == IGNORE]
    if absent:
        console.note(
            f"--class-map: {len(absent)} of {len(targets)} classes come from no class of the "
            f"network and are never predicted: {', '.join(absent)}"
        )
    if ignored:
        console.note(
            f"--class-map ignores {len(ignored)} of the network's {len(names)} classes; where they "
            f"win, a pixel has no class: {', '.join(ignored)}"
        )


def tell_left_out(args, data, console: Console) -> None:
    """Say how much of the labels class maps leave out, by class."""
    for number, part in enumerate(data.parts):
        if not part.left_out:
            continue
        of = f"the map of --extra-data {part.name}" if number else "--class-map"
        videos = [video.video for video in part.videos]
        counts = count_labels(videos, LOOKED_AT, workers=args.num_workers)
        total = max(int(counts.pixels.sum()), 1)
        shares = [f"{name} {100 * counts.pixels[k] / total:.2g} %" for k, name in part.left_out]
        console.note(
            f"{of} leaves out {len(shares)} classes of the labels "
            f"({counts.labels} of {counts.existing} looked at, share of all pixels): "
            f"{', '.join(shares)}"
        )


def shown_classes(args, labels: LabelSet) -> tuple[int, ...] | None:
    """The ids of --show; None: all. ValueError: a class that does not exist."""
    if not args.show:
        return None
    try:
        return find_classes(args.show, labels.names)
    except ValueError as error:
        raise ValueError(f"--show: {error}") from error
