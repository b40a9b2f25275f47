"""Losses, gradients and scores of two ranks (gloo, on a CPU) are those of one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import warm
from command import ROOT, TINY, checked, run, succeed
from kills import Ranks
from utils.checkpoint import read
from utils.run.dist import launch
from utils.run.loading import evaluation_loader
from utils.training.sampler import EpochBatches, Share

JOB = str(Path(__file__).with_name("ranks_job.py"))


LINES = (
    "--method single --backbone erf",
    "--method single --backbone psp18",
    "--method single --backbone psp18 --loss-mean all",
    "--method lma --backbone erf --train-encoder --corr-size 5",
    "--method tma --backbone psp18",
    "--method etc --backbone erf --train-encoder",
    "--method mrcfa --backbone mit_b0 --offsets -1",
)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What one rank found for each line, and what two did."""
    folder = tmp_path_factory.mktemp("ranks")
    checked(warm.run(JOB, folder / "one.pt", *LINES))
    # Processes of their own: each Python orders sets in its own way.
    assert launch(JOB, [str(folder / "two.pt"), *LINES], 2) == 0
    files = (folder / "one.pt", folder / "two.pt")
    return list(zip(*(torch.load(file, weights_only=True) for file in files), strict=True))


@pytest.mark.parametrize("place", range(len(LINES)), ids=LINES)
def test_two_ranks_equal_one(results, place):
    one, two = results[place]
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-6)
    # Differences count against the largest of all gradients.
    scale = max(gradient.abs().max() for gradient in one["gradients"].values())
    for name, gradient in one["gradients"].items():
        assert (two["gradients"][name] - gradient).abs().max() <= 1e-5 * scale, name
    for name, statistic in one["statistics"].items():
        torch.testing.assert_close(two["statistics"][name], statistic, rtol=1e-4, atol=1e-6)
    for ours, theirs in zip(two["scores"], one["scores"], strict=True):
        assert ours["frames"] == theirs["frames"] == 27
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-6)
        for name in ("mIoU", "pixel_accuracy", "fwIoU"):
            assert ours[name] == theirs[name], name
    # Video consistency: whole videos are shared out over the ranks, and the results merged.
    assert two["scores"][1]["VC8"] == one["scores"][1]["VC8"]


def test_every_step_uses_the_same_clips_for_any_number_of_ranks():
    def steps(batch, ranks):
        parts = [
            EpochBatches([Share(26, 26)], batch, rank=r, ranks=ranks, seed=5) for r in range(ranks)
        ]
        for part in parts:
            part.begin(epoch=2)
        return [sum(step, []) for step in zip(*parts, strict=True)]

    assert steps(6, 1) == steps(3, 2) == steps(2, 3)
    assert len(steps(6, 1)) == 4, "the incomplete last batch is left out"
    assert steps(6, 1)[0][0][1] == 2, "clips come with their epoch"


def test_a_resumed_epoch_goes_on_where_it_stopped():
    batches = EpochBatches([Share(20, 20)], 2, seed=1)
    batches.begin(0)
    whole = list(batches)
    batches.begin(0, start=3)
    assert list(batches) == whole[3:] and len(batches) == 7
    batches.begin(1)
    assert list(batches) != whole, "another epoch, another order"


def test_too_few_clips_for_a_batch_is_an_error_that_says_what_to_do():
    with pytest.raises(ValueError, match="lower --batch-size"):
        EpochBatches([Share(5, 5)], 3, ranks=2)


class Data:
    """A data set with what evaluation_loader reads of it."""

    def __init__(self, step: bool):
        self.step = step
        # (video, frame): five videos of 1 to 5 frames.
        self.samples = [(video, i) for video in range(5) for i in range(video + 1)]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        raise AssertionError("not read here")


@pytest.mark.parametrize("step", [True, False])
@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_evaluation_sees_every_frame_once_and_videos_stay_whole(step, ranks):
    shares = [evaluation_loader(Data(step), 0, r, ranks).sampler.indices for r in range(ranks)]
    assert sorted(sum(shares, [])) == list(range(15))
    if step:
        owners = {}
        for r, share in enumerate(shares):
            assert share == sorted(share)
            for index in share:
                video, _ = Data(True).samples[index]
                assert owners.setdefault(video, r) == r


def test_gpus_2_on_a_cpu_trains_and_both_ranks_end_with_one_model(tmp_path):
    words = "--num-epochs 1 --batch-size 2 --synthetic-length 4 --gpus 2".split()
    done = succeed("--training", *TINY, *words, "--savedir", tmp_path)
    assert done.stdout.count("epoch 1: train loss") == 1, "only rank 0 reports"
    assert read(tmp_path / "checkpoint.pth.tar")["progress"]["epoch"] == 1


def test_parts_that_are_not_trained_do_not_stop_two_ranks(tmp_path):
    words = "--num-epochs 1 --batch-size 4 --num-workers 0 --no-iouVal".split()
    words = ["--training", *TINY, *words]
    Ranks(tmp_path, *words, "--backbone-nobn", "--savedir", tmp_path / "nobn").succeed()
    no_auxiliary = "--backbone psp18 --aux-weight 0".split()
    Ranks(tmp_path, *words, *no_auxiliary, "--savedir", tmp_path / "aux").succeed()


@pytest.mark.slow
def test_torchrun_works_as_well(tmp_path):
    torchrun = "-m torch.distributed.run --standalone --nproc-per-node 2".split()
    training = ["--training", *TINY, *"--num-epochs 1 --batch-size 2".split()]
    words = [sys.executable, *torchrun, ROOT / "main.py", *training, "--savedir", tmp_path]
    subprocess.run([str(word) for word in words], check=True, capture_output=True, timeout=300)
    assert (tmp_path / "model_best.pth").exists()


def test_a_user_error_under_two_ranks_is_printed_once_with_exit_code_2(tmp_path):
    paths = ["--weights", tmp_path / "missing.pth", "--savedir", tmp_path / "x"]
    done = run("--eval-mode", *TINY, *paths, "--gpus", "2")
    assert done.returncode == 2
    assert done.stderr.count("no checkpoint") == 1, done.stderr
    assert not (tmp_path / "x").exists()
