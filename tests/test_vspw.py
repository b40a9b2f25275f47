"""VSPW: its two trees, its ids, its sizes, and VSS-MRCFA on it from the command line."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch
from PIL import Image

import main
from command import assert_one_line, call, perform
from datasets import build_dataset, vspw
from datasets.clip import RawClip
from datasets.pipeline import evaluation_transform, training_transform
from datasets.vspw_classes import LABELS
from disk import write
from jobs.work_size import WorkSize
from models import build_model
from trees import make_vspw
from utils.output.label_tree import check_label_tree

NETWORK = "--method mrcfa --backbone mit_b0".split()
QUICK = "--device cpu --threads 1 --num-workers 0 --work-box 64 96".split()


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return make_vspw(tmp_path_factory.mktemp("vspw") / "VSPW_480p")


def parsed(root, *words: str, job: str = "--training"):
    base = [job, *NETWORK, "--dataset", "vspw", "--data-root", str(root), "--savedir", "unused"]
    return main.parse_args([*base, *words])


# Files


def test_a_list_names_the_videos_of_a_split_with_or_without_its_last_end_of_line(tree):
    assert not (tree / "train.txt").read_text().endswith("\n")
    assert (tree / "val.txt").read_text().endswith("\n")
    assert [video.name for video in vspw.videos(tree, "train")] == ["12_abc", "7_def"]
    (val,) = vspw.videos(tree, "val")
    assert val.name == "9_xyz" and len(val) == len(val.labelled) == 12 and val.fps == 15
    assert [val.frame_name(i) for i in range(3)] == ["00000005", "00000008", "00000011"]
    assert [video.name for video in vspw.videos(tree.parent, "train")] == ["12_abc", "7_def"]
    assert vspw.splits_of(parsed(tree)) == ("train", "val")


def test_windows_ends_of_line_and_empty_lines_name_nothing(tmp_path):
    root = make_vspw(tmp_path / "vspw")
    (root / "train.txt").write_bytes(b"7_def\r\n\r\n12_abc\r\n\n")
    assert [video.name for video in vspw.videos(root, "train")] == ["7_def", "12_abc"]


def test_without_lists_all_videos_are_every_split(tmp_path, logged):
    root = make_vspw(tmp_path / "vspw", frames=2, listed=False)
    for split in ("train", "val", "all"):
        names = [video.name for video in vspw.videos(root, split)]
        assert names == ["12_abc", "7_def", "9_xyz"]
    assert sum("has no lists" in line for line in logged()) == 2
    assert vspw.splits_of(parsed(root)) == ("all",)


def test_raw_ids_become_classes_and_others_and_void_are_ignored(tmp_path):
    root = make_vspw(tmp_path / "vspw", frames=1)
    raw = np.arange(256, dtype=np.uint8)
    assert vspw.TABLE[:3].tolist() == [255, 0, 1]
    assert vspw.TABLE[124] == 123 and vspw.TABLE[255] == 255
    path = root / "data" / "9_xyz" / "mask" / "00000005.png"
    write(path, np.where(raw > 124, 255, raw)[None].repeat(64, 0)[:, :96])
    (video,) = vspw.videos(root, "val")
    assert video.label(0)[0, :3].tolist() == [255, 0, 1]
    write(path, np.full((64, 96), 126, np.uint8))
    with pytest.raises(ValueError, match="126.*124 classes"):
        vspw.videos(root, "val")[0].label(0)


def test_classes_have_the_published_order_and_colours():
    assert len(LABELS.names) == len(LABELS.palette) == 124
    assert LABELS.names[:3] == ("wall", "ceiling", "door") and LABELS.names[-1] == "train"
    assert LABELS.names[48] == "car" and LABELS.names[60] == "person"
    assert LABELS.palette[:3] == ((120, 120, 120), (180, 120, 120), (6, 230, 230))


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda root: (root / "val.txt").unlink(), r"val\.txt does not exist.*lists of train only"),
        (lambda root: (root / "val.txt").write_text("nobody"), "nobody/origin does not exist"),
        (
            lambda root: (root / "data/9_xyz/mask/00000008.png").unlink(),
            r"mask/00000008\.png does not exist, but its frame does",
        ),
    ],
)
def test_what_is_missing_is_named(tmp_path, spoil, message):
    root = make_vspw(tmp_path / "vspw", frames=2)
    spoil(root)
    with pytest.raises(FileNotFoundError, match=message):
        vspw.videos(root, "val")


def test_a_folder_without_videos_says_what_was_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match="<video>/origin"):
        vspw.videos(tmp_path, "train")


def test_videos_of_the_test_split_may_have_no_labels(tmp_path):
    root = make_vspw(tmp_path / "vspw", frames=2)
    for path in (root / "data/9_xyz/mask").iterdir():
        path.unlink()
    (root / "data/9_xyz/mask").rmdir()
    (root / "test.txt").write_text("9_xyz\n")
    (video,) = vspw.videos(root, "test")
    assert len(video) == 2 and video.labelled == ()


# Clips and sizes


def test_clips_have_all_their_labels_and_run_backwards_where_only_that_fits(tree):
    args = parsed(tree, "--random-crop", "48", "48")
    model = build_model(args, 124)
    data = build_dataset(args, "train", draw=model.training_offsets)
    assert len(data) == 24
    clip = data[11]
    assert clip.frames.shape == (4, 3, 48, 48) and clip.labels.shape == (4, 48, 48)
    assert all((label != 255).any() for label in clip.labels)
    for index, expected in ((11, (-9, -6, -3)), (0, (9, 6, 3))):
        drawn = {data.offsets(random.Random(seed), index, 12) for seed in range(30)}
        assert drawn == {expected}
    drawn = {data.offsets(random.Random(seed), 20, 40) for seed in range(30)}
    assert drawn == {(-9, -6, -3), (9, 6, 3)}


def frame_of(size: tuple[int, int]) -> RawClip:
    image = np.random.default_rng(0).integers(0, 255, (*size, 3)).astype(np.uint8)
    return RawClip([image], [np.zeros(size, np.uint8)], None)


def test_frames_are_fitted_into_the_published_box_and_stretched(tree):
    args = parsed(tree, "--weights", "w.pth", job="--eval-mode")
    assert args.work_box == (480, 853) and args.stretch == 32 and args.interpolation == "cv2"
    for size, expected in (
        ((480, 853), (480, 864)),
        ((720, 1280), (480, 864)),
        ((854, 480), (864, 480)),
    ):
        clip = frame_of(size)
        worked = evaluation_transform(args)(clip, random.Random(0))
        assert worked.frames[0].shape[:2] == expected and worked.labels[0].shape == size
        assert np.array_equal(WorkSize(args)(clip.frames[0]), worked.frames[0])
    args = parsed(tree, "--work-size", "64", "96", "--weights", "w.pth", job="--eval-mode")
    assert evaluation_transform(args)(frame_of((50, 60)), None).frames[0].shape[:2] == (64, 96)


def test_training_scales_the_box_and_crops(tree):
    args = parsed(tree)
    assert args.random_scale == (0.5, 2.0) and args.random_crop == (480, 480)
    assert args.crop_max_ratio == 0.75 and args.photometric == "frame"
    small = parsed(tree, "--work-box", "64", "96", "--random-crop", "200", "200")
    small.random_flip = small.crop_max_ratio = 0
    clip = training_transform(small)(frame_of((32, 48)), random.Random(3))
    assert clip.frames[0].shape == (200, 200, 3)
    inside = (clip.labels[0] != 255).nonzero()
    assert 0.5 <= (inside[0].max() + 1) / 64 < 2


# From the command line


@pytest.fixture(scope="module")
def trained(tree, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    words = "--num-epochs 1 --batch-size 4 --random-crop 64 96 --train-split val".split()
    data = ["--dataset", "vspw", "--data-root", tree]
    perform("--training", *NETWORK, *data, *QUICK, *words, "--stretch", "32", "--savedir", folder)
    return folder


def test_a_tiny_vspw_trains_and_evaluates(tree, trained, tmp_path):
    log = (trained / "automated_log.txt").read_text()
    assert "nan" not in log.splitlines()[-1].split("\t")[1]
    words = [
        "--eval-mode",
        "--data-root",
        tree,
        *QUICK,
        "--weights",
        trained / "model_best.pth.tar",
    ]
    done = perform(*words, "--save-labels", "--pictures", "0", "--savedir", tmp_path)
    assert "12 label images of 1 videos are complete" in done.stdout + done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["frames"] == 12 and results["options"]["stretch"] == 32
    assert {"fwIoU", "mIoU", "mIoU_present", "VC8", "VC8_vspw", "VC16_vspw"} <= set(
        results["metrics"]
    )
    image = Image.open(tmp_path / "labels" / "9_xyz" / "00000005.png")
    assert image.mode == "P" and image.size == (96, 64)
    assert image.getpalette()[:6] == [120, 120, 120, 180, 120, 120]
    assert np.asarray(image).max() < 124


def test_a_network_that_always_says_wall_is_flagged_although_the_official_vc_is_fooled(
    trained, tmp_path
):
    content = torch.load(trained / "model_best.pth.tar", weights_only=True)
    state = content["state_dict"]
    for classifier in ("backbone.linear_pred", "deco4.1"):
        state[f"{classifier}.weight"].zero_()
        state[f"{classifier}.bias"].copy_(torch.eye(124)[0])
    torch.save(content, tmp_path / "wall.pth.tar")
    # The official script looks at videos of 17 frames and more.
    root = make_vspw(tmp_path / "long", frames=18)
    words = ["--eval-mode", "--data-root", root, *QUICK, "--pictures", "0"]
    perform(*words, "--weights", tmp_path / "wall.pth.tar", "--savedir", tmp_path / "out")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    scores = results["metrics"]
    for length in (8, 16):
        assert scores[f"VC{length}_vspw"][f"VC{length}"] == 1, "100 % by the official rule"
        assert scores[f"VC{length}"][f"VC{length}"] < 0.9
    assert scores["mIoU_present"] < 0.5
    flagged = {warning.rpartition(" ")[2] for warning in results["warnings"]}
    assert flagged == {"VC8", "VC16", "VC8_vspw", "VC16_vspw"}
    assert all("constant in 1 of 1 videos" in warning for warning in results["warnings"])
    assert (tmp_path / "out" / "results.txt").read_text().count("degenerate") >= 4


def test_a_label_image_that_is_missing_is_named(tmp_path):
    write(tmp_path / "a" / "1.png", np.zeros((2, 2), np.uint8))
    assert check_label_tree(tmp_path, ["a/1"]) == "1 label images of 1 videos"
    with pytest.raises(ValueError, match=r"lacks 2 of 3 label images, first a/2\.png"):
        check_label_tree(tmp_path, ["a/1", "a/2", "b/1"])
    # what another run has left would be handed in too
    write(tmp_path / "b" / "7.png", np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match=r"1 label images of no frame.*b/7\.png"):
        check_label_tree(tmp_path, ["a/1"])


def test_frames_of_too_few_cells_are_refused_in_one_line(tree, trained, tmp_path):
    words = ["--eval-mode", "--data-root", tree, *QUICK, "--work-size", "64", "64"]
    weights = ["--weights", trained / "model_best.pth.tar"]
    done = call(*words, *weights, "--savedir", tmp_path / "small")
    assert_one_line(done, "at least 5 cells of 32x32 pixels")
