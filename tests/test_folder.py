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
