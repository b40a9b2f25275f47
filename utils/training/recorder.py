"""What a training writes (log, curves, best weights, checkpoints), and when it stops."""

from __future__ import annotations

import math
import signal
from pathlib import Path

from .. import checkpoint
from ..console import Console
from ..log import Row, TrainingLog, write_best
from ..output.curves import draw_curves
from ..run.dist import any_rank, broadcast_buffers, rank, world_size
from ..run.stopping import Interrupted, StopRequest
from .tensorboard import TensorBoardLog
from .training_state import TrainingState


class Recorder:
    """Writes the files of a training, on rank 0 alone.

    Every rank calls every method, since a checkpoint holds the random states of all ranks.
    """

    def __init__(
        self,
        folder: Path,
        state: TrainingState,
        console: Console,
        stop: StopRequest,
        *,
        steps: int,
        resume: bool,
        tensorboard: bool,
        steps_loss: int,
        steps_save: int,
        epochs_save: int,
    ):
        """steps: optimizer steps of an epoch; resume: continue the checkpoint and log in `folder`.

        steps_loss, steps_save: steps between two printed losses, two checkpoints within an epoch;
        epochs_save: epochs between two files of weights that are kept. 0 to save: never.
        """
        self.folder = folder
        self.state = state
        self.console = console
        self.stop = stop
        self.steps = steps
        self.steps_loss = steps_loss
        self.steps_save = steps_save
        self.epochs_save = epochs_save
        self.log = None
        self.tensorboard = None
        # The next epoch, from 1 as logged; None: a new training.
        resume_epoch = None
        if resume:
            self.resume()
            resume_epoch = state.progress.epoch + 1
        if rank() == 0:
            self.log = TrainingLog(folder, resume=resume)
            # A killed run may have logged an epoch that its checkpoint does not have.
            self.log.truncate(state.progress.epoch + 1)
            if tensorboard:
                self.tensorboard = TensorBoardLog(folder, resume_epoch)

    def resume(self) -> None:
        """Load the checkpoint in the folder and say where the training continues."""
        note = self.state.load(self.folder)
        if note:
            self.console.warn(note)
        progress = self.state.progress
        if progress.epoch >= self.state.args.num_epochs:
            self.console.note(
                f"all {progress.epoch} epochs are done: a higher --num-epochs goes on from here"
            )
        else:
            self.console.note(
                f"resuming at epoch {progress.epoch + 1}, step {progress.step + 1} of {self.steps}"
            )

    def on_skip(self, message: str) -> None:
        """Warn of a step that --on-nonfinite skip leaves out."""
        self.console.warn(f"left out: {message}")

    def on_step(self, terms: dict[str, float]) -> None:
        """After each optimizer step: print, save, and stop if any rank was asked to.

        Raises Interrupted, after saving, where the run was asked to stop.
        """
        progress = self.state.progress
        if progress.step % self.steps_loss == 0 or progress.step == self.steps:
            self._print_losses()
        # All ranks stop together: one that goes on alone would wait for the others for ever.
        stopping = any_rank(bool(self.stop))
        if stopping or (self.steps_save and progress.step % self.steps_save == 0):
            self.state.save(self.folder)
        if stopping:
            # The signal may have come to another rank; then this one has no number.
            raise Interrupted(self.stop.number or signal.SIGTERM, self.stop.advice)

    def save_alone(self) -> None:
        """Save where a wait for data was given up; not beside other ranks, which all would save."""
        if world_size() == 1:
            self.state.save(self.folder)

    def _print_losses(self) -> None:
        progress = self.state.progress
        means = ", ".join(f"{name} {value:.4f}" for name, value in progress.means().items())
        self.console.note(
            f"epoch {progress.epoch + 1}, step {progress.step}/{self.steps}: {means}, "
            f"lr {self.state.schedule.lr:.3g}"
        )

    def before_validation(self) -> None:
        """Save after an epoch's last step: a stop during validation then loses no step."""
        # All ranks score the same network.
        broadcast_buffers(self.state.model)
        self.state.save(self.folder)

    def end_epoch(self, scores: dict[str, dict]) -> None:
        """Log the epoch, keep its weights if they are the best, move on to the next epoch and save.

        scores: results of engine.evaluate by split, "train" and "val" as far as they were scored.
        """
        progress = self.state.progress
        losses = progress.means()
        validated = "val" in scores
        self.state.schedule.after_epoch(progress.epoch + 1, sum(losses.values()))
        row = self._row(losses, scores)
        # Without validation the last weights count as the best.
        better = not validated or row.val_miou > progress.best
        if better:
            # Any validation of a resumed run is better than none.
            progress.best = row.val_miou if validated else 0.0
            progress.best_epoch = row.epoch
        if rank() == 0:
            self.write(row, losses, better=better, validated=validated)
        progress.next_epoch()
        self.state.save(self.folder)
        self.stop.check()

    def _row(self, losses: dict[str, float], scores: dict[str, dict]) -> Row:
        return Row(
            epoch=self.state.progress.epoch + 1,
            train_loss=sum(losses.values()),
            val_loss=score_of(scores, "val", "loss", missing=math.nan),
            # What was not measured is nan: 0 would be a result.
            train_miou=score_of(scores, "train", "mIoU", missing=math.nan),
            val_miou=score_of(scores, "val", "mIoU", missing=math.nan),
            lr=self.state.schedule.lr,
        )

    def write(self, row: Row, losses: dict[str, float], *, better: bool, validated: bool) -> None:
        """Write all files of one epoch; on rank 0."""
        self._save_weights(row, better)
        self.log.write(*row)
        if self.tensorboard:
            self.tensorboard.write(row, losses)
        draw_curves(self.folder)
        result = "not validated, kept as the last"
        if validated:
            write_best(self.folder, self.state.progress.best_epoch, self.state.progress.best)
            result = f"val loss {row.val_loss:.4f}, val mIoU {100 * row.val_miou:.2f} %"
            if better:
                result += ", the best so far"
        if self.state.progress.skipped:
            result += f"; {self.state.progress.skipped} of {self.steps} steps were left out"
        self.console.note(f"epoch {row.epoch}: train loss {row.train_loss:.4f}, {result}")

    def _save_weights(self, row: Row, better: bool) -> None:
        """Save the weights, alone and with what describes them if they are the best."""
        weights = self.state.model.state_dict()
        if better:
            described = {
                "epoch": row.epoch,
                "state_dict": weights,
                "best": row.val_miou,
                **self.state.described,
            }
            checkpoint.save(self.folder / "model_best.pth", weights, keep=False)
            checkpoint.save(self.folder / "model_best.pth.tar", described, keep=False)
        if self.epochs_save and row.epoch % self.epochs_save == 0:
            checkpoint.save(self.folder / f"model-{row.epoch:03d}.pth", weights, keep=False)


def score_of(scores: dict[str, dict], split: str, name: str, *, missing: float) -> float:
    """A score of a split; `missing` where the split was not scored or the score is None or nan."""
    value = scores.get(split, {}).get(name)
    if value is None or math.isnan(value):
        return missing
    return value
