"""The interface of what an evaluation measures, and the frame that it sees."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor

from .definitions import DEFINITIONS


class LiveFrame(NamedTuple):
    """What a live viewer has on the screen when a frame arrives."""

    prediction: Tensor | None  # (1, H, W) int64; None: nothing is finished yet
    age: int | None  # how many frames ago the labelled one arrived
    seconds: tuple[float, ...]  # of each frame that was taken meanwhile


class ScoredFrame(NamedTuple):
    """One labelled frame as metrics see it."""

    scores: Tensor  # (1, K, H, W), logits or probabilities, at the size that is scored
    prediction: Tensor  # (1, H, W) int64
    labels: Tensor  # (1, H, W) int64, 255 = ignore
    full_labels: Tensor  # (1, H', W'): the labels at their own size
    video: int
    index: int  # of the frame in its video
    # For methods with key frames: frames since the key frame (0 on it); predictions (1, H, W) of
    # the same frame at other distances; (key, seconds) of the frames that were labelled for this.
    distance: int | None = None
    at_distance: Mapping[int, Tensor] = MappingProxyType({})
    costs: tuple[tuple[bool, float], ...] = ()
    live: LiveFrame | None = None  # where a viewer is simulated


class EvaluationMetric:
    """Base class: a metric without videos."""

    def update(self, frame: ScoredFrame) -> None:
        """Count one frame. Frames of a video come one after the other."""
        raise NotImplementedError(f"{type(self).__name__} has no update")

    def end_video(self) -> None:
        """The next frame belongs to another video, or there is none."""

    def sums(self) -> Any:
        """All that is counted, as tensors and plain values; between two videos."""
        raise NotImplementedError(f"{type(self).__name__} has no sums")

    def restore(self, sums: Any) -> None:
        """The reverse of `sums`."""
        raise NotImplementedError(f"{type(self).__name__} has no restore")

    def merge(self, other: EvaluationMetric) -> None:
        """Add what another rank has counted."""
        raise NotImplementedError(f"{type(self).__name__} has no merge")

    def compute(self) -> dict[str, Any]:
        """The results by name."""
        raise NotImplementedError(f"{type(self).__name__} has no compute")

    def definitions(self) -> dict[str, str]:
        """What each result is, in one line."""
        return {name: DEFINITIONS[name] for name in self.compute()}
