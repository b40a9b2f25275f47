"""Transforms: frames, labels and flows of a clip are moved by the same draw."""

import pickle
import random
import sys

import numpy as np
import pytest

from datasets.clip import RawClip
from datasets.photometric import Photometric, RandomBlur
from datasets.transforms import (
    Compose,
    KeepRatio,
    Pad,
    RandomCrop,
    RandomFlip,
    RandomRotate,
    RandomScale,
    RandomShift,
    Resize,
    ToMultiple,
    mixed,
    resample,
)
from known_world import CELL, H, W, cells, decode, world_clip

BLACK = (0, 0, 0)

GEOMETRY = {
    "resize-pil": Resize((48, 120)),
    "resize-cv2": Resize((100, 70), "cv2"),
    "keep-ratio-cv2": KeepRatio((72, 96), (0.5, 2)),
    "keep-ratio-pil": KeepRatio((72, 96), (0.5, 2), "pil"),
    "scale-cv2": RandomScale(0.5, 2),
    "scale-pil": RandomScale(0.5, 2, "pil"),
    "rotate": RandomRotate(30, 1, BLACK),
    "flip": RandomFlip(1),
    "shift": RandomShift(9),
    "pad-centre": Pad((91, 130), "centre", BLACK),
    "pad-end": Pad((91, 130), "end", BLACK),
    "crop": RandomCrop((40, 50), fill=BLACK),
    "crop-mixed": RandomCrop((40, 50), 0.75, fill=BLACK),
    "crop-padded": RandomCrop((80, 60), pad="centre", fill=BLACK),
    "crop-short": RandomCrop((80, 60), pad=None),
    "all": Compose(
        [
            KeepRatio((72, 96), (0.7, 1.5)),
            RandomScale(0.8, 1.2, "pil"),
            RandomRotate(15, 0.7, BLACK),
            RandomFlip(0.5),
            RandomShift(5),
            RandomCrop((90, 90), 0.75, "centre", BLACK),
            Resize((120, 100)),
        ]
    ),
}


def bilinear(image, x, y):
    """image (H, W, C) at positions x, y (N,) -> (N, C)."""
    x0 = np.floor(x).astype(int)
    y0 = np.floor(y).astype(int)
    a = (x - x0)[..., None]
    b = (y - y0)[..., None]
    above = (1 - a) * image[y0, x0] + a * image[y0, x0 + 1]
    below = (1 - a) * image[y0 + 1, x0] + a * image[y0 + 1, x0 + 1]
    return (1 - b) * above + b * below


def arrays(clip):
    """Frames, the label of the last frame, and flows."""
    return [*clip.frames, clip.labels[-1], *clip.flows]


@pytest.mark.parametrize("name", GEOMETRY)
@pytest.mark.parametrize("seed", range(6))
def test_labels_stay_with_what_the_frame_shows(name, seed):
    clip = GEOMETRY[name](world_clip(), random.Random(seed))
    world, valid = decode(clip.frames[-1])
    # at least two pixels off a class border
    inner = np.abs((world + 0.5) % CELL - CELL / 2).max(-1) < CELL / 2 - 2
    inner &= valid
    assert inner.sum() > 200
    label = clip.labels[-1]
    assert (label[inner] == cells(world)[inner]).all()
    assert (label[clip.frames[-1][..., 2] == 0] == 255).all(), "outside the frame is ignore"
    known = set(np.unique(world_clip().labels[-1]))
    assert set(np.unique(label)) <= known | {255}, "ids are never mixed"


@pytest.mark.parametrize("name", GEOMETRY)
@pytest.mark.parametrize("seed", range(6))
def test_flows_still_point_to_the_same_world_point(name, seed):
    clip = GEOMETRY[name](world_clip(), random.Random(seed))
    for t in range(1, len(clip.frames)):
        world, valid = decode(clip.frames[t])
        height, width = valid.shape
        grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1)
        x, y = (grid + clip.flows[t - 1].transpose(1, 2, 0)).transpose(2, 0, 1)
        inside = valid & (x >= 1) & (y >= 1) & (x < width - 2) & (y < height - 2)
        inside[[0, 1, -2, -1]] = inside[:, [0, 1, -2, -1]] = False
        there = bilinear(clip.frames[t - 1].astype(float), x[inside], y[inside])
        seen = there[:, 2] > 254.9
        assert seen.sum() > 50
        # in world pixels; colours are rounded
        error = there[seen, :2] / (2, 3) - world[inside][seen]
        assert np.abs(error.mean(0)).max() < 0.1
        assert np.quantile(np.abs(error), 0.9) < 0.7


@pytest.mark.parametrize("name", GEOMETRY)
def test_all_frames_share_one_draw(name):
    """A clip of one repeated image and label is still one repeated image and label afterwards."""
    still = world_clip(1)
    clip = GEOMETRY[name](RawClip(still.frames * 3, still.labels * 3, None), random.Random(4))
    assert clip.flows is None and len(clip.frames) == len(clip.labels) == 3
    for frame, label in zip(clip.frames, clip.labels, strict=True):
        assert np.array_equal(frame, clip.frames[0]) and np.array_equal(label, clip.labels[0])
        assert frame.dtype == label.dtype == np.uint8 and frame.shape[:2] == label.shape


COLOURS = {
    "photometric": Photometric(),
    "photometric-shared": Photometric(shared=True),
    "blur": RandomBlur(1),
}


@pytest.mark.parametrize(
    "transform",
    [*GEOMETRY.values(), *COLOURS.values(), ToMultiple(32)],
    ids=[*GEOMETRY, *COLOURS, "to-multiple"],
)
def test_the_same_generator_gives_the_same_clip_without_touching_the_input(transform):
    clip = world_clip()
    before = world_clip()
    # loader workers get a copy by pickle
    copy = pickle.loads(pickle.dumps(transform))
    first = transform(clip, random.Random(7))
    second = copy(clip, random.Random(7))
    for a, b in zip(arrays(first), arrays(second), strict=True):
        assert np.array_equal(a, b)
    assert all(np.array_equal(a, b) for a, b in zip(clip.frames, before.frames, strict=True))
    assert first.labels[:2] == [None, None], "frames without a label keep none"
    assert all(flow.dtype == np.float32 for flow in first.flows)


@pytest.mark.parametrize("name", ["scale-cv2", "rotate", "shift", "crop", "keep-ratio-pil"])
def test_another_generator_gives_another_clip(name):
    clips = [GEOMETRY[name](world_clip(), random.Random(seed)) for seed in range(8)]
    assert len({clip.frames[-1].tobytes() for clip in clips}) >= 6


def test_flipping_twice_changes_nothing():
    clip = world_clip()
    once = RandomFlip(1)(clip, random.Random(0))
    twice = RandomFlip(1)(once, random.Random(0))
    assert not np.array_equal(once.frames[0], clip.frames[0])
    for a, b in zip(arrays(clip), arrays(twice), strict=True):
        assert np.array_equal(a, b)


def test_rotation_turns_about_the_centre_pixel():
    frame = np.zeros((21, 31, 3), np.uint8)
    label = np.zeros((21, 31), np.uint8)
    frame[10, 15] = 200
    label[10, 15] = 7
    for seed in range(5):
        clip = RandomRotate(90, 1)(RawClip([frame], [label], None), random.Random(seed))
        assert clip.frames[0][10, 15].tolist() == [200] * 3 and clip.labels[0][10, 15] == 7


@pytest.mark.parametrize(
    "size, expected",
    [
        ((720, 960), (480, 640)),
        ((960, 720), (640, 480)),
        ((3, 3), (480, 480)),
        ((480, 853), (480, 853)),
        ((853, 480), (853, 480)),
        ((72, 96), (480, 640)),
        ((37, 101), (312, 853)),
    ],
)
def test_keep_ratio_fits_portrait_frames_into_a_landscape_box(size, expected):
    clip = RawClip([np.zeros((*size, 3), np.uint8)], [np.zeros(size, np.uint8)], None)
    assert KeepRatio((480, 853))(clip, random.Random(0)).labels[0].shape == expected


def test_scaling_rounds_to_the_nearest_pixel():
    clip = RawClip([np.zeros((3, 5, 3), np.uint8)], [None], None)
    assert RandomScale(0.5, 0.5)(clip, random.Random(0)).frames[0].shape == (2, 3, 3)
    tiny = RandomScale(0.01, 0.01)(clip, random.Random(0))
    assert tiny.frames[0].shape == (1, 1, 3), "but never to none"


@pytest.mark.parametrize("transform", [RandomFlip, RandomBlur, lambda p: RandomRotate(10, p)])
def test_probabilities_are_kept(transform):
    clip = world_clip(1)
    clips = [transform(0.3)(clip, random.Random(seed)) for seed in range(200)]
    changed = [not np.array_equal(after.frames[0], clip.frames[0]) for after in clips]
    assert 0.2 < np.mean(changed) < 0.4
    assert transform(0)(clip, random.Random(0)) is clip


def test_a_size_that_fits_is_left_alone():
    clip = world_clip()
    for transform in (Resize((H, W)), Pad((H, W)), ToMultiple(8)):
        assert transform(clip, None) is clip


def test_evaluation_keeps_labels_at_their_own_size():
    clip = Resize((32, 48), labels=False)(world_clip(), None)
    assert clip.frames[0].shape == (32, 48, 3) and clip.flows[0].shape == (2, 32, 48)
    assert np.array_equal(clip.labels[-1], world_clip().labels[-1])


def test_crops_reach_every_position_and_no_further():
    label = np.arange(12, dtype=np.uint8).reshape(3, 4)
    clip = RawClip([np.zeros((3, 4, 3), np.uint8)], [label], None)
    corners = {RandomCrop((2, 2))(clip, random.Random(seed)).labels[0][0, 0] for seed in range(200)}
    assert corners == {0, 1, 2, 4, 5, 6}


def test_crops_look_for_a_mixture_of_classes():
    """One crop mostly misses the small area of a second class; eleven draws mostly find it."""
    label = np.zeros((40, 200), np.uint8)
    label[:, 90:110] = 1
    clip = RawClip([np.zeros((40, 200, 3), np.uint8)], [label], None)

    def found(max_ratio):
        crop = RandomCrop((40, 40), max_ratio)
        crops = [crop(clip, random.Random(seed)) for seed in range(100)]
        return sum(mixed(after.labels[0], 0.75) for after in crops)

    assert found(None) < 50 and found(0.75) > 90
    uniform = clip._replace(labels=[label * 0])
    crop = RandomCrop((40, 40), 0.75)
    # the last draw is taken in the end
    assert crop(uniform, random.Random(0)).labels[0].shape == (40, 40)
    unlabelled = clip._replace(labels=[None])
    assert crop(unlabelled, random.Random(0)).labels == [None]


def test_a_mixture_ignores_what_has_no_label():
    label = np.array([0] * 74 + [1] * 26 + [255] * 900, np.uint8)[None]
    assert mixed(label, 0.75) and not mixed(label, 0.74)
    assert not mixed(np.array([[3, 3, 255]], np.uint8), 0.75)
    assert not mixed(np.full((2, 2), 255, np.uint8), 0.75)


def test_redraws_stop_after_ten():
    class Counting(random.Random):
        calls = 0

        def randint(self, low, high):
            self.calls += 1
            return super().randint(low, high)

    rng = Counting(0)
    clip = RawClip([np.zeros((9, 9, 3), np.uint8)], [np.zeros((9, 9), np.uint8)], None)
    RandomCrop((8, 8), 0.75)(clip, rng)
    # top and left, of the first draw and the redraws
    assert rng.calls == 2 * 11


def test_padding_is_centred_or_at_the_end():
    clip = RawClip([np.full((2, 2, 3), 9, np.uint8)], [np.zeros((2, 2), np.uint8)], None)
    centre = Pad((4, 5), "centre")(clip, None)
    end = Pad((4, 5), "end")(clip, None)
    assert (centre.labels[0][1:3, 1:3] == 0).all() and (centre.labels[0] == 255).sum() == 16
    assert (end.labels[0][:2, :2] == 0).all() and (end.labels[0] == 255).sum() == 16
    assert end.frames[0][3, 4].tolist() == [124, 116, 104], "the ImageNet mean"


def crop_of_two_sizes():
    resized = Resize((32, 48), labels=False)(world_clip(), None)
    return RandomCrop((4, 4))(resized, random.Random(0))


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: RandomShift(2, "sky"), "ignore or road"),
        (lambda: Pad((4, 4), "left"), "centre or end"),
        (lambda: RandomCrop((4, 4), pad="left"), "centre or end"),
        (lambda: Resize((4, 4), "magic")(world_clip(), None), "pil or cv2"),
        (crop_of_two_sizes, "one size"),
    ],
)
def test_a_wrong_choice_says_what_fits(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_without_opencv_the_pil_paths_work_and_others_say_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    names = "resize-pil keep-ratio-pil scale-pil flip shift crop-mixed pad-centre"
    for name in names.split():
        GEOMETRY[name](world_clip(), random.Random(0))
    for transform in (GEOMETRY["resize-cv2"], GEOMETRY["rotate"], RandomBlur(1)):
        with pytest.raises(RuntimeError, match="opencv-python-headless"):
            transform(world_clip(), random.Random(0))


def test_both_interpolations_agree_on_smooth_images():
    frame = world_clip(1).frames[0]
    pil = resample(frame, (128, 192), "pil").astype(int)
    cv2 = resample(frame, (128, 192), "cv2").astype(int)
    assert np.abs(pil - cv2).max() <= 2
