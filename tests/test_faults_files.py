"""Weights, checkpoints, savedirs and disks that do not serve: one line, and what was there stays.

The table is in test_faults.py.
"""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import main
from command import ROOT, SINGLE, TINY, assert_one_line, call
from kills import Forked, assert_same_training
from models import build_model
from utils import checkpoint
from utils.training.training_state import CHECKPOINT

TRAIN = ["--training", *TINY, "--num-workers", "0", "--batch-size", "2", "--num-epochs", "1"]
EVALUATE = ["--eval-mode", *TINY, "--num-workers", "0"]
LMA = ["--method", "lma", "--corr-size", "5"]


def model(*words, classes: int = 11):
    return build_model(
        main.parse_args(["--training", *SINGLE, "--savedir", "unused", *words]), classes
    )


class ExecutesCode:
    def __reduce__(self):
        return os.system, ("touch executed",)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Weights, good and bad."""
    root = tmp_path_factory.mktemp("world")
    checkpoint.save(root / "good.pth", model().state_dict())
    checkpoint.save(root / "lma.pth", model(*LMA).state_dict())
    checkpoint.save(root / "psp18.pth", model("--backbone", "psp18").state_dict())
    checkpoint.save(root / "seven.pth", model(classes=7).state_dict())
    (root / "cut.pth").write_bytes((root / "good.pth").read_bytes()[:50000])
    (root / "text.pth").write_text("no weights")
    torch.save({"run": ExecutesCode()}, root / "evil.pth")
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training of one epoch with a checkpoint every second step."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert call(*TRAIN, "--steps-save", "2", "--savedir", folder).returncode == 0
    return folder


# Weights

WEIGHTS = {
    "missing file": ("missing.pth", [], "no checkpoint"),
    "a folder without weights": (".", [], "no checkpoint in the folder"),
    "truncated": ("cut.pth", [], "damaged"),
    "not a checkpoint": ("text.pth", [], "is a text file, not the weights"),
    "pickled code": ("evil.pth", [], "could run code"),
    "another backbone": ("psp18.pth", [], "is it of another --backbone, --method or option?"),
    "another class count": ("seven.pth", [], "it has 8 outputs (classes), the model 12"),
    "another method, of more parts": (
        "lma.pth",
        [],
        "is it of another --backbone, --method or option?",
    ),
    "another method, of fewer parts": ("good.pth", LMA, "or of another --method"),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_wrong_weights_are_refused_before_anything_is_written(world, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    file, words, message = WEIGHTS[name]
    done = call(*EVALUATE, *words, "--weights", world / file, "--savedir", tmp_path / "save")
    assert_one_line(done, message, tmp_path / "save", tmp_path / "executed")


def test_the_exit_code_and_the_line_are_those_of_the_process(world, tmp_path):
    """All other rows call `main.main`."""
    words = [*EVALUATE, "--weights", world / "cut.pth", "--savedir", tmp_path / "save"]
    command = [sys.executable, ROOT / "main.py", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert_one_line(done, "cut.pth is damaged or no checkpoint", tmp_path / "save")


# Checkpoints to resume from


def copy(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    return target


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 20))]
)
def test_of_a_truncated_checkpoint_the_previous_one_is_used_and_named(tmp_path, trained, seed):
    folder = copy(trained, tmp_path / "run")
    newest = folder / CHECKPOINT
    data = newest.read_bytes()
    newest.write_bytes(data[: random.Random(seed).randrange(len(data))])
    done = call(*TRAIN, "--steps-save", "2", "--savedir", folder, "--resume")
    assert done.returncode == 0, done.stderr
    assert (
        f"{newest} is damaged or no checkpoint" in done.stderr
        and f"went on with {newest}.previous" in done.stderr
    )
    assert_same_training(trained, folder)


def test_of_a_checkpoint_that_holds_code_the_previous_one_is_used(tmp_path, trained, monkeypatch):
    folder = copy(trained, tmp_path / "run")
    torch.save({"run": ExecutesCode()}, folder / CHECKPOINT)
    monkeypatch.chdir(tmp_path)
    done = call(*TRAIN, "--steps-save", "2", "--savedir", folder, "--resume")
    assert (
        done.returncode == 0
        and "could run code" in done.stderr
        and not (tmp_path / "executed").exists()
    )


def test_without_any_whole_checkpoint_nothing_begins(tmp_path, trained):
    folder = copy(trained, tmp_path / "run")
    for name in (CHECKPOINT, f"{CHECKPOINT}.previous"):
        (folder / name).write_bytes(b"")
    assert_one_line(call(*TRAIN, "--savedir", folder, "--resume"), "no complete checkpoint")
    assert (folder / "automated_log.txt").read_text() == (trained / "automated_log.txt").read_text()


def test_a_damaged_list_of_finished_sources_is_named(tmp_path, world):
    Image.new("RGB", (48, 32)).save(tmp_path / "a.png")
    (tmp_path / "save").mkdir()
    (tmp_path / "save" / "inference_0_of_1.json").write_text('{"finished": [')
    done = call(
        "--inference",
        *SINGLE,
        "--device",
        "cpu",
        "--threads",
        "1",
        "--source",
        tmp_path / "a.png",
        "--weights",
        world / "good.pth",
        "--savedir",
        tmp_path / "save",
        "--resume",
    )
    assert_one_line(done, "inference_0_of_1.json is damaged: leave --resume out")


# Savedirs


def test_a_savedir_with_a_checkpoint_is_not_overwritten_unasked(tmp_path):
    (tmp_path / CHECKPOINT).write_bytes(b"precious")
    assert_one_line(call(*TRAIN, "--savedir", tmp_path), "--resume goes on from it")
    assert (tmp_path / CHECKPOINT).read_bytes() == b"precious"
    assert_one_line(
        call(*TRAIN, "--savedir", tmp_path / "new", "--resume"),
        "--resume: there is no",
        tmp_path / "new",
    )


def test_a_savedir_that_is_a_file_or_lies_below_one_is_told(tmp_path, world):
    (tmp_path / "file").write_text("mine")
    words = [*EVALUATE, "--weights", world / "good.pth", "--savedir"]
    assert_one_line(call(*words, tmp_path / "file"), "is a file")
    assert_one_line(call(*words, tmp_path / "file" / "below"), "cannot write into --savedir")
    assert (tmp_path / "file").read_text() == "mine"


@contextmanager
def mounted(*words):
    """A mount for the length of a test; skip where this user may not mount."""
    if (
        not shutil.which("mount")
        or subprocess.run(["mount", *map(str, words)], capture_output=True).returncode
    ):
        pytest.skip("mounting is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(words[-1])], check=True)


@pytest.mark.parametrize("job", ["training", "evaluation"])
def test_a_read_only_savedir_is_told(tmp_path, world, job):
    (tmp_path / "disk").mkdir()
    words = TRAIN if job == "training" else [*EVALUATE, "--weights", world / "good.pth"]
    with mounted("-t", "tmpfs", "-o", "ro", "none", tmp_path / "disk"):
        for folder in (tmp_path / "disk", tmp_path / "disk" / "new"):
            assert_one_line(
                call(*words, "--savedir", folder),
                f"cannot write into --savedir {folder}: Read-only",
            )


@pytest.mark.skipif(sys.platform != "linux", reason="/proc takes no folders, not even root's")
def test_a_savedir_that_may_not_be_written_is_told(world):
    done = call(*EVALUATE, "--weights", world / "good.pth", "--savedir", "/proc/streamseg")
    assert_one_line(done, "cannot write into --savedir /proc/streamseg")


# Disks that fill up or become read-only while a run goes on


@pytest.fixture
def refuse(monkeypatch):
    """A function: the disk now takes no file whose name holds `part`; None: it takes all."""
    sync = os.fsync

    def begin(part: str | None, number: int = 0) -> None:
        def refusing(descriptor):
            if part and part in os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")):
                raise OSError(number, os.strerror(number))
            sync(descriptor)

        monkeypatch.setattr(os, "fsync", refusing)

    return begin


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    "file, number",
    [
        (CHECKPOINT, errno.ENOSPC),
        ("model_best.pth", errno.EROFS),
        ("automated_log.txt", errno.ENOSPC),
        ("curves.png", errno.EROFS),
        ("args.txt", errno.ENOSPC),
    ],
)
def test_a_training_whose_file_finds_no_room_says_which_and_goes_on_later(
    tmp_path, trained, refuse, file, number
):
    refuse(file, number)
    words = [*TRAIN, "--steps-save", "2", "--savedir", tmp_path / "run"]
    assert_one_line(
        call(*words),
        f"{file} cannot be written ({os.strerror(number)})"
        if "pth" not in file
        else f"{file}: {os.strerror(number)}; is there space",
    )
    assert not list((tmp_path / "run").glob(".*"))
    refuse(None)
    begun = (tmp_path / "run" / CHECKPOINT).exists()
    assert begun == (file not in (CHECKPOINT, "args.txt", "automated_log.txt"))
    assert call(*words, *["--resume"] * begun).returncode == 0
    assert_same_training(trained, tmp_path / "run")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("file", ["results.json", "legend.png", "val_0000_000000.png"])
def test_an_evaluation_whose_file_finds_no_room_says_which(tmp_path, world, refuse, file):
    refuse(file, errno.ENOSPC)
    done = call(*EVALUATE, "--weights", world / "good.pth", "--savedir", tmp_path)
    assert_one_line(
        done, f"{file} cannot be written (No space left on device)", tmp_path / "results.txt"
    )
    assert not list(tmp_path.rglob(".*"))


def test_an_inference_whose_label_finds_no_room_says_which(tmp_path, world, monkeypatch):
    Image.fromarray(np.zeros((32, 48, 3), np.uint8)).save(tmp_path / "a.png")
    save = Image.Image.save

    def full(self, target, *args, **options):
        if "_labels" in str(target):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(self, target, *args, **options)

    monkeypatch.setattr(Image.Image, "save", full)
    done = call(
        "--inference",
        *SINGLE,
        "--device",
        "cpu",
        "--threads",
        "1",
        "--source",
        tmp_path / "a.png",
        "--output",
        "labels",
        "--weights",
        world / "good.pth",
        "--savedir",
        tmp_path / "save",
    )
    assert_one_line(done, "a_labels/a.png cannot be written (No space left on device)")


def test_a_limit_on_file_size_is_told_and_nothing_half_written_stays(tmp_path):
    """The kernel's own refusal, which stands for a quota."""
    run = Forked(
        tmp_path,
        *TRAIN,
        "--savedir",
        tmp_path / "s",
        first=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, 4_000_000)),
    )
    assert run.wait() == 2 and run.err.read_text().count("main.py: error: could not save") == 1
    assert not (tmp_path / "s" / CHECKPOINT).exists() and not list((tmp_path / "s").glob(".*"))


def test_a_full_disk_is_told_and_the_checkpoint_before_stays(tmp_path):
    """A real one; room for one checkpoint and a half."""
    (tmp_path / "disk").mkdir()
    size = sum(tensor.nbytes for tensor in model().state_dict().values())
    with mounted("-t", "tmpfs", "-o", f"size={int(4.5 * size)}", "none", tmp_path / "disk"):
        folder = tmp_path / "disk" / "run"
        assert_one_line(
            call(*TRAIN, "--steps-save", "2", "--savedir", folder), "No space left on device"
        )
        assert checkpoint.read(folder / CHECKPOINT)["progress"]["step"] == 2
        assert not list(folder.glob(".*"))


# Two runs in one savedir


def test_a_savedir_in_use_is_refused_until_its_run_is_gone_however_it_went(tmp_path, trained):
    words = [*TRAIN, "--steps-save", "2", "--num-workers", "1", "--savedir", tmp_path / "run"]
    first = Forked(tmp_path, *words, "--num-epochs", "500")
    while not (tmp_path / "run" / CHECKPOINT).exists():
        assert first.wait(0.05) is None, first.err.read_text()
    for more in (["--resume"], ["--overwrite"]):
        assert_one_line(call(*words, *more), f"is in use by another run (process {first.pid})")
    os.kill(first.pid, signal.SIGKILL)  # its loader workers live a little longer
    assert first.wait() == -signal.SIGKILL
    assert call(*words, "--overwrite").returncode == 0
    assert_same_training(trained, tmp_path / "run")


def test_of_two_runs_that_start_together_one_has_the_savedir(tmp_path):
    runs = [Forked(tmp_path, *TRAIN, "--savedir", tmp_path / "run", name=name) for name in "ab"]
    assert sorted(run.wait() for run in runs) == [0, 2]
    assert sorted(run.err.read_text().count("main.py: error: ") for run in runs) == [0, 1]
