"""A video, labelled frame by frame: holds the state of each pass of `views` over a frame."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from .keyframes import Decision, FrameContext, Policy
from .views import Views

# (frame, previous), both (B, 3, h, w) -> (B, 2, h, w): on the frame's grid, in pixels, x first.
Flow = Callable[[Tensor, Tensor], Tensor]


class Stepper:
    """Labels a video frame by frame; a new video or another frame size begins anew."""

    def __init__(
        self,
        model: nn.Module,
        views: Views,
        autocast: AbstractContextManager,
        *,
        flow: Flow | None = None,
        policy: Policy | None = None,
    ):
        """flow: a provider, for methods that want flow from outside. policy: chooses key frames."""
        self.model = model
        self.views = views
        self.autocast = autocast
        self.flow = flow
        self.policy = policy
        self.reset()

    def reset(self) -> None:
        """Begin a new video."""
        self.states: list | None = None
        self.previous: list[Tensor | None] = []
        self.last_frame: Tensor | None = None
        self.last_time: float | None = None
        self.size = None
        self.age: int | None = None
        self.cost = 0.0
        self.decision: Decision | None = None  # the policy's answer for the last frame

    @torch.inference_mode()
    def __call__(self, frame: Tensor) -> Tensor:
        """frame (B, 3, H, W) -> scores (B, K, H, W)."""
        if self.size != frame.shape[-2:]:
            self.reset()
        # Windows, scales and mirrored frames are passes, each with a state of its own.
        plan = self.views.plan(tuple(frame.shape[-2:]))
        if self.states is None:
            self.states = [self.model.start() for _ in range(plan.passes)]
            self.previous = [None] * plan.passes
        # The policy is asked once per frame, not per pass: a frame is key as a whole or not at all.
        started = time.perf_counter()
        key = self.decide(frame, started)
        self.size = frame.shape[-2:]
        scores = plan.run(lambda i, view: self.step(i, view[:, -1], key), frame[:, None])
        self.cost += time.perf_counter() - started
        return scores

    def decide(self, frame: Tensor, now: float) -> bool | None:
        """Ask the policy, if there is one, and remember its answer."""
        if self.policy is None:
            return None
        context = FrameContext(
            frame,
            age=self.age,
            previous=self.last_frame,
            provider=self.flow,
            elapsed=None if self.last_time is None else now - self.last_time,
            cost=self.cost,
        )
        self.decision = self.policy.decide(context)
        if self.decision.key or self.age is None:  # nothing can be propagated to a first frame
            self.age = 0
        else:
            self.age += 1
        self.last_frame = frame
        self.last_time = now
        return self.decision.key

    def step(self, i: int, frame: Tensor, key: bool | None) -> Tensor:
        """Pass i: frame (B, 3, h, w) -> logits (B, K, h, w)."""
        flow = None
        if self.flow is not None and self.previous[i] is not None:
            flow = self.flow(frame, self.previous[i])
        with self.autocast:
            logits, self.states[i] = self.model.step(frame, self.states[i], flow, key)
        # Kept only where it is needed: a frame may be large.
        if self.flow is not None:
            self.previous[i] = frame
        return self.model.upsample(logits.float(), frame.shape[-2:])
