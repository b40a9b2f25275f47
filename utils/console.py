"""The console: notes on stdout, warnings on stderr, progress bars; with several ranks, once."""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from typing import TextIO

# Seconds between two updates of a progress bar: a file should not fill with bars.
UPDATE_TERMINAL = 0.1
UPDATE_FILE = 10.0
COLUMNS_FILE = 100  # of a bar in a file; a terminal has its own width


def get_logger() -> logging.Logger:
    """The run's logger; `Console` decides where it writes."""
    return logging.getLogger("streamseg")


# The cache remembers which messages were logged.
@functools.cache
def warn_once(message: str) -> None:
    """Warn the first time only: of a fallback, or of a missing optional package."""
    get_logger().warning(message)


class _Handler(logging.StreamHandler):
    """Writes whole lines while a progress bar is shown: the bar is removed and drawn again."""

    def emit(self, record: logging.LogRecord) -> None:
        # Without tqdm loaded there is no bar.
        tqdm = sys.modules.get("tqdm")
        pause = nullcontext()
        if tqdm:
            pause = tqdm.tqdm.external_write_mode(file=self.stream)
        with pause:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """A reader that is gone (`| head`, a closed terminal) ends the console, not the run."""
        error = sys.exc_info()[1]
        if not isinstance(error, (BrokenPipeError, ValueError)):
            super().handleError(record)
            return
        silence(self.stream)
        self.setStream(open(os.devnull, "w"))


def silence(stream: TextIO) -> None:
    """Let a stream without a reader take what comes, for Python flushes it once more at the end."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class Console:
    """The run's text output. Rank 0 writes notes to stdout and warnings to stderr.

    Other ranks write nothing but errors.
    """

    def __init__(self, rank: int = 0):
        self.rank = rank
        notes = _Handler(sys.stdout)
        notes.addFilter(lambda record: record.levelno < logging.WARNING)
        warnings = _Handler(sys.stderr)
        warnings.setLevel(logging.WARNING)
        self.logger = get_logger()
        # Replaced, not added to: the handlers of an earlier Console would write every line twice.
        self.logger.handlers[:] = [notes, warnings]
        self.logger.setLevel(logging.ERROR)
        if rank == 0:
            self.logger.setLevel(logging.INFO)
        # The root logger may have handlers too, of a library's.
        self.logger.propagate = False

    def note(self, message: str) -> None:
        """Write a line to stdout."""
        self.logger.info(message)

    def warn(self, message: str) -> None:
        """Write a line to stderr."""
        self.logger.warning(message)

    def progress(
        self, iterable: Iterable, total: int | None = None, desc: str = "", initial: int = 0
    ) -> Iterable:
        """The same items; rank 0 shows their rate and the remaining time on stderr by tqdm.

        total: the number of all items, of which `initial` were done before; None if unknown.
        Without tqdm installed, nothing is shown.
        """
        if self.rank:
            return iterable
        try:
            from tqdm import tqdm
        except ImportError:
            warn_once("no progress is shown: tqdm is not installed (pip install tqdm)")
            return iterable
        interval = UPDATE_FILE
        columns = COLUMNS_FILE
        if sys.stderr.isatty():
            interval = UPDATE_TERMINAL
            columns = None
        return tqdm(
            iterable,
            desc=desc or None,
            total=total,
            initial=initial,
            mininterval=interval,
            ncols=columns,
            dynamic_ncols=columns is None,
            file=sys.stderr,
        )
