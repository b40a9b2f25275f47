"""Label sets: class names, colours, id tables and class weights. 255 is "ignore" throughout."""
from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from .clip import Video

Colour = tuple[int, int, int]


class LabelSet(NamedTuple):
    """Names and RGB colours of the classes, by class id."""

    names: tuple[str, ...]
    palette: tuple[Colour, ...]
    ids: np.ndarray | None = None           # (256,) class -> id in label PNGs, where a benchmark wants others


def default_palette(num_classes: int) -> tuple[Colour, ...]:
    """Up to 255 distinct colours, none of them black: the bits of the class number dealt out to R, G and B in
    turn, high bits first, as the PASCAL VOC colours are made."""
    if not 1 <= num_classes <= 255:
        raise ValueError(f"a label set has 1 to 255 classes, got {num_classes}")

    def channel(number: int, offset: int) -> int:
        return sum((number >> (3 * bit + offset) & 1) << (7 - bit) for bit in range(8))
    return tuple((channel(i, 0), channel(i, 1), channel(i, 2)) for i in range(1, num_classes + 1))


# Cityscapes' official ids of its 19 evaluated classes, in train id order
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


def id_table(mapping: dict[int, int], default: int | None = 255) -> np.ndarray:
    """A (256,) uint8 table of old id -> new id; ids that are not named become `default`, or stay where it is None."""
    table = np.arange(256, dtype=np.uint8) if default is None else np.full(256, default, np.uint8)
    for old, new in mapping.items():
        table[old] = new
    return table


def cityscapes_label_ids() -> np.ndarray:
    """(256,) uint8: train id -> official label id, as the benchmark server takes them; ignore becomes 0, unlabelled."""
    return id_table(dict(enumerate(CITYSCAPES_IDS)), default=0)


CAMVID = LabelSet(
    ("sky", "building", "pole", "road", "pavement", "tree", "signsymbol", "fence", "car", "pedestrian", "bicyclist"),
    ((128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (0, 0, 192), (128, 128, 0), (192, 128, 128),
     (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192)))

CAMVID12 = LabelSet(("void", *CAMVID.names), ((0, 0, 0), *CAMVID.palette))      # TMANet's: void is class 0

CITYSCAPES = LabelSet(
    ("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
     "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
    ((128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153), (250, 170, 30),
     (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142),
     (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32)), cityscapes_label_ids())

def cityscapes_train_ids() -> np.ndarray:
    """(256,) uint8: official label id -> train id, 255 for the classes that are not evaluated."""
    return id_table({label_id: train_id for train_id, label_id in enumerate(CITYSCAPES_IDS)})


# Published class weights by name and number of classes. lma: ERFNet's full decoder and LMANet (PSPNet too),
# lma-shallow: its 1x1 decoder, swnet: GSVNet and SwNet-seq, etc: ETC. The published CamVid list names no classes:
# its order is that of CAMVID, as the class shares of the training labels show (tests/test_camvid.py).
CLASS_WEIGHTS: dict[str, dict[int, tuple[float, ...]]] = {
    "lma": {19: (
        2.8149201869965, 6.9850029945374, 3.7890393733978, 9.9428062438965, 9.7702074050903, 9.5110931396484,
        10.311357498169, 10.026463508606, 4.6323022842407, 9.5608062744141, 7.8698215484619, 9.5168733596802,
        10.373730659485, 6.6616044044495, 10.260489463806, 10.287888526917, 10.289801597595, 10.405355453491,
        10.138095855713)},
    "lma-shallow": {19: (
        2.3653597831726, 4.4237880706787, 2.9691488742828, 5.3442072868347, 5.2983593940735, 5.2275490760803,
        5.4394111633301, 5.3659925460815, 3.4170460700989, 5.2414722442627, 4.7376127243042, 5.2286224365234,
        5.455126285553, 4.3019247055054, 5.4264230728149, 5.4331531524658, 5.433765411377, 5.4631009101868,
        5.3947434425354)},
    "swnet": {19: (
        3.03871497, 13.01999212, 4.53008444, 38.00898985, 35.35990217, 31.14247824, 45.82106668, 39.44451896,
        6.00002668, 32.64759009, 17.34725897, 31.45715227, 47.0853521, 11.70166965, 44.50966853, 44.80501487,
        45.63057065, 48.21080448, 41.21912833),
        11: (6.088, 4.520, 33.974, 3.893, 12.472, 8.532, 47.701, 29.665, 18.998, 38.388, 40.106)},
    "etc": {19: (
        0.8373, 0.918, 0.866, 1.0345, 1.0166, 0.9969, 0.9754, 1.0489, 0.8786, 1.0023, 0.9539, 0.9843, 1.1116,
        0.9037, 1.0865, 1.0955, 1.0865, 1.1529, 1.0507)},
}


def class_weights(kind: str, num_classes: int, videos: Iterable[Video] = ()) -> Tensor | None:
    """(K,) float32 weights published under the name `kind`, None for "none"; no entry for an ignore output.

    "balanced": counted from the labels of `videos`. ValueError where the name is unknown or its weights are for
    another number of classes.
    """
    if kind == "none":
        return None
    if kind == "balanced":
        return balanced(videos, num_classes)
    if kind not in CLASS_WEIGHTS:
        raise ValueError(f"class weights {kind!r} are unknown: choose none, balanced, {', '.join(CLASS_WEIGHTS)}")
    if num_classes not in CLASS_WEIGHTS[kind]:
        fits = [name for name, lists in CLASS_WEIGHTS.items() if num_classes in lists]
        raise ValueError(f"class weights {kind!r} are for {' or '.join(map(str, CLASS_WEIGHTS[kind]))} classes, not "
                         f"{num_classes}: choose {', '.join(['none', 'balanced', *fits])}")
    return torch.tensor(CLASS_WEIGHTS[kind][num_classes])


def balanced(videos: Iterable[Video], num_classes: int, c: float = 1.10) -> Tensor:
    """(K,) float32: 1 / ln(c + the class's share of the labelled pixels), over all labels of `videos`.

    c: 1.10 as used for ERFNet's full decoder, 1.20 for its encoder (Romera et al., T-ITS 2018).
    """
    counts = np.zeros(256, np.int64)
    for video in videos:
        for index in video.labelled:
            counts += np.bincount(video.label(index).ravel(), minlength=256)
    if not (total := counts[:num_classes].sum()):
        raise ValueError("balanced class weights need labels, and no pixel of the training videos has one: "
                         "choose other class weights")
    return torch.from_numpy(1 / np.log(c + counts[:num_classes] / total)).float()
