"""Scoring a split: shared by the validation of a training and by an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch

from engine import evaluate
from utils.console import Console
from utils.live import Arrivals
from utils.metrics.scoring import EvaluationMetric, standard_metrics
from utils.run.dist import rank, world_size
from utils.run.evaluation_state import EvaluationProgress
from utils.run.loading import evaluation_loader
from utils.run.stopping import StopRequest
from utils.views import Views

from .keys import has_keys, interval_of, policy_of, require_videos
from .live import latency_metric
from .temporal import temporal_metrics

SLOWEST = 5.0  # frames a second; below, frames are pictures of different things: no video metrics


def metrics_for(args, model, data, views: Views, device: torch.device) -> list[EvaluationMetric]:
    """What is measured on this data set."""
    # Clean and degraded frames are told apart where the data knows which is which.
    steady = is_steady(data)
    # A training is watched by what costs little.
    scores_time = steady and not args.training
    # Frames without a label have no loss either.
    has_loss = views.single_pass and (data.dense or not data.step)
    return standard_metrics(
        data.num_classes,
        consistency=steady and data.dense and (args.training or "vc" in args.metrics),
        further=further_metrics(args, data, device) if scores_time else (),
        # Averaged probabilities are no logits: they have no loss.
        cross_entropy=model.cross_entropy if has_loss else None,
        original_size=args.use_orig_res,
        degraded=degraded_of(data),
        key_frames=has_keys(args),
        interval=scored_interval(args),
    )


def further_metrics(args, data, device: torch.device) -> list[EvaluationMetric]:
    """Those over time that have to be asked for."""
    further: list[EvaluationMetric] = []
    if "tc" in args.metrics:
        further += temporal_metrics(args, data)
    if measures_latency(args, data):
        further.append(latency_metric(args, data, device))
    return further


def measures_latency(args, data) -> bool:
    """Whether a live viewer is simulated, in an evaluation."""
    return "latency" in args.metrics and is_steady(data)


def scored_interval(args) -> int | None:
    """Up to which distance from a key frame every frame is labelled; None: as scheduled alone."""
    # Validations of a training look at the schedule itself: they are many.
    if args.training or interval_of(args) is None or not args.key_distances:
        return None
    return interval_of(args)


def tell_unmeasured(args, data, console: Console) -> None:
    """Say what was asked for and cannot be measured on this data set."""
    asked = [name for name in args.metrics if name in ("tc", "latency")]
    if asked and not is_steady(data):
        console.note(
            f"not measured: {', '.join(asked)}; these need videos of at least {SLOWEST:g} frames a "
            f"second in which every frame has a label, which --dataset {args.dataset} does not "
            "have (of Cityscapes, --clip-list chooses clips that are labelled frame by frame)"
        )


def is_steady(data) -> bool:
    """Whether frames follow each other closely enough to be scored over time."""
    # A data set that states no rate is taken at its word that frames follow each other.
    rates = [video.fps or SLOWEST for video in data.videos]
    return data.step and min(rates) >= SLOWEST


def first_scored(args) -> int:
    """The index in its video of the first frame that is scored."""
    return -min(args.offsets) if args.first_frames == "skip" else 0


def degraded_of(data) -> Callable[[int, int], bool] | None:
    """Which frames are known to be degraded: (video, index) -> bool; None where that is unknown."""
    if not all(getattr(video, "degrade", False) for video in data.videos):
        return None
    return lambda video, index: data.videos[video].degraded(index)


def score(
    args,
    model,
    data,
    *,
    console: Console,
    views: Views,
    consume: Callable,
    device: torch.device,
    autocast: AbstractContextManager,
    arrivals: Arrivals | None = None,
    progress: EvaluationProgress | None = None,
    stop: StopRequest | None = None,
) -> dict:
    """The results of this rank's share of the data, added up over ranks.

    arrivals: of a live viewer, where it is asked for.
    """
    require_videos(args, data)
    done = progress.done if progress else 0
    first = first_scored(args)
    if first:
        console.note(f"the first {first} frames of every video are labelled and not scored")
    # Whole videos, or every ranks-th clip: no frame is scored twice.
    loader = evaluation_loader(data, args.num_workers, rank(), world_size(), done, stop)
    shown = console.progress(loader, done + len(loader), "scoring", done)
    return evaluate(
        model,
        shown,
        metrics_for(args, model, data, views, device),
        device=device,
        views=views,
        autocast=autocast,
        stepping=data.step,
        policy=policy_of(args),
        interval=scored_interval(args),
        arrivals=arrivals,
        score_at_work_size=args.use_orig_res,
        first_scored=first,
        progress=progress,
        consume=consume,
    )
