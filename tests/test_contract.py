"""The contract carries what is to come: toy methods, each one class and one table row."""

from __future__ import annotations

import random
from importlib import import_module

import pytest
import torch

import main
import models
import options
from datasets import build_dataset
from datasets.clip import ClipDataset
from engine import LossModule, Stepper
from evaluations import evaluated
from laws import assert_stream_equals_clip, video
from models.parts.frozen import Frozen
from models.single import SingleFrame
from options.rows import Method
from toys import FourLabels, Gaps, KeyFrames, ToyBackbone, TwoForwards
from utils.keyframes import FixedInterval
from utils.run.loading import collate
from utils.views import Views

TOYS = {"gaps": Gaps, "keyframes": KeyFrames, "two": TwoForwards, "four": FourLabels}


def toy(name: str):
    torch.manual_seed(1)
    model = TOYS[name](ToyBackbone(5))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
    return model


@pytest.mark.parametrize("name", TOYS)
def test_stream_equals_clip_for_every_toy(name):
    assert_stream_equals_clip(toy(name))


@pytest.mark.parametrize("backbone", ["erf", "psp18"])
def test_stream_equals_clip_for_single(backbone):
    args = main.parse_args(
        ["--training", "--method", "single", "--backbone", backbone, "--savedir", "unused"]
    )
    assert_stream_equals_clip(models.build_model(args, 5))


def test_a_method_may_begin_a_video_by_repeating_its_first_frame():
    model = toy("gaps")
    model.startup = lambda past: tuple(max(offset, -past) for offset in (-3, -2, -1))
    model.offsets = (-3, -2, -1)
    assert_stream_equals_clip(model)


def test_a_windowed_toy_encodes_each_frame_once_when_stepped():
    model = toy("gaps").eval()
    frames, state = video(model, 12, 0), model.start()
    for frame in frames.unbind(1):
        _, state = model.step(frame, state)
    assert model.backbone.calls == 12
    assert len(state.entries) == 9, "state reaches back to the oldest offset and no further"


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param(lambda past: (-1,) * min(past, 3), id="the frame before, again and again"),
        pytest.param(lambda past: Gaps.TABLE.get(past, (-9, -6, -3))[::-1], id="reversed"),
        pytest.param(lambda past: Gaps.TABLE.get(past, (-9, -6, -4)), id="one offset beside"),
    ],
)
def test_the_law_test_notices_a_stream_that_reads_other_frames(rule):
    model = toy("gaps")
    # The reversed order matters: the toy then weighs its entries by place.
    predict = model.predict
    model.predict = lambda encoded, entries: predict(
        encoded, tuple((1 + place) * entry for place, entry in enumerate(entries))
    )
    assert_stream_equals_clip(model)
    model.select_entries = lambda state, entry: tuple(
        (*state.entries, entry)[len(state.entries) + offset] for offset in rule(len(state.entries))
    )
    with pytest.raises(AssertionError, match="differs"):
        assert_stream_equals_clip(model)


def test_the_law_test_notices_a_stream_that_forgets():
    model = toy("gaps")
    model.step = lambda frame, state, flow=None, key=None: (model.backbone(frame), state)
    with pytest.raises(AssertionError, match="differs"):
        assert_stream_equals_clip(model)


def test_observe_leaves_the_state_that_step_leaves():
    model = toy("keyframes").eval()
    frames = video(model, 3, 0)
    stepped = observed = model.start()
    for frame in frames.unbind(1):
        stepped, observed = model.step(frame, stepped)[1], model.observe(frame, observed)
    assert torch.equal(stepped.logits, observed.logits)


def test_key_frames_come_from_the_policy_and_flow_from_the_provider():
    model = toy("keyframes").eval()
    asked = []

    def flow(frame, previous):
        asked.append((frame, previous))
        return torch.zeros(frame.shape[0], 2, *frame.shape[-2:])

    stepper = Stepper(
        model,
        Views(model.size_rule),
        torch.autocast("cpu", enabled=False),
        flow=flow,
        policy=FixedInterval(2),
    )
    frames = video(model, 7, 0, batch=1)
    for frame in frames.unbind(1):
        stepper(frame)
    assert model.backbone.calls == 3, "frames 0, 3 and 6 are keys"
    needing = [1, 2, 4, 5]
    assert len(asked) == len(needing), "a key frame needs no flow"
    for t, (frame, previous) in zip(needing, asked, strict=True):
        assert torch.equal(frame, frames[:, t]) and torch.equal(previous, frames[:, t - 1])


def test_evaluation_gives_a_flow_provider_to_clips_and_to_steps_alike():
    model = KeyFrames(ToyBackbone(11)).eval()
    data = synthetic((-2, -1), startup=lambda past: tuple(range(-past, 0)), split="val")
    seen = []

    def flow(frame, previous):
        seen.append(tuple(frame.shape))
        return torch.full((1, 2, *frame.shape[-2:]), 2.0)

    given = evaluated(model, data, flow=flow)
    stepped = evaluated(model, data.stepping(), flow=flow)
    own = evaluated(model, data)
    assert given["loss"] == pytest.approx(stepped["loss"], rel=1e-5) != own["loss"]
    assert len(seen) == 2 * sum(range(12)) + 2 * 11, (
        "11 + 10 + ... flows by clips, one a frame by steps"
    )


def test_given_flow_and_own_flow_give_different_results_and_given_flows_reach_forward():
    model = toy("keyframes").eval()
    clip = video(model, 3, 0)
    flows = torch.full((2, 2, 2, *clip.shape[-2:]), 3.0)
    assert not torch.allclose(model(clip), model(clip, flows))
    stepped = model.start()
    for t in range(3):
        logits, stepped = model.step(clip[:, t], stepped, flows[:, t - 1] if t else None, t == 0)
    assert torch.equal(logits, model(clip, flows))


def test_a_frozen_network_is_not_saved_not_trained_and_still_found():
    model = toy("two").train()
    assert not any("teacher" in key for key in model.state_dict())
    assert not model.teacher.frozen.training and model.backbone.training
    assert not any(p.requires_grad for p in model.teacher.parameters())
    assert sum(name.endswith("normalize") for name, _ in model.named_modules()) == 2, (
        "golden tests replace both"
    )
    model.load_state_dict(model.state_dict())
    with pytest.raises(RuntimeError, match="backbone.classifier.weight"):
        model.load_state_dict(
            {k: v for k, v in model.state_dict().items() if k != "backbone.classifier.weight"}
        )
    assert not any(
        len(group["params"]) != sum(p.requires_grad for p in model.parameters())
        for group in model.parameter_groups(0.1, 0.0)
    )


def test_a_frozen_network_moves_with_its_model():
    assert toy("keyframes").double().optical_flow.frozen.layers[0].weight.dtype == torch.float64
    assert isinstance(toy("keyframes").optical_flow, Frozen)


def synthetic(offsets, draw=None, with_flows=False, startup=None, split="train"):
    args = main.parse_args(
        "--training --savedir unused --method single --dataset synthetic "
        "--synthetic-size 32 64 --synthetic-length 12 "
        "--synthetic-videos 2 2 2 --photometric none --random-flip 0".split()
    )
    args.offsets = offsets
    return build_dataset(args, split, draw=draw, with_flows=with_flows, startup=startup)


@pytest.mark.parametrize("name", TOYS)
def test_every_toy_trains_on_clips_of_the_synthetic_world(name):
    model = TOYS[name](ToyBackbone(11)).train()
    data = synthetic(model.offsets, model.training_offsets, with_flows=name == "two")
    batch = collate([data[(3, 0)], data[(17, 1)]])
    losses = LossModule(model)(batch.frames, batch.labels, batch.flows)
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(p.grad is not None for p in model.backbone.encoder.parameters())


def test_future_neighbours_are_drawn_per_sample_and_epoch_and_all_labels_come_along():
    data = synthetic((), toy("two").training_offsets, with_flows=True)
    clips = [data[(5, epoch)] for epoch in range(12)]
    last = clips[0].frames[-1]
    assert all(torch.equal(clip.frames[-1], last) for clip in clips), "the labelled frame stays"
    assert len({clip.frames[0].sum().item() for clip in clips}) > 2, (
        "its neighbour is drawn anew each epoch"
    )
    assert all(clip.labels.shape[0] == 2 and clip.flows.shape[:2] == (1, 2) for clip in clips)
    assert torch.equal(data[(5, 4)].frames, clips[4].frames), "and drawn again the same"


def test_random_neighbours_do_not_depend_on_the_global_random_state():
    data = synthetic((), toy("two").training_offsets)
    random.seed(1)
    one = data[(5, 0)].frames
    random.seed(2)
    assert torch.equal(one, data[(5, 0)].frames)


def test_evaluation_by_clips_equals_evaluation_by_step_and_encodes_once_per_frame():
    model = Gaps(ToyBackbone(11)).eval()
    data = synthetic(model.offsets, startup=lambda past: model.startup(min(past, 9)), split="val")
    assert data.dense
    results, calls = [], []
    for chosen in (data, data.stepping()):
        model.backbone.calls = 0
        results.append(evaluated(model, chosen))
        calls.append(model.backbone.calls)
    assert results[0]["IoU"] == pytest.approx(results[1]["IoU"], nan_ok=True)
    assert results[0]["loss"] == pytest.approx(results[1]["loss"], rel=1e-5)
    assert calls[1] == len(data) == 24 and calls[0] > 2 * calls[1]


def row_of(**settings) -> Method:
    """The row of a toy that stands in for `single`."""
    return Method("single", "a toy", **{"network": "toys:Gaps"} | settings)


def test_a_method_is_one_class_and_one_row(monkeypatch):
    row = row_of(defaults={"lr_start": 0.25}, offsets=lambda args: (-9, -6, -3))
    monkeypatch.setitem(options.METHODS, "single", row)
    words = "--training --method single --backbone psp18 --savedir unused".split()
    args = main.parse_args(words)
    model = models.build_model(args, 7)
    assert isinstance(model, Gaps) and model.offsets == args.offsets == (-9, -6, -3)
    assert args.lr_start == 0.25, "defaults of the row"


def test_an_impossible_pair_is_refused_with_the_pairs_that_can(monkeypatch, capsys):
    reason = "it needs maps at strides 4, 8, 16, 32"
    row = row_of(unfit=lambda backbone: None if backbone.stage_strides[-1:] == (8,) else reason)
    monkeypatch.setitem(options.METHODS, "single", row)
    with pytest.raises(SystemExit) as stop:
        main.parse_args("--training --method single --backbone erf --savedir unused".split())
    assert stop.value.code == 2
    line = capsys.readouterr().err
    assert reason in line and "psp18" in line and line.count("\n") == 1


@pytest.mark.parametrize("name", options.BACKBONES)
def test_facts_of_backbones_in_options_are_those_of_the_networks(name):
    row = options.BACKBONES[name]
    network = models.find(row.network)(5)
    assert row.stage_strides == network.stage_strides
    features = network.eval().encode(torch.rand(1, 3, *[network.size_rule.fit(64)] * 2))
    assert row.auxiliary == (network.auxiliary(features) is not None)
    assert features.last.shape[1] == network.channels
    assert len(features.stages) == len(network.stage_strides)


@pytest.mark.parametrize("name", options.DATASETS)
def test_a_data_set_has_the_two_functions_of_its_contract(name):
    module = import_module(options.DATASETS[name].module)
    assert callable(module.videos_of) and callable(module.labels_of)


def test_clips_near_the_ends_of_a_video_stay_inside_it():
    data = synthetic((), lambda rng: (3,))
    assert torch.equal(data[(11, 0)].frames[0], data[(11, 0)].frames[1]), (
        "the last frame has no future: it repeats"
    )
    assert isinstance(data, ClipDataset) and isinstance(SingleFrame(ToyBackbone(3)), SingleFrame)
