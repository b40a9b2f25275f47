"""The jobs, of which a run does exactly one."""

from __future__ import annotations

from .option import FREE, Group, Option
from .types import path

TRAINING = ("training",)
EVALUATION = ("evaluation",)
INFERENCE = ("inference",)
BENCHMARK = ("benchmark",)
REPLAY = ("replay",)
CHECK = ("data check",)
FILES = ("file list",)

SCORING = TRAINING + EVALUATION
LABELLING = INFERENCE + BENCHMARK
RUNS = SCORING + LABELLING  # those that build a network and write into --savedir
NETWORK = RUNS + FILES
DATA = NETWORK + CHECK
ALL = DATA + REPLAY

# job -> the option that chooses it
JOBS = {
    "training": Option(
        "--training", "train on --dataset; validate after each epoch", type=bool, everyday=True
    ),
    "evaluation": Option(
        "--eval-mode", "score --weights on a labelled split", type=bool, everyday=True
    ),
    "inference": Option("--inference", "label --source: your own video", type=bool, everyday=True),
    "benchmark": Option(
        "--benchmark",
        "time every stage of labelling --source (default: a video made for it), with --weights "
        "or without",
        type=bool,
        everyday=True,
    ),
    "replay": Option(
        "--replay",
        "show a finished run on the visdom server, from what it left in its savedir",
        type=path,
        metavar="SAVEDIR",
        recipe=False,
        everyday=True,
    ),
    "data check": Option(
        "--check-data",
        "read the whole data set and report what is missing or odd",
        type=bool,
        everyday=True,
    ),
    "file list": Option(
        "--needed-frames",
        "print the files that an evaluation with these options reads, relative to --data-root",
        type=bool,
        everyday=True,
    ),
}

GROUP = Group("job (exactly one)", tuple(JOBS.values()), jobs=ALL, resume=FREE)


def job_of(args) -> str:
    """The job that parsed options choose."""
    return next(job for job, option in JOBS.items() if getattr(args, option.dest))


# Here, because options that rows own cannot import those that name the rows.
def validates(args) -> bool:
    """Whether a training scores anything; other jobs score always."""
    return not args.training or args.iouVal or args.iouTrain
