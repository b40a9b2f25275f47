"""Runs the real command line, as a user does."""

from __future__ import annotations

import io
import os
import signal
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import warm
from utils import console

ROOT = Path(__file__).resolve().parents[1]
TINY = (
    "--method single --dataset synthetic --synthetic-size 32 64 --synthetic-videos 2 1 1 "
    "--synthetic-length 8 "
    "--threads 1 --device cpu --num-workers 1"
).split()
SINGLE = ["--method", "single", "--dataset", "synthetic"]
TRAIN = ["--training", *TINY, "--batch-size", "2", "--num-epochs", "3", "--steps-loss", "4"]


def start(*words, **options) -> warm.Process:
    """`python main.py WORDS` in a process group of its own."""
    return warm.Process(ROOT / "main.py", *words, env=environment(), **options)


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def run(*words, timeout: float = 300, **options) -> subprocess.CompletedProcess:
    """The finished command: returncode, stdout, stderr."""
    process = start(*words, **options)
    out, err = process.communicate(timeout=timeout)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def call(*words) -> subprocess.CompletedProcess:
    """The same without a process: `main.main`, with what it changes in its own put back."""
    import main

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    logger, out, err = console.get_logger(), io.StringIO(), io.StringIO()
    before = logger.handlers[:], logger.level, logger.propagate
    console.warn_once.cache_clear()
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = main.main([str(word) for word in words])
    except SystemExit as end:
        code = end.code
    finally:
        logger.handlers[:], logger.propagate = before[0], before[2]
        logger.setLevel(before[1])
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def perform(*words) -> subprocess.CompletedProcess:
    """`call` of what must succeed."""
    return checked(call(*words))


def assert_one_line(done: subprocess.CompletedProcess, message: str, *absent: Path) -> None:
    """A mistake of the user's, told as it should be: exit code 2, one line, no traceback, and no
    file at `absent`."""
    assert done.returncode == 2, f"exit code {done.returncode}: {done.stderr[-2000:]}"
    lines = [
        line for line in done.stderr.replace("\r", "\n").splitlines() if "main.py: error:" in line
    ]
    assert len(lines) == 1 and message in lines[0], done.stderr
    assert "Traceback" not in done.stderr
    assert not [path for path in absent if path.exists()], "nothing is half-written"


def succeed(*words, **options) -> subprocess.CompletedProcess:
    return checked(run(*words, **options))


def succeed_as_ranks(*words, **options) -> subprocess.CompletedProcess:
    """Two ranks, both of which must succeed, without the launcher and its seconds."""
    return checked(warm.run_ranks(ROOT / "main.py", *words, env=environment(), **options))


def checked(done: subprocess.CompletedProcess) -> subprocess.CompletedProcess:
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done
