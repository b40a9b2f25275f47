"""What a policy sees before a frame is labelled, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple, Protocol

from torch import Tensor

from .small import grey_copy

NOTHING: Mapping[str, float] = MappingProxyType({})


class Decision(NamedTuple):
    """What a policy answers."""

    key: bool
    why: str  # a few words for logs and reports: "first frame"
    numbers: Mapping[str, float] = NOTHING  # what it was based on, by name
    cut: bool = False  # whether a new scene begins: nothing before it is of use


@dataclass(frozen=True)
class FrameContext:
    """What a policy may look at before a frame is labelled.

    frame: (B, 3, H, W) RGB in [0, 1], the one to be labelled next.
    age: frames labelled since the last key frame (0: it came right before); None without one.
    previous: (B, 3, H, W), the frame before; None at the start of a video.
    provider: (frame, previous) -> flow (B, 2, h, w) in pixels of the frame, on a grid over it;
        None where there is none.
    elapsed: seconds since the frame before came; None at the start of a video.
    cost: seconds that labelling this video took so far.
    costs: (key, seconds) of the last frames, oldest first. The first frame of a video is not
        among them: on it libraries choose their kernels.
    last: the answer for the frame before; None at the start of a video.
    given: flow from outside, (B, 2, h, w) as of a provider.
    previous_small: `small` of the frame before, where it was computed.
    """

    frame: Tensor
    age: int | None = None
    previous: Tensor | None = None
    provider: Callable[[Tensor, Tensor], Tensor] | None = None
    elapsed: float | None = None
    cost: float = 0.0
    costs: tuple[tuple[bool, float], ...] = ()
    last: Decision | None = None
    given: Tensor | None = None
    previous_small: Tensor | None = None

    @cached_property
    def flow(self) -> Tensor | None:
        """Optical flow (B, 2, h, w) from the frame into the one before; computed when asked for."""
        if self.given is not None:
            return self.given
        if self.provider is None or self.previous is None:
            return None
        return self.provider(self.frame, self.previous)

    @property
    def known_flow(self) -> Tensor | None:
        """`flow` where it costs nothing: it was given, or somebody has asked for it."""
        return vars(self).get("flow", self.given)

    @cached_property
    def small(self) -> Tensor:
        """A small grey copy of the frame, (B, h, w) in [0, 1]."""
        return grey_copy(self.frame)

    @property
    def known_small(self) -> Tensor | None:
        """`small` where somebody has asked for it."""
        return vars(self).get("small")

    @cached_property
    def small_before(self) -> Tensor | None:
        """`small` of the frame before; None at the start of a video."""
        if self.previous_small is not None or self.previous is None:
            return self.previous_small
        return grey_copy(self.previous)

    def so_far(self, name: str) -> float:
        """A number of the last answer; 0 right after a key frame, where sums begin anew."""
        if self.last is None or self.last.key:
            return 0.0
        return self.last.numbers.get(name, 0.0)


class Policy(Protocol):
    """Chooses the key frames of a batch of videos, which share one schedule."""

    def decide(self, context: FrameContext) -> Decision: ...


FIRST = Decision(True, "first frame")


def is_first(context: FrameContext) -> bool:
    """Whether there is no key frame yet, so that nothing can be propagated."""
    return context.age is None or context.age < 0


def flow_of(context: FrameContext, policy: str) -> Tensor:
    """The flow of a frame that is not the first. ValueError where nothing gives it."""
    if context.flow is None:
        raise ValueError(
            f"--key-policy {policy} looks at optical flow, and this network has none: choose "
            "another --flow or another policy"
        )
    return context.flow
