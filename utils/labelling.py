"""A labelled frame of an evaluation: by stepping through its video, or from a clip at once."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from .phases import Phases
from .stepper import ONE_VIEW, Flow, Stepper, pad_flow


class Labelling(NamedTuple):
    """Scores (1, K, h, w) of a frame; where there are key frames, how they came about."""

    scores: Tensor
    distance: int | None = None
    others: Mapping[int, Tensor] = MappingProxyType({})  # scores at other distances
    costs: tuple[tuple[bool, float], ...] = ()


def label_frame(
    stepper: Stepper, phases: Phases | None, frames: Tensor, flows: Tensor | None
) -> Labelling:
    """frames (1, 1, 3, H, W): the next one of a video; flows (1, 1, 2, H, W) into the one before
    it."""
    flow = None if flows is None else flows[:, -1]
    frame = frames[:, -1]
    scores = stepper(frame, flow)
    if stepper.age is None:
        return Labelling(scores)
    others = phases(frame, flow) if phases else {}
    return Labelling(scores, stepper.age, others, ((stepper.age == 0, stepper.seconds),))


def label_clip(
    stepper: Stepper, phases: Phases | None, frames: Tensor, flows: Tensor | None
) -> Labelling:
    """frames (1, T, 3, H, W), the last one to be labelled; flows (1, T-1, 2, H, W)."""
    if phases is None:
        distance = None if stepper.policy is None else frames.shape[1] - 1
        return Labelling(forward_clip(stepper, frames, flows), distance)
    # By the Law this gives what `forward` gives: the first frame of the clip is the key frame.
    found, costs = phases.of_clip(frames, flows)
    distance = max(found)
    return Labelling(found.pop(distance), distance, found, tuple(costs))


def forward_clip(stepper: Stepper, clip: Tensor, flows: Tensor | None = None) -> Tensor:
    """clip (B, T, 3, H, W) -> scores (B, K, H, W) of its last frame, all frames at once.

    Nothing but the stepper's network, views and flow is used. flows (B, T-1, 2, H, W): where the
    clip brings its own.
    """
    model = stepper.model
    size = tuple(clip.shape[-2:])
    if flows is not None and not stepper.views.single_pass:
        raise ValueError(ONE_VIEW)

    def network(i: int, view: Tensor) -> Tensor:
        if flows is None:
            of_view = clip_flows(stepper.flow, view)
        else:
            of_view = pad_flow(flows, size, tuple(view.shape[-2:]))
        with stepper.autocast:
            logits = model(view, of_view)
        return stepper.views.merge(model.upsample(logits.float(), view.shape[-2:]))

    return stepper.views.plan(size).run(network, clip)


def clip_flows(flow: Flow | None, clip: Tensor) -> Tensor | None:
    """clip (B, T, 3, H, W) -> (B, T-1, 2, H, W) by the provider, frame by frame.

    None without a provider, and for a single frame.
    """
    if flow is None or clip.shape[1] < 2:
        return None
    return torch.stack([flow(clip[:, t], clip[:, t - 1]) for t in range(1, clip.shape[1])], 1)
