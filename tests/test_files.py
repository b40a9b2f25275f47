"""Images and labels on disk: reading, errors for damaged files, and videos of files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.files import FileVideo, image_size, list_images, read_label, read_rgb
from datasets.labels import default_palette
from disk import SIZE, drive, ids, picture, write

# Reading


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr"])
def test_any_kind_of_image_is_read_as_rgb(tmp_path, mode):
    image = Image.fromarray(picture(0)).convert(mode)
    path = tmp_path / "a.png"
    if mode in ("CMYK", "YCbCr"):
        # which PNG does not have
        path = tmp_path / "a.tif"
    image.save(path)
    frame = read_rgb(path)
    assert frame.dtype == np.uint8 and frame.flags.writeable
    assert frame.shape == (*SIZE, 3) == (*image_size(path), 3)
    assert np.array_equal(frame, np.array(image.convert("RGB")))


def test_sixteen_bits_become_eight(tmp_path):
    grey = np.array([[0, 255, 256], [32768, 65279, 65535]], np.uint16)
    frame = read_rgb(write(tmp_path / "a.png", grey))
    assert frame[..., 0].tolist() == [[0, 0, 1], [128, 254, 255]]
    assert (frame == frame[..., :1]).all()


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
    """keep: bytes, or the share of them."""
    path = write(tmp_path / f"cut.{suffix}", picture(0, (64, 64)))
    data = path.read_bytes()
    if keep < 1:
        keep = int(keep * len(data))
    path.write_bytes(data[:keep])
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
    image = Image.fromarray(label)
    if kind == "sixteen":
        image = Image.fromarray(label.astype(np.uint16))
    if kind == "palette":
        image.putpalette([c for colour in default_palette(12) for c in colour])
        assert image.mode == "P"
    image.save(tmp_path / "a.png")
    read = read_label(tmp_path / "a.png")
    assert read.dtype == np.uint8 and np.array_equal(read, label)


@pytest.mark.parametrize(
    "array, words",
    [
        (picture(0), "a.png has mode RGB.*turn its colours into class ids"),
        (np.ones(SIZE, bool), "a.png has mode 1"),
        (np.full(SIZE, 26001, np.uint16), "a.png holds the id 26001"),
    ],
)
def test_what_is_no_label_says_why(tmp_path, array, words):
    with pytest.raises(ValueError, match=words):
        read_label(write(tmp_path / "a.png", array))


# Videos


def test_a_label_of_another_size_names_both_files_and_sizes(tmp_path):
    frame = write(tmp_path / "f.png", picture(0))
    label = write(tmp_path / "l.png", ids(0, (32, 24)))
    with pytest.raises(ValueError, match=r"l.png is 32x24 .*f.png is 24x32"):
        FileVideo("v", [frame], [label], num_classes=3).label(0)


def test_an_unknown_id_is_named_as_it_is_in_the_file(tmp_path):
    frame = write(tmp_path / "f.png", picture(0))
    label = write(tmp_path / "l.png", np.full(SIZE, 7, np.uint8))
    with pytest.raises(
        ValueError, match=r"l.png holds the id 7, which is none of the 3 classes nor 255"
    ):
        FileVideo("v", [frame], [label], num_classes=3).label(0)
    # 7 in the file becomes 6, but the message must show what the user finds in the file
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
    with pytest.raises(
        ValueError, match="expected at least one frame and a label or None for each"
    ):
        FileVideo("v", frames, labels, num_classes=3)


def test_images_are_listed_naturally_and_once(tmp_path):
    for name in ("f10.png", "f9.JPG", "f100.jpeg", "notes.txt", "._f9.png"):
        (tmp_path / name).touch()
    assert list(list_images(tmp_path)) == ["f9", "f10", "f100"]
    (tmp_path / "f9.png").touch()
    with pytest.raises(ValueError, match="f9.* one frame twice"):
        list_images(tmp_path)
