"""--tensorboard: writes the scalars of a training for TensorBoard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..console import get_logger
from ..log import COLUMNS, Row


class TensorBoardLog:
    """The scalars of automated_log.txt and each named loss, in `folder`/tensorboard."""

    def __init__(self, folder: Path, resume_epoch: int | None = None):
        """resume_epoch: what an earlier, killed run wrote of this epoch and later is dropped.

        Raises RuntimeError where the package is missing. No later failure stops a training.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise RuntimeError(
                "--tensorboard needs the package tensorboard: pip install tensorboard"
            ) from error
        self.writer = SummaryWriter(str(Path(folder) / "tensorboard"), purge_step=resume_epoch)

    def write(self, row: Row, losses: dict[str, float]) -> None:
        """Write one epoch: its row (mIoU as fractions) and loss/<name> for each loss.

        The values of the row have the column names of automated_log.txt.
        """
        # The epoch, first in the row, is the x axis.
        values = dict(zip(COLUMNS[1:], row[1:], strict=True))
        for name, value in losses.items():
            values[f"loss/{name}"] = value

        def add(writer):
            for name, value in values.items():
                writer.add_scalar(name, value, row.epoch)
            # So that a kill loses at most this epoch.
            writer.flush()

        self._try(add)

    def close(self) -> None:
        """Finish the files; later writes are ignored."""
        self._try(lambda writer: writer.close())
        self.writer = None

    def _try(self, action: Callable) -> None:
        """Run action(writer); after a failure, warn and write nothing more."""
        if self.writer is None:
            return
        try:
            action(self.writer)
        # The writer's thread passes on errors of any kind. None is worth a training.
        except Exception as error:
            self.writer = None
            get_logger().warning(f"TensorBoard gets no more scalars, the training goes on: {error}")
