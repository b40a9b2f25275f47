"""--metrics latency: a live viewer of the data set's videos is simulated."""

from __future__ import annotations

import functools

import torch

from utils.live import Arrivals
from utils.metrics.latency_aware import LatencyAware
from utils.output.report import environment

from .given_flow import uses_given_flow


def arrivals_of(args, data, model) -> Arrivals:
    """When frames arrive. ValueError where that is not known, or flow comes with the frames."""
    if uses_given_flow(args, model):
        raise ValueError(
            "--metrics latency: a live network leaves frames out, which flow that comes with the "
            "frames cannot: choose another --flow"
        )
    for video in data.videos:
        if args.arrival_rate is None and video.fps is None:
            raise ValueError(
                f"--metrics latency: {video.name} does not say how fast its frames come: give "
                "--arrival-rate"
            )
    latency = None if args.latency_ms is None else args.latency_ms / 1000
    return Arrivals(functools.partial(rate_of, args, data), latency)


def rate_of(args, data, video: int) -> float:
    """Frames a second of a video, by its number."""
    return args.arrival_rate or data.videos[video].fps


def latency_metric(args, data, device: torch.device) -> LatencyAware:
    rates = [rate_of(args, data, video) for video in range(len(data.videos))]
    return LatencyAware(data.num_classes, rates, latency_source(args, device))


def latency_source(args, device: torch.device) -> str:
    """Where latencies come from, in words."""
    if args.latency_ms is not None:
        return "--latency-ms"
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    machine = environment()
    return f"{machine['cpu']}, {machine['threads']} threads"
