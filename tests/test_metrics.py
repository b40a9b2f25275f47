"""Metrics against brute force, other people's implementations, golden numbers and laws."""
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from golden import case, filling
from utils.label_warp import flow_disagreement, intersection_and_union, warp_etc, warp_ids_etc
from utils.metrics import DEFINITIONS, ConfusionMatrix, TemporalConsistency, VideoConsistency

MEANS = ("mIoU", "pixel_accuracy", "class_accuracy", "fwIoU", "mDice", "mIoU_lma", "mIoU_present", "mIoU_all")


def random_maps(seed, classes=7, shape=(3, 20, 31), ignored=0.1, absent=(5,), outputs=None):
    """Labels with ignored pixels and classes that never occur, predictions that are often right."""
    rng = np.random.default_rng(seed)
    present = [c for c in range(classes) if c not in absent]
    labels = rng.choice(present, shape)
    guesses = rng.choice(present, shape) if outputs is None else rng.integers(0, outputs, shape)
    predictions = np.where(rng.random(shape) < 0.6, labels, guesses)
    labels = np.where(rng.random(shape) < ignored, 255, labels)
    return labels.astype(np.uint8), predictions.astype(np.uint8)


def measured(classes, *pairs):
    matrix = ConfusionMatrix(classes)
    for labels, predictions in pairs:
        matrix.update(labels, predictions)
    return matrix.compute()


def same_numbers(first: dict, second: dict):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_equal(np.array(first[name], float), np.array(second[name], float), err_msg=name)


def by_hand(labels, predictions, classes):
    """Every number from sets of pixels, class by class."""
    known = labels != 255
    areas = [(known & (labels == c), known & (predictions == c)) for c in range(classes)]
    iou = [(a & b).sum() / (a | b).sum() if (a | b).any() else math.nan for a, b in areas]
    recall = [(a & b).sum() / a.sum() if a.any() else math.nan for a, b in areas]
    dice = [2 * (a & b).sum() / (a.sum() + b.sum()) if (a | b).any() else math.nan for a, b in areas]
    share = [a.sum() / known.sum() for a, _ in areas]
    return {
        "mIoU": np.nanmean(iou), "IoU": iou, "recall": recall, "label_share": share,
        "pixel_accuracy": (labels == predictions)[known].mean(),
        "class_accuracy": np.nanmean(recall), "mDice": np.nanmean(dice),
        "fwIoU": sum(s * i for s, i in zip(share, iou, strict=True) if s),
        "mIoU_lma": np.mean(np.nan_to_num(iou, nan=1.0)), "mIoU_all": np.mean(np.nan_to_num(iou)),
        "mIoU_present": np.mean([i for i, s in zip(iou, share, strict=True) if s]),
    }


@pytest.mark.parametrize("seed, outputs, shape", [(0, None, (3, 20, 31)), (1, 6, (50,)), (2, 9, (2, 300, 400))])
def test_every_number_equals_a_count_by_hand(seed, outputs, shape):
    labels, predictions = random_maps(seed, outputs=outputs, shape=shape, absent=(3, 5))
    ours, theirs = measured(7, (labels, predictions)), by_hand(labels, predictions, 7)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_allclose(np.array(ours[name]), np.array(theirs[name]), rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("seed", range(3))
def test_miou_is_that_of_torchmetrics(seed):
    classification = pytest.importorskip("torchmetrics.classification")
    labels, predictions = random_maps(seed)
    inputs = torch.from_numpy(predictions).long(), torch.from_numpy(labels).long()
    ours = measured(7, (labels, predictions))
    for average, expected in (("macro", ours["mIoU"]), ("none", np.nan_to_num(ours["IoU"]).tolist()),
                              ("weighted", ours["fwIoU"])):
        theirs = classification.MulticlassJaccardIndex(7, average=average, ignore_index=255)(*inputs)
        np.testing.assert_allclose(theirs, expected, rtol=1e-5)


@pytest.mark.parametrize("outputs", [19, 20])
def test_iou_is_that_of_cityscapesscripts(outputs, tmp_path):
    script = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    from PIL import Image
    labels, predictions = random_maps(4, classes=19, shape=(64, 96), absent=(2, 18), outputs=outputs)
    ids = np.zeros(256, np.uint8)                                       # train id -> id; 0 is one of the ignored ids
    for label in script.labels:
        if not label.ignoreInEval:
            ids[label.trainId] = label.id
    args = SimpleNamespace(evalInstLevelScore=False, evalPixelAccuracy=False)
    theirs = script.generateMatrix(args)
    for name, picture in (("labels", labels), ("predictions", predictions)):
        Image.fromarray(ids[picture]).save(tmp_path / f"{name}.png")
    script.evaluatePair(str(tmp_path / "predictions.png"), str(tmp_path / "labels.png"), theirs, {}, {}, args)
    scores = {c: script.getIouScoreForLabel(int(ids[c]), theirs, args) for c in range(19)}
    ours = measured(19, (labels, predictions))
    np.testing.assert_allclose(ours["IoU"], list(scores.values()), rtol=1e-12)
    assert ours["mIoU"] == pytest.approx(script.getScoreAverage(scores, args), rel=1e-12)


def test_lmanet_counts_and_iou():
    golden = case("lma/iou").arrays
    labels = np.where(golden["labels"] == 19, 255, golden["labels"])
    matrix = ConfusionMatrix(19)
    matrix.update(labels, golden["pred"])
    counts = matrix.counts.numpy()
    hits = counts.diagonal()
    np.testing.assert_array_equal(hits, golden["f64_tp"])
    np.testing.assert_array_equal(counts[:, :19].sum(0) - hits, golden["f64_fp"])
    np.testing.assert_array_equal(counts.sum(1) - hits, golden["f64_fn"])
    iou = matrix.compute()
    np.testing.assert_allclose(np.nan_to_num(iou["IoU"], nan=1.0), golden["f64_iou"], rtol=1e-12)
    assert iou["mIoU_lma"] == pytest.approx(float(golden["f64_miou"][0]), rel=1e-12)
    assert iou["mIoU_lma"] > iou["mIoU"] > iou["mIoU_all"]              # class 16 is absent: 1, left out, 0


def test_tmanet_metrics():
    golden = case("tma/metrics").arrays
    ours = measured(8, (golden["gt"], golden["pred"]))
    theirs = {"IoU": "iou", "recall": "acc", "mIoU": "mIoU", "class_accuracy": "mAcc", "pixel_accuracy": "aAcc",
              "mDice": "mDice"}
    for name, key in theirs.items():
        np.testing.assert_allclose(ours[name], golden[key], rtol=1e-6, err_msg=name)


def vspw_videos(golden, names):
    """Raw VSPW masks (0 others, 1..124, 255 void) -> labels 0..123, 255."""
    for name in names:
        raw = golden[f"gt_{name}"].astype(int)
        yield np.where((raw == 0) | (raw == 255), 255, raw - 1).astype(np.uint8), golden[f"pred_{name}"]


def test_mrcfa_metrics():
    golden = case("mrcfa/vc_metrics").arrays
    long = measured(124, *vspw_videos(golden, "abc"))                   # VC_perclip drops short videos altogether
    keys = {"mIoU_present": "mIoU", "fwIoU": "WIoU", "pixel_accuracy": "aAcc", "class_accuracy": "mAcc"}
    for name, key in keys.items():
        assert long[name] == pytest.approx(float(golden[f"{key}_f64"]), rel=1e-12), name
    every = measured(124, *vspw_videos(golden, ("a", "b", "c", "short")))
    assert every["mIoU"] == pytest.approx(float(golden["mmseg_mIoU_nanmean_f64"]), rel=1e-12)
    assert every["mIoU_present"] == pytest.approx(float(golden["all_mIoU_gtpresent_f64"]), rel=1e-12)
    assert every["fwIoU"] == pytest.approx(float(golden["all_WIoU_f64"]), rel=1e-12)
    np.testing.assert_allclose(every["IoU"], golden["mmseg_iou_f64"], rtol=1e-12)
    np.testing.assert_allclose(every["recall"], golden["mmseg_acc_f64"], rtol=1e-12)


def test_vc_of_the_official_script():
    golden = case("mrcfa/vc_metrics").arrays
    for length in (8, 16):
        metric = VideoConsistency(length, "vspw")
        for labels, predictions in vspw_videos(golden, ("a", "b", "c", "short")):
            metric.update(labels, predictions)
        assert metric.compute()[f"VC{length}"] == pytest.approx(float(golden[f"mVC{length}_f64"]), rel=1e-12)
        assert metric.compute()["skipped_videos"] == 1
        for scores, name in zip(metric.scores, "abc", strict=True):
            np.testing.assert_allclose(scores, golden[f"vc{length}_clips_{name}_f64"], rtol=1e-12)


# Laws of the confusion matrix

def test_pieces_merged_equal_the_whole_in_any_order():
    labels, predictions = random_maps(5, shape=(6, 16, 16))
    whole = measured(7, (labels, predictions))
    for order in ((0, 1, 2, 3, 4, 5), (5, 2, 0, 4, 1, 3)):
        ranks = [ConfusionMatrix(7), ConfusionMatrix(7)]
        for position, index in enumerate(order):
            ranks[position % 2].update(labels[index], predictions[index])
        same_numbers(ranks[0].merge(ranks[1]).compute(), whole)
    shuffle = np.random.default_rng(0).permutation(labels.size)
    same_numbers(measured(7, (labels.ravel()[shuffle], predictions.ravel()[shuffle])), whole)


def test_renaming_the_classes_renames_the_per_class_numbers_and_keeps_the_means():
    labels, predictions = random_maps(6)
    renaming = np.array([3, 0, 6, 1, 5, 2, 4] + [0] * 248 + [255], np.uint8)
    before, after = measured(7, (labels, predictions)), measured(7, (renaming[labels], renaming[predictions]))
    for name in MEANS:
        assert after[name] == pytest.approx(before[name], rel=1e-12)
    for name in ("IoU", "recall", "label_share"):
        np.testing.assert_allclose(np.array(after[name])[renaming[:7]], before[name], rtol=1e-12)


def test_a_perfect_prediction_scores_one():
    labels, _ = random_maps(7, absent=())
    result = measured(7, (labels, np.where(labels == 255, 3, labels)))
    assert all(result[name] == pytest.approx(1) for name in MEANS)


def test_predictions_on_ignored_pixels_change_nothing():
    labels, predictions = random_maps(8, ignored=0.4)
    for other in (0, 6, 40, 255):
        same_numbers(measured(7, (labels, np.where(labels == 255, other, predictions).astype(np.uint8))),
                     measured(7, (labels, predictions)))


def test_an_ignore_output_is_a_miss_and_no_false_positive():
    result = measured(2, (np.array([0, 0, 1, 1]), np.array([0, 2, 1, 255])))
    assert result["IoU"] == [0.5, 0.5] and result["pixel_accuracy"] == 0.5


def test_every_integer_type_array_and_tensor_gives_the_same():
    labels, predictions = random_maps(9, outputs=9)
    expected = measured(7, (labels, predictions))
    for dtype in (np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64):
        same_numbers(measured(7, (labels.astype(dtype), predictions.astype(dtype))), expected)
        same_numbers(measured(7, (torch.from_numpy(labels.astype(dtype)), predictions.astype(dtype))), expected)
    same_numbers(measured(200, (labels, predictions.astype(np.int8))), measured(200, (labels, predictions)))
    same_numbers(measured(2, (labels < 3, predictions < 3)), measured(2, (1 * (labels < 3), 1 * (predictions < 3))))
    same_numbers(measured(7, (torch.from_numpy(labels).long(), predictions)), expected)
    view = np.asfortranarray(labels)[:, ::-1]
    view.flags.writeable = False                                        # as PIL hands out
    same_numbers(measured(7, (view, predictions[:, ::-1])), expected)
    labels = torch.from_numpy(labels).long()
    before = labels.clone()
    measured(7, (labels, torch.from_numpy(predictions).long()))
    assert torch.equal(labels, before)                                  # what comes in stays as it is


def test_counts_are_exact_beyond_float32():
    matrix = ConfusionMatrix(2)
    matrix.counts[0, 0] = 2 ** 40
    matrix.update(np.array([0, 0, 1]), np.array([0, 1, 1]))
    assert matrix.counts.dtype == torch.int64 and matrix.counts.tolist() == [[2 ** 40 + 1, 1, 0], [0, 1, 0]]


def test_nothing_seen_is_nan_and_not_zero():
    for result in (ConfusionMatrix(3).compute(), measured(3, (np.full((2, 2), 255), np.zeros((2, 2), int)))):
        assert all(math.isnan(result[name]) for name in ("mIoU", "pixel_accuracy", "fwIoU", "mDice", "mIoU_present"))
        assert all(map(math.isnan, result["IoU"]))
    same_numbers(measured(3, (np.zeros((0, 4), np.uint8), np.zeros((0, 4), np.uint8))), ConfusionMatrix(3).compute())


@pytest.mark.parametrize("labels, predictions, says", [
    ([7], [0], r"0\.\.6 or 255 .*\[7\]"), ([254, 1], [0, 0], r"\[254\]"), ([-1], [0], "-1"), ([256], [0], "256"),
    ([0], [-1], "negative"), ([0.0], [0], "integer type"), ([0], [0.5], "argmax"), ([0, 1], [0], "one shape"),
])
def test_what_is_no_label_is_refused_and_counts_nothing(labels, predictions, says):
    matrix = ConfusionMatrix(7)
    with pytest.raises(ValueError, match=says):
        matrix.update(np.array(labels), np.array(predictions))
    assert not matrix.counts.any()


def test_metrics_of_different_kinds_do_not_merge():
    for first, second in ((ConfusionMatrix(3), ConfusionMatrix(4)),
                          (VideoConsistency(8), VideoConsistency(16)),
                          (VideoConsistency(8), VideoConsistency(8, "vspw")),
                          (TemporalConsistency(3), TemporalConsistency(3, "etc"))):
        with pytest.raises(ValueError, match="cannot be merged"):
            first.merge(second)


def test_bad_options_are_refused():
    for make in (lambda: ConfusionMatrix(0), lambda: ConfusionMatrix(256), lambda: VideoConsistency(0),
                 lambda: VideoConsistency(8, "official"), lambda: TemporalConsistency(3, "best"),
                 lambda: TemporalConsistency(0)):
        with pytest.raises(ValueError):
            make()


def test_every_number_has_a_definition():
    names = set(ConfusionMatrix(2).compute())
    names |= {VideoConsistency(n, mode).name for n in (8, 16) for mode in VideoConsistency.MODES}
    names |= {TemporalConsistency(2, mode).name for mode in TemporalConsistency.MODES}
    assert names == set(DEFINITIONS)


# Video consistency

def video(seed, frames, classes=4, shape=(6, 7)):
    """Labels and predictions that rarely change, some ignored pixels."""
    rng = np.random.default_rng(seed)

    def slow(change):
        maps = [rng.integers(0, classes, shape)]
        while len(maps) < frames:
            maps.append(np.where(rng.random(shape) < change, rng.integers(0, classes, shape), maps[-1]))
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
        starts = range(frames - n + 1) if mode == "correct" else range(frames - n) if frames > 16 else ()
        for i in starts:
            g, p = labels[i:i + n], predictions[i:i + n]
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
    assert metric.compute()[f"VC{length}"] == pytest.approx(vc_by_hand(videos, length, mode), rel=1e-12)
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
                buffers[0][:], buffers[1][:] = label, prediction        # a reader that reuses its buffers
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
    for truth, guess, expected in ((labels, predictions, 0), (still, still, 0), (labels, still, 1),
                                   (labels[:1], np.zeros_like(labels[:1]), 0)):
        metric = VideoConsistency(8)
        metric.update(truth, guess)
        assert metric.compute()["constant_videos"] == expected


def test_a_perfect_video_scores_one_and_short_ones_are_counted():
    labels, _ = video(7, 20)
    metric = VideoConsistency(16)
    metric.update(labels, np.where(labels == 255, 0, labels))
    metric.update(labels[:15], labels[:15])
    assert metric.compute() == {"VC16": 1.0, "video_mean": 1.0, "windows": 5, "videos": 2, "skipped_videos": 1,
                                "constant_videos": 0}
    assert math.isnan(VideoConsistency(8).compute()["VC8"])


def test_a_video_that_was_not_ended_is_not_lost_silently():
    metric = VideoConsistency(2)
    frame = np.zeros((2, 2), np.uint8)
    metric.update_frame(frame, frame)
    for use in (metric.compute, lambda: metric.merge(VideoConsistency(2)), lambda: VideoConsistency(2).merge(metric),
                lambda: metric.update(frame[None], frame[None])):
        with pytest.raises(RuntimeError, match="end_video"):
            use()
    with pytest.raises(ValueError, match="one shape"):
        metric.update_frame(frame[:1], frame[:1])
    with pytest.raises(ValueError, match=r"\(T, H, W\)"):
        VideoConsistency(2).update(frame, frame)


# Temporal consistency

def test_resample2d_to_the_last_bit():
    golden = case("etc/warp").arrays
    flow = torch.from_numpy(golden["in_flow"])
    images = filling().image("warp_x", (2, 3, 24, 40))
    for theirs, flows in ((golden["warped"], flow), (golden["warped_int"], flow.round())):
        ours = torch.stack([warp_etc(image, one) for image, one in zip(images, flows, strict=True)])
        np.testing.assert_array_equal(ours.numpy(), theirs)
    labels = torch.from_numpy(golden["in_label"])
    np.testing.assert_array_equal(warp_etc(labels.float(), flow[0]).numpy(), golden["warped_label"][0, 0])
    np.testing.assert_array_equal(warp_ids_etc(labels, flow[0]).numpy(), golden["warped_label_uint8"])
    rounded = warp_etc(labels.float(), flow[0]).round()
    assert (warp_ids_etc(labels, flow[0]) != rounded).any()            # truncation matters here


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
                column, row = math.floor(x + float(flow[0, y, x]) + 0.5), math.floor(y + float(flow[1, y, x]) + 0.5)
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
@pytest.mark.parametrize("classes", [5, 4, 8])          # all ids, one that is no class, three absent ones
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
    assert metric.compute()["valid_fraction"] == pytest.approx(valid) and metric.compute()["masked_pairs"] == 1
    for mode in ("nearest", "etc"):
        with pytest.raises(ValueError, match="no occlusion mask"):
            TemporalConsistency(5, mode).update(prediction, following, flow, occluded=occluded)


def moving_square():
    """A square of 6 x 6 moves 4 to the right over a still background; what it covers has no match."""
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
    assert not flow_disagreement(flow, -flow)[:-3].any()                # the lowest rows leave the frame
    assert flow_disagreement(flow, flow).all()


@pytest.mark.parametrize("shift", [(0, 0), (3, -2), (-5, 1)])
def test_a_prediction_that_moves_with_the_flow_is_perfectly_consistent(shift):
    world = np.random.default_rng(1).integers(0, 4, (40, 50)).astype(np.uint8)
    dx, dy = shift
    first, second = world[10:30, 10:40], world[10 - dy:30 - dy, 10 - dx:40 - dx]
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
    whole, ranks = TemporalConsistency(5, mode), (TemporalConsistency(5, mode), TemporalConsistency(5, mode))
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
    assert results["strict"]["TC"] == results["nearest"]["TC"] == pytest.approx(results["etc"]["TC_present"], rel=1e-9)
    assert results["etc"]["TC"] == results["etc"]["TC_all"] == pytest.approx(results["strict"]["TC_all"], rel=1e-9)


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


# Known numbers of a real clip

@pytest.fixture(scope="module")
def camvid_labels():
    from PIL import Image

    from golden import SHARED
    files = sorted((SHARED / "camvid" / "valannot").glob("*.png"))
    if not files:
        return None
    labels = np.stack([np.array(Image.open(file)) for file in files])
    return np.where(labels == 11, 255, labels).astype(np.uint8)


def test_camvid_anchors_of_oracles_that_are_late_or_hold(shared, camvid_labels):
    """Predictors made of the ground truth; the numbers were measured by others (in percent)."""
    def percent(value):
        return round(100 * value, 2)

    filled = np.where(camvid_labels == 255, 11, camvid_labels)          # where an oracle knows no class it says none
    assert len(filled) == 101
    for delay, expected in ((1, 73.55), (2, 63.62), (3, 57.30)):
        assert percent(measured(11, (camvid_labels[delay:], filled[:-delay]))["mIoU"]) == expected
    constant = np.full_like(filled, 3)
    assert percent(measured(11, (camvid_labels, constant))["mIoU"]) == 2.68
    for predictions, expected in ((constant, (100, 100, 33.54)),
                                  (filled[np.arange(101) // 2 * 2], (98.86, 99.16, 98.87)),
                                  (filled[np.arange(101) // 10 * 10], (94.75, 95.64, 94.15))):
        metrics = VideoConsistency(8, "vspw"), VideoConsistency(16, "vspw"), VideoConsistency(8)
        for metric in metrics:
            metric.update(camvid_labels, predictions)
        assert tuple(percent(metric.compute()[f"VC{metric.length}"]) for metric in metrics) == expected
