"""--replay SAVEDIR: show a run that is over, from what it left in its savedir.

graphs RUN.json, images RUN.json, attention RUN.json    what --visualize recorded, if the run had it
automated_log.txt       the curves of a training
results.json            the classes of an evaluation
pictures/**/*.png       the strips of an evaluation, where none were recorded
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from . import windows
from .dashboard import STRIPS, Dashboard
from .visdom_client import Server, VisdomClient
from .windows import IMAGES, Record


class Direct(VisdomClient):
    """A client without a thread: what is shown is recorded at once, and sent when asked for."""

    def __init__(self, record: Record, server: Server):
        self.record = record
        self.server = server

    def show(self, env, name, make, *, history=False):
        self.record.show(env, make())

    def save(self):
        """The record came from the savedir: there is nothing to write."""


def replay(folder: Path, server: str, port: int) -> list[str]:
    """Send the record of a run to a server; the names of its environments there.

    FileNotFoundError / ValueError where there is no record; OSError where the server does not take
    it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"--replay {folder}: there is no such folder; give the --savedir of a run"
        )
    record = Record(folder, keep=True)
    record.fresh = True  # what is sent is all there is
    dashboard = Dashboard(folder, Direct(record, Server(server, port)))  # its curves come with it
    if (folder / "results.json").exists():
        results = json.loads((folder / "results.json").read_text())
        dashboard.names = results["classes"]
        dashboard.results(results["metrics"])
    if "frames" not in record.envs.get(record.env(IMAGES), {}):
        show_pictures(folder, record)
    if not record.envs:
        raise ValueError(
            f"--replay {folder}: there is no automated_log.txt, results.json or picture in it"
        )
    try:
        dashboard.client.server.update(record)
        dashboard.client.server.save(record)
    except OSError as error:
        raise ConnectionError(
            f"the visdom server at {dashboard.client.server} does not work: {error}; start one by "
            "`python -m visdom.server`, or name it by --server and --port"
        ) from error
    return list(record.envs)


def show_pictures(folder: Path, record: Record) -> None:
    """Some of the evaluation's strips, evenly spread."""
    paths = sorted((folder / "pictures").rglob("*.png"))
    for step, path in enumerate(paths[:: max(-(-len(paths) // STRIPS), 1)]):
        image = windows.shrink(np.asarray(Image.open(path).convert("RGB")))
        record.show(
            record.env(IMAGES),
            windows.picture("frames", "EVAL FRAMES", image, path.stem, step=step),
        )
