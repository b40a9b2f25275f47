"""Three loops: train one epoch, evaluate a data set, stream a video.

They know clips, logits, losses and metrics as such; not methods, backbones or data sets, nor what a
metric measures. What they meet on the way goes to callbacks and consumers (log, pictures,
dashboard), which the job chooses.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from utils.keyframes import Decision, Policy
from utils.labelling import Labelling, clip_flows, label_clip, label_frame
from utils.live import Arrivals, Live
from utils.metrics.scoring import EvaluationMetric, ScoredFrame, merged_over_ranks
from utils.padding import pad_batch
from utils.phases import Phases
from utils.predictions import best_class, best_probability, frame_tensor, labels_at
from utils.run.dist import all_reduce_sum, world_size
from utils.run.evaluation_state import EvaluationProgress
from utils.stepper import Flow, Stepper
from utils.training.nonfinite import restore, take_step
from utils.training.progress import Progress
from utils.views import Views, resize_labels, resize_scores

# Training


class LossModule(nn.Module):
    """What DistributedDataParallel wraps: calling it computes the model's named losses."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, clip: Tensor, labels: Tensor, flows: Tensor | None) -> dict[str, Tensor]:
        return self.model.losses(clip, labels, flows)


def train_one_epoch(
    network: nn.Module,
    loader: Iterable,
    optimizer,
    schedule,
    progress: Progress,
    *,
    device: torch.device,
    autocast: AbstractContextManager,
    scaler,
    size_rule,
    on_step: Callable[[dict[str, float]], None],
    on_skip: Callable[[str], None] | None = None,
    flow: Flow | None = None,
) -> None:
    """The rest of an epoch: `loader` begins at progress.step.

    network: LossModule or its DDP wrapper. on_step gets the named losses after each step, as the
    mean over ranks. Where loss or gradients are not finite, on all ranks at once, network and
    optimizer stay as before the step: on_skip, if there is one, is told and the epoch goes on;
    else FloatingPointError names all terms, as it does where a whole epoch was left out.
    flow: a provider for methods that want flow, asked where clips bring none.
    """
    network.train()
    for clip in loader:
        schedule.before_step(progress.epoch + 1, progress.step)
        frames = clip.frames.to(device, non_blocking=True)
        labels = clip.labels.to(device, non_blocking=True)
        flows = clip_flows(flow, frames) if clip.flows is None else clip.flows.to(device)
        # A step that is skipped must not leave its batch norm statistics behind.
        buffers = [buffer.clone() for buffer in network.buffers()] if on_skip else ()
        # Padded to a size the network takes; labels of the padding are ignored.
        with autocast:
            losses = network(*pad_batch(size_rule, frames, labels, flows))
        terms = mean_over_ranks(losses)
        fault = take_step(optimizer, scaler, sum(losses.values()), terms)
        if fault:
            message = nonfinite_message(fault, progress, terms)
            if on_skip is None or progress.skipped + 1 == schedule.steps_per_epoch:
                raise FloatingPointError(message + advice(on_skip is not None))
            restore(network, buffers)
            on_skip(message)
        progress.add(None if fault else terms)
        on_step(terms)


def nonfinite_message(fault: str, progress: Progress, terms: dict[str, float]) -> str:
    named = ", ".join(f"{name} {value:.6g}" for name, value in terms.items())
    return (
        f"the {fault} not finite in epoch {progress.epoch + 1}, step {progress.step + 1}: {named}"
    )


def advice(skipping: bool) -> str:
    text = "; lower --lr-start or use --precision fp32"
    if not skipping:
        text += ", or leave such steps out: --on-nonfinite skip"
    return text


def mean_over_ranks(losses: dict[str, Tensor]) -> dict[str, float]:
    """The named losses as every rank sees them."""
    local = torch.stack([loss.detach().double() for loss in losses.values()])
    values = all_reduce_sum(local) / world_size()
    return dict(zip(losses, values.tolist(), strict=True))


# Evaluation


class LabelledFrame(NamedTuple):
    """One labelled frame on its way to pictures, files and the dashboard."""

    name: str
    frame: Tensor  # (3, H, W) in [0, 1] at working size
    prediction: Tensor  # (H', W') uint8 at the size it is scored or written at
    labels: Tensor | None  # (H', W') int64, where there are any
    clip: Tensor | None = None  # (T, 3, H, W): the frame and those that came with it, oldest first
    flows: Tensor | None = None  # (T-1, 2, H, W), or of one stepped frame: where they come with it
    decision: Decision | None = None  # what the key frame policy answered, where there is one


def ignore(labelled: LabelledFrame) -> None:
    """A consumer that wants nothing."""


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    clips: Iterable,
    metrics: list[EvaluationMetric],
    *,
    device: torch.device,
    views: Views,
    autocast: AbstractContextManager,
    stepping: bool,
    flow: Flow | None = None,
    policy: Policy | None = None,
    interval: int | None = None,
    arrivals: Arrivals | None = None,
    score_at_work_size: bool = False,
    first_scored: int = 0,
    progress: EvaluationProgress | None = None,
    consume: Callable[[LabelledFrame], None] = ignore,
) -> dict:
    """Score every labelled frame, one clip of batch 1 at a time -> what the metrics computed.

    stepping: the clips are single frames of whole videos, in order, and are labelled by `step`.
    interval: of a fixed policy; every frame is labelled at all distances up to it, too.
    arrivals: where a live viewer of the videos is simulated; with stepping alone.
    score_at_work_size: labels come at their own size and are brought to the frames' for scoring.
    first_scored: index in its video of the first frame that is scored; those before are labelled.
    progress: `clips` begin at progress.done, and it is told where the evaluation could go on.
    The result is over all ranks.
    """
    model.eval()
    stepper = Stepper(model, views, autocast, flow=flow, policy=policy)
    phases = None if interval is None else Phases(stepper, interval)
    live = None if arrivals is None else Live(stepper, arrivals)
    label = label_frame if stepping else label_clip
    start = resumed(metrics, progress)
    current = None
    for done, clip in enumerate(clips, start):
        video = int(clip.video)
        begins = video != current
        if begins:
            end_video(metrics)
            stepper.reset()
            if live:
                live.begin(video)
            current = video
        # In the middle of a video the state of the network is not stored: it is no place to go on.
        if progress and (begins or not stepping):
            progress.mark(done, lambda: [metric.sums() for metric in metrics])
        frames, flows = on_device(clip, device)
        labelling = label(stepper, phases, frames, flows)
        scored = scored_frame(model, clip, labelling, score_at_work_size)
        if live:
            scored = scored._replace(live=live(frames[:, -1], scored.prediction))
        if scored.index >= first_scored:
            count(metrics, scored, clip.name[0])
        consume(labelled_frame(clip.name[0], frames, flows, scored, stepper.decision))
    end_video(metrics)
    return computed(metrics)


def on_device(clip, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Its frames, and its flows where it brings some."""
    return clip.frames.to(device), None if clip.flows is None else clip.flows.to(device)


def scored_frame(model: nn.Module, clip, labelling: Labelling, at_work_size: bool) -> ScoredFrame:
    """What was labelled of a clip's last frame, brought to the size that is scored."""
    full_labels = clip.labels[:, -1].to(labelling.scores.device)
    labels = full_labels
    if at_work_size:
        labels = resize_labels(full_labels, clip.frames.shape[-2:])
    size = tuple(labels.shape[-2:])
    align_corners = model.backbone.align_corners
    scores = resize_scores(labelling.scores, size, align_corners)
    others = {
        distance: labels_at(other, size, align_corners)
        for distance, other in labelling.others.items()
    }
    return ScoredFrame(
        scores,
        best_class(scores),
        labels,
        full_labels,
        int(clip.video),
        int(clip.index),
        labelling.distance,
        others,
        labelling.costs,
    )


def labelled_frame(
    name: str, frames: Tensor, flows: Tensor | None, scored: ScoredFrame, decision: Decision | None
) -> LabelledFrame:
    """What consumers get of a frame; frames (1, T, 3, H, W), flows (1, T-1, 2, H, W)."""
    clip = frames[0]
    given = None if flows is None else flows[0]
    prediction = scored.prediction[0].to(torch.uint8)
    return LabelledFrame(name, clip[-1], prediction, scored.labels[0], clip, given, decision)


def count(metrics: list[EvaluationMetric], scored: ScoredFrame, name: str) -> None:
    """Hand a frame to all metrics. ValueError names the frame, say where the size has changed."""
    try:
        for metric in metrics:
            metric.update(scored)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def resumed(metrics: list[EvaluationMetric], progress: EvaluationProgress | None) -> int:
    """How many clips are counted already; the metrics go on from what they add up to."""
    if progress is None:
        return 0
    if progress.sums:
        for metric, stored in zip(metrics, progress.sums, strict=True):
            metric.restore(stored)
    return progress.done


def end_video(metrics: list[EvaluationMetric]) -> None:
    for metric in metrics:
        metric.end_video()


def computed(metrics: list[EvaluationMetric]) -> dict:
    """The results of all metrics, over all ranks."""
    results = {}
    for metric in metrics:
        results |= merged_over_ranks(metric).compute()
    return results


# Streams


class StreamedFrame(NamedTuple):
    """A frame of a stream, labelled."""

    frame: object
    prediction: Tensor  # (H, W) uint8
    seconds: float  # the network's, with what comes before and after it in `stream`
    confidence: Tensor | None = None  # (H, W) float32: the probability of the predicted class


def stream(
    stepper: Stepper,
    frames: Iterable,
    *,
    device: torch.device,
    given_flow: Callable[[object, tuple[int, int]], Tensor | None] | None = None,
    confidence: bool = False,
) -> Iterator[StreamedFrame]:
    """Label a video as it comes.

    A frame has `.image` (H, W, 3) uint8, and in `.work` the same at working size, or None where
    that is its own. The state is that of one video; another frame size begins a new one.
    given_flow: (frame, its size at work) -> flow (1, 2, h, w) into the frame before, where flow
    comes from outside. confidence: whether that is wanted too.
    """
    align_corners = stepper.model.backbone.align_corners
    for frame in frames:
        image = frame.image if frame.work is None else frame.work
        given = ()
        if given_flow is not None:
            given = (given_flow(frame, image.shape[:2]),)
        started = time.perf_counter()
        scores = stepper(frame_tensor(image, device), *given)
        scores = resize_scores(scores, frame.image.shape[:2], align_corners)
        prediction = best_class(scores)[0].to("cpu", torch.uint8)
        certainty = None
        if confidence:
            probabilities = stepper.views.plan(image.shape[:2]).probabilities
            certainty = best_probability(scores, probabilities)[0].cpu()
        yield StreamedFrame(frame, prediction, time.perf_counter() - started, certainty)
