"""How a run ends, whatever ended it: workers are killed, the savedir is released, ranks part."""

from __future__ import annotations

import signal
import sys

from ..console import silence
from .dist import leave, rank
from .errors import say
from .loading import end_workers
from .savedir import release
from .stopping import Interrupted

__all__ = ["Interrupted", "clean_up", "end_quietly", "tell_stop"]


def tell_stop(stop: Interrupted) -> int:
    """Say that a signal ended the run -> the exit code. All ranks stop together; one says so."""
    if rank() == 0:
        say(str(stop))
    return stop.code


def end_quietly() -> int:
    """Nobody reads stdout any more -> the exit code of a program that SIGPIPE has ended."""
    silence(sys.stdout)
    return 128 + signal.SIGPIPE


def clean_up() -> None:
    end_workers()
    release()
    leave()
