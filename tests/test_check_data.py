"""--check-data reports what is missing or odd in a data set; --needed-frames lists what is read."""

import shutil

import numpy as np
import pytest
from PIL import Image

import main
from command import call, perform, succeed
from datasets import build_dataset
from disk import write
from trees import make_camvid, make_cityscapes


@pytest.fixture
def camvid(tmp_path):
    return make_camvid(tmp_path / "camvid")


def checked(root, *words, dataset: str = "camvid"):
    return call("--check-data", "--dataset", dataset, "--data-root", root, *words)


def test_a_sound_data_set_has_no_problems_and_is_described(camvid):
    done = checked(camvid)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if " videos in " in line]
    splits = [line.split(" videos in ")[1].split(":")[0] for line in lines]
    assert splits == ["train", "val", "test"]
    assert all("no problems" in line for line in lines)


def shrink(frame, label, array) -> None:
    """A frame and its label of another size than the others."""
    Image.open(frame).resize((20, 20)).save(frame)
    write(label, array[:20, :20])


# name -> what breaks the data set: called with the paths of a frame and its label, and the label
FAULTS = {
    "truncated frame": lambda frame, label, array: frame.write_bytes(frame.read_bytes()[:60]),
    "empty label": lambda frame, label, array: label.write_bytes(b""),
    "class out of range": lambda frame, label, array: write(label, np.full_like(array, 77)),
    "label of another size": lambda frame, label, array: write(label, array[:-4]),
    "label that ignores all": lambda frame, label, array: write(label, np.full_like(array, 11)),
    "frame of another size": shrink,
    "missing frame": lambda frame, label, array: frame.unlink(),
    "missing split": lambda frame, label, array: shutil.rmtree(label.parent),
}


def broken(name: str, root) -> None:
    """Break the second training frame of a CamVid tree."""
    frame = sorted((root / "train").iterdir())[1]
    label = root / "trainannot" / f"{frame.stem}.png"
    FAULTS[name](frame, label, np.asarray(Image.open(label)))


@pytest.mark.parametrize(
    "name, message",
    [
        ("truncated frame", "cannot be read"),
        ("empty label", "cannot be read"),
        ("class out of range", "holds the id 77"),
        ("label of another size", "give both one size"),
        ("label that ignores all", "ignores every pixel"),
        ("frame of another size", "is 20x20 (HxW), the frames before it are"),
        ("missing frame", "lacks 1 of"),
        ("missing split", "no CamVid split train"),
    ],
)
def test_every_fault_is_named_and_the_rest_is_still_checked(camvid, name, message):
    broken(name, camvid)
    done = checked(camvid)
    assert done.returncode == 2 and message in done.stderr
    assert "--check-data found 1 problem in camvid" in done.stderr
    assert "videos in test" in done.stdout


def test_all_problems_are_told_not_the_first_alone(camvid):
    for frame in sorted((camvid / "train").iterdir())[:3]:
        frame.write_bytes(b"x")
    done = checked(camvid)
    assert "found 3 problems" in done.stderr
    assert all(frame.name in done.stderr for frame in sorted((camvid / "train").iterdir())[:3])


def test_needed_frames_are_exactly_the_files_an_evaluation_opens(tmp_path):
    root = make_cityscapes(tmp_path / "cityscapes", splits=("val",))
    words = ["--dataset", "cityscapes", "--stm-queue-size", "4"]
    listed = succeed("--needed-frames", *words, "--data-root", root).stdout.split()
    # two snippets of four past frames, one labelled frame and its label
    assert len(listed) == 2 * (5 + 1)
    sparse = tmp_path / "sparse"
    for path in listed:
        (sparse / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / path, sparse / path)
    again = perform("--needed-frames", *words, "--data-root", sparse).stdout.split()
    assert again == listed, "the sparse copy needs no more"

    evaluation = "--eval-mode --savedir unused --work-size 32 64".split()

    def evaluated(where):
        args = main.parse_args([*evaluation, *words, "--data-root", str(where)])
        assert args.offsets == (-4, -3, -2, -1)
        return build_dataset(args, "val")

    whole = evaluated(root)
    copy = evaluated(sparse)
    assert len(copy) == 2
    for i in range(2):
        assert (whole[i].frames == copy[i].frames).all()
        assert (whole[i].labels == copy[i].labels).all()


def test_densely_labelled_videos_need_every_frame_and_rendered_ones_none(camvid):
    listed = perform("--needed-frames", "--dataset", "camvid", "--data-root", camvid).stdout.split()
    assert len(listed) == 2 * len(list((camvid / "val").iterdir()))
    done = call("--needed-frames", "--dataset", "synthetic")
    assert done.returncode == 2 and "nothing needs to be fetched" in done.stderr
