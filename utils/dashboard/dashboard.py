"""--visualize: what a run shows on a visdom server while it goes on, in environments that bear its
name.

    graphs RUN      loss, mIoU and learning rate over the epochs, from automated_log.txt; each named loss; IoU per class
    images RUN      training: inputs, labels and, with a slider over the epochs, predictions of some validation frames;
                    evaluation: strips of some frames; inference: the frame that was labelled last
    attention RUN   explorer.py

Nothing here waits for the server, fails with it, or stops a run (feed.py). What is shown is kept in
the savedir too, as one file per environment (panes.py), and shown again by `main.py --replay
SAVEDIR` (replay.py).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .. import log
from ..console import warn_once
from ..output.pictures import as_picture, colourise, comparison, overlay, side_by_side
from ..run.dist import rank, world_size
from . import windows as panes
from .client import Feed, Server
from .windows import GRAPHS, IMAGES

SAMPLES = 4  # validation frames shown
STRIPS = 16  # frames of an evaluation shown
TILE = 320  # pixels: width of a picture in a grid
LIVE = 1.0  # seconds between two frames of an inference


def quiet(method):
    """Nothing happens where there is no dashboard, and no mistake in one ever stops a run."""

    @functools.wraps(method)
    def call(self, *args, **options):
        if self.feed is None:
            return
        try:
            method(self, *args, **options)
        except (
            Exception
        ) as error:  # of any kind, as for TensorBoard: no picture is worth a training
            warn_once(f"the dashboard lacks a window: {error!r}")

    return call


class Dashboard:
    """Give it what happens; it shows some of it. Without a feed it does nothing."""

    def __init__(self, folder: Path, feed: Feed | None, names=(), palette=()):
        """folder: the savedir; names, palette: of the classes."""
        self.folder = Path(folder)
        self.feed = feed
        self.names = list(names)
        self.palette = palette
        self.seen = 0
        self.every = 1
        self.samples = []
        self.shown_at = -LIVE
        self.run = self.folder.resolve().name
        self.losses = {}
        self.go_on()

    @classmethod
    def of(cls, args, labels) -> Dashboard:
        """The dashboard that the options ask for; rank 0 has it. A training begins it anew, if it
        does not resume."""
        if not args.visualize or rank():
            return cls(args.savedir, None)
        record = panes.Record(args.savedir, keep=args.resume or not args.training)
        return cls(
            args.savedir, Feed(record, Server(args.server, args.port)), labels.names, labels.palette
        )

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self.close()

    @quiet
    def go_on(self) -> None:
        """Show what is known of the run so far."""
        self.losses = self.recorded_losses()
        self.curves()

    @quiet
    def close(self) -> None:
        """At most a few seconds for what is on its way."""
        self.feed.close()

    def watch(self, split: str, frames: int, start: int = 0) -> Callable:
        """A consumer for engine.evaluate on a split of so many frames, on all ranks together.

        "val": some of rank 0's are shown at the end of the epoch; "eval": some more, at once;
        others: none. start: how many of rank 0's were seen before the run was resumed.
        """
        shown, consume = {"val": (SAMPLES, self.sample), "eval": (STRIPS, self.frame)}.get(
            split, (1, lambda labelled: None)
        )
        self.every = max(-(-frames // (world_size() * shown)), 1)
        self.seen = start
        return consume

    # Training

    @quiet
    def sample(self, labelled) -> None:
        """A frame of a validation, engine.LabelledFrame; shown at the end of the epoch."""
        if self.is_due():
            frames = labelled.frame[None] if labelled.clip is None else labelled.clip
            self.samples.append(([as_picture(frame) for frame in frames], *maps(labelled)))

    def is_due(self) -> bool:
        """Whether this frame, one after the other, is one to show."""
        self.seen += 1
        return (self.seen - 1) % self.every == 0

    @quiet
    def epoch(self, epoch: int, losses: dict[str, float], scores: dict[str, dict]) -> None:
        """An epoch is over and in automated_log.txt; losses: named means; scores: engine.evaluate's
        by split."""
        self.curves()
        self.named_losses(epoch, losses)
        if "val" in scores:
            self.bars("iou", "IoU per class VAL", scores["val"]["IoU"])
        self.pictures(epoch)
        self.feed.save()

    @quiet
    def curves(self) -> None:
        """The whole curves from automated_log.txt, whatever the server has of them; none that
        nobody measured."""
        path = self.folder / log.LOG_NAME
        rows = log.read(path) if path.exists() else []
        for name, title, values, measured in (
            ("loss_train", "mLoss TRAIN", [row.train_loss for row in rows], np.isfinite),
            ("loss_val", "mLoss VAL", [row.val_loss for row in rows], np.isfinite),
            ("miou_train", "mIoU TRAIN", [row.train_miou for row in rows], scored),
            ("miou_val", "mIoU VAL", [row.val_miou for row in rows], scored),
            ("lr", "L.R.", [row.lr for row in rows], np.isfinite),
        ):
            if any(measured(value) for value in values):
                self.show(
                    GRAPHS,
                    name,
                    functools.partial(
                        panes.curves, name, title, [row.epoch for row in rows], {self.run: values}
                    ),
                )

    def recorded_losses(self) -> dict[str, dict[int, float]]:
        """{name: {epoch: mean}} as they were shown before the run was resumed; automated_log.txt
        has their sum only."""
        pane = self.feed.record.envs.get(self.feed.record.env(GRAPHS), {}).get("losses")
        return {
            trace["name"]: dict(zip(trace["x"], trace["y"], strict=True))
            for trace in (pane["content"]["data"] if pane else ())
        }

    def named_losses(self, epoch: int, losses: dict[str, float]) -> None:
        for name, value in losses.items():
            line = self.losses.get(name, {})
            self.losses[name] = {x: line[x] for x in line if x < epoch} | {epoch: value}
        epochs = sorted({x for line in self.losses.values() for x in line})
        lines = {name: [line.get(x) for x in epochs] for name, line in self.losses.items()}
        if len(lines) > 1:  # one alone is the curve of mLoss TRAIN
            self.show(
                GRAPHS, "losses", lambda: panes.curves("losses", "losses TRAIN", epochs, lines)
            )

    def pictures(self, epoch: int) -> None:
        """Inputs and labels, and the predictions of this epoch after those of earlier ones."""
        samples = self.samples
        self.samples = []
        if not samples:
            return
        columns = 1 if len(samples[0][0]) > 1 else 4  # a clip fills a row
        wide = max(len(samples[0][0]), columns)
        self.show(
            IMAGES,
            "inputs",
            lambda: panes.picture(
                "inputs",
                "Sequence VAL INPUTS",
                grid([frame for frames, _, _ in samples for frame in frames], wide),
            ),
        )
        self.show(
            IMAGES,
            "target",
            lambda: panes.picture(
                "target",
                "Sequence VAL TARGET",
                grid([colourise(labels, self.palette) for _, labels, _ in samples], columns),
            ),
        )
        self.show(
            IMAGES,
            "labels",
            lambda: panes.picture(
                "labels",
                "Sequence VAL LABELS",
                grid(
                    [colourise(prediction, self.palette) for _, _, prediction in samples], columns
                ),
                f"epoch {epoch}",
                step=epoch,
            ),
            history=True,
        )

    # Evaluation and inference

    @quiet
    def frame(self, labelled) -> None:
        """A frame of an evaluation, engine.LabelledFrame: input, label, prediction, errors."""
        if not self.is_due():
            return
        step, picture, (labels, prediction) = self.seen, as_picture(labelled.frame), maps(labelled)
        self.show(
            IMAGES,
            "frames",
            lambda: panes.picture(
                "frames",
                "EVAL FRAMES",
                panes.shrink(
                    comparison(
                        panes.resize(picture, prediction.shape), labels, prediction, self.palette
                    )
                ),
                labelled.name,
                step=step,
            ),
            history=True,
        )

    @quiet
    def results(self, metrics: dict) -> None:
        """Of an evaluation, as in results.json."""
        self.bars(
            "iou_eval", f"IoU per class EVAL, mIoU {100 * metrics['mIoU']:.2f} %", metrics["IoU"]
        )
        self.feed.save()

    @quiet
    def live(self, name: str, image: np.ndarray, prediction: np.ndarray) -> None:
        """A frame of an inference: image (H, W, 3) and prediction (H, W), uint8. One a second is
        shown."""
        if time.monotonic() - self.shown_at >= LIVE:
            self.shown_at = time.monotonic()
            self.show(
                IMAGES,
                "live",
                lambda: panes.picture(
                    "live",
                    "INFERENCE",
                    panes.shrink(overlay(image, prediction, self.palette)),
                    name,
                ),
            )

    def bars(self, name: str, title: str, values) -> None:
        values = [float("nan") if value is None else float(value) for value in values]
        self.show(GRAPHS, name, lambda: panes.bars(name, title, self.names, values, self.run))

    def show(self, kind: str, name: str, make, *, history: bool = False) -> None:
        """make: gives the pane, later and on another thread."""
        self.feed.show(self.feed.record.env(kind), name, make, history=history)


def maps(labelled) -> tuple[np.ndarray, np.ndarray]:
    """Labels and prediction, (H, W) uint8."""
    return labelled.labels.cpu().numpy().astype(np.uint8), labelled.prediction.cpu().numpy()


def scored(miou: float) -> bool:
    """Without validation the log has 0."""
    return miou > 0


def grid(pictures: list[np.ndarray], columns: int) -> np.ndarray:
    """Pictures in rows, shrunk so that they fit a screen, all to the size of the first."""
    first = panes.shrink(pictures[0], TILE)
    pictures = [panes.resize(picture, first.shape[:2]) for picture in pictures]
    pictures += [np.zeros_like(first)] * (-len(pictures) % min(columns, len(pictures)))
    columns = min(columns, len(pictures))
    rows = [side_by_side(*pictures[i : i + columns]) for i in range(0, len(pictures), columns)]
    gap = np.full((4, rows[0].shape[1], 3), 24, np.uint8)
    return np.concatenate([part for row in rows for part in (gap, row)][1:])
