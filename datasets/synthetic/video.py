"""The built-in data set: street videos rendered from a seed.

Every frame has exact labels and optical flow. Nothing is read or written. Videos are only
descriptions; their worlds are built when a frame is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..labels import LabelSet
from .classes import CLASSES, PALETTE
from .degrade import Degradation
from .world import World

__all__ = ["CLASSES", "LABELS", "PALETTE", "SyntheticVideo", "videos"]

LABELS = LabelSet(CLASSES, PALETTE)

SPLITS = {"train": 0, "val": 1, "test": 2}  # part of the seed of a video
WORLDS = 8  # worlds alive at a time, per process: some 10 MB each at (256, 512)

# not a field of the video: videos are pickled for loader workers, and worlds are large
shared_world = lru_cache(maxsize=WORLDS)(World)


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
        """Indices of the frames that have labels: all."""
        return range(self.length)

    @property
    def world(self) -> World:
        """The world that renders this video, shared by all videos that are equal."""
        return shared_world(self.seed, self.size, self.length, self.fps)

    def __len__(self) -> int:
        return self.length

    def frame_name(self, index: int) -> str:
        """A name such as train_0003_000012."""
        return f"{self.name}_{index:06d}"

    def frame(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB, degraded unless the video is a clean one."""
        world = self.world
        image = world.image(index)
        if not self.degrade:
            return image
        # motion blur follows the way back to the frame before; the first frame has only the next
        neighbour = index - 1
        if index == 0:
            neighbour = min(1, self.length - 1)
        return Degradation(self.seed).apply(image, index, lambda: world.flow(index, neighbour))

    def label(self, index: int) -> np.ndarray:
        """(H, W) uint8, index into CLASSES."""
        return self.world.labels(index)

    def flow(self, index: int, other: int) -> np.ndarray:
        """Exact optical flow from frame `index` to frame `other`.

        (2, H, W) float32: how far each pixel moves, in pixels, x before y.
        """
        return self.world.flow(index, other)

    def occlusion(self, index: int, other: int) -> np.ndarray:
        """(H, W) bool: True where a pixel of frame `index` cannot be found in frame `other`."""
        return self.world.occlusion(index, other)

    def degraded(self, index: int) -> bool:
        """Whether a severe failure of the sensor hits the frame, or a part of it."""
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
    *,
    degrade: bool = True,
    seed: int = 0,
) -> list[SyntheticVideo]:
    """The first `count` videos of a split, `length` frames each of size (H, W).

    No two splits or seeds share a video. Raises ValueError for a split that does not exist.
    """
    if split not in SPLITS:
        choices = ", ".join(SPLITS)
        raise ValueError(f"the synthetic data set has no split {split!r}: choose one of {choices}")
    size = tuple(size)
    listed = []
    for i in range(count):
        name = f"{split}_{i:04d}"
        key = video_seed(seed, SPLITS[split], i)
        listed.append(SyntheticVideo(name, key, size, length, fps, degrade))
    return listed


def video_seed(*key: int) -> int:
    """A 64-bit number of its own for each (seed, split, video)."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
