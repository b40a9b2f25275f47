"""What an inference and a benchmark tell about key frames: a table, a strip, times apart."""

import csv
import json
import os

import numpy as np
import pytest
import torch

import main
from command import assert_one_line, call, perform
from keyed import keyed_method
from models import build_model
from options.keyframes import KEYS
from utils import checkpoint
from utils.keyframes import Decision
from utils.output.key_record import COLUMNS, KeyRecord
from utils.output.key_strip import CUT, FRAMES, KEY, OTHER, KeyStrip, text
from utils.output.video import VideoWriter, probe
from utils.run import savedir

SMALL = ["--method", "single", "--dataset", "synthetic", "--threads", "1", "--device", "cpu"]
KEY_FRAME = Decision(True, "interval of 2", {"cut": 0.0})
PROPAGATED = Decision(False, "1 of 2", {"cut": 0.125, "motion": 0.5})


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "toy.pth"
    with keyed_method():
        args = main.parse_args(["--training", *SMALL, "--savedir", "unused"])
        torch.manual_seed(1)
        checkpoint.save(path, build_model(args, 11).state_dict())
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Ten frames of 40 x 64: five of a dark scene, five of a bright one."""
    path = tmp_path_factory.mktemp("video") / "drive.mp4"
    rng = np.random.default_rng(0)
    # Blocks of two sizes: their borders lie elsewhere.
    dark = rng.integers(0, 90, (5, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    bright = rng.integers(160, 250, (8, 16, 3), np.uint8).repeat(5, 0).repeat(4, 1)
    with VideoWriter(path, 25) as writer:
        for scene in (dark, bright):
            for _ in range(5):
                writer.write(scene)
    return path


def labelled(weights, video, folder, *words) -> None:
    with keyed_method():
        perform(
            "--inference", *SMALL, "--weights", weights, "--source", video, "--savedir", folder,
            *words,
        )  # fmt: skip


def rows(path) -> list[dict]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_an_inference_records_every_frame_and_why(weights, video, tmp_path):
    labelled(weights, video, tmp_path, "--key-record", "--key-interval", "2")
    found = rows(tmp_path / "drive_keyframes.csv")
    assert list(found[0]) == list(COLUMNS)
    assert [row["frame"] for row in found] == [str(t) for t in range(10)]
    assert [row["key"] for row in found] == list("1001010010")
    whys = [row["why"] for row in found]
    assert whys[0] == "first frame" and whys[5] == "scene cut" and whys[6:8] == ["1 of 2", "2 of 2"]
    assert float(found[5]["numbers"].removeprefix("cut=")) > 0.35
    assert [float(row["time"]) for row in found] == pytest.approx([t / 25 for t in range(10)])
    assert all(float(row["milliseconds"]) > 0 for row in found)
    assert not list(tmp_path.glob("*.partial*"))


def test_without_the_word_nothing_is_recorded(weights, video, tmp_path):
    labelled(weights, video, tmp_path)
    assert not list(tmp_path.glob("*keyframes*"))


def test_the_strip_makes_the_overlay_higher_and_leaves_the_picture(weights, video, tmp_path):
    labelled(weights, video, tmp_path / "with", "--key-strip")
    labelled(weights, video, tmp_path / "without")
    high, low = (probe(tmp_path / kind / "drive_overlay.mp4") for kind in ("with", "without"))
    assert high["frames"] == low["frames"] == 10
    assert high["size"][0] > low["size"][0] == 40 and high["size"][1] == low["size"][1]


def test_what_is_recorded_is_an_output_of_the_inference(weights, video, tmp_path):
    labelled(weights, video, tmp_path, "--key-record")
    record = tmp_path / "drive_keyframes.csv"
    assert savedir.is_inference_output(tmp_path, record)
    (tmp_path / "mine.csv").write_text("not of the run")
    savedir.remove(tmp_path, "inference")
    assert not record.exists() and (tmp_path / "mine.csv").exists()


def test_a_benchmark_times_key_frames_and_others_apart(tmp_path):
    with keyed_method():
        done = perform(
            "--benchmark", *SMALL, "--savedir", tmp_path, "--work-size", "32", "64",
            "--max-frames", "16", "--key-interval", "1", "--scene-cut-threshold", "1",
        )  # fmt: skip
    stages = json.loads((tmp_path / "benchmark.json").read_text())["stages"]
    key, other, both = (stages[name] for name in ("network: key", "network: other", "network"))
    assert key["frames"] + other["frames"] == both["frames"] == 10
    assert key["mean_ms"] > other["mean_ms"] > 0
    shares = (key["frames"] * key["mean_ms"] + other["frames"] * other["mean_ms"]) / 10
    assert both["mean_ms"] == pytest.approx(shares)
    assert "ms of a key frame" in done.stdout and "on average" in done.stdout


# Options


def test_methods_without_key_frames_refuse_the_options(tmp_path):
    with keyed_method():
        for words in (["--key-interval", "3"], ["--key-policy", "motion"], ["--key-strip"]):
            done = call("--benchmark", "--method", "lma", "--savedir", tmp_path, *words)
            assert_one_line(
                done, f"{words[0]} acts with --method flow or single only, not with lma"
            )


def test_a_budget_without_a_number_is_refused(tmp_path):
    with keyed_method():
        done = call("--benchmark", *SMALL, "--savedir", tmp_path, "--key-policy", "budget")
    assert_one_line(done, "needs --key-budget")


@pytest.mark.parametrize(
    ("words", "idle"),
    [
        ("--key-policy motion --key-interval 3", ["--key-interval"]),
        ("--key-longest 3 --key-threshold 1", ["--key-longest", "--key-threshold"]),
        ("--key-policy budget --key-budget 9 --key-threshold 1", ["--key-threshold"]),
        ("--key-strip --output labels", ["--key-strip"]),
        ("--key-distances", ["--key-distances"]),
    ],
)
def test_options_that_change_nothing_are_named(words, idle):
    with keyed_method():
        args = main.parse_args(
            ["--inference", *SMALL, "--source", "x.mp4", "--savedir", "unused", *words.split()]
        )
    assert args.without_effect == idle


def test_weights_do_not_keep_the_schedule():
    with keyed_method():
        args = main.parse_args(["--training", *SMALL, "--savedir", "unused"])
    assert not {option.dest for option in KEYS.options} & set(args.network)
    assert "--key-interval" in args.resume_same, "it decides which epoch is the best"


# The files


def test_a_record_grows_row_by_row_and_gets_its_name_in_the_end(tmp_path):
    path = tmp_path / "a, b_keyframes.csv"
    record = KeyRecord(path)
    record.write('odd "name", 0', None, KEY_FRAME, 0.0125)
    record.write("1", 0.04, PROPAGATED, None)
    assert not path.exists()
    assert record.partial.read_text().count("\n") == 3, "whole rows, before it is closed"
    record.close()
    record.close()
    first, second = rows(path)
    assert first["name"] == 'odd "name", 0' and first["time"] == ""
    assert first["milliseconds"] == "12.500" and second["milliseconds"] == ""
    assert second["numbers"] == "cut=0.125 motion=0.5"
    assert os.listdir(tmp_path) == [path.name]


def test_a_name_that_is_no_utf8_is_written_as_it_is(tmp_path):
    record = KeyRecord(tmp_path / "x.csv")
    record.write(os.fsdecode(b"caf\xe9"), 0.0, KEY_FRAME, 0.1)
    record.close()
    assert b"caf\xe9" in (tmp_path / "x.csv").read_bytes()


def colours_of(strip: np.ndarray, column: int) -> set:
    return {tuple(pixel) for pixel in strip[:, column].tolist()}


@pytest.mark.parametrize("width", [64, 480, 2048])
def test_the_newest_frame_is_at_the_right_and_key_frames_are_tall(width):
    strip = KeyStrip()
    image = np.zeros((20, width, 3), np.uint8)
    for decision in (KEY_FRAME._replace(cut=True), PROPAGATED, KEY_FRAME):
        drawn = strip.below(image, decision)
    assert drawn.shape[1] == width and drawn.dtype == np.uint8 and (drawn[:20] == 0).all()
    tick = width / FRAMES
    middle = [int(width - (back + 0.5) * tick) for back in range(4)]
    if width >= FRAMES:
        band = drawn[20:]
        assert KEY in colours_of(band, middle[0]) and OTHER in colours_of(band, middle[1])
        assert CUT in colours_of(band, middle[2])
        assert not {KEY, OTHER, CUT} & colours_of(band, middle[3]), "no more frames came"
        heights = [(band == colour).all(2).sum(0).max() for colour in (KEY, OTHER)]
        assert heights[0] > 2 * heights[1] > 0
    # Where several frames share a column, a key frame among them is seen.
    assert KEY in colours_of(drawn[20:], width - 1) | colours_of(drawn[20:], width - 2)


def test_the_strip_keeps_its_height_and_the_last_frames_only():
    strip = KeyStrip()
    image = np.zeros((4, 240, 3), np.uint8)
    shapes = {strip.below(image, KEY_FRAME).shape for _ in range(3 * FRAMES)}
    assert len(shapes) == 1 and len(strip.past) == FRAMES


def test_the_strip_says_why():
    assert text(PROPAGATED) == "propagated: 1 of 2   cut 0.125  motion 0.5"
    assert text(Decision(True, "first frame")) == "key frame: first frame"
