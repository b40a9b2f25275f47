"""Videos, clips and the one data set class: a data set lists videos, everything else is shared.

    Video --frame(i), label(i), flow(i, j)--> ClipDataset --transform--> Clip

A data set's own file lists its videos (datasets/camvid.py, cityscapes.py, folder.py, synthetic.py).
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from .labels import IGNORE, LabelSet

REDRAWS = 20  # of offsets that leave the video


class Video(Protocol):
    """One drive, at the split's own frame step. Indices count in that step."""

    name: str
    fps: float | None  # frames a second at this step, where known
    labelled: Sequence[int]  # indices of the frames that have a label

    def __len__(self) -> int: ...

    def frame_name(self, index: int) -> str:
        """Of the file or frame, without folder and extension: 0016E5_07959."""

    def frame(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB. FileNotFoundError / ValueError name the file."""

    def label(self, index: int) -> np.ndarray:
        """(H, W) uint8 class ids, 255 = ignore; of a labelled frame."""

    def flow(self, index: int, other: int) -> np.ndarray | None:
        """(2, H, W) float32: where each pixel of frame `index` lies in frame `other`, in pixels, x first; or None."""


class Clip(NamedTuple):
    """One sample. In a batch every tensor gains a leading B (flows stay None if there are none)."""

    frames: Tensor  # (T, 3, H, W) float32 in [0, 1], oldest first in the order of the offsets
    labels: Tensor  # (T, H, W) int64, 255 = ignore; in evaluation at the label's own size
    flows: (
        Tensor | None
    )  # (T-1, 2, H, W): entry t-1 on the grid of frame t, pointing into frame t-1
    name: str  # video/frame of the labelled frame
    video: int  # index of the video in the data set
    index: int  # of the labelled frame in its video


class RawClip(NamedTuple):
    """What a transform takes and returns: arrays of one clip before they become tensors."""

    frames: list[np.ndarray]  # T of (H, W, 3) uint8
    labels: list[np.ndarray | None]  # T of (H, W) uint8 or None
    flows: list[np.ndarray] | None  # T-1 of (2, H, W) float32


Transform = Callable[[RawClip, random.Random], RawClip]


class ClipDataset(torch.utils.data.Dataset):
    """Clips around the labelled frames of some videos; `labels` names and colours their classes.

    Frames of a clip before (or after) the labelled one: in evaluation `startup(past)` names their offsets, in training
    `draw(rng)` draws them per sample, anew if they leave the video; where they always do, they stop at its first or
    last frame. An item is asked for by index or by (index, epoch): every random draw
    of a sample comes from `random.Random(f"{seed}/{epoch}/{index}")`, so it does not depend on workers or order.
    """

    def __init__(
        self,
        videos: Sequence[Video],
        labels: LabelSet,
        transform: Transform,
        *,
        draw: Callable[[random.Random], tuple[int, ...]] | None = None,
        startup: Callable[[int], tuple[int, ...]] | None = None,
        with_flows: bool = False,
        seed: int = 0,
        step: bool = False,
    ):
        """step: one frame per item, in order, for evaluation by `step`; unlabelled frames come too."""
        if not videos:
            raise ValueError("a data set needs at least one video")
        self.videos, self.labels, self.transform = list(videos), labels, transform
        self.draw, self.startup = draw, startup
        self.with_flows, self.seed = with_flows, seed
        self.step = step
        self.samples = [
            (v, i)
            for v, video in enumerate(self.videos)
            for i in (range(len(video)) if step else video.labelled)
        ]

    @property
    def num_classes(self) -> int:
        return len(self.labels.names)

    def stepping(self) -> ClipDataset:
        """The same videos as single frames in order, for evaluation by `step`."""
        return ClipDataset(self.videos, self.labels, self.transform, seed=self.seed, step=True)

    @property
    def dense(self) -> bool:
        """Whether every frame of every video has a label: such data is evaluated by `step`."""
        return all(len(video.labelled) == len(video) for video in self.videos)

    def summary(self) -> str:
        """What tells this data set from another: how much there is, and a checksum of the names."""
        names = "\n".join(f"{video.name} {len(video)}" for video in self.videos)
        return f"{len(self)} clips of {len(self.videos)} videos (names {zlib.crc32(names.encode()):08x})"

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: int | tuple[int, int]) -> Clip:
        index, epoch = key if isinstance(key, tuple) else (key, 0)
        rng = random.Random(f"{self.seed}/{epoch}/{index}")
        v, i = self.samples[index]
        video = self.videos[v]
        if self.draw:
            offsets = self.draw_inside(rng, i, len(video))
        else:
            offsets = self.startup(i) if self.startup else ()
        indices = [min(max(i + offset, 0), len(video) - 1) for offset in (*offsets, 0)]
        raw, name = self.read(video, indices), f"{video.name}/{video.frame_name(i)}"
        try:
            return to_clip(self.transform(raw, rng), name, v, i)
        except ValueError as error:
            odd = next(
                (
                    j
                    for j, frame in zip(indices, raw.frames, strict=True)
                    if frame.shape != raw.frames[-1].shape
                ),
                None,
            )
            if odd is None:
                raise
            (height, width), (own_height, own_width) = (
                video.frame(odd).shape[:2],
                raw.frames[-1].shape[:2],
            )
            raise ValueError(
                f"{video.name}/{video.frame_name(odd)} is {height}x{width} (HxW), but {name} of the same "
                f"clip {own_height}x{own_width}: give them one size, or choose a --work-size"
            ) from error

    def draw_inside(self, rng: random.Random, index: int, length: int) -> tuple[int, ...]:
        """Offsets that stay inside the video, if a few draws find such."""
        for _ in range(REDRAWS):
            offsets = self.draw(rng)
            if all(0 <= index + offset < length for offset in offsets):
                break
        return offsets

    def read(self, video: Video, indices: Sequence[int]) -> RawClip:
        frames = [video.frame(i) for i in indices]
        labelled = set(video.labelled)
        labels = [video.label(i) if i in labelled else None for i in indices]
        flows = None
        if self.with_flows and len(indices) > 1:
            flows = [
                video.flow(i, before) for before, i in zip(indices[:-1], indices[1:], strict=True)
            ]
            if any(flow is None for flow in flows):
                raise ValueError(f"{video.name} has no optical flow of its own")
        return RawClip(frames, labels, flows)


def to_clip(raw: RawClip, name: str, video: int, index: int) -> Clip:
    """Arrays to tensors; frames without a label get one of 255."""
    frames = np.stack([np.ascontiguousarray(frame.transpose(2, 0, 1)) for frame in raw.frames])
    shape = next(
        (label.shape for label in raw.labels[::-1] if label is not None), raw.frames[-1].shape[:2]
    )
    labels = np.stack(
        [np.full(shape, IGNORE, np.uint8) if label is None else label for label in raw.labels]
    )
    flows = None if raw.flows is None else torch.from_numpy(np.stack(raw.flows))
    return Clip(
        torch.from_numpy(frames).float().div_(255),
        torch.from_numpy(labels).long(),
        flows,
        name,
        video,
        index,
    )
