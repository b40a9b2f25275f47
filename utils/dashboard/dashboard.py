"""--visualize: what a run shows on a visdom server while it goes on.

    graphs RUN      loss, mIoU and learning rate over the epochs, from automated_log.txt; each named
                    loss; IoU per class
    images RUN      training: inputs, labels and, with a slider over the epochs, predictions of some
                    validation frames; evaluation: strips of some frames; inference: the frame that
                    was labelled last; the colours of the classes
    attention RUN   explorer.py

Nothing here waits for the server, fails with it, or stops a run (visdom_client.py). What is shown
is kept in the savedir too, as one file per environment (windows.py), and shown again by
`main.py --replay SAVEDIR` (replay.py).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .. import log
from ..console import warn_once
from ..output.pictures import as_picture, colourise, comparison, legend, overlay, side_by_side
from ..run.dist import rank, world_size
from . import windows
from .visdom_client import Server, VisdomClient
from .windows import GRAPHS, IMAGES

SAMPLES = 4  # validation frames shown
STRIPS = 16  # frames of an evaluation shown
TILE = 320  # pixels: width of a picture in a grid
LIVE = 1.0  # seconds between two frames of an inference


def is_scored(miou: float) -> bool:
    """Without validation the log has 0."""
    return miou > 0


# window: its title, the column of automated_log.txt, and whether a value of it was measured
CURVES = {
    "loss_train": ("mLoss TRAIN", "train_loss", np.isfinite),
    "loss_val": ("mLoss VAL", "val_loss", np.isfinite),
    "miou_train": ("mIoU TRAIN", "train_miou", is_scored),
    "miou_val": ("mIoU VAL", "val_miou", is_scored),
    "lr": ("L.R.", "lr", np.isfinite),
}


def quiet(method):
    """Nothing happens where there is no dashboard, and no mistake in one ever stops a run."""

    @functools.wraps(method)
    def call(self, *args, **options):
        if self.client is None:
            return
        try:
            method(self, *args, **options)
        except Exception as error:
            # Of any kind, as for TensorBoard: no picture is worth a training.
            warn_once(f"the dashboard lacks a window: {error!r}")

    return call


class Dashboard:
    """Give it what happens; it shows some of it. Without a client it does nothing."""

    def __init__(self, folder: Path, client: VisdomClient | None, names=(), palette=()):
        """folder: the savedir; names, palette: of the classes."""
        self.folder = Path(folder)
        self.client = client
        self.names = list(names)
        self.palette = palette
        self.seen = 0
        self.every = 1
        self.samples = []
        self.has_legend = False
        self.shown_at = -LIVE
        self.run = self.folder.resolve().name
        self.losses = {}
        self.go_on()

    @classmethod
    def of(cls, args, labels) -> Dashboard:
        """The dashboard that the options ask for; rank 0 has it.

        A training that does not resume begins it anew.
        """
        if not args.visualize or rank():
            return cls(args.savedir, None)
        record = windows.Record(args.savedir, keep=args.resume or not args.training)
        client = VisdomClient(record, Server(args.server, args.port))
        return cls(args.savedir, client, labels.names, labels.palette)

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
        self.client.close()

    def watch(self, split: str, frames: int, start: int = 0) -> Callable:
        """A consumer for engine.evaluate on a split of so many frames, on all ranks together.

        "val": some of rank 0's are shown at the end of the epoch; "eval": some more, at once;
        others: none. start: how many of rank 0's were seen before the run was resumed.
        """
        consumers = {"val": (SAMPLES, self.sample), "eval": (STRIPS, self.frame)}
        shown, consume = consumers.get(split, (1, ignore))
        # Frames are shared among ranks, and rank 0 alone shows some.
        self.every = max(-(-frames // (world_size() * shown)), 1)
        self.seen = start
        return consume

    # Training

    @quiet
    def sample(self, labelled) -> None:
        """A frame of a validation, engine.LabelledFrame; shown at the end of the epoch."""
        if not self.is_due():
            return
        frames = labelled.frame[None] if labelled.clip is None else labelled.clip
        pictures = [as_picture(frame) for frame in frames]
        self.samples.append((pictures, *maps(labelled)))

    def is_due(self) -> bool:
        """Whether this frame, one after the other, is one to show."""
        self.seen += 1
        return (self.seen - 1) % self.every == 0

    @quiet
    def epoch(self, epoch: int, losses: dict[str, float], scores: dict[str, dict]) -> None:
        """An epoch is over and in automated_log.txt.

        losses: named means. scores: the results of engine.evaluate by split.
        """
        self.curves()
        self.named_losses(epoch, losses)
        if "val" in scores:
            self.bars("iou", "IoU per class VAL", scores["val"]["IoU"])
        self.pictures(epoch)
        self.client.save()

    @quiet
    def curves(self) -> None:
        """The whole curves from automated_log.txt, whatever the server has of them.

        None of what nobody measured.
        """
        path = self.folder / log.LOG_NAME
        rows = log.read(path) if path.exists() else []
        epochs = [row.epoch for row in rows]
        for name, (title, column, measured) in CURVES.items():
            values = [getattr(row, column) for row in rows]
            if any(measured(value) for value in values):
                lines = {self.run: values}
                make = functools.partial(windows.curves, name, title, epochs, lines)
                self.show(GRAPHS, name, make)

    def recorded_losses(self) -> dict[str, dict[int, float]]:
        """{name: {epoch: mean}} as they were shown before the run was resumed.

        automated_log.txt has their sum only.
        """
        record = self.client.record
        shown = record.envs.get(record.env(GRAPHS), {}).get("losses")
        traces = shown["content"]["data"] if shown else ()
        return {trace["name"]: dict(zip(trace["x"], trace["y"], strict=True)) for trace in traces}

    def named_losses(self, epoch: int, losses: dict[str, float]) -> None:
        """Add the means of an epoch to the curves; later epochs were of a run before a resume."""
        for name, value in losses.items():
            line = self.losses.get(name, {})
            self.losses[name] = {x: line[x] for x in line if x < epoch} | {epoch: value}
        epochs = sorted({x for line in self.losses.values() for x in line})
        lines = {name: [line.get(x) for x in epochs] for name, line in self.losses.items()}
        # One alone is the curve of mLoss TRAIN.
        if len(lines) > 1:
            make = functools.partial(windows.curves, "losses", "losses TRAIN", epochs, lines)
            self.show(GRAPHS, "losses", make)

    def pictures(self, epoch: int) -> None:
        """Inputs and labels, and the predictions of this epoch after those of earlier ones."""
        samples = self.samples
        self.samples = []
        if not samples:
            return
        columns = 1 if len(samples[0][0]) > 1 else 4  # a clip fills a row
        wide = max(len(samples[0][0]), columns)
        inputs = [frame for frames, _, _ in samples for frame in frames]
        labels = [labels for _, labels, _ in samples]
        predictions = [prediction for _, _, prediction in samples]

        def coloured(maps: list) -> np.ndarray:
            return grid([colourise(map_, self.palette) for map_ in maps], columns)

        def show(name: str, title: str, make: Callable, **options) -> None:
            """make: gives the picture, later and on another thread."""
            self.show(
                IMAGES,
                name,
                lambda: windows.picture(name, f"Sequence VAL {title}", make(), **options),
                history="step" in options,
            )

        show("inputs", "INPUTS", lambda: grid(inputs, wide))
        show("labels", "LABELS", lambda: coloured(labels))
        of_epoch = {"caption": f"epoch {epoch}", "step": epoch}
        show("predictions", "PREDICTIONS", lambda: coloured(predictions), **of_epoch)

    # Evaluation and inference

    @quiet
    def frame(self, labelled) -> None:
        """A frame of an evaluation, engine.LabelledFrame: input, label, prediction, errors."""
        if not self.is_due():
            return
        # Taken now: by the time the window is made, the next frame may be at hand.
        step = self.seen
        picture = as_picture(labelled.frame)
        labels, prediction = maps(labelled)

        def make() -> dict:
            frame = windows.resize(picture, prediction.shape)
            strip = windows.shrink(comparison(frame, labels, prediction, self.palette))
            return windows.picture("frames", "EVAL FRAMES", strip, labelled.name, step=step)

        self.show(IMAGES, "frames", make, history=True)

    @quiet
    def results(self, metrics: dict) -> None:
        """Of an evaluation, as in results.json."""
        title = f"IoU per class EVAL, mIoU {100 * metrics['mIoU']:.2f} %"
        self.bars("iou_eval", title, metrics["IoU"])
        self.client.save()

    @quiet
    def live(self, name: str, image: np.ndarray, prediction: np.ndarray) -> None:
        """A frame of an inference: image (H, W, 3) and prediction (H, W), uint8.

        One a second is shown.
        """
        if time.monotonic() - self.shown_at < LIVE:
            return
        self.shown_at = time.monotonic()

        def make() -> dict:
            picture = windows.shrink(overlay(image, prediction, self.palette))
            return windows.picture("live", "INFERENCE", picture, name)

        self.show(IMAGES, "live", make)

    def bars(self, name: str, title: str, values) -> None:
        values = [float("nan") if value is None else float(value) for value in values]
        self.show(GRAPHS, name, lambda: windows.bars(name, title, self.names, values, self.run))

    def show(self, kind: str, name: str, make, *, history: bool = False) -> None:
        """make: gives the window, later and on another thread."""
        env = self.client.record.env(kind)
        self.client.show(env, name, make, history=history)
        if kind == IMAGES and not self.has_legend:
            self.has_legend = True
            self.client.show(env, "classes", self.legend)

    def legend(self) -> dict:
        """The window that says which colour is which class."""
        return windows.picture("classes", "CLASSES", legend(self.names, self.palette, width=480))


def maps(labelled) -> tuple[np.ndarray, np.ndarray]:
    """Labels and prediction, (H, W) uint8."""
    return labelled.labels.cpu().numpy().astype(np.uint8), labelled.prediction.cpu().numpy()


def ignore(labelled) -> None:
    """A consumer that shows nothing."""


def grid(pictures: list[np.ndarray], columns: int) -> np.ndarray:
    """Pictures in rows, shrunk so that they fit a screen, all to the size of the first."""
    first = windows.shrink(pictures[0], TILE)
    pictures = [windows.resize(picture, first.shape[:2]) for picture in pictures]
    columns = min(columns, len(pictures))
    # The last row is filled up with black.
    pictures += [np.zeros_like(first)] * (-len(pictures) % columns)
    rows = [side_by_side(*pictures[i : i + columns]) for i in range(0, len(pictures), columns)]
    gap = np.full((4, rows[0].shape[1], 3), 24, np.uint8)
    return np.concatenate([part for row in rows for part in (gap, row)][1:])
