"""CamVid's sequence folder is written from raw videos, under the numbers of the labelled frames."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from command import ROOT
from datasets import camvid, camvid_sequence
from disk import write
from utils.output.video import VideoWriter

GREYS = (0, 60, 120, 180, 240)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Two of the four videos; frame n shows GREYS[n]."""
    folder = tmp_path_factory.mktemp("raw")
    with VideoWriter(folder / "made.mp4", 30) as writer:
        for grey in GREYS:
            writer.write(np.full((32, 48, 3), grey, np.uint8))
    content = (folder / "made.mp4").read_bytes()
    # The reader looks at the content: an MP4 serves for an MXF.
    for name in ("0016E5.MXF", "01TP_extract.avi"):
        (folder / name).write_bytes(content)
    return folder


def test_frames_have_the_published_names_and_numbers(raw, tmp_path):
    command = [sys.executable, "-m", "datasets.camvid_sequence", raw, tmp_path / "CAMVID"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "4 frames of 0016E5.MXF, 5 frames of 01TP_extract.avi\n"
    folder = tmp_path / "CAMVID" / "images_sequence"
    drives = [f"0016E5_{n:05d}" for n in range(4)] + [f"0001TP_{n:06d}" for n in range(6660, 6665)]
    assert sorted(path.stem for path in folder.iterdir()) == sorted(drives)
    for stem, grey in (("0016E5_00000", 60), ("0016E5_00003", 240), ("0001TP_006660", 0)):
        image = np.asarray(Image.open(folder / f"{stem}.png"))
        assert image.shape == (32, 48, 3) and abs(image.mean() - grey) < 6


def test_the_names_are_those_that_the_data_set_reads(raw, tmp_path):
    camvid_sequence.write_sequence(raw, tmp_path)
    write(tmp_path / "images" / "0001TP_006663.png", np.zeros((32, 48, 3), np.uint8))
    write(tmp_path / "labels" / "0001TP_006663_L.png", np.ones((32, 48), np.uint8))
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "val.txt").write_text("0001TP_006663")
    (video,) = camvid.videos(tmp_path, "val")
    index = video.labelled[0]
    assert abs(video.frame(index - 1).mean() - 120) < 6


def test_a_folder_without_them_and_other_words_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="none of CamVid's raw videos: 0005VD.MXF"):
        camvid_sequence.write_sequence(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    command = [sys.executable, "-m", "datasets.camvid_sequence", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "RAW CAMVID" in done.stderr
