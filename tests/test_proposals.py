"""Labels that a network proposes: what stays of them, and a training that reads them at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from command import ROOT, assert_one_line, call, perform
from datasets import camvid, synthetic
from datasets.class_list import read_classes
from datasets.coarse_labels import CoarseLabels
from disk import write
from engine import confidence_map
from utils.output.folder_dataset import write_classes
from utils.output.proposals import Proposals

ERF = ROOT / "trained_models" / "erfnet_synthetic.pth"
ON_CPU = ["--threads", "1", "--device", "cpu"]
MAP = "road -> ground\npavement -> ground\ncar -> thing\n* -> ignore\n"


@pytest.fixture
def frames(tmp_path):
    """Two clips of two frames, 48x64: CLIP/images."""
    rng = np.random.default_rng(0)
    for clip in ("a", "b"):
        for i in range(2):
            image = rng.integers(0, 255, (48, 64, 3)).astype(np.uint8)
            write(tmp_path / "in" / clip / "images" / f"{i}.png", image)
    return tmp_path / "in"


def label(frames, folder, *words):
    return perform(
        *("--inference", "--source", f"{frames}/*/images", "--weights", ERF, *ON_CPU),
        *(*words, "--savedir", folder),
    )


def png(path) -> np.ndarray:
    return np.asarray(Image.open(path))


# What stays


def test_what_is_less_sure_than_asked_for_and_what_is_forbidden_has_no_label():
    labels = np.array([[0, 1, 2, 3]], np.uint8)
    sure = np.array([[0.5, 0.49, 1.0, 1.0]], np.float32)

    def forbids(found, clip, frame):
        assert (clip, frame) == ("clip", "7") and found.tolist() == [[0, 255, 2, 3]]
        return np.array([[False, True, True, False]])

    proposals = Proposals(0.5, forbids)
    assert proposals.keep(labels, sure, "clip", "7").tolist() == [[0, 255, 255, 3]]
    assert labels.tolist() == [[0, 1, 2, 3]], "pictures may still want them"
    assert proposals.note() == (
        "pixels without a label: 25.0 % less sure than 0.5, 25.0 % forbidden by coarse labels"
    )


def test_without_a_threshold_and_coarse_labels_all_labels_stay():
    labels = np.array([[0, 1]], np.uint8)
    proposals = Proposals()
    assert proposals.keep(labels, None, "clip", "0") is labels and proposals.note() is None


def test_confidence_is_the_probability_of_the_best_class_of_logits_and_probabilities():
    logits = torch.randn(1, 3, 4, 5)
    expected = logits.softmax(1).max(1).values[0]
    assert torch.allclose(confidence_map(logits, False), expected)
    assert torch.equal(confidence_map(logits.softmax(1), True), expected)


@pytest.fixture
def coarse(tmp_path):
    """A coarse label of one frame: ground left, thing in the middle, nothing right."""
    label = np.array([[0, 0, 1, 1, 255]], np.uint8)
    write(tmp_path / "coarse" / "a" / "images" / "0.png", np.zeros((1, 5, 3), np.uint8))
    write(tmp_path / "coarse" / "a" / "labels" / "0.png", label)
    (tmp_path / "coarse" / "classes.txt").write_text("ground\nthing\n")
    path = tmp_path / "map.txt"
    path.write_text(MAP)
    return CoarseLabels(tmp_path / "coarse", str(path), camvid.LABELS)


def test_a_coarse_label_forbids_other_classes_and_says_nothing_where_it_or_the_map_is_silent(
    coarse,
):
    ids = [camvid.LABELS.names.index(name) for name in ("road", "car", "pavement", "sky", "car")]
    forbidden = coarse.forbids(np.array([ids], np.uint8), "a", "0")
    assert forbidden.tolist() == [[False, True, True, False, False]]
    assert coarse.forbids(np.array([ids], np.uint8), "a", "1") is None
    with pytest.raises(ValueError, match="coarse label of a/0 .* is 1x5 .*, the frame 2x5"):
        coarse.forbids(np.zeros((2, 5), np.uint8), "a", "0")


# Commands


def test_a_training_reads_the_proposals_of_an_inference(frames, tmp_path):
    folder = tmp_path / "run"
    done = label(frames, folder, "--output", "dataset", "confidence", "--min-confidence", "0.6")
    assert "pixels without a label: " in done.stdout
    for clip in ("a", "b"):
        image = png(folder / "dataset" / clip / "images" / "1.png")
        assert np.array_equal(image, png(frames / clip / "images" / "1.png"))
        labels = png(folder / "dataset" / clip / "labels" / "1.png")
        unsure = png(folder / f"{clip}_confidence" / "1.png") < round(0.6 * 255) - 1
        assert (labels[unsure] == 255).all() and (labels != 255).any() and unsure.any()
    train = ["--training", "--method", "single", "--dataset", "folder", "--num-epochs", "1"]
    train += ["--backbone", "erf", "--train-encoder", "--batch-size", "2", "--num-workers", "0"]
    done = perform(
        *(*train, "--data-root", folder / "dataset", *ON_CPU, "--savedir", tmp_path / "trained")
    )
    assert "traffic sign" not in done.stderr


def test_mirrored_views_have_a_confidence_too(frames, tmp_path):
    words = ("--output", "labels", "confidence")
    label(frames, tmp_path / "one", *words)
    label(frames, tmp_path / "two", *words, "--flip")
    one, two = (png(tmp_path / name / "a_confidence" / "0.png") for name in ("one", "two"))
    assert one.shape == (48, 64) and one.min() >= 255 // 11
    assert not np.array_equal(one, two) and np.abs(one.astype(int) - two).mean() < 60


def test_coarse_labels_of_the_sources_forbid_proposals(frames, tmp_path):
    for i in range(2):
        write(frames / "a" / "labels" / f"{i}.png", np.zeros((48, 64), np.uint8))
    (frames / "classes.txt").write_text("up\ndown\n")
    path = tmp_path / "map.txt"
    path.write_text("* -> down\nsky -> up\n")
    words = ("--output", "labels", "--coarse-labels", frames, "--coarse-map", path)
    done = label(frames, tmp_path / "run", *words)
    assert "forbidden by coarse labels; 2 of 4 frames have no coarse label" in done.stdout
    label(frames, tmp_path / "free", "--output", "labels")
    sky = synthetic.LABELS.names.index("sky")
    sky = synthetic.LABELS.names.index("sky")
    for clip in ("a", "b"):
        free, kept = (png(tmp_path / run / f"{clip}_labels" / "0.png") for run in ("free", "run"))
        allowed = free == sky if clip == "a" else free >= 0
        assert np.array_equal(kept, np.where(allowed, free, 255))


def test_what_cannot_be_is_told_in_one_line(frames, tmp_path):
    words = ["--inference", "--source", f"{frames}/*/images", "--weights", ERF, *ON_CPU]
    words += ["--savedir", tmp_path / "run"]
    done = call(*words, "--coarse-labels", frames)
    assert_one_line(done, "--coarse-labels and --coarse-map go together")
    done = call(*words, "--coarse-labels", tmp_path / "no", "--coarse-map", "camvid-to-groups")
    assert_one_line(done, f"{tmp_path / 'no'} is not a folder", tmp_path / "run")
    done = call(*words, "--coarse-labels", frames, "--coarse-map", "camvid-to-groups")
    assert_one_line(done, "has no classes.txt", tmp_path / "run")
    (frames / "classes.txt").write_text("up\ndown\n")
    done = call(*words, "--coarse-labels", frames, "--coarse-map", "camvid-to-groups")
    assert_one_line(done, "camvid-to-groups", tmp_path / "run")


def test_names_and_colours_of_classes_are_read_again(tmp_path):
    names = ("traffic light", "7up", "road")
    write_classes(tmp_path, names, [(1, 2, 3), (4, 5, 6), (7, 8, 9)])
    found = read_classes(tmp_path / "dataset" / "classes.txt")
    assert found.names == names and found.palette == ((1, 2, 3), (4, 5, 6), (7, 8, 9))


def test_outputs_are_no_input_of_the_next_run(frames, tmp_path):
    label(frames, tmp_path, "--output", "dataset", "confidence")
    done = call(
        *("--inference", "--source", tmp_path / "dataset" / "a" / "images", "--weights", ERF),
        *(*ON_CPU, "--overwrite", "--savedir", tmp_path),
    )
    assert done.returncode == 2 and (tmp_path / "dataset" / "a" / "images" / "0.png").exists()
