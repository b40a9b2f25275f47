"""Synthetic past motion: the past moves as in a drive, and its labels and flows are exact."""

import random

import numpy as np
import pytest

import main
from datasets.clip import RawClip
from datasets.pipeline import training_transform
from datasets.synthetic_past import SPEED, SyntheticPast, draw_motion, pixel_grid

pytest.importorskip("cv2")
SIZE = (120, 160)
COLOURS = np.array([[0, 0, 0], [200, 40, 0], [0, 90, 250], [30, 250, 60]], np.uint8)


def clip(length=4, size=SIZE) -> RawClip:
    """Four classes in blocks of 20 pixels, the frame in their colours; the past is noise."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 4, (size[0] // 20, size[1] // 20), np.uint8).repeat(20, 0).repeat(20, 1)
    past = [rng.integers(0, 256, (*size, 3), np.uint8) for _ in range(length - 1)]
    return RawClip([*past, COLOURS[label]], [None] * (length - 1) + [label], None)


def positions(length: int) -> RawClip:
    """A clip without labels whose frames show their own positions: red is x and green is y."""
    x, y = grid()
    picture = np.stack([x, y, 0 * x], -1).astype(np.uint8)
    return RawClip([picture] * length, [None] * length, None)


def same(a: RawClip, b: RawClip) -> bool:
    """Whether frames and labels are equal."""
    pairs = [*zip(a.frames, b.frames, strict=True), *zip(a.labels, b.labels, strict=True)]
    return all(np.array_equal(x, y) for x, y in pairs)


def grid() -> np.ndarray:
    return pixel_grid(SIZE)


def at_speed(motion, widths: float):
    """The motion, scaled so that its fastest pixel moves by so many frame widths."""
    return motion.scaled(widths * SIZE[1] / np.hypot(*motion.velocity(grid())).max())


# The motion


@pytest.mark.parametrize("seed", range(8))
def test_a_motion_has_its_inverse(seed):
    # twice the speed is the fastest that the strength allows
    motion = at_speed(draw_motion(SIZE, random.Random(seed)), 2 * SPEED)
    np.testing.assert_allclose(motion.next(motion.before(grid())), grid(), atol=1e-3)
    assert np.hypot(*(motion.before(grid()) - grid())).max() > 1


@pytest.mark.parametrize("seed", range(8))
def test_older_frames_show_things_smaller(seed):
    """The corners of a frame, seen in the labelled one, enclose more the longer ago it was."""
    motion = at_speed(draw_motion(SIZE, random.Random(seed)), 0.02)
    areas = []
    points = grid()
    for _ in range(4):
        x, y = points[:, [0, 0, -1, -1], [0, -1, -1, 0]]  # the corners, clockwise
        # the shoelace formula
        areas.append(0.5 * np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))
        points = motion.next(points)
    assert (np.diff(areas) > 0).all()


# The transform


def test_a_clip_without_motion_is_its_labelled_frame_again():
    before = clip()
    after = SyntheticPast(1, strength=0)(before, random.Random(0))
    assert all(np.array_equal(frame, before.frames[-1]) for frame in after.frames)
    assert all(np.array_equal(label, before.labels[-1]) for label in after.labels)


@pytest.mark.parametrize("seed", range(5))
def test_labels_follow_their_frames(seed):
    """Inside a block a pixel has the colour of its label; what came from outside has no label."""
    before = clip()
    after = SyntheticPast(1)(before, random.Random(seed))
    # the labelled frame stays as it is
    assert np.array_equal(after.frames[-1], before.frames[-1])
    assert np.array_equal(after.labels[-1], before.labels[-1])
    for frame, label in zip(after.frames, after.labels, strict=True):
        assert frame.shape == (*SIZE, 3) and label.shape == SIZE
        assert frame.dtype == label.dtype == np.uint8
        known = label != 255
        assert known.mean() > 0.6
        # (N, 3) colours and (N,) labels
        colours = frame[known].astype(int)
        labels = label[known]
        agrees = (colours == COLOURS[labels]).all(1)
        assert 0.8 < agrees.mean(), "all but the edges of blocks, where colours mix"
        distances = np.abs(colours[:, None] - COLOURS.astype(int)).sum(-1)  # (N, 4)
        wrong = distances.argmin(1) != labels
        assert wrong.mean() < 0.06


def test_what_comes_from_outside_is_a_reflection():
    frame = np.full((*SIZE, 3), 77, np.uint8)
    label = np.zeros(SIZE, np.uint8)
    grey = RawClip([frame] * 4, [None] * 3 + [label], None)
    after = SyntheticPast(1)(grey, random.Random(0))
    assert all((frame == 77).all() for frame in after.frames)
    assert (after.labels[0] == 255).any()


def test_frames_move_steadily_away_and_less_than_promised():
    """Positions are read back from the colours of the frames."""
    before = positions(4)
    # red and green, without the margin where reflections may show
    inner = (slice(30, -30), slice(30, -30), slice(2))
    fastest = []
    for seed in range(40):
        after = SyntheticPast(1)(before, random.Random(seed))
        frames = [frame[inner].astype(float).transpose(2, 0, 1) for frame in after.frames]
        moved = [np.hypot(*(frame - frames[-1])) for frame in frames]
        means = [part.mean() for part in moved]
        assert means[3] == 0 and means == sorted(means, reverse=True)
        assert means[0] == pytest.approx(3 * means[2], rel=0.4, abs=1.0)
        assert moved[2].max() <= SPEED * SIZE[1] + 1
        fastest.append(moved[2].max())
    assert min(fastest) <= 1 and max(fastest) > 2.5, "from nearly still to fast"


def test_flows_are_those_of_the_new_clip():
    """A pixel and the one that its flow points to show the same point of the labelled frame."""
    before = positions(3)._replace(flows=[np.ones((2, *SIZE), np.float32)] * 2)
    inner = np.zeros(SIZE, bool)
    inner[25:-25, 25:-25] = True
    for seed in range(4):
        after = SyntheticPast(1)(before, random.Random(seed))
        assert len(after.flows) == 2
        for frame, past, flow in zip(after.frames[1:], after.frames[:-1], after.flows, strict=True):
            assert flow.shape == (2, *SIZE) and flow.dtype == np.float32
            x, y = np.rint(grid() + flow).astype(int)
            error = frame[inner].astype(int) - past[y[inner], x[inner]].astype(int)
            assert np.abs(error).max() <= 2, "the rounding of positions and of both frames"
    assert np.abs(after.flows[0]).max() > 0.5


def test_the_same_draw_gives_the_same_clip_and_another_does_not():
    one, again, other = (SyntheticPast(1)(clip(), random.Random(seed)) for seed in (3, 3, 4))
    assert same(one, again) and not same(one, other)


def test_probability_is_one_draw_per_clip():
    before = clip(2, (20, 20))
    rng = random.Random(0)
    changed = [not same(SyntheticPast(0.3)(before, rng), before) for _ in range(400)]
    assert 0.22 < np.mean(changed) < 0.38
    assert SyntheticPast(0)(before, rng) is before


def test_a_frame_without_past_or_label_stays_so():
    alone = clip(1)
    assert SyntheticPast(1)(alone, random.Random(0)) is alone
    unlabelled = RawClip(clip().frames, [None] * 4, None)
    assert SyntheticPast(1)(unlabelled, random.Random(0)).labels == [None] * 4


def test_impossible_settings_are_refused():
    for wrong in ((1.5, 1), (-0.1, 1), (0.5, -1), (0.5, 3)):
        with pytest.raises(ValueError, match="probability of 0 to 1 and a strength of 0 to 2"):
            SyntheticPast(*wrong)


def test_the_option_puts_it_before_all_else():
    args = main.parse_args(
        "--training --synthetic-past 1 --work-size 60 80 --random-flip 0 --photometric none "
        "--savedir unused".split()
    )
    after = training_transform(args)(clip(), random.Random(0))
    assert {frame.shape for frame in after.frames} == {(60, 80, 3)}
    assert all(label is not None for label in after.labels)
    args.synthetic_past = 0.0
    assert training_transform(args)(clip(), random.Random(0)).labels[:-1] == [None] * 3
