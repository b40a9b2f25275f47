"""Class weights of the cross entropy: published lists, and those counted from labels."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from .clip import Video
from .label_statistics import count_labels

# Published weights of the 19 Cityscapes classes. lma: ERFNet's full decoder and LMANet, with
# PSPNet too; lma-shallow: ERFNet's 1x1 decoder; swnet: GSVNet and SwNet-seq; etc: ETC.
CITYSCAPES_COLUMNS = ("lma", "lma-shallow", "swnet", "etc")
CITYSCAPES_WEIGHTS = (
    (2.8149201869965, 2.3653597831726, 3.03871497, 0.8373),  # road
    (6.9850029945374, 4.4237880706787, 13.01999212, 0.918),  # sidewalk
    (3.7890393733978, 2.9691488742828, 4.53008444, 0.866),  # building
    (9.9428062438965, 5.3442072868347, 38.00898985, 1.0345),  # wall
    (9.7702074050903, 5.2983593940735, 35.35990217, 1.0166),  # fence
    (9.5110931396484, 5.2275490760803, 31.14247824, 0.9969),  # pole
    (10.311357498169, 5.4394111633301, 45.82106668, 0.9754),  # traffic light
    (10.026463508606, 5.3659925460815, 39.44451896, 1.0489),  # traffic sign
    (4.6323022842407, 3.4170460700989, 6.00002668, 0.8786),  # vegetation
    (9.5608062744141, 5.2414722442627, 32.64759009, 1.0023),  # terrain
    (7.8698215484619, 4.7376127243042, 17.34725897, 0.9539),  # sky
    (9.5168733596802, 5.2286224365234, 31.45715227, 0.9843),  # person
    (10.373730659485, 5.455126285553, 47.0853521, 1.1116),  # rider
    (6.6616044044495, 4.3019247055054, 11.70166965, 0.9037),  # car
    (10.260489463806, 5.4264230728149, 44.50966853, 1.0865),  # truck
    (10.287888526917, 5.4331531524658, 44.80501487, 1.0955),  # bus
    (10.289801597595, 5.433765411377, 45.63057065, 1.0865),  # train
    (10.405355453491, 5.4631009101868, 48.21080448, 1.1529),  # motorcycle
    (10.138095855713, 5.3947434425354, 41.21912833, 1.0507),  # bicycle
)

# The published list of SwNet-seq for CamVid does not name its classes. Their order is that of
# camvid.LABELS: the shares of the classes in the training labels fit it (tests/test_camvid.py).
CAMVID_SWNET = (6.088, 4.520, 33.974, 3.893, 12.472, 8.532, 47.701, 29.665, 18.998, 38.388, 40.106)

# by name and number of classes
CLASS_WEIGHTS: dict[str, dict[int, tuple[float, ...]]] = {
    name: {19: weights}
    for name, weights in zip(CITYSCAPES_COLUMNS, zip(*CITYSCAPES_WEIGHTS, strict=True), strict=True)
}
CLASS_WEIGHTS["swnet"][11] = CAMVID_SWNET


def class_weights(
    kind: str, num_classes: int, videos: Iterable[Video] = (), pixels: np.ndarray | None = None
) -> Tensor | None:
    """(K,) float32 weights published under the name `kind`; an ignore output has no weight here.

    "none": None. "balanced": counted from the labels of `videos`, or from `pixels` ((256,) by class
    id) where they are counted already. ValueError where the name is unknown or its weights are for
    another number of classes.
    """
    if kind == "none":
        return None
    if kind == "balanced":
        if pixels is None:
            return balanced(videos, num_classes)
        return balanced_weights(pixels, num_classes)
    if kind not in CLASS_WEIGHTS:
        raise ValueError(
            f"class weights {kind!r} are unknown: choose none, balanced, {', '.join(CLASS_WEIGHTS)}"
        )
    lists = CLASS_WEIGHTS[kind]
    if num_classes not in lists:
        matching = [name for name, others in CLASS_WEIGHTS.items() if num_classes in others]
        counts = " or ".join(map(str, lists))
        choices = ", ".join(["none", "balanced", *matching])
        raise ValueError(
            f"class weights {kind!r} are for {counts} classes, not {num_classes}: choose {choices}"
        )
    return torch.tensor(lists[num_classes])


def balanced(videos: Iterable[Video], num_classes: int, c: float = 1.10) -> Tensor:
    """Balanced weights from all labels of the videos, which are read for it."""
    return balanced_weights(count_labels(videos).pixels, num_classes, c)


def balanced_weights(pixels: np.ndarray, num_classes: int, c: float = 1.10) -> Tensor:
    """(K,) float32: 1 / ln(c + share of the class in the labelled pixels).

    pixels: (256,) by class id. c: 1.10 as used for ERFNet's full decoder, 1.20 for its encoder
    (Romera et al., T-ITS 2018). ValueError where no pixel has a label.
    """
    # without the ignored pixels, which have the id 255
    counts = pixels[:num_classes]
    total = counts.sum()
    if not total:
        raise ValueError(
            "balanced class weights need labels, and no pixel of the training videos has one: "
            "choose other class weights"
        )
    return torch.from_numpy(1 / np.log(c + counts / total)).float()
