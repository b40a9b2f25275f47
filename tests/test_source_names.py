"""Names of sources, and which sources a folder or glob stands for."""

import pytest

from datasets.source import open_source
from datasets.source.names import expand_sources, source_name, unique_names
from frames import write_images


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
