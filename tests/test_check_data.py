"""--check-data reports what is missing or odd in a data set; --needed-frames lists what is read."""

import shutil

import numpy as np
import pytest
from PIL import Image

import main
from command import call, perform, succeed
from datasets import build_dataset
from datasets.check import check
from datasets.files import FileVideo
from disk import drive, write
from trees import make_camvid, make_cityscapes, make_folder


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


def splits_checked(done) -> list[str]:
    lines = [line for line in done.stdout.splitlines() if " videos in " in line]
    return [line.split(" videos in ")[1].split(":")[0] for line in lines]


def test_the_splits_that_exist_are_checked_and_the_others_named(tmp_path):
    done = checked(make_folder(tmp_path / "own"), dataset="folder")
    assert done.returncode == 0, done.stderr
    assert splits_checked(done) == ["train", "val"] and "there is no test split" in done.stdout


def test_a_folder_without_splits_is_read_once(tmp_path):
    root = make_folder(tmp_path / "own")
    shutil.move(root / "train" / "clip", root / "clip")
    shutil.rmtree(root / "train")
    shutil.rmtree(root / "val")
    done = checked(root, dataset="folder")
    assert done.returncode == 0, done.stderr
    assert splits_checked(done) == ["all"] and not done.stderr.count("has no folders")


def test_a_folder_that_is_no_data_set_is_told_once(tmp_path):
    done = checked(tmp_path)
    assert done.returncode == 2 and "found 1 problem in camvid" in done.stderr


def test_classes_of_cityscapes_that_are_not_evaluated_are_no_problem(tmp_path):
    root = make_cityscapes(tmp_path / "cityscapes", splits=("train", "test"))
    for label in (root / "gtFine").rglob("*.png"):
        if "test" in label.parts:
            write(label, np.full((64, 128), 3, np.uint8))  # a dummy, as published
    write(next((root / "gtFine" / "train").rglob("aachen*.png")), np.full((64, 128), 1, np.uint8))
    done = checked(root, dataset="cityscapes")
    assert done.returncode == 0, done.stderr
    assert splits_checked(done) == ["train", "test"] and "no val split" in done.stdout


def test_frames_that_videos_share_are_read_once(tmp_path):
    video = drive(tmp_path, "a", 4, {1, 3})
    first = FileVideo("a", video.frames[:3], video.labels[:3], num_classes=3)
    # the last frame of the first video is labelled in the second alone
    second = FileVideo("b", video.frames[1:], [None, None, video.labels[3]], num_classes=3)
    found = check([first, second], 0)
    assert (found.frames, found.labels) == (4, 2) and not found.problems


def relabel(root, change) -> None:
    for path in root.glob("*/clip/labels/*.png"):
        write(path, change(np.asarray(Image.open(path))).astype(np.uint8))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda ids: np.where(ids == 1, 255, 0), "in 4 labels; 255 (ignored) fills"),
        (lambda ids: np.where(ids == 1, 255, 0), "are these 0/255 masks?"),
        (lambda ids: np.full_like(ids, 255), "all pixels of 4 labels are 255 (ignored)"),
        (lambda ids: np.where(ids == 2, 1, ids), "train: class thing never occurs in 4 labels"),
        (lambda ids: np.where(np.indices(ids.shape)[0] > 5, 255, ids), "are these 0/255 masks"),
    ],
)
def test_labels_that_teach_nothing_are_a_problem(tmp_path, change, message):
    root = make_folder(tmp_path / "own")
    relabel(root, change)
    done = checked(root, dataset="folder")
    assert done.returncode == 2 and message in done.stderr


def test_a_class_may_be_absent_where_nothing_is_trained_or_the_list_is_published(tmp_path):
    root = make_folder(tmp_path / "own")
    for path in (root / "val").rglob("labels/*.png"):
        write(path, np.zeros((24, 32), np.uint8))
    done = checked(root, dataset="folder")
    assert done.returncode == 0 and "never labelled: wall, thing" in done.stdout
    root = make_camvid(tmp_path / "camvid")
    for path in (root / "trainannot").iterdir():
        write(path, np.asarray(Image.open(path)) // 12)
    done = checked(root)
    assert done.returncode == 0 and "never occur in 4 labels" in done.stderr


# name -> what makes a layout nearly right, and the advice
def flat(root):
    for part in ("images", "labels"):
        shutil.move(root / "train" / "clip" / part, root / "train" / part)
    (root / "train" / "clip").rmdir()


def types_first(root):
    for part in ("images", "labels"):
        (root / part).mkdir()
        for split in ("train", "val"):
            shutil.move(root / split / "clip" / part, root / part / split)
    shutil.rmtree(root / "train")
    shutil.rmtree(root / "val")


def renamed(old: str, new: str):
    return lambda root: shutil.move(root / old, root / new)


def with_ending(folder: str):
    def change(root):
        for path in list((root / "train/clip/labels").iterdir()):
            shutil.move(path, root / "train/clip" / folder / f"{path.stem}_L.png")
        if folder != "labels":
            (root / "train/clip/labels").rmdir()

    return change


def as_text(root):
    for path in list((root / "train/clip/labels").iterdir()):
        shutil.move(path, path.with_suffix(".txt"))


def frames_in_the_split(root):
    flat(root)
    for path in list((root / "train/images").iterdir()):
        shutil.move(path, root / "train" / path.name)
    (root / "train/images").rmdir()


NEAR = {
    "images beside labels": (flat, "lie side by side: put them into a clip folder"),
    "frames beside labels": (frames_in_the_split, "holds frames itself"),
    "images/train, labels/train": (types_first, "the split comes first here, then the clip"),
    "masks": (renamed("train/clip/labels", "train/clip/masks"), "rename "),
    "frames": (renamed("train/clip/images", "train/clip/frames"), "rename "),
    "valid": (renamed("val", "valid"), "to val"),
    "_L beside the frames": (with_ending("images"), "put labels into"),
    "_L": (with_ending("labels"), "name labels as their frames, without _L"),
    "labels as text": (as_text, "holds no labels that can be read (0.txt)"),
}


@pytest.mark.parametrize("name", NEAR)
def test_a_layout_that_is_nearly_right_is_recognised_with_advice(tmp_path, name):
    change, advice = NEAR[name]
    root = make_folder(tmp_path / "own")
    change(root)
    done = checked(root, dataset="folder")
    assert done.returncode == 2 and advice in done.stderr
    assert "found 1 problem" in done.stderr
