"""The command line run as a user runs it: train, evaluate, label a video."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import main
from command import ROOT, SINGLE, TINY, TRAIN, call, perform, run, start, succeed, succeed_as_ranks
from datasets import build_dataset
from trees import make_camvid, make_folder
from utils import checkpoint, log
from utils.metrics import ConfusionMatrix
from utils.output.video import probe


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A savedir of a short training."""
    folder = tmp_path_factory.mktemp("trained")
    succeed(*TRAIN, "--savedir", folder, "--iouTrain", "--epochs-save", "2", "--tensorboard")
    return folder


def test_training_leaves_what_the_readme_says(trained):
    names = {path.name for path in trained.iterdir()}
    assert names >= {
        "args.txt",
        "model.txt",
        "single.py",
        "automated_log.txt",
        "curves.png",
        "best.txt",
        "tensorboard",
        "model_best.pth",
        "model_best.pth.tar",
        "checkpoint.pth.tar",
        "model-002.pth",
    }
    rows = log.read(trained / "automated_log.txt")
    assert [row.epoch for row in rows] == [1, 2, 3]
    assert all(np.isfinite(row).all() and row.train_miou > 0 for row in rows)
    assert rows[-1].train_loss < rows[0].train_loss
    best = max(rows, key=lambda row: row.val_miou)
    assert (
        trained / "best.txt"
    ).read_text() == f"Best epoch is {best.epoch}, with mean IoU = {best.val_miou:.4f}"
    with Image.open(trained / "curves.png") as curves:
        assert min(curves.size) > 300


def test_checkpoints_hold_tensors_and_plain_values_under_bare_keys(trained):
    best = checkpoint.read(trained / "model_best.pth")
    assert all(isinstance(value, torch.Tensor) for value in best.values())
    assert not any(key.startswith("module.") for key in best)
    assert checkpoint.read(trained / "model_best.pth.tar")["state_dict"].keys() == best.keys()


def test_the_validation_mIoU_of_the_best_epoch_is_that_of_an_evaluation(trained, tmp_path):
    perform("--eval-mode", *TINY, "--weights", trained / "model_best.pth", "--savedir", tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    best = max(log.read(trained / "automated_log.txt"), key=lambda row: row.val_miou)
    assert results["metrics"]["mIoU"] == pytest.approx(best.val_miou, abs=1e-6)
    assert results["loss"] == pytest.approx(best.val_loss, abs=1e-4)


def test_balanced_class_weights_are_counted_before_workers_start(tmp_path):
    """Rendering must leave no threads behind that a forked worker waits for."""
    done = succeed(
        *TRAIN,
        "--num-epochs",
        "1",
        "--synthetic-length",
        "4",
        "--class-weights",
        "balanced",
        "--savedir",
        tmp_path,
        timeout=120,
    )
    assert "epoch 1: train loss" in done.stdout


def test_a_resume_finds_the_classes_counted(tmp_path):
    words = [*TRAIN, "--class-weights", "balanced", "--synthetic-length", "4"]
    words += ["--savedir", tmp_path, "--num-epochs"]
    perform(*words, "1")
    kept = tmp_path / "counted_labels.json"
    counted = json.loads(kept.read_text())
    # Other numbers for the same data: a resume that counted anew would put the right ones there.
    counted["pixels"][3] += 1
    kept.write_text(json.dumps(counted))
    perform(*words, "2", "--resume")
    assert json.loads(kept.read_text()) == counted
    counted["data"] = "other data"
    kept.write_text(json.dumps(counted))
    perform(*words, "3", "--resume")
    assert json.loads(kept.read_text())["data"] != "other data"


def test_args_txt_repeats_the_run(trained, tmp_path):
    perform(f"@{trained / 'args.txt'}", "--savedir", tmp_path)
    first, second = (checkpoint.read(folder / "model_best.pth") for folder in (trained, tmp_path))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_evaluation_writes_results_pictures_labels_and_videos(trained, tmp_path):
    perform(
        "--eval-mode",
        *TINY,
        "--weights",
        trained / "model_best.pth",
        "--savedir",
        tmp_path,
        "--save-labels",
        "--save-video",
        "--pictures",
        "3",
    )
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["frames"] == 8 and set(results["definitions"]) == set(results["metrics"])
    assert (
        results["environment"]["torch"] == torch.__version__
        and results["options"]["backbone"] == "erf"
    )
    assert {"VC8", "VC16", "VC8_vspw"} <= set(results["metrics"]), (
        "densely labelled video is scored over time too"
    )
    table = (tmp_path / "results.txt").read_text()
    assert all(name in table for name in ("vegetation", "mIoU", "What the numbers are"))
    pictures = sorted((tmp_path / "pictures").rglob("*.png"))
    assert 3 <= len(pictures) <= 4 and (tmp_path / "legend.png").exists()
    with Image.open(pictures[0]) as strip:
        assert strip.width >= 4 * 64, "input, label, prediction, errors"
    assert probe(tmp_path / "videos" / "val_0000.mp4")["frames"] == 8
    written = [
        np.asarray(Image.open(path)) for path in sorted((tmp_path / "labels").rglob("*.png"))
    ]
    assert_mIoU_of(written, results["metrics"]["mIoU"])


def assert_mIoU_of(predictions, expected: float) -> None:
    """The PNGs on disk score what the report says."""
    data = build_dataset(main.parse_args(["--eval-mode", *TINY, "--savedir", "unused"]), "val")
    confusion = ConfusionMatrix(11)
    for clip, prediction in zip((data[i] for i in range(len(data))), predictions, strict=True):
        confusion.update(clip.labels[-1].numpy(), prediction)
    assert confusion.compute()["mIoU"] == pytest.approx(expected, abs=1e-9)


def test_flip_scales_and_windows_run_and_change_the_scores(trained, tmp_path):
    scores = set()
    for i, words in enumerate(
        (
            [],
            ["--flip"],
            ["--scales", "0.75", "1.25"],
            ["--eval-crop", "24", "40", "--flip"],
            ["--eval-crop", "24", "40", "--average", "logits"],
            ["--work-size", "24", "48"],
            ["--work-size", "24", "48", "--score-size", "work"],
            ["--precision", "bf16"],
        )
    ):
        perform(
            "--eval-mode",
            *TINY,
            "--weights",
            trained / "model_best.pth",
            "--savedir",
            tmp_path / str(i),
            "--pictures",
            "0",
            *words,
        )
        results = json.loads((tmp_path / str(i) / "results.json").read_text())
        scores.add(results["metrics"]["pixel_accuracy"])
        plain = i in (0, 5, 6, 7)
        assert (results["loss"] is not None) == plain, (
            "averaged probabilities are no logits: they have no loss"
        )
        assert not (tmp_path / str(i) / "pictures").exists()
    assert len(scores) == 8


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """A folder of ten images, two of them of another size."""
    folder = tmp_path_factory.mktemp("frames") / "drive"
    folder.mkdir()
    for i in range(10):
        size = (30, 50, 3) if i in (4, 5) else (36, 62, 3)
        Image.fromarray(np.random.default_rng(i).integers(0, 255, size, np.uint8)).save(
            folder / f"{i}.png"
        )
    return folder


def test_inference_labels_a_folder_and_begins_anew_when_the_size_changes(trained, tmp_path, frames):
    perform(
        "--inference",
        *SINGLE,
        "--source",
        frames,
        "--weights",
        trained / "model_best.pth",
        "--savedir",
        tmp_path,
        "--output",
        "overlay",
        "labels",
        "side-by-side",
    )
    labels = sorted((tmp_path / "drive_labels").glob("*.png"))
    assert [path.stem for path in labels] == [str(i) for i in range(10)]
    sizes = [Image.open(path).size for path in labels]
    assert sizes[4] == (50, 30) and sizes[3] == sizes[6] == (62, 36)
    videos = sorted(path.name for path in tmp_path.glob("drive_overlay*.mp4"))
    assert sum(probe(tmp_path / name)["frames"] for name in videos) == 10 and len(videos) == 3, (
        videos
    )


def test_inference_of_a_video_equals_evaluation_frame_by_frame(trained, tmp_path):
    """The same frames by --source and by --dataset folder, label PNGs compared."""
    data = build_dataset(main.parse_args(["--eval-mode", *TINY, "--savedir", "unused"]), "val")
    clip = tmp_path / "root" / "val" / "clip"
    (clip / "images").mkdir(parents=True)
    (clip / "labels").mkdir()
    (tmp_path / "root" / "classes.txt").write_text("\n".join(data.labels.names))
    for i in range(5):
        Image.fromarray(data.videos[0].frame(i)).save(clip / "images" / f"{i}.png")
        Image.fromarray(data.videos[0].label(i)).save(clip / "labels" / f"{i}.png")
    weights = ["--weights", trained / "model_best.pth", "--device", "cpu"]
    succeed(
        "--inference",
        *SINGLE,
        "--source",
        clip / "images",
        *weights,
        "--savedir",
        tmp_path / "a",
        "--output",
        "labels",
    )
    succeed(
        "--eval-mode",
        *SINGLE,
        "--dataset",
        "folder",
        "--data-root",
        tmp_path / "root",
        *weights,
        "--savedir",
        tmp_path / "b",
        "--save-labels",
    )
    for i in range(5):
        one, two = (
            np.asarray(Image.open(tmp_path / where / f"{i}.png"))
            for where in ("a/clip_labels", "b/labels/clip")
        )
        assert np.array_equal(one, two)


def test_inference_reads_a_pipe_and_several_sources(trained, tmp_path, frames):
    ppm = tmp_path / "one.ppm"
    Image.open(frames / "0.png").save(ppm)
    command = [
        sys.executable,
        str(ROOT / "main.py"),
        "--inference",
        *SINGLE,
        "--source",
        "-",
        "--weights",
        str(trained / "model_best.pth"),
        "--savedir",
        str(tmp_path / "pipe"),
        "--output",
        "labels",
    ]
    subprocess.run(command, input=ppm.read_bytes() * 3, check=True, capture_output=True)
    assert len(list((tmp_path / "pipe" / "stdin_labels").glob("*.png"))) == 3
    done = run(
        "--inference",
        *SINGLE,
        "--source",
        frames,
        tmp_path / "missing.mp4",
        f"{frames}/1*.png",
        "--output",
        "labels",
        "--weights",
        trained / "model_best.pth",
        "--savedir",
        tmp_path / "many",
        "--frame-step",
        "3",
    )
    assert (
        done.returncode == 2
        and "1 of 3 sources failed" in done.stderr
        and "missing.mp4" in done.stderr
    )
    assert len(list((tmp_path / "many" / "drive_labels").glob("*.png"))) == 4, "the others are done"


def test_inference_stopped_by_sigterm_keeps_what_it_has(trained, tmp_path, frames):
    import signal
    import time

    process = start(
        "--inference",
        *SINGLE,
        "--source",
        *[f"{frames}/[0-3].png"] * 1,
        "-",
        "--weights",
        trained / "model_best.pth",
        "--savedir",
        tmp_path,
        stdin=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("*_overlay.mp4")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)  # now it waits for a pipe that sends nothing
    process.wait(60)
    process.stdin.close()
    assert process.returncode == 143, process.stderr.read()
    assert sum(probe(path)["frames"] for path in tmp_path.glob("*_overlay.mp4")) == 4


def test_an_evaluation_beside_a_training_leaves_the_training_s_record_alone(trained, tmp_path):
    before = (trained / "args.txt").read_text()
    perform(
        "--eval-mode",
        *TINY,
        "--weights",
        trained / "model_best.pth",
        "--savedir",
        trained,
        "--pictures",
        "1",
    )
    assert (trained / "args.txt").read_text() == before
    assert (trained / "args_evaluation.txt").read_text().startswith("--eval-mode")
    assert len(list((trained / "pictures").rglob("*.png"))) == 1


def test_a_failing_source_of_one_rank_does_not_stop_the_other_rank(trained, tmp_path, frames):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    done = run(
        "--inference",
        *SINGLE,
        "--source",
        frames,
        tmp_path / "bad.mp4",
        "--weights",
        trained / "model_best.pth",
        "--savedir",
        tmp_path / "s",
        "--gpus",
        "2",
        "--device",
        "cpu",
        "--output",
        "labels",
    )
    assert done.returncode == 2 and done.stderr.count("1 of 2 sources failed") == 1, done.stderr
    assert len(list((tmp_path / "s" / "drive_labels").glob("*.png"))) == 10


SHIPPED = ROOT / "trained_models" / "erfnet_synthetic.pth"


def test_weights_that_name_other_classes_are_refused(tmp_path):
    root = make_camvid(tmp_path / "camvid")
    for weights in (SHIPPED, None):
        if weights is None:
            weights = tmp_path / "t" / "model_best.pth.tar"
            short = ["--num-epochs", "1", "--synthetic-length", "4"]
            perform(*TRAIN, *short, "--savedir", tmp_path / "t")
        done = call(
            "--eval-mode",
            *SINGLE,
            "--dataset",
            "camvid",
            "--data-root",
            root,
            "--weights",
            weights,
            "--savedir",
            tmp_path / "s",
        )
        assert done.returncode == 2 and "were trained for road, sidewalk" in done.stderr
        assert not (tmp_path / "s").exists()


def test_training_on_new_classes_starts_from_the_rest_of_the_weights(tmp_path):
    root = make_folder(tmp_path / "mine")
    words = [
        "--training",
        *SINGLE,
        "--dataset",
        "folder",
        "--data-root",
        root,
        "--weights",
        SHIPPED,
        "--num-epochs",
        "1",
        "--batch-size",
        "2",
        "--device",
        "cpu",
        "--lr-start",
        "0",
        "--encoder-eval-mode",
    ]
    refused = run(*words, "--savedir", tmp_path / "no")
    assert refused.returncode == 2 and "--new-classes" in refused.stderr
    done = succeed(*words, "--new-classes", "--savedir", tmp_path / "yes")
    assert "2 new" in done.stdout or "new: 2" in done.stdout, done.stdout
    ours, theirs = (
        checkpoint.read(tmp_path / "yes" / "model_best.pth"),
        checkpoint.read(SHIPPED)["state_dict"],
    )
    assert ours["backbone.decoder.output_conv.weight"].shape[1] == 4
    assert torch.equal(
        ours["backbone.encoder.layers.3.conv3x1_1.weight"],
        theirs["backbone.encoder.layers.3.conv3x1_1.weight"].float(),
    )


def test_a_training_that_is_not_validated_says_so(tmp_path):
    short = ["--num-epochs", "1", "--synthetic-length", "4"]
    done = perform(*TRAIN, *short, "--no-iouVal", "--savedir", tmp_path)
    assert "not validated" in done.stdout and (tmp_path / "model_best.pth").exists()


def test_batch_norm_without_a_batch_is_explained(tmp_path):
    done = call(*TRAIN, "--backbone", "psp18", "--batch-size", "1", "--savedir", tmp_path)
    assert done.returncode == 2 and "raise --batch-size" in done.stderr


def test_two_ranks_share_sources(trained, tmp_path, frames):
    succeed_as_ranks(
        "--inference",
        *SINGLE,
        "--source",
        frames,
        f"{frames}/[0-2].png",
        "--weights",
        trained / "model_best.pth",
        "--savedir",
        tmp_path,
        "--device",
        "cpu",
        "--output",
        "labels",
    )
    assert len(list(tmp_path.glob("*_labels"))) == 2
    assert len(list(tmp_path.glob("*_labels/*.png"))) == 13
