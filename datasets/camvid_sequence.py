"""Writes CamVid's 960x720 sequence folder, all frames between the labelled ones, from raw videos.

    python -m datasets.camvid_sequence RAW CAMVID

RAW holds the four videos as they are published: 0005VD.MXF, 0006R0.MXF, 0016E5.MXF and
01TP_extract.avi, or some of them. CAMVID/images_sequence gets every frame as a PNG, under the names
and numbers of the labelled frames (TMANet's): the first decoded frame of an MXF file comes before
number 0 and is left out, the AVI begins at 6660.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from .camvid import SEQUENCES
from .source import open_source


class Drive(NamedTuple):
    """How the frames of a raw video are called."""

    file: str
    name: str  # of a frame, by its number
    first: int  # number of the first decoded frame


DRIVES = (
    Drive("0005VD.MXF", "Seq05VD_f{:05d}", -1),
    Drive("0006R0.MXF", "0006R0_f{:05d}", -1),
    Drive("0016E5.MXF", "0016E5_{:05d}", -1),
    Drive("01TP_extract.avi", "0001TP_{:06d}", 6660),
)


def write_sequence(raw: Path, root: Path) -> dict[str, int]:
    """Write the frames of the videos in `raw` -> how many each has given.

    FileNotFoundError where there is none of the videos.
    """
    found = [drive for drive in DRIVES if (raw / drive.file).is_file()]
    if not found:
        names = ", ".join(drive.file for drive in DRIVES)
        raise FileNotFoundError(f"{raw} holds none of CamVid's raw videos: {names}")
    folder = root / SEQUENCES[0]
    folder.mkdir(parents=True, exist_ok=True)
    return {drive.file: write_drive(raw, drive, folder) for drive in found}


def write_drive(raw: Path, drive: Drive, folder: Path) -> int:
    """Write the frames of one video -> how many."""
    written = 0
    with open_source(str(raw / drive.file)) as source:
        for number, frame in enumerate(source, drive.first):
            if number < 0:
                continue
            # At once or not at all: an image that is cut short would be found only when it is read.
            path = folder / f"{drive.name.format(number)}.png"
            temporary = path.with_suffix(".tmp")
            Image.fromarray(frame.image).save(temporary, format="PNG")
            temporary.replace(path)
            written += 1
    return written


def main(argv: Sequence[str]) -> str:
    """Write what RAW CAMVID ask for -> what was done, in words. ValueError for other words."""
    if len(argv) != 2:
        raise ValueError("expected two folders: python -m datasets.camvid_sequence RAW CAMVID")
    counts = write_sequence(Path(argv[0]), Path(argv[1]))
    return ", ".join(f"{count} frames of {file}" for file, count in counts.items())


if __name__ == "__main__":
    try:
        print(main(sys.argv[1:]))
    except (OSError, ValueError) as error:
        print(f"camvid_sequence: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
