"""Motion for the TC metric: the data set's own where it is exact, else DIS."""

from __future__ import annotations

import torch
from torch import Tensor

from datasets.frame_numbers import gaps_before
from models.ops.warp import resize_flow
from models.optical_flow import DIS, FlowProvider
from utils.metrics.temporal import Motion, Temporal
from utils.predictions import frame_tensor

from .flow_cache import keep_flow

CPU = torch.device("cpu")  # where DIS runs
PRESET = "medium"  # the finest: it decides a number, and is computed once a pair
EXACT = "exact, of the data set"
COMPUTED = f"DIS ({PRESET})"


def temporal_metrics(args, data) -> list[Temporal]:
    """One metric a mode that is asked for; they share the motion."""
    motion = DataMotion(data, masked="strict" in args.tc_modes)
    keep_flow(args, motion.provider)
    gaps = gaps_of(data)

    def gap_before(video: int, index: int) -> bool:
        return index in gaps[video]

    return [
        Temporal(data.num_classes, mode, motion, motion.source, gap_before)
        for mode in args.tc_modes
    ]


def gaps_of(data) -> list[frozenset[int]]:
    """Of each video, the indices of the frames before which frames are missing."""
    return [
        gaps_before([video.frame_name(index) for index in range(len(video))])
        for video in data.videos
    ]


def tell_gaps(gaps: list[frozenset[int]], console) -> None:
    """Say in how many places frames are missing, and what becomes of these."""
    count = sum(map(len, gaps))
    if count:
        console.note(
            f"frames are missing in {count} places, by the numbers in their names: TC has no pair "
            "there, VC looks at what is left as if nothing were missing"
        )


class DataMotion:
    """Motion between neighbouring frames of a data set; that of the last pair is kept."""

    def __init__(self, data, *, masked: bool = True):
        """masked: whether occlusion is asked for; without, flow is computed one way alone."""
        self.masked = masked
        self.videos = data.videos
        longest = max(data.videos, key=len)
        self.exact = len(longest) > 1 and longest.flow(1, 0) is not None
        self.provider = None if self.exact else DIS(PRESET)
        self.key: tuple | None = None
        self.found: Motion | None = None

    @property
    def source(self) -> str:
        """Where it comes from, in words."""
        return EXACT if self.exact else COMPUTED

    def __call__(self, video: int, index: int, size: tuple[int, int]) -> Motion:
        """(utils.metrics.temporal.PairMotion)"""
        key = video, index, size
        if key != self.key:
            self.key = key
            self.found = self.between(self.videos[video], index, size)
        return self.found

    def between(self, video, index: int, size: tuple[int, int]) -> Motion:
        """From frame index - 1 into `index`, on the grid of `size`."""
        if self.exact:
            return exact_motion(video, index, size)
        frames = [frame_tensor(video.frame(place), CPU) for place in (index - 1, index)]
        return motion_between(self.provider, *frames, size, masked=self.masked)


def exact_motion(video, index: int, size: tuple[int, int]) -> Motion:
    """What a video knows of the motion from frame index - 1 into `index`."""
    pair = ((index - 1, index), (index, index - 1))
    forward, backward = (torch.from_numpy(video.flow(*places))[None] for places in pair)
    cells = tuple(forward.shape[-2:])
    # What is hidden is known exactly on the frames' own grid alone.
    if cells == size and hasattr(video, "occlusion"):
        return Motion(forward[0], occluded=torch.from_numpy(video.occlusion(index - 1, index)))
    return resized(forward, backward, size)


def motion_between(
    provider: FlowProvider, before: Tensor, frame: Tensor, size: tuple[int, int], *, masked: bool
) -> Motion:
    """Computed from the frames (1, 3, H, W); both ways where occlusion is `masked`."""
    backward = provider(frame, before) if masked else None
    return resized(provider(before, frame), backward, size)


def resized(forward: Tensor, backward: Tensor | None, size: tuple[int, int]) -> Motion:
    """Flows (1, 2, H, W) in pixels of their own grid -> on the grid of `size`."""
    cells = tuple(forward.shape[-2:])
    flow = resize_flow(forward, size, cells)[0]
    if backward is None:
        return Motion(flow)
    return Motion(flow, resize_flow(backward, size, cells)[0])
