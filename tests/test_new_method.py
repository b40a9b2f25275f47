"""A stranger adds a method: one file for its network, one for its row, and nothing is forgotten."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
import torch

import warm
from command import ROOT

NETWORK = '''"""Toy: the frame's logits, smoothed by those of the frame before."""

from __future__ import annotations

from .method import Method


class Toy(Method):
    def __init__(self, backbone, offsets, momentum, sharpen):
        super().__init__(backbone, offsets)
        self.momentum = momentum
        self.sharpen = sharpen

    @classmethod
    def from_args(cls, backbone, args):
        return cls(backbone, args.offsets, args.toy_momentum, args.toy_sharpen)

    def step(self, frame, state, flow=None, key=None):
        logits = self.backbone(frame)
        if self.sharpen:
            logits = 2 * logits
        if state is not None:
            logits = (1 - self.momentum) * logits + self.momentum * state
        return logits, logits
'''

ROW = '''"""The row of `toy`."""

from __future__ import annotations

from ..jobs import NETWORK
from ..option import Group, Option
from ..rows import Method
from ..types import share

OPTIONS = Group(
    "memory (toy)",
    (
        Option("--toy-momentum", "share of the frame before", type=share, default=0.5),
        Option("--toy-sharpen", "double the logits", type=bool, negatable=True, default=True),
    ),
    jobs=NETWORK,
)

ROW = Method("toy", "a toy", "models.toy:Toy", groups=(OPTIONS,), offsets=lambda args: (-1,))
'''

DATA = (
    "--dataset synthetic --synthetic-size 32 64 --synthetic-videos 2 1 1 --synthetic-length 6 "
    "--threads 1 --device cpu --num-workers 0"
).split()
TRAIN = ["--training", "--method", "toy", *DATA, "--batch-size", "2", "--train-encoder"]
OWN = ["--toy-momentum", "0.25", "--no-toy-sharpen"]


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A copy of the tool with the two files."""
    folder = tmp_path_factory.mktemp("house")
    for name in ("jobs", "options", "models", "datasets", "utils"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("main.py", "engine.py"):
        shutil.copy(ROOT / name, folder)
    (folder / "models" / "toy.py").write_text(NETWORK)
    (folder / "options" / "methods" / "toy.py").write_text(ROW)
    return folder


def run(house, *words) -> subprocess.CompletedProcess:
    return warm.run(house / "main.py", *words, cwd=house)


def succeed(house, *words) -> str:
    done = run(house, *words)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def trained(house):
    succeed(house, *TRAIN, *OWN, "--num-epochs", "2", "--savedir", "save/whole")
    return house / "save" / "whole"


def results(house, name: str, *words) -> dict:
    folder = house / "save" / name
    succeed(house, "--eval-mode", *DATA, "--pictures", "0", *words, "--savedir", folder)
    return json.loads((folder / "results.json").read_text())


def test_its_options_are_shown_kept_and_used_without_a_further_word(house, trained):
    assert "--toy-momentum" in succeed(house, "--training", "--method", "toy", "--help")
    silent = results(house, "silent", "--weights", trained / "model_best.pth.tar")
    assert silent["options"]["toy_momentum"] == 0.25 and silent["options"]["toy_sharpen"] is False
    weights = ["--method", "toy", "--weights", trained / "model_best.pth"]
    spoken = results(house, "spoken", *weights, *OWN)
    assert silent["metrics"] == spoken["metrics"]
    others = results(house, "others", *weights, "--toy-momentum", "0.75", "--toy-sharpen")
    assert others["loss"] != spoken["loss"], "the options act"


def test_args_txt_repeats_its_run_and_a_resume_must_be_of_the_same_run(house, trained):
    words = [*TRAIN, "--num-epochs", "1", "--savedir", "save/parts"]
    succeed(house, *words, *OWN)
    for other, flag in (
        ([*OWN, "--toy-momentum", "0.5"], "--toy-momentum 0.25, not 0.5"),
        (["--toy-momentum", "0.25"], "--toy-sharpen off, not on"),
    ):
        done = run(house, *words, *other, "--resume")
        assert done.returncode == 2 and flag in done.stderr
        assert "--no-toy-sharpen" in (house / "save/parts/args.txt").read_text(), "as it was"
    more = ["--num-epochs", "2", "--resume", "--savedir", "save/parts"]
    succeed(house, "@save/parts/args.txt", *more)
    whole, parts = (
        torch.load(folder / "model_best.pth", weights_only=True)
        for folder in (trained, house / "save" / "parts")
    )
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_another_method_refuses_its_options(house):
    words = ["--training", "--method", "single", *DATA, "--savedir", "s", "--toy-momentum", "0.3"]
    done = run(house, *words)
    assert done.returncode == 2
    assert "--toy-momentum acts with --method toy only, not with single" in done.stderr
