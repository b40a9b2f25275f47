"""Key frames, as the options ask for them."""

from __future__ import annotations

import options
from options.keyframes import THRESHOLDS
from utils.keyframes import (
    Budget,
    FixedInterval,
    Motion,
    Policy,
    SceneCuts,
    Schedule,
    UnexplainedPixels,
)


def has_keys(args) -> bool:
    """Whether the method distinguishes key frames from others."""
    return "key_policy" in options.all_options() and "key_policy" not in options.without_effect(
        args
    )


def policy_of(args) -> Policy | None:
    """What chooses the key frames; None for methods without."""
    if not has_keys(args):
        return None
    cuts = SceneCuts(args.scene_cut_threshold)
    if args.key_policy == "fixed":
        return Schedule(FixedInterval(args.key_interval), cuts)
    return Schedule(adaptive(args), cuts, args.key_longest)


def adaptive(args) -> Policy:
    """A policy that looks at the frames, or at the clock."""
    if args.key_policy == "budget":
        return Budget(args.key_budget)
    threshold = args.key_threshold
    if threshold is None:
        threshold = THRESHOLDS[args.key_policy]
    return {"motion": Motion, "error": UnexplainedPixels}[args.key_policy](threshold)


def interval_of(args) -> int | None:
    """Non-key frames after each key frame; None where they are not always as many."""
    if has_keys(args) and args.key_policy == "fixed":
        return args.key_interval
    return None


def require_videos(args, data) -> None:
    """ValueError where an adaptive policy would see single frames of a video."""
    if has_keys(args) and args.key_policy != "fixed" and not data.step:
        raise ValueError(
            f"--key-policy {args.key_policy} follows whole videos, and --dataset {args.dataset} "
            "labels single frames: take --key-policy fixed"
        )
