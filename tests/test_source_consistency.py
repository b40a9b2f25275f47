"""--inference --metrics tc: temporal consistency of a video without labels."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from command import assert_one_line, call, perform
from datasets import synthetic
from jobs.source_consistency import FrameNumbers
from models.optical_flow import DIS
from utils.metrics import TemporalConsistency
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
    constant = found["metrics"]["TC"]["constant_pairs"]
    assert bool(constant) == bool(found["warnings"])
    assert ("degenerate" in done.stdout + done.stderr) == bool(constant)


def test_frames_on_both_sides_of_missing_numbers_are_no_pair(frames, tmp_path):
    folder = tmp_path / "stuttgart_00"
    folder.mkdir()
    for old, new in enumerate((1, 2, 3, 7, 8)):
        name = f"stuttgart_00_000000_{new:06d}_leftImg8bit.png"
        shutil.copy(frames / f"{old:03d}.png", folder / name)
    perform(*words(folder), "--savedir", tmp_path / "run")
    assert results(tmp_path / "run", "stuttgart_00")["metrics"]["TC"]["pairs"] == 3


def test_numbers_may_rise_by_any_step():
    def gaps(*names):
        numbers = FrameNumbers()
        return [numbers.gap_before(name) for name in names]

    assert gaps("a_005", "a_010", "a_015", "a_025") == [False, False, False, True]
    assert gaps("left", "right8bit", "up") == [False] * 3


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
