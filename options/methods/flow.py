"""The row of `flow`: SwNet-seq's options and published settings."""

from __future__ import annotations

from argparse import Namespace

from ..jobs import EVALUATION, LABELLING, NETWORK, TRAINING
from ..keyframes import KEYS
from ..optical_flow import DEFAULT, FLOW
from ..option import Group, Option
from ..rows import Method
from ..types import positive, rate, scale

# Flow networks that the filter was published with, and that are trained together with it.
TRAINED_FLOWS = ("light", "flownets")


def flow_name(args: Namespace) -> str:
    """What --flow says; else the network to be trained or published with the filter, or DIS."""
    if args.flow:
        return args.flow
    return "light" if args.training or args.propagate == "gsv" else DEFAULT


def propagation(args: Namespace) -> str:
    """What --propagate says; else the published filter with its flow networks, or warping."""
    if args.propagate:
        return args.propagate
    return "gsv" if args.training or args.flow in TRAINED_FLOWS else "warp"


def offsets(args: Namespace) -> tuple[int, ...]:
    """A clip to score has a key frame and `--key-interval` frames after it."""
    return tuple(range(-args.key_interval, 0))


def guided(args: Namespace) -> bool:
    return args.propagate == "gsv"


def refuse_training_nothing(args: Namespace) -> str | None:
    learns = {"gsv": True, "warp": args.flow in TRAINED_FLOWS, "hold": False}
    if args.training and not learns[args.propagate]:
        return (
            f"--propagate {args.propagate} --flow {args.flow} has nothing to train: train the "
            "backbone by --method single, or leave these two out"
        )
    return None


def refuse_keeping_what_learns(args: Namespace) -> str | None:
    if args.training and args.flow_cache and args.flow in TRAINED_FLOWS:
        return (
            f"--flow-cache: --flow {args.flow} is trained in this run, and its flow changes with "
            "every step: drop --flow-cache, or choose --flow dis or raft_small"
        )
    return None


PROPAGATION = Group(
    "propagation between key frames (flow)",
    (
        Option(
            "--propagate",
            "what happens between key frames: gsv (warped and filtered, the published network), "
            "warp (the key frame's logits, moved by flow), hold (default: gsv in training and with "
            "--flow light or flownets, else warp)",
            choices=("gsv", "warp", "hold"),
        ),
        Option(
            "--edge",
            "the filter sees where classes change",
            type=bool,
            negatable=True,
            default=True,
            acts_if=guided,
        ),
        Option(
            "--eval-scale",
            "key frames are segmented at this scale (published: 0.5, 0.75, 1)",
            type=scale,
            default=1.0,
            jobs=EVALUATION + LABELLING,
            network=False,
        ),
    ),
    jobs=NETWORK,
    refusals=(refuse_training_nothing, refuse_keeping_what_learns),
)

LEARNING = Group(
    "training (flow)",
    (
        Option(
            "--multi-step",
            "distances from the key frame that are learned",
            type=positive,
            nargs="+",
            default=[1, 2],
        ),
        Option(
            "--loss-weight", "of cross entropy and distillation together", type=rate, default=10.0
        ),
        Option(
            "--distillation-weight",
            "of the distance from what the backbone gives for the frame itself",
            type=rate,
            default=10.0,
        ),
        Option(
            "--flow-loss",
            "weight of the error against the flow that clips bring (synthetic, --synthetic-past)",
            type=rate,
            default=0.0,
        ),
        Option("--guide-lr", "of the guide, relative to --lr-start", type=rate, default=10.0),
        Option("--flow-lr", "of the flow network, relative to --lr-start", type=rate, default=10.0),
        Option("--train-filter", "train the filter's nine kernels too", type=bool),
    ),
    jobs=TRAINING,
)

ROW = Method(
    "flow",
    "key frames and optical flow: SwNet-seq, GSVNet (Lee et al., arXiv 2103.08834)",
    "models.flow:FlowPropagation",
    groups=(KEYS, FLOW, PROPAGATION, LEARNING),
    # The published training: filter and flow network learn, the segmenter teaches.
    defaults={
        "optimizer": "sgd",
        "nesterov": True,
        "momentum": 0.9,
        "lr_start": 0.002,
        "lr_strategy": "step",
        "weight_decay": 5e-4,
        "batch_size": 8,
        "num_epochs": 100,
        "train_encoder": False,
        "train_decoder": False,
    },
    published={
        ("swiftnet18", "cityscapes"): {
            "work_size": (1024, 2048),
            "class_weights": "swnet",
            "random_crop": (768, 1536),
        }
    },
    offsets=offsets,
    derived={"flow": flow_name, "propagate": propagation},
)
