"""The built-in data set: street videos rendered from a seed, with exact labels and optical flow for
every frame.

Nothing is read or written. Videos are only descriptions; their worlds are built when a frame is
asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..labels import LabelSet
from .degrade import Degradation
from .world import CLASSES, PALETTE, World

__all__ = ["CLASSES", "LABELS", "PALETTE", "SyntheticVideo", "videos"]

LABELS = LabelSet(CLASSES, PALETTE)

SPLITS = {"train": 0, "val": 1, "test": 2}
WORLDS = 8  # worlds alive at a time, per process: some 10 MB each at (256, 512)

world = lru_cache(maxsize=WORLDS)(World)


@dataclass(frozen=True)
class SyntheticVideo:
    """One rendered drive, a `Video` (see datasets/clip.py) whose every frame is labelled.

    size: (H, W); length: in frames; degrade: whether frames have noise, blur, flicker and dropouts
    or are perfect.
    """

    name: str
    seed: int
    size: tuple[int, int]
    length: int
    fps: float = 15.0
    degrade: bool = True

    @property
    def labelled(self) -> Sequence[int]:
        return range(self.length)

    @property
    def world(self) -> World:
        return world(self.seed, self.size, self.length, self.fps)

    def __len__(self) -> int:
        return self.length

    def frame_name(self, index: int) -> str:
        """train_0003_000012"""
        return f"{self.name}_{index:06d}"

    def frame(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB, degraded unless the video is a clean one."""
        image = self.world.image(index)
        if not self.degrade:
            return image
        neighbour = index - 1 if index else min(1, self.length - 1)
        return Degradation(self.seed).apply(image, index, lambda: self.world.flow(index, neighbour))

    def label(self, index: int) -> np.ndarray:
        """(H, W) uint8, index into CLASSES."""
        return self.world.labels(index)

    def flow(self, index: int, other: int) -> np.ndarray:
        """(2, H, W) float32: where each pixel of frame `index` lies in frame `other`, in pixels, x
        first; exact."""
        return self.world.flow(index, other)

    def occlusion(self, index: int, other: int) -> np.ndarray:
        """(H, W) bool: True where a pixel of frame `index` cannot be found in frame `other`."""
        return self.world.occlusion(index, other)

    def degraded(self, index: int) -> bool:
        """Whether a severe failure of the sensor (dark, noisy or blurred, wholly or in part) hits
        the frame."""
        return self.degrade and Degradation(self.seed).failure(index) is not None


def videos_of(args, split: str) -> list[SyntheticVideo]:
    """The videos of a split, as parsed options describe them."""
    counts = dict(zip(SPLITS, args.synthetic_videos, strict=True))
    return videos(
        split,
        counts[split],
        args.synthetic_length,
        args.synthetic_size,
        degrade=args.synthetic_degrade,
    )


def labels_of(args) -> LabelSet:
    """The classes, as parsed options choose them."""
    return LABELS


def videos(
    split: str,
    count: int,
    length: int,
    size: tuple[int, int],
    fps: float = 15.0,
    degrade: bool = True,
    seed: int = 0,
) -> list[SyntheticVideo]:
    """The first `count` videos of a split, `length` frames each; no two splits or seeds share a
    video.

    Raises ValueError for a split that does not exist.
    """
    if split not in SPLITS:
        raise ValueError(
            f"the synthetic data set has no split {split!r}: choose one of {', '.join(SPLITS)}"
        )
    return [
        SyntheticVideo(
            f"{split}_{i:04d}",
            video_seed(seed, SPLITS[split], i),
            tuple(size),
            length,
            fps,
            degrade,
        )
        for i in range(count)
    ]


def video_seed(*key: int) -> int:
    """A 64-bit number of its own for each (seed, split, video)."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
