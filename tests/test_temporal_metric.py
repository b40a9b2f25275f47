"""--metrics tc: TC in the pass of an evaluation equals the metric called by hand."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest
import torch

from command import ROOT, perform
from datasets import synthetic
from datasets.clip import ClipDataset
from jobs.temporal import COMPUTED, EXACT, DataMotion
from models.optical_flow import DIS
from utils.metrics import TemporalConsistency
from utils.metrics.evaluation_metric import ScoredFrame
from utils.metrics.temporal import Temporal
from utils.output.report import degenerate

SIZE = (48, 96)


def scored(prediction, index: int, video: int = 0) -> ScoredFrame:
    prediction = torch.as_tensor(prediction)[None]
    return ScoredFrame(None, prediction, prediction, prediction, video, index)


def ids(video, index: int) -> np.ndarray:
    """Labels as a prediction has them: every pixel is of some class."""
    return video.label(index).astype(np.int64) % len(synthetic.LABELS.names)


@pytest.fixture
def data():
    videos = synthetic.videos("val", 2, 4, SIZE)
    return ClipDataset(videos, synthetic.LABELS, None, step=True)


def measured(data, motion, mode: str) -> Temporal:
    metric = Temporal(data.num_classes, mode, motion, "test")
    for v, video in enumerate(data.videos):
        for i in range(len(video)):
            metric.update(scored(ids(video, i), i, v))
        metric.end_video()
    return metric


@pytest.mark.parametrize("mode", ["strict", "nearest"])
def test_labels_along_their_exact_flow_are_consistent_and_pairs_end_with_a_video(data, mode):
    motion = DataMotion(data)
    assert motion.source == EXACT
    found = measured(data, motion, mode).compute()
    name = "TC" if mode == "strict" else "TC_nearest"
    result = found[name]
    assert result["pairs"] == 6 and result["flow"] == "test"
    if mode == "strict":
        assert result["TC"] == 1
    else:
        # Borders of classes fall between pixels: thin things lose most.
        assert 0.7 < result["TC"] < 1
    assert result["TC"] > result["no_warp"]
    by_hand = TemporalConsistency(data.num_classes, mode)
    for video in data.videos:
        for i in range(1, len(video)):
            before, now = (
                torch.from_numpy(video.label(k).astype(np.int64) % 11) for k in (i - 1, i)
            )
            mask = {"occluded": video.occlusion(i - 1, i)} if mode == "strict" else {}
            by_hand.update(before, now, video.flow(i - 1, i), **mask)
    assert by_hand.compute()["TC"] == result["TC"]


def test_a_prediction_that_never_changes_is_flagged_clip_by_clip(data):
    metric = Temporal(data.num_classes, "strict", DataMotion(data), "test")
    held = ids(data.videos[0], 0)
    for v, video in enumerate(data.videos):
        for i in range(len(video)):
            metric.update(scored(held if v == 0 else ids(video, i), i, v))
        # As a run that is resumed between the videos
        metric.end_video()
        stored = metric.sums()
        metric = Temporal(data.num_classes, "strict", DataMotion(data), "test")
        metric.restore(stored)
    found = metric.compute()
    assert (found["TC"]["videos"], found["TC"]["constant_videos"]) == (2, 1)
    assert found["TC"]["constant_pairs"] == 0
    assert degenerate(found) == [
        "degenerate: the prediction is constant in 1 of 2 videos; do not trust TC"
    ]


def test_ranks_add_their_videos_up(data):
    ranks = []
    for v, video in enumerate(data.videos):
        metric = Temporal(data.num_classes, "strict", DataMotion(data), "test")
        for i in range(len(video)):
            metric.update(scored(ids(video, 0), i, v))
        ranks.append(metric)
    ranks[0].merge(ranks[1])
    result = ranks[0].compute()["TC"]
    assert (result["videos"], result["constant_videos"]) == (2, 2)


def predicted(data, change) -> float:
    """Strict TC of labels that `change(labels, index)` has changed."""
    metric = Temporal(data.num_classes, "strict", DataMotion(data), "test")
    for v, video in enumerate(data.videos):
        for i in range(len(video)):
            metric.update(scored(change(ids(video, i), video, i), i, v))
        metric.end_video()
    return metric.compute()["TC"]["TC"]


def test_flicker_lowers_it_the_more_there_is_and_a_held_first_frame_is_not_rewarded(data):
    def flicker(share: float):
        def change(labels, video, index):
            rng = np.random.default_rng(index)
            noise = rng.integers(0, 11, labels.shape)
            return np.where(rng.random(labels.shape) < share, noise, labels)

        return change

    scores = [predicted(data, flicker(share)) for share in (0, 0.01, 0.03, 0.1, 0.3)]
    assert scores[0] == 1 and scores == sorted(scores, reverse=True) and len(set(scores)) == 5
    held = predicted(data, lambda labels, video, index: ids(video, 0))
    assert held < 0.9


def test_on_another_grid_hidden_pixels_are_what_flow_there_and_back_disagrees_on(data):
    motion = DataMotion(data)
    assert motion(0, 1, SIZE).occluded is not None and motion(0, 1, SIZE).backward is None
    half = motion(0, 1, (24, 48))
    assert half.occluded is None and half.backward.shape == half.flow.shape == (2, 24, 48)


def test_it_is_stored_restored_and_merged(data):
    motion = DataMotion(data)
    whole = measured(data, motion, "strict")
    again = Temporal(data.num_classes, "strict", motion, "test")
    again.restore(whole.sums())
    assert again.compute() == whole.compute()
    again.merge(whole)
    assert again.compute()["TC"]["pairs"] == 12


def test_without_exact_flow_it_is_computed_once_a_pair(data, monkeypatch):
    monkeypatch.setattr(type(data.videos[0]), "flow", lambda *a: None)
    monkeypatch.delattr(type(data.videos[0]), "occlusion")
    motion = DataMotion(data)
    assert motion.source == COMPUTED
    calls = []
    forward = DIS.forward
    monkeypatch.setattr(DIS, "forward", lambda self, *a: calls.append(1) or forward(self, *a))
    first = motion(0, 1, SIZE)
    assert motion(0, 1, SIZE) is first and len(calls) == 2
    one_way = DataMotion(data, masked=False)(0, 1, SIZE)
    assert len(calls) == 3 and one_way.backward is None
    assert torch.equal(one_way.flow, first.flow)
    half = motion(0, 1, (24, 48)).flow
    assert half.shape == (2, 24, 48)
    assert half.abs().mean() == pytest.approx(first.flow.abs().mean().item() / 2, rel=0.1)


def test_an_evaluation_reports_it_beside_all_else(tmp_path):
    words = ["--eval-mode", "--weights", "synthetic", "--synthetic-videos", "1", "2", "1"]
    words += [
        "--synthetic-size",
        "64",
        "128",
        "--synthetic-length",
        "9",
        "--work-size",
        "64",
        "128",
    ]
    words += ["--threads", "1", "--device", "cpu", "--num-workers", "0"]
    perform(*words, "--savedir", tmp_path / "plain")
    asked = ["--metrics", "miou", "vc", "tc", "--tc-modes", "strict", "etc"]
    perform(*words, *asked, "--savedir", tmp_path / "tc")
    plain, found = (
        json.loads((tmp_path / name / "results.json").read_text()) for name in ("plain", "tc")
    )
    assert set(found["metrics"]) - set(plain["metrics"]) == {"TC", "TC_etc"}
    assert found["metrics"]["mIoU"] == plain["metrics"]["mIoU"]
    assert found["metrics"]["TC"]["pairs"] == 16 and found["metrics"]["TC"]["flow"] == EXACT
    perform(*words, "--metrics", "miou", "--savedir", tmp_path / "bare")
    bare = json.loads((tmp_path / "bare" / "results.json").read_text())
    assert not any(name.startswith(("VC", "TC")) for name in bare["metrics"])


def test_the_benchmark_compares_all_metrics_with_mIoU_alone(tmp_path, monkeypatch):
    place = ROOT / "benchmarks" / "metrics.py"
    spec = importlib.util.spec_from_file_location("benchmark_metrics", place)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    monkeypatch.setattr(benchmark, "FRAMES", 3)
    asked = []
    between = DataMotion.between
    monkeypatch.setattr(DataMotion, "between", lambda *a: asked.append(a[2]) or between(*a))
    words = ["--backbone", "erf", "--size", "32x64", "--rounds", "2"]
    found = benchmark.run([*words, "--json", str(tmp_path / "metrics.json")])
    assert found["ratio"] > 0
    assert json.loads((tmp_path / "metrics.json").read_text())["ratio"] == found["ratio"]
    assert asked == [1, 2], "flow is computed in the warm-up alone"
