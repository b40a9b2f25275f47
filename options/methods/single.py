"""The row of `single`: the backbone alone."""

from __future__ import annotations

from ..rows import Method

ROW = Method(
    "single",
    "the backbone alone, frame by frame: the baseline of every comparison",
    "models.single:SingleFrame",
    published={("erf", "cityscapes"): {"work_size": (512, 1024), "class_weights": "lma"}},
)
