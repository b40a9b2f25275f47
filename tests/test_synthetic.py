"""The synthetic world: its rendered streets, exact labels, optical flow and occlusion."""

import hashlib
import pickle
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets.clip import ClipDataset
from datasets.synthetic import LABELS, SyntheticVideo, videos
from datasets.synthetic.video import WORLDS, shared_world
from datasets.synthetic.world import CLASSES, PALETTE, World

SIZE = (128, 256)


@pytest.fixture(scope="module")
def worlds() -> list[World]:
    return [World(seed, SIZE, 16) for seed in range(4)]


def grid(shape):
    return np.arange(shape[1], dtype=np.float32), np.arange(shape[0], dtype=np.float32)[:, None]


def sample(picture, flow, how=cv2.INTER_LINEAR):
    """Picture read where `flow` points to."""
    x, y = grid(flow.shape[1:])
    return cv2.remap(picture, flow[0] + x, flow[1] + y, how, borderMode=cv2.BORDER_REPLICATE)


def digest(video: SyntheticVideo, index: int) -> str:
    parts = (
        video.frame(index),
        video.label(index),
        video.flow(index, index - 1),
        video.occlusion(index, index - 1),
    )
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


# The same seed, the same bytes


def test_frames_do_not_depend_on_the_order_in_which_they_are_asked_for():
    forward = World(5, SIZE, 12)
    backward = World(5, SIZE, 12)
    there = [(forward.image(t), forward.labels(t)) for t in range(12)]
    back = [(backward.image(t), backward.labels(t)) for t in reversed(range(12))][::-1]
    for (image, labels), (again, labels_again) in zip(there, back, strict=True):
        assert np.array_equal(image, again)
        assert np.array_equal(labels, labels_again)


def test_another_process_renders_the_same_bytes():
    code = (
        "from test_synthetic import digest, videos\n"
        "print(digest(videos('val', 3, 9, (64, 128))[2], 7))"
    )
    root = Path(__file__).resolve().parents[1]
    environment = {"PYTHONPATH": f"{root}:{root / 'tests'}", "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", code]
    other = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert other.stdout.strip() == digest(videos("val", 3, 9, (64, 128))[2], 7)


def test_what_a_caller_does_to_an_image_does_not_reach_the_next_caller(worlds):
    before = worlds[0].image(3)
    worlds[0].image(3)[:] = 0
    assert before.any()
    assert np.array_equal(worlds[0].image(3), before)


def test_seeds_give_different_streets(worlds):
    assert len({world.image(0).tobytes() for world in worlds}) == len(worlds)


def test_splits_and_seeds_share_no_video():
    lists = [
        videos(split, 300, 5, SIZE, seed=seed)
        for split in ("train", "val", "test")
        for seed in (0, 1)
    ]
    seeds = [video.seed for part in lists for video in part]
    assert len(set(seeds)) == len(seeds) == 1800


def test_more_videos_continue_the_same_list():
    assert videos("train", 9, 5, SIZE)[:4] == videos("train", 4, 5, SIZE)


def test_an_unknown_split_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="'validation'.*train, val, test"):
        videos("validation", 1, 5, SIZE)


# Labels


def test_every_class_shows_in_a_handful_of_videos():
    counts = np.zeros(len(CLASSES))
    for video in videos("train", 8, 16, SIZE):
        for index in (0, 15):
            counts += np.bincount(video.label(index).ravel(), minlength=len(CLASSES))
    shares = dict(zip(CLASSES, counts / counts.sum(), strict=True))
    assert min(shares.values()) > 0.002, shares
    assert max(shares.values()) < 0.6, shares


def test_labels_are_classes_and_have_names_and_colours(worlds):
    assert len(CLASSES) == len(PALETTE) == len(set(PALETTE)) == len(LABELS.names)
    for world in worlds:
        labels = world.labels(4)
        image = world.image(4)
        assert labels.dtype == image.dtype == np.uint8
        assert labels.shape == SIZE
        assert image.shape == (*SIZE, 3)
        assert labels.max() < len(CLASSES)


def test_the_sky_is_above_the_road(worlds):
    for world in worlds:
        labels = world.labels(4)
        rows = []  # mean row of each class
        for name in ("sky", "building", "road"):
            y, _ = np.nonzero(labels == CLASSES.index(name))
            rows.append(y.mean())
        assert rows == sorted(rows)


@pytest.mark.parametrize("size", [(1, 1), (33, 57), (97, 161), (150, 90), (64, 333)])
def test_any_size_can_be_rendered(size):
    world = World(2, size, 3)
    assert world.image(2).shape == (*size, 3)
    assert world.labels(2).shape == size
    assert world.flow(1, 2).shape == (2, *size)
    assert world.occlusion(1, 2).shape == size


def test_a_smaller_picture_shows_the_same_street(worlds):
    half = (SIZE[0] // 2, SIZE[1] // 2)
    small = World(0, half, 16).labels(4)
    enlarged = small.repeat(2, 0).repeat(2, 1)
    assert (enlarged == worlds[0].labels(4)).mean() > 0.93


def test_impossible_worlds_and_frames_are_refused(worlds):
    for wrong in ({"size": (0, 9)}, {"length": 0}, {"fps": 0.0}):
        with pytest.raises(ValueError, match="above 0"):
            World(0, **wrong)
    for index in (-1, 16):
        with pytest.raises(ValueError, match=f"frame {index} of a video of 16"):
            worlds[0].image(index)
    with pytest.raises(ValueError, match="frame 16"):
        worlds[0].flow(0, 16)


# Flow and occlusion


@pytest.mark.parametrize("step", [1, -1, 3])
def test_a_frame_warped_by_the_flow_is_the_other_frame(worlds, step):
    for world in worlds:
        here = world.image(8).astype(np.float32)
        there = world.image(8 + step).astype(np.float32)
        flow = world.flow(8, 8 + step)
        seen = ~world.occlusion(8, 8 + step)
        error = np.abs(sample(there, flow) - here).mean(2)[seen].mean()
        unwarped = np.abs(there - here).mean(2)[seen].mean()
        assert error < 3, (error, unwarped)
        assert error < 0.3 * unwarped, (error, unwarped)
        carried = sample(world.labels(8 + step), flow, cv2.INTER_NEAREST)
        assert (carried == world.labels(8))[seen].mean() > 0.999


@pytest.mark.parametrize("step", [1, -2])
def test_flow_there_and_back_ends_where_it_began(worlds, step):
    for world in worlds:
        flow = world.flow(8, 8 + step)
        seen = ~world.occlusion(8, 8 + step)
        back = np.stack([sample(part, flow) for part in world.flow(8 + step, 8)])
        missed = np.hypot(*(flow + back))[seen]
        # reading the way back between its pixels is not exact where perspective bends it
        assert np.median(missed) < 0.01
        assert np.quantile(missed, 0.99) < 0.3


def test_flow_is_where_points_in_space_go(worlds):
    """Compares with ray casting, without homographies.

    A ray through the pixel meets the patch's plane, the point moves with the patch, and the later
    camera projects it.
    """
    for world in worlds:
        ids = world.render(8).ids
        flow = world.flow(8, 10)
        turn, eye = world.street.ride.pose(8 / world.fps)
        turn_later, eye_later = world.street.ride.pose(10 / world.fps)
        for y, x in np.random.default_rng(1).integers(0, SIZE, (200, 2)):
            ray = turn.T @ np.linalg.inv(world.view(8).project) @ (x, y, 1)
            if ids[y, x]:
                patch = world.street.patches[ids[y, x] - 1]
                origin = patch.origin + patch.velocity * 8 / world.fps
                normal = np.cross(patch.u, patch.v)
                point = eye + ray * ((origin - eye) @ normal) / (ray @ normal)
                seen = turn_later @ (point + patch.velocity * 2 / world.fps - eye_later)
            else:  # the sky is infinitely far: only its direction counts
                seen = turn_later @ ray
            if seen[2] > 0.1:
                expected = (world.view(10).project @ seen / seen[2])[:2] - (x, y)
                np.testing.assert_allclose(flow[:, y, x], expected, atol=2e-3, rtol=1e-4)


def test_flow_to_the_same_frame_is_zero_and_hides_nothing(worlds):
    for world in worlds:
        assert not world.flow(5, 5).any()
        assert not world.occlusion(5, 5).any()


def test_some_but_not_all_is_hidden_and_more_so_with_time(worlds):
    for world in worlds:
        near = world.occlusion(2, 3).mean()
        far = world.occlusion(2, 14).mean()
        assert 0.005 < near < 0.5
        assert near < far < 1


def test_points_outside_the_other_frame_are_hidden_and_flow_stays_finite(worlds):
    for world in worlds:
        flow = world.flow(0, 15)
        columns, rows = grid(SIZE)
        x = flow[0] + columns
        y = flow[1] + rows
        outside = (x < -0.01) | (y < -0.01) | (x > SIZE[1] - 0.99) | (y > SIZE[0] - 0.99)
        assert outside.any()
        assert world.occlusion(0, 15)[outside].all()
        assert np.isfinite(flow).all()
        assert flow.dtype == np.float32


@pytest.mark.parametrize("name", ["car", "person"])
def test_cars_and_people_move_against_what_stands_still(name):
    """The flow of a moving thing is not the one it would have if only the camera moved."""
    moving = 0
    for seed in range(8):
        world = World(seed, SIZE, 10)
        ids = world.render(5).ids
        flow = world.flow(5, 7)
        moves = (ids > 0) & (np.abs(world.velocity).sum(1)[ids - 1] > 0)
        # everything stops where it is at frame 5
        world.origin = world.origin + world.velocity * 5 / world.fps
        world.velocity = 0 * world.velocity
        still = world.flow(5, 7)
        assert np.array_equal(flow[:, ~moves], still[:, ~moves])
        mine = moves & (world.labels(5) == CLASSES.index(name))
        moving += (np.hypot(*(flow - still))[mine] > 0.5).sum()
    assert moving > 100


def test_the_frame_rate_sets_how_far_things_move_per_frame():
    slow = World(4, SIZE, 10, fps=10.0)
    fast = World(4, SIZE, 30, fps=30.0)
    assert np.array_equal(slow.image(4), fast.image(12))  # the same moment
    assert np.array_equal(slow.flow(4, 5), fast.flow(12, 15))
    slow_step = np.median(np.hypot(*slow.flow(4, 5)))
    fast_step = np.median(np.hypot(*fast.flow(12, 13)))
    assert slow_step > 2 * fast_step > 0


# As a data set


def test_a_video_keeps_the_contract_of_videos():
    video = videos("train", 4, 20, SIZE, fps=10.0)[3]
    assert video.name == "train_0003"
    assert video.frame_name(12) == "train_0003_000012"
    assert video.fps == 10.0
    assert len(video) == 20
    assert list(video.labelled) == list(range(20))
    assert video.frame(2).shape == (*SIZE, 3)
    assert video.label(2).shape == SIZE


def test_clips_come_with_flows_that_point_from_each_frame_to_the_one_before():
    data = ClipDataset(
        videos("train", 1, 12, SIZE, degrade=False),
        LABELS,
        lambda raw, rng: raw,
        startup=lambda past: (-2, -1),
        with_flows=True,
    )
    clip = data[6]
    assert data.dense
    assert clip.flows.shape == (2, 2, *SIZE)
    assert clip.name == "train_0000/train_0000_000006"
    older, newer = (frame.permute(1, 2, 0).numpy() for frame in clip.frames[1:])
    seen = ~data.videos[0].occlusion(6, 5)
    error = np.abs(sample(older, clip.flows[1].numpy()) - newer).mean(2)[seen].mean()
    assert error < 0.3 * np.abs(older - newer).mean(2)[seen].mean()


def test_a_thousand_videos_are_listed_at_once_and_travel_light():
    begin = time.perf_counter()
    many = videos("train", 1000, 3000, (1024, 2048))  # to render one would take far longer
    assert time.perf_counter() - begin < 2
    assert shared_world.cache_info().currsize <= WORLDS
    assert len(pickle.dumps(many[7])) < 1000
    small = videos("train", 1, 5, (32, 64))[0]
    copy = pickle.loads(pickle.dumps(small))
    assert copy == small
    assert np.array_equal(copy.frame(2), small.frame(2))


def test_a_frame_is_drawn_once_for_image_label_and_flow(monkeypatch):
    drawn = []
    draw = World.draw
    monkeypatch.setattr(World, "draw", lambda self, t: drawn.append(t) or draw(self, t))
    shared_world.cache_clear()
    video = videos("val", 1, 8, (64, 128))[0]
    for i in range(1, 4):
        video.frame(i)
        video.label(i)
        video.flow(i, i - 1)
        video.occlusion(i, i - 1)
    assert sorted(drawn) == [0, 1, 2, 3]


def test_memory_stays_bounded():
    def size(world):
        textures = world.street.look.all
        return sum(level.nbytes for texture in textures for level in texture.levels.values())

    long = World(0, (64, 128), 400)
    for t in range(0, 400, 5):
        long.image(t)
    assert len(long.frames) < 10
    assert size(long) < 16e6
    for video in videos("train", 12, 3, (32, 64)):
        video.frame(0)
    assert shared_world.cache_info().currsize <= WORLDS
