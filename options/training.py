"""Options of a training: optimizer, schedule, losses, what is trained, what is logged and kept."""

from __future__ import annotations

from argparse import Namespace

from .jobs import TRAINING
from .option import FREE, Group, Option
from .tables import BACKBONES
from .types import natural, positive, rate, share

# Those of the originals: pow_* and plateau_* LMANet's and ERFNet's, poly TMANet's and PSPNet's.
SCHEDULES = (
    "constant",
    "pow_07",
    "pow_09",
    "pow_09_b",
    "plateau_03",
    "plateau_05",
    "plateau_07",
    "plateau_08",
    "plateau_09",
    "poly",
    "step",
)
# Published lists by name, and those that are counted from the training labels.
CLASS_WEIGHTS = ("none", "lma", "lma-shallow", "swnet", "etc", "balanced")
POLY = {"lr_strategy": ("poly",)}
STEP = {"lr_strategy": ("step",)}


def refuse_impossible_ohem(args: Namespace) -> str | None:
    if not args.ohem:
        return None
    threshold, kept = args.ohem  # both come as numbers: argparse has one type for all values
    if 0 < threshold <= 1 and kept == int(kept):
        return None
    return f"--ohem needs a threshold in (0, 1] and a number of pixels, got {threshold} {kept}"


def refuse_missing_head(args: Namespace) -> str | None:
    if not args.aux_weight or BACKBONES[args.backbone].auxiliary:
        return None
    return f"--aux-weight {args.aux_weight}: --backbone {args.backbone} has no auxiliary head"


OPTIMIZATION = Group(
    "training",
    (
        # Free, since a finished run may be trained for longer. With the poly schedule, whose rate
        # depends on it, the epochs before were trained at other rates than a longer run has.
        Option(
            "--num-epochs",
            "passes over the training split; a resumed run may go on for more",
            type=positive,
            default=150,
            resume=FREE,
            everyday=True,
        ),
        Option("--batch-size", "clips per rank", type=positive, default=6, everyday=True),
        Option("--optimizer", "update rule", choices=("adam", "adamw", "sgd"), default="adam"),
        Option("--lr-start", "learning rate at the start", type=rate, default=5e-4, everyday=True),
        Option(
            "--lr-strategy",
            "pow_*: by epoch; poly, step: by iteration; plateau_*: when the training loss stalls",
            choices=SCHEDULES,
            default="pow_09",
        ),
        Option("--lr-min", "floor of the poly schedule", type=rate, default=0.0, only_with=POLY),
        Option(
            "--lr-power", "exponent of the poly schedule", type=rate, default=0.9, only_with=POLY
        ),
        Option("--lr-warmup", "iterations of linear warm-up", type=natural, default=0),
        Option(
            "--lr-step",
            "iterations per step of the step schedule",
            type=positive,
            default=100,
            only_with=STEP,
        ),
        Option(
            "--lr-gamma",
            "factor per step of the step schedule",
            type=rate,
            default=0.992,
            only_with=STEP,
        ),
        Option(
            "--head-lr",
            "learning rate of all but the encoder (lma: of the memory), relative to the rest",
            type=rate,
            default=1.0,
        ),
        Option("--momentum", "of SGD", type=share, default=0.9, only_with={"optimizer": ("sgd",)}),
        Option(
            "--nesterov",
            "Nesterov's momentum (SwNet-seq)",
            type=bool,
            negatable=True,
            default=False,
            only_with={"optimizer": ("sgd",)},
        ),
        Option("--weight-decay", "of all parameters", type=rate, default=1e-4),
    ),
    jobs=TRAINING,
)

LOSSES = Group(
    "training: losses",
    (
        Option(
            "--class-weights",
            "of the cross entropy; balanced: 1 / ln(1.10 + class frequency) of the training split",
            choices=CLASS_WEIGHTS,
            default="none",
        ),
        Option(
            "--loss-mean",
            "divide the loss by the number of labelled pixels or of all",
            choices=("valid", "all"),
            default="valid",
        ),
        Option(
            "--ohem",
            "train on hard pixels only: those below a probability, or the KEPT hardest per rank",
            type=rate,
            nargs=2,
            metavar=("THRESHOLD", "KEPT"),
        ),
        Option("--aux-weight", "of the auxiliary head's loss", type=rate, default=0.0),
        # Free: whoever meets such a step wants to go on from the last checkpoint without it.
        Option(
            "--on-nonfinite",
            "a step whose loss or gradients are not finite ends the run, or is skipped and counted",
            choices=("stop", "skip"),
            default="stop",
            resume=FREE,
        ),
    ),
    jobs=TRAINING,
    refusals=(refuse_impossible_ohem, refuse_missing_head),
)

# LMANet trains its memory alone, on a single-frame network that stays as it is.
TRAINED = Group(
    "training: which parts",
    (
        Option(
            "--train-encoder",
            "train the backbone's encoder",
            type=bool,
            negatable=True,
            default=True,
            everyday=True,
        ),
        Option(
            "--train-decoder",
            "train the rest of the backbone",
            type=bool,
            negatable=True,
            default=True,
            everyday=True,
        ),
        Option("--encoder-eval-mode", "keep the encoder's batch norm statistics", type=bool),
        Option("--decoder-eval-mode", "keep the decoder's batch norm statistics", type=bool),
    ),
    jobs=TRAINING,
)

# None of these changes the weights, so a resumed run may choose anew.
RECORD = Group(
    "training: what is scored, logged and kept",
    (
        Option(
            "--iouTrain", "mIoU on the training split too", type=bool, negatable=True, default=False
        ),
        Option(
            "--iouVal",
            "validate after each epoch (camvid: off, its val part is a test; the last epoch then "
            "counts as best)",
            type=bool,
            negatable=True,
            default=True,
        ),
        Option("--steps-loss", "print the loss every N steps", type=positive, default=100),
        Option(
            "--steps-save",
            "write a checkpoint every N steps too (0: after epochs)",
            type=natural,
            default=0,
        ),
        Option(
            "--epochs-save", "keep model-EEE.pth every N epochs (0: never)", type=natural, default=0
        ),
        Option("--tensorboard", "write TensorBoard events into --savedir", type=bool),
    ),
    jobs=TRAINING,
    resume=FREE,
)
