"""The five commands of LMANet's README run as they stand, on a tiny tree of the Cityscapes layout.

Words that make them small are added: frames of 64x128 and one epoch. Six GPUs are two ranks.
"""

from __future__ import annotations

import json
import shlex

import pytest
import torch

import main
from command import succeed, succeed_as_ranks
from models import build_model
from trees import make_cityscapes
from utils import checkpoint, log
from visdom_server import free_port

COMMANDS = {
    "eval_lma_erf": (
        "--eval-mode --weights trained_models/lmanet_erf_best.pth --backbone erf --corr-size 21 "
        "--stm-queue-size 4 --savedir save/eval_lma_erf"
    ),
    "eval_lma_psp101": (
        "--eval-mode --weights trained_models/lmanet_psp101_best.pth --backbone psp101 "
        "--corr-size 21 --stm-queue-size 3 --fusion-strategy sigmoid-down1 "
        "--savedir save/eval_lma_psp101"
    ),
    "training_lma_erf": (
        "--weights trained_models/erfnet_pretrained.pth --backbone erf --training --gpus 2 "
        "--lr-start 2e-4 --lr-strategy plateau_08 --num-epochs 50 --batch-size 5 --corr-size 21 "
        "--stm-queue-size 3 --fusion-strategy sigmoid-do1 --memory-strategy all "
        "--savedir save/training_lma_erf"
    ),
    "training_lma_psp101": (
        "--weights trained_models/pspnet101/model/train_epoch_200.pth --backbone psp101 "
        "--training --gpus 6 --lr-start 2e-4 --lr-strategy plateau_08 --num-epochs 50 "
        "--batch-size 1 --corr-size 21 --stm-queue-size 3 --fusion-strategy sigmoid-down1 "
        "--memory-strategy all --savedir save/training_lma_psp101"
    ),
    "visualized": (
        "--eval-mode --weights trained_models/lmanet_erf_best.pth --backbone erf --corr-size 21 "
        "--stm-queue-size 4 --savedir save/eval_lma_erf --visualize --overwrite"
    ),
}
SMALL = "--device cpu --threads 1 --num-workers 1 --num-epochs 1 --no-iouTrain".split()
SIZES = {"erf": ["--work-size", "64", "128"], "psp101": ["--work-size", "65", "129"]}
WEIGHTS = {
    "training_lma_erf": "trained_models/erfnet_pretrained.pth",
    "training_lma_psp101": "trained_models/pspnet101/model/train_epoch_200.pth",
}


def published(backbone: str, method: str = "lma") -> dict[str, torch.Tensor]:
    """Random weights under the names of the published files."""
    torch.manual_seed(0)
    args = main.parse_args(
        ["--training", "--backbone", backbone, "--method", method, "--savedir", "unused"]
    )
    model = build_model(args, 19)
    renamed = {"lma": model.key_maps()[-1], "single": model.key_maps()[0]}[method]
    state, named = model.state_dict(), {}
    for key, value in state.items():
        name = key.removeprefix("backbone.")
        if method == "lma" and backbone == "psp101":
            if name.startswith("aux."):
                continue
            room = (
                "encoder."
                if name.startswith("layer")
                else "decoder."
                if name.startswith("cls")
                else ""
            )
            name = room + name
        named[f"module.{name}"] = value
    assert not renamed.rename(key.removeprefix("module.") for key in named).unexpected
    return named


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with Cityscapes and the published files in it."""
    place = tmp_path_factory.mktemp("lmanet")
    # One clip to each city of the training part: one step, of two ranks with 1 or 5 clips each.
    for backbone, clips in (("psp101", 2), ("erf", 10)):
        root = place / f"cityscapes_{backbone}"
        cities = tuple(f"city{chr(97 + i)}" for i in range(clips))
        make_cityscapes(root, numbers=range(15, 20), splits=("train",), cities=cities)
        make_cityscapes(root, numbers=range(15, 20), splits=("val",))
    weights = place / "trained_models"
    (weights / "pspnet101" / "model").mkdir(parents=True)
    torch.save(published("erf"), weights / "lmanet_erf_best.pth")
    torch.save(published("psp101"), weights / "lmanet_psp101_best.pth")
    torch.save(published("erf", "single"), weights / "erfnet_pretrained.pth")
    torch.save(
        {"epoch": 200, "state_dict": published("psp101", "single")},
        weights / "pspnet101" / "model" / "train_epoch_200.pth",
    )
    return place


def run(place, monkeypatch, name: str):
    words = shlex.split(COMMANDS[name])
    backbone = words[words.index("--backbone") + 1]
    monkeypatch.setenv("STREAMSEG_CITYSCAPES", str(place / f"cityscapes_{backbone}"))
    words += SIZES[backbone]
    if "--training" not in words:
        return succeed(*words, *SMALL[:6], cwd=place)
    if backbone == "erf":
        return succeed(*words, *SMALL, cwd=place)
    return succeed_as_ranks(*words, *SMALL, "--gpus", "2", cwd=place)


def test_defaults_are_those_of_the_original():
    args = main.parse_args(shlex.split(COMMANDS["eval_lma_erf"]))
    assert (args.method, args.dataset, args.work_size) == ("lma", "cityscapes", (512, 1024))
    assert args.offsets == (-4, -3, -2, -1)
    args = main.parse_args(shlex.split(COMMANDS["training_lma_psp101"]))
    assert args.work_size == (1025, 2049) and not (args.train_encoder or args.train_decoder)
    assert (args.class_weights, args.optimizer, args.weight_decay, args.random_shift) == (
        "lma",
        "adam",
        1e-4,
        2,
    )


@pytest.mark.parametrize("name, entries", [("eval_lma_erf", 374), ("eval_lma_psp101", 690)])
def test_evaluation(place, monkeypatch, name, entries):
    done = run(place, monkeypatch, name)
    assert f"loaded {entries} of " in done.stderr + done.stdout
    results = json.loads((place / "save" / name / "results.json").read_text())
    assert (
        results["frames"] == 2
        and 0 <= results["metrics"]["mIoU"] <= 1
        and len(results["metrics"]["IoU"]) == 19
    )


@pytest.mark.parametrize("name, kept", [("training_lma_erf", 343), ("training_lma_psp101", 676)])
def test_training_starts_from_the_single_frame_network_and_trains_the_memory_alone(
    place, monkeypatch, name, kept
):
    done = run(place, monkeypatch, name)
    assert f"loaded {kept} of " in done.stderr + done.stdout
    folder = place / "save" / name
    assert len(log.read(folder / "automated_log.txt")) == 1 and (folder / "lma.py").exists()
    trained = (
        checkpoint.read(folder / "model_best.pth")
        if (folder / "model_best.pth").exists()
        else checkpoint.read(folder / "checkpoint.pth.tar")["state_dict"]
    )
    start = torch.load(place / WEIGHTS[name], weights_only=True)
    start = start.get("state_dict", start)
    same = [
        key
        for key, value in start.items()
        if value.ndim == 4
        and torch.equal(value, trained["backbone." + key.removeprefix("module.")])
    ]
    assert len(same) == sum(value.ndim == 4 for value in start.values()), (
        "no convolution of the backbone has moved"
    )


def test_the_same_with_visualize_and_no_server(place, monkeypatch):
    # Whoever runs the tests may have a server at the usual port.
    monkeypatch.setitem(COMMANDS, "visualized", f"{COMMANDS['visualized']} --port {free_port()}")
    done = run(place, monkeypatch, "visualized")
    assert done.stderr.count("the dashboard at ") == 1, "one line says that no server is there"
