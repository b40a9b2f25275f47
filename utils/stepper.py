"""A video, labelled frame by frame: holds the state of each pass of `views` over a frame."""

from __future__ import annotations

import copy
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .keyframes import Decision, FrameContext, Policy
from .views import Views

# (frame, previous), both (B, 3, h, w) -> (B, 2, h', w'): in pixels of the frame, x first.
Flow = Callable[[Tensor, Tensor], Tensor]

ONE_VIEW = (
    "flow that comes with the frames serves one view of them: drop --flip, --scales and --eval-crop"
)
RECENT = 100  # frames whose costs a policy sees


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
        clock: Callable[[], float] = time.perf_counter,
    ):
        """flow: a provider, for methods that want flow from outside. policy: chooses key frames.

        clock: seconds, for what frames cost.
        """
        self.model = model
        self.views = views
        self.autocast = autocast
        self.flow = flow
        self.policy = policy
        self.clock = clock
        self.waits = False  # whether `seconds` is wanted where no policy asks for it
        self.reset()

    @property
    def forgets(self) -> bool:
        """Whether the frames so far change nothing for the next one."""
        return self.states is None or all(state is None for state in self.states)

    def fork(self) -> Stepper:
        """Another stepper that goes on from here."""
        other = copy.copy(self)
        # States are values; the lists that hold them are not.
        other.states = copy.copy(self.states)
        other.previous = copy.copy(self.previous)
        other.costs = copy.copy(self.costs)
        return other

    def reset(self) -> None:
        """Begin a new video."""
        self.states: list | None = None
        self.previous: list[Tensor | None] = []
        self.last_frame: Tensor | None = None
        self.last_small: Tensor | None = None
        self.last_time: float | None = None
        self.size = None
        self.frames = 0  # labelled so far
        self.age: int | None = None  # frames since the last key frame, itself included: 0 on it
        self.cost = 0.0
        self.seconds: float | None = None  # what the last frame took
        self.costs: deque[tuple[bool, float]] = deque(maxlen=RECENT)
        self.decision: Decision | None = None  # the policy's answer for the last frame
        # of the last frame: what came with it; and what is at hand, the policy's included
        self.given_flow: Tensor | None = None
        self.known_flow: Tensor | None = None

    @torch.inference_mode()
    def __call__(
        self,
        frame: Tensor,
        flow: Tensor | None = None,
        key: bool | None = None,
        decode: bool = True,
    ) -> Tensor:
        """frame (B, 3, H, W) -> scores (B, K, H, W).

        flow: (B, 2, H, W) into the frame before in this video, where something has computed it.
        key: whether this is a key frame; None asks the policy, if there is one. decode: False
        where the state is all that is wanted; the scores then mean nothing.
        """
        if self.size != frame.shape[-2:]:
            self.reset()
        # Windows, scales and mirrored frames are passes, each with a state of its own.
        plan = self.views.plan(tuple(frame.shape[-2:]))
        if flow is not None and not self.views.single_pass:
            raise ValueError(ONE_VIEW)
        if self.states is None:
            self.states = [self.model.start() for _ in range(plan.passes)]
            self.previous = [None] * plan.passes
            flow = None  # there is no frame before
        started = self.clock()
        # The policy is asked once per frame, not per pass: a frame is key as a whole or not at all.
        with self.autocast:
            key = self.decide(frame, flow, key, started)
        self.size = frame.shape[-2:]
        step = self.step if decode else self.observe
        scores = plan.run(lambda i, view: step(i, view[:, -1], key), frame[:, None])
        self.count(scores, bool(key), started)
        return scores

    def decide(
        self, frame: Tensor, flow: Tensor | None, key: bool | None, now: float
    ) -> bool | None:
        """Whether this is a key frame: as told, else as the policy says, if there is one."""
        self.given_flow = flow
        self.known_flow = flow
        if key is None and self.policy is not None:
            context = self.context(frame, flow, now)
            self.decision = self.policy.decide(context)
            key = self.decision.key
            self.known_flow = context.known_flow
            self.last_small = context.known_small
            self.last_frame = frame
            self.last_time = now
        if key is None:
            return None
        if key or self.age is None:  # nothing can be propagated to a first frame
            self.age = 0
        else:
            self.age += 1
        return key

    def context(self, frame: Tensor, flow: Tensor | None, now: float) -> FrameContext:
        """What the policy sees."""
        return FrameContext(
            frame,
            age=self.age,
            previous=self.last_frame,
            provider=self.flow or getattr(self.model, "optical_flow", None),
            elapsed=None if self.last_time is None else now - self.last_time,
            cost=self.cost,
            costs=tuple(self.costs),
            last=self.decision,
            given=flow,
            previous_small=self.last_small,
        )

    def step(self, i: int, view: Tensor, key: bool | None) -> Tensor:
        """Pass i: a view (B, 3, h, w) of the frame -> logits (B, K, h, w)."""
        with self.autocast:
            flow = self.flow_to_hand_over(i, view, key)
            logits, self.states[i] = self.model.step(view, self.states[i], flow, key)
        self.keep(i, view)
        return self.views.merge(self.model.upsample(logits.float(), view.shape[-2:]))

    def observe(self, i: int, view: Tensor, key: bool | None) -> Tensor:
        """`step` for the state alone -> zeros (B, 1, h, w)."""
        with self.autocast:
            flow = self.flow_to_hand_over(i, view, key)
            self.states[i] = self.model.observe(view, self.states[i], flow, key)
        self.keep(i, view)
        return view.new_zeros(len(view), 1, 1, 1).expand(-1, -1, *view.shape[-2:])

    def keep(self, i: int, view: Tensor) -> None:
        """The view that the next flow points into."""
        # Only where it is needed: a frame may be large.
        if self.flow is not None:
            self.previous[i] = view

    def flow_to_hand_over(self, i: int, view: Tensor, key: bool | None) -> Tensor | None:
        """Flow of a view into the one before it; None where the model has to do without or ask.

        What came with the frame is padded as the view is. What the policy has computed serves
        where the view is the frame: then the model would compute the same.
        """
        if not self.model.needs_flow(key):
            return None
        if self.given_flow is not None:
            return pad_flow(self.given_flow, self.size, tuple(view.shape[-2:]))
        whole = self.views.single_pass and view.shape[-2:] == self.size
        if whole and self.known_flow is not None:
            return self.known_flow
        if self.flow is None or self.previous[i] is None:
            return None
        return self.flow(view, self.previous[i])

    def count(self, scores: Tensor, key: bool, started: float) -> None:
        """What the frame took, for policies and reports."""
        # Whoever reads a clock has to wait for the device.
        if (self.waits or self.age is not None) and scores.device.type == "cuda":
            torch.cuda.synchronize(scores.device)
        self.seconds = self.clock() - started
        self.cost += self.seconds
        self.frames += 1
        # On the first frame libraries choose their kernels.
        if self.frames > 1:
            self.costs.append((key, self.seconds))


def pad_flow(flow: Tensor, size: tuple[int, int], padded: tuple[int, int]) -> Tensor:
    """flow (..., 2, H, W) on the grid of a frame of `size` -> (..., *padded): 0 in the padding."""
    if tuple(flow.shape[-2:]) != tuple(size):
        raise ValueError(
            f"flow that comes with a frame lies on its grid {tuple(size)}, got "
            f"{tuple(flow.shape[-2:])}"
        )
    return F.pad(flow, (0, padded[1] - size[1], 0, padded[0] - size[0]))
