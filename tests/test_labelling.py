"""What an inference reads and writes: classes that weights bring, pictures, folders of its own."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from command import SINGLE, assert_one_line, call, perform
from test_endings import frames_in
from trees import make_folder

SMALL = [*SINGLE, "--threads", "1", "--device", "cpu"]


def label(source, weights, savedir, *words):
    return perform(
        "--inference",
        *SMALL,
        "--source",
        source,
        "--weights",
        weights,
        "--savedir",
        savedir,
        *words,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder of weights that were trained on a data set which is gone."""
    place = tmp_path_factory.mktemp("trained")
    root = make_folder(place / "data")
    words = "--method single --dataset folder --work-size 16 24 --batch-size 2 --num-epochs 1"
    perform(
        "--training", *words.split(), "--data-root", root, "--threads", "1", "--device", "cpu",
        "--num-workers", "0", "--savedir", place / "save",
    )  # fmt: skip
    shutil.rmtree(root)
    return place / "save"


def test_weights_bring_their_classes_colours_and_size(trained, tmp_path):
    """A folder of a training means its best weights, which need no data to label."""
    done = perform(
        "--inference", "--source", frames_in(tmp_path / "in"), "--weights", trained, "--output",
        "labels", "--threads", "1", "--device", "cpu", "--savedir", tmp_path / "out",
    )  # fmt: skip
    assert "--dataset folder" in done.stdout and "--work-size 16 24" in done.stdout
    first = Image.open(tmp_path / "out" / "in_labels" / "0.png")
    assert first.mode == "P" and first.size == (48, 32)
    assert set(np.unique(first)) <= {0, 1, 2, 255}
    assert first.getpalette()[3:6] == [10, 20, 30], "the colour of the second class"


def test_a_picture_gets_an_overlay_that_is_a_picture(weights, tmp_path):
    picture = frames_in(tmp_path / "in") / "1.png"
    label(picture, weights, tmp_path / "out", "--output", "overlay", "side-by-side")
    assert Image.open(tmp_path / "out" / "1_overlay.png").size == (48, 32)
    assert Image.open(tmp_path / "out" / "1_side_by_side.png").size[0] >= 96
    assert not list((tmp_path / "out").glob("*.mp4"))


def test_an_inference_never_reads_what_it_wrote(weights, tmp_path):
    folder = frames_in(tmp_path / "in")
    for words in ((), ("--overwrite",)):
        label(folder, weights, folder, "--output", "overlay", "labels", *words)
        labelled = sorted(path.name for path in (folder / "in_labels").iterdir())
        assert labelled == ["0.png", "1.png", "2.png"], "neither legend.png nor label images"
        assert [path.name for path in folder.glob("*.mp4")] == ["in_overlay.mp4"]
    inside = label(f"{folder}/**/*.png", weights, folder, "--output", "labels", "--overwrite")
    assert "in: 3 frames" in inside.stdout


def test_overwriting_removes_what_the_runs_wrote_and_nothing_else(weights, tmp_path):
    folder = frames_in(tmp_path / "in")
    (folder / "mine_labels").mkdir()
    (folder / "mine_overlay.mp4").write_bytes(b"mine")
    label(folder / "0.png", weights, folder, "--output", "labels")
    label(folder / "1.png", weights, folder, "--output", "labels", "--overwrite")
    assert (folder / "mine_labels").exists() and (folder / "mine_overlay.mp4").exists()
    assert not (folder / "0_labels").exists() and (folder / "1_labels").exists()


def test_what_a_folder_holds_and_no_source_reads_is_told(weights, tmp_path):
    folder = frames_in(tmp_path / "in")
    (folder / "notes.txt").write_text("rain")
    done = label(folder, weights, folder, "--output", "labels")
    assert "in: notes.txt is not labelled, it is a text file" in done.stderr
    done = label(folder, weights, folder, "--output", "labels", "--overwrite")
    assert "in: notes.txt is not labelled, it is a text file" in done.stderr
    assert "args.txt is the first: an output of this tool" in done.stderr


def test_folders_have_no_rate_and_one_picture_needs_none(weights, tmp_path):
    folder = frames_in(tmp_path / "in")
    words = ("--output", "overlay")
    done = label(folder, weights, tmp_path / "folder", *words)
    assert "in: nothing says how many frames a second it has, 25 are assumed" in done.stderr
    done = label(folder / "0.png", weights, tmp_path / "picture", *words)
    assert "frames a second" not in done.stderr


def test_a_savedir_whose_name_is_no_utf_8_is_refused(weights, tmp_path):
    folder = frames_in(tmp_path / "in")
    words = ["--inference", *SMALL, "--source", folder, "--weights", weights]
    done = call(*words, "--savedir", tmp_path / os.fsdecode(b"caf\xe9"))
    assert_one_line(done, r"caf\udce9 is a name that is no UTF-8: give another")


def test_new_classes_of_the_same_number_make_the_outputs_new(trained, tmp_path):
    root = make_folder(tmp_path / "data")
    (root / "classes.txt").write_text("water\nsand\nboat\n")
    words = "--method single --dataset folder --work-size 16 24 --batch-size 2 --num-epochs 1"
    words = ["--training", *words.split(), "--data-root", root, "--weights", trained]
    words += ["--threads", "1", "--device", "cpu", "--num-workers", "0", "--savedir"]
    kept = perform(*words, tmp_path / "kept")
    assert "--new-classes makes the outputs new" in kept.stderr
    new = perform(*words, tmp_path / "new", "--new-classes")
    assert "; new: 2 (backbone.decoder.output_conv.weight" in new.stdout
    assert "the weights were trained for" not in new.stdout + new.stderr


def test_a_folder_of_weights_is_evaluated_and_written_down_as_its_file(trained, tmp_path):
    root = make_folder(tmp_path / "data")
    words = ["--eval-mode", "--data-root", root, "--threads", "1", "--device", "cpu"]
    done = perform(*words, "--weights", trained, "--savedir", tmp_path / "out")
    assert "mIoU" in done.stdout
    assert str(trained / "model_best.pth.tar") in (tmp_path / "out" / "args.txt").read_text()
