"""The row of `etc`: its losses, each with a weight, and what they were published with."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace

from ..backbones import ROWS
from ..jobs import TRAINING
from ..optical_flow import FLOW, flow_name
from ..option import FREE, Group, Option
from ..rows import Method
from ..types import path, positive, rate, scale

TEACHERS = {row.name: row.network for row in ROWS}
DISTILLATION = ("kd_weight", "pairwise_weight", "self_weight", "multi_frame_weight")
PUBLISHED_OFFSETS = (-2, -1, 1, 2, 3)


def offset(text: str) -> int:
    """A distance from the labelled frame, in frames."""
    value = int(text)
    if not value:
        raise ArgumentTypeError("0 is the labelled frame itself: give others")
    return value


def distils(args: Namespace) -> bool:
    return any(getattr(args, name) for name in DISTILLATION)


def moves(args: Namespace) -> bool:
    return args.motion_weight > 0


def offsets(args: Namespace) -> tuple[int, ...]:
    """Neighbours are for training alone; a synthetic past stands for them too."""
    if not (args.training and (moves(args) or distils(args))):
        return ()
    return tuple(range(-args.neighbours, 0))


def teacher_class(args: Namespace) -> str | None:
    return TEACHERS.get(args.teacher_backbone)


def refuse_missing_teacher(args: Namespace) -> str | None:
    if args.training and distils(args) and not (args.teacher_backbone and args.teacher_weights):
        return (
            "a distillation (--kd-weight, --pairwise-weight, --self-weight, --multi-frame-weight) "
            "needs --teacher-backbone and --teacher-weights"
        )
    return None


def refuse_two_past_neighbours(args: Namespace) -> str | None:
    if args.training and args.neighbours == 2 and args.synthetic_past > 0:
        return (
            "--neighbours 2 lie before and behind the frame, and --synthetic-past makes frames "
            "before it alone: drop one of the two"
        )
    return None


NEIGHBOURS = Group(
    "training: neighbours (etc)",
    (
        Option(
            "--neighbours",
            "frames beside the labelled one: 1, or 2 (one before it, one behind it)",
            type=int,
            choices=(1, 2),
            default=1,
        ),
        Option(
            "--neighbour-offsets",
            "distances they are drawn from (published: -2 -1 1 2 3)",
            type=offset,
            nargs="+",
            default=[-3, -2, -1, 1, 2, 3],
        ),
    ),
    jobs=TRAINING,
)
MOTION = Group(
    "training: temporal loss (etc)",
    (
        Option("--label-weight", "of the cross entropy of the labels", type=rate, default=1.0),
        Option("--motion-weight", "of the temporal loss", type=rate, default=0.1),
        Option(
            "--motion-on",
            "what it compares",
            choices=("logits", "probabilities"),
            default="logits",
            acts_if=moves,
        ),
        Option(
            "--motion-mask",
            "what colour differences along the flow mean: absolute ones, their sum (published: "
            "opposite ones cancel), none",
            choices=("absolute", "sum", "none"),
            default="absolute",
            acts_if=moves,
        ),
    ),
    jobs=TRAINING,
)
TEACHING = Group(
    "training: distillation (etc)",
    (
        Option(
            "--teacher-backbone", "the teacher's network", choices=tuple(TEACHERS), acts_if=distils
        ),
        Option(
            "--teacher-weights",
            "its weights: a single-frame network for the same classes",
            type=path,
            metavar="FILE",
            resume=FREE,
            per_machine=True,
            acts_if=distils,
        ),
        Option("--kd-weight", "of what the teacher predicts", type=rate, default=0.0),
        Option(
            "--kd-temperature",
            "of these predictions",
            type=scale,
            default=1.0,
            acts_if=lambda args: args.kd_weight > 0,
        ),
        Option(
            "--pairwise-weight", "of how it relates pixels of two frames", type=rate, default=0.0
        ),
        Option(
            "--pairwise-norms",
            "true cosines, or with norms of the other frame's pixels as published",
            choices=("true", "published"),
            default="true",
            acts_if=lambda args: args.pairwise_weight > 0,
        ),
        Option("--self-weight", "of how it relates pixels of a frame", type=rate, default=0.0),
        Option(
            "--pairwise-pool",
            "cells that are averaged before, a side",
            type=positive,
            default=2,
            acts_if=lambda args: args.self_weight > 0,
        ),
        Option(
            "--multi-frame-weight",
            "of these relations over all frames, read by an LSTM",
            type=rate,
            default=0.0,
        ),
    ),
    jobs=TRAINING,
)

ROW = Method(
    "etc",
    "ETC (Liu et al., ECCV 2020): trained to be consistent, then run frame by frame",
    "models.etc:ETC",
    groups=(FLOW, NEIGHBOURS, MOTION, TEACHING),
    published={
        ("psp18", "cityscapes"): {
            "class_weights": "etc",
            "random_scale": (0.5, 2.0),
            "random_rotate": 10.0,
            "random_blur": 0.5,
            "random_crop": (769, 769),
            "interpolation": "cv2",
        }
    },
    offsets=offsets,
    derived={"flow": flow_name, "teacher_class": teacher_class, "teacher_network": lambda args: {}},
    refusals=(refuse_missing_teacher, refuse_two_past_neighbours),
)
