"""Pseudo labels: what a teacher is unsure of or may not say has no label, and a training reads the
rest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import main
from command import ROOT, assert_one_line, call, perform
from datasets import folder
from datasets.class_list import class_lines, read_classes
from datasets.labels import LabelSet
from datasets.source.names import unique_names
from engine import stream
from models import build_model
from trees import write
from utils.checkpoint import load_weights, network_of
from utils.output.pseudo_labels import PixelCounts, pseudo_labels
from utils.predictions import best_class, best_probability
from utils.run import savedir
from utils.stepper import Stepper
from utils.views import Views

TEACHER = ROOT / "trained_models" / "erfnet_synthetic.pth"
ON_CPU = "--device cpu --threads 1 --num-workers 0".split()
SIZE = (32, 48)
NOTHING = 255


def table_of(*places: int) -> np.ndarray:
    table = np.full(256, NOTHING, np.uint8)
    table[: len(places)] = places
    return table


# Arrays


def test_unsure_labels_are_left_out_and_those_at_the_threshold_stay():
    labels = np.array([[0, 1, 2, NOTHING]], np.uint8)
    confidence = np.array([[0.5, 0.49, 1.0, 0.1]], np.float32)
    found, counts = pseudo_labels(labels, confidence, min_confidence=0.5)
    assert found.tolist() == [[0, NOTHING, 2, NOTHING]]
    assert (counts.pixels, counts.labelled, counts.unsure, counts.forbidden) == (4, 2, 1, 0)


def test_a_coarse_label_forbids_what_contradicts_it_alone():
    #                  fits, contradicts, coarse says nothing, map says nothing, no label
    labels = np.array([[0, 1, 1, 2, NOTHING]], np.uint8)
    coarse = np.array([[0, 0, NOTHING, 0, 1]], np.uint8)
    found, counts = pseudo_labels(labels, coarse=coarse, table=table_of(0, 1, NOTHING))
    assert found.tolist() == [[0, NOTHING, 1, 2, NOTHING]]
    assert (counts.labelled, counts.unsure, counts.forbidden) == (3, 0, 1)


def test_what_is_unsure_and_forbidden_counts_once():
    labels = np.array([[1, 1]], np.uint8)
    found, counts = pseudo_labels(
        labels,
        np.array([[0.2, 0.9]]),
        np.zeros((1, 2), np.uint8),
        min_confidence=0.5,
        table=table_of(0, 1),
    )
    assert (found == NOTHING).all()
    assert (counts.labelled, counts.unsure, counts.forbidden) == (0, 1, 1)
    both = counts + PixelCounts(pixels=2, labelled=2, frames=1, without_coarse=1)
    assert both.told() == (
        "50.0 % of the pixels are labelled, 25.0 % left out for low confidence, 25.0 % forbidden "
        "by coarse labels; 1 of 2 frames have no coarse label"
    )


def test_the_probability_is_that_of_the_predicted_class():
    logits = 5 * torch.randn(1, 4, 3, 5)
    expected = logits.softmax(1).gather(1, best_class(logits)[:, None])[:, 0]
    torch.testing.assert_close(best_probability(logits, False), expected)
    torch.testing.assert_close(best_probability(logits.softmax(1), True), expected)


class Frame:
    work = None
    image = np.random.default_rng(0).integers(0, 255, (*SIZE, 3)).astype(np.uint8)


@pytest.mark.parametrize("views", [{}, {"flip": True}, {"scales": (0.5, 1.0)}])
def test_several_views_give_probabilities_that_no_softmax_flattens(views):
    """A network that is sure is so in every view, whatever the views hand over."""
    model = teacher()
    stepper = Stepper(model, Views(model.size_rule, **views), torch.no_grad())
    (found,) = stream(stepper, [Frame], device=torch.device("cpu"), confidence=True)
    clip = torch.from_numpy(Frame.image).permute(2, 0, 1)[None] / 255
    scores = stepper(clip)
    if not stepper.views.single_pass:
        torch.testing.assert_close(scores.sum(1), torch.ones(1, *SIZE))
    else:
        scores = scores.softmax(1)
    torch.testing.assert_close(found.confidence, scores.amax(1)[0])
    assert torch.equal(found.prediction, scores.max(1).indices[0].byte())
    (plain,) = stream(stepper, [Frame], device=torch.device("cpu"))
    assert plain.confidence is None


def teacher():
    words = ["--inference", "--source", "x", "--weights", str(TEACHER), "--savedir", "unused"]
    model = build_model(main.parse_args(words, network_of([str(TEACHER)])), 11).eval()
    load_weights(model, TEACHER)
    return model


# Names and lists


def test_a_list_of_classes_is_read_as_it_was_written(tmp_path):
    names = ("road", "traffic light", "lane 1", "C#", "a, b", "non-drivable", "name", "hash # x")
    labels = LabelSet(names, tuple((i, 2 * i, 255 - i) for i in range(len(names))))
    (tmp_path / "classes.txt").write_text(class_lines(labels))
    assert read_classes(tmp_path / "classes.txt") == labels
    (tmp_path / "classes.txt").write_text(class_lines(LabelSet(("7", "8"), ((1, 2, 3),) * 2)))
    assert read_classes(tmp_path / "classes.txt").names == ("7", "8")


def test_sources_that_are_images_of_clips_have_the_names_of_the_clips(tmp_path):
    # As --dataset folder has them, and as VSPW
    places = [tmp_path / "a" / "images", tmp_path / "b" / "origin"]
    for place in places:
        place.mkdir(parents=True)
    assert unique_names(list(map(str, places))) == ["a", "b"]
    assert unique_names(["x/train", "y/a.mp4", "z/train"], ["train"]) == ["train_2", "a", "train_3"]


# Commands


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two clips of frames with coarse labels: the left half is ground, the right unknown."""
    root = tmp_path_factory.mktemp("coarse") / "train"
    rng = np.random.default_rng(3)
    coarse = np.full(SIZE, NOTHING, np.uint8)
    coarse[:, : SIZE[1] // 2] = 0
    for clip in ("one", "two"):
        for i in range(3):
            image = rng.integers(0, 255, (*SIZE, 3)).astype(np.uint8)
            write(root / clip / "images" / f"{i}.png", image)
            if (clip, i) != ("two", 2):
                write(root / clip / "labels" / f"{i}.png", coarse)
    (root.parent / "classes.txt").write_text("ground\nabove\n")
    (root.parent / "map.txt").write_text("road -> ground\nsidewalk -> ground\n* -> above\n")
    return root


def label(*words):
    return ["--inference", "--weights", TEACHER, *ON_CPU, *words]


def arrays(folder) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))]


def test_labels_are_left_out_as_confidence_pngs_and_coarse_labels_say(root, tmp_path):
    words = label("--source", root / "one" / "images", "--output", "labels", "confidence")
    plain = perform(*words, "--savedir", tmp_path / "all")
    assert "% of the pixels" not in plain.stdout
    rules = ["--min-confidence", "0.4", "--coarse-labels", root]
    rules += ["--coarse-map", root.parent / "map.txt"]
    done = perform(*words, *rules, "--savedir", tmp_path / "some")
    grey = arrays(tmp_path / "all" / "one_confidence")
    assert len(grey) == 3 and all(image.shape == SIZE for image in grey)
    assert np.array_equal(grey, arrays(tmp_path / "some" / "one_confidence"))
    everything = np.stack(arrays(tmp_path / "all" / "one_labels"))
    kept = np.stack(arrays(tmp_path / "some" / "one_labels"))
    sure = np.stack(grey) > 0.4 * 255 + 0.5
    unsure = np.stack(grey) < 0.4 * 255 - 0.5
    assert sure.any() and unsure.any()
    assert (kept[unsure] == NOTHING).all()
    left = np.zeros(kept.shape, bool)
    left[:, :, : SIZE[1] // 2] = True
    ground = everything <= 1
    assert np.array_equal(kept[sure & ~left], everything[sure & ~left])
    assert np.array_equal(kept[sure & ground], everything[sure & ground])
    forbidden = sure & left & ~ground
    assert forbidden.any() and (kept[forbidden] == NOTHING).all()
    share = 100 * (kept != NOTHING).mean()
    assert f"labels: {share:.1f} % of the pixels are labelled" in done.stdout
    assert "no coarse label" not in done.stdout


def test_a_data_set_of_pseudo_labels_trains_at_once_and_is_labelled_by_nobody(root, tmp_path):
    run = tmp_path / "teacher"
    words = label("--source", f"{root}/*/images", "--output", "dataset", "--flip", "--savedir", run)
    words += ["--min-confidence", "0.2", "--coarse-labels", root]
    words += ["--coarse-map", root.parent / "map.txt"]
    done = perform(*words)
    assert "1 of 6 frames have no coarse label" in done.stdout
    data = run / "dataset"
    assert {path.name for path in data.iterdir()} == {"one", "two", "classes.txt"}
    videos = folder.videos(data, folder.ALL)
    assert [len(video.labelled) for video in videos] == [3, 3]
    source = np.asarray(Image.open(root / "two" / "images" / "2.png"))
    assert np.array_equal(videos[1].frame(2), source)
    student = ["--training", "--method", "single", "--backbone", "erf", "--train-encoder", *ON_CPU]
    student += ["--dataset", "folder", "--data-root", data, "--num-epochs", "1"]
    perform(*student, "--batch-size", "2", "--savedir", tmp_path / "student")
    assert (tmp_path / "student" / "model_best.pth").exists()
    written = [data / "classes.txt", data / "one" / "images" / "0.png", data / "two"]
    assert all(savedir.is_inference_output(run, path) for path in written)
    assert not savedir.is_inference_output(run, data / "mine" / "images" / "0.png")
    resumed = perform(*words, "--resume")
    assert "one: labelled before, left as it is" in resumed.stdout
    (data / "one" / "images" / "stale.png").touch()
    perform(*words, "--overwrite")
    assert not (data / "one" / "images" / "stale.png").exists(), "the older run is gone"


def test_a_data_set_that_was_begun_is_not_mixed_with_another(root, tmp_path):
    write(tmp_path / "in" / "0.png", Frame.image)
    (tmp_path / "in" / "1.png").write_bytes(b"broken")
    words = label("--output", "dataset", "--savedir", tmp_path / "run", "--source")
    assert call(*words, tmp_path / "in").returncode == 2
    refused = call(*words, root / "one" / "images")
    assert_one_line(refused, "holds the data set of an inference", tmp_path / "run/dataset/one")
    perform(*words, root / "one" / "images", "--overwrite")
    assert not (tmp_path / "run" / "dataset" / "in").exists()


def test_a_source_with_the_name_of_a_split_becomes_a_clip(tmp_path):
    write(tmp_path / "train" / "0.png", Frame.image)
    words = label("--source", tmp_path / "train", "--output", "dataset")
    perform(*words, "--savedir", tmp_path / "run")
    (video,) = folder.videos(tmp_path / "run" / "dataset", folder.ALL)
    assert video.name == "train_2" and video.labelled == (0,)


# Faults


def test_coarse_labels_that_cannot_serve_are_told_before_anything_is_written(root, tmp_path):
    run = tmp_path / "run"
    words = label("--source", root / "one" / "images", "--output", "dataset", "--savedir", run)
    rules = ["--coarse-map", root.parent / "map.txt", "--coarse-labels"]
    done = call(*words, *rules, tmp_path / "none")
    assert_one_line(done, "none is not a folder: give one of clips with labels", run)
    done = call(*words, *rules, root / "one")
    assert_one_line(done, "classes.txt does not exist", run)
    done = call(*words, "--coarse-map", "camvid-to-groups", "--coarse-labels", root)
    assert_one_line(done, "--coarse-map: camvid-to-groups", run)
    done = call(*words, "--coarse-map", "nothing", "--coarse-labels", root)
    assert_one_line(done, "--coarse-map nothing is neither a file nor one of", run)
    assert_one_line(
        call(*words, "--coarse-labels", root), "--coarse-labels needs --coarse-map", run
    )


def test_a_coarse_label_of_another_size_than_the_frame_is_named(root, tmp_path):
    write(tmp_path / "one" / "0.png", np.zeros((16, 48, 3), np.uint8))
    words = label("--source", tmp_path / "one", "--output", "labels", "--coarse-labels", root)
    words += ["--coarse-map", root.parent / "map.txt", "--savedir", tmp_path / "run"]
    done = call(*words)
    assert_one_line(done, "one/labels/0.png is 32x48 (HxW), but the frame 0 of one is 16x48")


def test_options_without_labels_are_without_effect_and_a_benchmark_writes_no_data_set():
    words = ["--inference", "--source", "x.mp4", "--weights", "w.pth", "--savedir", "unused"]
    args = main.parse_args([*words, "--min-confidence", "0.5", "--output", "confidence"])
    assert args.without_effect == ["--min-confidence"]
    refused = call("--benchmark", "--output", "dataset", "--savedir", "unused")
    assert_one_line(refused, "--benchmark does not time --output dataset")
