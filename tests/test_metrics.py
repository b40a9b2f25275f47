"""The confusion matrix against counts by hand, other people's implementations, golden numbers and
laws."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from golden import case
from label_maps import measured, random_maps, same_numbers, vspw_videos
from utils.metrics import DEFINITIONS, ConfusionMatrix, TemporalConsistency, VideoConsistency

MEANS = (
    "mIoU",
    "pixel_accuracy",
    "class_accuracy",
    "fwIoU",
    "mDice",
    "mIoU_lma",
    "mIoU_present",
    "mIoU_all",
)


def by_hand(labels, predictions, classes):
    """Every number from sets of pixels, class by class."""
    known = labels != 255
    areas = [(known & (labels == c), known & (predictions == c)) for c in range(classes)]
    iou = [(a & b).sum() / (a | b).sum() if (a | b).any() else math.nan for a, b in areas]
    recall = [(a & b).sum() / a.sum() if a.any() else math.nan for a, b in areas]
    dice = [
        2 * (a & b).sum() / (a.sum() + b.sum()) if (a | b).any() else math.nan for a, b in areas
    ]
    share = [a.sum() / known.sum() for a, _ in areas]
    return {
        "mIoU": np.nanmean(iou),
        "IoU": iou,
        "recall": recall,
        "label_share": share,
        "pixel_accuracy": (labels == predictions)[known].mean(),
        "class_accuracy": np.nanmean(recall),
        "mDice": np.nanmean(dice),
        "fwIoU": sum(s * i for s, i in zip(share, iou, strict=True) if s),
        "mIoU_lma": np.mean(np.nan_to_num(iou, nan=1.0)),
        "mIoU_all": np.mean(np.nan_to_num(iou)),
        "mIoU_present": np.mean([i for i, s in zip(iou, share, strict=True) if s]),
    }


@pytest.mark.parametrize(
    "seed, outputs, shape", [(0, None, (3, 20, 31)), (1, 6, (50,)), (2, 9, (2, 300, 400))]
)
def test_every_number_equals_a_count_by_hand(seed, outputs, shape):
    labels, predictions = random_maps(seed, outputs=outputs, shape=shape, absent=(3, 5))
    ours, theirs = measured(7, (labels, predictions)), by_hand(labels, predictions, 7)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_allclose(
            np.array(ours[name]), np.array(theirs[name]), rtol=1e-12, err_msg=name
        )


@pytest.mark.parametrize("seed", range(3))
def test_miou_is_that_of_torchmetrics(seed):
    classification = pytest.importorskip("torchmetrics.classification")
    labels, predictions = random_maps(seed)
    inputs = torch.from_numpy(predictions).long(), torch.from_numpy(labels).long()
    ours = measured(7, (labels, predictions))
    for average, expected in (
        ("macro", ours["mIoU"]),
        ("none", np.nan_to_num(ours["IoU"]).tolist()),
        ("weighted", ours["fwIoU"]),
    ):
        theirs = classification.MulticlassJaccardIndex(7, average=average, ignore_index=255)(
            *inputs
        )
        np.testing.assert_allclose(theirs, expected, rtol=1e-5)


@pytest.mark.parametrize("outputs", [19, 20])
def test_iou_is_that_of_cityscapesscripts(outputs, tmp_path):
    script = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    from PIL import Image

    labels, predictions = random_maps(
        4, classes=19, shape=(64, 96), absent=(2, 18), outputs=outputs
    )
    ids = np.zeros(256, np.uint8)  # train id -> id; 0 is one of the ignored ids
    for label in script.labels:
        if not label.ignoreInEval:
            ids[label.trainId] = label.id
    args = SimpleNamespace(evalInstLevelScore=False, evalPixelAccuracy=False)
    theirs = script.generateMatrix(args)
    for name, picture in (("labels", labels), ("predictions", predictions)):
        Image.fromarray(ids[picture]).save(tmp_path / f"{name}.png")
    script.evaluatePair(
        str(tmp_path / "predictions.png"), str(tmp_path / "labels.png"), theirs, {}, {}, args
    )
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
    assert iou["mIoU_lma"] > iou["mIoU"] > iou["mIoU_all"]  # class 16 is absent: 1, left out, 0


def test_tmanet_metrics():
    golden = case("tma/metrics").arrays
    ours = measured(8, (golden["gt"], golden["pred"]))
    theirs = {
        "IoU": "iou",
        "recall": "acc",
        "mIoU": "mIoU",
        "class_accuracy": "mAcc",
        "pixel_accuracy": "aAcc",
        "mDice": "mDice",
    }
    for name, key in theirs.items():
        np.testing.assert_allclose(ours[name], golden[key], rtol=1e-6, err_msg=name)


def test_mrcfa_metrics():
    golden = case("mrcfa/vc_metrics").arrays
    long = measured(124, *vspw_videos(golden, "abc"))  # VC_perclip drops short videos altogether
    keys = {
        "mIoU_present": "mIoU",
        "fwIoU": "WIoU",
        "pixel_accuracy": "aAcc",
        "class_accuracy": "mAcc",
    }
    for name, key in keys.items():
        assert long[name] == pytest.approx(float(golden[f"{key}_f64"]), rel=1e-12), name
    every = measured(124, *vspw_videos(golden, ("a", "b", "c", "short")))
    assert every["mIoU"] == pytest.approx(float(golden["mmseg_mIoU_nanmean_f64"]), rel=1e-12)
    assert every["mIoU_present"] == pytest.approx(
        float(golden["all_mIoU_gtpresent_f64"]), rel=1e-12
    )
    assert every["fwIoU"] == pytest.approx(float(golden["all_WIoU_f64"]), rel=1e-12)
    np.testing.assert_allclose(every["IoU"], golden["mmseg_iou_f64"], rtol=1e-12)
    np.testing.assert_allclose(every["recall"], golden["mmseg_acc_f64"], rtol=1e-12)


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
    before, after = (
        measured(7, (labels, predictions)),
        measured(7, (renaming[labels], renaming[predictions])),
    )
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
        same_numbers(
            measured(7, (labels, np.where(labels == 255, other, predictions).astype(np.uint8))),
            measured(7, (labels, predictions)),
        )


def test_an_ignore_output_is_a_miss_and_no_false_positive():
    result = measured(2, (np.array([0, 0, 1, 1]), np.array([0, 2, 1, 255])))
    assert result["IoU"] == [0.5, 0.5] and result["pixel_accuracy"] == 0.5


def test_every_integer_type_array_and_tensor_gives_the_same():
    labels, predictions = random_maps(9, outputs=9)
    expected = measured(7, (labels, predictions))
    for dtype in (np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64):
        same_numbers(measured(7, (labels.astype(dtype), predictions.astype(dtype))), expected)
        same_numbers(
            measured(7, (torch.from_numpy(labels.astype(dtype)), predictions.astype(dtype))),
            expected,
        )
    same_numbers(
        measured(200, (labels, predictions.astype(np.int8))), measured(200, (labels, predictions))
    )
    same_numbers(
        measured(2, (labels < 3, predictions < 3)),
        measured(2, (1 * (labels < 3), 1 * (predictions < 3))),
    )
    same_numbers(measured(7, (torch.from_numpy(labels).long(), predictions)), expected)
    view = np.asfortranarray(labels)[:, ::-1]
    view.flags.writeable = False  # as PIL hands out
    same_numbers(measured(7, (view, predictions[:, ::-1])), expected)
    labels = torch.from_numpy(labels).long()
    before = labels.clone()
    measured(7, (labels, torch.from_numpy(predictions).long()))
    assert torch.equal(labels, before)  # what comes in stays as it is


def test_counts_are_exact_beyond_float32():
    matrix = ConfusionMatrix(2)
    matrix.counts[0, 0] = 2**40
    matrix.update(np.array([0, 0, 1]), np.array([0, 1, 1]))
    assert matrix.counts.dtype == torch.int64 and matrix.counts.tolist() == [
        [2**40 + 1, 1, 0],
        [0, 1, 0],
    ]


def test_nothing_seen_is_nan_and_not_zero():
    for result in (
        ConfusionMatrix(3).compute(),
        measured(3, (np.full((2, 2), 255), np.zeros((2, 2), int))),
    ):
        assert all(
            math.isnan(result[name])
            for name in ("mIoU", "pixel_accuracy", "fwIoU", "mDice", "mIoU_present")
        )
        assert all(map(math.isnan, result["IoU"]))
    same_numbers(
        measured(3, (np.zeros((0, 4), np.uint8), np.zeros((0, 4), np.uint8))),
        ConfusionMatrix(3).compute(),
    )


@pytest.mark.parametrize(
    "labels, predictions, says",
    [
        ([7], [0], r"0\.\.6 or 255 .*\[7\]"),
        ([254, 1], [0, 0], r"\[254\]"),
        ([-1], [0], "-1"),
        ([256], [0], "256"),
        ([0], [-1], "negative"),
        ([0.0], [0], "integer type"),
        ([0], [0.5], "argmax"),
        ([0, 1], [0], "one shape"),
    ],
)
def test_what_is_no_label_is_refused_and_counts_nothing(labels, predictions, says):
    matrix = ConfusionMatrix(7)
    with pytest.raises(ValueError, match=says):
        matrix.update(np.array(labels), np.array(predictions))
    assert not matrix.counts.any()


def test_metrics_of_different_kinds_do_not_merge():
    for first, second in (
        (ConfusionMatrix(3), ConfusionMatrix(4)),
        (VideoConsistency(8), VideoConsistency(16)),
        (VideoConsistency(8), VideoConsistency(8, "vspw")),
        (TemporalConsistency(3), TemporalConsistency(3, "etc")),
    ):
        with pytest.raises(ValueError, match="cannot be merged"):
            first.merge(second)


def test_bad_options_are_refused():
    for make in (
        lambda: ConfusionMatrix(0),
        lambda: ConfusionMatrix(256),
        lambda: VideoConsistency(0),
        lambda: VideoConsistency(8, "official"),
        lambda: TemporalConsistency(3, "best"),
        lambda: TemporalConsistency(0),
    ):
        with pytest.raises(ValueError):
            make()


def test_every_number_has_a_definition():
    names = set(ConfusionMatrix(2).compute())
    names |= {VideoConsistency(n, mode).name for n in (8, 16) for mode in VideoConsistency.MODES}
    names |= {TemporalConsistency(2, mode).name for mode in TemporalConsistency.MODES}
    beside = {"original_size", "clean", "degraded", "key_distance", "latency_aware"}
    assert names | beside == set(DEFINITIONS), "the engine adds five"
