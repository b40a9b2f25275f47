"""Our transforms compute what the published pipelines compute, from stored results of those."""

import random

import numpy as np
import pytest

from datasets.clip import RawClip
from datasets.photometric import Distortion, distort
from datasets.transforms import Compose, KeepRatio, Pad, RandomFlip, RandomShift, Resize, ToMultiple
from golden import case, filling

MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)


def border(array):
    """The four strips of data_erf.json, (..., H, W) -> flat."""
    rows = (array[..., :4, ::16], array[..., -4:, ::16])
    columns = (array[..., ::16, :4], array[..., ::16, -4:])
    return np.concatenate([strip.ravel() for strip in (*rows, *columns)])


@pytest.fixture(scope="module")
def erf_clip():
    draw = filling().image
    frames = []
    for n in range(16, 20):
        frame = (draw(f"cs_{n}", (3, 1024, 2048)) * 40 + 128).clamp(0, 255).byte()
        frames.append(frame.permute(1, 2, 0).numpy())
    rng = np.random.Generator(np.random.PCG64(3))
    label = rng.integers(0, 20, (64, 128)).repeat(16, 0).repeat(16, 1)  # (1024, 2048)
    label = np.where(label == 19, 255, label).astype(np.uint8)
    return RawClip(frames, [None] * 3 + [label], None)


def test_resize_equals_lmanet(erf_clip):
    golden = case("lma/data_erf").arrays
    clip = Resize((512, 1024))(erf_clip, None)
    frames = np.stack(clip.frames).transpose(0, 3, 1, 2)[..., ::8, ::8] / np.float32(255)
    assert np.array_equal(frames, golden["images"])
    label = clip.labels[-1][::8, ::8]
    assert np.array_equal(np.where(label == 255, 19, label), golden["labels"][0, 0])


@pytest.mark.parametrize("seed", [0, 1, 2, 5])
def test_flip_and_shift_equal_lmanet(erf_clip, seed):
    golden = case("lma/data_erf").arrays
    steps = [Resize((512, 1024)), RandomFlip(0.5)]
    last = RawClip(erf_clip.frames[-1:], erf_clip.labels[-1:], None)
    clip = Compose([*steps, RandomShift(2, "road")])(last, random.Random(seed))
    frame = clip.frames[-1].transpose(2, 0, 1) / np.float32(255)
    label = clip.labels[-1]
    assert np.array_equal(border(frame), golden[f"aug{seed}_images_border"])
    # LMANet's ignore is class 19
    published = np.where(label == 255, 19, label)
    assert np.array_equal(border(published), golden[f"aug{seed}_labels_border"])
    ours = Compose([*steps, RandomShift(2)])(last, random.Random(seed))
    assert np.array_equal(ours.frames[-1], clip.frames[-1])
    differs = ours.labels[-1] != label
    # only the strip that is called road
    assert (ours.labels[-1][differs] == 255).all() and (label[differs] == 0).all()
    assert differs.any() == (seed != 5), "seed 5 draws no negative shift"


@pytest.mark.parametrize("way, bound", [("up", (90, 100)), ("down", (40, 48))])
def test_keep_ratio_flip_and_pad_equal_tmanet(way, bound):
    golden = case("tma/pipeline").arrays
    frames = [np.ascontiguousarray(bgr[..., ::-1]) for bgr in golden["bgr"]]
    clip = RawClip(frames, [golden["seg"], None, None], None)
    clip = Compose([KeepRatio(bound), RandomFlip(1)])(clip, random.Random(0))
    assert clip.labels[0].shape == tuple(golden[f"shape_{way}"])
    # padded after it is normalised, so with the exact mean
    ours = np.zeros((3, 3, 96, 112), np.float32)
    height, width = clip.labels[0].shape
    ours[..., :height, :width] = ((np.stack(clip.frames) - MEAN) / STD).transpose(0, 3, 1, 2)
    theirs = np.concatenate([golden[f"img_{way}"][None], golden[f"mem_{way}"]])
    np.testing.assert_allclose(ours, theirs, atol=2e-6)
    padded = Pad((96, 112))(clip, None)
    assert np.array_equal(padded.labels[0], golden[f"seg_{way}"])
    # we pad before: with the mean rounded to whole numbers
    normalised = (np.stack(padded.frames) - MEAN) / STD
    assert np.abs(normalised - theirs.transpose(0, 2, 3, 1)).max() < 0.01


@pytest.mark.parametrize(
    "name, drawn",
    [
        ("photo_mode1", Distortion(12.5, 1.2, True, 1.3, 7)),
        ("photo_mode0", Distortion(-20.25, 0.8, False, 0.7, -9)),
    ],
)
def test_photometric_distortion_equals_tmanet(name, drawn):
    golden = case("tma/pipeline").arrays
    ours = distort(np.ascontiguousarray(golden["bgr"][0][..., ::-1]), drawn)
    assert np.array_equal(ours[..., ::-1], golden[name])


@pytest.mark.parametrize("name, bound", [("a", (54, 96)), ("b", (54, 96)), ("c", (48, 85))])
def test_evaluation_sizes_equal_mrcfa(name, bound):
    golden = case("mrcfa/test_preproc").arrays
    frame = np.ascontiguousarray(golden[f"bgr_{name}"][..., ::-1])
    label = np.zeros(frame.shape[:2], np.uint8)
    resize = Compose([KeepRatio(bound, labels=False), ToMultiple(32)])
    clip = resize(RawClip([frame], [label], None), random.Random(0))
    assert np.array_equal(clip.frames[0][..., ::-1], golden[f"resized_{name}"])
    assert clip.labels[0].shape == frame.shape[:2], "labels are untouched"
