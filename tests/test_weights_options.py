"""Weights that say which network they are for: evaluation and inference need not be told again."""

from __future__ import annotations

import json

import pytest
import torch

import main
import options
from command import TINY, TRAIN, assert_one_line, call, perform, run
from utils import checkpoint
from utils.checkpoint import network_of

LMA = (
    "--method lma --dataset synthetic --fusion-strategy sigmoid-down1 --corr-size 5 "
    "--stm-queue-size 2 --no-local-correlation"
).split()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A savedir of a short training of an LMANet that no default describes."""
    folder = tmp_path_factory.mktemp("trained")
    words = [word for word in TRAIN if word not in ("--method", "single")]
    perform(*words, *LMA, "--num-epochs", "1", "--savedir", folder)
    return folder


@pytest.mark.parametrize("name", ["model_best.pth.tar", "checkpoint.pth.tar"])
def test_a_network_is_run_as_it_was_trained_without_a_word(trained, tmp_path, name):
    data = [word for word in TINY if word not in ("--method", "single", "--dataset", "synthetic")]
    done = run("--eval-mode", *data, "--weights", trained / name, "--savedir", tmp_path / "short")
    assert done.returncode == 0, done.stderr
    assert "the weights say --method lma" in done.stdout and "--no-local-correlation" in done.stdout
    words = ["--weights", trained / "model_best.pth", "--savedir", tmp_path / "long"]
    perform("--eval-mode", *TINY, *LMA, *words)
    short, long = (
        json.loads((tmp_path / name / "results.json").read_text()) for name in ("short", "long")
    )
    assert short["metrics"] == long["metrics"]
    one, two = (recipe_without_weights(tmp_path / name) for name in ("short", "long"))
    assert one == two and "--fusion-strategy sigmoid-down1" in one


def recipe_without_weights(folder) -> list[str]:
    lines = (folder / "args.txt").read_text().splitlines()
    return [line for line in lines if not line.startswith("--weights")]


def test_words_count_more_than_weights(trained):
    weights = network_of([str(trained / "model_best.pth.tar")])
    args = main.parse_args(["--eval-mode", "--savedir", "s", "--stm-queue-size", "4"], weights)
    assert (args.stm_queue_size, args.fusion_strategy, args.dataset) == (
        4,
        "sigmoid-down1",
        "synthetic",
    )
    other = main.parse_args(["--eval-mode", "--savedir", "s", "--method", "single"], weights)
    assert other.method == "single" and other.dataset == "synthetic"


def test_only_jobs_that_run_weights_ask_them():
    words = ["--weights", "a", "b", "--savedir", "s"]
    assert options.weights_to_run(["--eval-mode", *words]) == ["a", "b"]
    assert options.weights_to_run([*words, "--inference", "--source", "x.mp4", "0"]) == ["a", "b"]
    assert options.weights_to_run(["--training", *words]) == []
    assert options.weights_to_run(["--help"]) == []


def test_a_recipe_may_name_the_weights(tmp_path):
    recipe = tmp_path / "r.txt"
    recipe.write_text("--benchmark --weights w.pth  # those\n")
    assert options.weights_to_run([f"@{recipe}", "--savedir", "s"]) == ["w.pth"]


def test_what_weights_say_is_what_a_run_with_the_same_words_would_say():
    for words in (
        LMA,
        ["--method", "single", "--backbone", "psp18"],
        ["--shallow-dec", "--learnable-constant"],
        ["--dataset", "camvid", "--void-class"],
        ["--baseline-mode"],
    ):
        args = main.parse_args(["--eval-mode", "--savedir", "s", *words])
        assert (
            main.parse_args(["--eval-mode", "--savedir", "s"], args.network).network == args.network
        )


@pytest.mark.parametrize(
    "network, message",
    [
        ({"backbone": "@secrets"}, "--backbone cannot be '@secrets'"),
        ({"corr_size": "7 --overwrite"}, "--corr-size cannot be '7 --overwrite'"),
        ({"corr_size": 8}, "--corr-size cannot be 8"),
        ({"method": ["lma"]}, "--method cannot be ['lma']"),
        ({"memorize_first": 1}, "--memorize-first is on or off, not 1"),
    ],
)
def test_a_file_that_says_what_cannot_be_gets_one_line(tmp_path, network, message):
    path = tmp_path / "evil.pth"
    checkpoint.save(path, {"state_dict": {"x": torch.zeros(1)}, "network": network})
    done = call("--eval-mode", "--weights", path, "--savedir", tmp_path / "s")
    expected = f"what the weights say of their network cannot be: {message}"
    assert_one_line(done, expected, tmp_path / "s")


def test_a_file_of_strangers_sets_nothing_but_the_network():
    """Not where the run writes, nor what is downloaded, started or removed."""
    evil = {"savedir": "elsewhere", "overwrite": True, "gpus": 8, "weights": ["x"], "bogus": 1.5}
    run = ["--eval-mode", "--savedir", "s"]
    assert vars(main.parse_args(run, evil)) == vars(main.parse_args(run))


@pytest.mark.parametrize("network", [["--method", "lma"], "lma", None, 3.5])
def test_what_is_no_table_of_options_says_nothing(tmp_path, network):
    path = tmp_path / "odd.pth"
    checkpoint.save(path, {"state_dict": {"x": torch.zeros(1)}, "network": network})
    assert network_of([str(path)]) == {}


def test_files_that_say_nothing_change_nothing(tmp_path):
    (tmp_path / "broken.pth").write_bytes(b"no torch file")
    checkpoint.save(tmp_path / "bare.pth", {"x": torch.zeros(1)})
    checkpoint.save(tmp_path / "first.pth", {"network": {"method": "single", "backbone": "psp18"}})
    checkpoint.save(tmp_path / "second.pth", {"network": {"backbone": "psp50"}})
    files = [
        str(tmp_path / f"{name}.pth") for name in ("missing", "broken", "bare", "first", "second")
    ]
    assert network_of(files[:3]) == {}
    assert network_of(files) == {"method": "single", "backbone": "psp50"}
