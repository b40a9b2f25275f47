"""What jobs other than training have done so far, so that --resume goes on where a killed run
stopped.

savedir/evaluation_0_of_1.pth       an evaluation's sums, by rank; gone when it is done
savedir/inference_0_of_1.json       the sources that are labelled whole, by rank
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from .. import checkpoint
from ..files import write_text
from .dist import rank, world_size

PATIENCE = 20.0  # seconds between two writes: so much work at most is done again


def own_file(folder: Path, job: str, suffix: str) -> Path:
    """Of this rank."""
    return Path(folder) / f"{job}_{rank()}_of_{world_size()}{suffix}"


def same_run(recipe: str, stored: str, path: Path) -> None:
    """ValueError unless the options are those of the run that wrote `path`."""
    # Lines that only one of the two recipes has.
    changed = sorted(set(recipe.splitlines()) ^ set(stored.splitlines()))
    if changed:
        raise ValueError(
            f"--resume: {path} was written with other options ({', '.join(changed[:4])}): give "
            f"the same, "
            "or leave --resume out to start anew"
        )


def stamp(path: str) -> str:
    """What tells a file from one that was written in its place."""
    status = Path(path).stat()
    return f"{status.st_size} bytes, {status.st_mtime_ns}"


class EvaluationProgress:
    """The sums of an evaluation at the last point from which it can go on.

    That is between two videos, or two clips.
    """

    def __init__(self, folder: Path, recipe: str, weights: Sequence[str] = (), *, resume: bool):
        """recipe, weights: the options and the files of the network.

        They must be those of the run that is resumed.
        """
        self.path = own_file(folder, "evaluation", ".pth")
        self.recipe = recipe + "".join(f"{path} of {stamp(path)}\n" for path in weights)
        # samples of this rank that are counted, and what they add up to
        self.done = 0
        self.sums = None
        self.written = time.monotonic()
        if resume and self.path.exists():
            stored, _ = checkpoint.read_latest(self.path)
            same_run(self.recipe, stored["recipe"], self.path)
            self.done = stored["done"]
            self.sums = stored["sums"]
        elif not resume:
            self.remove()

    def mark(self, done: int, sums: Callable[[], dict]) -> None:
        """`done` samples are counted: remember, and write now and then."""
        self.done = done
        self.sums = sums()
        if time.monotonic() - self.written > PATIENCE:
            self.write()

    def write(self) -> None:
        content = {"recipe": self.recipe, "done": self.done, "sums": self.sums}
        checkpoint.save(self.path, content, keep=False)
        self.written = time.monotonic()

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> EvaluationProgress:
        return self

    def __exit__(self, kind, *error) -> None:
        """Stopped: from the last mark it can go on."""
        # Without an error everything is counted, and the results are about to be written.
        if kind is not None and self.sums is not None:
            self.write()


class FinishedSources:
    """The sources of an inference that are labelled from their first frame to their last."""

    def __init__(self, folder: Path, recipe: str, sources: Sequence[str], *, resume: bool):
        """sources: the names of all, which say later which files in `folder` are the run's."""
        self.path = own_file(folder, "inference", ".json")
        self.recipe = recipe
        self.sources = list(sources)
        self.names = []
        if resume and self.path.exists():
            try:
                stored = json.loads(self.path.read_text())
                written = stored["recipe"]
                self.names = stored["finished"]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"--resume: {self.path} is damaged: leave --resume out to start anew"
                ) from error
            same_run(recipe, written, self.path)
        else:
            self.write()

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def add(self, name: str) -> None:
        self.names.append(name)
        self.write()

    def write(self) -> None:
        write_text(
            self.path,
            json.dumps(
                {"recipe": self.recipe, "sources": self.sources, "finished": self.names}, indent=2
            )
            + "\n",
        )
