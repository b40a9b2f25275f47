"""--check-data tells what is missing or odd in a data set, --needed-frames what an evaluation reads of it."""

import shutil

import numpy as np
import pytest
from PIL import Image

from command import call, perform, succeed
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
    assert [line.split(" videos in ")[1].split(":")[0] for line in lines] == [
        "train",
        "val",
        "test",
    ]
    assert all("no problems" in line for line in lines)


def broken(name: str, root) -> None:
    frame = sorted((root / "train").iterdir())[1]
    label = root / "trainannot" / f"{frame.stem}.png"
    array = np.asarray(Image.open(label))
    {
        "truncated frame": lambda: frame.write_bytes(frame.read_bytes()[:60]),
        "empty label": lambda: label.write_bytes(b""),
        "class out of range": lambda: Image.fromarray(np.full_like(array, 77)).save(label),
        "label of another size": lambda: Image.fromarray(array[:-4]).save(label),
        "label that ignores all": lambda: Image.fromarray(np.full_like(array, 11)).save(label),
        "frame of another size": lambda: (
            Image.open(frame).resize((20, 20)).save(frame),
            Image.fromarray(array[:20, :20]).save(label),
        ),
        "missing frame": frame.unlink,
        "missing split": lambda: shutil.rmtree(root / "trainannot"),
    }[name]()


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
    assert (
        done.returncode == 2
        and message in done.stderr
        and "--check-data found 1 problem in camvid" in done.stderr
    )
    assert "videos in test" in done.stdout


def test_all_problems_are_told_not_the_first_alone(camvid):
    for frame in sorted((camvid / "train").iterdir())[:3]:
        frame.write_bytes(b"x")
    done = checked(camvid)
    assert "found 3 problems" in done.stderr
    assert all(frame.name in done.stderr for frame in sorted((camvid / "train").iterdir())[:3])


def test_needed_frames_are_exactly_the_files_an_evaluation_opens(tmp_path):
    root = make_cityscapes(tmp_path / "cityscapes", splits=("val",))
    words = ["--dataset", "cityscapes", "--data-root", root, "--stm-queue-size", "4"]
    listed = succeed("--needed-frames", *words).stdout.split()
    assert len(listed) == 2 * (5 + 1), (
        "two snippets of four past frames, one labelled frame and its label"
    )
    sparse = tmp_path / "sparse"
    for path in listed:
        (sparse / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / path, sparse / path)
    words[3] = sparse
    assert perform("--needed-frames", *words).stdout.split() == listed, (
        "the sparse copy needs no more"
    )
    import main
    from datasets import build_dataset

    args = main.parse_args(
        ["--eval-mode", "--savedir", "unused", *map(str, words), "--work-size", "32", "64"]
    )
    whole, copy = (
        build_dataset(
            main.parse_args(
                [
                    *map(
                        str,
                        [
                            "--eval-mode",
                            "--savedir",
                            "unused",
                            *words[:3],
                            where,
                            *words[4:],
                            "--work-size",
                            "32",
                            "64",
                        ],
                    )
                ]
            ),
            "val",
        )
        for where in (root, sparse)
    )
    assert args.offsets == (-4, -3, -2, -1) and len(copy) == 2
    for i in range(2):
        assert (whole[i].frames == copy[i].frames).all() and (
            whole[i].labels == copy[i].labels
        ).all()


def test_densely_labelled_videos_need_every_frame_and_rendered_ones_none(camvid):
    listed = perform("--needed-frames", "--dataset", "camvid", "--data-root", camvid).stdout.split()
    assert len(listed) == 2 * len(list((camvid / "val").iterdir()))
    done = call("--needed-frames", "--dataset", "synthetic")
    assert done.returncode == 2 and "nothing needs to be fetched" in done.stderr
