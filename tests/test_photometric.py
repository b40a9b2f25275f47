"""Photometric distortion, drawn as published, and blur."""

import random

import numpy as np

from datasets.clip import RawClip
from datasets.photometric import Distortion, Photometric, RandomBlur, distort, draw_distortion
from known_world import world_clip


def test_photometric_draws_per_frame_unless_shared():
    still = world_clip(1)
    clip = RawClip(still.frames * 3, [None] * 3, None)

    def outcomes(shared, seed):
        """How many different frames three equal ones become."""
        distorted = Photometric(shared)(clip, random.Random(seed))
        return len({frame.tobytes() for frame in distorted.frames})

    assert all(outcomes(True, seed) == 1 for seed in range(10))
    assert any(outcomes(False, seed) == 3 for seed in range(10))


def test_distortions_stay_in_their_ranges():
    drawn = [draw_distortion(random.Random(seed)) for seed in range(2000)]
    ranges = {
        "brightness": (-32, 32),
        "contrast": (0.5, 1.5),
        "saturation": (0.5, 1.5),
        "hue": (-18, 17),
    }
    for name, (low, high) in ranges.items():
        values = [getattr(d, name) for d in drawn if getattr(d, name) is not None]
        assert 900 < len(values) < 1100, f"{name} is drawn half of the time"
        tenth = 0.1 * (high - low)
        assert low <= min(values) < low + tenth
        assert high - tenth < max(values) <= high
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
