"""Which frames of a video are key frames: policies that the stepper asks before each frame.

    context.py    what a policy sees (FrameContext) and answers (Decision)
    schedule.py   what all policies share: the first frame, scene cuts, the longest distance
    fixed.py motion.py error.py budget.py       one policy each
    cuts.py small.py    scene cuts, and the small grey copies that are looked at

The answer is recorded per frame and handed to the method as `step(..., key=)`. A policy keeps
nothing about a video: what it needs of earlier frames stands in the context, its own last answer
included. So videos in turn share one policy.
"""

from __future__ import annotations

from .budget import Budget
from .context import Decision, FrameContext, Policy
from .cuts import SceneCuts
from .error import UnexplainedPixels
from .fixed import FixedInterval
from .motion import Motion
from .schedule import Schedule

__all__ = [
    "Budget",
    "Decision",
    "FixedInterval",
    "FrameContext",
    "Motion",
    "Policy",
    "SceneCuts",
    "Schedule",
    "UnexplainedPixels",
]
