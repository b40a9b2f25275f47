"""kill -9 at any moment: what is resumed ends as if nothing had happened. The table is in
test_faults.py."""

from __future__ import annotations

import json
import random
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command import SINGLE, TINY
from frames import write_video
from kills import Forked, Ranks, assert_same_training, at_disk_operation
from utils.run import evaluation_state
from utils.training.training_state import CHECKPOINT

TRAIN = ["--training", *TINY, "--batch-size", "2", "--num-epochs", "2", "--steps-save", "2"]
MOMENTS = 20


def until_done(begin, folder: Path, moments, seconds: float, check) -> None:
    """Run, kill -9 at moments[i] (a share of `seconds`, or a number of disk operations), resume,
    and so on.

    begin(words, first) starts a run into `folder`; one that ends before its moment is checked and
    done again.
    """
    for moment in moments:
        code = None
        while code != -signal.SIGKILL:
            if code is not None:
                assert code == 0
                check()
                shutil.rmtree(folder)
            first = at_disk_operation(moment) if isinstance(moment, int) else lambda: None
            run = begin(again(folder), first)
            code = run.wait() if isinstance(moment, int) else run.wait(moment * seconds)
            if code is None:
                run.send()
                code = run.wait()
    begin(again(folder), lambda: None).succeed()
    check()


def again(folder: Path) -> list[str]:
    """How to go on in a folder: a training that has saved nothing yet cannot be resumed."""
    begun = (
        (folder / CHECKPOINT).exists()
        or list(folder.glob("evaluation_*"))
        or list(folder.glob("inference_*"))
    )
    return ["--resume"] if begun else ["--overwrite"]


def moments(seed: int, count: int = MOMENTS) -> list[float]:
    """Shares of a run's time: a resumed run is shorter, so early ones come more often."""
    rng = random.Random(seed)
    return [0.8 * rng.random() ** 2 for _ in range(count)]


# Training


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training that nobody killed, and its seconds."""
    folder = tmp_path_factory.mktemp("trained")
    return folder / "run", Forked(folder, *TRAIN, "--savedir", folder / "run").succeed()


def kill_a_training(trained, tmp_path, moments, start=Forked, words=TRAIN) -> None:
    whole, seconds = trained
    killed = tmp_path / "run"
    until_done(
        lambda more, first: start(tmp_path, *words, "--savedir", killed, *more, first=first),
        killed,
        moments,
        seconds,
        lambda: assert_same_training(whole, killed),
    )


def test_a_training_killed_in_a_save_and_between_saves_ends_with_the_same_weights(
    tmp_path, trained
):
    kill_a_training(trained, tmp_path, [0.5, 13])


@pytest.mark.slow
def test_a_training_killed_at_20_moments_and_20_disk_operations_ends_with_the_same_weights(
    tmp_path, trained
):
    kill_a_training(trained, tmp_path, [*moments(1), *range(1, MOMENTS + 1)])


@pytest.mark.slow
def test_two_ranks_killed_at_20_moments_end_with_the_same_weights(tmp_path, trained):
    words = [*TRAIN, "--batch-size", "1"]
    seconds = Ranks(tmp_path, *words, "--savedir", tmp_path / "whole").succeed()
    kill_a_training((tmp_path / "whole", seconds), tmp_path, moments(2), Ranks, words)


def test_two_ranks_killed_together_end_with_the_same_weights(tmp_path, trained):
    words = [*TRAIN, *"--batch-size 1 --num-epochs 1 --num-workers 0 --synthetic-length 4".split()]
    seconds = Ranks(tmp_path, *words, "--savedir", tmp_path / "whole").succeed()
    kill_a_training((tmp_path / "whole", seconds), tmp_path, [0.6], Ranks, words)


# Evaluation and inference


def contents(folder) -> dict[str, bytes]:
    """What a run left, without what says when it was or where."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("results.json", "results.txt")
    }


def kill_an_evaluation(tmp_path, weights, monkeypatch, moments, start=Forked) -> None:
    monkeypatch.setattr(evaluation_state, "PATIENCE", 0.0)
    words = [
        "--eval-mode",
        *TINY,
        "--synthetic-videos",
        "1",
        "3",
        "1",
        "--weights",
        weights,
        "--save-labels",
        "--num-workers",
        "0",
    ]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    seconds = start(tmp_path, *words, "--savedir", whole).succeed()

    def check() -> None:
        one, other = (
            json.loads((folder / "results.json").read_text()) for folder in (whole, killed)
        )
        assert one["metrics"] == other["metrics"] and one["frames"] == other["frames"] == 24
        assert contents(whole) == contents(killed), "nothing is lost, nothing is left over"

    until_done(
        lambda more, first: start(tmp_path, *words, "--savedir", killed, *more, first=first),
        killed,
        moments,
        seconds,
        check,
    )


def test_an_evaluation_killed_in_a_save_and_between_saves_ends_with_the_same_numbers(
    tmp_path, weights, monkeypatch
):
    kill_an_evaluation(tmp_path, weights, monkeypatch, [0.5, 7])


@pytest.mark.slow
def test_an_evaluation_killed_at_20_moments_ends_with_the_same_numbers(
    tmp_path, weights, monkeypatch
):
    kill_an_evaluation(tmp_path, weights, monkeypatch, [*moments(3), *range(1, MOMENTS + 1)])


@pytest.mark.slow
def test_an_evaluation_by_two_ranks_killed_at_20_moments_ends_with_the_same_numbers(
    tmp_path, weights, monkeypatch
):
    kill_an_evaluation(tmp_path, weights, monkeypatch, moments(4), Ranks)


def kill_an_inference(tmp_path, weights, moments) -> None:
    rng = np.random.default_rng(0)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for i in range(4):
            Image.fromarray(rng.integers(0, 256, (32, 48, 3), np.uint8)).save(
                tmp_path / folder / f"{i}.png"
            )
    sources = [tmp_path / "one", write_video(tmp_path / "drive.mp4", 6), tmp_path / "two"]
    words = [
        "--inference",
        *SINGLE,
        "--device",
        "cpu",
        "--threads",
        "1",
        "--weights",
        weights,
        "--output",
        "overlay",
        "labels",
        "--source",
        *sources,
    ]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    seconds = Forked(tmp_path, *words, "--savedir", whole).succeed()

    def check() -> None:
        assert contents(whole) == contents(killed) and len(contents(whole)) == 5 + 3 + 14

    until_done(
        lambda more, first: Forked(tmp_path, *words, "--savedir", killed, *more, first=first),
        killed,
        moments,
        seconds,
        check,
    )


def test_an_inference_killed_in_a_save_and_between_saves_leaves_the_same_files(tmp_path, weights):
    kill_an_inference(tmp_path, weights, [0.5, 12])


@pytest.mark.slow
def test_an_inference_killed_at_20_moments_leaves_the_same_files(tmp_path, weights):
    kill_an_inference(tmp_path, weights, [*moments(5), *range(1, MOMENTS + 1)])
