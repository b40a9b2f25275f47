"""Options that methods with a memory of past frames share: which frames are in it."""

from __future__ import annotations

from argparse import Namespace

from .jobs import NETWORK
from .option import Group, Option
from .types import positive, window

STRATEGIES = ("all", *(f"skip_0{n}" for n in range(1, 6)), "random")


def memory_stride(args: Namespace) -> int:
    """From one frame in memory to the next: N + 1 for skip_0N."""
    if args.memory_strategy.startswith("skip"):
        return int(args.memory_strategy[-1]) + 1
    return 1


def memory_window(args: Namespace) -> int:
    """Frames of a clip before the one to label; by default as many as fill the queue."""
    if args.win_size == -1:
        return args.stm_queue_size * memory_stride(args)
    return args.win_size - 1


def window_offsets(args: Namespace) -> tuple[int, ...]:
    """Every stride-th frame of the window, oldest first."""
    return tuple(range(-memory_window(args), 0, memory_stride(args)))


def drawn_memory(args: Namespace, frames: int) -> tuple[int, int] | None:
    """(N, W) where a training clip has N frames in memory, drawn among the last W; else None."""
    # Evaluation reads what the window names; only training draws.
    if args.memory_strategy != "random":
        return None
    return frames, memory_window(args)


def refuse_uneven_window(args: Namespace) -> str | None:
    frames = memory_window(args)
    stride = memory_stride(args)
    if frames % stride == 0:
        return None
    return (
        f"--memory-strategy {args.memory_strategy} needs a --win-size of 1 + a multiple of "
        f"{stride}, got {frames + 1}"
    )


def refuse_impossible_draw(args: Namespace) -> str | None:
    if args.random_memory is None:
        return None
    frames, window_size = args.random_memory
    if 1 <= frames <= window_size:
        return None
    return (
        f"--memory-strategy random draws {frames} of the {window_size} frames before the labelled "
        "one: change --stm-queue-size or --win-size"
    )


def memory_is_on(args: Namespace) -> bool:
    """LMANet's --baseline-mode switches memory off."""
    return not args.baseline_mode


# Which frames are read is part of what the weights have learnt, so all of it goes with them.
QUEUE = Group(
    "memory of past frames (lma, tma)",
    (
        Option(
            "--stm-queue-size", "frames in memory", type=positive, default=3, acts_if=memory_is_on
        ),
        Option(
            "--win-size",
            "frames of a clip (-1: as many as fill the memory, and the labelled one)",
            type=window,
            default=-1,
            acts_if=memory_is_on,
        ),
        Option(
            "--memory-strategy",
            "earlier frames in memory: all; skip_0N: every (N+1)-th; random: drawn anew for each "
            "training clip",
            choices=STRATEGIES,
            default="all",
            acts_if=memory_is_on,
        ),
    ),
    jobs=NETWORK,
    refusals=(refuse_uneven_window, refuse_impossible_draw),
)
