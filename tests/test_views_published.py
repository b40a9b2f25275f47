"""Views against slow versions of the published schemes."""

import math

import numpy as np
import pytest
import torch

from utils.views import IMAGENET_MEAN, Views, resize_scores
from view_toys import CLASSES, BySurroundings, Multiple, clip

# The published schemes, written from the specs with numpy, one image (C, H, W) at a time


def np_resize(image, height, width, align_corners=False):
    """Bilinear, half-pixel centres unless align_corners, edges repeated, no antialiasing."""
    for axis, size in ((1, height), (2, width)):
        old = image.shape[axis]
        at = (
            np.arange(size) * (old - 1) / max(size - 1, 1)
            if align_corners
            else np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
        )
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, old - 1)
        shape = [1, 1, 1]
        shape[axis] = size
        part = (at - low).reshape(shape)
        image = image.take(low, axis) * (1 - part) + image.take(high, axis) * part
    return image


def np_softmax(logits):
    powers = np.exp(logits - logits.max(0))
    return powers / powers.sum(0)


def np_network(network, image):
    """image (3, h, w) -> logits (K, h, w)."""
    return network(0, torch.from_numpy(image)[None, None].float())[0].numpy().astype(np.float64)


def semseg(network, image, crop, scales, flip):
    """ETC's spec 1.6: semseg's sliding evaluation of one image (3, H, W), base size = its long
    side."""
    _, height, width = image.shape
    result = 0
    for scale in scales:
        long = round(scale * max(height, width))
        if height > width:
            new_height, new_width = long, round(long / height * width)
        else:
            new_height, new_width = round(long / width * height), long
        canvas = np_resize(image, new_height, new_width)
        pad_y, pad_x = max(crop[0] - new_height, 0), max(crop[1] - new_width, 0)
        before_y, before_x = pad_y // 2, pad_x // 2
        filled = np.empty((3, new_height + pad_y, new_width + pad_x))
        filled[:] = np.array(IMAGENET_MEAN)[:, None, None]
        filled[:, before_y : before_y + new_height, before_x : before_x + new_width] = canvas
        stride = [int(math.ceil(side * 2 / 3)) for side in crop]
        full_height, full_width = filled.shape[1:]
        total, count = (
            np.zeros((CLASSES, full_height, full_width)),
            np.zeros((full_height, full_width)),
        )
        for row in range(int(math.ceil((full_height - crop[0]) / stride[0])) + 1):
            for column in range(int(math.ceil((full_width - crop[1]) / stride[1])) + 1):
                bottom = min(row * stride[0] + crop[0], full_height)
                right = min(column * stride[1] + crop[1], full_width)
                area = np.s_[bottom - crop[0] : bottom, right - crop[1] : right]
                window = filled[:, area[0], area[1]]
                scores = np_softmax(np_network(network, window))
                if flip:
                    mirrored = np_softmax(np_network(network, window[:, :, ::-1].copy()))[
                        :, :, ::-1
                    ]
                    scores = (scores + mirrored) / 2
                total[:, area[0], area[1]] += scores
                count[area] += 1
        mean = (total / count)[:, before_y : before_y + new_height, before_x : before_x + new_width]
        result = result + np_resize(mean, height, width)
    return result / len(scales)


def tmanet_slide(network, image, crop, stride):
    """TMANet's spec, section 4: mean logits of the windows of one image (3, H, W)."""
    _, height, width = image.shape
    total, count = np.zeros((CLASSES, height, width)), np.zeros((height, width))
    for row in range(max(height - crop[0] + stride[0] - 1, 0) // stride[0] + 1):
        for column in range(max(width - crop[1] + stride[1] - 1, 0) // stride[1] + 1):
            bottom, right = (
                min(row * stride[0] + crop[0], height),
                min(column * stride[1] + crop[1], width),
            )
            area = np.s_[max(bottom - crop[0], 0) : bottom, max(right - crop[1], 0) : right]
            total[:, area[0], area[1]] += np_network(network, image[:, area[0], area[1]].copy())
            count[area] += 1
    return total / count


def tmanet_augmented(network, image, crop, stride, scales, align_corners):
    """Its aug test: softmax at the original size, averaged over scales and mirrored images."""
    _, height, width = image.shape
    result = 0
    for scale in scales:
        for mirrored in (False, True):
            long = round(scale * max(height, width))
            size = [round(long / max(height, width) * side) for side in (height, width)]
            scaled = np_resize(image, *size)
            logits = tmanet_slide(network, scaled[:, :, ::-1] if mirrored else scaled, crop, stride)
            scores = np_softmax(np_resize(logits, height, width, align_corners))
            result = result + (scores[:, :, ::-1] if mirrored else scores)
    return result / (2 * len(scales))


def assert_same(ours: torch.Tensor, theirs: list[np.ndarray]):
    np.testing.assert_allclose(ours.numpy(), np.stack(theirs), atol=2e-5, rtol=0)


# Ours against them


@pytest.mark.parametrize("size", [(23, 37), (37, 23), (13, 61), (15, 9), (21, 17), (33, 33)])
@pytest.mark.parametrize("scales", [(1.0,), (0.5, 0.75, 1.25)])
@pytest.mark.parametrize("flip", [False, True])
def test_probabilities_are_semsegs_sliding_evaluation(size, scales, flip):
    network, frames = BySurroundings(), clip(*size)
    plan = Views(
        Multiple(), scales=scales, flip=flip, crop=(21, 17), average="probabilities", small="pad"
    ).plan(size)
    expected = [
        semseg(network, frame.numpy().astype(np.float64), (21, 17), scales, flip)
        for frame in frames[:, 0]
    ]
    if plan.passes == 1:
        assert scales == (1.0,) and size[0] <= 21 and size[1] <= 17
        assert_same(plan.run(network, frames).softmax(1), expected)
    else:
        assert_same(plan.run(network, frames), expected)


@pytest.mark.parametrize("size", [(23, 37), (37, 23), (13, 61), (15, 9), (65, 65)])
@pytest.mark.parametrize("stride", [(14, 11), (21, 17), (1, 16)])
def test_logits_are_tmanets_slide(size, stride):
    network, frames = BySurroundings(), clip(*size)
    plan = Views(Multiple(), crop=(21, 17), stride=stride, average="logits", small="whole").plan(
        size
    )
    expected = [
        tmanet_slide(network, frame.numpy().astype(np.float64), (21, 17), stride)
        for frame in frames[:, 0]
    ]
    assert_same(plan.run(network, frames), expected)
    assert not plan.probabilities


@pytest.mark.parametrize("size", [(23, 37), (15, 9)])
@pytest.mark.parametrize("align_corners", [False, True])
def test_logits_at_several_scales_are_tmanets_aug_test(size, align_corners):
    network, frames = BySurroundings(), clip(*size)
    plan = Views(
        Multiple(),
        scales=(0.75, 1.0, 1.5),
        flip=True,
        crop=(21, 17),
        stride=(14, 11),
        average="logits",
        small="whole",
        align_corners=align_corners,
    ).plan(size)
    expected = [
        tmanet_augmented(
            network,
            frame.numpy().astype(np.float64),
            (21, 17),
            (14, 11),
            (0.75, 1.0, 1.5),
            align_corners,
        )
        for frame in frames[:, 0]
    ]
    assert_same(plan.run(network, frames), expected)
    assert plan.probabilities


@pytest.mark.parametrize("side", range(1, 60))
@pytest.mark.parametrize(("crop", "stride"), [(8, 5), (8, 8), (13, 9), (7, 1)])
def test_semsegs_and_tmanets_window_counts_agree(side, crop, stride):
    windows = (
        Views(Multiple(), crop=(1, crop), stride=(1, stride), small="whole")
        .plan((1, side))
        .canvases[0]
        .windows
    )
    assert len(windows) == max(side - crop + stride - 1, 0) // stride + 1
    assert len(windows) == math.ceil((max(side, crop) - crop) / stride) + 1


@pytest.mark.parametrize(
    ("crop", "stride", "size", "windows"),
    [((769, 769), (513, 513), (1024, 2048), 8), ((640, 640), (512, 512), (720, 960), 4)],
)
def test_the_published_slides_have_their_number_of_windows(crop, stride, size, windows):
    assert Views(Multiple(), crop=crop, stride=stride).plan(size).passes == windows


@pytest.mark.parametrize("align_corners", [False, True])
def test_resize_scores_is_bilinear(align_corners):
    scores = torch.randn(2, CLASSES, 7, 9)
    ours = resize_scores(scores, (13, 5), align_corners)
    assert_same(ours, [np_resize(each, 13, 5, align_corners) for each in scores.double().numpy()])
