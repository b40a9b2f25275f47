"""automated_log.txt, the table of a training's epochs (one writer, one reader), and best.txt.

automated_log.txt is written as LMANet writes it, since people's scripts parse it: a header with
single tabs, then per epoch a newline and the values between double tabs; losses and mIoU (in
percent) with 4 decimals, the learning rate with 8; no newline at the end.

    Epoch⇥Train-loss⇥Val-loss⇥Train-mIoU⇥Val-mIoU⇥learningRate
    1⇥⇥1.2345⇥⇥1.3456⇥⇥0.0000⇥⇥45.6789⇥⇥0.00020000

In Python mIoU is a fraction everywhere, here and in `Row`.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from .files import write_text

LOG_NAME = "automated_log.txt"
COLUMNS = ("Epoch", "Train-loss", "Val-loss", "Train-mIoU", "Val-mIoU", "learningRate")
HEADER = "\t".join(COLUMNS)


class Row(NamedTuple):
    """One epoch (from 1); mIoU as fractions; nan where a value is missing."""

    epoch: int
    train_loss: float
    val_loss: float
    train_miou: float
    val_miou: float
    lr: float

    def line(self) -> str:
        """The row as a line of automated_log.txt, without a newline."""
        values = (
            f"{self.epoch}",
            f"{self.train_loss:.4f}",
            f"{self.val_loss:.4f}",
            # The file has percent.
            f"{100 * self.train_miou:.4f}",
            f"{100 * self.val_miou:.4f}",
            f"{self.lr:.8f}",
        )
        return "\t\t".join(values)


class TrainingLog:
    """Writes automated_log.txt; a resumed training leaves the same file as an uninterrupted one."""

    def __init__(self, folder: Path, *, resume: bool):
        """resume: keep the rows that are there; otherwise begin a new file.

        Raises ValueError if the file to resume is not such a log.
        """
        self.path = Path(folder) / LOG_NAME
        if resume and self.path.exists():
            # Read for its errors alone, before anything is written.
            read(self.path)
        else:
            write_text(self.path, HEADER)

    def write(self, *values: float) -> Row:
        """Append one epoch, given by the values of its `Row`, and return the row.

        Rows of this epoch and later ones, left by a killed run, are dropped.
        """
        row = Row(*values)
        lines = self._lines_before(row.epoch)
        write_text(self.path, "\n".join([*lines, row.line()]))
        return row

    def truncate(self, epoch: int) -> None:
        """Drop the rows of `epoch` and later; a training resumed there writes them again."""
        write_text(self.path, "\n".join(self._lines_before(epoch)))

    def _lines_before(self, epoch: int) -> list[str]:
        """The lines of the file, header included, without rows of `epoch` and later."""
        header, *lines = _lines(self.path)
        rows = read(self.path)
        # Lines that stay are not formatted anew: each stays as it is to the byte.
        return [header, *(line for line, row in zip(lines, rows, strict=True) if row.epoch < epoch)]


def write_best(folder: Path, epoch: int, miou: float) -> None:
    """Write best.txt: the epoch with the best validation mIoU (a fraction)."""
    write_text(Path(folder) / "best.txt", f"Best epoch is {epoch}, with mean IoU = {miou:.4f}")


def read(path: Path) -> list[Row]:
    """The rows of an automated_log.txt, ours or LMANet's.

    Raises ValueError that names the file and the line that is not a row.
    """
    header, *lines = _lines(path)
    if header.split() != list(COLUMNS):
        raise ValueError(
            f"{path}, line 1: expected the columns {' '.join(COLUMNS)}, got {header[:100]!r}"
        )
    # The header is line 1.
    return [_parse(line, f"{path}, line {number}") for number, line in enumerate(lines, 2)]


def _lines(path: Path) -> list[str]:
    """The lines of the file, at least one: the header."""
    # Bytes that are not UTF-8 become a sign that is no number, so `read` names their line.
    return Path(path).read_text(encoding="utf-8", errors="replace").rstrip().split("\n")


def _parse(line: str, place: str) -> Row:
    """A line to a row, mIoU from percent to fractions; `place` is named in the ValueError."""
    try:
        # Any white space separates: files of other programs may have single tabs.
        epoch, train_loss, val_loss, train_miou, val_miou, lr = line.split()
        return Row(
            epoch=int(epoch),
            train_loss=float(train_loss),
            val_loss=float(val_loss),
            train_miou=float(train_miou) / 100,
            val_miou=float(val_miou) / 100,
            lr=float(lr),
        )
    except ValueError as error:
        raise ValueError(
            f"{place}: expected an epoch and {len(COLUMNS) - 1} numbers, got {line[:100]!r}"
        ) from error
