"""The row of `tma`: TMANet's options and published settings."""

from __future__ import annotations

from argparse import Namespace

from ..backbones import SGD
from ..jobs import NETWORK, SCORING, validates
from ..memory import QUEUE, drawn_memory, window_offsets
from ..option import Group, Option
from ..rows import Method
from ..types import positive


def offsets(args: Namespace) -> tuple[int, ...]:
    """The last frames of the window, as many as there are positions in memory."""
    return window_offsets(args)[-args.stm_queue_size :]


def random_memory(args: Namespace) -> tuple[int, int] | None:
    return drawn_memory(args, args.stm_queue_size)


CHANNELS = Group(
    "memory (tma)",
    (
        Option(
            "--key-channels",
            "channels of keys (default: a quarter of those of values)",
            type=positive,
        ),
        Option(
            "--value-channels",
            "channels of values (default: 256, or half of the backbone's where it has fewer than "
            "512)",
            type=positive,
        ),
    ),
    jobs=NETWORK,
)

FIRST = Group(
    "scoring (tma)",
    (
        Option(
            "--first-frames",
            "frames that have too few before them: repeat (the first frame stands for those that "
            "are missing), skip (they are labelled so, but not scored)",
            choices=("repeat", "skip"),
            default="repeat",
            acts_if=validates,
            network=False,
        ),
    ),
    jobs=SCORING,
)

# Augmentation of the published configurations.
SIZES = {"random_scale": (0.5, 2.0), "crop_max_ratio": 0.75, "interpolation": "cv2"}

ROW = Method(
    "tma",
    "TMANet, temporal memory attention (Wang et al., ICIP 2021)",
    "models.tma:TMANet",
    groups=(QUEUE, CHANNELS, FIRST),
    # All is trained at one rate, and every pixel divides the loss, ignored ones too (published).
    defaults={
        **SGD,
        "weight_decay": 5e-4,
        "lr_min": 1e-4,
        "batch_size": 8,
        "num_epochs": 215,
        "head_lr": 1.0,
        "loss_mean": "all",
        "photometric": "frame",
        "stm_queue_size": 2,
    },
    published={
        ("r50v1c", "cityscapes"): {**SIZES, "random_crop": (769, 769), "align_corners": True},
        ("r50v1c", "camvid"): {
            **SIZES,
            "random_crop": (640, 640),
            "stm_queue_size": 4,  # the published CamVid model reads four frames, Cityscapes two
            "num_epochs": 1750,
        },
    },
    offsets=offsets,
    derived={"random_memory": random_memory},
)
