"""Class weights of the cross entropy: published lists, and those counted from labels."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from .clip import Video

# Published class weights by name and number of classes. lma: ERFNet's full decoder and LMANet (PSPNet too),
# lma-shallow: its 1x1 decoder, swnet: GSVNet and SwNet-seq, etc: ETC. The published CamVid list names no classes:
# its order is that of CAMVID, as the class shares of the training labels show (tests/test_camvid.py).
CLASS_WEIGHTS: dict[str, dict[int, tuple[float, ...]]] = {
    "lma": {
        19: (
            2.8149201869965,
            6.9850029945374,
            3.7890393733978,
            9.9428062438965,
            9.7702074050903,
            9.5110931396484,
            10.311357498169,
            10.026463508606,
            4.6323022842407,
            9.5608062744141,
            7.8698215484619,
            9.5168733596802,
            10.373730659485,
            6.6616044044495,
            10.260489463806,
            10.287888526917,
            10.289801597595,
            10.405355453491,
            10.138095855713,
        )
    },
    "lma-shallow": {
        19: (
            2.3653597831726,
            4.4237880706787,
            2.9691488742828,
            5.3442072868347,
            5.2983593940735,
            5.2275490760803,
            5.4394111633301,
            5.3659925460815,
            3.4170460700989,
            5.2414722442627,
            4.7376127243042,
            5.2286224365234,
            5.455126285553,
            4.3019247055054,
            5.4264230728149,
            5.4331531524658,
            5.433765411377,
            5.4631009101868,
            5.3947434425354,
        )
    },
    "swnet": {
        19: (
            3.03871497,
            13.01999212,
            4.53008444,
            38.00898985,
            35.35990217,
            31.14247824,
            45.82106668,
            39.44451896,
            6.00002668,
            32.64759009,
            17.34725897,
            31.45715227,
            47.0853521,
            11.70166965,
            44.50966853,
            44.80501487,
            45.63057065,
            48.21080448,
            41.21912833,
        ),
        11: (6.088, 4.520, 33.974, 3.893, 12.472, 8.532, 47.701, 29.665, 18.998, 38.388, 40.106),
    },
    "etc": {
        19: (
            0.8373,
            0.918,
            0.866,
            1.0345,
            1.0166,
            0.9969,
            0.9754,
            1.0489,
            0.8786,
            1.0023,
            0.9539,
            0.9843,
            1.1116,
            0.9037,
            1.0865,
            1.0955,
            1.0865,
            1.1529,
            1.0507,
        )
    },
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
        raise ValueError(
            f"class weights {kind!r} are unknown: choose none, balanced, {', '.join(CLASS_WEIGHTS)}"
        )
    if num_classes not in CLASS_WEIGHTS[kind]:
        fits = [name for name, lists in CLASS_WEIGHTS.items() if num_classes in lists]
        raise ValueError(
            f"class weights {kind!r} are for {' or '.join(map(str, CLASS_WEIGHTS[kind]))} classes, not "
            f"{num_classes}: choose {', '.join(['none', 'balanced', *fits])}"
        )
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
        raise ValueError(
            "balanced class weights need labels, and no pixel of the training videos has one: "
            "choose other class weights"
        )
    return torch.from_numpy(1 / np.log(c + counts[:num_classes] / total)).float()
