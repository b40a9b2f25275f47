"""The row of `smooth`: how strongly it blends."""

from __future__ import annotations

from argparse import Namespace

from ..jobs import NETWORK
from ..optical_flow import FLOW, flow_name
from ..option import Group, Option
from ..rows import Method
from ..types import share

PAST = 4  # frames: what is older has a share below a tenth at the default strength


def refuse_full_strength(args: Namespace) -> str | None:
    if args.smooth_strength < 1:
        return None
    return "--smooth-strength 1 would keep the first frame for ever: give a number below 1"


def offsets(args: Namespace) -> tuple[int, ...]:
    """The frames before a labelled one, where an evaluation labels clips and no whole videos."""
    return tuple(range(-PAST, 0)) if args.smooth_strength else ()


BLEND = Group(
    "blending over time (smooth)",
    (
        Option(
            "--smooth-strength",
            "share of the past where the frame and the past are equally sure, in [0, 1); "
            "0: as single",
            type=share,
            default=0.6,
        ),
    ),
    jobs=NETWORK,
)

ROW = Method(
    "smooth",
    "less flicker without training: class probabilities blended over time along optical flow",
    "models.smooth:Smooth",
    groups=(BLEND, FLOW),
    published={("erf", "cityscapes"): {"work_size": (512, 1024), "class_weights": "lma"}},
    offsets=offsets,
    derived={"flow": flow_name},
    refusals=(refuse_full_strength,),
)
