"""Optical flow behind one interface (provider.FlowProvider): networks, DIS, files."""

from __future__ import annotations

from argparse import Namespace

from torch import Tensor

from .cache import FlowCache
from .dis import DIS
from .flownets import FlowNetS
from .light import LightFlow
from .provider import FlowProvider
from .raft import RAFT
from .small import SmallFlow

__all__ = [
    "DIS",
    "RAFT",
    "FlowCache",
    "FlowNetS",
    "FlowProvider",
    "LightFlow",
    "SmallFlow",
    "build_flow",
    "flow_between",
]

# By the names of --flow. `given` has none: its flow comes from the data set or from files.
BUILDERS = {
    "light": lambda args: LightFlow(),
    "flownets": lambda args: FlowNetS(),
    "raft_small": lambda args: RAFT("small", args.raft_iterations),
    "raft_large": lambda args: RAFT("large", args.raft_iterations),
    "dis": lambda args: DIS(args.dis_preset),
    "given": lambda args: None,
}


def flow_between(provider: FlowProvider | None, frame: Tensor, previous: Tensor) -> Tensor:
    """The provider's flow; ValueError where there is none, so that flow must come from outside."""
    if provider is None:
        raise ValueError(
            "--flow given, and no flow came with the frame: the data set has none, and there is "
            "no --flow-root"
        )
    return provider(frame, previous)


def build_flow(args: Namespace) -> FlowProvider | None:
    """The provider of parsed options (options/optical_flow.py), not frozen, without weights.

    None for --flow given.
    """
    return BUILDERS[args.flow](args)
