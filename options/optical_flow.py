"""Options of optical flow, for the rows of methods that use it.

A row says where its flow comes from when --flow is not given: `derived={"flow": flow_name}`.
"""

from __future__ import annotations

from argparse import Namespace

from .jobs import INFERENCE, NETWORK, SCORING
from .option import FREE, SAME, Group, Option
from .types import path, positive

FLOWS = ("light", "flownets", "raft_small", "raft_large", "dis", "given")
RAFTS = ("raft_small", "raft_large")
PRESETS = ("ultrafast", "fast", "medium")
DEFAULT = "dis"  # it alone needs neither weights nor files


def is_used(args: Namespace) -> bool:
    """ETC needs flow to learn; what has learnt labels each frame alone."""
    return args.training or args.method != "etc"


def is_computed(args: Namespace) -> bool:
    """Whether the run computes flow: for its method, or for TC where no data set knows it."""
    for_method = args.flow not in (None, "given") and is_used(args)
    exact = args.job == "evaluation" and args.dataset == "synthetic"
    for_score = not args.training and "tc" in args.metrics and not exact
    return for_method or for_score


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

# Of every method: TC needs flow too.
FLOW_CACHE = Group(
    "optical flow on disk",
    (
        Option(
            "--flow-cache",
            "folder that keeps computed flow for later runs, by method, size and what both frames "
            "show. In training it is the flow of whole frames, augmented with them; flow of a "
            "network that is being trained is never kept",
            type=path,
            metavar="DIR",
            resume=FREE,
            per_machine=True,
            acts_if=is_computed,
        ),
        Option(
            "--flow-cache-format",
            "npy: half precision, 4 bytes a pixel; flo: exact, 8 bytes (Middlebury)",
            choices=("npy", "flo"),
            default="npy",
            resume=SAME,
            acts_if=lambda args: bool(args.flow_cache) and is_computed(args),
        ),
    ),
    jobs=SCORING + INFERENCE,
)
