"""Folders of one's own images: splits, classes, and errors that name the file."""

import numpy as np
import pytest

from datasets import folder
from datasets.labels import default_palette
from disk import SIZE, ids, picture, write


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
    names, palette, _ = folder.label_set(tmp_path)
    assert names == ("road", "traffic light", "route 66")
    assert palette == ((128, 64, 128), (250, 170, 30), default_palette(3)[2])
    write(tmp_path / "clip" / "a.png", picture(0))
    write(tmp_path / "clip" / "labels" / "a.png", np.full(SIZE, 3, np.uint8))
    with pytest.raises(ValueError, match="holds the id 3, which is none of the 3 classes"):
        folder.videos(tmp_path, "val")[0].label(0)


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "lists 0 classes"),
        ("a\nb\na", "line 3"),
        ("a\nb 0 0 256", "line 2"),
        ("a\n128 64 128", "line 2"),
        ("\n".join(f"c{i}" for i in range(256)), "lists 256 classes"),
    ],
)
def test_wrong_classes_name_their_line(tmp_path, text, words):
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(ValueError, match=f"classes.txt.*{words}"):
        folder.classes(tmp_path)


ROAD = ((128, 64, 128), (1, 2, 3))


@pytest.mark.parametrize(
    "text",
    [
        "road 128 64 128\nwall 1 2 3",
        "road,128,64,128\nwall,1,2,3",
        "name,r,g,b\nroad,128, 64, 128\nwall,1,2,3\n",
        "class_name; R; G; B\nroad;128;64;128\nwall;1;2;3",
        "id,name,r,g,b\n0,road,128,64,128\n1,wall,1,2,3",
        "r,g,b,name\n128,64,128,road\n1,2,3,wall",
        "128 64 128\t\troad\n1 2 3\twall",
        "0 road 128 64 128\n1 wall 1 2 3",
        "# mine\n\nroad 128 64 128 # asphalt\nwall 1 2 3",
        "'road' 128 64 128\n\"wall\",1,2,3",
        "road [128, 64, 128]\nwall (1,2,3)",
        "road #804080\nwall,#010203",
    ],
)
def test_lists_of_classes_are_read_in_the_forms_in_which_they_go_around(tmp_path, text):
    (tmp_path / "classes.txt").write_text(text)
    assert folder.label_set(str(tmp_path))[:2] == (("road", "wall"), ROAD)


def test_names_may_hold_numbers_and_a_hash_and_in_quotes_anything(tmp_path):
    names = ["route 66", "3 wheelers", "C#", '"car, parked"', "people's", '"lane #1 2"']
    (tmp_path / "classes.txt").write_text("\n".join(names))
    expected = ("route 66", "3 wheelers", "C#", "car, parked", "people's", "lane #1 2")
    assert folder.label_set(tmp_path).names == expected
    (tmp_path / "classes.txt").write_text("lane 1\nlane 2")
    assert folder.label_set(tmp_path).names == ("lane 1", "lane 2")
    (tmp_path / "classes.txt").write_text("road 0\nwall 1")
    assert folder.label_set(tmp_path).names == ("road", "wall")


@pytest.mark.parametrize(
    "text, words",
    [
        ("a\ncar, parked", "line 2 .*more than one name"),
        ("1 a\n2 b", "line 1 .*the id is 1, but this is class 0"),
        ("name,id\na,0\nb,2", "line 3 .*the id is 2"),
        ("a\nb 128 64", "line 2 .*2 numbers are no colour"),
        ("a 128 64 128 255", "line 1 .*4 numbers are no colour"),
        ("a 0.5 0.5 0.5", "line 1 .*impossible colour"),
        ("a:1,2,3::", "line 1"),
        ("name,r,g,b\na,1,2", "line 2 .*does not fit the header"),
        ('a\n"b 1 2 3', "line 2 .*a quote is not closed"),
        ("a\nb\x00c", "line 2: the character 0x00"),
    ],
)
def test_a_class_that_cannot_be_told_for_sure_names_its_line(tmp_path, text, words):
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(ValueError, match=f"classes.txt, {words}"):
        folder.classes(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_text_of_other_systems_is_read(tmp_path, encoding, end):
    (tmp_path / "classes.txt").write_bytes(f"grün{end}{end}road{end}".encode(encoding))
    assert folder.label_set(tmp_path).names == ("grün", "road")


def test_latin_1_is_read_with_a_word_about_it_and_what_is_no_text_is_refused(tmp_path, logged):
    (tmp_path / "classes.txt").write_bytes("road\ngrün".encode("latin-1"))
    assert folder.label_set(tmp_path).names == ("road", "grün")
    assert "classes.txt, line 2: this is no text file in UTF-8" in logged()[0]
    (tmp_path / "classes.txt").write_bytes(b"road\n\xff\x81")
    with pytest.raises(ValueError, match="classes.txt, line 2: the character 0x81 is no text"):
        folder.label_set(tmp_path)
    (tmp_path / "classes.txt").write_bytes("road".encode("utf-16") + b"\x00")
    with pytest.raises(ValueError, match="classes.txt, line 1: this is no text file in UTF-16"):
        folder.label_set(tmp_path)
