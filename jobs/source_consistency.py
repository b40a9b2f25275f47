"""--inference --metrics tc: temporal consistency of the labels of a source, which has no others."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import torch

from models.optical_flow import DIS
from utils.files import write_text
from utils.metrics.definitions import DEFINITIONS
from utils.metrics.evaluation_metric import ScoredFrame
from utils.metrics.temporal import Motion, Temporal
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


class FrameNumbers:
    """The numbers in the names of frames; the first two say how far apart neighbours are."""

    def __init__(self):
        self.last: int | None = None
        self.step: int | None = None

    def gap_before(self, name: str) -> bool:
        """Whether frames are missing between the last one and this one."""
        # stuttgart_00_000000_000001_leftImg8bit: digits within a word are no number.
        found = re.findall(r"(?<![A-Za-z0-9])[0-9]+(?![A-Za-z0-9])", name)
        number = int(found[-1]) if found else None
        last = self.last
        self.last = number
        if number is None or last is None:
            return False
        if self.step is None:
            self.step = number - last
        return number - last != self.step


class SourceConsistency:
    """TC of one source, frame by frame; memory does not grow."""

    def __init__(self, args, num_classes: int):
        self.motion = SourceMotion(args)
        self.metrics = [
            Temporal(num_classes, mode, self.motion, COMPUTED) for mode in args.tc_modes
        ]
        self.frames = 0
        self.size: tuple[int, ...] = ()
        self.numbers = FrameNumbers()

    def add(self, image: np.ndarray, prediction: torch.Tensor, name: str) -> None:
        """The next frame (H, W, 3), its labels (H, W), and what it is called."""
        if tuple(prediction.shape) != self.size or self.numbers.gap_before(name):
            self.size = tuple(prediction.shape)
            for metric in self.metrics:
                metric.end_video()
        self.motion.push(image)
        labels = prediction.long()[None]
        scored = ScoredFrame(None, labels, labels, labels, video=0, index=self.frames)
        for metric in self.metrics:
            metric.update(scored)
        self.frames += 1

    def write(self, path: Path) -> str:
        """Write the result -> what it says, in one line."""
        results = {}
        for metric in self.metrics:
            results |= metric.compute()
        warnings = degenerate(results)
        content = {
            "metrics": results,
            "frames": self.frames,
            "definitions": {name: DEFINITIONS[name] for name in results},
            "warnings": warnings,
            "environment": environment(),
        }
        write_text(path, json.dumps(plain(content), indent=2, allow_nan=False) + "\n")
        return "; ".join([*(in_words(name, result) for name, result in results.items()), *warnings])


def in_words(name: str, result: dict) -> str:
    if not result["pairs"]:
        return f"{name}: no two frames of one size follow each other"
    return (
        f"{name} {100 * result['TC']:.2f} % over {result['pairs']} pairs of frames "
        f"({100 * result['no_warp']:.2f} % without following motion)"
    )
