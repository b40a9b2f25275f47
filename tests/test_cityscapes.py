"""Cityscapes: snippets from file names, both kinds of labels, and errors for missing files."""

import random
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import datasets
import main
from datasets import cityscapes
from datasets.cityscapes import CITYSCAPES_IDS
from datasets.clip import ClipDataset, RawClip
from datasets.pipeline import training_transform
from disk import SIZE, ids, picture, write
from golden import case, filling
from trees import make_cityscapes

CITY = "aachen"


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """One tree for several tests, which must not change it."""
    return make_cityscapes(tmp_path_factory.mktemp("cityscapes") / "root")


def image(root: Path, name: str, folder="leftImg8bit_sequence", split="val") -> Path:
    return root / folder / split / name.split("_")[0] / f"{name}_leftImg8bit.png"


def truth(root: Path, name: str, kind="labelIds", split="val") -> Path:
    return root / "gtFine" / split / name.split("_")[0] / f"{name}_gtFine_{kind}.png"


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def listing(root: Path, labelled, numbers, recording=f"{CITY}_000000") -> Path:
    """Files without content, which is all that listing needs."""
    for number in labelled:
        touch(image(root, f"{recording}_{number:06d}", "leftImg8bit"))
        touch(truth(root, f"{recording}_{number:06d}"))
    for number in numbers:
        touch(image(root, f"{recording}_{number:06d}"))
    return root


def numbers(video) -> list[int]:
    return [int(video.frame_name(i).split("_")[2]) for i in range(len(video))]


# Snippets


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_snippet_is_a_video_of_30_frames_with_the_20th_labelled(tree, split):
    videos = cityscapes.videos(tree, split)
    assert [video.name for video in videos] == ["aachen_000000_000019", "bochum_000000_000019"]
    for video in videos:
        assert numbers(video) == list(range(30)) and video.fps == 17
        assert tuple(video.labelled) == (19,)
        for i in (0, 19, 29):
            path = image(tree, f"{video.name[:-2]}{i:02d}", split=split)
            assert np.array_equal(video.frame(i), np.asarray(Image.open(path)))
    label = videos[0].label(19)
    official = np.asarray(Image.open(truth(tree, "aachen_000000_000019", split=split)))
    for label_id in range(34):
        expected = 255
        if label_id in CITYSCAPES_IDS:
            expected = CITYSCAPES_IDS.index(label_id)
        assert (label[official == label_id] == expected).all()
    assert len(np.unique(label)) > 5


def test_a_clip_ends_with_the_labelled_frame_oldest_first(tree):
    videos = cityscapes.videos(tree, "val")
    clips = ClipDataset(
        videos, cityscapes.LABELS, lambda clip, rng: clip, startup=lambda past: (-3, -2, -1)
    )
    assert [clip.name for clip in clips] == [f"{v.name}/{v.name}_leftImg8bit" for v in videos]
    frames = clips[1].frames.permute(0, 2, 3, 1).mul(255).round().byte().numpy()
    for frame, i in zip(frames, range(16, 20), strict=True):
        assert np.array_equal(frame, videos[1].frame(i))
    assert (clips[1].labels[:3] == 255).all()
    assert np.array_equal(clips[1].labels[3], videos[1].label(19))


def test_labelled_frames_of_one_long_recording_have_windows_of_their_own(tmp_path):
    listing(tmp_path, (19, 31, 100), range(111))
    first, second, third = cityscapes.videos(tmp_path, "val")
    assert numbers(first) == list(range(30)) and numbers(second) == list(range(12, 42))
    assert numbers(third) == list(range(81, 111))
    assert [video.name[-3:] for video in (first, second, third)] == ["019", "031", "100"]
    assert all(tuple(video.labelled) == (19,) for video in (first, second, third)), (
        "only the frame that the video is named after"
    )


def test_a_window_ends_where_the_recording_does(tmp_path):
    listing(tmp_path, (5, 40), [*range(8), 9, *range(21, 41)])
    early, late = cityscapes.videos(tmp_path, "val")
    assert numbers(early) == list(range(8)), (
        "numbers start at 0; nothing follows a gap after the labelled frame"
    )
    assert tuple(early.labelled) == (5,) and numbers(late) == list(range(21, 41))


def test_a_missing_neighbour_is_an_error_when_it_is_needed(tmp_path):
    root = make_cityscapes(tmp_path, (8, 8), range(16, 20), splits=["val"], cities=[CITY])
    image(root, f"{CITY}_000000_000017").unlink()
    make = partial(
        ClipDataset, cityscapes.videos(root, "val"), cityscapes.LABELS, lambda clip, rng: clip
    )
    assert make(startup=lambda past: (-1,))[0].frames.shape[0] == 2
    with pytest.raises(
        FileNotFoundError,
        match=r"leftImg8bit_sequence/.*000000_000017_leftImg8bit.png does not exist",
    ):
        make(startup=lambda past: (-3, -2, -1))[0]


def test_a_snippet_that_the_sequences_lack_is_no_snippet_of_one_frame(tmp_path):
    root = make_cityscapes(tmp_path, (8, 8), range(16, 20), splits=["val"])
    for path in image(root, "bochum_000000_000019").parent.iterdir():
        path.unlink()
    video = cityscapes.videos(root, "val")[1]
    assert numbers(video) == list(range(20)) and video.frame(19).shape == (8, 8, 3), (
        "from leftImg8bit"
    )
    with pytest.raises(
        FileNotFoundError, match="bochum_000000_000018_leftImg8bit.png does not exist"
    ):
        video.frame(18)


def test_without_the_sequences_a_video_is_its_labelled_frame(tmp_path, logged):
    root = make_cityscapes(tmp_path, (8, 8), numbers=())
    videos = cityscapes.videos(root, "train")
    assert [(video.name, numbers(video), tuple(video.labelled)) for video in videos] == [
        (f"{city}_000000_000019", [19], (0,)) for city in ("aachen", "bochum")
    ]
    assert videos[0].frame(0).shape == (8, 8, 3) and videos[0].label(0).shape == (8, 8)
    warnings = [line for line in logged() if "leftImg8bit_sequence/train" in line]
    assert any("without a past" in line for line in warnings)


def test_without_leftimg8bit_the_labels_name_the_frames(tmp_path, logged):
    root = make_cityscapes(tmp_path, (8, 8), range(18, 22), splits=["val"])
    before = [video.frames for video in cityscapes.videos(root, "val")]
    for city in ("aachen", "bochum"):
        image(root, f"{city}_000000_000019", "leftImg8bit").unlink()
    after = cityscapes.videos(root, "val")
    assert [video.frames for video in after] == before
    assert tuple(after[0].labelled) == (19,) and not logged()


# Labels


def one(root: Path, labels: dict, name=f"{CITY}_000000_000019", split="val") -> Path:
    """One labelled frame with labels {kind: ids}."""
    write(image(root, name, "leftImg8bit", split), picture(0))
    for kind, array in labels.items():
        write(truth(root, name, kind, split), array)
    return root


def label_of(root: Path, index=0) -> np.ndarray:
    return cityscapes.videos(root, "val")[index].label(0)


def test_label_ids_and_train_ids_give_the_same_labels(tmp_path):
    trained = ids(0, high=19)
    trained[0, :3] = 255
    official = np.array([*CITYSCAPES_IDS, *[0] * 237], np.uint8)[trained]
    official[0, :3] = 0, 14, 255
    one(tmp_path / "a", {"labelIds": official})
    one(tmp_path / "b", {"labelTrainIds": trained})
    assert np.array_equal(label_of(tmp_path / "a"), trained)
    assert np.array_equal(label_of(tmp_path / "b"), trained)
    black = np.zeros(SIZE, np.uint8)
    one(tmp_path / "a", {"labelTrainIds": black, "color": picture(1), "instanceIds": ids(1)})
    one(tmp_path / "a", {"labelTrainIds": trained}, f"{CITY}_000001_000019")
    assert np.array_equal(label_of(tmp_path / "a", 0), trained), "label ids come first"
    assert np.array_equal(label_of(tmp_path / "a", 1), trained), "each frame has its own kind"


def test_train_ids_may_count_ignore_as_class_19_but_not_be_label_ids(tmp_path):
    label = ids(0, high=20)
    one(tmp_path, {"labelTrainIds": label})
    assert np.array_equal(label_of(tmp_path), np.where(label == 19, 255, label))
    one(tmp_path, {"labelTrainIds": np.full(SIZE, 33, np.uint8)})
    with pytest.raises(
        ValueError, match="labelTrainIds.png holds the id 33, which is none of the 19 classes"
    ):
        label_of(tmp_path)


def test_labels_are_paired_by_name_not_position(tmp_path):
    names = ("zurich_000000_000019", "aachen_000001_000019", "aachen_000000_000019")
    for i, name in enumerate(names):
        one(tmp_path, {"labelTrainIds": np.full(SIZE, i, np.uint8)}, name)
    videos = cityscapes.videos(tmp_path, "val")
    assert {video.name: video.label(0)[0, 0] for video in videos} == {
        "aachen_000000_000019": 2,
        "aachen_000001_000019": 1,
        "zurich_000000_000019": 0,
    }
    truth(tmp_path, "aachen_000000_000019", "labelTrainIds").unlink()
    with pytest.raises(
        FileNotFoundError,
        match=r"gtFine/val lacks the labels of 1 of 3 frames: "
        "aachen/aachen_000000_000019_gtFine_labelIds.png or .*_labelTrainIds.png",
    ):
        cityscapes.videos(tmp_path, "val")


def test_labels_of_the_test_split_are_dummies_or_absent(tmp_path):
    one(tmp_path, {"labelIds": ids(0, high=4)}, split="test")
    video = cityscapes.videos(tmp_path, "test")[0]
    assert tuple(video.labelled) == (0,) and (video.label(0) == 255).all()
    truth(tmp_path, f"{CITY}_000000_000019", split="test").unlink()
    video = cityscapes.videos(tmp_path, "test")[0]
    assert tuple(video.labelled) == () and np.array_equal(video.frame(0), picture(0))


# Faults


def test_what_is_not_cityscapes_says_what_was_expected(tmp_path):
    with pytest.raises(ValueError, match="train, val, test, not 'dev'"):
        cityscapes.videos(tmp_path, "dev")
    with pytest.raises(
        FileNotFoundError, match=r"leftImg8bit/val/<city>/\*_leftImg8bit.png: is --data-root"
    ):
        cityscapes.videos(tmp_path, "val")
    listing(tmp_path, (19,), ())
    with pytest.raises(FileNotFoundError, match="leftImg8bit/train/<city>"):
        cityscapes.videos(tmp_path, "train")
    with pytest.raises(FileNotFoundError, match="leftImg8bit/val/<city>"):
        cityscapes.videos(tmp_path / "leftImg8bit", "val")


def test_a_label_without_its_image_is_named(tmp_path):
    listing(tmp_path, (19, 49), ())
    image(tmp_path, f"{CITY}_000000_000049", "leftImg8bit").unlink()
    with pytest.raises(
        FileNotFoundError,
        match=r"leftImg8bit/val lacks 1 of the 2 frames .*_000049_gtFine_labelIds",
    ):
        cityscapes.videos(tmp_path, "val")


def test_files_with_strange_names_are_told_or_left_alone(tmp_path):
    listing(tmp_path, (19,), range(30))
    city = tmp_path / "leftImg8bit" / "val" / CITY
    touch(city / f"._{CITY}_000000_000049_leftImg8bit.png")
    touch(city / "Thumbs.db")
    touch(city / f"{CITY}_000000_000019_rightImg8bit.png")
    touch(tmp_path / "leftImg8bit" / "val" / "notes.txt")
    assert len(cityscapes.videos(tmp_path, "val")) == 1
    touch(city / "sky_leftImg8bit.png")
    touch(tmp_path / "gtFine" / "val" / CITY / "sky_gtFine_labelIds.png")
    with pytest.raises(ValueError, match="sky_leftImg8bit.png is no Cityscapes frame"):
        cityscapes.videos(tmp_path, "val")
    touch(city.parent / "copy" / "sky_leftImg8bit.png")
    with pytest.raises(ValueError, match="copy/sky_leftImg8bit.png are one frame twice"):
        cityscapes.videos(tmp_path, "val")


# By the options


def parse(root, *words):
    common = "--method single --dataset cityscapes --work-size 512 1024 --savedir unused"
    return main.parse_args([*words, *common.split(), "--data-root", str(root)])


def stride_8(array):
    return np.asarray(array)[..., ::8, ::8]


@pytest.fixture(scope="module")
def town(tmp_path_factory) -> Path:
    """The tree that data_erf.json describes."""
    root = tmp_path_factory.mktemp("town")
    draw = filling().image
    for n in range(16, 20):
        frame = (draw(f"cs_{n}", (3, 1024, 2048)) * 40 + 128).clamp(0, 255).byte()
        path = image(root, f"town_000000_{n:06d}")
        path.parent.mkdir(parents=True, exist_ok=True)
        # not compressed, which would take longer than the test
        Image.fromarray(frame.permute(1, 2, 0).numpy()).save(path, compress_level=0)
    rng = np.random.Generator(np.random.PCG64(3))
    label = rng.integers(0, 20, (64, 128)).repeat(16, 0).repeat(16, 1)  # (1024, 2048)
    label = np.where(label == 19, 255, label).astype(np.uint8)
    write(truth(root, "town_000000_000019", "labelTrainIds"), label)
    return root


def test_a_clip_on_the_disk_equals_lmanets(town):
    golden = case("lma/data_erf").arrays
    args = parse(town, "--eval-mode", "--score-size", "work")
    data = datasets.build_dataset(args, "val", startup=partial(datasets.existing, (-3, -2, -1)))
    (clip,) = data
    assert clip.frames.shape == (4, 3, 512, 1024) and clip.labels.shape == (4, 512, 1024)
    assert np.array_equal(stride_8(clip.frames), golden["images"])
    # LMANet's ignore is class 19
    label = stride_8(clip.labels[-1])
    assert np.array_equal(np.where(label == 255, 19, label), golden["labels"][0, 0])
    assert (clip.labels[:-1] == 255).all()


def strips(array):
    """The four borders that data_erf.json stores, (..., H, W) -> flat."""
    rows = (array[..., :4, ::16], array[..., -4:, ::16])
    columns = (array[..., ::16, :4], array[..., ::16, -4:])
    return np.concatenate([part.ravel() for part in (*rows, *columns)])


@pytest.mark.parametrize("seed", [0, 2])
def test_a_training_clip_equals_lmanets(town, seed):
    golden = case("lma/data_erf").arrays
    words = "--training --random-flip 0.5 --random-shift 2 --photometric none --shift-border road"
    args = parse(town, *words.split())
    video = datasets.list_videos(args, "val")[0]
    raw = RawClip([video.frame(19)], [video.label(19)], None)
    clip = training_transform(args)(raw, random.Random(seed))
    frame = clip.frames[0].transpose(2, 0, 1) / np.float32(255)
    assert np.array_equal(strips(frame), golden[f"aug{seed}_images_border"])
    # LMANet's ignore is class 19
    label = np.where(clip.labels[0] == 255, 19, clip.labels[0])
    assert np.array_equal(strips(label), golden[f"aug{seed}_labels_border"])
    args.shift_border = "ignore"
    ours = training_transform(args)(raw, random.Random(seed))
    assert not np.array_equal(ours.labels[0], clip.labels[0]), "the strip is no road by default"


def test_the_folder_may_come_from_the_environment(tree, monkeypatch):
    args = parse("", "--training")
    args.data_root = None
    monkeypatch.setenv("STREAMSEG_CITYSCAPES", str(tree))
    assert datasets.label_set(args) is cityscapes.LABELS
    assert len(datasets.list_videos(args, "train")) == 2


def test_a_split_without_labels_lists_its_videos_but_cannot_be_scored(tmp_path):
    write(image(tmp_path, f"{CITY}_000000_000019", "leftImg8bit", "test"), picture(0))
    args = parse(tmp_path, "--eval-mode", "--val-split", "test")
    assert len(datasets.list_videos(args, "test")) == 1
    with pytest.raises(
        ValueError, match="no frame of the test split of --dataset cityscapes has a label"
    ):
        datasets.build_dataset(args, "test")
