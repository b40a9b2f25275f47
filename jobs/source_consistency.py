"""--inference --metrics tc: temporal consistency of the labels of a source, which has no others."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch

from datasets.frame_numbers import MANY, rise_between, rises_over_gaps
from models.optical_flow import DIS
from utils.files import write_text
from utils.metrics.definitions import DEFINITIONS
from utils.metrics.evaluation_metric import ScoredFrame
from utils.metrics.temporal import Motion, Temporal, Videos
from utils.output.report import degenerate, environment, plain
from utils.predictions import frame_tensor

from .flow_cache import keep_flow
from .temporal import COMPUTED, CPU, PRESET, motion_between


class SourceMotion:
    """Motion from the last frame but one of a source into its last."""

    def __init__(self, args):
        self.masked = "strict" in args.tc_modes
        self.provider = DIS(PRESET)
        keep_flow(args, self.provider)
        self.frames: list[torch.Tensor] = []
        self.found: Motion | None = None

    def push(self, image: np.ndarray) -> None:
        """The next frame (H, W, 3) uint8 RGB."""
        self.frames = [*self.frames[-1:], frame_tensor(image, CPU)]
        self.found = None

    def __call__(self, video: int, index: int, size: tuple[int, int]) -> Motion:
        """(utils.metrics.temporal.PairMotion)"""
        # Shared by all modes
        if self.found is None:
            self.found = motion_between(self.provider, *self.frames, size, masked=self.masked)
        return self.found


class SourceConsistency:
    """TC of one source, frame by frame; memory does not grow.

    Names come one by one, and how far the number rises from frame to frame is known in the end
    (datasets/frame_numbers.py). Until then the pairs of each rise are counted apart.
    """

    def __init__(self, args, num_classes: int):
        self.modes = args.tc_modes
        self.num_classes = num_classes
        self.motion = SourceMotion(args)
        self.videos = Videos()
        self.pairs: dict[int | None, list[Temporal]] = {}
        self.rises: Counter[int | None] = Counter()
        self.frames = 0
        self.before: torch.Tensor | None = None  # the last prediction (H, W)
        self.name = ""  # of the last frame

    def metrics(self) -> list[Temporal]:
        """One of each mode, which has counted nothing."""
        return [Temporal(self.num_classes, mode, self.motion, COMPUTED) for mode in self.modes]

    def add(self, image: np.ndarray, prediction: torch.Tensor, name: str) -> None:
        """The next frame (H, W, 3), its labels (H, W), and what it is called."""
        self.motion.push(image)
        prediction = prediction.long()
        if self.before is not None and self.before.shape == prediction.shape:
            self.count(rise_between(self.name, name), prediction)
        else:
            self.videos.end()
        self.videos.add(prediction)
        self.before = prediction
        self.name = name
        self.frames += 1

    def count(self, rise: int | None, prediction: torch.Tensor) -> None:
        """Count the last prediction and this one among the pairs of this rise."""
        # So many different rises are no steps: which pair has which does not matter any more.
        if rise not in self.pairs and len(self.pairs) > MANY:
            rise = None
        if rise not in self.pairs:
            self.pairs[rise] = self.metrics()
        self.rises[rise] += 1
        labels = prediction[None]
        scored = ScoredFrame(None, labels, labels, labels, video=0, index=self.frames)
        for metric in self.pairs[rise]:
            metric.add(self.before, scored)

    def total(self, missing: Collection[int]) -> list[Temporal]:
        """What was counted of all rises but those of `missing`."""
        total = self.metrics()
        for rise in self.pairs.keys() - missing:
            for metric, counted in zip(total, self.pairs[rise], strict=True):
                metric.merge(counted)
        for metric in total:
            metric.videos = self.videos
        return total

    def write(self, path: Path) -> str:
        """Write the result -> what it says, in one line."""
        missing = rises_over_gaps(self.rises)
        left_out = sum(self.rises[rise] for rise in missing)
        results = {}
        for metric in self.total(missing):
            results |= metric.compute()
        warnings = degenerate(results)
        content = {
            "metrics": results,
            "frames": self.frames,
            "left_out_pairs": left_out,
            "definitions": {name: DEFINITIONS[name] for name in results},
            "warnings": warnings,
            "environment": environment(),
        }
        write_text(path, json.dumps(plain(content), indent=2, allow_nan=False) + "\n")
        said = [in_words(name, result) for name, result in results.items()]
        if left_out:
            said.append(
                f"{left_out} of {self.rises.total()} neighbours are no pair: by the numbers in "
                "their names they do not follow each other"
            )
        return "; ".join([*said, *warnings])


def in_words(name: str, result: dict) -> str:
    if not result["pairs"]:
        return f"{name}: no two frames of one size follow each other"
    return (
        f"{name} {100 * result['TC']:.2f} % over {result['pairs']} pairs of frames "
        f"({100 * result['no_warp']:.2f} % without following motion)"
    )
