"""TC against a walk over the pixels, the published arithmetic, and laws; gaps in an evaluation."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from command import perform, succeed_as_ranks
from datasets import synthetic
from golden import case, filling
from label_maps import same_numbers
from utils.metrics import TemporalConsistency
from utils.metrics.label_warp import (
    flow_disagreement,
    intersection_and_union,
    warp_etc,
    warp_ids_etc,
)


def test_resample2d_to_the_last_bit():
    golden = case("etc/warp").arrays
    flow = torch.from_numpy(golden["in_flow"])
    images = filling().image("warp_x", (2, 3, 24, 40))
    for theirs, flows in ((golden["warped"], flow), (golden["warped_int"], flow.round())):
        ours = torch.stack([warp_etc(image, one) for image, one in zip(images, flows, strict=True)])
        np.testing.assert_array_equal(ours.numpy(), theirs)
    labels = torch.from_numpy(golden["in_label"])
    np.testing.assert_array_equal(
        warp_etc(labels.float(), flow[0]).numpy(), golden["warped_label"][0, 0]
    )
    np.testing.assert_array_equal(
        warp_ids_etc(labels, flow[0]).numpy(), golden["warped_label_uint8"]
    )
    rounded = warp_etc(labels.float(), flow[0]).round()
    assert (warp_ids_etc(labels, flow[0]) != rounded).any()  # truncation matters here


def test_etc_counts_both_ways_of_treating_the_edge():
    golden = case("etc/iou_counts").arrays
    output, target = (torch.from_numpy(golden[name]) for name in ("in_output", "in_target"))
    for edge, prefix in (("closed", ""), ("open", "gpu_")):
        counted = intersection_and_union(output, target, 19, edge)
        for ours, name in zip(counted, ("intersection", "union", "target"), strict=True):
            np.testing.assert_array_equal(ours.numpy(), golden[prefix + name])
    assert (golden["union"] != golden["gpu_union"]).any()


def test_tc_is_the_published_arithmetic():
    golden = case("etc/tc_integer").arrays
    whole, pairs = TemporalConsistency(19, "etc"), 0
    for clip in ("clipa", "clipb"):
        maps, flows = golden[f"in_pred_{clip}"], golden[f"in_flow_{clip}"]
        for prediction, following, flow in zip(maps[:-1], maps[1:], flows, strict=True):
            one = TemporalConsistency(19, "etc")
            one.update(prediction, following, flow)
            np.testing.assert_array_equal(one.counts[0, 0], golden["pair_intersection"][pairs])
            np.testing.assert_array_equal(one.counts[0, 1], golden["pair_union"][pairs])
            whole.merge(one)
            pairs += 1
    for ours, name in zip(whole.counts[0], ("intersection", "union", "target"), strict=True):
        np.testing.assert_array_equal(ours, golden[name])
    result = whole.compute()
    np.testing.assert_allclose(np.nan_to_num(result["IoU"]), golden["f64_iou_class"], rtol=1e-12)
    for ours, name in (("TC", "mIoU"), ("class_accuracy", "mAcc"), ("pixel_accuracy", "allAcc")):
        assert result[ours] == pytest.approx(float(golden[f"f64_{name}"]), rel=1e-12)
    assert result["pairs"] == 9


def motion(seed, shape=(9, 13), classes=5, step=None):
    """Two predictions and a flow, rounded to multiples of `step`."""
    rng = np.random.default_rng(seed)
    flow = rng.normal(0, 4, (2, *shape)).astype(np.float32)
    maps = rng.integers(0, classes, (2, *shape)).astype(np.uint8)
    return *maps, (np.round(flow / step) * step if step else flow)


def tc_by_hand(mode, classes, *pairs):
    """Mean IoU over present classes, pixel by pixel, of (prediction, next, flow[, occluded])."""
    hits, union, valid, total = np.zeros(classes), np.zeros(classes), 0, 0
    for prediction, following, flow, *occluded in pairs:
        height, width = prediction.shape
        for y in range(height):
            for x in range(width):
                total += 1
                column, row = (
                    math.floor(x + float(flow[0, y, x]) + 0.5),
                    math.floor(y + float(flow[1, y, x]) + 0.5),
                )
                inside = 0 <= column < width and 0 <= row < height
                if mode == "strict" and (not inside or occluded and occluded[0][y, x]):
                    continue
                valid += 1
                a = prediction[y, x]
                b = following[min(max(row, 0), height - 1), min(max(column, 0), width - 1)]
                for c in range(classes):
                    hits[c] += a == c == b
                    union[c] += c in (a, b)
    return np.mean(hits[union > 0] / union[union > 0]), valid / total


@pytest.mark.parametrize("mode", ["nearest", "strict"])
@pytest.mark.parametrize("classes", [5, 4, 8])  # all ids, one that is no class, three absent ones
def test_tc_equals_a_walk_over_the_pixels(mode, classes):
    pairs = [motion(seed) for seed in range(3)] + [motion(3, step=1), motion(4, step=0.5)]
    metric = TemporalConsistency(classes, mode)
    for pair in pairs:
        metric.update(*pair)
    expected, valid = tc_by_hand(mode, classes, *pairs)
    result = metric.compute()
    assert result["TC"] == result["TC_present"] == pytest.approx(expected, rel=1e-12)
    assert result["valid_fraction"] == pytest.approx(valid)
    assert result["TC_all"] == pytest.approx(expected * min(classes, 5) / classes)


def test_an_occlusion_mask_takes_its_pixels_out():
    prediction, following, flow = motion(4)
    occluded = np.random.default_rng(0).random(prediction.shape) < 0.4
    metric = TemporalConsistency(5)
    metric.update(prediction, following, flow, occluded=occluded)
    expected, valid = tc_by_hand("strict", 5, (prediction, following, flow, occluded))
    assert metric.compute()["TC"] == pytest.approx(expected, rel=1e-12)
    assert (
        metric.compute()["valid_fraction"] == pytest.approx(valid)
        and metric.compute()["masked_pairs"] == 1
    )
    for mode in ("nearest", "etc"):
        with pytest.raises(ValueError, match="no occlusion mask"):
            TemporalConsistency(5, mode).update(prediction, following, flow, occluded=occluded)


def moving_square():
    """A square of 6 x 6 moves 4 to the right over a still scene; what it covers has no match."""
    first, second = np.zeros((2, 20, 30), np.uint8)
    first[7:13, 8:14], second[7:13, 12:18] = 1, 1
    forward, backward = np.zeros((2, 2, 20, 30), np.float32)
    forward[0][first == 1], backward[0][second == 1] = 4, -4
    return first, second, forward, backward, (first == 0) & (second == 1)


def test_backward_flow_finds_what_gets_covered():
    first, second, forward, backward, covered = moving_square()
    found = flow_disagreement(torch.from_numpy(forward), torch.from_numpy(backward))
    np.testing.assert_array_equal(found.numpy(), covered)
    scores = []
    for masks in ({}, {"backward_flow": backward}, {"occluded": covered}):
        metric = TemporalConsistency(2)
        metric.update(first, second, forward, **masks)
        scores.append(metric.compute()["TC"])
    assert scores[0] < 1 and scores[1] == scores[2] == 1


def test_a_pan_is_no_occlusion_even_half_a_pixel_beyond_the_border():
    flow = torch.tensor([0.4, 3.0])[:, None, None].expand(2, 20, 30)
    assert not flow_disagreement(flow, -flow)[:-3].any()  # the lowest rows leave the frame
    assert flow_disagreement(flow, flow).all()


@pytest.mark.parametrize("shift", [(0, 0), (3, -2), (-5, 1)])
def test_a_prediction_that_moves_with_the_flow_is_perfectly_consistent(shift):
    world = np.random.default_rng(1).integers(0, 4, (40, 50)).astype(np.uint8)
    dx, dy = shift
    first, second = world[10:30, 10:40], world[10 - dy : 30 - dy, 10 - dx : 40 - dx]
    flow = np.broadcast_to(np.array([dx, dy], np.float32)[:, None, None], (2, 20, 30))
    metric = TemporalConsistency(4)
    metric.update(first, second, flow.copy())
    result = metric.compute()
    assert result["TC"] == result["pixel_accuracy"] == 1
    assert result["valid_fraction"] == pytest.approx((20 - abs(dy)) * (30 - abs(dx)) / 600)
    assert (result["no_warp"] == 1) == (shift == (0, 0))


@pytest.mark.parametrize("mode", TemporalConsistency.MODES)
def test_tc_does_not_depend_on_order_or_ranks(mode):
    pairs = [motion(seed) for seed in range(5)]
    whole, ranks = (
        TemporalConsistency(5, mode),
        (TemporalConsistency(5, mode), TemporalConsistency(5, mode)),
    )
    for pair in pairs:
        whole.update(*pair)
    for position, index in enumerate((3, 0, 4, 2, 1)):
        ranks[position % 2].update(*pairs[index])
    same_numbers(ranks[0].merge(ranks[1]).compute(), whole.compute())


def test_without_motion_all_modes_agree_up_to_their_means():
    prediction, following, flow = motion(6, classes=4)
    results = {}
    for mode in TemporalConsistency.MODES:
        metric = TemporalConsistency(6, mode)
        metric.update(prediction, following, 0 * flow)
        results[mode] = metric.compute()
        assert results[mode]["TC"] == results[mode]["no_warp"]
    assert (
        results["strict"]["TC"]
        == results["nearest"]["TC"]
        == pytest.approx(results["etc"]["TC_present"], rel=1e-9)
    )
    assert (
        results["etc"]["TC"]
        == results["etc"]["TC_all"]
        == pytest.approx(results["strict"]["TC_all"], rel=1e-9)
    )


def test_one_class_everywhere_is_consistent_and_is_called_degenerate():
    _, _, flow = motion(7)
    same = np.full(flow.shape[1:], 3, np.uint8)
    metric = TemporalConsistency(5)
    metric.update(same, same, flow)
    assert metric.compute()["TC"] == 1 and metric.compute()["constant_pairs"] == 1
    metric.update(*motion(7))
    assert metric.compute()["constant_pairs"] == 1


def test_flow_far_outside_is_clamped_and_flow_that_is_no_number_is_refused():
    prediction, following, flow = motion(8)
    for mode in TemporalConsistency.MODES:
        metric = TemporalConsistency(5, mode)
        metric.update(prediction, following, np.full_like(flow, 1e30))
        assert metric.compute()["valid_fraction"] == (0 if mode == "strict" else 1)
        corner = np.full_like(prediction, following[-1, -1])
        if mode != "strict":
            expected = TemporalConsistency(5, mode)
            expected.update(prediction, corner, 0 * flow)
            assert metric.compute()["TC"] == expected.compute()["TC"]
    with pytest.raises(ValueError, match="not finite"):
        TemporalConsistency(5).update(prediction, following, np.full_like(flow, np.nan))
    with pytest.raises(ValueError, match=r"flow must have the shape \(2, 9, 13\)"):
        TemporalConsistency(5).update(prediction, following, flow.transpose(1, 2, 0))
    with pytest.raises(ValueError, match="one shape"):
        TemporalConsistency(5).update(prediction, following[:-1], flow)
    for wrong in (-1, 256):
        with pytest.raises(ValueError, match=r"0\.\.255"):
            TemporalConsistency(5).update(prediction, np.full(prediction.shape, wrong), flow)


SIZE = (48, 96)


@pytest.fixture(scope="module")
def own_clips(tmp_path_factory):
    """Two labelled clips of which the second lacks frames, with the numbers of the frames."""
    root = tmp_path_factory.mktemp("data")
    (root / "classes.txt").write_text("\n".join(synthetic.LABELS.names))
    (video,) = synthetic.videos("val", 1, 9, SIZE)
    for clip, numbers in (("a", range(1, 4)), ("b", (1, 3, 4, 5, 6, 9, 10, 11, 12))):
        for index, number in enumerate(numbers):
            for kind, picture in (("images", video.frame(index)), ("labels", video.label(index))):
                path = root / "val" / clip / kind / f"frame{number:06d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(path)
    return root


def evaluation(root, *more) -> list:
    start = ["--eval-mode", "--dataset", "folder", "--data-root", root, "--weights", "synthetic"]
    return [*start, *"--threads 1 --device cpu --num-workers 0 --pictures 0".split(), *more]


def scores(folder) -> dict:
    return json.loads((folder / "results.json").read_text())["metrics"]


def test_an_evaluation_has_no_pair_across_missing_frames_and_says_so(own_clips, tmp_path):
    words = evaluation(own_clips, "--metrics", "vc", "tc")
    done = perform(*words, "--savedir", tmp_path / "one")
    found = scores(tmp_path / "one")
    assert found["TC"]["pairs"] == 2 + 6 and found["TC"]["videos"] == 2
    assert found["VC8"]["windows"] == 2, "VC looks at what there is"
    assert done.stdout.count("frames are missing in 2 places") == 1
    done = succeed_as_ranks(*words, "--savedir", tmp_path / "ranks")
    assert scores(tmp_path / "ranks")["TC"] == found["TC"]
    assert done.stdout.count("frames are missing in 2 places") == 1


def test_pairs_are_those_of_the_clips_between_the_gaps(own_clips, tmp_path):
    """What lies on both sides of a gap as clips of their own: the same TC."""
    apart = tmp_path / "apart"
    (apart / "val").mkdir(parents=True)
    (apart / "classes.txt").write_text((own_clips / "classes.txt").read_text())
    for old in sorted(own_clips.glob("val/*/*/*.png")):
        number = int(old.stem.removeprefix("frame"))
        part = next(last for last in (2, 6, 12) if number <= last)
        if old.parts[-3] == "a":
            part = 0
        path = apart / "val" / f"{old.parts[-3]}{part}" / old.parts[-2] / old.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(old)
    for root, name in ((own_clips, "together"), (apart, "apart")):
        perform(*evaluation(root, "--metrics", "tc"), "--savedir", tmp_path / name)
    together, parts = (scores(tmp_path / name)["TC"] for name in ("together", "apart"))
    # A clip of one frame is none of these videos.
    assert (parts.pop("videos"), together.pop("videos")) == (3, 2)
    assert together == parts


def test_vc_alone_says_so_too(own_clips, tmp_path):
    done = perform(*evaluation(own_clips), "--savedir", tmp_path)
    assert done.stdout.count("frames are missing in 2 places") == 1


def test_without_gaps_nothing_is_said(tmp_path, own_clips):
    root = tmp_path / "whole"
    (root / "val").mkdir(parents=True)
    (root / "val" / "a").symlink_to(own_clips / "val" / "a")
    (root / "classes.txt").symlink_to(own_clips / "classes.txt")
    done = perform(*evaluation(root, "--metrics", "tc"), "--savedir", tmp_path / "run")
    assert scores(tmp_path / "run")["TC"]["pairs"] == 2 and "missing" not in done.stdout
