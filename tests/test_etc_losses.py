"""etc: every loss against its formula, written out here once more, and the options that rule it.

Formulas: ETC (Liu et al., ECCV 2020) and what docs/methods.md adds, in float64; of ours they use
nothing but the toy networks.
"""

from __future__ import annotations

import random
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import main
from models import build_model
from models.backbones.backbone import Normalize
from models.etc import ETC, Weights
from models.optical_flow import FlowProvider
from models.parts.conv_lstm import MultiFrame
from models.single import SingleFrame
from toys import ToyBackbone

IGNORE = 255
CLASSES = 3
SIZE = (48, 64)
NEIGHBOUR_SHARE = 0.4
CLASS_WEIGHTS = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
IMAGENET_MEAN = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64).view(3, 1, 1)
IMAGENET_STD = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64).view(3, 1, 1)

FRAME_WEIGHTS = {"labels": 0.5, "motion": 0.3, "kd": 0.7}
RELATION_WEIGHTS = {"pairwise": 2.0, "pairwise_self": 1.5, "multi_frame": 0.9}
WEIGHTS = Weights(**FRAME_WEIGHTS, **RELATION_WEIGHTS)
AUXILIARY_WEIGHT = 0.4
TEMPERATURE = 4.0
POOL = 3
TERMS = {"ce", "aux", "motion", "kd", "pairwise", "pairwise_self", "multi_frame"}


# Networks and clips


class CoarseBackbone(ToyBackbone):
    """A teacher that has nothing in common with the student but the classes."""

    channels, stride, learned_ignore = 5, 8, True

    def __init__(self, num_classes: int):
        super().__init__(num_classes + 1)
        self.normalize = Normalize((0.6, 0.5, 0.3), (0.2, 0.4, 0.5))
        self.encoder = nn.Sequential(nn.Conv2d(3, 5, 3, 8, 1), nn.Tanh())
        self.classifier = nn.Conv2d(5, num_classes + 1, 1)


class OfBothFrames(FlowProvider):
    """Flow that depends on which frame comes first; how it does is written out in `computed`."""

    needs_weights = False

    def forward(self, frame, previous):
        return computed(frame, previous)


class Always(FlowProvider):
    """The same flow for all frames, on whatever grid it lies."""

    needs_weights = False

    def __init__(self, flow: Tensor):
        super().__init__()
        self.flow = flow

    def forward(self, frame, previous):
        return self.flow


def computed(frame: Tensor, previous: Tensor) -> Tensor:
    return torch.stack([9 * frame[:, 0], -7 * previous[:, 1]], 1)


def etc(**given) -> ETC:
    """In training mode, with all losses."""
    student, teacher = ToyBackbone(CLASSES), CoarseBackbone(CLASSES)
    student.align_corners = True
    for network in (student, teacher):
        nn.init.normal_(network.classifier.weight)
    options = {"weights": WEIGHTS, "aux_weight": AUXILIARY_WEIGHT, "pool": POOL, **given}
    model = ETC(student, teacher=SingleFrame(teacher), temperature=TEMPERATURE, **options)
    model.class_weights = CLASS_WEIGHTS.float()
    return model.train()


def batch(frames: int) -> tuple[Tensor, Tensor, Tensor]:
    """Clips, labels of all frames and flows, no two frames the same."""
    clip = torch.rand(2, frames, 3, *SIZE)
    labels = torch.randint(0, CLASSES, (2, frames, *SIZE))
    labels[..., :9] = IGNORE
    flows = 6 * torch.randn(2, frames - 1, 2, *SIZE)
    return clip, labels, flows


def assert_same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-9)


# The formulas, written out


class Maps(NamedTuple):
    """What a network makes of a frame."""

    embedding: Tensor  # (B, E, h, w)
    logits: Tensor  # (B, K, h, w)


def maps(network: nn.Module, frame: Tensor) -> Maps:
    embedding = network.embed(network.encode(frame))
    return Maps(embedding.double(), network.classify(embedding).double())


def enlarged(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=True)


def cell_means(x: Tensor, side: int, stride: int) -> Tensor:
    """x (B, C, h, w) -> means of squares, whole ones only."""
    return x.unfold(2, side, stride).unfold(3, side, stride).mean((-2, -1))


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean of labelled pixels, by the weights of their classes."""
    log_p = enlarged(logits, SIZE).log_softmax(1).movedim(1, -1)
    labelled = labels != IGNORE
    true = labels[labelled]
    found = log_p[labelled].gather(1, true[:, None])[:, 0]
    return -(CLASS_WEIGHTS[true] * found).sum() / CLASS_WEIGHTS[true].sum()


def at_flow(x: Tensor, flow: Tensor) -> Tensor:
    """x(p + flow(p)), bilinear; each of the four corners is clamped to the picture."""
    height, width = x.shape[-2:]
    across = torch.arange(width) + flow[:, 0]
    down = torch.arange(height)[:, None] + flow[:, 1]
    left, top = across.floor(), down.floor()
    a, b = (across - left)[:, None], (down - top)[:, None]

    def corner(i: int, j: int) -> Tensor:
        rows = (top + i).clamp(0, height - 1).long()
        columns = (left + j).clamp(0, width - 1).long()
        return torch.stack([one[:, y, z] for one, y, z in zip(x, rows, columns, strict=True)])

    upper = (1 - a) * corner(0, 0) + a * corner(0, 1)
    lower = (1 - a) * corner(1, 0) + a * corner(1, 1)
    return (1 - b) * upper + b * lower


def mask_of(frame: Tensor, other: Tensor, flow: Tensor, kind: str) -> Tensor:
    """Frames in [0, 1]; what is compared are ImageNet's colours, whatever the backbone takes."""
    here, there = ((x.double() - IMAGENET_MEAN) / IMAGENET_STD for x in (frame, other))
    difference = here - at_flow(there, flow)
    distance = {
        "absolute": difference.abs().sum(1, keepdim=True),
        "sum": difference.sum(1, keepdim=True).abs(),
        "none": torch.zeros_like(difference[:, :1]),
    }
    return torch.exp(-distance[kind])


def motion(model: ETC, clip: Tensor, flow: Tensor) -> Tensor:
    """Of the labelled frame and the one before it in the clip."""
    frame, other = clip[:, -1], clip[:, -2]
    flow = flow.double()
    scores, other_scores = (enlarged(maps(model.backbone, x).logits, SIZE) for x in (frame, other))
    if model.on_probabilities:
        scores, other_scores = scores.softmax(1), other_scores.softmax(1)
    mask = mask_of(frame, other, flow, model.mask)
    difference = mask * scores - mask * at_flow(other_scores, flow)
    return WEIGHTS.motion * difference.square().mean()


def divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Of predictions, its mean over all elements."""
    student = enlarged(student, teacher.shape[-2:])
    p, t = ((x / TEMPERATURE).softmax(1) for x in (student, teacher))
    return (t * (t / p).log()).mean()


def affinity(x: Tensor, y: Tensor, swapped: bool = False) -> Tensor:
    """(B, C, h, w) twice -> (B, P, P): products of pixels over their norms, or the other's."""
    x, y = x.flatten(2), y.flatten(2)
    products = (x[:, :, :, None] * y[:, :, None]).sum(1)
    rows, columns = (z.square().sum(1).sqrt() for z in ((y, x) if swapped else (x, y)))
    return products / (rows[:, :, None] * columns[:, None])


def difference_of(student: Tensor, teacher: Tensor) -> Tensor:
    return (student - teacher).square().mean()


def self_difference(student: Tensor, teacher: Tensor) -> Tensor:
    """Of relations within a frame; cells of POOL a side, two apart."""
    ours, theirs = (cell_means(x, POOL, 2) for x in (student, teacher))
    return difference_of(affinity(ours, ours), affinity(theirs, theirs))


def last_states(frames: list[Tensor], side: int, gates: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """The LSTM after reading the affinities of frames, in the order given: cell, hidden."""
    weight, bias = gates.weight.double(), gates.bias.double()
    hidden = cell = torch.zeros(1, 4, 1, 1, dtype=torch.float64)
    for x in frames:
        cells = cell_means(x, side, side)
        image = affinity(cells, cells)[:, None]
        read = torch.cat([image, hidden.expand(len(image), 4, *image.shape[-2:])], 1)
        enter, forget, leave, new = F.conv2d(read, weight, bias, padding=1).split(4, 1)
        cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
        hidden = leave.sigmoid() * cell.tanh()
    return cell, hidden


def multi_frame(
    student: list[Tensor], teacher: list[Tensor], side: int, gates: nn.Conv2d
) -> Tensor:
    cell, hidden = last_states(student, side, gates)
    taught_cell, taught_hidden = last_states(teacher, side, gates)
    return difference_of(cell, taught_cell) + difference_of(hidden, taught_hidden)


# All losses of a clip: of two frames (other, current) or three (before, behind, current)


def supervised(model: ETC, clip: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Of the current frame alone."""
    auxiliary = model.backbone.auxiliary(model.backbone.encode(clip[:, -1])).double()
    logits = maps(model.backbone, clip[:, -1]).logits
    ce = cross_entropy(logits, labels[:, -1])
    aux = AUXILIARY_WEIGHT * cross_entropy(auxiliary, labels[:, -1])
    return {"ce": WEIGHTS.labels * ce, "aux": WEIGHTS.labels * aux}


def distilled(model: ETC, clip: Tensor) -> dict[str, Tensor]:
    student = [maps(model.backbone, frame) for frame in clip.unbind(1)]
    teacher = [maps(model.teacher.frozen.backbone, frame) for frame in clip.unbind(1)]
    # Without what stands for "ignore"
    teacher = [Maps(x.embedding, x.logits[:, :CLASSES]) for x in teacher]
    # Relations are those of the coarser grid, the teacher's.
    coarse = [Maps(*(cell_means(x, 2, 2) for x in pair)) for pair in student]
    kd = predictions_of_frames(student, teacher)
    pairwise = relations_between_frames(coarse, teacher, model.swapped_norms)
    within = relations_within_frames(coarse, teacher)
    over_time = relations_over_time(coarse, teacher, model.multi_frame.convlstm.Gates)
    return {
        "kd": WEIGHTS.kd * kd,
        "pairwise": WEIGHTS.pairwise * pairwise,
        "pairwise_self": WEIGHTS.pairwise_self * within,
        "multi_frame": WEIGHTS.multi_frame * over_time,
    }


def predictions_of_frames(student: list[Maps], teacher: list[Maps]) -> Tensor:
    pairs = zip(student, teacher, strict=True)
    *others, current = [divergence(ours.logits, theirs.logits) for ours, theirs in pairs]
    if len(others) == 1:
        return current + others[0]
    return current + NEIGHBOUR_SHARE * (others[0] + others[1])


def relations_between_frames(student: list[Maps], teacher: list[Maps], swapped: bool) -> Tensor:
    """Of the current frame and the first of the clip."""
    ours = affinity(student[-1].logits, student[0].logits, swapped)
    theirs = affinity(teacher[-1].logits, teacher[0].logits, swapped)
    return difference_of(ours, theirs)


def relations_within_frames(student: list[Maps], teacher: list[Maps]) -> Tensor:
    pairs = zip(student, teacher, strict=True)
    *others, current = [self_difference(ours.embedding, theirs.embedding) for ours, theirs in pairs]
    return current + NEIGHBOUR_SHARE * sum(others)


def relations_over_time(student: list[Maps], teacher: list[Maps], gates: nn.Conv2d) -> Tensor:
    """The current frame comes second: after the one before it."""
    order = (0, 1) if len(student) == 2 else (0, 2, 1)
    ours, theirs = ([found[i].embedding for i in order] for found in (student, teacher))
    # Maps of 6x8 are smaller than two cells of 16: theirs are half as large as the shorter side.
    return multi_frame(ours, theirs, 3, gates)


@pytest.mark.parametrize("frames", [2, 3])
@pytest.mark.parametrize("swapped", [False, True])
def test_every_loss_of_a_clip_is_its_formula(frames, swapped):
    model = etc(swapped_norms=swapped)
    clip, labels, flows = batch(frames)
    expected = supervised(model, clip, labels) | distilled(model, clip)
    expected["motion"] = motion(model, clip, flows[:, -1])
    found = model.losses(clip, labels, flows)
    assert set(found) == set(expected) == TERMS
    for name, term in found.items():
        assert_same(term, expected[name])


@pytest.mark.parametrize("mask", ["absolute", "sum", "none"])
@pytest.mark.parametrize("on_probabilities", [False, True])
def test_the_motion_loss_is_its_formula_under_every_mask(mask, on_probabilities):
    model = etc(mask=mask, on_probabilities=on_probabilities)
    clip, labels, flows = batch(2)
    found = model.losses(clip, labels, flows)["motion"]
    assert_same(found, motion(model, clip, flows[:, -1]))


# Flow


@pytest.mark.parametrize("frames", [2, 3])
def test_flow_is_computed_from_the_labelled_frame_into_the_one_before_it_in_the_clip(frames):
    model = etc(optical_flow=OfBothFrames())
    clip, labels, _ = batch(frames)
    found = model.losses(clip, labels)["motion"]
    assert_same(found, motion(model, clip, computed(clip[:, -1], clip[:, -2])))
    back = motion(model, clip, computed(clip[:, -2], clip[:, -1]))
    assert (found - back).abs() > 0.01 * found, "the other order gives another loss"


def test_flow_is_computed_for_the_clips_alone_that_do_not_bring_it():
    model = etc(optical_flow=OfBothFrames())
    clip, labels, flows = batch(2)
    flow = torch.stack([flows[0, -1], computed(clip[:, -1], clip[:, -2])[1]])
    flows[1] = torch.nan
    assert_same(model.losses(clip, labels, flows)["motion"], motion(model, clip, flow))


def test_flow_on_a_coarser_grid_stays_in_pixels_of_the_frame():
    flow = torch.tensor([5.0, -3.0]).view(1, 2, 1, 1).expand(2, 2, *SIZE)
    model = etc(optical_flow=Always(flow[..., ::4, ::4]))
    clip, labels, _ = batch(2)
    assert_same(model.losses(clip, labels)["motion"], motion(model, clip, flow))


# Multi-frame distillation by itself


SIDES = {(32, 48): 16, (40, 70): 16, (12, 20): 6, (1, 5): 1}  # of cells, by the size of maps


@pytest.mark.parametrize("frames", [2, 3])
@pytest.mark.parametrize("size", SIDES)
def test_multi_frame_distillation_is_its_formula_with_gradients(frames, size):
    loss = MultiFrame()
    student = [torch.randn(2, 5, *size, requires_grad=True) for _ in range(frames)]
    teacher = [torch.randn(2, 7, *size) for _ in range(frames)]
    found = loss(student, teacher)
    ours, theirs = ([x.double() for x in network] for network in (student, teacher))
    expected = multi_frame(ours, theirs, SIDES[size], loss.convlstm.Gates)
    assert_same(found, expected)
    # Both branches teach the LSTM: neither is detached.
    leaves = [*student, *loss.parameters()]
    gradients = [torch.autograd.grad(x, leaves) for x in (found, expected)]
    for gradient, right in zip(*gradients, strict=True):
        assert (gradient - right).abs().max() <= 1e-3 * right.abs().max()


# Options


WORDS = (
    *("--training", "--method", "etc", "--backbone", "psp18", "--savedir", "unused"),
    *("--teacher-backbone", "psp18", "--teacher-weights", "teacher.pth"),
    *("--label-weight", "1", "--aux-weight", "0.4", "--motion-weight", "0.1"),
    *("--kd-weight", "1", "--pairwise-weight", "1", "--self-weight", "1"),
    *("--multi-frame-weight", "1"),
)


def model_of(*words: str) -> ETC:
    """As options say, on a small network; its weights do not depend on them."""
    args = main.parse_args([*WORDS, *words])
    args.backbone_class = args.teacher_class = "toys:ToyBackbone"
    torch.manual_seed(0)
    return build_model(args, CLASSES)


def losses_of(*words: str) -> dict[str, Tensor]:
    model = model_of(*words)
    return model.train().losses(*batch(2))


def changed_by(*words: str) -> set[str]:
    """The losses that are others than without these words."""
    before, after = losses_of(), losses_of(*words)
    assert set(before) == set(after) == TERMS
    return {name for name in TERMS if not torch.isclose(before[name], after[name], rtol=1e-3)}


@pytest.mark.parametrize(
    "option, value, named",
    [
        ("--motion-on", "probabilities", "motion"),
        ("--motion-mask", "sum", "motion"),
        ("--motion-mask", "none", "motion"),
        ("--kd-temperature", "4", "kd"),
        ("--pairwise-norms", "published", "pairwise"),
        ("--pairwise-pool", "3", "pairwise_self"),
    ],
)
def test_an_option_changes_the_loss_that_it_names_and_no_other(option, value, named):
    assert changed_by(option, value) == {named}


@pytest.mark.parametrize(
    "option, doubled, named",
    [
        ("--label-weight", "2", {"ce", "aux"}),
        ("--aux-weight", "0.8", {"aux"}),
        ("--motion-weight", "0.2", {"motion"}),
        ("--kd-weight", "2", {"kd"}),
        ("--pairwise-weight", "2", {"pairwise"}),
        ("--self-weight", "2", {"pairwise_self"}),
        ("--multi-frame-weight", "2", {"multi_frame"}),
    ],
)
def test_a_weight_that_is_doubled_doubles_its_loss_and_no_other(option, doubled, named):
    before, after = losses_of(), losses_of(option, doubled)
    expected = {name: term * (2 if name in named else 1) for name, term in before.items()}
    torch.testing.assert_close(after, expected)


def test_options_say_which_neighbours_are_drawn_and_how_fast_heads_learn():
    pairs = model_of("--neighbours", "2", "--neighbour-offsets", "5")
    assert pairs.training_offsets(random.Random(0)) == (-5, 5)
    rates = {group["lr"] for group in model_of("--head-lr", "3").parameter_groups(1.0, 0.0)}
    assert rates == {1.0, 3.0}


def test_each_value_of_an_option_means_what_it_says():
    plain = model_of("--pairwise-norms", "true", "--motion-on", "logits")
    assert not plain.swapped_norms and not plain.on_probabilities
    other = model_of("--pairwise-norms", "published", "--motion-on", "probabilities")
    assert other.swapped_norms and other.on_probabilities
    words = ["--motion-mask", "sum", "--kd-temperature", "4", "--pairwise-pool", "3"]
    model = model_of(*words)
    assert (model.mask, model.temperature, model.pool) == ("sum", 4.0, 3)
