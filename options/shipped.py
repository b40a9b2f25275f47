"""Weights that come with the tool, by the names that --weights takes."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from .types import path

FOLDER = Path(__file__).resolve().parents[1] / "trained_models"
DEFAULT = "street"  # what labels a video where no weights are named

FREE_TERMS = "Apache-2.0"
RESEARCH_TERMS = (
    "for research, not for commercial use: the terms of CamVid and IDD-Lite, and of Cityscapes, "
    "which its teacher had seen, hold (docs/weights.md)"
)


class Shipped(NamedTuple):
    """One file: what is in it, and under which terms."""

    file: str
    what: str
    terms: str

    @property
    def path(self) -> str:
        return str(FOLDER / self.file)


SHIPPED = {
    "street": Shipped(
        "street_espnetv2.pth", "ESPNetv2, CamVid's 11 classes, smoothed over time", RESEARCH_TERMS
    ),
    "street-swiftnet18": Shipped(
        "street_swiftnet18.pth",
        "SwiftNet on ResNet-18, CamVid's 11 classes, smoothed over time",
        RESEARCH_TERMS,
    ),
    "synthetic": Shipped("erfnet_synthetic.pth", "ERFNet, rendered streets", FREE_TERMS),
    "synthetic-lma": Shipped("lmanet_erf_synthetic.pth", "LMANet, rendered streets", FREE_TERMS),
}


def weights_path(text: str) -> str:
    """The file of a name, or the path that the text is; a file that is named so is ./NAME."""
    ours = SHIPPED.get(text)
    return ours.path if ours else path(text)
