"""--clip-list: which clips of Cityscapes are scored, and TC on them."""

from __future__ import annotations

import json

import pytest

import main
from command import assert_one_line, call, perform
from datasets import cityscapes
from datasets.clip_list import listed_videos, read_clip_list
from models import build_model
from trees import make_cityscapes
from utils import checkpoint

FIRST, SECOND = "aachen_000000_000019", "bochum_000000_000019"


def test_the_published_list_has_108_clips_of_three_cities():
    frames = read_clip_list("etc-tc")
    cities = [frame.split("_")[0] for frame in frames]
    assert len(set(frames)) == 108
    counts = {city: cities.count(city) for city in set(cities)}
    assert counts == {"frankfurt": 56, "lindau": 20, "munster": 32}


@pytest.mark.parametrize(
    "line",
    [
        SECOND,
        f"bochum/{SECOND}_leftImg8bit.png",
        f"# a comment\n\n {SECOND} # mine",
        f"leftImg8bit/val/b/{SECOND}_leftImg8bit.png\tgtFine/val/b/{SECOND}_gtFine_labelIds.png",
        f"{SECOND}_gtFine_labelTrainIds.png",
    ],
)
def test_a_file_names_labelled_frames_or_their_images(line, tmp_path):
    make_cityscapes(tmp_path / "city", (8, 16), splits=["val"])
    (tmp_path / "mine.txt").write_text(f"{line}\n")
    found = cityscapes.videos(tmp_path / "city", "val")
    (video,) = listed_videos(found, str(tmp_path / "mine.txt"), "val")
    assert video.name == SECOND and len(video) == 30


def test_all_is_the_whole_split(tmp_path):
    found = cityscapes.videos(make_cityscapes(tmp_path / "city", (8, 16), splits=["val"]), "val")
    assert listed_videos(found, "all", "val") == found and len(found) == 2


def evaluation(root, *words):
    return [
        *("--eval-mode", "--dataset", "cityscapes", "--data-root", root, "--method", "single"),
        *("--backbone", "erf", "--weights", root / "x.pth", "--threads", "1", "--device", "cpu"),
        *("--num-workers", "0", "--pictures", "0", "--work-size", "32", "64", *words),
    ]


@pytest.fixture
def root(tmp_path):
    root = make_cityscapes(tmp_path / "city", (32, 64), splits=["val"])
    args = main.parse_args(["--training", "--method", "single", "--savedir", "unused"])
    checkpoint.save(root / "x.pth", build_model(args, 19).state_dict())
    (tmp_path / "mine.txt").write_text(FIRST)
    return root


def test_tc_of_a_listed_clip_has_29_pairs_and_miou_is_that_of_its_label(root, tmp_path):
    words = evaluation(root, "--clip-list", tmp_path / "mine.txt", "--metrics")
    perform(*words, "miou", "vc", "tc", "--savedir", tmp_path / "tc")
    perform(*words, "miou", "--savedir", tmp_path / "plain")
    found, plain = (
        json.loads((tmp_path / name / "results.json").read_text()) for name in ("tc", "plain")
    )
    assert found["metrics"]["TC"]["pairs"] == 29 and found["frames"] == 30
    assert found["metrics"]["mIoU"] == plain["metrics"]["mIoU"] and plain["frames"] == 1
    assert found["loss"] is None and plain["loss"] > 0
    assert not any(name.startswith("VC") for name in found["metrics"])


def test_a_viewer_of_listed_clips_sees_all_their_frames(root, tmp_path):
    words = evaluation(root, "--clip-list", tmp_path / "mine.txt", "--metrics")
    perform(*words, "latency", "--latency-ms", "100", "--savedir", tmp_path / "run")
    found = json.loads((tmp_path / "run" / "results.json").read_text())
    assert found["frames"] == 30 and found["metrics"]["latency_aware"]["taken"] == 0.6


def test_clips_without_the_frames_around_are_refused(tmp_path, root):
    (root / "leftImg8bit_sequence").rename(root / "elsewhere")
    words = evaluation(root, "--clip-list", tmp_path / "mine.txt", "--metrics", "tc")
    done = call(*words, "--savedir", tmp_path / "run")
    assert_one_line(done, "needs the frames around the labelled ones", tmp_path / "run")


def test_without_a_list_the_note_names_it(root, tmp_path):
    done = perform(*evaluation(root, "--metrics", "tc", "--savedir", tmp_path / "run"))
    assert "--clip-list chooses clips" in done.stdout + done.stderr


def test_all_frames_of_listed_clips_are_needed(root, tmp_path):
    words = ["--needed-frames", "--dataset", "cityscapes", "--data-root", root, "--method"]
    done = perform(*words, "single", "--clip-list", tmp_path / "mine.txt")
    assert len(done.stdout.split()) == 31 and "bochum" not in done.stdout


def test_a_list_that_is_missing_empty_or_of_other_clips_is_named(root, tmp_path):
    words = evaluation(root, "--savedir", tmp_path / "run", "--clip-list")
    assert_one_line(call(*words, "etc-tcc"), "that comes with the tool (etc-tc)", tmp_path / "run")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    assert_one_line(call(*words, tmp_path / "empty.txt"), "names no frame", tmp_path / "run")
    done = call(*words, "etc-tc")
    assert_one_line(done, "108 of its 108 clips are not in the val split", tmp_path / "run")
