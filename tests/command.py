"""Runs the real command line, as a user does."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TINY = ("--method single --dataset synthetic --synthetic-size 32 64 --synthetic-videos 2 1 1 --synthetic-length 8 "
        "--threads 1 --device cpu --num-workers 1").split()
SINGLE = ["--method", "single", "--dataset", "synthetic"]
TRAIN = ["--training", *TINY, "--batch-size", "2", "--num-epochs", "3", "--steps-loss", "4"]


def start(*words, **options) -> subprocess.Popen:
    """`python main.py WORDS` in a process group of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen([sys.executable, str(ROOT / "main.py"), *map(str, words)], env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, **options)


def run(*words, timeout: float = 300, **options) -> subprocess.CompletedProcess:
    """The finished command: returncode, stdout, stderr."""
    process = start(*words, **options)
    out, err = process.communicate(timeout=timeout)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def succeed(*words, **options) -> subprocess.CompletedProcess:
    done = run(*words, **options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done
