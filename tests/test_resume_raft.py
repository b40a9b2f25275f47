"""A training that uses RAFT, whose weights no checkpoint holds, and its resume."""

from __future__ import annotations

import pytest
import torch

from command import assert_one_line, call, perform
from models.optical_flow import RAFT

WORDS = (
    "--training --method etc --backbone erf --flow raft_small --raft-iterations 1 "
    "--motion-weight 1 --dataset synthetic --synthetic-size 128 128 --synthetic-videos 1 1 1 "
    "--synthetic-length 2 --work-size 128 128 --batch-size 1 --threads 1 --device cpu "
    "--num-workers 0 --train-encoder"
).split()


@pytest.fixture(scope="module")
def raft(tmp_path_factory):
    path = tmp_path_factory.mktemp("raft") / "raft.pth"
    torch.manual_seed(7)
    torch.save(RAFT("small", 1).network.state_dict(), path)
    return path


def trained(folder) -> dict:
    return torch.load(folder / "model_best.pth", weights_only=True)


@pytest.fixture(autouse=True)
def unknown_flow(monkeypatch):
    """The synthetic world knows its flow, and RAFT would not be asked."""
    monkeypatch.setattr("datasets.synthetic.video.SyntheticVideo.flow", lambda *a: None)


def test_a_resume_reads_raft_again(raft, tmp_path):
    words = [*WORDS, "--weights", raft]
    perform(*words, "--num-epochs", "2", "--savedir", tmp_path / "whole")
    parts = [*words, "--savedir", tmp_path / "parts"]
    perform(*parts, "--num-epochs", "1")
    perform(*parts, "--num-epochs", "2", "--resume")
    whole, resumed = trained(tmp_path / "whole"), trained(tmp_path / "parts")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_resume_without_its_file_is_refused(raft, tmp_path):
    words = [*WORDS, "--savedir", tmp_path / "run"]
    perform(*words, "--weights", raft, "--num-epochs", "1")
    done = call(*words, "--num-epochs", "2", "--resume")
    assert_one_line(done, "give its file to --weights again")
