"""The row of `mrcfa`: VSS-MRCFA's options and published settings."""

from __future__ import annotations

from argparse import Namespace

from ..jobs import NETWORK, TRAINING
from ..option import Group, Option
from ..rows import Backbone, Method
from ..types import negative, positive, share

STRIDES = (4, 8, 16, 32)
# Published are 160,000 steps of 8 clips: 6.5 times each labelled frame.
EPOCHS = 7


def offsets(args: Namespace) -> tuple[int, ...]:
    return tuple(args.offsets)


def refuse_disorder(args: Namespace) -> str | None:
    if sorted(set(args.offsets)) == list(args.offsets):
        return None
    given = " ".join(map(str, args.offsets))
    return f"--offsets go from the oldest frame to the newest, each once, got {given}"


def refuse_keeping_nothing(args: Namespace) -> str | None:
    if args.keep_ratio:
        return None
    return "--keep-ratio 0 would read no token of an earlier frame: give a share above 0"


def unfit(backbone: Backbone) -> str | None:
    if backbone.stage_strides == STRIDES:
        return None
    return "it compares maps at 1/8, 1/16 and 1/32 of the frame"


MEMORY = Group(
    "memory (mrcfa)",
    (
        Option(
            "--offsets",
            "which earlier frames are read, the oldest first; near the start of a video they lie "
            "closer together",
            type=negative,
            nargs="+",
            default=(-9, -6, -3),
            metavar="OFFSET",
        ),
        Option(
            "--keep-ratio",
            "share of an earlier frame's tokens that is read (published: 0.8 on mit_b0)",
            type=share,
            default=0.5,
        ),
        Option("--stm-topk", "best places by which a token is chosen", type=positive, default=5),
        Option(
            "--ref-size",
            "grid of the tokens of an earlier frame: 1/32 of its size, or 1/16 as in the paper's "
            "Cityscapes models",
            choices=("1_32", "1_16"),
            default="1_32",
        ),
        Option(
            "--affinity-convs",
            "convolutions in each block that refines affinities (published: 2 on mit_b1)",
            type=int,
            choices=(1, 2),
            default=1,
        ),
    ),
    jobs=NETWORK,
    refusals=(refuse_disorder, refuse_keeping_nothing),
)

LEARNING = Group(
    "training (mrcfa)",
    (
        Option(
            "--time-reversal",
            "probability that a training clip runs backwards",
            type=share,
            default=0.5,
        ),
    ),
    jobs=TRAINING,
)

ROW = Method(
    "mrcfa",
    "VSS-MRCFA, cross-frame affinities (Sun et al., ECCV 2022)",
    "models.mrcfa:MRCFANet",
    groups=(MEMORY, LEARNING),
    # All is trained, and every pixel divides the loss, ignored ones too (published).
    defaults={
        "optimizer": "adamw",
        "lr_start": 6e-5,
        "head_lr": 10.0,
        "lr_strategy": "poly",
        "lr_power": 1.0,
        "lr_min": 0.0,
        "lr_warmup": 1500,
        "weight_decay": 0.01,
        "batch_size": 2,
        "loss_mean": "all",
        "photometric": "frame",
        "interpolation": "cv2",
        "head_channels": 256,
    },
    published={
        (f"mit_b{size}", "vspw"): {"stretch": 32, "num_epochs": EPOCHS} for size in (0, 1, 2, 5)
    },
    offsets=offsets,
    unfit=unfit,
)
