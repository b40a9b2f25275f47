"""CamVid as published, and its two layouts on small trees."""

from pathlib import Path

import numpy as np
import pytest
import torch

import main
from command import perform
from datasets import camvid
from datasets.camvid import LABELS
from datasets.class_weights import balanced, class_weights
from datasets.clip import ClipDataset
from disk import SIZE, ids, picture, write
from models import build_model
from utils import checkpoint

# The published data


@pytest.mark.parametrize(
    "split, drives, gaps, fps",
    [
        ("train", {"0001TP": 62, "0006R0": 101, "0016E5": 204}, 3, 1),
        ("val", {"0016E5": 101}, 0, 15),
        ("test", {"0001TP": 62, "Seq05VD": 171}, 0, 1),
    ],
)
def test_camvid_has_its_published_drives(shared, split, drives, gaps, fps):
    videos = camvid.videos(shared / "camvid", split)
    assert {video.name: len(video) for video in videos} == drives
    assert all(len(video.labelled) == len(video) and video.fps == fps for video in videos)
    # of 0016E5: a jitter of one frame, and two parts that were left out
    assert sum(video.gaps for video in videos) == gaps
    for video in videos:
        numbers = [camvid.number(video.frame_name(i)) for i in range(len(video))]
        assert numbers == sorted(set(numbers))
        assert all(video.frames[i].stem == video.labels[i].stem for i in range(len(video)))
        assert video.frame(0).shape == (360, 480, 3)
        assert set(np.unique(video.label(0))) <= {*range(11), 255}


def test_camvids_parts_share_no_frame(shared):
    stems = [
        {path.stem for video in camvid.videos(shared / "camvid", split) for path in video.frames}
        for split in camvid.STEPS
    ]
    assert not (stems[0] & stems[1] or stems[0] & stems[2] or stems[1] & stems[2])


def test_camvids_classes_lie_where_their_names_say(shared):
    """Sky is up and bright, road is down and grey: names, ids and void's new id fit together."""
    video = camvid.videos(shared / "camvid", "val")[0]
    frame = video.frame(0).astype(float)
    label = video.label(0)
    rows = {
        name: np.nonzero(label == LABELS.names.index(name))[0].mean()
        for name in ("sky", "building", "road")
    }
    assert rows["sky"] < rows["building"] < rows["road"]
    assert frame[label == 0].mean() > frame[label == 3].mean()


def test_swnets_weights_for_camvid_are_in_this_order(shared):
    """Their list does not name its classes. 1/ln(1.02 + share) follows it in our order of the
    classes, and does not in ETC's order."""
    ours = balanced(camvid.videos(shared / "camvid", "train"), 11, c=1.02)
    theirs = class_weights("swnet", 11)
    names = "building tree sky car signsymbol road pedestrian fence pole pavement bicyclist"
    etc = [LABELS.names.index(name) for name in names.split()]

    def correlation(order):
        return torch.corrcoef(torch.stack([ours[order], theirs]).log())[0, 1]

    assert correlation(list(range(11))) > 0.95 and correlation(etc) < 0.7


# The small layout


def small_tree(root: Path) -> Path:
    for number in (30, 60, 150, 1020):
        for name in (f"A_{number:05d}", f"B_f{number:05d}"):
            write(root / "train" / f"{name}.png", picture(number))
            write(root / "trainannot" / f"{name}.png", np.full(SIZE, (number // 30) % 12, np.uint8))
    return root


def test_gaps_are_bridged_by_the_labelled_frame_before_and_counted(tmp_path):
    a, b = camvid.videos(small_tree(tmp_path), "train")
    assert (a.name, b.name) == ("A", "B") and a.gaps == b.gaps == 2
    clips = ClipDataset(
        [a, b], LABELS, lambda clip, rng: clip, startup=lambda past: (-1,) if past else ()
    )
    assert clips[2].name == "A/A_00150"
    # the frame before A_00150 is A_00060
    assert np.array_equal(clips[2].frames[0].permute(1, 2, 0) * 255, picture(60))
    assert len(clips[4].frames) == 1, "B does not reach back into A"


@pytest.mark.parametrize(
    "num_classes, expected",
    [(11, {30: 1, 60: 2, 150: 5, 1020: 10}), (12, {30: 2, 60: 3, 150: 6, 1020: 11})],
)
def test_void_is_ignored_or_class_zero(tmp_path, num_classes, expected):
    root = small_tree(tmp_path)
    write(root / "trainannot" / "A_00030.png", np.full(SIZE, 11, np.uint8))
    video = camvid.videos(root, "train", num_classes)[0]
    void = {11: 255, 12: 0}[num_classes]
    assert (video.label(0) == void).all()
    assert [video.label(i)[0, 0] for i in (1, 2, 3)] == [expected[n] for n in (60, 150, 1020)]
    write(root / "trainannot" / "A_00030.png", np.full(SIZE, 12, np.uint8))
    with pytest.raises(ValueError, match="holds the id 12"):
        video.label(0)


# The large layout


def large_tree(root: Path, sequence="images_sequence") -> Path:
    for name, number in (("A_f00030", 30), ("A_f00060", 60), ("B_000040", 40)):
        write(root / "images" / f"{name}.png", picture(number))
        write(root / "labels" / f"{name}_L.png", np.full(SIZE, number // 10, np.uint8))
    for number in (*range(27, 31), *range(57, 61), 62):
        write(root / sequence / f"A_f{number:05d}.png", picture(number))
    write(root / sequence / "B_000039.png", picture(39))
    (root / "annotations").mkdir()
    # no final newline, as published
    (root / "annotations" / "val.txt").write_text("A_f00030\nA_f00060\nB_000040")
    return root


@pytest.mark.parametrize("sequence", ["images_sequence", "image_sequence"])
def test_the_large_layout_counts_in_single_frames(tmp_path, sequence):
    a, b = camvid.videos(large_tree(tmp_path, sequence), "val")
    assert (a.name, len(a), tuple(a.labelled), a.fps) == ("A", 36, (3, 33), 30)
    assert (b.name, len(b), tuple(b.labelled)) == ("B", 2, (1,))
    assert a.frame_name(0) == "A_f00027" and b.frame_name(0) == "B_000039"
    assert np.array_equal(a.frame(32), picture(59)) and np.array_equal(a.frame(33), picture(60))
    assert a.label(3)[0, 0] == 2 and camvid.videos(tmp_path, "val", 12)[0].label(3)[0, 0] == 3
    with pytest.raises(FileNotFoundError, match="A_f00056.png does not exist"):
        a.frame(29)


def test_the_large_layout_ignores_class_zero_unless_there_are_twelve(tmp_path):
    root = large_tree(tmp_path)
    write(root / "labels" / "A_f00030_L.png", np.zeros(SIZE, np.uint8))
    assert camvid.videos(root, "val")[0].label(3)[0, 0] == 255
    assert camvid.videos(root, "val", 12)[0].label(3)[0, 0] == 0


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_lists_of_frames_may_come_from_other_systems(tmp_path, encoding):
    text = "# frames\r\nA_f00030\r\n\r\nA_f00060\r\n"
    (large_tree(tmp_path) / "annotations" / "val.txt").write_bytes(text.encode(encoding))
    (video,) = camvid.videos(tmp_path, "val")
    assert (video.name, tuple(video.labelled)) == ("A", (3, 33))


# Faults


@pytest.mark.parametrize("gone", ["images/A_f00060.png", "labels/B_000040_L.png"])
def test_a_listed_frame_that_is_missing_is_named(tmp_path, gone):
    (large_tree(tmp_path) / gone).unlink()
    with pytest.raises(
        FileNotFoundError, match=f"{gone} does not exist, but annotations/val.txt lists it"
    ):
        camvid.videos(tmp_path, "val")


@pytest.mark.parametrize("gone", ["train/A_00060.png", "trainannot/A_00060.png"])
def test_a_frame_or_label_without_the_other_is_named(tmp_path, gone):
    (small_tree(tmp_path) / gone).unlink()
    with pytest.raises(FileNotFoundError, match=f"{Path(gone).parent} lacks 1 of .*A_00060"):
        camvid.videos(tmp_path, "train")


def test_what_is_not_camvid_says_what_was_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"trainannot/\*.png.*labels/\*_L.png.*--data-root"):
        camvid.videos(tmp_path, "train")
    with pytest.raises(ValueError, match="train, val, test, not 'dev'"):
        camvid.videos(tmp_path, "dev")
    with pytest.raises(ValueError, match="11 classes, or 12"):
        camvid.videos(tmp_path, "train", 32)
    (tmp_path / "trainannot").mkdir()
    with pytest.raises(FileNotFoundError, match="no labels in .*trainannot"):
        camvid.videos(tmp_path, "train")
    write(tmp_path / "train" / "sky.png", picture(0))
    write(tmp_path / "trainannot" / "sky.png", ids(0))
    with pytest.raises(ValueError, match="sky is no CamVid frame"):
        camvid.videos(tmp_path, "train")


def test_video_with_gaps_is_scored_with_a_word_about_them(tmp_path):
    for number in (*range(31, 51, 2), *range(61, 81, 2)):
        write(tmp_path / "data" / "val" / f"A_{number:05d}.png", picture(number))
        write(tmp_path / "data" / "valannot" / f"A_{number:05d}.png", np.full(SIZE, 3, np.uint8))
    training = "--training --method lma --dataset camvid --savedir unused"
    model = build_model(main.parse_args(training.split()), 11)
    checkpoint.save(tmp_path / "w.pth", model.state_dict())
    evaluation = "--eval-mode --dataset camvid --threads 1 --num-workers 0".split()
    paths = ["--data-root", tmp_path / "data", "--weights", tmp_path / "w.pth"]
    done = perform(*evaluation, *paths, "--savedir", tmp_path / "s")
    assert "1 gaps in the camvid frames" in done.stdout
