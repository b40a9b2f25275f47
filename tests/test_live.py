"""A live viewer: which frames a busy network takes, what is on the screen, and what it scores."""

from __future__ import annotations

import json
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import main
from command import TINY, assert_one_line, call, perform
from datasets import build_dataset
from jobs.live import arrivals_of
from jobs.scoring import tell_unmeasured
from models.method import Method
from models.single import SingleFrame
from toys import KeyFrames, ToyBackbone
from trees import make_folder
from utils.live import Arrivals, Live
from utils.metrics.evaluation_metric import LiveFrame, ScoredFrame
from utils.metrics.latency_aware import LatencyAware
from utils.stepper import Stepper
from utils.timeline import Timeline
from utils.views import Views

PLAIN = torch.autocast("cpu", enabled=False)


def seen(latencies, frames: int) -> tuple[list, list]:
    """Frames an interval of 1 apart -> what is on the screen at each arrival, what was taken."""
    timeline = Timeline(1.0)
    taken = []

    def take(index):
        taken.append(index)
        return index, next(latencies)

    shown = [timeline.arrive(take) for _ in range(frames)]
    return [None if frame is None else frame.prediction for frame in shown], taken


def always(latency: float):
    while True:
        yield latency


@pytest.mark.parametrize(
    "latency, shown, taken",
    [
        (0.0, [0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5, 6]),
        (0.5, [None, 0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5, 6]),
        # Done as the next frame comes: just in time.
        (1.0, [None, 0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5, 6]),
        # The second frame is taken late, the third comes while the network is busy.
        (1.5, [None, None, 0, 1, 1, 3, 4], [0, 1, 3, 4, 6]),
        (2.0, [None, None, 0, 0, 2, 2, 4], [0, 2, 4, 6]),
        (2.5, [None, None, None, 0, 0, 2, 2], [0, 2, 5]),
        (100.0, [None] * 7, [0]),
    ],
)
def test_a_free_network_takes_the_newest_frame_and_the_newest_finished_one_is_shown(
    latency, shown, taken
):
    assert seen(always(latency), 7) == (shown, taken)


def test_it_agrees_with_a_clock_that_ticks():
    """Integer times, looked at one after the other."""
    for seed in range(50):
        rng = random.Random(seed)
        interval = rng.randint(1, 5)
        costs = [rng.randint(0, 12) for _ in range(100)]
        by_ticks, given = [], iter(costs)
        on_screen, busy_with, until, last = None, None, None, -1
        for now in range(20 * interval):
            newest = now // interval
            # In no time at all a network may finish and begin several times.
            while True:
                if busy_with is not None and until <= now:
                    on_screen, busy_with = busy_with, None
                elif busy_with is None and newest > last:
                    busy_with, until, last = newest, now + next(given), newest
                else:
                    break
            if now % interval == 0:
                by_ticks.append(on_screen)
        assert seen((cost / interval for cost in costs), 20)[0] == by_ticks, seed


def test_rounded_times_do_not_make_a_network_late_that_is_just_in_time():
    # 1/15 s cannot be written down: sums of it miss the arrival by a hair.
    timeline = Timeline(1 / 15)
    shown = [timeline.arrive(lambda index: (index, 1000 / 15 / 1000)) for _ in range(500)]
    assert [frame.index for frame in shown[1:]] == list(range(499))


class Fading(Method):
    """Half of the logits are those of all frames before: it remembers."""

    def step(self, frame, state, flow=None, key=None):
        logits = self.backbone(frame)
        if state is not None:
            logits = (logits + state) / 2
        return logits, logits


def simulated(method: type[Method], latency: float | None, frames: torch.Tensor):
    """frames (T, 3, H, W), one second apart -> the evaluation's label maps, what the viewer has."""
    torch.manual_seed(0)
    model = method(ToyBackbone(5)).eval()
    stepper = Stepper(model, Views(model.size_rule), PLAIN)
    live = Live(stepper, Arrivals(lambda v: 1.0, latency))
    live.begin(0)
    labels, viewed = [], []
    for frame in frames[:, None]:
        labels.append(stepper(frame).argmax(1))
        viewed.append(live(frame, labels[-1]))
    return model, labels, viewed


@pytest.fixture
def frames():
    return torch.rand(9, 3, 16, 24, generator=torch.Generator().manual_seed(1))


def test_a_network_without_memory_is_seen_late(frames):
    model, labels, viewed = simulated(SingleFrame, 1.5, frames)
    assert [frame.age for frame in viewed] == [None, None, 2, 2, 3, 2, 2, 3, 2]
    for index, frame in enumerate(viewed):
        if frame.age is not None:
            assert torch.equal(frame.prediction, labels[index - frame.age])
    # Its predictions are those of the evaluation: each frame went through the network once.
    assert model.backbone.calls == len(frames)


def test_a_network_with_memory_sees_only_the_frames_that_it_takes(frames):
    model, labels, viewed = simulated(Fading, 1.5, frames)
    alone = Stepper(model, Views(model.size_rule), PLAIN)
    expected = {i: alone(frames[i : i + 1]).argmax(1) for i in (0, 1, 3, 4, 6, 7)}
    shown = [(i - frame.age, frame.prediction) for i, frame in enumerate(viewed) if frame.age]
    assert {index for index, _ in shown} == {0, 1, 3, 4, 6}
    assert all(torch.equal(prediction, expected[index]) for index, prediction in shown)
    # What it remembers is not what the evaluation's remembers.
    assert not torch.equal(expected[6], labels[6])


def test_a_network_that_keeps_up_is_not_run_twice(frames):
    model, labels, viewed = simulated(Fading, 0.9, frames)
    assert [frame.age for frame in viewed] == [None] + 8 * [1]
    assert all(torch.equal(frame.prediction, labels[i]) for i, frame in enumerate(viewed[1:]))
    assert model.backbone.calls == len(frames)


def test_latencies_are_measured_and_the_first_frame_is_not_blamed_for_warming_up(frames):
    ticks = iter(range(1, 10**6))
    model = SingleFrame(ToyBackbone(5)).eval()
    # Every look at the clock is a quarter of a second later: a frame takes as much.
    stepper = Stepper(model, Views(model.size_rule), PLAIN, clock=lambda: next(ticks) / 4)
    live = Live(stepper, Arrivals(lambda v: 1.0, None))
    live.begin(0)
    spent = []
    for frame in frames[:4, None]:
        spent += live(frame, stepper(frame).argmax(1)).seconds
    assert spent == [0.25] * 4
    assert model.backbone.calls == 5, "the first frame once more"


def scored(labels, live: LiveFrame) -> ScoredFrame:
    labels = torch.as_tensor(labels)[None]
    return ScoredFrame(None, labels, labels, labels, 0, 0, live=live)


def test_the_metric_counts_what_was_on_the_screen_and_leaves_out_what_nobody_saw():
    metric = LatencyAware(2, [15.0, 15.0], "--latency-ms")
    right = torch.tensor([[[0, 1]]])
    metric.update(scored([[0, 1]], LiveFrame(None, None, (0.1,))))
    metric.update(scored([[0, 1]], LiveFrame(right, 1, ())))
    metric.update(scored([[1, 0]], LiveFrame(right, 2, (0.3,))))
    found = metric.compute()["latency_aware"]
    assert found["mIoU"] == pytest.approx(1 / 3)
    assert found["latency_ms"] == pytest.approx(200) and found["taken"] == pytest.approx(2 / 3)
    assert found["frames_behind"] == 1.5 and found["unanswered"] == 1
    assert found["frames_per_second"] == [15.0]
    other = LatencyAware(2, [15.0], "--latency-ms")
    other.restore(metric.sums())
    other.merge(metric)
    assert metric.compute()["latency_aware"] == found, "a copy shares nothing"
    twice = other.compute()["latency_aware"]
    assert twice["unanswered"] == 2 and twice["mIoU"] == pytest.approx(1 / 3)


@pytest.fixture
def words(tmp_path):
    """An evaluation on the synthetic world, at 15 frames a second."""
    size = ["--synthetic-size", "64", "128", "--work-size", "64", "128"]
    asked = ["--weights", "synthetic", "--metrics", "miou", "latency"]
    return ["--eval-mode", *TINY, *size, *asked]


def results(folder) -> dict:
    return json.loads((folder / "results.json").read_text())["metrics"]


def test_without_latency_it_is_the_mIoU_and_with_it_that_of_older_predictions(words, tmp_path):
    perform(*words, "--latency-ms", "0", "--savedir", tmp_path / "instant")
    found = results(tmp_path / "instant")
    assert found["latency_aware"]["mIoU"] == found["mIoU"]
    assert found["latency_aware"]["frames_behind"] == 0

    # 100 ms at 15 frames a second: as 1.5 intervals.
    late = tmp_path / "late"
    perform(*words, "--latency-ms", "100", "--save-labels", "--savedir", late)
    found = results(late)["latency_aware"]
    assert found["unanswered"] == 2 and found["latency_from"] == "--latency-ms"
    assert found["mIoU"] == pytest.approx(mIoU_of_older(late, [0, 1, 1, 3, 4, 4]), abs=1e-9)
    assert found["mIoU"] < results(late)["mIoU"]


def mIoU_of_older(folder, shown: list[int]) -> float:
    """From the label images of a run: frame i + 2 against prediction shown[i]."""
    from datasets import synthetic

    video = synthetic.videos("val", 1, 8, (64, 128))[0]
    pictures = sorted(folder.glob("labels/**/*.png"))
    assert len(pictures) == 8
    counts = np.zeros((11, 11))
    for index, older in enumerate(shown, 2):
        labels = video.label(index)
        predicted = np.asarray(Image.open(pictures[older]))
        known = labels < 11
        np.add.at(counts, (labels[known], predicted[known]), 1)
    hits = counts.diagonal()
    union = counts.sum(0) + counts.sum(1) - hits
    return float((hits[union > 0] / union[union > 0]).mean())


def test_measured_it_names_the_machine(words, tmp_path):
    perform(*words, "--arrival-rate", "10", "--savedir", tmp_path / "run")
    found = results(tmp_path / "run")["latency_aware"]
    assert found["latency_ms"] > 0 and "1 threads" in found["latency_from"]
    assert found["frames_per_second"] == [10.0]


def test_metrics_may_be_joined_by_commas(words, tmp_path):
    start = words[: words.index("--metrics")]
    perform(*start, "--metrics", "miou,vc,tc", "--savedir", tmp_path / "run")
    assert "TC" in results(tmp_path / "run")
    done = call(*start, "--metrics", "miou,speed", "--savedir", tmp_path / "other")
    assert_one_line(done, "speed", tmp_path / "other")


def parsed(words, *more):
    return main.parse_args([str(word) for word in (*words, *more, "--savedir", "unused")])


def test_a_video_without_a_rate_asks_for_one(tmp_path):
    root = make_folder(tmp_path / "data", frames=4)
    words = ["--eval-mode", "--method", "single", "--dataset", "folder", "--data-root", root]
    words += ["--metrics", "latency", "--latency-ms", "10"]
    args = parsed(words)
    data = build_dataset(args, "val", augment=False)
    with pytest.raises(ValueError, match="give --arrival-rate"):
        arrivals_of(args, data, SingleFrame(ToyBackbone(4)))
    args = parsed(words, "--arrival-rate", "20")
    arrivals = arrivals_of(args, data, SingleFrame(ToyBackbone(4)))
    assert arrivals.rate(0) == 20 and arrivals.latency == 0.01


def test_flow_that_comes_with_the_frames_cannot_leave_any_out(words):
    start = [word for word in words if word != "--method" and word != "single"]
    args = parsed(start, "--method", "flow", "--flow", "given")
    data = build_dataset(args, "val", augment=False)
    method = KeyFrames(ToyBackbone(11))
    method.optical_flow = None
    with pytest.raises(ValueError, match="choose another --flow"):
        arrivals_of(args, data, method)


def test_what_frames_far_apart_cannot_tell_is_said():
    said = []
    args = parsed(["--eval-mode", "--method", "single", "--metrics", "tc", "latency"])
    data = SimpleNamespace(step=True, videos=[SimpleNamespace(fps=1.0)])
    tell_unmeasured(args, data, SimpleNamespace(note=said.append))
    assert len(said) == 1 and "not measured: tc, latency" in said[0]
    data.videos[0].fps = 15.0
    tell_unmeasured(args, data, SimpleNamespace(note=said.append))
    assert len(said) == 1
