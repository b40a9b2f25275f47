"""SIGTERM and Ctrl-C ask a run to stop; the run stops where its state can be saved."""

from __future__ import annotations

import signal
from collections.abc import Callable


class Interrupted(Exception):
    """The run was asked to stop and has saved what it had. `code` is the exit code."""

    def __init__(self, number: int, advice: str = ""):
        super().__init__(f"stopped by {signal.Signals(number).name}{advice}")
        self.code = 128 + number


class StopRequest:
    """Remembers that a signal asked to stop. A second Ctrl-C interrupts at once.

    advice: what the user is told besides. wake: called when the signal comes, to end a wait that
    would outlast it (a pipe or camera that sends nothing).
    """

    def __init__(self, advice: str = ""):
        self.advice = advice
        self.number: int | None = None
        self.wake: Callable[[], None] = lambda: None

    def listen(self) -> StopRequest:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.receive)
        return self

    def receive(self, number: int, frame) -> None:
        # A run that does not reach its next check can still be ended by hand.
        if self.number == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.number = number
        self.wake()

    def __bool__(self) -> bool:
        return self.number is not None

    def check(self) -> None:
        """Raise Interrupted if a signal came."""
        if self.number is not None:
            raise Interrupted(self.number, self.advice)
