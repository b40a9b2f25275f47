"""NAME_keyframes.csv: of each frame of a video, whether it was a key frame, and why.

    frame,name,time,key,why,numbers,milliseconds
    0,000000,0.000000,1,first frame,,41.312
    1,000001,0.040000,0,1 of 2,cut=0,5.207

The numbers that a decision was based on stand as name=value, a space between two of them.
"""

from __future__ import annotations

import csv
import errno
from pathlib import Path

from ..keyframes import Decision

COLUMNS = ("frame", "name", "time", "key", "why", "numbers", "milliseconds")


class KeyRecord:
    """Grows row by row as NAME_keyframes.partial.csv; gets its name when it is closed.

    OSError where a row does not arrive on the disk.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.partial = self.path.with_stem(f"{self.path.stem}.partial")
        self.partial.parent.mkdir(parents=True, exist_ok=True)
        # Line by line, so that a killed run leaves whole rows.
        self.file = self.partial.open(
            "w", newline="", encoding="utf-8", errors="surrogateescape", buffering=1
        )
        self.rows = csv.writer(self.file, lineterminator="\n")
        self.rows.writerow(COLUMNS)
        self.frames = 0

    def write(
        self, name: str, time: float | None, decision: Decision, seconds: float | None
    ) -> None:
        """time: seconds at which the frame is shown, where known; seconds: of labelling it."""
        shown = "" if time is None else f"{time:.6f}"
        spent = "" if seconds is None else f"{1000 * seconds:.3f}"
        numbers = " ".join(f"{key}={value:.6g}" for key, value in decision.numbers.items())
        row = (self.frames, name, shown, int(decision.key), decision.why, numbers, spent)
        try:
            self.rows.writerow(row)
        except OSError as error:
            raise OSError(
                error.errno or errno.EIO,
                f"{self.partial} cannot be written ({error.strerror or error}): is the disk full?",
            ) from error
        self.frames += 1

    def close(self) -> None:
        """What was written until now is kept."""
        if self.file.closed:
            return
        self.file.close()
        self.partial.replace(self.path)
