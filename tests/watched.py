"""A run as its dashboard sees it, and what a visdom server then has of it."""

from __future__ import annotations

import base64
import io
import math
from argparse import Namespace
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from utils import log
from utils.dashboard import Dashboard
from visdom_server import windows_of

NAMES, PALETTE = (
    ["road", "car", "sky"],
    np.array([[128, 64, 128], [0, 0, 142], [70, 130, 180]], np.uint8),
)
LABELS = SimpleNamespace(names=NAMES, palette=PALETTE)
IMAGE = np.zeros((8, 8, 3), np.uint8)


def options(folder, port, **more) -> Namespace:
    return Namespace(
        **{
            "visualize": True,
            "server": "http://localhost",
            "port": port,
            "savedir": str(folder),
            "training": True,
            "resume": False,
        }
        | more
    )


def open_dashboard(folder, port, **more) -> Dashboard:
    folder.mkdir(exist_ok=True)
    return Dashboard.of(options(folder, port, **more), LABELS)


def labelled(name="clip/1", frames=1, size=(12, 16), seed=0):
    """As engine.LabelledFrame."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, size, generator=generator)
    clip = torch.rand(frames, 3, *size, generator=generator)
    return SimpleNamespace(
        name=name,
        frame=clip[-1],
        clip=clip,
        labels=labels,
        prediction=labels.roll(1, 0).to(torch.uint8),
    )


def train(dashboard, epochs, *, resume=False, last_loss=1.0):
    """What main.py does of a training, as far as a dashboard sees it."""
    history = log.TrainingLog(dashboard.folder, resume=resume)
    for epoch in epochs:
        for split in ("val", "train"):
            watch = dashboard.watch(split, 4)
            for i in range(4):
                watch(labelled(seed=i + epoch, frames=3))
        history.write(epoch, last_loss / epoch, 2 / epoch, 0.0, 1 - 1 / (epoch + 1), 0.01 / epoch)
        dashboard.epoch(
            epoch,
            {"ce": 0.75 / epoch, "aux": 0.25 / epoch},
            {"val": {"IoU": torch.tensor([0.5, math.nan, 1 - 0.5 / epoch])}},
        )


def traces(window: dict) -> dict[str, tuple[list, list]]:
    return {trace["name"]: (trace["x"], trace["y"]) for trace in window["content"]["data"]}


def assert_curves(port, folder):
    """The windows hold the numbers of automated_log.txt."""
    rows, run, shown = (
        log.read(folder / log.LOG_NAME),
        folder.name,
        windows_of(port, f"graphs {folder.name}"),
    )
    epochs = [row.epoch for row in rows]
    for title, values in {
        "mLoss TRAIN": [row.train_loss for row in rows],
        "mLoss VAL": [row.val_loss for row in rows],
        "mIoU VAL": [row.val_miou for row in rows],
        "L.R.": [row.lr for row in rows],
    }.items():
        assert [traces(window) for window in shown.values() if window["title"] == title] == [
            {run: (epochs, values)}
        ]


def size_of(image: dict) -> tuple[int, int]:
    """(H, W) of an image in a window."""
    return Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))).size[::-1]


def steps(window: dict) -> list:
    return [image["step"] for image in window["content"]]
