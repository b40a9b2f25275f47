"""Names of sources, and which sources a folder or glob stands for."""

import os
from pathlib import Path

import pytest

from datasets.source import open_source
from datasets.source.left_out import left_out
from datasets.source.names import expand_sources, printable, source_name, unique_names
from frames import write_images, write_video


@pytest.mark.parametrize(
    "spec, name",
    [
        ("a/solidWhiteRight.mp4", "solidWhiteRight"),
        ("0", "camera0"),
        ("/dev/video2", "camera2"),
        ("-", "stdin"),
        ("rtsp://host/path", "rtsp_host_path"),
        ("rtsp://me:pw@host:554/a/b?x=1#y", "rtsp_host_554_a_b"),
        ("http://h/v.m3u8", "http_h_v.m3u8"),
        ("a b/ü&c*d.mp4", "a_b"),
        ("in/drive*/x.png", "in"),
        ("a/..mp4", "source"),
        ("x/my clip (1).mov", "my_clip_1"),
        ("x" * 300 + ".mp4", "x" * 100),
    ],
)
def test_names_are_safe(spec, name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for folder in ("in", "a b"):
        (tmp_path / folder).mkdir()
    assert source_name(spec) == name


def test_a_folder_gives_its_name_even_as_a_dot(tmp_path, monkeypatch):
    write_images(tmp_path / "seq.v1", ["1.png"])
    monkeypatch.chdir(tmp_path / "seq.v1")
    for spec in (str(tmp_path / "seq.v1"), ".", "*.png"):
        assert source_name(spec) == "seq.v1"


def test_names_of_several_sources_differ():
    specs = ["a/clip.mp4", "b/clip.mp4", "c/clip_2.mp4", "d/Clip.mp4", "e/other.mp4"]
    assert unique_names(specs) == ["clip", "clip_2", "clip_2_2", "Clip_3", "other"]


def test_a_glob_of_videos_is_several_sources(tmp_path):
    for name in ("c10.mp4", "c2.mp4", "c1.avi"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "notes.txt").write_text("")
    names = [str(tmp_path / name) for name in ("c1.avi", "c2.mp4", "c10.mp4")]
    assert expand_sources([str(tmp_path / "*")]) == names
    assert expand_sources([str(tmp_path)]) == names, "so is a folder of videos"


def test_a_glob_of_folders_is_several_sources_and_one_of_images_is_one(tmp_path):
    for folder in ("s2", "s10"):
        write_images(tmp_path / folder, ["1.png"])
    (tmp_path / "logs").mkdir()
    assert expand_sources([str(tmp_path / "*")]) == [str(tmp_path / "s2"), str(tmp_path / "s10")]
    for images in (tmp_path / "s2", tmp_path / "s*" / "*.png", tmp_path / "**" / "*"):
        assert expand_sources([str(images)]) == [str(images)]


def test_a_source_named_twice_is_read_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.mp4").write_bytes(b"")
    (tmp_path / "b.mp4").write_bytes(b"")
    specs = ["b.mp4", "0", "*.mp4", str(tmp_path / "a.mp4"), "0", "-"]
    assert expand_sources(specs) == ["b.mp4", "0", "a.mp4", "-"]


def test_a_folder_of_pictures_and_videos_gives_both(tmp_path):
    write_images(tmp_path / "DCIM", ["thumbnail.jpg"])
    (tmp_path / "DCIM" / "a.mp4").write_bytes(b"")
    whole, videos = str(tmp_path / "DCIM"), [str(tmp_path / "DCIM" / "a.mp4")]
    assert expand_sources([whole]) == [whole, *videos]
    assert expand_sources([f"{whole}/*"]) == [f"{whole}/*", *videos]


def test_what_is_skipped_is_no_source(tmp_path):
    for name in ("a.mp4", "a_overlay.mp4"):
        (tmp_path / name).write_bytes(b"")
    found = expand_sources([str(tmp_path)], lambda path: path.name == "a_overlay.mp4")
    assert found == [str(tmp_path / "a.mp4")]


@pytest.mark.parametrize(
    "name, content, kind",
    [
        ("photo.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC image"),
        ("photo.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC image"),
        ("paper.pdf", b"%PDF-1.7", "PDF document"),
        ("frames.zip", b"PK\x03\x04" + bytes(40), "ZIP archive"),
        ("picture.jxl", b"\xff\x0a" + bytes(40), "JPEG XL image"),
        ("raw.nef", b"II*\0" + bytes(40), "raw photograph"),
        ("notes.txt", b"nothing", "text file"),
    ],
)
def test_other_kinds_of_files_are_called_by_name(tmp_path, name, content, kind):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=kind):
        next(iter(open_source(str(tmp_path / name))))


def test_folders_that_a_glob_matches_give_their_images_and_videos(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.mp4").write_bytes(b"")
    write_images(tmp_path / "b", ["1.png"])
    (tmp_path / "b" / "2.mov").write_bytes(b"")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "today.txt").write_text("")
    write_images(tmp_path, ["cover.png"])
    pattern = str(tmp_path / "*")
    inside = [str(tmp_path / name) for name in ("a/1.mp4", "b", "b/2.mov")]
    assert expand_sources([pattern]) == [pattern, *inside]
    assert left_out([pattern]) == [
        f"{tmp_path / 'logs'}: today.txt is not labelled, it is a text file"
    ]
    deep = str(tmp_path / "**" / "*")
    assert expand_sources([deep]) == [deep, inside[0], inside[2]], "each image once"


def test_what_no_source_reads_is_counted_and_named(tmp_path):
    folder = tmp_path / "in"
    write_images(folder, ["1.png", "2.png"])
    for i in range(3):
        (folder / f"IMG_{i}.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (folder / "odd.xyz").write_bytes(b"?")
    (folder / "gone").symlink_to(tmp_path / "nothing")
    (folder / "deeper").mkdir()
    os.mkfifo(folder / "pipe.log")
    for name in (".hidden.txt", "Thumbs.db", "legend.png"):
        (folder / name).write_bytes(b"")
    notes = left_out([str(folder)], lambda path: path.name == "legend.png")
    assert [note.removeprefix(f"{folder}: ") for note in notes] == [
        "legend.png is not labelled, it is an output of this tool",
        f"deeper is not labelled, it is a folder inside it (give '{folder}/*' to label it too)",
        "3 entries are not labelled, IMG_0.heic is the first: an HEIC image, which is not read "
        "(save it as JPEG; a phone can be set to)",
        "gone is not labelled, it is a link to what is not there",
        "odd.xyz is not labelled, it is neither an image nor a video by its name",
        "pipe.log is not labelled, it is no file to read from",
    ]
    assert left_out([str(folder / "*.png"), str(folder / "1.png"), "0", "absent"]) == []


def test_a_broken_link_to_an_image_or_video_is_no_silence(tmp_path):
    write_images(tmp_path, ["1.png"])
    for name in ("2.png", "3.mp4"):
        (tmp_path / name).symlink_to(tmp_path / "nothing")
    whole, video = expand_sources([str(tmp_path)])
    with pytest.raises(FileNotFoundError, match=r"2\.png: was it moved"):
        list(open_source(whole))
    with pytest.raises(FileNotFoundError, match=r"there is no .*3\.mp4"):
        open_source(video)


@pytest.mark.parametrize(
    "spec, text",
    [
        ("rtsp://me:pw@host/a", "rtsp://host/a"),
        (os.fsdecode(b"caf\xe9.mp4"), r"caf\xe9.mp4"),
        ("a\nb\t\x1b[31m.mp4", r"a\nb\t\x1b[31m.mp4"),
        ("ä ö.mp4", "ä ö.mp4"),
    ],
)
def test_messages_about_any_name_are_one_line_that_can_be_printed(spec, text):
    assert printable(spec) == text
    assert text.encode() and source_name(spec).encode()


def test_a_folder_of_names_that_are_no_utf_8_is_labelled(tmp_path):
    folder = tmp_path / os.fsdecode(b"fotos \xfc")
    write_images(folder, [os.fsdecode(b"\xe9.png")])
    write_video(tmp_path / "plain.mp4", 3).rename(folder / os.fsdecode(b"\xe8.mp4"))
    (folder / os.fsdecode(b"\xe7.txt")).write_text("")
    specs = expand_sources([str(folder)])
    names = unique_names(specs)
    assert names == ["fotos", "source"] and "".join(names).encode()
    assert [len(list(open_source(spec))) for spec in specs] == [1, 3]
    (note,) = left_out([str(folder)])
    assert note == rf"{tmp_path}/fotos \xfc: \xe7.txt is not labelled, it is a text file"
    for kind in ("absent", "*.bmp"):
        with pytest.raises(FileNotFoundError) as caught:
            open_source(str(Path(folder, kind)))
        assert str(caught.value).encode()


@pytest.mark.parametrize(
    "name, content, kind",
    [
        ("drawing.svg", b"<?xml version='1.0'?><svg/>", "SVG"),
        ("light.exr", b"\x76\x2f\x31\x01" + bytes(40), "OpenEXR"),
        ("light.hdr", b"#?RADIANCE\n", "HDR"),
        ("layers.psd", b"8BPS" + bytes(40), "Photoshop"),
        ("layers.xcf", b"gimp xcf v011", "GIMP"),
        ("figure.eps", b"%!PS-Adobe-3.0", "PostScript"),
        ("raw.nrw", b"II*\0" + bytes(40), "raw photograph"),
        ("photo.heif", b"\0\0\0\x18ftypxxxx", "HEIC"),
    ],
)
def test_more_kinds_of_files_are_called_by_name(tmp_path, name, content, kind):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=kind):
        open_source(str(tmp_path / name))
    assert kind in left_out([str(tmp_path)])[0]
