"""What the camera of a synthetic video does to its frames: noise, blur, flicker and dropouts."""

import numpy as np
import pytest

from datasets.synthetic import videos
from datasets.synthetic.degrade import Degradation
from datasets.synthetic.dropout import KINDS, Dropout
from datasets.synthetic.video import shared_world
from datasets.synthetic.world import World

SIZE = (128, 256)


@pytest.fixture(scope="module")
def world() -> World:
    return World(0, SIZE, 16)


def test_degradations_change_frames_and_leave_labels_and_flow_alone():
    all_clean = videos("val", 3, 12, SIZE, degrade=False)
    all_bad = videos("val", 3, 12, SIZE)
    for clean, bad in zip(all_clean, all_bad, strict=True):
        assert np.array_equal(clean.frame(6), World(clean.seed, SIZE, 12).image(6))
        assert np.array_equal(clean.label(6), bad.label(6))
        assert np.array_equal(clean.flow(6, 5), bad.flow(6, 5))
        difference = np.abs(clean.frame(6).astype(int) - bad.frame(6)).mean()
        assert difference > 1
        assert bad.frame(6).shape == clean.frame(6).shape
        assert not any(clean.degraded(i) for i in range(12))


def test_degraded_frames_do_not_depend_on_the_order_in_which_they_are_asked_for():
    video = videos("train", 1, 10, (64, 128))[0]
    first = [video.frame(i) for i in range(10)]
    shared_world.cache_clear()
    again = [video.frame(i) for i in reversed(range(10))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_dropouts_are_short_and_rare_and_come_in_every_kind():
    kinds = set()
    runs = []  # lengths in frames
    hits = 0
    for seed in range(60):
        failures = [Degradation(seed).failure(t) for t in range(100)]
        kinds |= {failure.kind for failure in failures if failure}
        hits += sum(failure is not None for failure in failures)
        line = "".join("x" if failure else "." for failure in failures)
        runs += [len(run) for run in line.split(".") if run]
    assert kinds == {"dark", "noisy", "blurred"} == set(KINDS)
    assert 0.05 < hits / 6000 < 0.2
    assert np.median(runs) <= 2
    assert 1 < np.mean(runs) < 3


def test_a_degraded_frame_is_much_further_from_the_clean_one_than_others():
    hit = []
    spared = []
    for video in videos("test", 6, 30, (64, 128)):
        for i in range(0, 30, 2):
            bad = video.frame(i).astype(np.float32)
            clean = video.world.image(i).astype(np.float32)
            # after one gain for the whole frame, which is flicker and no failure
            difference = np.abs(bad / max(bad.mean(), 1) - clean / clean.mean()).mean()
            differences = hit if video.degraded(i) else spared
            differences.append(difference)
    assert hit
    assert np.median(hit) > 1.5 * np.median(spared)


def test_strength_zero_leaves_an_effect_out(world):
    def flow():
        return world.flow(1, 0)

    image = world.image(0)
    off = Degradation(3, noise=0, blur=0, flicker=0, dropout=0)
    assert all(np.array_equal(off.apply(image, t, flow), image) for t in range(20))
    assert not any(off.failure(t) for t in range(300))
    for name in ("noise", "blur", "flicker"):
        strengths = dict.fromkeys(("noise", "blur", "flicker", "dropout"), 0) | {name: 1.0}
        changed = Degradation(3, **strengths).apply(image, 7, flow)
        assert not np.array_equal(changed, image), name
    with pytest.raises(ValueError, match="noise=-1"):
        Degradation(3, noise=-1)


def test_noise_differs_from_frame_to_frame():
    image = np.full((*SIZE, 3), 128, np.uint8)
    noisy = Degradation(3, blur=0, flicker=0, dropout=0)
    a, b = (noisy.apply(image, t, None).astype(float) - 128 for t in (4, 5))
    assert a.std() > 1
    assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.1


def test_motion_blur_smears_along_the_flow():
    image = np.zeros((*SIZE, 3), np.uint8)
    image[:, ::16] = 255  # upright lines
    seed = next(s for s in range(50) if Degradation(s).shutter > 0.3)
    blurred = Degradation(seed, noise=0, blur=1, flicker=0, dropout=0)
    sideways, upwards = np.zeros((2, 2, *SIZE), np.float32)
    sideways[0] = 8
    upwards[1] = 8
    across = blurred.apply(image, 3, lambda: sideways).astype(float)
    along = blurred.apply(image, 3, lambda: upwards).astype(float)
    assert across.std() < 0.7 * along.std()


@pytest.mark.parametrize("kind", KINDS)
def test_a_dropout_changes_its_area_and_nothing_else(world, kind):
    image = world.image(0)
    dropout = Dropout(kind, (0.25, 0.5), (0.5, 0.75))
    before = image.copy()
    failed = dropout.apply(image, np.random.default_rng(0))
    changed = (failed != image).any(-1)
    assert np.array_equal(image, before)
    assert changed[32:64, 128:192].mean() > 0.5
    changed[32:64, 128:192] = False
    assert not changed.any()
