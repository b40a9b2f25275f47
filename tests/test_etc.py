"""etc: its losses on clips, their flow and teacher, and that it labels as `single` does."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

import main
import options
from command import TINY, assert_one_line, call, perform
from laws import assert_stream_equals_clip, video
from models import build_model
from models.backbones.backbone import SizeRule
from models.etc import ETC, Weights, in_order, on_common_grid, over_frames
from models.optical_flow import FlowProvider
from models.parts.conv_lstm import ConvLSTM, MultiFrame
from models.single import SingleFrame
from toys import ToyBackbone
from trees import make_camvid, make_cityscapes
from utils import checkpoint, log

ALL = Weights(motion=0.1, kd=1.0, pairwise=1.0, pairwise_self=1.0, multi_frame=1.0)


class Still(FlowProvider):
    """Nothing moves; counts how often it is asked."""

    needs_weights = False

    def __init__(self):
        super().__init__()
        self.asked = 0

    def forward(self, frame, previous):
        self.asked += 1
        return torch.zeros(len(frame), 2, *frame.shape[-2:])


def etc(**given) -> ETC:
    torch.manual_seed(0)
    given = {"optical_flow": Still(), "weights": ALL, **given}
    student = ToyBackbone(3)
    teacher = SingleFrame(ToyBackbone(3)) if given["weights"].distil else None
    return ETC(student, teacher=teacher, **given)


def batch(frames: int):
    clip = torch.rand(2, frames, 3, 48, 64)
    labels = torch.full((2, frames, 48, 64), 255)
    labels[:, -1] = torch.randint(0, 3, (2, 48, 64))
    return clip, labels


# Losses


def test_every_loss_has_its_weight_and_is_left_out_without_one():
    clip, labels = batch(2)
    model = etc().train()
    terms = model.losses(clip, labels)
    assert set(terms) == {"ce", "motion", "kd", "pairwise", "pairwise_self", "multi_frame"}
    assert all(term.isfinite() and term > 0 for term in terms.values())
    torch.manual_seed(0)
    double = etc(weights=Weights(motion=0.2)).train().losses(clip, labels)
    assert set(double) == {"ce", "motion"}
    assert double["motion"].item() == pytest.approx(2 * terms["motion"].item(), rel=1e-4)
    assert double["ce"].item() == pytest.approx(terms["ce"].item(), rel=1e-5)


def test_without_neighbours_the_loss_is_that_of_single():
    clip, labels = batch(1)
    model = etc(weights=Weights(motion=0)).train()
    assert model.training_offsets(random.Random(0)) == ()
    torch.manual_seed(0)
    single = SingleFrame(ToyBackbone(3)).train()
    assert model.losses(clip, labels)["ce"] == single.losses(clip, labels)["ce"]


def test_a_student_that_sees_the_same_frame_twice_is_consistent():
    clip, labels = batch(1)
    clip, labels = clip.repeat(1, 2, 1, 1, 1), labels.repeat(1, 2, 1, 1)
    assert etc(weights=Weights()).train().losses(clip, labels)["motion"] < 1e-9


def test_both_frames_get_gradients_of_the_motion_and_neither_flow_nor_teacher():
    clip, labels = batch(2)
    clip.requires_grad_()
    model = etc().train()
    terms = model.losses(clip, labels)
    (gradient,) = torch.autograd.grad(terms["motion"], clip, retain_graph=True)
    assert (gradient.flatten(2).abs().amax(2) > 0).all()
    sum(terms.values()).backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert not any("frozen" in name for name in trained)
    assert "multi_frame.convlstm.Gates.weight" in trained
    assert not any("frozen" in name for name in model.state_dict())
    assert not model.teacher.training and not model.optical_flow.training


def test_the_current_frame_comes_first_so_that_batch_norms_see_it_apart():
    clip, labels = batch(2)
    model = etc(weights=Weights()).train()
    norm = model.backbone.encoder[1]
    model.losses(clip, labels)
    assert norm.num_batches_tracked == 2
    other = etc(weights=Weights()).train()
    other.backbone(clip[:, -1])
    other.backbone(clip[:, 0])
    assert torch.allclose(norm.running_mean, other.backbone.encoder[1].running_mean)


def test_flow_that_clips_bring_counts_more_than_computed_flow():
    clip, labels = batch(2)
    model = etc(weights=Weights()).train()
    flows = torch.full((2, 1, 2, 48, 64), 3.0)
    brought = model.losses(clip, labels, flows)["motion"]
    assert model.optical_flow.frozen.asked == 0
    flows[1] = np.nan
    mixed = model.losses(clip, labels, flows)["motion"]
    assert model.optical_flow.frozen.asked == 1 and mixed.isfinite() and mixed != brought


def test_neighbours_are_drawn_from_the_offsets_or_lie_on_both_sides():
    rng = random.Random(0)
    drawn = {etc(neighbour_offsets=(-2, 1)).training_offsets(rng) for _ in range(20)}
    assert drawn == {(-2,), (1,)}
    pairs = {etc(neighbours=2, neighbour_offsets=(-2, 1)).training_offsets(rng) for _ in range(20)}
    assert pairs == {(-2, 2), (-1, 1)}
    clip, labels = batch(3)
    assert len(etc(neighbours=2).train().losses(clip, labels)) == 6


# Parts


def test_a_loss_over_frames_gives_neighbours_their_published_share():
    assert over_frames([1.0, 10.0], 1.0) == 11 and over_frames([1.0, 10.0, 20.0]) == 13
    assert in_order(["now", "before", "behind"]) == ["before", "now", "behind"]
    assert in_order(["now", "other"]) == ["other", "now"]


def test_maps_meet_on_the_coarsest_grid():
    student, teacher = [torch.rand(1, 4, 12, 16)], [torch.rand(1, 7, 6, 20)]
    ours, theirs = on_common_grid(student, teacher, (8, 8))
    assert ours[0].shape == (1, 4, 6, 8) and theirs[0].shape == (1, 7, 6, 8)
    same, _ = on_common_grid(student, student, (99, 99))
    assert same[0] is student[0]


def test_the_lstm_is_the_written_equations():
    cell = ConvLSTM(1, 2)
    x, hidden, memory = torch.rand(1, 1, 3, 3), torch.rand(1, 2, 3, 3), torch.rand(1, 2, 3, 3)
    gates = nn.functional.conv2d(
        torch.cat([x, hidden], 1), cell.Gates.weight, cell.Gates.bias, padding=1
    )
    enter, forget, leave, change = gates[:, :2], gates[:, 2:4], gates[:, 4:6], gates[:, 6:]
    expected = forget.sigmoid() * memory + enter.sigmoid() * change.tanh()
    new_hidden, new_memory = cell(x, (hidden, memory))
    assert torch.allclose(new_memory, expected)
    assert torch.allclose(new_hidden, leave.sigmoid() * expected.tanh())
    start = cell(x, None)
    assert torch.equal(start[1], cell(x, (0 * hidden, 0 * memory))[1])


def test_a_teacher_sees_frames_of_a_size_that_it_can_take():
    model = etc()
    teacher = model.teacher.frozen.backbone
    teacher.size_rule = SizeRule(32)
    seen = []
    encode = teacher.encode
    teacher.encode = lambda frame: seen.append(tuple(frame.shape[-2:])) or encode(frame)
    assert all(loss.isfinite() for loss in model.losses(*batch(3)).values())
    assert set(seen) == {(64, 64)}


def test_multi_frame_distillation_is_nothing_for_a_student_that_is_its_teacher():
    loss = MultiFrame()
    maps = [torch.rand(1, 5, 32, 48) for _ in range(3)]
    assert loss(maps, maps) == 0
    assert loss(maps, maps[::-1]) > 0, "the order counts"


# As a method


@pytest.mark.parametrize("backbone", ["erf", "psp18", "swiftnet18", "espnetv2_s05", "mit_b0"])
def test_it_labels_as_single_does_frame_by_frame(backbone):
    words = ["--inference", "--source", "x", "--backbone", backbone, "--savedir", "unused"]
    models = []
    for method in ("single", "etc"):
        torch.manual_seed(0)
        args = main.parse_args([*words, "--weights", "w", "--method", method])
        models.append(build_model(args, 5).eval())
    single, model = models
    frames = video(model, 1, 0, size=(64, 64))
    with torch.no_grad():
        assert torch.equal(single(frames), model(frames))
    assert model.optical_flow is None and model.teacher is None
    assert single.state_dict().keys() == model.state_dict().keys()


def test_the_law():
    assert_stream_equals_clip(etc())


TRAIN = ["--training", *TINY, "--method", "etc", "--num-epochs", "1", "--batch-size", "2"]
TRAIN += ["--train-encoder", "--no-iouVal"]


def test_it_learns_from_exact_flow_and_a_teacher_and_is_scored_by_its_checkpoint(tmp_path):
    single = [word if word != "etc" else "single" for word in TRAIN]
    perform(*single, "--savedir", tmp_path / "teacher")
    teacher = tmp_path / "teacher" / "model_best.pth.tar"
    words = ["--teacher-backbone", "erf", "--teacher-weights", teacher, "--kd-weight", "1"]
    words += ["--multi-frame-weight", "1", "--synthetic-size", "64", "128"]
    done = perform(*TRAIN, *words, "--savedir", tmp_path / "run")
    assert f"teacher: loaded 343 of 343 entries from {teacher}" in done.stdout
    assert len(log.read(tmp_path / "run" / "automated_log.txt")) == 1
    weights = tmp_path / "run" / "model_best.pth.tar"
    kept = checkpoint.read(weights)["state_dict"]
    assert not any("teacher" in name or "optical_flow" in name for name in kept)
    assert "multi_frame.convlstm.Gates.weight" in kept
    data = [word for word in TINY if word not in ("--method", "single")]
    done = perform("--eval-mode", *data, "--weights", weights, "--savedir", tmp_path / "scored")
    assert "--method etc" in done.stdout


def test_it_computes_flow_where_clips_bring_none(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(ETC, "motion", lambda self, *a: asked.append(a[-1]) or a[2].mean() * 0)
    monkeypatch.setattr("datasets.synthetic.video.SyntheticVideo.flow", lambda *a: None)
    words = [*TRAIN, "--num-workers", "0"]
    perform(*words, "--savedir", tmp_path / "run")
    assert asked and all(flow.isfinite().all() and flow.abs().max() > 0 for flow in asked)


def test_a_distillation_without_a_teacher_and_a_teacher_of_others_are_told(tmp_path):
    done = call(*TRAIN, "--kd-weight", "1", "--savedir", tmp_path / "run")
    assert_one_line(done, "needs --teacher-backbone and --teacher-weights", tmp_path / "run")
    words = [*TRAIN, "--kd-weight", "1", "--teacher-weights", "trained_models/erfnet_synthetic.pth"]
    done = call(*words, "--teacher-backbone", "psp18", "--savedir", tmp_path / "run")
    assert_one_line(done, "are for --teacher-backbone erf, not for psp18", tmp_path / "run")
    with pytest.raises(ValueError, match="distillation needs a teacher"):
        ETC(ToyBackbone(3), weights=Weights(kd=1.0))


def test_flow_is_without_effect_once_it_is_trained():
    words = ["--inference", "--source", "x", "--method", "etc", "--backbone", "erf"]
    args = main.parse_args([*words, "--weights", "w", "--flow", "dis", "--savedir", "s"])
    assert "flow" in options.without_effect(args)


# Clips that teach nothing about time


def training(*words) -> list:
    base = [
        "--training",
        "--method",
        "etc",
        "--backbone",
        "erf",
        "--train-encoder",
        "--threads",
        "1",
    ]
    quick = ["--device", "cpu", "--num-workers", "0", "--num-epochs", "1", "--no-iouVal"]
    return [*base, *quick, *words]


def test_frames_a_second_apart_and_videos_of_one_frame_are_told(tmp_path):
    camvid = make_camvid(tmp_path / "camvid")
    words = training("--dataset", "camvid", "--data-root", camvid, "--batch-size", "2")
    done = perform(*words, "--savedir", tmp_path / "far")
    assert "1 seconds apart, and optical flow can hardly follow" in done.stdout + done.stderr
    done = perform(*words, "--synthetic-past", "1", "--savedir", tmp_path / "known")
    assert "seconds apart" not in done.stdout + done.stderr
    cityscapes = make_cityscapes(tmp_path / "city", (32, 64), numbers=())
    words = training("--data-root", cityscapes, "--batch-size", "1", "--work-size", "32", "64")
    done = perform(*words, "--savedir", tmp_path / "single")
    assert "no video has a second frame" in done.stdout + done.stderr


def test_the_labelled_frame_is_no_neighbour_of_its_own(tmp_path):
    done = call(*training("--neighbour-offsets", "0", "--savedir", tmp_path / "run"))
    assert_one_line(done, "0 is the labelled frame itself", tmp_path / "run")


def test_two_neighbours_of_a_synthetic_past_would_both_lie_before_the_frame(tmp_path):
    words = training("--neighbours", "2", "--synthetic-past", "1", "--savedir", tmp_path / "run")
    assert_one_line(call(*words), "makes frames before it alone", tmp_path / "run")


def test_a_student_that_learns_to_ignore_relates_pixels_by_its_classes_alone():
    torch.manual_seed(0)
    student = ToyBackbone(4)
    student.learned_ignore = True
    teacher = SingleFrame(ToyBackbone(4))
    teacher.backbone.load_state_dict(student.state_dict())
    model = ETC(student, teacher=teacher, weights=Weights(motion=0.0, pairwise=1.0))
    assert model.eval().losses(*batch(2))["pairwise"] == 0


def test_the_labels_have_a_weight_too():
    clip, labels = batch(2)
    with_labels = etc(weights=Weights(motion=0.1)).losses(clip, labels)
    without = etc(weights=Weights(labels=0.0, motion=0.1)).losses(clip, labels)
    assert with_labels["ce"] > 0 == without["ce"]
    assert torch.equal(with_labels["motion"], without["motion"])
