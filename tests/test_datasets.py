"""Data on disk: reading and its faults, CamVid and folders, and clips made of them."""
import random
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets import camvid, folder
from datasets.clip import ClipDataset
from datasets.files import FileVideo, image_size, list_images, read_label, read_rgb
from datasets.labels import CAMVID, LabelSet, balanced, class_weights, default_palette
from datasets.photometric import Photometric
from datasets.transforms import Compose, RandomCrop, RandomFlip, RandomScale, RandomShift

SIZE = (24, 32)
SMALL = LabelSet(("a", "b", "c"), default_palette(3))


def write(path: Path, array) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(path)
    return path


def picture(seed: int, size=SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def ids(seed: int, size=SIZE, high=3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, size, dtype=np.uint8)


def drive(root: Path, name: str, length: int, labelled) -> FileVideo:
    frames = [write(root / name / f"{i:03d}.png", picture(i)) for i in range(length)]
    labels = [write(root / name / "labels" / f"{i:03d}.png", ids(i)) if i in labelled else None
              for i in range(length)]
    return FileVideo(name, frames, labels, num_classes=3)


# Reading

@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr"])
def test_any_kind_of_image_is_read_as_rgb(tmp_path, mode):
    image = Image.fromarray(picture(0)).convert(mode)
    image.save(path := tmp_path / ("a.png" if mode not in ("CMYK", "YCbCr") else "a.tif"))
    frame = read_rgb(path)
    assert frame.dtype == np.uint8 and frame.shape == (*SIZE, 3) == (*image_size(path), 3) and frame.flags.writeable
    assert np.array_equal(frame, np.array(image.convert("RGB")))


def test_sixteen_bits_become_eight(tmp_path):
    grey = np.array([[0, 255, 256], [32768, 65279, 65535]], np.uint16)
    frame = read_rgb(write(tmp_path / "a.png", grey))
    assert frame[..., 0].tolist() == [[0, 0, 1], [128, 254, 255]] and (frame == frame[..., :1]).all()


def test_the_exif_orientation_is_not_applied(tmp_path):
    image = Image.fromarray(picture(0))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    assert read_rgb(tmp_path / "a.jpg").shape == (*SIZE, 3)


@pytest.mark.parametrize("read", [read_rgb, read_label, image_size])
def test_a_missing_file_is_named(tmp_path, read):
    with pytest.raises(FileNotFoundError, match="gone.png does not exist"):
        read(tmp_path / "gone.png")


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("keep", [0, 10, 60, 0.5, 0.9])
def test_a_file_cut_short_is_named(tmp_path, suffix, keep):
    path = write(tmp_path / f"cut.{suffix}", picture(0, (64, 64)))
    data = path.read_bytes()
    path.write_bytes(data[:int(keep if keep > 1 else keep * len(data))])
    for read in (read_rgb, read_label):
        with pytest.raises(ValueError, match=rf"cut.{suffix} cannot be read as an image"):
            read(path)


def test_what_is_no_image_is_named(tmp_path):
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "folder.png").mkdir()
    for name in ("text.png", "folder.png"):
        with pytest.raises(ValueError, match=f"{name} cannot be read"):
            read_rgb(tmp_path / name)
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "depth.tif")
    with pytest.raises(ValueError, match="depth.tif has more than 16 bits"):
        read_rgb(tmp_path / "depth.tif")


@pytest.mark.parametrize("kind", ["grey", "palette", "sixteen"])
def test_labels_are_read_as_ids(tmp_path, kind):
    label = ids(0, high=12)
    image = Image.fromarray(label.astype(np.uint16) if kind == "sixteen" else label)
    if kind == "palette":
        image.putpalette([c for colour in default_palette(12) for c in colour])
        assert image.mode == "P"
    image.save(tmp_path / "a.png")
    read = read_label(tmp_path / "a.png")
    assert read.dtype == np.uint8 and np.array_equal(read, label)


@pytest.mark.parametrize("array, words", [
    (picture(0), "a.png has mode RGB.*turn its colours into class ids"),
    (np.ones(SIZE, bool), "a.png has mode 1"),
    (np.full(SIZE, 26001, np.uint16), "a.png holds the id 26001"),
])
def test_what_is_no_label_says_why(tmp_path, array, words):
    with pytest.raises(ValueError, match=words):
        read_label(write(tmp_path / "a.png", array))


# FileVideo

def test_a_label_of_another_size_names_both_files_and_sizes(tmp_path):
    frame, label = write(tmp_path / "f.png", picture(0)), write(tmp_path / "l.png", ids(0, (32, 24)))
    with pytest.raises(ValueError, match=r"l.png is 32x24 .*f.png is 24x32"):
        FileVideo("v", [frame], [label], num_classes=3).label(0)


def test_an_unknown_id_is_named_as_it_is_in_the_file(tmp_path):
    frame, label = write(tmp_path / "f.png", picture(0)), write(tmp_path / "l.png", np.full(SIZE, 7, np.uint8))
    with pytest.raises(ValueError, match=r"l.png holds the id 7, which is none of the 3 classes nor 255"):
        FileVideo("v", [frame], [label], num_classes=3).label(0)
    table = np.arange(256, dtype=np.uint8) - 1
    with pytest.raises(ValueError, match=r"holds the id 7,"):
        FileVideo("v", [frame], [label], None, table, num_classes=6).label(0)
    assert (FileVideo("v", [frame], [label], None, table, num_classes=7).label(0) == 6).all()
    write(label, np.full(SIZE, 255, np.uint8))
    assert (FileVideo("v", [frame], [label], num_classes=3).label(0) == 255).all()


def test_a_video_knows_what_is_labelled(tmp_path):
    video = drive(tmp_path, "v", 5, {1, 3})
    assert len(video) == 5 and tuple(video.labelled) == (1, 3) and video.frame_name(4) == "004"
    assert np.array_equal(video.frame(2), picture(2)) and np.array_equal(video.label(3), ids(3))
    assert video.flow(1, 0) is None
    with pytest.raises(ValueError, match="frame 2 of video v has no label"):
        video.label(2)


@pytest.mark.parametrize("frames, labels", [([], []), ([Path("a.png")], [])])
def test_a_video_needs_frames_and_as_many_labels(frames, labels):
    with pytest.raises(ValueError, match="expected at least one frame and a label or None for each"):
        FileVideo("v", frames, labels, num_classes=3)


def test_images_are_listed_naturally_and_once(tmp_path):
    for name in ("f10.png", "f9.JPG", "f100.jpeg", "notes.txt", "._f9.png"):
        (tmp_path / name).touch()
    assert list(list_images(tmp_path)) == ["f9", "f10", "f100"]
    (tmp_path / "f9.png").touch()
    with pytest.raises(ValueError, match="f9.* one frame twice"):
        list_images(tmp_path)


# CamVid

@pytest.mark.parametrize("split, drives, gaps, fps", [
    ("train", {"0001TP": 62, "0006R0": 101, "0016E5": 204}, 3, 1), ("val", {"0016E5": 101}, 0, 15),
    ("test", {"0001TP": 62, "Seq05VD": 171}, 0, 1)])
def test_camvid_has_its_published_drives(shared, split, drives, gaps, fps):
    videos = camvid.videos(shared / "camvid", split)
    assert {video.name: len(video) for video in videos} == drives
    assert all(len(video.labelled) == len(video) and video.fps == fps for video in videos)
    assert sum(video.gaps for video in videos) == gaps, "0016E5: a jitter of one frame, and two stretches left out"
    for video in videos:
        numbers = [camvid.number(video.frame_name(i)) for i in range(len(video))]
        assert numbers == sorted(set(numbers))
        assert all(video.frames[i].stem == video.labels[i].stem for i in range(len(video)))
        assert video.frame(0).shape == (360, 480, 3)
        assert set(np.unique(video.label(0))) <= {*range(11), 255}


def test_camvids_parts_share_no_frame(shared):
    stems = [{path.stem for video in camvid.videos(shared / "camvid", split) for path in video.frames}
             for split in camvid.STEPS]
    assert not (stems[0] & stems[1] or stems[0] & stems[2] or stems[1] & stems[2])


def test_camvids_classes_lie_where_their_names_say(shared):
    """Sky is up and bright, road is down and grey: names, ids and the remapping of void fit together."""
    video = camvid.videos(shared / "camvid", "val")[0]
    frame, label = video.frame(0).astype(float), video.label(0)
    rows = {name: np.nonzero(label == CAMVID.names.index(name))[0].mean() for name in ("sky", "building", "road")}
    assert rows["sky"] < rows["building"] < rows["road"]
    assert frame[label == 0].mean() > frame[label == 3].mean()


def test_swnets_weights_for_camvid_are_in_this_order(shared):
    """Their list names no classes; 1/ln(1.02 + share) of our order follows it, of ETC's order it does not."""
    ours = balanced(camvid.videos(shared / "camvid", "train"), 11, c=1.02)
    theirs = class_weights("swnet", 11)
    etc = [CAMVID.names.index(name) for name in ("building", "tree", "sky", "car", "signsymbol", "road", "pedestrian",
                                                 "fence", "pole", "pavement", "bicyclist")]

    def correlation(order):
        return torch.corrcoef(torch.stack([ours[order], theirs]).log())[0, 1]
    assert correlation(list(range(11))) > 0.95 and correlation(etc) < 0.7


def small_tree(root: Path) -> Path:
    for number in (30, 60, 150, 1020):
        for name in (f"A_{number:05d}", f"B_f{number:05d}"):
            write(root / "train" / f"{name}.png", picture(number))
            write(root / "trainannot" / f"{name}.png", np.full(SIZE, (number // 30) % 12, np.uint8))
    return root


def test_gaps_are_bridged_by_the_labelled_frame_before_and_counted(tmp_path):
    a, b = camvid.videos(small_tree(tmp_path), "train")
    assert (a.name, b.name) == ("A", "B") and a.gaps == b.gaps == 2
    clips = ClipDataset([a, b], CAMVID, lambda clip, rng: clip, startup=lambda past: (-1,) if past else ())
    assert clips[2].name == "A/A_00150"
    assert np.array_equal(clips[2].frames[0].permute(1, 2, 0) * 255, picture(60)), "A_00060 comes before A_00150"
    assert len(clips[4].frames) == 1, "B does not reach back into A"


@pytest.mark.parametrize("num_classes, expected", [(11, {30: 1, 60: 2, 150: 5, 1020: 10}),
                                                   (12, {30: 2, 60: 3, 150: 6, 1020: 11})])
def test_void_is_ignored_or_class_zero(tmp_path, num_classes, expected):
    root = small_tree(tmp_path)
    write(root / "trainannot" / "A_00030.png", np.full(SIZE, 11, np.uint8))
    video = camvid.videos(root, "train", num_classes)[0]
    assert (video.label(0) == (255 if num_classes == 11 else 0)).all()
    assert [video.label(i)[0, 0] for i in (1, 2, 3)] == [expected[n] for n in (60, 150, 1020)]
    write(root / "trainannot" / "A_00030.png", np.full(SIZE, 12, np.uint8))
    with pytest.raises(ValueError, match="holds the id 12"):
        video.label(0)


def large_tree(root: Path, sequence="images_sequence") -> Path:
    for name, number in (("A_f00030", 30), ("A_f00060", 60), ("B_000040", 40)):
        write(root / "images" / f"{name}.png", picture(number))
        write(root / "labels" / f"{name}_L.png", np.full(SIZE, number // 10, np.uint8))
    for number in (*range(27, 31), *range(57, 61), 62):
        write(root / sequence / f"A_f{number:05d}.png", picture(number))
    write(root / sequence / "B_000039.png", picture(39))
    (root / "annotations").mkdir()
    (root / "annotations" / "val.txt").write_text("A_f00030\nA_f00060\nB_000040")    # no final newline, as published
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


@pytest.mark.parametrize("gone", ["images/A_f00060.png", "labels/B_000040_L.png"])
def test_a_listed_frame_that_is_missing_is_named(tmp_path, gone):
    (large_tree(tmp_path) / gone).unlink()
    with pytest.raises(FileNotFoundError, match=f"{gone} does not exist, but annotations/val.txt lists it"):
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


# Folders

def test_folders_take_frames_in_images_or_beside_labels(tmp_path):
    for i in (1, 2, 10):
        write(tmp_path / "clip10" / "images" / f"f{i}.jpg", picture(i))
        write(tmp_path / "clip9" / f"f{i}.png", picture(i))
    write(tmp_path / "clip9" / "labels" / "f10.png", ids(10))
    (tmp_path / ".cache").mkdir()
    first, second = folder.videos(tmp_path, "val")
    assert (first.name, second.name) == ("clip9", "clip10")
    assert [first.frame_name(i) for i in range(3)] == ["f1", "f2", "f10"]
    assert tuple(first.labelled) == (2,) and tuple(second.labelled) == () and second.fps is None
    assert np.array_equal(first.label(2), ids(10))


def test_folders_may_have_splits(tmp_path):
    write(tmp_path / "train" / "a" / "1.png", picture(1))
    write(tmp_path / "val" / "b" / "1.png", picture(2))
    assert [video.name for video in folder.videos(tmp_path, "val")] == ["b"]
    with pytest.raises(FileNotFoundError, match="no split 'test', only train, val"):
        folder.videos(tmp_path, "test")


def test_faults_of_a_folder_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no clips in .*expected <clip>/images"):
        folder.videos(tmp_path, "val")
    (tmp_path / "clip").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no frames in .*clip"):
        folder.videos(tmp_path, "val")
    write(tmp_path / "clip" / "a.png", picture(0))
    write(tmp_path / "clip" / "labels" / "b.png", ids(0))
    with pytest.raises(ValueError, match=r"labels/b.png has no frame b"):
        folder.videos(tmp_path, "val")
    write(tmp_path / "clip" / "a.jpg", picture(0))
    with pytest.raises(ValueError, match="one frame twice"):
        folder.videos(tmp_path, "val")


def test_classes_are_read_with_their_colours(tmp_path):
    assert folder.classes(tmp_path) is None
    with pytest.raises(FileNotFoundError, match="classes.txt does not exist"):
        folder.label_set(tmp_path)
    (tmp_path / "classes.txt").write_text("road 128 64 128\n\ntraffic light 250 170 30\nroute 66\n")
    names, palette = folder.label_set(tmp_path)
    assert names == ("road", "traffic light", "route 66")
    assert palette == ((128, 64, 128), (250, 170, 30), default_palette(3)[2])
    write(tmp_path / "clip" / "a.png", picture(0))
    write(tmp_path / "clip" / "labels" / "a.png", np.full(SIZE, 3, np.uint8))
    with pytest.raises(ValueError, match="holds the id 3, which is none of the 3 classes"):
        folder.videos(tmp_path, "val")[0].label(0)


@pytest.mark.parametrize("text, words", [
    ("", "lists 0 classes"), ("a\nb\na", "line 3"), ("a\nb 0 0 256", "line 2"), ("a\n128 64 128", "line 2"),
    ("\n".join(f"c{i}" for i in range(256)), "lists 256 classes")])
def test_wrong_classes_name_their_line(tmp_path, text, words):
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(ValueError, match=f"classes.txt.*{words}"):
        folder.classes(tmp_path)


# Clips

def dataset(tmp_path, **options) -> ClipDataset:
    videos = [drive(tmp_path, "a", 4, range(4)), drive(tmp_path, "b", 5, {0, 2, 4})]
    return ClipDataset(videos, SMALL, options.pop("transform", lambda clip, rng: clip), **options)


def frame_numbers(clip) -> list[int]:
    known = {picture(i).tobytes(): i for i in range(5)}
    return [known[(frame.permute(1, 2, 0) * 255).round().byte().numpy().tobytes()] for frame in clip.frames]


def past_two(past):
    return tuple(offset for offset in (-2, -1) if -offset <= past)


def test_clips_end_with_the_labelled_frame_and_start_with_what_exists(tmp_path):
    clips = dataset(tmp_path, startup=past_two)
    assert [(clip.name, frame_numbers(clip)) for clip in clips] == [
        ("a/000", [0]), ("a/001", [0, 1]), ("a/002", [0, 1, 2]), ("a/003", [1, 2, 3]),
        ("b/000", [0]), ("b/002", [0, 1, 2]), ("b/004", [2, 3, 4])]
    clip = clips[5]
    assert (clip.labels[0] == torch.from_numpy(ids(0))).all() and (clip.labels[1] == 255).all()
    assert (clip.labels[2] == torch.from_numpy(ids(2))).all() and clip.labels.dtype == torch.int64
    assert clip.flows is None and (clip.video, clip.index) == (1, 2)


def test_training_clips_stop_at_the_ends_of_the_video(tmp_path):
    clips = dataset(tmp_path, draw=lambda rng: (-3, 2))
    assert frame_numbers(clips[0]) == [0, 2, 0] and frame_numbers(clips[3]) == [0, 3, 3]


def test_stepping_gives_every_frame_in_order(tmp_path):
    clips = dataset(tmp_path, startup=past_two)
    assert not clips.dense and ClipDataset(clips.videos[:1], SMALL, clips.transform).dense
    steps = ClipDataset(clips.videos, SMALL, clips.transform, step=True)
    assert [(clip.video, clip.index, *frame_numbers(clip)) for clip in steps] == [
        (0, i, i) for i in range(4)] + [(1, i, i) for i in range(5)]
    assert [bool((clip.labels == 255).all()) for clip in steps] == [False] * 5 + [True, False] * 2


AUGMENTED = Compose([RandomScale(0.7, 1.5, "pil"), RandomFlip(0.5), RandomShift(2), RandomCrop((20, 20), 0.75),
                     Photometric()])


def unbatched(clips):
    return clips


def jitter(rng: random.Random):
    return (rng.choice((-2, -1)),)


def test_items_do_not_depend_on_workers_or_order(tmp_path):
    clips = dataset(tmp_path, transform=AUGMENTED, draw=jitter, seed=3)
    keys = [(index, epoch) for epoch in (0, 1) for index in range(len(clips))]
    load = partial(torch.utils.data.DataLoader, clips, batch_size=3, collate_fn=unbatched)
    alone = [clip for batch in load(sampler=keys) for clip in batch]
    workers = [clip for batch in load(sampler=keys[::-1], num_workers=2, multiprocessing_context="fork")
               for clip in batch][::-1]
    for a, b in zip(alone, workers, strict=True):
        assert a.name == b.name and torch.equal(a.frames, b.frames) and torch.equal(a.labels, b.labels)
    again = [not torch.equal(alone[i].frames, alone[i + len(clips)].frames) for i in range(len(clips))]
    assert sum(again) >= len(clips) - 1, "another epoch draws anew"
    other = dataset(tmp_path, transform=AUGMENTED, draw=jitter, seed=4)
    assert not torch.equal(other[0].frames, clips[0].frames)
