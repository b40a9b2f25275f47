"""Options of methods with key frames: which frames are key frames, and what is told of them."""

from __future__ import annotations

from argparse import Namespace
from functools import partial

from .jobs import EVALUATION, INFERENCE, LABELLING, RUNS, validates
from .option import FREE, Group, Option
from .types import natural, rate, scale, share

POLICIES = ("fixed", "motion", "error", "budget")
# Where no --key-threshold is given: two frames between two key frames at CamVid's 15 Hz, by DIS.
THRESHOLDS = {"motion": 0.02, "error": 0.06}


def is_fixed(args: Namespace) -> bool:
    return validates(args) and args.key_policy == "fixed"


def is_adaptive(args: Namespace) -> bool:
    return validates(args) and args.key_policy != "fixed"


def has_threshold(args: Namespace) -> bool:
    return validates(args) and args.key_policy in THRESHOLDS


def has_budget(args: Namespace) -> bool:
    return validates(args) and args.key_policy == "budget"


def scores_distances(args: Namespace) -> bool:
    return args.key_policy == "fixed"


def has_strip(args: Namespace) -> bool:
    return "overlay" in args.output


def refuse_no_budget(args: Namespace) -> str | None:
    if args.key_policy == "budget" and args.key_budget is None:
        return "--key-policy budget needs --key-budget: milliseconds of a frame on average"
    return None


# The weights are the same whatever the schedule, so checkpoints do not keep it.
ScheduleOption = partial(Option, network=False)

# A training validates with it, and so chooses its best epoch by it.
SCHEDULE = (
    ScheduleOption(
        "--key-policy",
        "where key frames are: at equal distances (fixed); where much has moved (motion) or flow "
        "explains too little (error) since the last one; as often as --key-budget allows (budget)",
        choices=POLICIES,
        default="fixed",
        acts_if=validates,
    ),
    ScheduleOption(
        "--key-interval",
        "frames between two key frames (0: all are key frames)",
        type=natural,
        default=2,
        acts_if=is_fixed,
    ),
    ScheduleOption(
        "--key-threshold",
        "above it a key frame is due. motion: mean motion, a share of the frame's diagonal "
        f"(default {THRESHOLDS['motion']}); error: share of pixels (default "
        f"{THRESHOLDS['error']}); both added up since the last key frame",
        type=rate,
        acts_if=has_threshold,
    ),
    ScheduleOption(
        "--key-budget",
        "milliseconds of labelling a frame, on average",
        type=scale,
        acts_if=has_budget,
    ),
    ScheduleOption(
        "--key-longest",
        "frames between two key frames, at most (motion, error, budget)",
        type=natural,
        acts_if=is_adaptive,
    ),
    ScheduleOption(
        "--scene-cut-threshold",
        "a scene cut forces a key frame: the share of pixels whose brightness must change, where "
        "nothing has only moved (1: never)",
        type=share,
        default=0.35,
        acts_if=validates,
    ),
)
# What is told about it.
REPORTS = (
    ScheduleOption(
        "--key-distances",
        "score every frame at all distances from a key frame, in one pass",
        type=bool,
        negatable=True,
        default=True,
        jobs=EVALUATION,
        resume=FREE,
        acts_if=scores_distances,
    ),
    ScheduleOption(
        "--key-pictures",
        "draw so many sequences from key frame to key frame: each as a strip beside the backbone "
        "on every frame, and its last frame with edges and errors",
        type=natural,
        default=0,
        jobs=EVALUATION,
        resume=FREE,
    ),
    ScheduleOption(
        "--key-record",
        "write NAME_keyframes.csv: which frames were key frames, and why",
        type=bool,
        jobs=INFERENCE,
        resume=FREE,
    ),
    ScheduleOption(
        "--key-strip",
        "show below the overlay which frames were key frames",
        type=bool,
        jobs=LABELLING,
        resume=FREE,
        acts_if=has_strip,
    ),
)
KEYS = Group("key frames", (*SCHEDULE, *REPORTS), jobs=RUNS, refusals=(refuse_no_budget,))
