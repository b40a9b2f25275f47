"""--key-pictures: pictures of some sequences, from a key frame to the last frame before the next.

    SAVEDIR/pictures/VIDEO/FRAME_cat_k2.png    the last frame, 2 after its key frame
    SAVEDIR/pictures/VIDEO/FRAME_seq_k3.png    all 3 frames

The sequences are those of the evaluation. They are labelled once more: by the method, and by the
backbone on every frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.labels import LabelSet
from engine import LabelledFrame
from models.method import Method
from models.parts.guided_filter import class_edges
from utils.output import key_pictures
from utils.output.flow_pictures import flow_picture
from utils.output.pictures import as_picture, save_png, without_ignore
from utils.predictions import label_map
from utils.stepper import Stepper
from utils.views import Views

LONGEST = 10  # frames of a sequence that are drawn: an adaptive policy may propagate for long
CELL = 8  # pixels a side: the filter sees edges at an eighth of the frame
FULL_COLOUR = 0.99  # the share of flow that is no longer than what is shown in full colour


class KeyPictures:
    """Consumes engine.LabelledFrame: draws some sequences, evenly spread."""

    def __init__(
        self,
        folder: Path,
        labels: LabelSet,
        model: Method,
        views: Views,
        *,
        stepping: bool,
        frames: int,
        sequences: int,
        start: int = 0,
    ):
        """stepping: frames of whole videos come, else clips. frames: how many there are.

        start: how many frames a stopped run has seen.
        """
        self.folder = folder
        self.labels = labels
        self.model = model
        self.views = views
        self.stepping = stepping
        self.every = max(-(-frames // sequences), 1) if sequences else 0
        self.seen = start
        # the frame from which on the next sequence is drawn
        self.due = -(-start // self.every) * self.every if sequences else 0
        self.frames: list[LabelledFrame] = []  # of the sequence at hand, if it is to be drawn
        self.wanted = False

    def __call__(self, labelled: LabelledFrame) -> None:
        if not self.every:
            return
        begins = not self.stepping or labelled.decision.key
        if begins:
            self.finish()
            self.wanted = self.seen >= self.due
        if begins and self.wanted:
            self.due = (self.seen // self.every + 1) * self.every
        if self.wanted and len(self.frames) < LONGEST:
            self.frames.append(labelled)
        self.seen += 1

    def finish(self) -> None:
        """Draw the sequence at hand."""
        if not self.frames:
            return
        last = self.frames[-1]
        frames = torch.cat([labelled.clip for labelled in self.frames])
        flows = None
        if last.flows is not None:
            flows = torch.cat([labelled.flows for labelled in self.frames])[1 - len(frames) :]
        self.frames = []
        self.draw(last.name, frames, flows, last.labels.cpu().numpy())

    @torch.inference_mode()
    def draw(self, name: str, frames: Tensor, flows: Tensor | None, labels: np.ndarray) -> None:
        """frames (T, 3, H, W), the first one key; flows (T - 1, 2, H, W), where they are given."""
        flows = self.flows_between(frames, flows)
        pictures = [as_picture(frame) for frame in frames]
        with eager(self.model):
            ours, edges = self.propagated(frames, flows, labels.shape)
            backbone = self.segmented(frames, labels.shape)
        palette = self.labels.palette
        shown = key_pictures.composite(pictures[-1], edges, ours[-1], labels, palette)
        path = self.folder / "pictures" / name
        save_png(path.with_name(f"{path.name}_cat_k{len(frames) - 1}.png"), shown)
        drawn = [None, *coloured(flows)]
        shown = key_pictures.strip(pictures, backbone, ours, drawn, palette)
        save_png(path.with_name(f"{path.name}_seq_k{len(frames)}.png"), shown)

    def flows_between(self, frames: Tensor, given: Tensor | None) -> list[Tensor | None]:
        """The flow (1, 2, h, w) of each frame but the first into the one before it; None where the
        method uses none."""
        pairs = zip(frames[1:, None], frames[:-1, None], strict=True)
        if not self.model.needs_flow(False):
            return [None for _ in pairs]
        if given is not None:
            return list(given[:, None])
        return [self.model.optical_flow(frame, previous) for frame, previous in pairs]

    def propagated(
        self, frames: Tensor, flows: list[Tensor | None], size: tuple[int, int]
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Label maps (H, W) of all frames by the method, and the edges (h, w) of the last one."""
        stepper = self.stepper()
        found = []
        with filter_inputs(self.model) as inputs:
            for frame, flow in zip(frames[:, None], [None, *flows], strict=True):
                inputs.clear()
                scores = stepper(frame, self.for_stepper(flow, frame), key=not found)
                found.append(self.label_map(scores, size))
        # Several views have an input each; without a filter there is none.
        edges = filter_edges(inputs[0], scores) if len(inputs) == 1 else class_edges(scores)
        return found, edges[0, 0].bool().cpu().numpy()

    def for_stepper(self, flow: Tensor | None, frame: Tensor) -> Tensor | None:
        """Flow on the frame's own grid alone; the method computes other flow anew."""
        on_grid = flow is not None and flow.shape[-2:] == frame.shape[-2:]
        return flow if on_grid and self.views.single_pass else None

    def segmented(self, frames: Tensor, size: tuple[int, int]) -> list[np.ndarray]:
        """Label maps of all frames by the backbone."""
        stepper = self.stepper()
        return [self.label_map(stepper(frame, key=True), size) for frame in frames[:, None]]

    def stepper(self) -> Stepper:
        return Stepper(self.model, self.views, nullcontext())

    def label_map(self, scores: Tensor, size: tuple[int, int]) -> np.ndarray:
        """scores (1, K, h, w) -> (H, W) uint8."""
        found = label_map(scores, size, self.model.backbone.align_corners)
        return without_ignore(found.numpy(), len(self.labels.palette))

    def __enter__(self):
        return self

    def __exit__(self, kind, *error) -> None:
        """Draw the last sequence, where the evaluation has come to its end."""
        if kind is None:
            self.finish()


def filter_edges(warped: Tensor, scores: Tensor) -> Tensor:
    """Edges that the filter sees in warped (1, K, h, w), in the pixels of scores (1, K, H, W)."""
    height, width = scores.shape[-2:]
    # What the network sees may be padded at the end.
    return F.interpolate(class_edges(warped), scale_factor=CELL)[..., :height, :width]


def coloured(flows: list[Tensor | None]) -> list[np.ndarray | None]:
    """Flows in colours that may be compared with each other."""
    lengths = [flow.norm(dim=1).flatten().float() for flow in flows if flow is not None]
    if not lengths:
        return [None for _ in flows]
    longest = max(float(np.quantile(each.cpu().numpy(), FULL_COLOUR)) for each in lengths)
    return [flow_picture(flow[0], max(longest, 1.0)) for flow in flows]


@contextmanager
def filter_inputs(model: Method) -> Iterator[list[Tensor]]:
    """A list of the warped logits (1, K, h, w) that the guided filter gets, call by call."""
    seen: list[Tensor] = []
    guided = getattr(getattr(model, "propagation", None), "filter", None)
    if guided is None:
        yield seen
        return
    hook = guided.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        hook.remove()


@contextmanager
def eager(model: Method) -> Iterator[None]:
    """The model's own `step`: what is inside a CUDA graph cannot be looked at."""
    graphed = vars(model).pop("step", None)
    try:
        yield
    finally:
        if graphed is not None:
            model.step = graphed
