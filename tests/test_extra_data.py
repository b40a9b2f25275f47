"""--extra-data: a training learns from several data sets, each in its share."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

import main
from command import assert_one_line, call, perform
from datasets import build_dataset
from disk import write
from trees import make_camvid, make_folder
from utils.training.sampler import EpochBatches, Share

ON_CPU = ["--threads", "1", "--device", "cpu", "--num-workers", "0"]
CAMVID_WORDS = ("road", "Sky", "tree")  # in an order and a spelling of their own


def make_known(root):
    """Clips of three of CamVid's classes, without splits."""
    make_folder(root)
    for split, clip in (("train", "first"), ("val", "second")):
        (root / split / "clip").rename(root / clip)
        (root / split).rmdir()
    (root / "classes.txt").write_text("\n".join(CAMVID_WORDS))
    return root


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """(CamVid, clips of three of its classes, clips of other classes)"""
    root = tmp_path_factory.mktemp("trees")
    return make_camvid(root / "camvid"), make_known(root / "known"), make_folder(root / "other")


def words(camvid, *extra):
    return ["--training", "--method", "single", "--dataset", "camvid", "--data-root", camvid] + [
        *("--train-encoder", "--batch-size", "4", "--num-epochs", "1", *ON_CPU),
        *(("--extra-data", *extra) if extra else ()),
    ]


def parsed(*given):
    return main.parse_args([*map(str, given), "--savedir", "unused"])


# Words


def test_words_become_a_data_set_a_folder_a_weight_and_a_map():
    given = ["folder:/a:0.5:map.txt", "cityscapes:/b", "folder:/c::map.txt", "camvid:/d:2"]
    args = parsed(*words("x"), "--extra-data", *given)
    assert [tuple(extra) for extra in args.extra_data] == [
        ("folder", "/a", 0.5, "map.txt"),
        ("cityscapes", "/b", None, None),
        ("folder", "/c", None, "map.txt"),
        ("camvid", "/d", 2.0, None),
    ]
    again = parsed(*words("x"), "--extra-data", *map(str, args.extra_data))
    assert again.extra_data == args.extra_data


@pytest.mark.parametrize(
    "word, message",
    [
        ("folder", "expected NAME:ROOT[:WEIGHT[:MAP]], got 'folder'"),
        ("folder:", "expected NAME:ROOT[:WEIGHT[:MAP]], got 'folder:'"),
        ("nothing:/a", "NAME one of cityscapes, camvid, vspw, folder, got 'nothing'"),
        ("folder:/a:heavy", "a positive number as WEIGHT of NAME:ROOT[:WEIGHT[:MAP]], got 'heavy'"),
        ("folder:/a:0", "a positive number as WEIGHT"),
        ("folder:/a:1:b:c", "expected NAME:ROOT[:WEIGHT[:MAP]]"),
    ],
)
def test_a_word_that_is_none_is_told(word, message, capsys):
    with pytest.raises(SystemExit):
        parsed(*words("x"), "--extra-data", word)
    assert message in capsys.readouterr().err


# Labels


def test_labels_are_read_in_the_classes_that_are_trained(trees):
    camvid, known, _ = trees
    data = build_dataset(parsed(*words(camvid, f"folder:{known}")), "train")
    plain = build_dataset(parsed(*words(camvid)), "train")
    assert len(plain) == 4 and len(data) == 12
    own = data.videos[-1]
    ids = [data.labels.names.index(name) for name in ("road", "sky", "tree")]
    expected = np.array([*ids, *[255] * 253])[own.video.label(2)]
    assert np.array_equal(own.label(2), expected)


def test_a_map_says_what_other_classes_become_and_what_it_leaves_out_is_told(trees, tmp_path):
    camvid, _, other = trees
    path = tmp_path / "map.txt"
    path.write_text("ground -> road\nwall -> building\n* -> ignore\n")
    done = perform(*words(camvid, f"folder:{other}::{path}"), "--savedir", tmp_path / "run")
    assert (
        f"--extra-data folder:{other}::{path}: 4 of its 4 clips an epoch, beside 4 of camvid"
        in (done.stdout)
    )
    assert (
        "leaves out 1 classes of the labels (4 of 4 looked at, share of all pixels): thing 3"
        in (done.stdout)
    )
    recipe = (tmp_path / "run" / "args.txt").read_text()
    assert f"--extra-data folder:{other}::{path}" in recipe


def test_classes_that_are_none_of_those_trained_need_a_map(trees, tmp_path):
    camvid, _, other = trees
    done = call(*words(camvid, f"folder:{other}"), "--savedir", tmp_path / "run")
    assert_one_line(done, "its classes ground, wall, thing are none of sky,", tmp_path / "run")
    assert "name a class map behind its weight" in done.stderr


def test_a_folder_that_is_not_there_and_one_without_labels_are_told(trees, tmp_path):
    camvid, _, _ = trees
    done = call(*words(camvid, f"folder:{tmp_path / 'no'}"), "--savedir", tmp_path / "run")
    assert_one_line(done, f"{tmp_path / 'no'} is not a folder", tmp_path / "run")
    bare = tmp_path / "bare"
    write(bare / "clip" / "images" / "0.png", np.zeros((24, 32, 3), np.uint8))
    (bare / "classes.txt").write_text("road\n")
    done = call(*words(camvid, f"folder:{bare}"), "--savedir", tmp_path / "run")
    assert_one_line(done, "no frame of its train split has a label", tmp_path / "run")


# Order


def epochs(shares, count, **options):
    batches = EpochBatches(shares, 1, seed=3, **options)
    found = []
    for epoch in range(count):
        batches.begin(epoch)
        found.append([clip for step in batches for clip in step])
    return found


def test_an_epoch_has_each_share_and_passes_go_through_all_of_its_clips():
    first, second = Share(10, 10), Share(7, 3)
    found = epochs([first, second], 7)
    for epoch, clips in enumerate(found):
        own = [clip for clip in clips if clip[0] < 10]
        assert sorted(own) == [(index, epoch) for index in range(10)]
        assert len(clips) == 13
        assert clips[:10] != own, "the shares are mixed"
    further = [clip for clips in found for clip in clips if clip[0] >= 10]
    # 7 epochs of 3 are 3 passes over 7: each clip once a pass.
    assert Counter(further) == {(index, turn): 1 for index in range(10, 17) for turn in range(3)}


def test_a_share_may_be_seen_several_times_an_epoch_each_time_with_draws_of_its_own():
    [clips] = epochs([Share(4, 4), Share(2, 6)], 1)
    assert Counter(clip for clip in clips if clip[0] >= 4) == {
        (index, turn): 1 for index in (4, 5) for turn in range(3)
    }


def test_ranks_share_a_mixed_epoch_as_one_would_see_it():
    shares = [Share(8, 8), Share(5, 2)]
    [alone] = epochs(shares, 1)
    parts = [epochs(shares, 1, rank=rank, ranks=2)[0] for rank in (0, 1)]
    assert [clip for pair in zip(*parts, strict=True) for clip in pair] == alone


def test_a_resumed_mixed_epoch_goes_on_where_it_stopped():
    batches = EpochBatches([Share(8, 8), Share(5, 2)], 2, seed=1)
    batches.begin(1)
    whole = list(batches)
    batches.begin(1, start=2)
    assert list(batches) == whole[2:]
