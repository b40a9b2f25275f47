"""What goes wrong at a user's: one line that says what came and what to do, exit code 2, nothing half-written."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import main
from command import ROOT, TINY, run
from models import build_model
from trees import make_camvid
from utils import checkpoint


def model(*words, classes: int = 11):
    return build_model(main.parse_args(["--training", "--method", "single", "--savedir", "unused", *words]), classes)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Good weights and a good tiny CamVid tree; tests copy and break them."""
    root = tmp_path_factory.mktemp("world")
    checkpoint.save(root / "good.pth", model().state_dict())
    checkpoint.save(root / "psp18.pth", model("--backbone", "psp18").state_dict())
    checkpoint.save(root / "seven.pth", model(classes=7).state_dict())
    (root / "cut.pth").write_bytes((root / "good.pth").read_bytes()[:50000])
    (root / "text.pth").write_text("no weights")
    torch.save({"run": ExecutesCode()}, root / "evil.pth")
    make_camvid(root / "camvid")
    return root


class ExecutesCode:
    def __reduce__(self):
        return os.system, ("touch executed",)


def camvid(world, tmp_path, break_it):
    """--data-root of a copy of the tree in which something is broken."""
    root = tmp_path / "camvid"
    shutil.copytree(world / "camvid", root)
    break_it(root)
    return ["--method", "single", "--dataset", "camvid", "--data-root", root, "--device", "cpu", "--num-workers", "1"]


def replace(path: str, content):
    """A breaker of one file: bytes, an array that becomes an image, or None to delete it."""
    def break_it(root):
        if content is None:
            (root / path).unlink()
        elif isinstance(content, bytes):
            (root / path).write_bytes(content)
        elif isinstance(content, str):
            (root / path).write_bytes((root / path).read_bytes()[:300])
        else:
            Image.fromarray(content).save(root / path)
    return break_it


WRONG_SIZE = np.zeros((20, 32), np.uint8)
WRONG_ID = np.full((24, 32), 77, np.uint8)
COLOUR = np.zeros((24, 32, 3), np.uint8)
DATA = {
    "truncated image": (replace("val/0001TP_000060.png", "truncate"), "0001TP_000060.png"),
    "empty image": (replace("val/0001TP_000060.png", b""), "0001TP_000060.png"),
    "label of another size": (replace("valannot/0001TP_000060.png", WRONG_SIZE), "20"),
    "label id out of range": (replace("valannot/0001TP_000060.png", WRONG_ID), "77"),
    "label in colours": (replace("valannot/0001TP_000060.png", COLOUR), "0001TP_000060.png"),
    "label missing": (replace("valannot/0001TP_000060.png", None), "0001TP_000060"),
    "image missing": (replace("val/0001TP_000060.png", None), "0001TP_000060"),
    "split missing": (lambda root: shutil.rmtree(root / "valannot"), "--data-root"),
    "no frames": (lambda root: [path.unlink() for path in (root / "valannot").iterdir()], "val"),
}
WEIGHTS = {
    "missing file": ("missing.pth", "no checkpoint"),
    "a folder": (".", "a folder"),
    "truncated": ("cut.pth", "damaged"),
    "not a checkpoint": ("text.pth", "no checkpoint"),
    "pickled code": ("evil.pth", "could run code"),
    "another backbone": ("psp18.pth", "--backbone"),
    "another class count": ("seven.pth", "classes"),
}
WORDS = {
    "no data root": (["--method", "single", "--dataset", "camvid"], "--data-root"),
    "data root is no folder": (["--method", "single", "--dataset", "camvid", "--data-root", "/nowhere/camvid"],
                               "/nowhere/camvid"),
    "no classes.txt": (["--method", "single", "--dataset", "folder", "--data-root", "."], "classes.txt"),
    "no GPU": (["--device", "cuda"], "--device cuda"),
    "fp16 on a CPU": (["--precision", "fp16", "--device", "cpu"], "needs a GPU"),
}
if torch.cuda.is_available():
    del WORDS["no GPU"]


def assert_one_line(done, message: str, *absent) -> None:
    assert done.returncode == 2, f"exit code {done.returncode}: {done.stderr[-2000:]}"
    lines = [line for line in done.stderr.replace("\r", "\n").splitlines() if "main.py: error:" in line]
    assert len(lines) == 1 and message in lines[0], done.stderr
    assert "Traceback" not in done.stderr
    assert not [path for path in absent if path.exists()], "nothing is half-written"


@pytest.mark.parametrize("name", DATA)
def test_broken_data_is_named_in_one_line(world, tmp_path, name):
    break_it, message = DATA[name]
    done = run("--eval-mode", *camvid(world, tmp_path, break_it), "--weights", world / "good.pth", "--savedir",
               tmp_path / "save")
    assert_one_line(done, message, tmp_path / "save" / "results.json")


@pytest.mark.parametrize("name", WEIGHTS)
def test_wrong_weights_are_refused_before_anything_is_written(world, tmp_path, name):
    file, message = WEIGHTS[name]
    done = run("--eval-mode", *TINY, "--weights", world / file, "--savedir", tmp_path / "save", cwd=tmp_path)
    assert_one_line(done, message, tmp_path / "save", tmp_path / "executed")


@pytest.mark.parametrize("name", WORDS)
def test_a_setting_that_cannot_work_is_told(world, tmp_path, name):
    words, message = WORDS[name]
    done = run("--eval-mode", *words, "--weights", world / "good.pth", "--savedir", tmp_path / "save", cwd=tmp_path)
    assert_one_line(done, message, tmp_path / "save")


@pytest.mark.parametrize("job", ["--eval-mode", "--inference"])
def test_a_job_without_weights_or_source_says_which_option_is_missing(tmp_path, job):
    assert_one_line(run(job, "--savedir", tmp_path / "s"), "--source" if job == "--inference" else "--weights",
                    tmp_path / "s")


def test_training_data_broken_in_a_worker_is_named_in_one_line(world, tmp_path):
    broken = camvid(world, tmp_path, replace("train/0001TP_000090.png", "truncate"))
    done = run("--training", *broken, "--batch-size", "2", "--num-epochs", "1", "--savedir", tmp_path / "save")
    assert_one_line(done, "0001TP_000090.png", tmp_path / "save" / "checkpoint.pth.tar")


def test_a_missing_validation_split_is_told_before_training(world, tmp_path):
    broken = camvid(world, tmp_path, lambda root: shutil.rmtree(root / "valannot"))
    done = run("--training", *broken, "--batch-size", "2", "--iouVal", "--savedir", tmp_path / "save")
    assert_one_line(done, "--data-root", tmp_path / "save")


def test_a_savedir_with_a_checkpoint_is_not_overwritten_unasked(tmp_path):
    (tmp_path / "checkpoint.pth.tar").write_bytes(b"precious")
    assert_one_line(run("--training", *TINY, "--savedir", tmp_path), "--resume goes on from it")
    assert (tmp_path / "checkpoint.pth.tar").read_bytes() == b"precious"
    assert_one_line(run("--training", *TINY, "--savedir", tmp_path / "new", "--resume"), "--resume: there is no",
                    tmp_path / "new")


def test_a_savedir_that_is_a_file_is_told(tmp_path, world):
    (tmp_path / "file").write_text("mine")
    done = run("--eval-mode", *TINY, "--weights", world / "good.pth", "--savedir", tmp_path / "file")
    assert_one_line(done, "is a file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_batch_larger_than_the_data_set_is_told(tmp_path):
    assert_one_line(run("--training", *TINY, "--batch-size", "99", "--savedir", tmp_path / "s"), "--batch-size",
                    tmp_path / "s")


def test_a_loss_that_is_not_finite_stops_with_all_terms_and_keeps_the_last_good_state(tmp_path):
    words = ["--training", *TINY, "--batch-size", "2", "--num-epochs", "9", "--steps-save", "1", "--savedir", tmp_path]
    done = run(*words, "--optimizer", "sgd", "--momentum", "0", "--lr-start", "1e30", "--lr-strategy", "constant")
    assert_one_line(done, "the loss is not finite in epoch 1")
    assert "ce " in done.stderr and "lower --lr-start" in done.stderr
    assert checkpoint.read(tmp_path / "checkpoint.pth.tar")["progress"]["step"] >= 1


def test_a_full_disk_is_told_and_the_last_checkpoint_stays(tmp_path):
    """A file-size limit stands for the full disk: the same error reaches the same place."""
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, 4_000_000)); import signal; " \
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); sys.argv = sys.argv[1:]; import main; sys.exit(main.main())"
    words = ["--training", *TINY, "--batch-size", "2", "--num-epochs", "1", "--savedir", str(tmp_path / "s")]
    done = subprocess.run([sys.executable, "-c", limit, "main.py", *words], cwd=ROOT, capture_output=True, text=True)
    assert_one_line(done, "could not save", tmp_path / "s" / "checkpoint.pth.tar")
    assert not list((tmp_path / "s").glob(".checkpoint*"))


@pytest.mark.skipif(sys.platform != "linux", reason="/proc takes no folders, not even root's")
def test_a_savedir_that_may_not_be_written_is_told(world):
    done = run("--eval-mode", *TINY, "--weights", world / "good.pth", "--savedir", "/proc/streamseg")
    assert_one_line(done, "cannot write into --savedir /proc/streamseg")


def test_a_foreign_package_named_datasets_is_noticed(tmp_path):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").write_text("")
    done = subprocess.run([sys.executable, "-c", "import sys; sys.path.insert(0, sys.argv.pop(1)); import datasets; "
                           "sys.path.insert(0, '.'); import main; sys.exit(main.main())", str(tmp_path),
                           "--eval-mode", "--weights", "w", "--savedir", "s"], cwd=ROOT, capture_output=True, text=True)
    assert_one_line(done, "is hidden by")
