"""Three loops: train one epoch, evaluate a data set, stream a video.

They know clips, logits, losses and metrics; not methods, backbones or data sets. What they meet on the way
is handed to callbacks and consumers (log, pictures, dashboard), which main.py chooses.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from copy import copy
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from utils.metrics import ConfusionMatrix, VideoConsistency
from utils.padding import pad_batch
from utils.run.dist import all_reduce_sum, gather, world_size
from utils.run.evaluation_state import EvaluationProgress
from utils.training.nonfinite import restore, take_step
from utils.training.progress import Progress
from utils.views import Views, resize_labels, resize_scores

Flow = Callable[
    [Tensor, Tensor], Tensor
]  # (frame, previous), both (B, 3, h, w) -> (B, 2, h, w): frame's grid, pixels


class LabelledFrame(NamedTuple):
    """One labelled frame on its way to metrics, pictures and files."""

    name: str
    frame: Tensor  # (3, H, W) in [0, 1] at working size
    prediction: Tensor  # (H', W') uint8 at the size it is scored or written at
    labels: Tensor | None  # (H', W') int64, where there are any
    clip: Tensor | None = (
        None  # (T, 3, H, W): the frame and those before it that came with it, oldest first
    )


class LossModule(nn.Module):
    """What DistributedDataParallel wraps: calling it computes the model's named losses."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, clip: Tensor, labels: Tensor, flows: Tensor | None) -> dict[str, Tensor]:
        return self.model.losses(clip, labels, flows)


class Stepper:
    """Labels a video frame by frame: one state per pass of `views`, reset by a new video or a new frame size."""

    def __init__(
        self,
        model: nn.Module,
        views: Views,
        autocast: AbstractContextManager,
        flow: Flow | None = None,
        policy=None,
    ):
        """flow: a provider, for methods that want flow from outside; policy: which frames are keys, utils.keyframes."""
        self.model, self.views, self.autocast = model, views, autocast
        self.flow, self.policy = flow, policy
        self.reset()

    def reset(self) -> None:
        """Begin a new video."""
        self.states: list | None = None
        self.previous: list[Tensor | None] = []
        self.size, self.age = None, None

    @torch.inference_mode()
    def __call__(self, frame: Tensor) -> Tensor:
        """frame (B, 3, H, W) -> scores (B, K, H, W)."""
        if self.size != frame.shape[-2:]:
            self.reset()
        plan = self.views.plan(tuple(frame.shape[-2:]))
        if self.states is None:
            self.states = [self.model.start() for _ in range(plan.passes)]
            self.previous = [None] * plan.passes
        key = self.is_key(frame)
        self.size = frame.shape[-2:]
        return plan.run(lambda i, view: self.step(i, view[:, -1], key), frame[:, None])

    def is_key(self, frame: Tensor) -> bool | None:
        if self.policy is None:
            return None
        decision = self.policy.decide(frame, self.age)
        self.age = 0 if decision.key else self.age + 1
        return decision.key

    def step(self, i: int, frame: Tensor, key: bool | None) -> Tensor:
        """Pass i: frame (B, 3, h, w) -> logits (B, K, h, w)."""
        flow = None
        if self.flow is not None and self.previous[i] is not None:
            flow = self.flow(frame, self.previous[i])
        with self.autocast:
            logits, self.states[i] = self.model.step(frame, self.states[i], flow, key)
        self.previous[i] = frame if self.flow is not None else None
        return self.model.upsample(logits.float(), frame.shape[-2:])


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

    network: LossModule or its DDP wrapper. on_step gets the named losses, as the mean over ranks, after each step.
    Where loss or gradients are not finite, on all ranks at once, network and optimizer stay as before the step:
    on_skip, if there is one, is told and the epoch goes on; else FloatingPointError names all terms, as it does
    where a whole epoch was left out. flow: a provider for methods that want flow, asked where clips bring none.
    """
    network.train()
    for clip in loader:
        schedule.before_step(progress.epoch + 1, progress.step)
        frames, labels = (
            clip.frames.to(device, non_blocking=True),
            clip.labels.to(device, non_blocking=True),
        )
        flows = clip_flows(flow, frames) if clip.flows is None else clip.flows.to(device)
        buffers = [buffer.clone() for buffer in network.buffers()] if on_skip else ()
        with autocast:
            losses = network(*pad_batch(size_rule, frames, labels, flows))
        terms = mean_over_ranks(losses)
        if fault := take_step(optimizer, scaler, sum(losses.values()), terms):
            message = (
                f"the {fault} not finite in epoch {progress.epoch + 1}, step {progress.step + 1}: "
                + ", ".join(f"{name} {value:.6g}" for name, value in terms.items())
            )
            if on_skip is None or progress.skipped + 1 == schedule.steps_per_epoch:
                raise FloatingPointError(
                    f"{message}; lower --lr-start or use --precision fp32"
                    + ("" if on_skip else ", or leave such steps out: --on-nonfinite skip")
                )
            restore(network, buffers)
            on_skip(message)
        progress.add(None if fault else terms)
        on_step(terms)


def clip_flows(flow: Flow | None, clip: Tensor) -> Tensor | None:
    """clip (B, T, 3, H, W) -> (B, T-1, 2, H, W) by the provider, frame by frame; None without one or with one frame."""
    if flow is None or clip.shape[1] < 2:
        return None
    return torch.stack([flow(clip[:, t], clip[:, t - 1]) for t in range(1, clip.shape[1])], 1)


def mean_over_ranks(losses: dict[str, Tensor]) -> dict[str, float]:
    """The named losses as every rank sees them."""
    values = (
        all_reduce_sum(torch.stack([loss.detach().double() for loss in losses.values()]))
        / world_size()
    )
    return dict(zip(losses, values.tolist(), strict=True))


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    clips: Iterable,
    *,
    num_classes: int,
    device: torch.device,
    views: Views,
    autocast: AbstractContextManager,
    stepping: bool,
    consistency: bool | None = None,
    flow: Flow | None = None,
    policy=None,
    original: bool = False,
    degraded: Callable[[int, int], bool] | None = None,
    progress: EvaluationProgress | None = None,
    consume: Callable[[LabelledFrame], None] = lambda labelled: None,
) -> dict:
    """Score every labelled frame, one clip of batch 1 at a time, and add up over ranks.

    stepping: the clips are single frames of whole videos, in order, and are labelled by `step`; consistency: such
    videos are scored over time too (default: if stepping). original: labels come at their own size and predictions are
    scored at working size, and once more enlarged to the labels by nearest neighbour. degraded(video, index): which
    frames are scored apart from the clean ones too. progress: `clips` begin at progress.done, and it is told where the
    evaluation could go on. Returns ConfusionMatrix.compute(), with consistency VideoConsistency.compute() under each
    metric's name, "original_size", "clean" and "degraded" as asked for, "loss" (mean cross entropy per frame; None
    where scores are no logits) and "frames".
    """
    model.eval()
    stepper = Stepper(model, views, autocast, flow, policy)
    scores_of = stepper if stepping else partial(forward_clip, model, views, autocast, flow)
    tally = Tally(
        model,
        num_classes,
        consistency=stepping if consistency is None else consistency,
        with_loss=views.single_pass,
        original=original,
        degraded=degraded,
    )
    if progress and progress.sums:
        tally.restore(progress.sums)
    for done, clip in enumerate(clips, progress.done if progress else 0):
        frames = clip.frames.to(device)
        video = int(clip.video)
        begins = tally.begins(video)
        if begins:
            stepper.reset()
        if progress and (begins or not stepping):
            progress.mark(done, tally.sums)
        scores = scores_of(frames[:, -1] if stepping else frames)
        labels = full = clip.labels[:, -1].to(device)
        if original:
            labels = resize_labels(full, frames.shape[-2:])
        scores = resize_scores(scores, tuple(labels.shape[-2:]), model.backbone.align_corners)
        prediction = classes(scores)
        try:
            tally.add(scores, prediction, labels, video, int(clip.index))
        except ValueError as error:  # the size of the frames has changed
            raise ValueError(f"{clip.name[0]}: {error}") from error
        if original:
            tally.original.update(full, resize_labels(prediction, full.shape[-2:]))
        consume(
            LabelledFrame(
                clip.name[0], frames[0, -1], prediction[0].to(torch.uint8), labels[0], frames[0]
            )
        )
    return tally.result()


def forward_clip(
    model: nn.Module,
    views: Views,
    autocast: AbstractContextManager,
    flow: Flow | None,
    clip: Tensor,
) -> Tensor:
    """clip (B, T, 3, H, W) -> scores (B, K, H, W) of its last frame, all frames at once."""

    def network(i: int, view: Tensor) -> Tensor:
        with autocast:
            logits = model(view, clip_flows(flow, view))
        return model.upsample(logits.float(), view.shape[-2:])

    return views.plan(tuple(clip.shape[-2:])).run(network, clip)


class Tally:
    """The running sums of an evaluation."""

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        *,
        consistency: bool,
        with_loss: bool,
        original: bool,
        degraded: Callable[[int, int], bool] | None,
    ):
        self.model, self.with_loss, self.degraded = model, with_loss, degraded
        self.confusion = ConfusionMatrix(num_classes)
        self.original = ConfusionMatrix(num_classes) if original else None
        self.groups = (
            {name: ConfusionMatrix(num_classes) for name in ("clean", "degraded")}
            if degraded
            else {}
        )
        self.consistency = (
            [VideoConsistency(length, mode) for mode in ("correct", "vspw") for length in (8, 16)]
            if consistency
            else []
        )
        self.loss, self.frames, self.video = 0.0, 0, None

    def begins(self, video: int) -> bool:
        """Whether this frame is of another video than the last one's."""
        if self.video == video:
            return False
        self.end_video()
        self.video = video
        return True

    def end_video(self) -> None:
        if self.video is not None:
            for metric in self.consistency:
                metric.end_video()

    def add(
        self, scores: Tensor, prediction: Tensor, labels: Tensor, video: int, index: int
    ) -> None:
        """scores (1, K, H, W), prediction and labels (1, H, W) of frame `index` of a video."""
        self.confusion.update(labels, prediction)
        if self.groups:
            self.groups["degraded" if self.degraded(video, index) else "clean"].update(
                labels, prediction
            )
        self.frames += 1
        if self.with_loss:
            self.loss += self.model.cross_entropy(scores, labels).item()
        for metric in self.consistency:
            metric.update_frame(labels[0], prediction[0])

    def matrices(self) -> list[ConfusionMatrix]:
        return [self.confusion, *filter(None, [self.original]), *self.groups.values()]

    def sums(self) -> dict:
        """All that is counted, as plain values; between two videos."""
        return {
            "counts": [matrix.counts.clone() for matrix in self.matrices()],
            "loss": self.loss,
            "frames": self.frames,
            "consistency": [metric.sums() for metric in self.consistency],
        }

    def restore(self, sums: dict) -> None:
        """The reverse of `sums`."""
        for matrix, counts in zip(self.matrices(), sums["counts"], strict=True):
            matrix.counts = counts
        self.loss, self.frames = sums["loss"], sums["frames"]
        for metric, stored in zip(self.consistency, sums["consistency"], strict=True):
            metric.restore(stored)

    def result(self) -> dict:
        """Over all ranks; losses are means over frames."""
        self.end_video()
        loss, frames = all_reduce_sum(
            torch.tensor([self.loss, float(self.frames)], dtype=torch.float64)
        ).tolist()
        values = over_ranks(self.confusion)
        if self.original:
            enlarged = over_ranks(self.original)
            values["original_size"] = {name: enlarged[name] for name in ("mIoU", "IoU")}
        values |= {name: over_ranks(group)["mIoU"] for name, group in self.groups.items()}
        for metric in self.consistency:
            whole, *others = gather(metric)
            for other in others:
                whole.merge(other)
            values[whole.name] = whole.compute()
        return values | {
            "loss": loss / max(frames, 1) if self.with_loss else None,
            "frames": int(frames),
        }


def over_ranks(confusion: ConfusionMatrix) -> dict:
    """compute() of the counts of all ranks."""
    total = copy(confusion)
    total.counts = all_reduce_sum(confusion.counts)
    return total.compute()


def stream(
    stepper: Stepper, frames: Iterable, *, device: torch.device
) -> Iterator[tuple[object, Tensor, float]]:
    """Label a video as it comes: frames -> (frame, prediction (H, W) uint8, seconds).

    A frame has `.image` (H, W, 3) uint8, and in `.work` the same at working size, or None where that is its own. The
    state is that of one video; another frame size begins a new one. The seconds are the network's, with what comes
    before and after it here.
    """
    for frame in frames:
        started = time.perf_counter()
        scores = stepper(frame_tensor(frame.image if frame.work is None else frame.work, device))
        prediction = label_map(scores, frame.image.shape[:2], stepper.model.backbone.align_corners)
        yield frame, prediction, time.perf_counter() - started


def frame_tensor(image: np.ndarray, device: torch.device) -> Tensor:
    """image (H, W, 3) uint8 -> (1, 3, H, W) in [0, 1], channels last."""
    return torch.from_numpy(image).to(device).permute(2, 0, 1)[None].float().div_(255)


def label_map(scores: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """scores (1, K, h, w) -> the best class of each pixel, (H, W) uint8 on the CPU."""
    return classes(resize_scores(scores, size, align_corners))[0].to("cpu", torch.uint8)


def classes(scores: Tensor) -> Tensor:
    """scores (B, K, H, W) -> (B, H, W) int64: argmax(1), which on a CPU takes up to seven times as long."""
    return scores.max(1).indices
