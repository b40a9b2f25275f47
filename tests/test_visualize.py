"""--visualize, --explore and --replay from the command line, with a real visdom server and without
one."""

import json
import signal

import numpy as np
import pytest
from PIL import Image

from command import ROOT, TINY, TRAIN, call, perform, run, start, succeed
from visdom_server import VisdomServer, free_port, wait_for, windows_of
from watched import assert_curves, steps

LABEL = "--inference --dataset synthetic --backbone erf --device cpu --threads 1".split()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with VisdomServer(tmp_path_factory.mktemp("visdom")) as server:
        yield server


@pytest.fixture(scope="module")
def trained(server, tmp_path_factory):
    """A training that was watched, stopped and resumed."""
    folder = tmp_path_factory.mktemp("save") / "watched"
    watched = ["--backbone", "erf", "--visualize", "--port", server.port, "--savedir", folder]
    words = [*TRAIN, "--synthetic-length", "4", "--method", "lma", *watched]
    succeed(*words, "--num-epochs", "2")
    succeed(*words, "--resume")
    return folder


def test_a_resumed_training_shows_its_whole_log(server, trained):
    assert_curves(server.port, trained)
    shown = windows_of(server.port, "images watched")
    assert steps(shown["predictions"]) == [1, 2, 3] and {"inputs", "labels"} <= set(shown)


def test_an_evaluation_shows_what_is_in_its_results(server, trained, tmp_path):
    folder = tmp_path / "scored"
    perform(
        "--eval-mode",
        *TINY,
        "--method",
        "lma",
        "--backbone",
        "erf",
        "--weights",
        trained / "model_best.pth",
        "--visualize",
        "--port",
        server.port,
        "--savedir",
        folder,
    )
    results = json.loads((folder / "results.json").read_text())
    (trace,) = windows_of(server.port, "graphs scored")["iou_eval"]["content"]["data"]
    assert (trace["x"], trace["y"]) == (results["classes"], results["metrics"]["IoU"])
    assert len(windows_of(server.port, "images scored")["frames"]["content"]) == 8


def test_without_a_server_there_is_one_warning_and_a_replay_shows_it_later(server, tmp_path):
    port, folder = free_port(), tmp_path / "later"
    done = succeed(
        *TRAIN,
        "--synthetic-length",
        "4",
        "--method",
        "single",
        "--backbone",
        "erf",
        "--visualize",
        "--port",
        port,
        "--savedir",
        folder,
    )
    assert done.stderr.count("dashboard") == 1 and "refused" in done.stderr
    missed = run("--replay", folder, "--port", port)
    assert (
        missed.returncode == 2
        and "python -m visdom.server" in missed.stderr
        and missed.stderr.count("\n") == 1
    )
    assert "graphs later" in succeed("--replay", folder, "--port", server.port).stdout
    assert_curves(server.port, folder)
    assert steps(windows_of(server.port, "images later")["predictions"]) == [1, 2, 3]


def test_exploring_goes_on_until_ctrl_c(server, trained, tmp_path):
    for t in range(5):
        image = np.random.default_rng(t).integers(0, 256, (32, 64, 3)).astype(np.uint8)
        Image.fromarray(image).save(tmp_path / f"{t}.png")
    process = start(
        *LABEL,
        "--method",
        "lma",
        "--source",
        tmp_path,
        "--weights",
        trained / "model_best.pth",
        "--visualize",
        "--port",
        server.port,
        "--explore",
        "--savedir",
        tmp_path / "explored",
    )
    wait_for(lambda: len(windows_of(server.port, "attention explored")) == 4, 60)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "Ctrl-C" in out and "live" in windows_of(server.port, "images explored")


@pytest.mark.parametrize(
    "words, told",
    [
        (("--inference", "--source", "a", "--explore"), "--visualize"),
        (("--inference", "--source", "a", "b", "--explore", "--visualize"), "one --source"),
        (("--training", "--explore", "--visualize"), "--inference"),
    ],
)
def test_exploring_needs_an_inference_of_one_source_and_a_dashboard(words, told, tmp_path):
    done = call(*words, "--savedir", tmp_path)
    assert done.returncode == 2 and told in done.stderr and done.stderr.count("\n") == 1


def test_a_method_without_attention_cannot_be_explored(tmp_path):
    Image.new("RGB", (64, 32)).save(tmp_path / "frame.png")
    done = call(
        *LABEL,
        "--method",
        "single",
        "--source",
        tmp_path / "frame.png",
        "--visualize",
        "--explore",
        "--weights",
        ROOT / "trained_models" / "erfnet_synthetic.pth",
        "--savedir",
        tmp_path / "s",
    )
    assert done.returncode == 2 and "no attention" in done.stderr


def test_a_run_needs_a_savedir_and_a_replay_does_not(tmp_path):
    assert "--savedir is required" in call("--training").stderr
    assert "automated_log.txt" in call("--replay", tmp_path).stderr
