"""What each number of a report is, in one line. A number without a line here is refused."""

from __future__ import annotations

VIDEO_CONSISTENCY = (
    "Video consistency: mean over all windows of {n} frames of all videos of |G and P| / |G|; G "
    "= pixels whose label is known and the same in the whole window, P = those predicted as that "
    "label in the whole window. video_mean: mean over videos; constant_videos: those whose "
    "prediction never changes and is not right everywhere (degenerate); skipped_videos: those "
    "too short for a window."
)
VIDEO_CONSISTENCY_VSPW = (
    "VC{n} as the official VSPW script computes it: videos of more than 16 frames only, the last "
    "window of each left out, 255 a label like any other, P = pixels whose prediction is "
    "constant, right or wrong, so that a constant prediction scores 1. Only for comparison with "
    "published numbers."
)

DEFINITIONS = {
    "mIoU": (
        "Mean of IoU over the classes that occur in labels or predictions (union > 0); equal to "
        "torchmetrics and cityscapesscripts. This and all below are fractions of 1."
    ),
    "IoU": (
        "Per class, over all pixels together: true positives / (true positives + false positives "
        "+ misses). Pixels labelled 255 count nowhere; an 'ignore' output is only a miss. None "
        "where the union is 0."
    ),
    "recall": ("Per class: share of its labelled pixels that are predicted as it."),
    "label_share": ("Per class: its share of all labelled pixels."),
    "pixel_accuracy": ("Share of all labelled pixels that are predicted right."),
    "class_accuracy": ("Mean of recall over the classes that occur in the labels."),
    "fwIoU": (
        "Frequency-weighted IoU: mean of IoU, each class weighted by its share of the labelled "
        "pixels."
    ),
    "mDice": (
        "Mean of Dice, 2 true positives / (labelled + predicted pixels), over the classes with "
        "union > 0."
    ),
    "mIoU_lma": (
        "mIoU as LMANet computes it: mean over all classes of (TP + 1e-15) / (TP + FP + FN + "
        "1e-15); a class in neither labels nor predictions counts 1."
    ),
    "mIoU_present": (
        "mIoU as the VSPW script and MRCFA's printed 'mIoU' compute it: mean over the classes "
        "that occur in the labels; a class that is only predicted is left out."
    ),
    "mIoU_all": (
        "mIoU as SwNet-seq and ETC's TC compute it: mean over all classes; one in neither labels "
        "nor predictions counts 0."
    ),
    "original_size": (
        "mIoU and IoU of predictions made at working size and enlarged to the labels' own size "
        "by nearest neighbour (--use-orig-res), as LMANet's second table."
    ),
    "clean": ("mIoU over the frames that no severe failure of the sensor hits (synthetic world)."),
    "degraded": (
        "mIoU over the frames that a dropout hits: dark, noisy or blurred, wholly or in part "
        "(synthetic world)."
    ),
    "key_distance": (
        "Methods with key frames, by the number of frames since the key frame. mIoU: as above, of "
        "the frames at each distance (0: key frames); frames: how many these are, none of which "
        "lacks a key frame at that distance. With a fixed interval i every frame is labelled at "
        "all distances 0 to i. average: mIoU of all distances together, the published 'avg' of "
        "SwNet-seq and GSVNet; last: mIoU at distance i alone, which they publish as 'min'; "
        "minimum: the lowest mIoU of a distance; average_all, last_all: the same as mIoU_all, as "
        "they compute them."
    ),
    # of windows of 8 and of 16 frames
    **{f"VC{n}": VIDEO_CONSISTENCY.format(n=n) for n in (8, 16)},
    **{f"VC{n}_vspw": VIDEO_CONSISTENCY_VSPW.format(n=n) for n in (8, 16)},
    "TC": (
        "Temporal consistency, strict: mean IoU (classes with union > 0) of each prediction and "
        "the next one warped onto it by optical flow, nearest neighbour, over pixels whose match "
        "is in the frame and not occluded (occlusion was known for masked_pairs of the pairs). "
        "TC_all: absent classes count 0; no_warp: the same without warping; valid_fraction: "
        "share of the pixels that counted; constant_pairs: those predicted as one class "
        "everywhere, constant_videos: those whose prediction never changes (degenerate); IoU: by "
        "class; flow: where it comes from."
    ),
    "TC_nearest": (
        "Temporal consistency, nearest neighbour, no mask: matches outside the frame are clamped "
        "to its border; mean IoU over classes with union > 0."
    ),
    "TC_etc": (
        "Temporal consistency as ETC (ECCV 2020) computes it: ids warped bilinearly as numbers "
        "and truncated, no mask, counts over all pairs, mean over all classes (absent ones count "
        "0). Published values used FlowNet2: their arithmetic is reproduced here, not the "
        "values."
    ),
    "latency_aware": (
        "mIoU of what a live viewer sees: frames arrive at the rate of the video, a network that "
        "is free takes the newest, and the labels of each frame are scored against the newest "
        "prediction that is finished when it arrives (streaming accuracy, ECCV 2020). "
        "latency_ms: mean of a frame, given or measured on the machine that latency_from names, "
        "from a frame on the device to its scores; taken: share of the frames that the network "
        "took; frames_behind: mean age of a scored prediction; unanswered: frames that came "
        "before the first prediction was finished, which are not scored."
    ),
}
