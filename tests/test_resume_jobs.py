"""Evaluation and inference go on where they stopped, and count nothing twice."""

import json
import signal
import time

import numpy as np
import pytest
import torch
from PIL import Image

import main
from command import SINGLE, call, perform, run, start, succeed
from datasets import build_dataset
from evaluations import evaluated
from jobs.scoring import degraded_of
from models.single import SingleFrame
from toys import ToyBackbone
from utils.run import evaluation_state
from utils.run.evaluation_state import EvaluationProgress
from utils.run.loading import evaluation_loader

WORDS = [
    "--dataset",
    "synthetic",
    "--synthetic-size",
    "32",
    "64",
    "--synthetic-length",
    "10",
    "--synthetic-videos",
    "1",
    "4",
    "1",
    "--threads",
    "1",
    "--device",
    "cpu",
]


def results(folder) -> dict:
    found = json.loads((folder / "results.json").read_text())
    return {name: found[name] for name in ("metrics", "loss", "frames", "warnings")}


class Killed(BaseException):
    """Stands for a kill -9: nothing is cleaned up."""


@pytest.mark.parametrize("stepping", [True, False])
@pytest.mark.parametrize("moments", [[3], [17, 4], [39], [11, 12, 13]])
def test_an_evaluation_killed_again_and_again_ends_with_the_same_numbers(
    tmp_path, monkeypatch, stepping, moments
):
    monkeypatch.setattr(evaluation_state, "PATIENCE", 0.0)
    torch.manual_seed(1)
    model = SingleFrame(ToyBackbone(11)).eval()
    args = main.parse_args(["--eval-mode", "--method", "single", *WORDS, "--savedir", "unused"])
    data = build_dataset(args, "val")
    data = data.stepping() if stepping else data

    def attempt(folder, moment=None):
        progress, seen = EvaluationProgress(folder, "recipe", resume=True), []

        def consume(labelled):
            seen.append(labelled.name)
            if moment is not None and len(seen) >= moment:
                raise Killed

        values = evaluated(
            model,
            data,
            loader=evaluation_loader(data, 0, start=progress.done),
            degraded=degraded_of(data),
            progress=progress,
            consume=consume,
        )
        return values, len(seen)

    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    whole, frames = attempt(tmp_path / "a")
    assert frames == len(data) == 40
    for moment in moments:
        with pytest.raises(Killed):
            attempt(tmp_path / "b", moment)
    again, frames = attempt(tmp_path / "b")
    assert frames < 40 or (stepping and max(moments) < 11), "what was counted is not done again"
    for name, value in whole.items():
        np.testing.assert_equal(again[name], value, name)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    from models import build_model
    from utils import checkpoint

    folder = tmp_path_factory.mktemp("weights")
    args = main.parse_args(
        ["--training", "--dataset", "synthetic", "--corr-size", "5", "--savedir", "unused"]
    )
    checkpoint.save(folder / "lma.pth", build_model(args, 11).state_dict())
    return folder / "lma.pth"


def test_sigterm_and_resume_through_the_command_line(tmp_path, weights):
    words = [
        "--eval-mode",
        "--corr-size",
        "5",
        *WORDS,
        "--weights",
        weights,
        "--pictures",
        "4",
        "--save-labels",
    ]
    succeed(*words, "--savedir", tmp_path / "whole")
    process = start(*words, "--savedir", tmp_path / "stopped")
    deadline = time.monotonic() + 120
    while (
        len(list((tmp_path / "stopped").rglob("labels/*/*.png"))) < 14
        and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    if process.returncode:  # it was still running
        assert process.returncode == 143 and "--resume goes on from here" in err
        assert not (tmp_path / "stopped" / "results.json").exists()
        refused = run(*words, "--flip", "--savedir", tmp_path / "stopped", "--resume")
        assert refused.returncode == 2 and "other options (--flip)" in refused.stderr
        succeed(*words, "--savedir", tmp_path / "stopped", "--resume")
    assert results(tmp_path / "stopped") == results(tmp_path / "whole")
    for folder in ("labels", "pictures"):
        one, two = (
            {
                path.relative_to(tmp_path / name).as_posix(): path.read_bytes()
                for path in (tmp_path / name / folder).rglob("*.png")
            }
            for name in ("whole", "stopped")
        )
        assert one == two
    assert not list((tmp_path / "stopped").glob("evaluation_*")), "nothing is left to resume"


def test_sums_of_other_weights_are_not_added_to(tmp_path):
    (tmp_path / "w.pth").write_bytes(b"one network")
    with (
        pytest.raises(Killed),
        EvaluationProgress(tmp_path, "recipe", [tmp_path / "w.pth"], resume=False) as progress,
    ):
        progress.mark(7, lambda: {"frames": 7})
        raise Killed
    assert EvaluationProgress(tmp_path, "recipe", [tmp_path / "w.pth"], resume=True).done == 7
    (tmp_path / "w.pth").write_bytes(b"another network")
    with pytest.raises(ValueError, match="w.pth of 15 bytes"):
        EvaluationProgress(tmp_path, "recipe", [tmp_path / "w.pth"], resume=True)


def test_inference_skips_the_sources_that_are_done(tmp_path, weights):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.fromarray(np.full((32, 48, 3), 60 * i, np.uint8)).save(
                tmp_path / name / f"{i}.png"
            )
    words = [
        "--inference",
        *SINGLE,
        "--method",
        "lma",
        "--corr-size",
        "5",
        "--weights",
        weights,
        "--output",
        "labels",
        "--savedir",
        tmp_path / "out",
        "--source",
        tmp_path / "one",
        tmp_path / "two",
    ]
    (tmp_path / "two" / "1.png").write_bytes(b"broken")
    assert call(*words).returncode == 2
    stamp = (tmp_path / "out" / "one_labels" / "0.png").stat().st_mtime_ns
    Image.fromarray(np.full((32, 48, 3), 60, np.uint8)).save(tmp_path / "two" / "1.png")
    done = perform(*words, "--resume")
    assert "one: labelled before" in done.stdout + done.stderr
    assert (tmp_path / "out" / "one_labels" / "0.png").stat().st_mtime_ns == stamp
    assert len(list((tmp_path / "out" / "two_labels").glob("*.png"))) == 3
    refused = call(*words)
    assert refused.returncode == 2 and "holds a finished inference" in refused.stderr
    (tmp_path / "out" / "one_labels" / "stale.png").touch()
    anew = perform(*words, "--overwrite")
    assert "labelled before" not in anew.stdout + anew.stderr
    assert not (tmp_path / "out" / "one_labels" / "stale.png").exists(), "the older run is gone"
