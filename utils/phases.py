"""Every frame at every distance from its key frame, in one pass over a video.

With `interval` frames between two key frames a frame lies 0 (a key frame) to `interval` frames
behind one. So `interval` + 1 schedules run side by side, each a frame behind the one before it:

    frame           0  1  2  3  4  5  6         K: key frame, others: distance from it
    stream 0        K  1  2  K  1  2  K
    stream 1           K  1  2  K  1  2         interval 2
    stream 2              K  1  2  K  1

Each frame is a key frame of one stream, so it is segmented once, and propagated in all others. A
stream begins at its first key frame: no frame counts at a distance that it does not really have. A
scene cut begins all streams anew.
"""

from __future__ import annotations

from torch import Tensor

from .stepper import Flow, Stepper


class SharedFlow:
    """A provider that several streams ask about the same frame, and that computes once.

    For streams that see each frame as one view.
    """

    def __init__(self, provider: Flow):
        self.provider = provider
        self.flow: Tensor | None = None

    def next_frame(self) -> None:
        self.flow = None

    def __call__(self, frame: Tensor, previous: Tensor) -> Tensor:
        if self.flow is None:
            self.flow = self.provider(frame, previous)
        return self.flow


class Phases:
    """The streams of all phases; stream 0 is the schedule itself."""

    def __init__(self, main: Stepper, interval: int):
        """main: the stepper of stream 0. Its policy is FixedInterval(interval), with or without
        scene cuts."""
        self.main = main
        self.interval = interval
        provider = main.flow or getattr(main.model, "optical_flow", None)
        self.shared = None
        if provider is not None and main.views.single_pass:
            self.shared = SharedFlow(provider)
        self.streams = [self.stream() for _ in range(interval)]
        self.position = -1  # of the last frame, from the beginning of its scene

    def stream(self) -> Stepper:
        """A stepper that is told which frames are key frames."""
        main = self.main
        return Stepper(main.model, main.views, main.autocast, flow=self.shared or main.flow)

    def __call__(self, frame: Tensor, flow: Tensor | None = None) -> dict[int, Tensor]:
        """A frame (B, 3, H, W) that `main` has just labelled -> {distance: scores (B, K, H, W)}.

        Of all streams but 0, whose distance is `main.age`. flow: as for the stepper.
        """
        if self.main.frames == 1 or self.main.decision.cut:
            self.begin()
        return self.advance(self.streams, frame, flow)

    def begin(self) -> None:
        """The next frame is the first of a scene."""
        self.position = -1
        for stream in self.streams:
            stream.reset()

    def advance(
        self, streams: list[Stepper], frame: Tensor, flow: Tensor | None, decode: bool = True
    ) -> dict[int, Tensor]:
        """Step those that have begun: the last of `streams` has phase `interval`.

        decode: whether the scores are wanted. Stream 0 decodes always: it is timed.
        """
        self.position += 1
        if self.shared:
            self.shared.next_frame()
        found = {}
        first = self.interval + 1 - len(streams)
        for phase, stream in enumerate(streams, first):
            since = self.position - phase
            if since >= 0:
                distance = since % (self.interval + 1)
                key = distance == 0
                found[distance] = stream(frame, flow, key, decode or phase == 0)
        return found

    def of_clip(
        self, clip: Tensor, flows: Tensor | None = None
    ) -> tuple[dict[int, Tensor], list[tuple[bool, float]]]:
        """clip (B, T, 3, H, W) -> {distance: scores (B, K, H, W)} of its last frame, and costs.

        Its key frame lies 0 to T - 1 frames before the labelled one, `interval` at most.
        flows (B, T - 1, 2, H, W), where clips bring them. Costs: (key, seconds) of stream 0.
        """
        # An older frame would be a second key frame of stream 0.
        clip = clip[:, -self.interval - 1 :]
        if flows is not None:
            flows = flows[:, flows.shape[1] - clip.shape[1] + 1 :]
        self.begin()
        whole = self.stream()
        costs = []
        for t, frame in enumerate(clip.unbind(1)):
            flow = flows[:, t - 1] if t and flows is not None else None
            last = t == clip.shape[1] - 1
            found = self.advance([whole, *self.streams], frame, flow, decode=last)
            costs.append((t == 0, whole.seconds))
        return found, costs
