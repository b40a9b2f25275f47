"""A training killed at any moment resumes to the same weights as an uninterrupted one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time

import pytest

from command import TRAIN, call, perform, run, start, succeed
from kills import assert_same, assert_same_training
from utils import checkpoint
from utils.training.training_state import CHECKPOINT

STEPWISE = [*TRAIN, "--steps-save", "2"]


def state(folder) -> dict:
    return checkpoint.read(folder / CHECKPOINT)


def copy(source, target) -> None:
    """Copy the files of a folder, which has no folders in it."""
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())


def kill_until_done(folder, words, moment, kills: int) -> int:
    """Kill a training -9 and resume it until it ends -> how often it was killed, at most `kills`.

    moment(folder, process) returns True when the process group is to be killed, False when the
    process ended before.
    """
    done = 0
    while True:
        resume = ["--resume"] if (folder / CHECKPOINT).exists() else ["--overwrite"]
        process = start(*words, "--savedir", folder, *resume)
        if done < kills and moment(folder, process):
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            done += 1
            continue
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, out + err
        return done


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    succeed(*STEPWISE, "--savedir", folder)
    return folder


@pytest.mark.slow
def test_kill_9_at_random_moments_costs_nothing(tmp_path, uninterrupted):
    rng = random.Random(os.environ.get("PYTEST_SEED", "7"))

    def moment(folder, process):
        try:
            process.wait(rng.uniform(3, 9))
            return False
        except subprocess.TimeoutExpired:
            return True

    kill_until_done(tmp_path, STEPWISE, moment, kills=3)
    assert_same_training(uninterrupted, tmp_path)


@pytest.mark.slow
def test_kill_9_during_a_save_costs_nothing(tmp_path, uninterrupted):
    def moment(folder, process):
        # The temporary file is there only briefly, so it is looked for often.
        while process.poll() is None:
            if any(path.name.endswith(".new") for path in folder.glob(f".{CHECKPOINT}.*")):
                return True
            time.sleep(0.0005)
        return False

    assert kill_until_done(tmp_path, STEPWISE, moment, kills=2) == 2
    assert_same_training(uninterrupted, tmp_path)


@pytest.mark.slow
def test_sigterm_saves_and_exits_143_and_resumes(tmp_path, uninterrupted):
    process = start(*STEPWISE, "--savedir", tmp_path)
    for line in process.stdout:
        if "step 4/8" in line:
            process.send_signal(signal.SIGTERM)
            break
    out, err = process.communicate(timeout=120)
    assert process.returncode == 143, out + err
    message = "main.py: error: stopped by SIGTERM; --resume goes on from here"
    assert err.strip().splitlines()[-1] == message
    progress = state(tmp_path)["progress"]
    assert progress["step"] + 8 * progress["epoch"] >= 4
    succeed(*STEPWISE, "--savedir", tmp_path, "--resume")
    assert_same_training(uninterrupted, tmp_path)


@pytest.mark.slow
def test_two_ranks_killed_with_their_launcher_resume_to_the_same_weights(tmp_path):
    words = [*STEPWISE, "--gpus", "2", "--batch-size", "1", "--num-epochs", "2"]
    whole = tmp_path / "whole"
    killed = tmp_path / "killed"
    succeed(*words, "--savedir", whole)
    rng = random.Random(3)

    def moment(folder, process):
        while process.poll() is None and not (folder / CHECKPOINT).exists():
            time.sleep(0.05)
        time.sleep(rng.uniform(0.0, 1.5))
        return process.poll() is None

    kill_until_done(killed, words, moment, kills=2)
    assert_same_training(whole, killed)


@pytest.mark.slow
def test_a_truncated_checkpoint_is_named_and_the_one_before_is_used(tmp_path, uninterrupted):
    copy(uninterrupted, tmp_path)
    newest = tmp_path / CHECKPOINT
    newest.write_bytes(newest.read_bytes()[:-1000])
    done = succeed(*STEPWISE, "--savedir", tmp_path, "--resume")
    assert f"{newest} is damaged" in done.stderr and f"{CHECKPOINT}.previous" in done.stderr
    assert_same(state(uninterrupted), state(tmp_path))


@pytest.mark.parametrize(
    "words, message",
    [
        (["--backbone", "psp18"], "--backbone erf"),
        (["--gpus", "2"], "--gpus 1"),
        (["--optimizer", "sgd"], "--optimizer adam"),
        (["--batch-size", "4"], "--batch-size 2"),
        (["--synthetic-videos", "3", "1", "1"], "--synthetic-videos 2 1 1, not 3 1 1"),
    ],
)
def test_resuming_with_other_options_is_refused_and_nothing_changes(uninterrupted, words, message):
    before = {path.name: path.stat().st_mtime_ns for path in uninterrupted.iterdir()}
    # Several ranks need processes of their own.
    command = call
    if "--gpus" in words:
        command = run
    done = command(*STEPWISE, *words, "--savedir", uninterrupted, "--resume")
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert {path.name: path.stat().st_mtime_ns for path in uninterrupted.iterdir()} == before


def test_more_epochs_go_on_from_a_finished_run(tmp_path, uninterrupted):
    copy(uninterrupted, tmp_path)
    assert "are done" in perform(*STEPWISE, "--savedir", tmp_path, "--resume").stdout
    perform(*STEPWISE, "--num-epochs", "4", "--savedir", tmp_path, "--resume")
    assert len((tmp_path / "automated_log.txt").read_text().splitlines()) == 5


def test_overwrite_leaves_nothing_of_the_earlier_run(tmp_path, uninterrupted):
    copy(uninterrupted, tmp_path)
    (tmp_path / "model-003.pth").write_bytes(b"old")
    perform(*TRAIN, "--num-epochs", "1", "--no-iouVal", "--savedir", tmp_path, "--overwrite")
    assert len((tmp_path / "automated_log.txt").read_text().splitlines()) == 2
    assert not (tmp_path / "model-003.pth").exists()
    assert not (tmp_path / "best.txt").exists(), "nothing was validated"
