"""Runs that are killed, and runs that must not differ from one that was not.

A run here is `main.main` in a forked process: as the command, without the seconds of importing
torch again.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from tqdm import tqdm

import main
from utils import checkpoint
from utils.run.dist import die_with_parent
from utils.training.training_state import CHECKPOINT
from visdom_server import free_port
from warm_server import preload


class Forked:
    """`main.main(words)` in a process (and process group) of its own; it writes to
    `folder`/NAME.out and NAME.err."""

    def __init__(
        self,
        folder: Path,
        *words,
        name: str = "run",
        environment: dict[str, str] | None = None,
        first: Callable[[], None] = lambda: None,
    ):
        """first: what the process does before it begins."""
        self.out, self.err = (Path(folder) / f"{name}.{part}" for part in ("out", "err"))
        self.code: int | None = None
        preload()  # else each fork would import it for itself
        self.pid = os.fork()
        if not self.pid:
            code = 70
            try:
                self.become_the_command(environment or {})
                first()
                code = main.main([str(word) for word in words])
            except SystemExit as end:
                code = end.code
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stdout.flush(), sys.stderr.flush()
                os._exit(code)

    def become_the_command(self, environment: dict[str, str]) -> None:
        os.setsid()
        die_with_parent()  # a test that fails leaves nothing running
        os.environ.update(environment)
        tqdm.set_lock(
            threading.RLock()
        )  # its own is shared with forks, and a killed one never gives it back
        for descriptor, path in ((1, self.out), (2, self.err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", buffering=1) for descriptor in (1, 2))

    def send(self, number: int = signal.SIGKILL) -> None:
        """SIGKILL goes to the loader workers too, as from whoever ends a whole group."""
        with suppress(ProcessLookupError):
            (os.killpg if number == signal.SIGKILL else os.kill)(self.pid, number)

    def wait(self, seconds: float = 120.0) -> int | None:
        """The exit code, -n after signal n; None where it is still running after so long."""
        end = time.monotonic() + seconds
        while self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > end:
                break
            else:
                time.sleep(0.002)
        return self.code

    def succeed(self) -> float:
        """Seconds until it ended well."""
        begin = time.monotonic()
        code = self.wait()
        if code is None:
            self.send()
        assert code == 0, f"exit code {code}: {self.out.read_text()}{self.err.read_text()}"
        return time.monotonic() - begin


class Ranks:
    """Two ranks of one run, as a launcher starts them; words: of both, or one list each."""

    def __init__(self, folder: Path, *words, each: tuple[list, list] | None = None, **options):
        place = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port())}
        self.members = [
            Forked(
                folder,
                *mine,
                name=f"rank{rank}",
                environment={**place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                **options,
            )
            for rank, mine in enumerate(each or (words, words))
        ]

    def send(self, number: int = signal.SIGKILL) -> None:
        for member in self.members:
            member.send(number)

    def wait(self, seconds: float = 120.0) -> int | None:
        """The first exit code that is not 0; None where one is still running after so long."""
        end = time.monotonic() + seconds
        codes = [member.wait(max(end - time.monotonic(), 0)) for member in self.members]
        return None if None in codes else next(filter(None, codes), 0)

    def succeed(self) -> float:
        return max(member.succeed() for member in self.members)


def at_disk_operation(number: int) -> Callable[[], None]:
    """For Forked's `first`: kill -9 just before the number-th time that a file is made last, linked
    or renamed."""

    def arm() -> None:
        for name in ("fsync", "replace", "link"):
            setattr(os, name, counted(getattr(os, name)))

    def counted(original):
        def operation(*args, **options):
            nonlocal number
            number -= 1
            if number == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **options)

        return operation

    return arm


def assert_same(one, other, path: str = "") -> None:
    """Bit for bit, through dicts and lists."""
    assert type(one) is type(other), path
    if isinstance(one, dict):
        assert one.keys() == other.keys(), path
    if isinstance(one, (dict, list, tuple)):
        for key in one if isinstance(one, dict) else range(len(one)):
            assert_same(one[key], other[key], f"{path}/{key}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    else:
        assert one == other or one != one and other != other, f"{path}: {one} and {other}"


def assert_same_training(one: Path, other: Path) -> None:
    for name in (CHECKPOINT, "model_best.pth"):
        assert_same(checkpoint.read(one / name), checkpoint.read(other / name))
    for name in ("automated_log.txt", "best.txt"):
        assert (one / name).read_text() == (other / name).read_text()
    assert not list(other.glob(".*")), "no temporary file is left"
