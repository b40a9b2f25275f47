"""The row of `lma`: LMANet's options and published settings."""

from __future__ import annotations

from argparse import Namespace

from ..jobs import NETWORK, TRAINING
from ..memory import QUEUE, drawn_memory, memory_stride, window_offsets
from ..option import Group, Option
from ..rows import Method
from ..types import odd, rate, share

FUSIONS = (
    "sigmoid-do1",
    "sigmoid-do2",
    "sigmoid-do3",
    "sigmoid",
    "simple-sigmoid",
    "concat",
    "product",
    "sigmoid-down1",
)
STRUCTURES = ("original", "aux_mem_loss", "mem_only", "original_kv_fusion")


def offsets(args: Namespace) -> tuple[int, ...]:
    """The frames in LMANet's memory, as --win-size, --stm-queue-size and the strategy say."""
    if args.baseline_mode:
        return ()
    earlier = window_offsets(args)
    if args.model_struct == "original_kv_fusion":  # recurrent: a clip may be longer than its queue
        return earlier
    # Of a longer window the newest frames are read, as many as the queue holds.
    # With --memorize-first the current frame takes one place of the queue.
    kept = args.stm_queue_size - args.memorize_first
    return earlier[max(len(earlier) - kept, 0) :]


def random_memory(args: Namespace) -> tuple[int, int] | None:
    """One frame fewer than the queue holds is drawn, as published."""
    return drawn_memory(args, args.stm_queue_size - 1)


def refuse_recurrent_with_gaps(args: Namespace) -> str | None:
    if args.model_struct != "original_kv_fusion":
        return None
    if args.memorize_first or memory_stride(args) > 1:
        return (
            "--model-struct original_kv_fusion writes memory after each read: it goes with "
            "neither --memorize-first nor --memory-strategy skip_*"
        )
    return None


def refuse_distilling_nothing(args: Namespace) -> str | None:
    if args.feature_distillation and (args.baseline_mode or args.model_struct == "mem_only"):
        return (
            "--feature-distillation is about fused features: it goes with neither "
            "--baseline-mode nor --model-struct mem_only"
        )
    return None


def refuse_correspondence_without_flow(args: Namespace) -> str | None:
    if not args.correspondence_loss:
        return None
    if args.dataset != "synthetic":
        return (
            f"--correspondence-loss needs optical flow, which --dataset {args.dataset} does not "
            "bring: synthetic does"
        )
    if not args.local_correlation:
        return (
            "--correspondence-loss is about the window of local attention: it does not go with "
            "--no-local-correlation"
        )
    return None


def refuse_half_a_baseline(args: Namespace) -> str | None:
    if not args.baseline_mode:
        return None
    if args.memorize_first or args.model_struct != "original":
        return "--baseline-mode switches memory off: drop --memorize-first and --model-struct"
    if args.training and not (args.train_encoder or args.train_decoder):
        return "--baseline-mode leaves nothing to train: add --train-encoder or --train-decoder"
    return None


MEMORY = Group(
    "memory (lma)",
    (
        Option(
            "--corr-size",
            "side of the local attention window in cells of the feature map, odd",
            type=odd,
            default=21,
            acts_if=lambda args: args.local_correlation and not args.baseline_mode,
        ),
        Option(
            "--model-struct",
            "aux_mem_loss: a second decoder with a loss labels what was read; mem_only: only that "
            "decoder; original_kv_fusion: memory is written from fused features (recurrent)",
            choices=STRUCTURES,
            default="original",
        ),
        Option(
            "--local-correlation",
            "attention in a local window; --no-...: global attention",
            type=bool,
            negatable=True,
            default=True,
        ),
        Option(
            "--learnable-constant",
            "a learnable extra logit (no match) beside those of the memory",
            type=bool,
        ),
        Option(
            "--memorize-first",
            "the current frame is written to memory before it is read",
            type=bool,
        ),
        Option(
            "--fusion-strategy",
            "how the frame's value and what it read from memory are fused",
            choices=FUSIONS,
            # Its values are the features themselves, so a new memory begins as good as the
            # network it is added to; the others lose small objects until they have learnt.
            default="sigmoid-down1",
        ),
        Option("--baseline-mode", "memory off: the single-frame network", type=bool),
    ),
    jobs=NETWORK,
)

LEARNING = Group(
    "training (lma)",
    (
        # Published behaviour: query and memory compare equal things from the first step on.
        Option(
            "--align-weights",
            "the key layers of query and memory begin with equal weights",
            type=bool,
            negatable=True,
            default=True,
        ),
        Option(
            "--always-decode",
            "decode every frame of a clip and learn from all labels in it",
            type=bool,
        ),
        Option(
            "--small-key-init",
            "key layers begin ten times smaller and learn more slowly, so that attention stays "
            "soft",
            type=bool,
        ),
        Option(
            "--correspondence-loss",
            "weight of a loss that supervises attention with ground-truth flow; needs data with "
            "optical flow (synthetic)",
            type=rate,
            default=0.0,
        ),
        Option(
            "--feature-distillation",
            "share of a loss that pulls fused features to the frame's own; with 1 no labels are "
            "used: a quick start for a new memory",
            type=share,
            default=0.0,
        ),
    ),
    jobs=TRAINING,
)

ROW = Method(
    "lma",
    "LMANet, local memory attention (Paul et al., IROS 2021)",
    "models.lma:LMANet",
    groups=(QUEUE, MEMORY, LEARNING),
    # The published training: the memory alone learns, on top of a trained single-frame network.
    defaults={
        "optimizer": "adam",
        "lr_start": 5e-5,
        "lr_strategy": "pow_09",
        "weight_decay": 1e-4,
        "batch_size": 6,
        "num_epochs": 150,
        "head_lr": 1.0,
        "aux_weight": 0.0,
        "train_encoder": False,
        "train_decoder": False,
        "random_shift": 2,
        "photometric": "none",
    },
    # ERFNet worked at half of Cityscapes' size, PSPNet101 at a size of the form 8k + 1.
    published={
        ("erf", "cityscapes"): {
            "work_size": (512, 1024),
            "class_weights": "lma",
            "fusion_strategy": "sigmoid-do1",
        },
        ("psp101", "cityscapes"): {"work_size": (1025, 2049), "class_weights": "lma"},
    },
    offsets=offsets,
    derived={"random_memory": random_memory},
    refusals=(
        refuse_recurrent_with_gaps,
        refuse_distilling_nothing,
        refuse_correspondence_without_flow,
        refuse_half_a_baseline,
    ),
)
