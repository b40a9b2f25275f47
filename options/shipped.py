"""Weights that come with the tool, by the names that --weights takes."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from .types import path

FOLDER = Path(__file__).resolve().parents[1] / "trained_models"
DEFAULT = "synthetic"  # what labels a video where no weights are named

FREE_TERMS = "Apache-2.0"


class Shipped(NamedTuple):
    """One file: what is in it, and under which terms."""

    file: str
    what: str
    terms: str

    @property
    def path(self) -> str:
        return str(FOLDER / self.file)


SHIPPED = {
    "synthetic": Shipped("erfnet_synthetic.pth", "ERFNet, rendered streets", FREE_TERMS),
    "synthetic-lma": Shipped("lmanet_erf_synthetic.pth", "LMANet, rendered streets", FREE_TERMS),
}


def weights_path(text: str) -> str:
    """The file of a name, or the path that the text is; a file that is named so is ./NAME."""
    ours = SHIPPED.get(text)
    return ours.path if ours else path(text)
