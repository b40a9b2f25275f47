"""Videos, clips and the one data set class: a data set lists videos, everything else is shared.

    Video --frame(i), label(i), flow(i, j)--> ClipDataset --transform--> Clip

Each data set lists its videos in its own file (datasets/camvid.py, cityscapes.py, folder.py,
synthetic/).
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Mapping, Sequence
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
        """(H, W) uint8 class ids, 255 = ignore; only for labelled frames."""

    def flow(self, index: int, other: int) -> np.ndarray | None:
        """(2, H, W) float32: where each pixel of frame `index` lies in frame `other`, or None.

        In pixels relative to its own position, x before y.
        """


class Clip(NamedTuple):
    """One sample. In a batch every tensor gains a leading B (flows stay None if there are none)."""

    frames: Tensor  # (T, 3, H, W) float32 in [0, 1], oldest first in the order of the offsets
    labels: Tensor  # (T, H, W) int64, 255 = ignore; in evaluation at the label's own size
    # (T-1, 2, H, W): entry t-1 lies on the grid of frame t and points into frame t-1. A frame that
    # is stepped brings its own, (1, 2, H, W), into the frame before it in its video.
    flows: Tensor | None
    name: str  # video/frame of the labelled frame
    video: int  # index of the video in the data set
    index: int  # of the labelled frame in its video


class RawClip(NamedTuple):
    """What a transform takes and returns: arrays of one clip before they become tensors."""

    frames: list[np.ndarray]  # T of (H, W, 3) uint8
    labels: list[np.ndarray | None]  # T of (H, W) uint8 or None
    flows: list[np.ndarray] | None  # T-1 (or 1, see Clip) of (2, H, W) float32; NaN: unknown


Transform = Callable[[RawClip, random.Random], RawClip]
# (video, index, before, frames) -> (2, H, W) float32: the flow of frame `index` into another of its
# video, mostly the one before it, where the source knows it; None: NaN. frames: those of the clip
# by index; of a stepped one this alone.
FlowSource = Callable[[Video, int, int, Mapping[int, np.ndarray]], np.ndarray | None]


class ClipDataset(torch.utils.data.Dataset):
    """Clips around the labelled frames of some videos; `labels` names and colours their classes.

    Which frames a clip has beside the labelled one: in evaluation `startup(past)` gives their
    offsets, past being the number of frames before the labelled one. In training `draw(rng)` draws
    them for each sample, again if they leave the video; where every draw leaves it, they stop at
    the first or last frame.

    An item is asked for by index or by (index, epoch). Every random draw of a sample comes from
    `random.Random(f"{seed}/{epoch}/{index}")`, so it does not depend on workers or order.
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
        flow_source: FlowSource | None = None,
        unknown_flows: bool = False,
        seed: int = 0,
        step: bool = False,
        parts: Sequence = (),
    ):
        """with_flows: items bring optical flow, from `flow_source` or else of the videos' own.

        unknown_flows: what no flow is known of keeps NaN, instead of a ValueError.

        step: one frame per item, in order, for evaluation by `step`; unlabelled frames too.

        parts: where the videos come from (mixing.Part), in their order; empty: from one place.
        """
        if not videos:
            raise ValueError("a data set needs at least one video")
        self.videos = list(videos)
        self.labels = labels
        self.transform = transform
        self.draw = draw
        self.startup = startup
        self.with_flows = with_flows
        self.flow_source = flow_source
        self.unknown_flows = unknown_flows
        self.seed = seed
        self.step = step
        self.parts = tuple(parts)
        # (index of the video, index of the frame in it)
        self.samples: list[tuple[int, int]] = []
        for v, video in enumerate(self.videos):
            indices = range(len(video)) if step else video.labelled
            self.samples += [(v, i) for i in indices]

    @property
    def num_classes(self) -> int:
        return len(self.labels.names)

    def stepping(self) -> ClipDataset:
        """The same videos as single frames in order, for evaluation by `step`."""
        return ClipDataset(
            self.videos,
            self.labels,
            self.transform,
            with_flows=self.with_flows,
            flow_source=self.flow_source,
            seed=self.seed,
            step=True,
            parts=self.parts,
        )

    @property
    def dense(self) -> bool:
        """Whether every frame of every video has a label: such data is evaluated by `step`."""
        return all(len(video.labelled) == len(video) for video in self.videos)

    def summary(self) -> str:
        """How much data there is, and a checksum of its names: differs for different data."""
        names = "\n".join(f"{video.name} {len(video)}" for video in self.videos)
        checksum = zlib.crc32(names.encode())
        return f"{len(self)} clips of {len(self.videos)} videos (names {checksum:08x})"

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: int | tuple[int, int]) -> Clip:
        if not isinstance(key, tuple):
            key = (key, 0)
        index, epoch = key
        rng = random.Random(f"{self.seed}/{epoch}/{index}")
        v, i = self.samples[index]
        video = self.videos[v]
        last = len(video) - 1
        offsets = self.offsets(rng, i, len(video))
        indices = [min(max(i + offset, 0), last) for offset in (*offsets, 0)]
        raw = self.read(video, indices)
        name = f"{video.name}/{video.frame_name(i)}"
        try:
            transformed = self.transform(raw, rng)
            if not self.unknown_flows:
                require_known_flows(video, transformed.flows)
            return to_clip(transformed, name, v, i)
        except ValueError as error:
            # frames of different sizes fail in a transform or when stacked, without their names
            require_one_size(video, indices, raw.frames, error)
            raise

    def offsets(self, rng: random.Random, index: int, length: int) -> tuple[int, ...]:
        """The offsets of the frames beside the labelled frame `index` of a video."""
        if self.draw:
            return self.draw_inside(rng, index, length)
        if self.startup:
            return self.startup(index)
        return ()

    def draw_inside(self, rng: random.Random, index: int, length: int) -> tuple[int, ...]:
        """Offsets that stay inside the video, if a few draws find such."""
        for _ in range(REDRAWS):
            offsets = self.draw(rng)
            if all(0 <= index + offset < length for offset in offsets):
                break
        return offsets

    def read(self, video: Video, indices: Sequence[int]) -> RawClip:
        """The frames with these indices, their labels, and the flows between neighbours."""
        labelled = set(video.labelled)
        frames = [video.frame(i) for i in indices]
        labels = [video.label(i) if i in labelled else None for i in indices]
        flows = None
        if self.with_flows:
            flows = self.read_flows(video, indices, dict(zip(indices, frames, strict=True)))
        return RawClip(frames, labels, flows)

    def read_flows(
        self, video: Video, indices: Sequence[int], frames: Mapping[int, np.ndarray]
    ) -> list[np.ndarray] | None:
        """The flows between neighbours, or of a stepped frame into the one before it.

        None for a clip of one frame.
        """
        if self.step:
            indices = [indices[-1] - 1, *indices]
        pairs = list(zip(indices[1:], indices[:-1], strict=True))
        if not pairs:
            return None
        return [self.read_flow(video, i, before, frames) for i, before in pairs]

    def read_flow(
        self, video: Video, index: int, before: int, frames: Mapping[int, np.ndarray]
    ) -> np.ndarray:
        """(2, H, W) of a frame into another; NaN where nothing tells it."""
        size = frames[index].shape[:2]
        # Nothing comes before a first frame; at its ends a video repeats a frame.
        if before < 0 or before == index:
            return np.zeros((2, *size), np.float32)
        if self.flow_source is None:
            flow = video.flow(index, before)
        else:
            flow = self.flow_source(video, index, before, frames)
        # A transform may know it: the synthetic past does.
        return np.full((2, *size), np.nan, np.float32) if flow is None else flow


def require_known_flows(video: Video, flows: list[np.ndarray] | None) -> None:
    """ValueError where a clip should bring flow and nothing told it."""
    if flows and any(np.isnan(flow).any() for flow in flows):
        raise ValueError(
            f"{video.name} has no optical flow of its own: --flow-root DIR names a folder of flow "
            "files; in training --synthetic-past 1 makes clips whose flow is known"
        )


def require_one_size(
    video: Video, indices: Sequence[int], frames: Sequence[np.ndarray], cause: ValueError
) -> None:
    """ValueError that names a frame of another size than the labelled (last) one, if there is one.

    cause: the error that made us look.
    """
    height, width = frames[-1].shape[:2]
    for i, frame in zip(indices, frames, strict=True):
        if frame.shape == frames[-1].shape:
            continue
        odd_height, odd_width = frame.shape[:2]
        raise ValueError(
            f"{video.name}/{video.frame_name(i)} is {odd_height}x{odd_width} (HxW), but "
            f"{video.name}/{video.frame_name(indices[-1])} of the same clip {height}x{width}: "
            "give them one size, or choose a --work-size"
        ) from cause


def to_clip(raw: RawClip, name: str, video: int, index: int) -> Clip:
    """Arrays to tensors; frames without a label get one of 255."""
    frames = np.stack([np.ascontiguousarray(frame.transpose(2, 0, 1)) for frame in raw.frames])
    flows = None
    if raw.flows is not None:
        flows = torch.from_numpy(np.stack(raw.flows))  # (T-1, 2, H, W)
    return Clip(
        torch.from_numpy(frames).float().div_(255),  # (T, 3, H, W)
        torch.from_numpy(stack_labels(raw)).long(),  # (T, H, W)
        flows,
        name,
        video,
        index,
    )


def stack_labels(raw: RawClip) -> np.ndarray:
    """(T, H, W) uint8, 255 for frames without a label."""
    known = [label for label in raw.labels if label is not None]
    # in evaluation labels keep their own size, which may not be that of the frames
    size = raw.frames[-1].shape[:2]
    if known:
        size = known[-1].shape
    ignored = np.full(size, IGNORE, np.uint8)
    return np.stack([ignored if label is None else label for label in raw.labels])
