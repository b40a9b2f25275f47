"""What a prediction is worth.

    ConfusionMatrix(num_classes).update(labels, predictions)
    VideoConsistency(length, mode).update(labels, predictions)                    per video
    TemporalConsistency(num_classes, mode).update(prediction, next_prediction, flow)

each with `compute() -> dict` of fractions and `merge(other)`. DEFINITIONS says in one line what
each number is.
"""

from .confusion import ConfusionMatrix
from .definitions import DEFINITIONS
from .label_warp import IGNORE
from .temporal_consistency import TemporalConsistency
from .video_consistency import VideoConsistency

__all__ = ["DEFINITIONS", "IGNORE", "ConfusionMatrix", "TemporalConsistency", "VideoConsistency"]
