"""Weights that come with the tool: their names, their files, and which is used by default."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import main
import options
from command import ROOT, assert_one_line, call, perform
from models import build_model
from options.shipped import DEFAULT, FOLDER, SHIPPED
from utils import checkpoint

LARGEST = 60e6  # bytes of all files together
ON_CPU = ["--threads", "1", "--device", "cpu"]


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "street.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)).save(path)
    return path


@pytest.mark.parametrize("name", SHIPPED)
def test_a_file_says_its_network_and_fills_it(name):
    path = SHIPPED[name].path
    words = ["--inference", "--source", "x", "--weights", name, "--savedir", "unused"]
    args = main.parse_args(words, main.network_of_weights(words))
    assert args.weights == [path]
    classes = checkpoint.classes_of([checkpoint.read(Path(path))])
    report = checkpoint.load_weights(build_model(args, len(classes)), path, complete=True)
    assert report.classes == classes and not report.new and not report.unused


def test_all_files_of_the_folder_are_told_of_and_small():
    files = {path.name for path in FOLDER.glob("*.pth")}
    shipped = {ours.file for ours in SHIPPED.values()}
    assert shipped <= files
    assert sum((FOLDER / name).stat().st_size for name in shipped) < LARGEST
    for page in (FOLDER / "README.md", ROOT / "docs" / "weights.md"):
        text = page.read_text()
        assert all(f"`{ours.file}`" in text for ours in SHIPPED.values()), page


def test_a_file_that_has_the_name_of_weights_is_named_with_its_folder():
    args = main.parse_args(["--eval-mode", "--weights", "./synthetic", "--savedir", "s"])
    assert args.weights == ["./synthetic"]


def test_a_video_is_labelled_without_a_word_about_weights_and_their_terms_are_told(
    picture, tmp_path
):
    done = perform("--inference", "--source", picture, *ON_CPU, "--savedir", tmp_path / "run")
    ours = SHIPPED[DEFAULT]
    assert f"no --weights: {DEFAULT}, {ours.what}; {ours.terms}" in done.stdout
    assert (tmp_path / "run" / "street_overlay.png").is_file()
    assert ours.file in (tmp_path / "run" / "args.txt").read_text()


def test_who_names_a_backbone_is_asked_for_its_weights(picture, tmp_path):
    words = ["--inference", "--source", picture, "--backbone", "erf", *ON_CPU]
    done = call(*words, "--savedir", tmp_path / "run")
    assert_one_line(done, "--inference needs --weights", tmp_path / "run")
    assert options.weights_to_run([str(word) for word in words]) == []


def test_an_evaluation_takes_no_weights_that_nobody_has_named(tmp_path):
    done = call("--eval-mode", "--dataset", "synthetic", *ON_CPU, "--savedir", tmp_path / "run")
    assert_one_line(done, "--eval-mode needs --weights", tmp_path / "run")
