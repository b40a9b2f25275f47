"""Transforms: one draw moves frames, labels and flows alike; published pipelines give the published numbers."""
import pickle
import random
import sys

import numpy as np
import pytest

from datasets.clip import RawClip
from datasets.photometric import Distortion, Photometric, RandomBlur, distort, draw_distortion
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
from golden import case, filling

H, W, CELL = 64, 96, 16
BLACK = (0, 0, 0)
MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)

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
    "all": Compose([KeepRatio((72, 96), (0.7, 1.5)), RandomScale(0.8, 1.2, "pil"), RandomRotate(15, 0.7, BLACK),
                    RandomFlip(0.5), RandomShift(5), RandomCrop((90, 90), 0.75, "centre", BLACK), Resize((120, 100))]),
}


def cells(world):
    """World position (..., 2) -> class id of the 16x16 cell it lies in."""
    x, y = (world // CELL).astype(int).transpose(-1, *range(world.ndim - 1))
    return np.clip(x + 6 * y, 0, 254)


def world_clip(length=3):
    """A clip whose every pixel knows where in the world it is: red 2x, green 3y, blue 255 = is in the world.

    The motion is affine, so its flow is known everywhere: from frame t, v(p) = A p + b into frame t-1.
    """
    a, b = np.array([[0.03, -0.02], [0.04, 0.01]]), np.array([7.0, -6.0])
    grid = np.stack(np.meshgrid(np.arange(W), np.arange(H)), -1).astype(float)          # (H, W, 2), x first
    world, frames = grid, []
    for _ in range(length):
        colour = np.concatenate([world * (2, 3), np.full((H, W, 1), 255.0)], -1)
        inside = ((colour >= 0) & (colour <= 255)).all(-1, keepdims=True)
        frames.insert(0, np.where(inside, np.round(colour), 0).astype(np.uint8))
        back = np.linalg.inv(np.eye(2) + a)
        world = (world - b) @ back.T if len(frames) == 1 else ((grid - b) @ back.T - b) @ back.T
    flow = (grid @ a.T + b).transpose(2, 0, 1).astype(np.float32)
    return RawClip(frames, [None] * (length - 1) + [cells(grid).astype(np.uint8)], [flow] * (length - 1))


def decode(frame):
    """Frame -> world positions (H, W, 2) and where the pixel shows the world and nothing else."""
    return frame[..., :2] / np.array([2.0, 3.0]), frame[..., 2] == 255


def bilinear(image, x, y):
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    a, b = (x - x0)[..., None], (y - y0)[..., None]
    return ((1 - b) * ((1 - a) * image[y0, x0] + a * image[y0, x0 + 1])
            + b * ((1 - a) * image[y0 + 1, x0] + a * image[y0 + 1, x0 + 1]))


@pytest.mark.parametrize("name", GEOMETRY)
@pytest.mark.parametrize("seed", range(6))
def test_labels_stay_with_what_the_frame_shows(name, seed):
    clip = GEOMETRY[name](world_clip(), random.Random(seed))
    world, valid = decode(clip.frames[-1])
    inner = np.abs((world + 0.5) % CELL - CELL / 2).max(-1) < CELL / 2 - 2      # two pixels off a class border
    assert (valid & inner).sum() > 200
    label = clip.labels[-1]
    assert (label[valid & inner] == cells(world)[valid & inner]).all()
    assert (label[clip.frames[-1][..., 2] == 0] == 255).all(), "outside the frame is ignore"
    assert set(np.unique(label)) <= set(np.unique(world_clip().labels[-1])) | {255}, "ids are never mixed"


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
        error = there[seen, :2] / (2, 3) - world[inside][seen]              # in world pixels; colours are rounded
        assert np.abs(error.mean(0)).max() < 0.1 and np.quantile(np.abs(error), 0.9) < 0.7


@pytest.mark.parametrize("name", GEOMETRY)
def test_all_frames_share_one_draw(name):
    """Every frame, and a label for each, of a clip of one repeated image comes out the same."""
    still = world_clip(1)
    clip = GEOMETRY[name](RawClip(still.frames * 3, still.labels * 3, None), random.Random(4))
    assert clip.flows is None and len(clip.frames) == len(clip.labels) == 3
    for frame, label in zip(clip.frames, clip.labels, strict=True):
        assert np.array_equal(frame, clip.frames[0]) and np.array_equal(label, clip.labels[0])
        assert frame.dtype == label.dtype == np.uint8 and frame.shape[:2] == label.shape


COLOURS = {"photometric": Photometric(), "photometric-shared": Photometric(shared=True), "blur": RandomBlur(1)}


@pytest.mark.parametrize("transform", [*GEOMETRY.values(), *COLOURS.values(), ToMultiple(32)],
                         ids=[*GEOMETRY, *COLOURS, "to-multiple"])
def test_the_same_generator_gives_the_same_clip_without_touching_the_input(transform):
    clip, before = world_clip(), world_clip()
    first, second = (pickle.loads(pickle.dumps(transform))(clip, random.Random(7)) for _ in range(2))
    for a, b in zip([*first.frames, first.labels[-1], *first.flows],
                    [*second.frames, second.labels[-1], *second.flows], strict=True):
        assert np.array_equal(a, b)
    assert all(np.array_equal(a, b) for a, b in zip(clip.frames, before.frames, strict=True))
    assert first.labels[:2] == [None, None], "frames without a label keep none"
    assert all(flow.dtype == np.float32 for flow in first.flows)


@pytest.mark.parametrize("name", ["scale-cv2", "rotate", "shift", "crop", "keep-ratio-pil"])
def test_another_generator_gives_another_clip(name):
    outcomes = {GEOMETRY[name](world_clip(), random.Random(seed)).frames[-1].tobytes() for seed in range(8)}
    assert len(outcomes) >= 6


def test_flipping_twice_changes_nothing():
    clip = world_clip()
    once, twice = RandomFlip(1)(clip, random.Random(0)), Compose([RandomFlip(1)] * 2)(clip, random.Random(0))
    assert not np.array_equal(once.frames[0], clip.frames[0])
    for a, b in zip([*clip.frames, clip.labels[-1], *clip.flows], [*twice.frames, twice.labels[-1], *twice.flows],
                    strict=True):
        assert np.array_equal(a, b)


def test_rotation_turns_about_the_centre_pixel():
    frame, label = np.zeros((21, 31, 3), np.uint8), np.zeros((21, 31), np.uint8)
    frame[10, 15], label[10, 15] = 200, 7
    for seed in range(5):
        clip = RandomRotate(90, 1)(RawClip([frame], [label], None), random.Random(seed))
        assert clip.frames[0][10, 15].tolist() == [200] * 3 and clip.labels[0][10, 15] == 7


@pytest.mark.parametrize("size, expected", [((720, 960), (480, 640)), ((960, 720), (640, 480)), ((3, 3), (480, 480)),
                                            ((480, 853), (480, 853)), ((853, 480), (853, 480)), ((72, 96), (480, 640)),
                                            ((37, 101), (312, 853))])
def test_keep_ratio_fits_portrait_frames_into_a_landscape_box(size, expected):
    clip = RawClip([np.zeros((*size, 3), np.uint8)], [np.zeros(size, np.uint8)], None)
    assert KeepRatio((480, 853))(clip, random.Random(0)).labels[0].shape == expected


def test_scaling_rounds_to_the_nearest_pixel():
    clip = RawClip([np.zeros((3, 5, 3), np.uint8)], [None], None)
    assert RandomScale(0.5, 0.5)(clip, random.Random(0)).frames[0].shape == (2, 3, 3)
    assert RandomScale(0.01, 0.01)(clip, random.Random(0)).frames[0].shape == (1, 1, 3), "but never to none"


@pytest.mark.parametrize("transform", [RandomFlip, RandomBlur, lambda p: RandomRotate(10, p)])
def test_probabilities_are_kept(transform):
    clip = world_clip(1)
    changed = [not np.array_equal(transform(0.3)(clip, random.Random(seed)).frames[0], clip.frames[0])
               for seed in range(200)]
    assert 0.2 < np.mean(changed) < 0.4
    assert transform(0)(clip, random.Random(0)) is clip


def test_a_size_that_fits_is_left_alone():
    clip = world_clip()
    assert Resize((H, W))(clip, None) is clip and Pad((H, W))(clip, None) is clip and ToMultiple(8)(clip, None) is clip


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
    """A speck of a second class in a wide frame: blind crops miss it mostly, eleven looks mostly find it."""
    label = np.zeros((40, 200), np.uint8)
    label[:, 90:110] = 1
    clip = RawClip([np.zeros((40, 200, 3), np.uint8)], [label], None)

    def found(max_ratio):
        return sum(mixed(RandomCrop((40, 40), max_ratio)(clip, random.Random(seed)).labels[0], 0.75)
                   for seed in range(100))
    assert found(None) < 50 and found(0.75) > 90
    uniform = clip._replace(labels=[label * 0])
    assert RandomCrop((40, 40), 0.75)(uniform, random.Random(0)).labels[0].shape == (40, 40), "gives up in the end"
    assert RandomCrop((40, 40), 0.75)(clip._replace(labels=[None]), random.Random(0)).labels == [None]


def test_a_mixture_ignores_what_has_no_label():
    label = np.array([0] * 74 + [1] * 26 + [255] * 900, np.uint8)[None]
    assert mixed(label, 0.75) and not mixed(label, 0.74)
    assert not mixed(np.array([[3, 3, 255]], np.uint8), 0.75) and not mixed(np.full((2, 2), 255, np.uint8), 0.75)


def test_redraws_stop_after_ten():
    class Counting(random.Random):
        calls = 0

        def randint(self, low, high):
            self.calls += 1
            return super().randint(low, high)
    rng = Counting(0)
    RandomCrop((8, 8), 0.75)(RawClip([np.zeros((9, 9, 3), np.uint8)], [np.zeros((9, 9), np.uint8)], None), rng)
    assert rng.calls == 2 * 11


def test_padding_is_centred_or_at_the_end():
    clip = RawClip([np.full((2, 2, 3), 9, np.uint8)], [np.zeros((2, 2), np.uint8)], None)
    centre, end = (Pad((4, 5), where)(clip, None) for where in ("centre", "end"))
    assert (centre.labels[0][1:3, 1:3] == 0).all() and (centre.labels[0] == 255).sum() == 16
    assert (end.labels[0][:2, :2] == 0).all() and (end.labels[0] == 255).sum() == 16
    assert end.frames[0][3, 4].tolist() == [124, 116, 104], "the ImageNet mean"


def test_photometric_draws_per_frame_unless_shared():
    still = world_clip(1)
    clip = RawClip(still.frames * 3, [None] * 3, None)

    def outcomes(shared, seed):
        return len({frame.tobytes() for frame in Photometric(shared)(clip, random.Random(seed)).frames})
    assert all(outcomes(True, seed) == 1 for seed in range(10))
    assert any(outcomes(False, seed) == 3 for seed in range(10))


def test_distortions_stay_in_their_ranges():
    drawn = [draw_distortion(random.Random(seed)) for seed in range(2000)]
    ranges = {"brightness": (-32, 32), "contrast": (0.5, 1.5), "saturation": (0.5, 1.5), "hue": (-18, 17)}
    for name, (low, high) in ranges.items():
        values = [getattr(d, name) for d in drawn if getattr(d, name) is not None]
        assert 900 < len(values) < 1100, f"{name} is drawn half of the time"
        assert low <= min(values) < low + 0.1 * (high - low) and high - 0.1 * (high - low) < max(values) <= high
    assert {d.hue for d in drawn if d.hue is not None} == set(range(-18, 18))
    assert 900 < sum(d.contrast_first for d in drawn) < 1100


def test_no_distortion_changes_nothing():
    frame = world_clip(1).frames[0]
    assert np.array_equal(distort(frame, Distortion()), frame)


def test_blur_spreads_over_five_pixels():
    frame = np.zeros((9, 9, 3), np.uint8)
    frame[4, 4] = 255
    blurred = RandomBlur(1)(RawClip([frame], [None], None), random.Random(0)).frames[0]
    rows = np.nonzero(blurred.sum((1, 2)))[0]
    assert (rows.min(), rows.max()) == (2, 6)


@pytest.mark.parametrize("make, words", [
    (lambda: RandomShift(2, "sky"), "ignore or road"),
    (lambda: Pad((4, 4), "left"), "centre or end"),
    (lambda: RandomCrop((4, 4), pad="left"), "centre or end"),
    (lambda: Resize((4, 4), "magic")(world_clip(), None), "pil or cv2"),
    (lambda: RandomCrop((4, 4))(Resize((32, 48), labels=False)(world_clip(), None), random.Random(0)), "one size"),
])
def test_a_wrong_choice_says_what_fits(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_without_opencv_the_pil_paths_work_and_others_say_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    for name in ("resize-pil", "keep-ratio-pil", "scale-pil", "flip", "shift", "crop-mixed", "pad-centre"):
        GEOMETRY[name](world_clip(), random.Random(0))
    for transform in (GEOMETRY["resize-cv2"], GEOMETRY["rotate"], RandomBlur(1)):
        with pytest.raises(RuntimeError, match="opencv-python-headless"):
            transform(world_clip(), random.Random(0))


# Golden

def border(array):
    """The four strips of data_erf.json, (..., H, W) -> flat."""
    strips = array[..., :4, ::16], array[..., -4:, ::16], array[..., ::16, :4], array[..., ::16, -4:]
    return np.concatenate([strip.ravel() for strip in strips])


@pytest.fixture(scope="module")
def erf_clip():
    image = filling().image
    frames = [(image(f"cs_{n}", (3, 1024, 2048)) * 40 + 128).clamp(0, 255).byte().permute(1, 2, 0).numpy()
              for n in range(16, 20)]
    label = np.random.Generator(np.random.PCG64(3)).integers(0, 20, (64, 128)).repeat(16, 0).repeat(16, 1)
    return RawClip(frames, [None] * 3 + [np.where(label == 19, 255, label).astype(np.uint8)], None)


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
    frame, label = clip.frames[-1].transpose(2, 0, 1) / np.float32(255), clip.labels[-1]
    assert np.array_equal(border(frame), golden[f"aug{seed}_images_border"])
    assert np.array_equal(border(np.where(label == 255, 19, label)), golden[f"aug{seed}_labels_border"])
    ours = Compose([*steps, RandomShift(2)])(last, random.Random(seed))
    assert np.array_equal(ours.frames[-1], clip.frames[-1])
    differs = ours.labels[-1] != label
    assert (ours.labels[-1][differs] == 255).all() and (label[differs] == 0).all(), "only the strip called road"
    assert differs.any() == (seed != 5), "seed 5 draws no negative shift"


@pytest.mark.parametrize("way, bound", [("up", (90, 100)), ("down", (40, 48))])
def test_keep_ratio_flip_and_pad_equal_tmanet(way, bound):
    golden = case("tma/pipeline").arrays
    frames = [np.ascontiguousarray(bgr[..., ::-1]) for bgr in golden["bgr"]]
    clip = RawClip(frames, [golden["seg"], None, None], None)
    clip = Compose([KeepRatio(bound), RandomFlip(1)])(clip, random.Random(0))
    assert clip.labels[0].shape == tuple(golden[f"shape_{way}"])
    ours = np.zeros((3, 3, 96, 112), np.float32)                     # padded once normalised, so with the exact mean
    height, width = clip.labels[0].shape
    ours[..., :height, :width] = ((np.stack(clip.frames) - MEAN) / STD).transpose(0, 3, 1, 2)
    theirs = np.concatenate([golden[f"img_{way}"][None], golden[f"mem_{way}"]])
    np.testing.assert_allclose(ours, theirs, atol=2e-6)
    padded = Pad((96, 112))(clip, None)
    assert np.array_equal(padded.labels[0], golden[f"seg_{way}"])
    assert np.abs((np.stack(padded.frames) - MEAN) / STD - theirs.transpose(0, 2, 3, 1)).max() < 0.01, "grey for grey"


@pytest.mark.parametrize("name, drawn", [
    ("photo_mode1", Distortion(12.5, 1.2, True, 1.3, 7)),
    ("photo_mode0", Distortion(-20.25, 0.8, False, 0.7, -9)),
])
def test_photometric_distortion_equals_tmanet(name, drawn):
    golden = case("tma/pipeline").arrays
    ours = distort(np.ascontiguousarray(golden["bgr"][0][..., ::-1]), drawn)
    assert np.array_equal(ours[..., ::-1], golden[name])


@pytest.mark.parametrize("name, bound", [("a", (54, 96)), ("b", (54, 96)), ("c", (48, 85))])
def test_evaluation_sizes_equal_mrcfa(name, bound):
    golden = case("mrcfa/test_preproc").arrays
    frame = np.ascontiguousarray(golden[f"bgr_{name}"][..., ::-1])
    label = np.zeros(frame.shape[:2], np.uint8)
    clip = Compose([KeepRatio(bound, labels=False), ToMultiple(32)])(RawClip([frame], [label], None), random.Random(0))
    assert np.array_equal(clip.frames[0][..., ::-1], golden[f"resized_{name}"])
    assert clip.labels[0].shape == frame.shape[:2], "labels are untouched"


def test_both_interpolations_agree_on_smooth_images():
    frame = world_clip(1).frames[0]
    pil, cv2 = (resample(frame, (128, 192), name).astype(int) for name in ("pil", "cv2"))
    assert np.abs(pil - cv2).max() <= 2
