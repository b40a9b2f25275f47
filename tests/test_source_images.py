"""Images as a source: folders, globs, all pixel formats, and damaged files."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from datasets.source import open_source
from datasets.source.images import Pages, contents_of, read_image
from frames import flat, ppm, read, write_images


def test_a_folder_gives_its_images_in_natural_order(tmp_path):
    names = ["f1.png", "f2.jpg", "f9.JPEG", "f10.bmp", "f11.tif", "f100.tiff", "g.webp", "h.ppm"]
    write_images(tmp_path / "in" / "drive", names)
    for other in ("notes.txt", "f3.csv", "clip.mp4", "._f1.png"):
        (tmp_path / "in" / "drive" / other).write_bytes(b"no image")
    (tmp_path / "in" / "drive" / "folder.png").mkdir()
    frames, source = read(tmp_path / "in" / "drive")
    assert [frame.name for frame in frames] == [Path(name).stem for name in names]
    assert [frame.index for frame in frames] == list(range(8))
    assert [round(frame.image.mean()) for frame in frames] == list(range(8))
    assert (source.kind, source.name, source.length) == ("folder", "drive", 8)


def test_a_glob_gives_the_images_it_matches_folder_by_folder(tmp_path):
    for folder in ("s2", "s10"):
        write_images(tmp_path / folder, ["2.png", "10.png"])
    (tmp_path / "s2" / "3.txt").write_text("")
    frames, source = read(tmp_path / "s*" / "*")
    paths = [path.relative_to(tmp_path).as_posix() for path in source.paths]
    assert paths == ["s2/2.png", "s2/10.png", "s10/2.png", "s10/10.png"]
    # outputs must not overwrite each other
    assert [frame.name for frame in frames] == ["2", "10", "2_2", "10_2"]
    assert (source.kind, source.name) == ("glob", tmp_path.name)
    assert len(read(tmp_path / "**" / "*.png")[0]) == 4


def test_one_image_is_a_source(tmp_path):
    frames, source = read(write_images(tmp_path, ["a.b.png"]) / "a.b.png")
    assert (source.kind, source.name, source.length, frames[0].name) == ("image", "a.b", 1, "a.b")


def test_images_may_change_size(tmp_path):
    for i, size in enumerate([(4, 6), (6, 4), (5, 5)]):
        Image.fromarray(flat(0, size)).save(tmp_path / f"{i}.png")
    assert [frame.image.shape for frame in read(tmp_path)[0]] == [(4, 6, 3), (6, 4, 3), (5, 5, 3)]


def test_what_is_no_image_kind_in_a_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="empty"):
        open_source(str(tmp_path))
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(FileNotFoundError, match="no image"):
        open_source(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="nothing matches"):
        open_source(str(tmp_path / "*.png"))


def image_of(mode, **extra):
    """An image of one colour in this mode, and the RGB that must be read from it."""
    if mode == "RGBA":
        return Image.new(mode, (3, 2), (200, 100, 50, 51)), (40, 20, 10)  # a fifth of it, on black
    if mode == "LA":
        return Image.new(mode, (3, 2), (200, 0)), (0, 0, 0)
    if mode == "P":
        image = Image.new(mode, (3, 2), 1)
        image.putpalette([0, 0, 0, 10, 20, 30])
        return image, (10, 20, 30)
    if mode == "I;16":
        return Image.fromarray(np.full((2, 3), 200 * 257, np.uint16)), (200,) * 3
    if mode == "1":
        return Image.new(mode, (3, 2), 1), (255,) * 3
    return Image.new(mode, (3, 2), 77), (77,) * 3


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16", "1", "L"])
def test_every_kind_of_pixel_becomes_rgb(tmp_path, mode):
    image, expected = image_of(mode)
    image.save(tmp_path / "a.png")
    pixels = read_image(tmp_path / "a.png")
    assert pixels.dtype == np.uint8 and pixels.shape == (2, 3, 3) and pixels.flags.writeable
    assert (pixels == expected).all()


def test_transparent_palettes_cmyk_and_deep_colours_become_rgb(tmp_path):
    image, _ = image_of("P")
    image.save(tmp_path / "p.png", transparency=1)
    assert (read_image(tmp_path / "p.png") == 0).all()
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "c.jpg")
    assert np.abs(read_image(tmp_path / "c.jpg").astype(int) - (255, 0, 0)).max() < 10
    deep = np.array([65535, 257 * 9, 0], ">u2").tobytes()
    (tmp_path / "d.ppm").write_bytes(b"P6 1 1 65535\n" + deep)
    assert read_image(tmp_path / "d.ppm").tolist() == [[[255, 9, 0]]]


def test_pixels_of_unknown_range_are_refused(tmp_path):
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "f.tif")
    Image.fromarray(np.full((2, 2), 1 << 20, np.int32)).save(tmp_path / "i.tif")
    for name in ("f.tif", "i.tif"):
        with pytest.raises(ValueError, match=name):
            read_image(tmp_path / name)


# EXIF orientation -> how the sensor saw an upright image, which is how it is stored
STORED = {
    1: lambda image: image,
    2: np.fliplr,
    3: lambda image: np.rot90(image, 2),
    4: np.flipud,
    5: lambda image: image.transpose(1, 0, 2),
    6: np.rot90,
    7: lambda image: np.rot90(image, 2).transpose(1, 0, 2),
    8: lambda image: np.rot90(image, -1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_images_are_turned_as_their_exif_says(tmp_path, orientation, suffix):
    upright = np.zeros((32, 16, 3), np.uint8)
    upright[:16, :8] = (255, 0, 0)
    upright[16:, 8:] = (0, 0, 255)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(STORED[orientation](upright))
    Image.fromarray(stored).save(tmp_path / f"a.{suffix}", exif=exif)
    pixels = read_image(tmp_path / f"a.{suffix}")
    assert pixels.shape == upright.shape and np.abs(pixels.astype(int) - upright).mean() < 12


@pytest.mark.filterwarnings("ignore:Truncated File Read")
@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp", "ppm"])
@pytest.mark.parametrize("share", [0, 0.02, 0.5, 0.9])
def test_a_damaged_image_is_an_error_that_names_it(tmp_path, suffix, share):
    write_images(tmp_path, ["1.png", "3.png"])
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / f"2.{suffix}")
    data = (tmp_path / f"2.{suffix}").read_bytes()
    (tmp_path / f"2.{suffix}").write_bytes(data[: int(share * len(data))])
    frames = iter(open_source(str(tmp_path)))
    assert next(frames).name == "1"
    with pytest.raises(ValueError, match=rf"2\.{suffix}"):
        next(frames)


def test_an_image_larger_than_memory_is_an_error_that_names_it(tmp_path):
    (tmp_path / "huge.ppm").write_bytes(b"P6 200000 200000 255\n")
    with pytest.raises(ValueError, match="huge.ppm"):
        read(tmp_path)


def test_an_image_that_vanishes_is_an_error_that_names_it(tmp_path):
    write_images(tmp_path, ["1.png", "2.png"])
    frames = iter(open_source(str(tmp_path)))
    next(frames)
    (tmp_path / "2.png").unlink()
    with pytest.raises(FileNotFoundError, match="2.png"):
        next(frames)


@pytest.mark.parametrize("suffix", ["tif", "webp", "png", "avif"])
def test_every_page_of_an_image_is_a_frame(tmp_path, suffix):
    pages = [Image.fromarray(flat(40 * i, (32, 48))) for i in range(5)]
    path = tmp_path / f"stack.{suffix}"
    options = {} if suffix == "tif" else {"duration": 100}
    pages[0].save(path, save_all=True, append_images=pages[1:], **options)
    frames, source = read(path)
    assert [round(frame.image.mean() / 40) for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.name for frame in frames] == [f"stack_page00{i}" for i in range(1, 6)]
    assert source.length == 5
    write_images(tmp_path, ["z.jpg"])
    assert [frame.name for frame in read(tmp_path)[0]][4:] == ["stack_page005", "z"]


def test_a_broken_link_is_an_error_that_names_it(tmp_path):
    write_images(tmp_path, ["1.png"])
    (tmp_path / "2.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(FileNotFoundError, match=r"2\.png"):
        read(tmp_path)


def test_an_image_with_too_many_pixels_is_told_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)
    Image.new("L", (1500, 1500)).save(tmp_path / "large.png")
    with pytest.raises(
        ValueError, match="large.png has 2.2 million pixels, more than the 2 million"
    ):
        read(tmp_path)


def test_images_of_300_million_pixels_are_read_and_larger_ones_are_not(tmp_path, recwarn):
    """By their headers alone: the pixels would take a gigabyte."""
    (tmp_path / "a.ppm").write_bytes(b"P6 20000 15000 255\n")
    (tmp_path / "b.ppm").write_bytes(b"P6 20000 15001 255\n")
    assert contents_of(tmp_path / "a.ppm").pages == 1
    with Image.open(tmp_path / "a.ppm") as image:
        assert image.size == (20000, 15000)
    with pytest.raises(ValueError, match=r"b.ppm has 300.0 million pixels, more than the 300 mill"):
        read_image(tmp_path / "b.ppm")


def stack(path, count=5, **options):
    """An image file of `count` pages; page i is grey of value 40 * i."""
    pages = [Image.fromarray(flat(40 * i, (32, 48))) for i in range(count)]
    pages[0].save(path, save_all=True, append_images=pages[1:], **options)
    return path


def test_an_animation_has_the_times_that_it_states(tmp_path):
    durations = [100, 50, 300, 100, 100]
    for suffix in ("gif", "png", "webp", "avif"):
        path = stack(tmp_path / f"a.{suffix}", duration=durations)
        for step, kept in ((1, [0, 0.1, 0.15, 0.45, 0.55]), (2, [0, 0.15, 0.55])):
            frames, source = read(path, step=step)
            assert [frame.time for frame in frames] == pytest.approx(kept)
            assert [round(frame.image.mean() / 40) for frame in frames] == list(range(0, 5, step))
            assert source.fps == 10 / step and not source.assumed_rate
    path = stack(tmp_path / "b.tif")
    frames, source = read(path)
    assert frames[1].time is None and source.assumed_rate, "nothing says when a page is shown"


def test_pages_are_decoded_one_after_another_and_only_when_asked_for(tmp_path, monkeypatch):
    path = stack(tmp_path / "a.tif")
    decoded = []
    original = Pages.read
    monkeypatch.setattr(
        Pages, "read", lambda self, index: decoded.append(index) or original(self, index)
    )
    opened = []
    monkeypatch.setattr(Pages, "__init__", count_calls(Pages.__init__, opened))
    frames = iter(open_source(str(path), step=2))
    next(frames)
    assert decoded == [0]
    assert len(list(frames)) == 2 and decoded == [0, 2, 4]
    assert len(opened) <= 2, "not once for each page"


def count_calls(function, calls):
    def counted(*arguments):
        calls.append(arguments)
        return function(*arguments)

    return counted


@pytest.mark.filterwarnings("ignore:Truncated File Read", "ignore:Corrupt EXIF data")
@pytest.mark.parametrize("suffix", ["tif", "gif", "png", "webp", "avif"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.99])
def test_a_damaged_page_is_an_error_that_names_file_and_page(tmp_path, suffix, share):
    noise = np.random.default_rng(0).integers(0, 256, (5, 40, 50, 3), dtype=np.uint8)
    pages = [Image.fromarray(page) for page in noise]
    options = {} if suffix == "tif" else {"duration": 100}
    path = tmp_path / f"a.{suffix}"
    pages[0].save(path, save_all=True, append_images=pages[1:], **options)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    came = 0
    with pytest.raises(ValueError, match=rf"a\.{suffix} cannot be read") as caught:
        for _ in open_source(str(path)):
            came += 1
    if came:
        assert f"page {came + 1} of" in str(caught.value)


def test_previews_and_masks_in_a_tiff_are_no_frames(tmp_path):
    whole = Image.fromarray(flat(80, (32, 48)))
    small = whole.resize((24, 16))
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[254] = 1
    small.encoderinfo = {"tiffinfo": tags}
    whole.save(tmp_path / "a.tif", save_all=True, append_images=[small])
    with Image.open(tmp_path / "a.tif") as image:
        assert image.n_frames == 2
    frames, _ = read(tmp_path / "a.tif")
    assert [(frame.name, frame.image.shape) for frame in frames] == [("a", (32, 48, 3))]


def test_the_names_of_pages_meet_no_name_of_a_file(tmp_path):
    stack(tmp_path / "a.tif", 2)
    write_images(tmp_path, ["A_page002.png", "a_page001.png"])
    names = [frame.name.lower() for frame in read(tmp_path)[0]]
    assert len(names) == len(set(names)) == 4


@pytest.mark.parametrize("name", ["a.gif", "b.jfif", "c.pgm", "d.jp2", "e.tga", "f.apng"])
def test_less_common_images_are_images_of_a_folder(tmp_path, name):
    kinds = {"jfif": "jpeg", "jp2": "jpeg2000", "apng": "png", "pgm": "ppm"}
    suffix = name.split(".")[1]
    Image.new("L", (16, 16), 77).save(tmp_path / name, format=kinds.get(suffix, suffix))
    frames, source = read(tmp_path)
    assert [frame.name for frame in frames] == [name[0]] and source.kind == "folder"
    assert abs(frames[0].image.mean() - 77) < 3


def test_names_that_are_no_utf_8_are_read_and_told(tmp_path):
    stem = os.fsdecode(b"caf\xe9\n")
    write_images(tmp_path, [f"{stem}.png", os.fsdecode(b"caf\xe8\n.png")])
    # a newline is as bad in a message as a byte that cannot be printed
    assert [frame.name for frame in read(tmp_path)[0]] == ["caf__", "caf___2"]
    (tmp_path / f"{stem}.png").write_bytes(b"damaged")
    with pytest.raises(ValueError) as caught:
        read(tmp_path)
    assert r"caf\xe9\n.png cannot be read" in str(caught.value)
    str(caught.value).encode()


@pytest.mark.parametrize("place", ["image", "folder"])
def test_what_may_not_be_read_is_told_as_that(tmp_path, monkeypatch, place):
    """Root may read all: the system's answers are made."""
    write_images(tmp_path, ["a.png"])
    if place == "image":

        def refused(*arguments, **options):
            raise PermissionError(13, "Permission denied", "a.png")

        monkeypatch.setattr(Image, "open", refused)
    else:
        monkeypatch.setattr(os, "access", lambda *arguments: False)
    with pytest.raises(PermissionError, match="may not be read: change its permissions"):
        read(tmp_path)


def test_pictures_behind_the_one_that_is_read_are_told(tmp_path):
    pages = [Image.fromarray(flat(40 * i, (32, 48))) for i in range(3)]
    pages[0].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=pages[1:])
    (tmp_path / "b.ppm").write_bytes(ppm(flat(1)) * 3)
    for name in ("c.ppm", "d.ppm"):
        (tmp_path / name).write_bytes(ppm(flat(1)))
    frames, source = read(tmp_path)
    assert [frame.name for frame in frames] == ["a", "b", "c", "d"]
    (note,) = source.notes
    assert "of 2 files only the first picture is labelled (a.jpg is the first)" in note
