"""At which size a video is labelled."""

from __future__ import annotations

import numpy as np
import pytest

import main
from command import SINGLE
from jobs.work_size import LARGEST, WorkSize


def work_size(size=None, exact=False) -> WorkSize:
    words = "--inference --source x --method single --dataset synthetic --interpolation cv2".split()
    args = main.parse_args([*words, "--savedir", "s"], {"work_size": size} if size else {})
    args.exact_work_size = exact
    return WorkSize(args)


def test_a_size_that_is_asked_for_is_taken_as_it_is():
    asked = work_size((64, 64), exact=True)
    assert asked.of((480, 64)) == (64, 64) and asked.note((480, 64)) is None
    assert asked(np.zeros((480, 64, 3), np.uint8)).shape == (64, 64, 3)


@pytest.mark.parametrize(
    "size, seen",
    [
        ((360, 480), (384, 512)),  # the trained shape
        ((1080, 1440), (384, 512)),
        ((720, 1280), (320, 576)),  # wide
        ((1920, 1080), (576, 320)),  # a telephone held upright
        ((2160, 3840), (320, 576)),
    ],
)
def test_a_size_that_weights_bring_keeps_its_pixels_and_the_frame_its_shape(size, seen):
    found = work_size((384, 512))
    assert found.of(size) == seen
    note = found.note(size)
    if seen == (384, 512):
        assert note is None
    else:
        assert f"are labelled at {seen[0]}x{seen[1]}" in note


def test_without_a_size_frames_stay_unless_they_are_larger_than_any_that_weights_know():
    found = work_size()
    image = np.zeros((90, 120, 3), np.uint8)
    assert found(image) is image and found.note((1080, 1920)) is None
    height, width = found.of((2160, 3840))
    assert abs(height * width / LARGEST - 1) < 0.05 and abs(width / height - 16 / 9) < 0.05
    assert "--work-size H W chooses another" in found.note((2160, 3840))


def test_a_size_counts_as_asked_for_where_words_say_it_and_not_where_weights_do():
    words = ["--inference", "--source", "x", *SINGLE, "--backbone", "erf", "--savedir", "s"]
    assert main.parse_args([*words, "--work-size", "64", "64"]).exact_work_size
    brought = main.parse_args(words, {"work_size": (64, 64)})
    assert brought.work_size == (64, 64) and not brought.exact_work_size
