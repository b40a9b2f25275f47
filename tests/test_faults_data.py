"""What is wrong with images, labels and data sets is told in one line that names the file, or is
read right.

The table is in test_faults.py.
"""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

import main
from command import SINGLE, assert_one_line, call
from models import build_model
from trees import make_camvid, make_cityscapes, make_folder
from utils import checkpoint

QUICK = ["--device", "cpu", "--threads", "1"]
LMA = ["--method", "lma", "--corr-size", "5", "--fusion-strategy", "sigmoid-do1"]
FRAME, LABEL = "val/0001TP_000060.png", "valannot/0001TP_000060.png"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Weights and tiny trees of three data sets; tests copy and break them."""
    root = tmp_path_factory.mktemp("world")
    for name, words, classes in (
        ("single", ["--method", "single"], 11),
        ("lma19", LMA, 19),
        ("lma3", LMA, 3),
    ):
        args = main.parse_args(["--training", *words, "--savedir", "unused"])
        checkpoint.save(root / f"{name}.pth", build_model(args, classes).state_dict())
    make_camvid(root / "camvid")
    make_folder(root / "folder")
    make_cityscapes(root / "cityscapes", size=(32, 64), numbers=range(15, 20), splits=("val",))
    return root


def run(world, tmp_path, dataset, break_it, *words, workers=0):
    """Of a job on a copy of the tree in which something is broken."""
    root = tmp_path / dataset
    shutil.copytree(world / dataset, root)
    break_it(root)
    return call(
        *words,
        "--dataset",
        dataset,
        "--data-root",
        root,
        *QUICK,
        "--num-workers",
        workers,
        "--savedir",
        tmp_path / "save",
    )


def evaluate(world, tmp_path, break_it):
    return run(
        world,
        tmp_path,
        "camvid",
        break_it,
        "--eval-mode",
        "--method",
        "single",
        "--weights",
        world / "single.pth",
    )


def resave(path: str, change, name: str | None = None, **options):
    """A breaker: the image `path`, changed, instead of it (under another name)."""

    def break_it(root):
        with Image.open(root / path) as image:
            changed = change(image)
        (root / path).unlink()
        changed.save((root / path).with_name(name or (root / path).name), **options)

    return break_it


def quarter_turn() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def both(*breakers):
    return lambda root: [break_it(root) for break_it in breakers]


def small(image):
    return image.resize((16, 16))


# Images that are read right, whatever they are; EXIF is not applied, for labels have none

FINE = {
    "16-bit": resave(
        FRAME, lambda image: Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    ),
    "palette": resave(FRAME, lambda image: image.convert("P")),
    "alpha": resave(FRAME, lambda image: image.convert("RGBA")),
    "CMYK": resave(FRAME, lambda image: image.convert("CMYK"), "0001TP_000060.jpg", quality=95),
    "rotated by EXIF": resave(FRAME, lambda image: image.copy(), exif=quarter_turn()),
}


@pytest.mark.parametrize("name", FINE)
def test_an_unusual_image_is_read(world, tmp_path, name):
    done = evaluate(world, tmp_path, FINE[name])
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "save" / "results.json").read_text())["frames"] == 4


# Images that are refused

REFUSED = {
    "more than 16 bits": (
        lambda root: (root / FRAME).write_bytes(floats()),
        "0001TP_000060.png has more than 16",
    ),
    "frame and label of another size": (
        both(resave(FRAME, small), resave(LABEL, small)),
        "0001TP_000060: the frames of a video must have one shape",
    ),
    "rotated by EXIF, and its label turned": (
        both(
            FINE["rotated by EXIF"],
            resave(LABEL, lambda image: image.transpose(Image.Transpose.ROTATE_90)),
        ),
        "a rotation by EXIF is not applied",
    ),
    "truncated": (
        lambda root: (root / FRAME).write_bytes((root / FRAME).read_bytes()[:300]),
        "0001TP_000060.png",
    ),
    "of zero bytes": (
        lambda root: (root / FRAME).write_bytes(b""),
        "0001TP_000060.png cannot be read as an image",
    ),
    "missing": (lambda root: (root / FRAME).unlink(), "lacks 1 of 4 frames: 0001TP_000060.png"),
    "label of another size": (resave(LABEL, small), "is 16x16 (HxW), but its frame"),
    "label id out of range": (
        resave(LABEL, lambda image: Image.fromarray(np.full((24, 32), 77, np.uint8))),
        "holds the id 77",
    ),
    "label in colours": (
        resave(LABEL, lambda image: image.convert("RGB")),
        "turn its colours into class ids",
    ),
    "label missing": (lambda root: (root / LABEL).unlink(), "0001TP_000060"),
    "split missing": (lambda root: shutil.rmtree(root / "valannot"), "is --data-root right?"),
    "no frames": (
        lambda root: [path.unlink() for path in (root / "valannot").iterdir()],
        "no labels in",
    ),
    "one frame twice": (
        lambda root: shutil.copy(root / FRAME, (root / FRAME).with_suffix(".jpg")),
        "are one frame twice",
    ),
}


def floats() -> bytes:
    """A TIFF of floating point numbers."""
    data = io.BytesIO()
    Image.fromarray(np.zeros((24, 32), np.float32)).save(data, "TIFF")
    return data.getvalue()


@pytest.mark.parametrize("name", REFUSED)
def test_an_image_that_cannot_serve_is_named(world, tmp_path, name):
    break_it, message = REFUSED[name]
    assert_one_line(
        evaluate(world, tmp_path, break_it), message, tmp_path / "save" / "results.json"
    )


def test_training_data_broken_in_a_worker_is_named(world, tmp_path):
    def break_it(root):
        (root / "train" / "0001TP_000090.png").write_bytes(b"")

    done = run(
        world,
        tmp_path,
        "camvid",
        break_it,
        "--training",
        "--method",
        "single",
        "--batch-size",
        "2",
        workers=1,
    )
    assert_one_line(done, "0001TP_000090.png", tmp_path / "save" / "checkpoint.pth.tar")


def test_a_missing_validation_split_is_told_before_training(world, tmp_path):
    done = run(
        world,
        tmp_path,
        "camvid",
        lambda root: shutil.rmtree(root / "valannot"),
        "--training",
        "--method",
        "single",
        "--batch-size",
        "2",
        "--iouVal",
    )
    assert_one_line(done, "--data-root", tmp_path / "save")


def test_frames_of_several_sizes_in_a_training_are_named(world, tmp_path):
    break_it = both(
        *(resave(f"{folder}/0001TP_000060.png", small) for folder in ("train", "trainannot"))
    )
    words = ["--training", "--num-epochs", "1", "--no-iouVal"]
    done = run(world, tmp_path, "camvid", break_it, *words, *LMA, "--batch-size", "1")
    assert_one_line(
        done, "is 24x32 (HxW), but 0001TP/0001TP_000060 of the same clip 16x16: give them one size"
    )
    shutil.rmtree(tmp_path / "camvid")
    done = run(
        world, tmp_path, "camvid", break_it, *words, "--method", "single", "--batch-size", "4"
    )
    assert_one_line(
        done, "add --random-crop H W or --batch-size 1", tmp_path / "save" / "checkpoint.pth.tar"
    )


def test_a_neighbour_of_another_size_is_named_or_brought_to_the_work_size(world, tmp_path):
    def break_it(root):
        resave("val/clip/images/1.png", small)(root)
        (root / "val" / "clip" / "labels" / "1.png").unlink()

    words = ["--eval-mode", *LMA, "--weights", world / "lma3.pth"]
    done = run(world, tmp_path, "folder", break_it, *words)
    assert_one_line(done, "clip/1 is 16x16 (HxW), but clip/2 of the same clip 24x32")
    shutil.rmtree(tmp_path / "folder")
    done = run(world, tmp_path, "folder", break_it, *words, "--work-size", "24", "32")
    assert done.returncode == 0, done.stderr


def test_a_missing_neighbour_is_named(world, tmp_path):
    missing = "leftImg8bit_sequence/val/aachen/aachen_000000_000017_leftImg8bit.png"
    done = run(
        world,
        tmp_path,
        "cityscapes",
        lambda root: (root / missing).unlink(),
        "--eval-mode",
        *LMA,
        "--weights",
        world / "lma19.pth",
        "--work-size",
        "32",
        "64",
    )
    assert_one_line(done, f"{missing} does not exist", tmp_path / "save" / "results.json")


# Empty data sets

EMPTY = {
    "no clip": (lambda root: shutil.rmtree(root / "val" / "clip"), "no clips in"),
    "no frame": (
        lambda root: [path.unlink() for path in (root / "val").rglob("*.png")],
        "no frames in",
    ),
    "no label": (
        lambda root: shutil.rmtree(root / "val" / "clip" / "labels"),
        "no frame of the val split",
    ),
    "no class": (lambda root: (root / "classes.txt").write_text(""), "lists 0 classes"),
    "a class twice": (
        lambda root: (root / "classes.txt").write_text("ground\nground\n"),
        "classes.txt, line 2",
    ),
}


@pytest.mark.parametrize("name", EMPTY)
def test_a_data_set_without_content_is_told(world, tmp_path, name):
    break_it, message = EMPTY[name]
    done = run(
        world, tmp_path, "folder", break_it, "--eval-mode", *LMA, "--weights", world / "lma3.pth"
    )
    assert_one_line(done, message, tmp_path / "save" / "results.json")


# Sources of inference


def test_images_of_a_source_are_turned_as_exif_says_and_may_be_of_any_kind(world, tmp_path):
    (tmp_path / "in").mkdir()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8))
    picture.save(tmp_path / "in" / "0.png", exif=quarter_turn())
    picture.convert("P").save(tmp_path / "in" / "1.png")
    picture.convert("CMYK").save(tmp_path / "in" / "2.tif")
    Image.fromarray(np.full((24, 32), 40000, np.uint16)).save(tmp_path / "in" / "3.png")
    picture.convert("RGBA").save(tmp_path / "in" / "4.png")
    done = call(
        "--inference",
        *SINGLE,
        *QUICK,
        "--source",
        tmp_path / "in",
        "--output",
        "labels",
        "--weights",
        world / "single.pth",
        "--savedir",
        tmp_path / "save",
    )
    assert done.returncode == 0, done.stderr
    sizes = [Image.open(tmp_path / "save" / "in_labels" / f"{i}.png").size for i in range(5)]
    assert sizes == [(24, 32)] + 4 * [(32, 24)]
