"""Options of augmentation: one draw per clip."""

from __future__ import annotations

from argparse import Namespace

from .jobs import TRAINING
from .option import Group, Option
from .types import SIZE, natural, rate, scale, share


def refuse_falling_scales(args: Namespace) -> str | None:
    if not args.random_scale:
        return None
    low, high = args.random_scale
    if low <= high:
        return None
    return f"--random-scale needs 0 < LOW <= HIGH, got {low} {high}"


# Evaluation scales nothing, and a batch of one may have any size.
def refuse_batches_of_many_sizes(args: Namespace) -> str | None:
    if args.training and args.batch_size > 1 and args.random_scale and not args.random_crop:
        return (
            "--random-scale gives frames of different sizes: add --random-crop H W or "
            "--batch-size 1"
        )
    return None


AUGMENTATION = Group(
    "augmentation (one draw per clip)",
    (
        Option("--random-flip", "probability of a horizontal flip", type=share, default=0.5),
        Option(
            "--random-scale",
            "range of a random scale",
            type=scale,
            nargs=2,
            metavar=("LOW", "HIGH"),
        ),
        Option("--random-crop", "crop of the scaled frames", **SIZE),
        Option(
            "--crop-max-ratio",
            "redraw crops in which one class fills more than this",
            type=share,
            default=1.0,
            acts_if=lambda args: bool(args.random_crop),
        ),
        Option("--random-shift", "pixels of random translation", type=natural, default=0),
        Option(
            "--shift-border",
            "labels of the strip that a shift frees; road (class 0) as LMANet was published",
            choices=("ignore", "road"),
            default="ignore",
            acts_if=lambda args: args.random_shift > 0,
        ),
        Option(
            "--synthetic-past",
            "probability that a clip's past is made from its labelled frame by a known motion",
            type=share,
            default=0.0,
            acts_if=lambda args: bool(args.offsets),
        ),
        Option(
            "--random-rotate",
            "largest rotation in degrees, drawn with probability 0.5",
            type=rate,
            default=0.0,
        ),
        Option("--random-blur", "probability of a 5x5 Gaussian blur", type=share, default=0.0),
        Option(
            "--photometric",
            "colour distortion, drawn per frame or once per clip",
            choices=("none", "frame", "clip"),
            default="clip",
        ),
    ),
    jobs=TRAINING,
    refusals=(refuse_falling_scales, refuse_batches_of_many_sizes),
)
