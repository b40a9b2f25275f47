"""How runs end and what they say: closed consoles, schedulers, finished folders, bugs of ours."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import main
import options
from command import ROOT, SINGLE, TINY, assert_one_line, call, perform, start
from jobs.work_size import size_warnings
from models import build_model
from models.deploy.compilation import compile_backbone
from trees import make_camvid
from utils.output.evaluation import EvaluationOutput
from utils.output.pictures import without_ignore
from utils.run import errors

SMALL = [*SINGLE, "--threads", "1", "--device", "cpu"]


def frames_in(folder, count: int = 3):
    folder.mkdir()
    for i in range(count):
        Image.fromarray(np.full((32, 48, 3), 60 * i, np.uint8)).save(folder / f"{i}.png")
    return folder


def test_a_listing_that_head_cuts_ends_quietly(tmp_path):
    root = make_camvid(tmp_path / "camvid")
    words = f"--needed-frames --dataset camvid --data-root {root} --val-split train"
    # The reader closes its end before the first line is written.
    command = f"{sys.executable} main.py {words} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (0, 141) and done.stderr == ""


def test_a_run_goes_on_without_its_console(tmp_path, weights):
    words = ["--inference", *SMALL, "--source", frames_in(tmp_path / "in"), "--weights", weights]
    words = " ".join(map(str, [*words, "--output", "labels", "--savedir", tmp_path / "out"]))
    command = f"{sys.executable} main.py {words} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr and "Logging error" not in done.stderr
    assert len(list((tmp_path / "out" / "in_labels").glob("*.png"))) == 3


def test_a_scheduler_that_sets_a_rank_for_every_job_does_no_harm(tmp_path, weights, monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    words = ["--eval-mode", *TINY, "--weights", weights, "--savedir", tmp_path / "one"]
    process = start(*words)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert_one_line(call(*words), "WORLD_SIZE=2 but no MASTER_ADDR")


def finished(tmp_path, weights, *more):
    return call("--eval-mode", *TINY, "--weights", weights, "--savedir", tmp_path / "e", *more)


def test_a_finished_evaluation_is_not_overwritten_in_silence(tmp_path, weights):
    assert finished(tmp_path, weights, "--save-labels").returncode == 0
    results = (tmp_path / "e" / "results.json").read_bytes()
    assert_one_line(finished(tmp_path, weights), "holds a finished evaluation: --resume")
    assert (tmp_path / "e" / "results.json").read_bytes() == results
    assert finished(tmp_path, weights, "--overwrite", "--pictures", "0").returncode == 0
    assert not (tmp_path / "e" / "labels").exists(), "what belongs to the older run goes with it"
    assert not (tmp_path / "e" / "pictures").exists()


def test_a_bug_of_ours_keeps_its_place_and_a_mistake_of_the_users_has_none():
    with pytest.raises(ValueError) as bug:
        without_ignore(np.zeros((2, 3), np.uint8), np.zeros((4, 5)))
    assert "(unexpected, at utils/output/pictures.py:" in errors.one_line(bug.value)
    with pytest.raises(ValueError) as mistake:
        errors_of_the_user()
    assert "unexpected" not in errors.one_line(mistake.value)
    with pytest.raises(FileNotFoundError) as missing:
        open("/there/is/no/such/file")
    assert "unexpected" not in errors.one_line(missing.value)


def errors_of_the_user():
    from datasets.labels import default_palette

    default_palette(1000)


def test_passwords_of_streams_are_written_nowhere(tmp_path):
    words = "--inference --savedir s --weights w --source rtsp://me:secret@host/a?b=1 x.mp4".split()
    args = main.parse_args(words)
    assert args.source[0] == "rtsp://me:secret@host/a?b=1", "what runs has it"
    assert "secret" not in options.recipe(args) and "rtsp://host/a?b=1" in options.recipe(args)
    assert "secret" not in str(options.values(args))


def test_an_ignored_pixel_is_255_in_a_label_image(tmp_path):
    class Labelled:
        name = "video/frame"
        frame = torch.zeros(3, 4, 6)
        prediction = torch.tensor([[0, 1, 2, 2, 1, 0]] * 4, dtype=torch.uint8)
        labels = torch.zeros(4, 6, dtype=torch.int64)

    palette = ((1, 2, 3), (4, 5, 6))
    with EvaluationOutput(tmp_path, ("a", "b"), palette, frames=1, labels=True) as output:
        output(Labelled())
    written = np.asarray(Image.open(tmp_path / "labels" / "video" / "frame.png"))
    assert written.tolist() == [[0, 1, 255, 255, 1, 0]] * 4


@pytest.mark.parametrize(
    "words, said",
    [
        ("--work-size 64 32", "did you mean --work-size 32 64?"),
        ("--eval-crop 40 64", "--eval-crop 40 64 is larger than the frames, 32x64"),
        ("--work-size 16 32 --eval-crop 20 20", "--eval-crop 20 20 is larger than the frames"),
        ("--work-size 16 32", None),
        ("--work-size 48 48", None),
        ("--eval-crop 32 64", None),
    ],
)
def test_sizes_that_are_odd_are_told(words, said):
    args = main.parse_args(["--eval-mode", *SINGLE, "--savedir", "s", *words.split()])
    found = size_warnings(args, 32, 64)
    assert found == [] if said is None else said in found[0]


def test_the_bar_tells_the_loss_and_the_end_says_what_comes_next(tmp_path):
    done = perform("--training", *TINY, "--num-epochs", "2", "--savedir", tmp_path / "t")
    assert "next: python main.py --eval-mode --weights" in done.stdout
    assert "epoch" in done.stdout and "is the best, with mIoU" in done.stdout
    log = (tmp_path / "t" / "automated_log.txt").read_text().splitlines()[1].split("\t\t")
    assert log[3] == "nan", "the mIoU of the training split was not measured"


def test_compilation_takes_the_decoder_of_a_method_too():
    args = main.parse_args("--training --method tma --backbone psp18 --savedir s".split())
    model = build_model(args, 5)
    compile_backbone(model)
    assert model.decoder._compiled_call_impl is not None


def test_a_pipe_is_read_once_by_a_benchmark(tmp_path):
    ppm = b"P6 64 32 255\n" + os.urandom(64 * 32 * 3)
    command = [sys.executable, "main.py", "--benchmark", *SMALL, "--source", "-"]
    command += ["--max-frames", "8", "--savedir", str(tmp_path / "b")]
    done = subprocess.run(command, cwd=ROOT, input=12 * ppm, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "b" / "benchmark.json").is_file()


def test_a_missing_weights_file_is_said_before_anything_else(tmp_path):
    words = ["--eval-mode", "--weights", tmp_path / "none.pth", "--bogus", "--method", "singel"]
    assert_one_line(call(*words), f"there is no checkpoint at {tmp_path / 'none.pth'}")
    assert call(*words, "--help").returncode == 0
