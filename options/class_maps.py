"""Options of classes: those of one label set as those of another, and which are shown."""

from __future__ import annotations

from .jobs import INFERENCE, RUNS
from .option import FREE, Group, Option
from .types import path

CLASSES = Group(
    "classes",
    (
        Option(
            "--class-map",
            "classes as those of another label set: a file of lines `from -> to`, or "
            "cityscapes-to-camvid, cityscapes-to-synthetic, cityscapes-to-groups, "
            "synthetic-to-camvid, camvid-to-groups, idd-to-groups. A training reads labels by it, "
            "other jobs merge what the network says",
            type=path,
            metavar="FILE",
        ),
        Option(
            "--show",
            "lay only these classes over the picture",
            nargs="+",
            default=[],
            metavar="CLASS",
            jobs=INFERENCE,
            resume=FREE,
        ),
    ),
    jobs=RUNS,
)
