"""VC against windows looked at one by one, the official script's numbers, a real clip and laws."""

import math

import numpy as np
import pytest
from PIL import Image

from golden import case
from label_maps import measured, same_numbers, vspw_videos
from utils.metrics import VideoConsistency


def video(seed, frames, classes=4, shape=(6, 7)):
    """Labels and predictions that rarely change, some ignored pixels."""
    rng = np.random.default_rng(seed)

    def slow(change):
        maps = [rng.integers(0, classes, shape)]
        while len(maps) < frames:
            maps.append(
                np.where(rng.random(shape) < change, rng.integers(0, classes, shape), maps[-1])
            )
        return np.stack(maps)

    labels = slow(0.05)
    predictions = np.where(rng.random((1, *shape)) < 0.7, labels, slow(0.05))
    labels = np.where(rng.random((1, *shape)) < 0.1, 255, labels)
    labels[frames // 2][rng.random(shape) < 0.1] = 255
    return labels.astype(np.uint8), predictions.astype(np.uint8)


def vc_by_hand(videos, n, mode):
    scores = []
    for labels, predictions in videos:
        frames = len(labels)
        starts = (
            range(frames - n + 1) if mode == "correct" else range(frames - n) if frames > 16 else ()
        )
        for i in starts:
            g, p = labels[i : i + n], predictions[i : i + n]
            same_g, same_p = (g == g[0]).all(0), (p == p[0]).all(0)
            if mode == "correct":
                same_g &= (g != 255).all(0)
                same_p = (p == g).all(0)
            if same_g.any():
                scores.append((same_g & same_p).sum() / same_g.sum())
    return np.mean(scores)


@pytest.mark.parametrize("mode", VideoConsistency.MODES)
@pytest.mark.parametrize("length", [1, 3, 8])
def test_vc_equals_windows_looked_at_one_by_one(mode, length):
    videos = [video(1, 20), video(2, 17), video(3, 16), video(4, 9)]
    metric = VideoConsistency(length, mode)
    for one in videos:
        metric.update(*one)
    assert metric.compute()[f"VC{length}"] == pytest.approx(
        vc_by_hand(videos, length, mode), rel=1e-12
    )
    assert metric.compute()["skipped_videos"] == (2 if mode == "vspw" else 0)


@pytest.mark.parametrize("mode", VideoConsistency.MODES)
def test_vc_does_not_depend_on_order_ranks_or_how_frames_arrive(mode):
    videos = [video(seed, frames) for seed, frames in ((1, 20), (2, 24), (3, 18), (4, 5))]
    whole = VideoConsistency(8, mode)
    for one in videos:
        whole.update(*one)
    ranks = VideoConsistency(8, mode), VideoConsistency(8, mode)
    for rank, indices in zip(ranks, ((3, 1), (2, 0)), strict=True):
        for index in indices:
            buffers = np.empty((6, 7), np.uint8), np.empty((6, 7), np.uint8)
            for label, prediction in zip(*videos[index], strict=True):
                buffers[0][:], buffers[1][:] = label, prediction  # a reader that reuses its buffers
                rank.update_frame(*buffers)
            rank.end_video()
    same_numbers(ranks[0].merge(ranks[1]).compute(), whole.compute())


def test_a_constant_prediction_fools_the_official_vc_and_is_called_degenerate():
    labels, _ = video(5, 20)
    nothing = np.zeros_like(labels)
    official, correct = VideoConsistency(8, "vspw"), VideoConsistency(8)
    for metric in (official, correct):
        metric.update(labels, nothing)
        assert metric.compute()["constant_videos"] == 1
    assert official.compute()["VC8"] == 1 and correct.compute()["VC8"] < 0.5


def test_only_a_prediction_that_is_constant_and_wrong_is_degenerate():
    labels, predictions = video(6, 20)
    still = np.repeat(np.where(labels[:1] == 255, 0, labels[:1]), 20, 0)
    for truth, guess, expected in (
        (labels, predictions, 0),
        (still, still, 0),
        (labels, still, 1),
        (labels[:1], np.zeros_like(labels[:1]), 0),
    ):
        metric = VideoConsistency(8)
        metric.update(truth, guess)
        assert metric.compute()["constant_videos"] == expected


def test_a_perfect_video_scores_one_and_short_ones_are_counted():
    labels, _ = video(7, 20)
    metric = VideoConsistency(16)
    metric.update(labels, np.where(labels == 255, 0, labels))
    metric.update(labels[:15], labels[:15])
    assert metric.compute() == {
        "VC16": 1.0,
        "video_mean": 1.0,
        "windows": 5,
        "videos": 2,
        "skipped_videos": 1,
        "constant_videos": 0,
    }
    assert math.isnan(VideoConsistency(8).compute()["VC8"])


def test_a_video_that_was_not_ended_is_not_lost_silently():
    metric = VideoConsistency(2)
    frame = np.zeros((2, 2), np.uint8)
    metric.update_frame(frame, frame)
    for use in (
        metric.compute,
        lambda: metric.merge(VideoConsistency(2)),
        lambda: VideoConsistency(2).merge(metric),
        lambda: metric.update(frame[None], frame[None]),
    ):
        with pytest.raises(RuntimeError, match="end_video"):
            use()
    with pytest.raises(ValueError, match="one shape"):
        metric.update_frame(frame[:1], frame[:1])
    with pytest.raises(ValueError, match=r"\(T, H, W\)"):
        VideoConsistency(2).update(frame, frame)


def test_vc_of_the_official_script():
    golden = case("mrcfa/vc_metrics").arrays
    for length in (8, 16):
        metric = VideoConsistency(length, "vspw")
        for labels, predictions in vspw_videos(golden, ("a", "b", "c", "short")):
            metric.update(labels, predictions)
        assert metric.compute()[f"VC{length}"] == pytest.approx(
            float(golden[f"mVC{length}_f64"]), rel=1e-12
        )
        assert metric.compute()["skipped_videos"] == 1
        for scores, name in zip(metric.scores, "abc", strict=True):
            np.testing.assert_allclose(scores, golden[f"vc{length}_clips_{name}_f64"], rtol=1e-12)


# Known numbers of a real clip


def test_camvid_anchors_of_oracles_that_are_late_or_hold(shared):
    """Predictors made of the ground truth of 101 frames; the numbers (percent) were measured
    elsewhere."""
    files = sorted((shared / "camvid" / "valannot").glob("*.png"))
    camvid_labels = np.stack([np.array(Image.open(file)) for file in files])
    camvid_labels[camvid_labels == 11] = 255

    def percent(value):
        return round(100 * value, 2)

    filled = np.where(
        camvid_labels == 255, 11, camvid_labels
    )  # where an oracle knows no class it says none
    assert len(filled) == 101
    for delay, expected in ((1, 73.55), (2, 63.62), (3, 57.30)):
        assert percent(measured(11, (camvid_labels[delay:], filled[:-delay]))["mIoU"]) == expected
    constant = np.full_like(filled, 3)
    assert percent(measured(11, (camvid_labels, constant))["mIoU"]) == 2.68
    for predictions, expected in (
        (constant, (100, 100, 33.54)),
        (filled[np.arange(101) // 2 * 2], (98.86, 99.16, 98.87)),
        (filled[np.arange(101) // 10 * 10], (94.75, 95.64, 94.15)),
    ):
        metrics = VideoConsistency(8, "vspw"), VideoConsistency(16, "vspw"), VideoConsistency(8)
        for metric in metrics:
            metric.update(camvid_labels, predictions)
        assert (
            tuple(percent(metric.compute()[f"VC{metric.length}"]) for metric in metrics) == expected
        )
