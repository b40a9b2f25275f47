"""Options of a run as such: where it writes, on what it runs, who watches it."""

from __future__ import annotations

from argparse import Namespace

from .jobs import CHECK, EVALUATION, INFERENCE, LABELLING, REPLAY, RUNS, SCORING
from .option import FREE, SAME, Group, Option
from .types import path, positive, seed, workers

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")


# --replay shows a run that is over, so it needs no --visualize.
def watched(args: Namespace) -> bool:
    return bool(args.visualize or args.replay)


def need_savedir(args: Namespace) -> str | None:
    if args.job in RUNS and not args.savedir:
        return "--savedir is required: the folder for what the run leaves"
    return None


def refuse_resume_and_overwrite(args: Namespace) -> str | None:
    if args.resume and args.overwrite:
        return "--resume goes on and --overwrite starts anew: choose one"
    return None


def refuse_exploring_nothing(args: Namespace) -> str | None:
    if args.explore and not (args.inference and args.visualize and len(args.source) == 1):
        return "--explore goes with --inference, --visualize and one --source"
    return None


# Most of it suits a machine or an occasion; what changes numbers says "same".
RUN = Group(
    "run",
    (
        Option(
            "--savedir",
            "folder for logs, checkpoints, results and pictures (required)",
            type=path,
            recipe=False,
            everyday=True,
        ),
        Option(
            "--resume",
            "continue the run in --savedir where it stopped",
            type=bool,
            jobs=SCORING + INFERENCE,
            recipe=False,
            everyday=True,
        ),
        Option(
            "--overwrite",
            "start anew in a --savedir that holds a training or results; they are removed",
            type=bool,
            jobs=SCORING + INFERENCE,
            recipe=False,
        ),
        Option(
            "--device",
            "auto: a GPU if there is one",
            choices=("auto", "cpu", "cuda"),
            default="auto",
            everyday=True,
        ),
        Option(
            "--precision",
            "of the network. Training uses autocast; evaluation and inference keep narrow layers "
            "and LMANet's keys in float32; tf32 and fp16 need a GPU",
            choices=PRECISIONS,
            default="fp32",
            resume=SAME,
            everyday=True,
        ),
        # Training runs uncompiled: nobody has measured it there.
        Option(
            "--compile",
            "torch.compile for encoder and decoder",
            type=bool,
            jobs=EVALUATION + LABELLING,
        ),
        # A resume needs the same number of ranks too: the checkpoint itself tells (random states).
        Option(
            "--gpus",
            "processes, one per GPU (on a CPU: gloo ranks)",
            type=positive,
            default=1,
            per_machine=True,
        ),
        Option(
            # In --inference frames come from a thread of their own.
            "--num-workers",
            "loader processes per rank",
            type=workers,
            default=2,
            jobs=SCORING + CHECK,
            per_machine=True,
        ),
        Option(
            "--threads",
            "CPU threads per rank (default: torch's choice)",
            type=positive,
            per_machine=True,
        ),
        # Every draw of a run follows from it: another seed is another run.
        Option("--seed", "of every random draw", type=seed, default=0, resume=SAME),
        Option(
            "--deterministic", "deterministic algorithms on the GPU too", type=bool, resume=SAME
        ),
    ),
    jobs=RUNS,
    resume=FREE,
    refusals=(need_savedir, refuse_resume_and_overwrite),
)

# Watching changes nothing in a run, so nothing of it stands in a recipe.
DASHBOARD = Group(
    "dashboard",
    (
        Option(
            "--visualize",
            "show the run on a visdom server (python -m visdom.server); without one the run "
            "goes on all the same",
            type=bool,
            recipe=False,
            everyday=True,
        ),
        Option(
            "--server",
            "address of the visdom server",
            default="http://localhost",
            jobs=SCORING + INFERENCE + REPLAY,
            acts_if=watched,
            recipe=False,
        ),
        Option(
            "--port",
            "port of the visdom server",
            type=positive,
            default=8097,
            jobs=SCORING + INFERENCE + REPLAY,
            acts_if=watched,
            recipe=False,
        ),
        Option(
            "--explore",
            "after the last frame of the source: click a pixel, or use the arrow keys, to see "
            "where it attends in the frames before; Ctrl-C ends it (needs --visualize)",
            type=bool,
            jobs=INFERENCE,
            recipe=False,
        ),
    ),
    jobs=SCORING + INFERENCE,
    resume=FREE,
    refusals=(refuse_exploring_nothing,),
)
