"""Options and surroundings with which nothing can begin: one line, and nothing is written.

The table is in test_faults.py.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import main
from command import ROOT, TINY, assert_one_line, call
from models import build_model
from utils import checkpoint
from utils.run.errors import USER_ERRORS, one_line

SETTINGS = {
    "no data root": (["--method", "single", "--dataset", "camvid"], "--data-root"),
    "data root is no folder": (
        ["--method", "single", "--dataset", "camvid", "--data-root", "/nowhere/camvid"],
        "/nowhere/camvid",
    ),
    "no classes.txt": (
        ["--method", "single", "--dataset", "folder", "--data-root", "."],
        "classes.txt",
    ),
    "no GPU": (["--device", "cuda"], "--device cuda"),
    "fp16 on a CPU": (["--precision", "fp16", "--device", "cpu"], "--precision fp16 needs a GPU"),
    "tf32 on a CPU": (["--precision", "tf32", "--device", "cpu"], "--precision tf32 needs a GPU"),
}
if torch.cuda.is_available():
    del SETTINGS["no GPU"]


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_that_cannot_work_is_told(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    words, message = SETTINGS[name]
    model = build_model(
        main.parse_args(["--training", "--method", "single", "--savedir", "unused"]), 11
    )
    checkpoint.save(tmp_path / "w.pth", model.state_dict())
    done = call("--eval-mode", *words, "--weights", "w.pth", "--savedir", tmp_path / "save")
    assert_one_line(done, message, tmp_path / "save")


@pytest.mark.parametrize("job", ["--eval-mode", "--inference"])
def test_a_job_without_weights_or_source_says_which_option_is_missing(tmp_path, job):
    assert_one_line(
        call(job, "--savedir", tmp_path / "s"),
        "--source" if job == "--inference" else "--weights",
        tmp_path / "s",
    )


def test_a_batch_larger_than_the_data_set_is_told(tmp_path):
    done = call("--training", *TINY, "--batch-size", "99", "--savedir", tmp_path / "s")
    assert_one_line(done, "lower --batch-size", tmp_path / "s")


def test_a_foreign_package_named_datasets_is_noticed(tmp_path):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").write_text("")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.path.insert(0, sys.argv.pop(1)); import datasets; "
            "sys.path.insert(0, '.'); import main; sys.exit(main.main())",
            str(tmp_path),
            "--eval-mode",
            "--weights",
            "trained_models/erfnet_synthetic.pth",
            "--savedir",
            "s",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert_one_line(done, "is hidden by")


@pytest.mark.parametrize(
    "words, said",
    [
        (["--num-workers", "100000"], "256 at most"),
        (["--num-workers", "9" * 20], "256 at most"),
        (["--stm-queue-size", "9" * 20], "below 2^31"),
        (["--batch-size", "9" * 20], "below 2^31"),
    ],
)
def test_numbers_beyond_any_machine_are_refused(tmp_path, words, said):
    assert_one_line(call("--training", *words, "--savedir", tmp_path / "s"), said, tmp_path / "s")


def test_memory_that_does_not_suffice_is_one_line():
    assert "not enough memory for this (MemoryError): choose smaller sizes" in one_line(
        MemoryError()
    )
    assert MemoryError in USER_ERRORS and OverflowError in USER_ERRORS
