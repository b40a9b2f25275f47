"""--inference --metrics tc: temporal consistency of a video without labels."""

from __future__ import annotations

import json
import shutil
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from command import assert_one_line, call, perform
from datasets import synthetic
from datasets.frame_numbers import MANY, gaps_before
from jobs.source_consistency import SourceConsistency
from models.optical_flow import DIS
from utils.metrics import TemporalConsistency
from utils.metrics.temporal import Motion
from utils.predictions import frame_tensor

SIZE = (64, 128)
FRAMES = 5


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """A folder of frames of a drive."""
    folder = tmp_path_factory.mktemp("frames") / "drive"
    folder.mkdir()
    (video,) = synthetic.videos("val", 1, FRAMES, SIZE)
    for index in range(FRAMES):
        Image.fromarray(video.frame(index)).save(folder / f"{index:03d}.png")
    return folder


def words(source, *more) -> list[str]:
    start = ["--inference", "--source", source, "--weights", "synthetic", "--device", "cpu"]
    return [*start, "--threads", "1", "--output", "labels", "--metrics", "tc", *more]


def results(folder, name="drive") -> dict:
    return json.loads((folder / f"{name}_consistency.json").read_text())


def test_it_is_that_of_the_label_images_along_flow_between_the_frames(frames, tmp_path):
    done = perform(*words(frames, "--tc-modes", "strict", "nearest"), "--savedir", tmp_path)
    found = results(tmp_path)
    images = [np.asarray(Image.open(path)) for path in sorted(frames.glob("*.png"))]
    tensors = [frame_tensor(image, torch.device("cpu")) for image in images]
    labels = [np.asarray(Image.open(p)) for p in sorted(tmp_path.glob("drive_labels/*.png"))]
    dis = DIS("medium")
    by_hand = {mode: TemporalConsistency(11, mode) for mode in ("strict", "nearest")}
    for i in range(1, FRAMES):
        flow = dis(tensors[i - 1], tensors[i])[0]
        back = dis(tensors[i], tensors[i - 1])[0]
        by_hand["nearest"].update(labels[i - 1], labels[i], flow)
        by_hand["strict"].update(labels[i - 1], labels[i], flow, backward_flow=back)
    for name, mode in (("TC", "strict"), ("TC_nearest", "nearest")):
        result = found["metrics"][name]
        assert result["TC"] == by_hand[mode].compute()["TC"] and result["pairs"] == FRAMES - 1
    assert set(found["definitions"]) == {"TC", "TC_nearest"} and not found["warnings"]
    assert f"TC {100 * found['metrics']['TC']['TC']:.2f} %" in done.stdout + done.stderr


def test_a_wall_of_one_colour_is_flagged(tmp_path):
    folder = tmp_path / "wall"
    folder.mkdir()
    for index in range(3):
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(folder / f"{index}.png")
    done = perform(*words(folder), "--work-size", "32", "32", "--savedir", tmp_path / "run")
    found = results(tmp_path / "run", "wall")
    result = found["metrics"]["TC"]
    assert (result["videos"], result["constant_videos"], result["pairs"]) == (1, 1, 2)
    assert found["warnings"] and "degenerate" in done.stdout + done.stderr


def named(frames, folder, names) -> Path:
    """A folder of the first frames under other names."""
    folder.mkdir(parents=True)
    for old, new in zip(sorted(frames.glob("*.png")), names, strict=True):
        shutil.copy(old, folder / f"{new}.png")
    return folder


# names of frames -> how many of their neighbours are pairs
NAMES = {
    ("0001", "0003", "0004", "0005", "0006"): 3,
    ("0001", "0002", "0004", "0005", "0006"): 3,
    ("frame0001", "frame0002", "frame0003", "frame0007", "frame0008"): 3,
    tuple(f"stuttgart_00_000000_{n:06d}_leftImg8bit" for n in (1, 2, 3, 7, 8)): 3,
    (
        "1305031102.175304",
        "1305031102.211214",
        "1305031102.243211",
        "1305031102.275326",
        "1305031103.011204",
    ): 4,
}


@pytest.mark.parametrize("names, pairs", NAMES.items(), ids=lambda value: str(value)[:20])
def test_frames_on_both_sides_of_missing_numbers_are_no_pair(frames, tmp_path, names, pairs):
    folder = named(frames, tmp_path / "drive", names)
    done = perform(*words(folder), "--savedir", tmp_path / "run")
    found = results(tmp_path / "run")
    assert found["metrics"]["TC"]["pairs"] == pairs == FRAMES - 1 - len(gaps_before(names))
    assert found["metrics"]["TC"]["videos"] == 1
    assert found["left_out_pairs"] == FRAMES - 1 - pairs
    told = f"{FRAMES - 1 - pairs} of {FRAMES - 1} neighbours are no pair"
    assert (told in done.stdout) == (pairs < FRAMES - 1)


def test_every_second_frame_is_a_pair_with_the_next_unless_one_is_missing_between(frames, tmp_path):
    folder = named(frames, tmp_path / "drive", ("0001", "0002", "0003", "0004", "0006"))
    perform(*words(folder), "--frame-step", "2", "--savedir", tmp_path / "run")
    found = results(tmp_path / "run")
    assert found["metrics"]["TC"]["pairs"] == found["left_out_pairs"] == 1


def test_where_the_numbers_of_another_folder_begin_there_is_no_pair(frames, tmp_path):
    for name in ("a", "b"):
        named(frames, tmp_path / "both" / name, [f"{index:04d}" for index in range(FRAMES)])
    source = tmp_path / "both" / "*" / "*.png"
    perform(*words(source), "--savedir", tmp_path / "run")
    found = results(tmp_path / "run", "both")
    assert found["metrics"]["TC"]["pairs"] == 2 * (FRAMES - 1) and found["left_out_pairs"] == 1


@pytest.mark.parametrize(
    "names, gaps",
    [
        ("a_005 a_010 a_015 a_025", {3}),
        ("1 3 4 5 6", {1}),
        ("1 2 4 5 6", {2}),
        ("1 2 7 8 13 14", {2, 4}),
        ("1 3 6 8", {2}),  # every second of 1 2 3 5 6 7 8
        ("img1 img2 img10 img11", {2}),
        ("a_frame1 a_frame2 a_frame4", {2}),
        ("1_left 2_left 4_left", {2}),
        ("0001_v2 0002_v2 0004_v2", {2}),
        ("1280x720_1 1280x720_2 1280x720_4", {2}),
        ("1_1 1_2 1_3 2_1 2_2", {3}),
        ("a1b a5b a6b a7b", set()),
        ("left right8bit up", set()),
        ("1 up 7 8 9", set()),
        ("033 067 100 133 167 200 267", {6}),  # milliseconds, of which one frame is missing
        ("10 13 21 22 40", set()),
        ("1 7", set()),
        ("7", set()),
        ("", set()),
    ],
)
def test_gaps_are_where_numbers_rise_by_more_than_the_most_frequent_step(names, gaps):
    assert gaps_before(names.split()) == gaps


def test_a_source_need_not_remember_more_than_so_many_rises(monkeypatch):
    """Their pairs are counted together, and all of them count."""
    many = 5
    monkeypatch.setattr("datasets.frame_numbers.MANY", many)
    monkeypatch.setattr("jobs.source_consistency.MANY", many)
    args = Namespace(tc_modes=["nearest"], flow_cache=None)
    consistency = SourceConsistency(args, 3)
    monkeypatch.setattr(consistency.motion, "found", Motion(torch.zeros(2, 4, 4)))
    monkeypatch.setattr(consistency.motion, "push", lambda image: None)
    numbers = [n * n for n in range(20)] + list(range(362, 400))
    for number in numbers:
        consistency.add(np.zeros((4, 4, 3), np.uint8), torch.zeros(4, 4), f"{number}")
    assert len(consistency.pairs) == many + 2 and MANY > 100
    (metric,) = consistency.total(())
    assert metric.compute()["TC_nearest"]["pairs"] == len(numbers) - 1
    assert gaps_before([f"{number}" for number in numbers]) == set()


def test_one_picture_has_none_and_says_so(frames, tmp_path):
    done = perform(*words(frames / "000.png"), "--savedir", tmp_path)
    assert results(tmp_path, "000")["metrics"]["TC"]["TC"] is None
    assert "no two frames" in done.stdout + done.stderr


def test_what_needs_labels_is_refused_for_a_source(frames, tmp_path):
    start = words(frames)
    start[start.index("tc")] = "latency"
    assert_one_line(call(*start, "--savedir", tmp_path / "run"), "needs labels", tmp_path / "run")


def test_overwriting_removes_it(frames, tmp_path):
    perform(*words(frames), "--savedir", tmp_path)
    without = words(frames)[: words(frames).index("--metrics")]
    perform(*without, "--overwrite", "--savedir", tmp_path)
    assert not (tmp_path / "drive_consistency.json").exists()
    assert (tmp_path / "drive_labels").is_dir()
