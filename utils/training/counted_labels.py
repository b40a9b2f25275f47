"""Counts of a data set's labels, kept in the savedir: a resume reads no label for them again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..files import write_text

FILE = "counted_labels.json"


def stored(folder: Path, data: str) -> list[int] | None:
    """Pixels by class id that were counted for the same data, None where there are none.

    data: what tells one data set from another.
    """
    with suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads((folder / FILE).read_text())
        if content["data"] == data:
            return [int(count) for count in content["pixels"]]
    return None


def store(folder: Path, data: str, pixels: Sequence[int]) -> None:
    """Keep what was counted."""
    content = {"data": data, "pixels": [int(count) for count in pixels]}
    write_text(folder / FILE, json.dumps(content) + "\n")
