"""Optical flow for the TC metric: the data set's own where it is exact, else DIS."""

from __future__ import annotations

import torch
from torch import Tensor

from engine import frame_tensor
from models.ops.warp import resize_flow
from models.optical_flow import DIS
from utils.metrics.temporal import Temporal

from .flow_cache import keep_flow

CPU = torch.device("cpu")  # where DIS runs
PRESET = "medium"  # the finest: it decides a number, and is computed once a pair
EXACT = "exact, of the data set"
COMPUTED = f"DIS ({PRESET})"


def temporal_metrics(args, data) -> list[Temporal]:
    """One metric a mode that is asked for; they share the flow."""
    flows = DataFlows(data)
    keep_flow(args, flows.provider)
    return [Temporal(data.num_classes, mode, flows, flows.source) for mode in args.tc_modes]


class DataFlows:
    """The flow between neighbouring frames of a data set, both ways; the last pair is kept."""

    def __init__(self, data):
        self.videos = data.videos
        longest = max(data.videos, key=len)
        self.exact = len(longest) > 1 and longest.flow(1, 0) is not None
        self.provider = None if self.exact else DIS(PRESET)
        self.key: tuple | None = None
        self.found: tuple[Tensor, Tensor] | None = None

    @property
    def source(self) -> str:
        """Where it comes from, in words."""
        return EXACT if self.exact else COMPUTED

    def __call__(self, video: int, index: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """(utils.metrics.temporal.PairFlows)"""
        key = video, index, size
        if key != self.key:
            self.key = key
            self.found = self.between(self.videos[video], index, size)
        return self.found

    def between(self, video, index: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """From frame index - 1 into `index`, and back, on the grid of `size`."""
        if self.exact:
            pair = ((index - 1, index), (index, index - 1))
            flows = [torch.from_numpy(video.flow(*places))[None] for places in pair]
        else:
            frames = [frame_tensor(video.frame(place), CPU) for place in (index - 1, index)]
            flows = [self.provider(*frames), self.provider(*reversed(frames))]
        cells = tuple(flows[0].shape[-2:])
        forward, backward = (resize_flow(flow, size, cells)[0] for flow in flows)
        return forward, backward
