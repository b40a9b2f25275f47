"""--output split-screen: two runs of one source in one video, divided by a line that moves."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from command import SINGLE, assert_one_line, call, perform
from test_endings import frames_in
from utils.output.label_images import LabelWriter
from utils.output.split_screen import LINE, PERIOD, OtherLabels, SplitScreen, border, divided
from utils.output.video import probe

SIZE = (180, 320)
PALETTE = ((200, 0, 0), (0, 200, 0))
FOREIGN = ((0, 0, 250), (9, 9, 9))
RUN = ["--inference", *SINGLE, "--threads", "1", "--device", "cpu"]


def screen(folder, *, palette=PALETTE, shown=None, frames: int = 1) -> SplitScreen:
    """The other run says 0 everywhere, in colours of its own."""
    writer = LabelWriter(folder, palette=palette)
    for name in range(frames):
        writer.write(str(name), np.zeros(SIZE, np.uint8))
    others = OtherLabels(folder)
    return SplitScreen(others, ("theirs", "ours"), PALETTE, alpha=1.0, fps=10.0, shown=shown)


def draw(split: SplitScreen, name: str = "0", time: float | None = 0.0) -> np.ndarray:
    grey = np.full((*SIZE, 3), 90, np.uint8)
    return split.draw(grey, name, np.ones(SIZE, np.uint8), time)


# Pictures


def test_the_other_run_is_lower_left_and_this_one_upper_right(tmp_path):
    picture = draw(screen(tmp_path))
    assert tuple(picture[60, 10]) == PALETTE[0] and tuple(picture[120, 310]) == PALETTE[1]
    top, bottom = (np.flatnonzero((picture[row] == LINE).all(1)) for row in (0, 179))
    assert len(top) and len(bottom) and top.mean() < 160 < bottom.mean(), "it is slanted"


def test_both_captions_are_light_text_on_a_dark_ground(tmp_path):
    picture = draw(screen(tmp_path)).astype(int)
    for corner in (picture[150:, :60], picture[:30, 270:]):
        assert corner.max() > 200 and (corner.sum(2) < 100).sum() > 100


def test_the_line_goes_slowly_to_and_fro():
    places = [border(100, 200, second)[50] for second in np.arange(0, PERIOD, 0.04)]
    assert np.abs(np.diff(places)).max() < 1
    assert 45 < min(places) < 55 and 145 < max(places) < 155
    assert places[0] == pytest.approx(border(100, 200, PERIOD)[50])


def test_every_pixel_is_of_one_side_or_of_the_line():
    left, right = np.full((9, 14, 3), 10, np.uint8), np.full((9, 14, 3), 20, np.uint8)
    picture = divided(left, right, 3.0)
    assert set(np.unique(picture)) == {10, 20, 255}


def test_without_times_the_rate_says_where_the_line_is(tmp_path):
    first, second = screen(tmp_path / "a", frames=2), screen(tmp_path / "b", frames=2)
    draw(first, time=None)
    assert np.array_equal(draw(first, "1", time=None), draw(second, "1", time=0.1))


def test_the_other_run_keeps_the_colours_of_its_own_classes(tmp_path):
    assert tuple(draw(screen(tmp_path, palette=FOREIGN))[60, 10]) == FOREIGN[0]


def test_classes_that_are_not_shown_show_the_frame_on_both_sides(tmp_path):
    picture = draw(screen(tmp_path / "own", shown=[1]))
    assert tuple(picture[60, 10]) == (90, 90, 90) and tuple(picture[120, 310]) == PALETTE[1]
    foreign = draw(screen(tmp_path / "other", palette=FOREIGN, shown=[1]))
    assert tuple(foreign[60, 10]) == FOREIGN[0], "an id means another class there"


def test_frames_of_a_few_pixels_are_drawn(tmp_path):
    LabelWriter(tmp_path).write("0", np.zeros((2, 3), np.uint8))
    split = SplitScreen(OtherLabels(tmp_path), ("a", "b"), PALETTE, alpha=0.5, fps=10)
    assert split.draw(np.zeros((2, 3, 3), np.uint8), "0", np.zeros((2, 3), np.uint8)).shape[0] == 2


def test_memory_does_not_grow(tmp_path):
    split = screen(tmp_path)
    for _ in range(3):
        draw(split)
    tracemalloc.start()
    for _ in range(20):
        draw(split)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 100_000


@pytest.mark.parametrize(
    ("labels", "said"),
    [(np.zeros((5, 5), np.uint8), "is 5x5, the frame 180x320"), (None, "has no 0.png")],
)
def test_a_label_of_another_size_and_a_missing_one_are_named(labels, said, tmp_path):
    if labels is not None:
        LabelWriter(tmp_path).write("0", labels)
    split = SplitScreen(OtherLabels(tmp_path), ("a", "b"), PALETTE, alpha=0.5, fps=10)
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        draw(split)


def test_a_file_that_is_no_picture_is_named(tmp_path):
    (tmp_path / "0.png").write_text("no picture")
    split = SplitScreen(OtherLabels(tmp_path), ("a", "b"), PALETTE, alpha=0.5, fps=10)
    with pytest.raises(ValueError, match="0.png cannot be read"):
        draw(split)


# Runs


@pytest.fixture
def baseline(weights, tmp_path):
    """Words of a run of the source, and the savedir of one that kept its labels."""
    words = [*RUN, "--source", frames_in(tmp_path / "in"), "--weights", weights]
    perform(*words, "--output", "labels", "--savedir", tmp_path / "base")
    return words, tmp_path / "base"


def test_two_runs_become_a_video(baseline, tmp_path):
    words, base = baseline
    words += ["--output", "split-screen", "--savedir", tmp_path / "out"]
    perform(*words, "--compare-with", base)
    frames = len(list((base / "in_labels").glob("*.png")))
    found = probe(tmp_path / "out" / "in_split_screen.mp4")
    assert found["frames"] == frames and tuple(found["size"]) == (32, 48)
    # The same method and network: their folders tell them apart.
    args = (tmp_path / "out" / "args.txt").read_text()
    assert f"--compare-with {base}" in args


def test_what_cannot_be_compared_is_told_before_a_frame_is_labelled(baseline, tmp_path):
    words, base = baseline
    words += ["--output", "split-screen", "--savedir", tmp_path / "out"]
    done = call(*words)
    assert_one_line(done, "split-screen needs --compare-with", tmp_path / "out")
    done = call(*words, "--compare-with", tmp_path / "in")
    assert_one_line(done, "holds no inference", tmp_path / "out")
    done = call(*words, "--compare-with", base, "--source", frames_in(tmp_path / "other"))
    assert_one_line(done, "has no labels of other", tmp_path / "out")
    (base / "in_labels" / "1.png").unlink()
    done = call(*words, "--compare-with", base)
    assert "has the labels of" in done.stderr and done.returncode == 2
    assert not list((tmp_path / "out").glob("*.mp4"))


def test_one_picture_becomes_a_picture(baseline, weights, tmp_path):
    words = [*RUN, "--source", tmp_path / "in" / "1.png", "--weights", weights]
    perform(*words, "--output", "labels", "--savedir", tmp_path / "one")
    words += ["--output", "split-screen", "--compare-with", tmp_path / "one"]
    perform(*words, "--savedir", tmp_path / "two")
    assert Image.open(tmp_path / "two" / "1_split_screen.png").size == (48, 32)
