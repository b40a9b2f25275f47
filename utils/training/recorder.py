"""What a training leaves behind, and when it stops: log, curves, best weights, checkpoints."""

from __future__ import annotations

import math
import signal
from pathlib import Path

from .. import checkpoint
from ..log import Console, Row, Scalars, TrainingLog, write_best
from ..output.curves import draw_curves
from ..run.dist import any_rank, broadcast_buffers, rank
from ..run.stopping import Interrupted, StopRequest
from .training_state import TrainingState

NAN = float("nan")


class Recorder:
    """Rank 0 writes; every rank calls every method, since saving gathers the ranks' random states."""

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
        """steps: optimizer steps of an epoch; resume: continue the checkpoint and the log in `folder`."""
        self.folder, self.state, self.console, self.stop, self.steps = (
            folder,
            state,
            console,
            stop,
            steps,
        )
        self.steps_loss, self.steps_save, self.epochs_save = steps_loss, steps_save, epochs_save
        if resume:
            self.resume()
        self.log = self.scalars = None
        if rank() == 0:
            self.log = TrainingLog(folder, resume=resume)
            self.log.truncate(state.progress.epoch + 1)
            self.scalars = (
                Scalars(folder, state.progress.epoch + 1 if resume else None)
                if tensorboard
                else None
            )

    def resume(self) -> None:
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
        """A step that --on-nonfinite skip leaves out."""
        self.console.warn(f"left out: {message}")

    def on_step(self, terms: dict[str, float]) -> None:
        """After each optimizer step: print, save, and stop if any rank was asked to."""
        progress = self.state.progress
        if progress.step % self.steps_loss == 0 or progress.step == self.steps:
            means = ", ".join(f"{name} {value:.4f}" for name, value in progress.means().items())
            self.console.note(
                f"epoch {progress.epoch + 1}, step {progress.step}/{self.steps}: {means}, "
                f"lr {self.state.schedule.lr:.3g}"
            )
        stopping = any_rank(bool(self.stop))
        if stopping or (self.steps_save and progress.step % self.steps_save == 0):
            self.state.save(self.folder)
        if stopping:
            raise Interrupted(self.stop.number or signal.SIGTERM, self.stop.advice)

    def before_validation(self) -> None:
        """The epoch's steps are done; a stop during validation loses nothing, and all ranks score the same network."""
        broadcast_buffers(self.state.model)
        self.state.save(self.folder)

    def end_epoch(self, scores: dict[str, dict]) -> None:
        """Log the epoch, keep its weights if they are the best, move on to the next epoch and save.

        scores: results of engine.evaluate by split, "train" and "val" as far as they were scored.
        """
        progress, losses = self.state.progress, self.state.progress.means()
        self.state.schedule.after_epoch(progress.epoch + 1, sum(losses.values()))
        row = Row(
            progress.epoch + 1,
            sum(losses.values()),
            number(scores, "val", "loss"),
            number(scores, "train", "mIoU", 0.0),
            number(scores, "val", "mIoU", 0.0),
            self.state.schedule.lr,
        )
        better = "val" not in scores or row.val_miou > progress.best
        if better:
            progress.best, progress.best_epoch = row.val_miou, row.epoch
        if rank() == 0:
            self.write(row, losses, better, "val" in scores)
        progress.next_epoch()
        self.state.save(self.folder)
        self.stop.check()

    def write(self, row: Row, losses: dict[str, float], better: bool, validated: bool) -> None:
        weights = self.state.model.state_dict()
        if better:
            checkpoint.save(self.folder / "model_best.pth", weights, keep=False)
            checkpoint.save(
                self.folder / "model_best.pth.tar",
                {
                    "epoch": row.epoch,
                    "state_dict": weights,
                    "best": row.val_miou,
                    "classes": self.state.classes,
                    "network": self.state.args.network,
                },
                keep=False,
            )
        if self.epochs_save and row.epoch % self.epochs_save == 0:
            checkpoint.save(self.folder / f"model-{row.epoch:03d}.pth", weights, keep=False)
        self.log.write(*row)
        if self.scalars:
            self.scalars.write(row, losses)
        draw_curves(self.folder)
        told = "not validated, kept as the last"
        if validated:
            write_best(self.folder, self.state.progress.best_epoch, self.state.progress.best)
            told = f"val loss {row.val_loss:.4f}, val mIoU {100 * row.val_miou:.2f}"
            told += ", the best so far" if better else ""
        if self.state.progress.skipped:
            told += f"; {self.state.progress.skipped} of {self.steps} steps were left out"
        self.console.note(f"epoch {row.epoch}: train loss {row.train_loss:.4f}, {told}")


def number(scores: dict[str, dict], split: str, name: str, missing: float = NAN) -> float:
    """A result of a split as a float; `missing` where the split was not scored or the number does not exist."""
    value = scores.get(split, {}).get(name, missing)
    return missing if value is None or math.isnan(value) else value
