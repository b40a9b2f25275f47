"""--source-split and --output submission: a split without labels, labelled whole."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from command import assert_one_line, call, perform
from trees import make_cityscapes, make_vspw

NETWORK = "--method single --backbone mit_b0".split()
QUICK = "--device cpu --threads 1 --num-workers 0 --work-box 64 96".split()
FRAMES = 5
# As VSPW names its videos: a number and an id that may end with an underscore.
VIDEOS = ("31_-Ab_cd_", "7_def")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """VSPW whose test split has frames only, and other videos beside."""
    root = make_vspw(tmp_path_factory.mktemp("vspw") / "VSPW_480p", frames=FRAMES)
    shutil.copytree(root / "data" / "9_xyz", root / "data" / VIDEOS[0])
    for name in VIDEOS:
        shutil.rmtree(root / "data" / name / "mask")
    (root / "train.txt").write_text("12_abc\n")
    (root / "test.txt").write_text("\n".join(VIDEOS))
    return root


@pytest.fixture(scope="module")
def weights(tree, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    words = ["--training", *NETWORK, "--dataset", "vspw", "--data-root", tree, *QUICK]
    perform(*words, "--num-epochs", "1", "--batch-size", "1", "--no-iouVal", "--savedir", folder)
    return folder / "model_best.pth.tar"


@pytest.fixture(scope="module")
def words(tree, weights):
    return ["--inference", "--data-root", tree, "--weights", weights, *QUICK]


@pytest.fixture(scope="module")
def submitted(words, tmp_path_factory):
    """A savedir with the submission, and what the run said."""
    folder = tmp_path_factory.mktemp("submission")
    of_test = ["--source-split", "test", "--output", "submission", "labels"]
    return folder, perform(*words, *of_test, "--savedir", folder)


def test_every_frame_of_the_split_has_its_label_image_and_no_other_video_has(tree, submitted):
    folder, done = submitted
    assert f"{2 * FRAMES} label images of 2 videos are complete in" in done.stderr + done.stdout
    tree_of = folder / "result_submission"
    found = {path.relative_to(tree_of).as_posix() for path in tree_of.rglob("*.*")}
    frames = [path.stem for path in (tree / "data" / VIDEOS[0] / "origin").iterdir()]
    assert len(frames) == FRAMES
    assert found == {f"{video}/{frame}.png" for video in VIDEOS for frame in frames}


def test_the_images_hold_classes_in_the_colours_of_the_data_set(submitted):
    folder, _ = submitted
    for path in sorted((folder / "result_submission").rglob("*.png")):
        image = Image.open(path)
        assert image.mode == "P" and image.size == (96, 64)
        assert image.getpalette()[:6] == [120, 120, 120, 180, 120, 120]
        assert np.asarray(image).max() < 124
        other = Image.open(folder / f"{path.parent.name}_labels" / path.name)
        assert np.array_equal(np.asarray(image), np.asarray(other))


def test_a_video_of_a_split_is_labelled_as_its_folder_of_frames_is(
    tree, words, submitted, tmp_path
):
    folder, _ = submitted
    source = tree / "data" / "7_def" / "origin"
    perform(*words, "--source", source, "--output", "labels", "--savedir", tmp_path / "out")
    for path in sorted((tmp_path / "out" / "7_def_labels").iterdir()):
        submission = folder / "result_submission" / "7_def" / path.name
        assert np.array_equal(np.asarray(Image.open(path)), np.asarray(Image.open(submission)))


def test_an_image_that_has_gone_missing_is_told_by_the_resumed_run(words, submitted, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(submitted[0], out)
    gone = next((out / "result_submission" / "7_def").glob("*.png"))
    gone.unlink()
    of_test = ["--source-split", "test", "--output", "submission", "labels"]
    done = call(*words, *of_test, "--savedir", out, "--resume")
    assert_one_line(done, f"lacks 1 of {2 * FRAMES} label images, first 7_def/{gone.name}")


def test_overwrite_leaves_nothing_of_another_submission(tree, words, submitted, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(submitted[0], out)
    of_val = ["--source-split", "val", "--output", "submission"]
    perform(*words, *of_val, "--savedir", out, "--overwrite")
    assert [path.name for path in (out / "result_submission").iterdir()] == ["9_xyz"]


def test_scoring_a_split_without_labels_names_what_labels_it(tree, weights, tmp_path):
    words = ["--eval-mode", "--data-root", tree, "--weights", weights, *QUICK]
    done = call(*words, "--val-split", "test", "--savedir", tmp_path / "out")
    assert_one_line(done, "--inference --source-split test", tmp_path / "out" / "results.json")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--source", "x.mp4"], "--output submission needs --source-split"),
        (["--source-split", "test", "--source", "x.mp4"], "two things to label"),
        (["--source-split", "tset"], "--source-split tset: --dataset vspw has train"),
        (["--source-split", "test", "--max-frames", "3"], "drop --frame-step and --max-frames"),
        (["--source-split", "test", "--frame-step", "2"], "drop --frame-step and --max-frames"),
        (["--source-split", "test", "--min-confidence", "0.5"], "drop --min-confidence"),
    ],
)
def test_what_would_be_no_whole_submission_is_refused(words, tmp_path, more, message):
    done = call(*words, *more, "--output", "submission", "--savedir", tmp_path / "out")
    assert_one_line(done, message, tmp_path / "out")


def test_other_classes_than_those_of_the_data_set_are_no_submission(words, tree, tmp_path):
    cityscapes = make_cityscapes(tmp_path / "cityscapes", numbers=(18, 19), splits=("val",))
    other = ["--dataset", "cityscapes", "--data-root", cityscapes, "--source-split", "val"]
    done = call(*words, *other, "--output", "submission", "--savedir", tmp_path / "out")
    assert_one_line(done, "takes the classes of --dataset cityscapes", tmp_path / "out")


def test_ids_are_those_that_the_benchmark_expects(tmp_path):
    """Cityscapes takes its official ids: 7 is road, and none of the classes is 0."""
    root = make_cityscapes(tmp_path / "cityscapes", numbers=())
    data = ["--data-root", root, "--device", "cpu", "--threads", "1", "--num-workers", "0"]
    network = ["--method", "single", "--backbone", "erf", "--work-size", "64", "128"]
    words = ["--training", *network, *data, "--num-epochs", "1", "--batch-size", "1"]
    perform(*words, "--no-iouVal", "--savedir", tmp_path / "run")
    words = ["--inference", "--weights", tmp_path / "run" / "model_best.pth.tar", *data]
    perform(
        *words, "--source-split", "val", "--output", "submission", "--savedir", tmp_path / "out"
    )
    images = sorted((tmp_path / "out" / "result_submission").rglob("*.png"))
    assert len(images) == 2
    ids = set(np.unique([np.asarray(Image.open(path)) for path in images]).tolist())
    assert ids <= {7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33}
