"""The run's log: automated_log.txt (one writer, one reader), best.txt, the console and TensorBoard.

automated_log.txt, as LMANet writes it and people's scripts parse it: a header with single tabs, then per epoch a
newline and the values between double tabs; losses and mIoU (in percent) with 4 decimals, the rate with 8; no newline
at the end.

    Epoch⇥Train-loss⇥Val-loss⇥Train-mIoU⇥Val-mIoU⇥learningRate
    1⇥⇥1.2345⇥⇥1.3456⇥⇥0.0000⇥⇥45.6789⇥⇥0.00020000

In Python mIoU is a fraction everywhere, here and in `Row`.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

LOG_NAME = "automated_log.txt"
COLUMNS = ("Epoch", "Train-loss", "Val-loss", "Train-mIoU", "Val-mIoU", "learningRate")
HEADER = "\t".join(COLUMNS)


# Files


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: a kill or a full disk leaves the previous one as it was.

    OSError names the file, which the system's own error does not where the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):  # nothing can be removed where nothing may be written
            temporary.unlink(missing_ok=True)
        raise OSError(
            error.errno,
            f"{path} cannot be written ({error.strerror or error}): is there space, and may "
            "this folder be written to?",
        ) from error


def write_text(path: Path, text: str) -> None:
    """`write_bytes` for text: UTF-8, newlines as they are."""
    write_bytes(path, text.encode())


def write_best(folder: Path, epoch: int, miou: float) -> None:
    """best.txt: which epoch has the best validation mIoU (a fraction)."""
    write_text(Path(folder) / "best.txt", f"Best epoch is {epoch}, with mean IoU = {miou:.4f}")


# automated_log.txt


class Row(NamedTuple):
    """One epoch (from 1); mIoU as fractions, nan where a value is missing."""

    epoch: int
    train_loss: float
    val_loss: float
    train_miou: float
    val_miou: float
    lr: float

    def line(self) -> str:
        losses = f"{self.train_loss:.4f}\t\t{self.val_loss:.4f}"
        return f"{self.epoch}\t\t{losses}\t\t{100 * self.train_miou:.4f}\t\t{100 * self.val_miou:.4f}\t\t{self.lr:.8f}"


class TrainingLog:
    """Writes automated_log.txt: a training that was killed and resumed leaves the same file as one that was not."""

    def __init__(self, folder: Path, *, resume: bool):
        """resume: keep the rows that are there (ValueError if the file is not such a log); otherwise begin anew."""
        self.path = Path(folder) / LOG_NAME
        if resume and self.path.exists():
            read(self.path)
        else:
            write_text(self.path, HEADER)

    def write(
        self,
        epoch: int,
        train_loss: float,
        val_loss: float,
        train_miou: float,
        val_miou: float,
        lr: float,
    ) -> Row:
        """Append one epoch; mIoU as fractions. It replaces rows of this epoch and later ones, left by a killed run."""
        row = Row(epoch, train_loss, val_loss, train_miou, val_miou, lr)
        write_text(self.path, "\n".join([*self._before(epoch), row.line()]))
        return row

    def truncate(self, epoch: int) -> None:
        """Drop the rows of `epoch` and later: a training resumed at `epoch` will write them again."""
        write_text(self.path, "\n".join(self._before(epoch)))

    def _before(self, epoch: int) -> list[str]:
        """The lines, header included, of the file without rows of `epoch` and later."""
        header, *lines = _lines(self.path)
        rows = read(self.path)
        return [header, *(line for line, row in zip(lines, rows, strict=True) if row.epoch < epoch)]


def read(path: Path) -> list[Row]:
    """The rows of an automated_log.txt, ours or LMANet's. ValueError names the file and the line that is no row."""
    header, *lines = _lines(path)
    if header.split() != list(COLUMNS):
        raise ValueError(
            f"{path}, line 1: expected the columns {' '.join(COLUMNS)}, got {header[:100]!r}"
        )
    return [_parse(line, f"{path}, line {number}") for number, line in enumerate(lines, 2)]


def _lines(path: Path) -> list[str]:
    """At least one, the header; bytes that are no text become signs that are no number, so `read` names their line."""
    return Path(path).read_text(encoding="utf-8", errors="replace").rstrip().split("\n")


def _parse(line: str, place: str) -> Row:
    try:
        epoch, train_loss, val_loss, train_miou, val_miou, lr = line.split()
        return Row(
            int(epoch),
            float(train_loss),
            float(val_loss),
            float(train_miou) / 100,
            float(val_miou) / 100,
            float(lr),
        )
    except ValueError as error:
        raise ValueError(
            f"{place}: expected an epoch and {len(COLUMNS) - 1} numbers, got {line[:100]!r}"
        ) from error


# Console


def get_logger() -> logging.Logger:
    """The run's logger; `Console` decides where it writes."""
    return logging.getLogger("streamseg")


@functools.cache
def warn_once(message: str) -> None:
    """Say it the first time only: a fallback, a missing optional package."""
    get_logger().warning(message)


class _Handler(logging.StreamHandler):
    """Lines that do not run into a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm = sys.modules.get("tqdm")
        with tqdm.tqdm.external_write_mode(file=self.stream) if tqdm else nullcontext():
            super().emit(record)


class Console:
    """The run's text output: rank 0 writes notes to stdout and warnings to stderr, other ranks nothing but errors."""

    def __init__(self, rank: int = 0):
        self.rank = rank
        notes, warnings = _Handler(sys.stdout), _Handler(sys.stderr)
        notes.addFilter(lambda record: record.levelno < logging.WARNING)
        warnings.setLevel(logging.WARNING)
        self.logger = get_logger()
        self.logger.handlers[:] = [
            notes,
            warnings,
        ]  # those of an earlier Console would write everything twice
        self.logger.setLevel(logging.INFO if rank == 0 else logging.ERROR)
        self.logger.propagate = False

    def note(self, message: str) -> None:
        """A line to stdout."""
        self.logger.info(message)

    def warn(self, message: str) -> None:
        """A line to stderr."""
        self.logger.warning(message)

    def progress(
        self, iterable: Iterable, total: int | None = None, desc: str = "", initial: int = 0
    ) -> Iterable:
        """The same items; on rank 0 with their rate and the remaining time on stderr, where tqdm is installed.

        total: how many there are in all, of which `initial` were done before; None where nobody knows.
        """
        if self.rank:
            return iterable
        try:
            from tqdm import tqdm
        except ImportError:
            warn_once("no progress is shown: tqdm is not installed (pip install tqdm)")
            return iterable
        seconds = 0.1 if sys.stderr.isatty() else 10.0  # a log file should not fill with bars
        return tqdm(
            iterable,
            desc=desc or None,
            total=total,
            initial=initial,
            mininterval=seconds,
            dynamic_ncols=True,
            file=sys.stderr,
        )


# TensorBoard


class Scalars:
    """--tensorboard: the scalars of automated_log.txt and each named loss, in `folder`/tensorboard."""

    def __init__(self, folder: Path, resume_epoch: int | None = None):
        """resume_epoch: what an earlier, killed run wrote of this epoch and later is dropped.

        RuntimeError where the package is missing; after that nothing here stops a training.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise RuntimeError(
                "--tensorboard needs the package tensorboard: pip install tensorboard"
            ) from error
        self.writer = SummaryWriter(str(Path(folder) / "tensorboard"), purge_step=resume_epoch)

    def write(self, row: Row, losses: dict[str, float]) -> None:
        """One epoch: its row, under the column names of automated_log.txt (mIoU as fractions), and loss/<name>."""
        values = dict(zip(COLUMNS[1:], row[1:], strict=True)) | {
            f"loss/{name}": x for name, x in losses.items()
        }

        def add(writer):
            for name, value in values.items():
                writer.add_scalar(name, value, row.epoch)
            writer.flush()  # so that a kill loses at most this epoch

        self._try(add)

    def close(self) -> None:
        """Finish the files; later writes are ignored."""
        self._try(lambda writer: writer.close())
        self.writer = None

    def _try(self, action: Callable) -> None:
        if self.writer is None:
            return
        try:
            action(self.writer)
        except (
            Exception
        ) as error:  # of any kind, its thread hands them on: no curve is worth a training
            self.writer = None
            get_logger().warning(f"TensorBoard gets no more scalars, the training goes on: {error}")
