#!/usr/bin/env python3
"""StreamSeg: train, evaluate and stream video semantic segmentation.

python main.py --training  --data-root DATA --weights erfnet_pretrained.pth --savedir save/run
python main.py --eval-mode --data-root DATA --weights save/run/model_best.pth --savedir save/eval
python main.py --inference --source drive.mp4 --weights W.pth --savedir save/drive
python main.py --benchmark --weights W.pth --savedir save/speed
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from importlib import import_module
from pathlib import Path
from typing import Any

import options

# job -> "module:function". The module is imported once the job is chosen: --help needs no torch.
JOBS = {
    "training": "jobs.training:run",
    "evaluation": "jobs.evaluation:run",
    "inference": "jobs.inference:run",
    "benchmark": "jobs.benchmark:run",
    "replay": "jobs.replay:run",
    "data check": "jobs.data:check_data",
    "file list": "jobs.data:list_files",
}


# How often a thread looks for work before it sleeps. By default it never stops: beside another busy
# process, threads that wait spin away the time of the one that works (benchmarks/busy_machine.py).
SPIN_COUNT = "2000"


def parse_args(
    argv: list[str] | None = None, of_weights: dict[str, Any] | None = None
) -> Namespace:
    """Words (default: the command line) to options; judges words, not the disk.

    of_weights: what a checkpoint says of its network; the words count more.
    """
    return options.parse(sys.argv[1:] if argv is None else argv, of_weights)


def wait_politely() -> None:
    """Let threads that wait give way to other processes, unless the user has said how they wait.

    OpenMP reads this once: before torch is imported.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)


def missing_weights(argv: list[str]) -> str | None:
    """The first file of weights that is to run and does not exist."""
    if any(word in options.HELP_WORDS for word in argv):
        return None
    files = options.weights_to_run(argv)
    return next((path for path in files if not Path(path).exists()), None)


def network_of_weights(argv: list[str]) -> dict[str, Any]:
    """What the weights that are to run were trained with, where their files say so."""
    weights = options.weights_to_run(argv)
    if not weights:
        return {}
    from utils.checkpoint import network_of  # imports torch

    return network_of(weights)


def main(argv: list[str] | None = None) -> int:
    """Run one job -> the exit code.

    0; 2 for a mistake of the user's, which is told in one line; 128 + n after signal n.
    """
    argv = sys.argv[1:] if argv is None else argv
    missing = missing_weights(argv)
    if missing:
        # Said before all else: what the other words mean depends on what the file says.
        print(f"main.py: error: there is no checkpoint at {missing}", file=sys.stderr)
        return 2
    # Weights know which network they are for, so their file is looked into before words are judged.
    args = parse_args(argv, network_of_weights(argv))
    from utils.run import ending, errors  # they import torch

    try:
        return launch_or_run(args, argv)
    except BrokenPipeError:  # a listing that `| head` has cut: the reader has what it wanted
        return ending.end_quietly()
    except ending.Interrupted as stop:
        return ending.tell_stop(stop)
    except errors.USER_ERRORS as error:
        if os.environ.get("STREAMSEG_DEBUG"):
            raise
        errors.say(errors.one_line(error))
        return 2
    finally:
        ending.clean_up()


def launch_or_run(args: Namespace, argv: list[str]) -> int:
    """With --gpus N start N processes of this script, else do the job here."""
    from jobs.installation import check_installation
    from utils.run import dist

    check_installation()
    if args.gpus > 1 and not dist.launched():
        from jobs.common import require
        from utils.run.setup import check_device

        require(args)
        check_device(args)
        return dist.launch(str(Path(__file__).resolve()), argv, args.gpus)
    module, _, function = JOBS[args.job].partition(":")
    getattr(import_module(module), function)(args)
    dist.barrier()  # ranks leave together: gloo's threads may abort one whose peer is gone
    return 0


if __name__ == "__main__":
    wait_politely()
    try:
        code = main()
    except KeyboardInterrupt:  # before a job could listen to it
        print("main.py: error: stopped by Ctrl-C", file=sys.stderr)
        code = 130
    sys.exit(code)
