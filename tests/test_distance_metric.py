"""Every frame at every distance from its key frame, in one pass over the data."""

import copy
import json
import math

import numpy as np
import pytest
import torch

import main
from command import perform
from datasets import build_dataset
from engine import evaluate
from keyed import keyed_method
from models import build_model
from models.backbones.backbone import SizeRule
from toys import KeyFrames, ToyBackbone
from utils import checkpoint
from utils.keyframes import Decision, FixedInterval, SceneCuts, Schedule
from utils.metrics import ConfusionMatrix
from utils.metrics.key_frames import DistanceIoU, Latency
from utils.metrics.scoring import ScoredFrame, merged_over_ranks, standard_metrics
from utils.run import evaluation_state
from utils.run.evaluation_state import EvaluationProgress
from utils.run.loading import collate, evaluation_loader
from utils.stepper import Stepper
from utils.views import Views

PLAIN = torch.autocast("cpu", enabled=False)
WORDS = (
    "--dataset synthetic --synthetic-size 32 64 --synthetic-length 11 --synthetic-videos 1 3 1 "
    "--threads 1 --device cpu --num-workers 0"
).split()


@pytest.fixture
def model():
    torch.manual_seed(1)
    model = KeyFrames(ToyBackbone(11)).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
    model.refine.weight.data.normal_(0, 0.5)
    return model


def data_of(interval: int | None = None):
    """The val split: whole videos to be stepped, or clips of interval + 1 frames."""
    args = main.parse_args(["--eval-mode", "--method", "single", *WORDS, "--savedir", "unused"])
    if interval is None:
        return build_dataset(args, "val").stepping()
    args.offsets = tuple(range(-interval, 0))
    return build_dataset(args, "val")


def score(model, data, interval, *, distances=True, policy=None, views=None, **settings) -> dict:
    """What an evaluation with a fixed interval gives."""
    metrics = standard_metrics(
        11, consistency=False, cross_entropy=model.cross_entropy, key_frames=True, interval=interval
    )
    given = {
        "loader": evaluation_loader(data, 0),
        "device": torch.device("cpu"),
        "views": views or Views(model.size_rule),
        "autocast": PLAIN,
        "stepping": data.step,
        "policy": policy or FixedInterval(interval),
        "interval": interval if distances else None,
    } | settings
    loader = given.pop("loader")
    return evaluate(model, loader, metrics, **given)


def plain_matrices(
    model, data, interval: int, views=None, flows=None
) -> dict[int, ConfusionMatrix]:
    """By distance, from one plain run for each phase, each video begun at that frame."""
    found = {distance: ConfusionMatrix(11) for distance in range(interval + 1)}
    for phase in range(interval + 1):
        stepper = Stepper(model, views or Views(model.size_rule), PLAIN)
        video = None
        for i in range(len(data)):
            clip = data[i]
            if clip.video != video:
                stepper.reset()
                video = clip.video
            if clip.index < phase:
                continue
            distance = (clip.index - phase) % (interval + 1)
            flow = flows[i].flows[:, 0] if flows else None
            scores = stepper(clip.frames[-1][None], flow, key=distance == 0)
            found[distance].update(clip.labels[-1][None], scores.argmax(1))
    return found


SEEN = {
    "whole": Views(SizeRule(4)),
    "padded": Views(SizeRule(12)),
    "in two passes": Views(SizeRule(4), flip=True),
}


@pytest.mark.parametrize("interval", [0, 1, 3])
@pytest.mark.parametrize("seen", SEEN)
def test_every_distance_is_what_a_plain_run_with_that_schedule_gives(model, interval, seen):
    views = SEEN[seen]
    data = data_of()
    found = score(model, data, interval, views=views)
    expected = plain_matrices(model, data, interval, views)
    values = {str(k): matrix.compute()["mIoU"] for k, matrix in expected.items()}
    assert found["key_distance"]["mIoU"] == values
    assert len(set(values.values())) == interval + 1, "distances differ"
    # 3 videos of 11 frames; a key frame at t - k exists from frame k on.
    assert found["key_distance"]["frames"] == {str(k): 3 * (11 - k) for k in range(interval + 1)}


def test_the_main_result_is_that_of_the_schedule_and_of_nothing_else(model):
    data = data_of()
    alone = score(model, data, 2, distances=False)
    together = score(model, data, 2)
    for name in ("mIoU", "IoU", "loss", "frames"):
        np.testing.assert_equal(together[name], alone[name], name)


def test_each_frame_is_segmented_once_and_its_flow_computed_at_most_twice(model):
    data = data_of()
    score(model, data, 3)
    assert model.backbone.calls == len(data) == 33
    # By the schedule itself, which is timed, and once for all others.
    assert model.optical_flow.frozen.calls <= 2 * (33 - 3)


def test_an_interval_of_zero_is_single_stepping(model):
    found = score(model, data_of(), 0)
    assert found["key_distance"]["mIoU"] == {"0": found["mIoU"]}
    assert found["key_distance"]["average"] == found["key_distance"]["last"] == found["mIoU"]
    assert model.optical_flow.frozen.calls == 0


@pytest.mark.parametrize("interval", [1, 3])
def test_clips_give_what_stepping_gives_and_one_backbone_pass_for_each_key_frame(model, interval):
    stepped = score(model, data_of(), interval)["key_distance"]
    model.backbone.calls = 0
    clips = data_of(interval)
    found = score(model, clips, interval)
    assert found["key_distance"]["frames"] == stepped["frames"]
    assert found["key_distance"]["mIoU"] == pytest.approx(stepped["mIoU"])
    assert model.backbone.calls == sum(len(clips[i].frames) for i in range(len(clips)))
    plain = score(model, clips, interval, distances=False)
    assert found["IoU"] == pytest.approx(plain["IoU"], nan_ok=True), "the whole clip, as by forward"
    assert found["loss"] == pytest.approx(plain["loss"], rel=1e-5)


def test_the_published_means_have_their_own_definitions():
    torch.manual_seed(0)
    metric = DistanceIoU(5, 2)
    matrices = [ConfusionMatrix(5) for _ in range(3)]
    for _ in range(4):
        labels = torch.randint(0, 4, (1, 6, 7))  # class 4 is absent
        wrong = {
            k: torch.where(torch.rand(1, 6, 7) < (0.1, 0.6, 0.3)[k], 0, labels) for k in (0, 1, 2)
        }
        metric.update(
            ScoredFrame(None, wrong[0], labels, labels, 0, 0, 0, {k: wrong[k] for k in (1, 2)})
        )
        for k, matrix in enumerate(matrices):
            matrix.update(labels, wrong[k])
    found = metric.compute()["key_distance"]
    each = [matrix.compute() for matrix in matrices]
    pooled = ConfusionMatrix(5)
    for matrix in matrices:
        pooled.merge(matrix)
    assert (
        found["average"]
        == pooled.compute()["mIoU"]
        != pytest.approx(sum(values["mIoU"] for values in each) / 3)
    ), "pooled, not the mean of three"
    assert found["last"] == each[2]["mIoU"]
    assert found["minimum"] == each[1]["mIoU"] < found["last"], "published 'min' is the last"
    assert found["average_all"] == pytest.approx(found["average"] * 4 / 5)
    assert found["last_all"] == pytest.approx(found["last"] * 4 / 5)
    assert all(word in metric.definitions()["key_distance"] for word in found)


def test_what_was_counted_can_be_stored_restored_and_merged():
    torch.manual_seed(0)
    parts = []
    for _ in range(2):
        metric = DistanceIoU(5, 2)
        for _ in range(3):
            labels, prediction, other = torch.randint(0, 5, (3, 1, 6, 7)).unbind()
            metric.update(ScoredFrame(None, prediction, labels, labels, 0, 0, 0, {2: other}))
        parts.append(metric)
    before = parts[0].compute()
    stored = copy.deepcopy(parts[0].sums())
    restored = copy.copy(parts[1])
    restored.restore(stored)
    assert restored.compute() == before != parts[1].compute()
    restored.merge(parts[1])
    assert parts[0].compute() == before, "the stored sums are copies"
    total = restored.compute()["key_distance"]
    assert total["frames"] == {"0": 6, "2": 6}
    expected = copy.copy(parts[0].matrices[2]).merge(parts[1].matrices[2]).compute()["mIoU"]
    assert total["mIoU"]["2"] == expected
    assert merged_over_ranks(parts[1]).compute() == parts[1].compute()


def test_key_frames_and_others_are_timed_apart_and_the_first_of_each_left_out():
    metric = Latency()
    labels = torch.zeros(1, 2, 2, dtype=torch.long)
    for key, seconds in ((True, 9.0), (False, 5.0), (False, 0.01), (True, 0.05), (False, 0.01)):
        metric.update(ScoredFrame(None, labels, labels, labels, 0, 0, costs=((key, seconds),)))
    found = metric.compute()["latency"]
    assert found["key_ms"] == pytest.approx(50) and found["non_key_ms"] == pytest.approx(10)
    assert found["average_ms"] == pytest.approx((2 * 50 + 3 * 10) / 5)
    assert (found["key_frames"], found["non_key_frames"]) == (2, 3)
    again = Latency()
    again.restore(copy.deepcopy(metric.sums()))
    assert again.compute() == metric.compute()
    again.merge(metric)
    assert again.compute()["latency"]["key_frames"] == 4
    assert math.isnan(Latency().compute()["latency"]["average_ms"])


def with_flows(data) -> list:
    """The frames of a stepping data set, each with a flow into the one before it."""
    clips = []
    for i in range(len(data)):
        clip = collate([data[i]])
        generator = torch.Generator().manual_seed(clip.index[0].item())
        flow = 3 * torch.randn(1, 1, 2, *clip.frames.shape[-2:], generator=generator)
        clips.append(clip._replace(flows=flow))
    return clips


@pytest.mark.parametrize("distances", [False, True])
def test_flow_that_the_data_brings_is_used_at_all_distances(model, distances):
    data = data_of()
    settings = {"distances": distances, "loader": with_flows(data)}
    found = score(model, data, 2, **settings)
    assert model.optical_flow.frozen.calls == 0
    assert found["mIoU"] != score(model, data, 2, distances=distances)["mIoU"]
    if distances:
        matrices = plain_matrices(model, data, 2, flows=with_flows(data))
        values = {str(k): matrix.compute()["mIoU"] for k, matrix in matrices.items()}
        assert found["key_distance"]["mIoU"] == values


class CutAt:
    """A fixed interval with scene cuts at known frames."""

    def __init__(self, interval: int, cuts: set[int]):
        self.fixed = FixedInterval(interval)
        self.cuts = cuts
        self.seen = -1

    def decide(self, context):
        self.seen = 0 if context.previous is None else self.seen + 1
        if self.seen in self.cuts:
            return Decision(True, "scene cut", cut=True)
        return self.fixed.decide(context)


def test_no_frame_is_counted_behind_a_key_frame_of_another_scene(model):
    found = score(model, data_of(), 2, policy=CutAt(2, {4}))["key_distance"]
    # Scenes of 4 and of 7 frames in each of 3 videos.
    assert found["frames"] == {str(k): 3 * (4 - k + 7 - k) for k in range(3)}


def test_an_adaptive_policy_is_scored_at_the_distances_that_it_chose(model):
    found = score(model, data_of(), None, policy=Schedule(FixedInterval(4), SceneCuts(1.0)))
    assert found["key_distance"]["frames"] == {"0": 9, "1": 6, "2": 6, "3": 6, "4": 6}
    assert set(found["key_distance"]) == {"mIoU", "frames"}, "there is no published mean of these"


class Killed(BaseException):
    """Stands for a kill -9: nothing is cleaned up."""


def test_an_evaluation_of_all_distances_killed_and_resumed_ends_with_the_same_numbers(
    model, tmp_path, monkeypatch
):
    monkeypatch.setattr(evaluation_state, "PATIENCE", 0.0)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()

    def attempt(folder, moment=None, data=None):
        progress = EvaluationProgress(tmp_path / folder, "recipe", resume=True)
        seen = []

        def consume(labelled):
            seen.append(labelled)
            if len(seen) == moment:
                raise Killed

        loader = evaluation_loader(data, 0, start=progress.done)
        return score(model, data, 2, loader=loader, progress=progress, consume=consume), seen

    for data in (data_of(), data_of(2)):
        whole, _ = attempt("a", data=data)
        for moment in (14, 5):
            with pytest.raises(Killed):
                attempt("b", moment, data)
        again, seen = attempt("b", data=data)
        assert len(seen) < len(data)
        assert again["key_distance"] == whole["key_distance"]
        assert again["latency"]["key_frames"] == whole["latency"]["key_frames"]
        for folder in ("a", "b"):
            EvaluationProgress(tmp_path / folder, "recipe", resume=False)


def test_two_ranks_are_one(model):
    data = data_of()
    whole = score(model, data, 2)["key_distance"]
    parts = []
    for rank in range(2):
        metrics = standard_metrics(11, consistency=False, key_frames=True, interval=2)
        evaluate(
            model,
            evaluation_loader(data, 0, rank, 2),
            metrics,
            device=torch.device("cpu"),
            views=Views(model.size_rule),
            autocast=PLAIN,
            stepping=True,
            policy=FixedInterval(2),
            interval=2,
        )
        parts.append(next(metric for metric in metrics if isinstance(metric, DistanceIoU)))
    parts[0].merge(parts[1])
    assert parts[0].compute()["key_distance"] == whole


# The command line


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "toy.pth"
    with keyed_method():
        args = main.parse_args(["--training", "--method", "single", *WORDS, "--savedir", "unused"])
        torch.manual_seed(1)
        checkpoint.save(path, build_model(args, 11).state_dict())
    return path


def evaluated(weights, folder, *words) -> tuple[dict, str]:
    """results.json, and what was printed with results.txt."""
    with keyed_method():
        done = perform(
            "--eval-mode", "--method", "single", *WORDS, "--weights", weights, "--savedir", folder,
            "--pictures", "0", *words,
        )  # fmt: skip
    text = done.stdout + done.stderr + (folder / "results.txt").read_text()
    return json.loads((folder / "results.json").read_text()), text


def test_an_evaluation_reports_distances_and_latency(weights, tmp_path):
    found, text = evaluated(weights, tmp_path, "--key-interval", "1", "--scene-cut-threshold", "1")
    distances = found["metrics"]["key_distance"]
    assert distances["frames"] == {"0": 33, "1": 30}
    assert set(distances) == {
        "mIoU", "frames", "average", "last", "minimum", "average_all", "last_all"
    }  # fmt: skip
    assert found["latency"]["key_frames"] == 18 and found["latency"]["non_key_frames"] == 15
    assert found["latency"]["key_ms"] > found["latency"]["non_key_ms"] > 0
    assert "mIoU % by distance from the key frame: 0:" in text and "the published 'avg'" in text


def test_distances_can_be_left_out(weights, tmp_path):
    found, _ = evaluated(weights, tmp_path, "--no-key-distances", "--key-interval", "1")
    distances = found["metrics"]["key_distance"]
    assert sum(distances["frames"].values()) == 33 and "average" not in distances


def test_an_adaptive_policy_is_evaluated(weights, tmp_path):
    words = ["--key-policy", "motion", "--key-threshold", "0.05", "--key-longest", "3"]
    found, _ = evaluated(weights, tmp_path, *words)
    assert max(map(int, found["metrics"]["key_distance"]["frames"])) <= 3
    assert found["options"]["key_policy"] == "motion"
