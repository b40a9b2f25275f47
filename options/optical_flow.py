"""Options of optical flow, for the rows of methods that use it.

A row says where its flow comes from when --flow is not given: `derived={"flow": flow_name}`.
"""

from __future__ import annotations

from argparse import Namespace

from .jobs import NETWORK
from .option import FREE, Group, Option
from .types import path, positive

FLOWS = ("light", "flownets", "raft_small", "raft_large", "dis", "given")
RAFTS = ("raft_small", "raft_large")
PRESETS = ("ultrafast", "fast", "medium")
DEFAULT = "dis"  # it alone needs neither weights nor files


def is_used(args: Namespace) -> bool:
    """ETC needs flow to learn; what has learnt labels each frame alone."""
    return args.training or args.method != "etc"


def flow_name(args: Namespace) -> str:
    """Where flow comes from: what --flow says, else DIS."""
    return args.flow or DEFAULT


FLOW = Group(
    "optical flow",
    (
        Option(
            "--flow",
            "where optical flow comes from: light, flownets (SwNet-seq's networks), raft_small, "
            "raft_large, dis (OpenCV, no weights: the default), given (the data set or "
            "--flow-root)",
            choices=FLOWS,
            acts_if=is_used,
        ),
        Option(
            "--dis-preset",
            "how fine DIS searches",
            choices=PRESETS,
            default="fast",
            only_with={"flow": ("dis",)},
            acts_if=is_used,
        ),
        Option(
            "--raft-iterations",
            "updates of RAFT's flow; 6 take half the time and are a little coarser",
            type=positive,
            default=12,
            only_with={"flow": RAFTS},
            acts_if=is_used,
        ),
        # Where files lie is no property of the network; on each machine they may lie elsewhere.
        Option(
            "--flow-root",
            "folder of flow files, NAME.flo or NAME.npy for the frame NAME",
            type=path,
            metavar="DIR",
            only_with={"flow": ("given",)},
            network=False,
            resume=FREE,
            per_machine=True,
            acts_if=is_used,
        ),
        Option(
            "--warp-align-corners",
            "warping keeps what does not move where it is; --no-...: as SwNet-seq computes with "
            "torch 1.3 and later",
            type=bool,
            negatable=True,
            default=True,
            acts_if=lambda args: args.method != "etc",
        ),
    ),
    jobs=NETWORK,
)
