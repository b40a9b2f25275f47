"""Less flicker without training: each frame's class probabilities are blended with earlier ones.

    frame ------------- backbone --> logits --> probabilities --+-- blend --> logits, memory
                                                                |
    memory (probabilities of the frame before) -- warp by flow -+
                                                                |
    frame, frame before -- photometric check of flow -----------+

The memory's share of a pixel is

    strength * validity * confidence(memory)
    ---------------------------------------------------------------------------
    strength * validity * confidence(memory) + (1 - strength) * confidence(own)

where confidence is 1 - entropy / log K. Validity is 0 where flow points out of the frame or the
warped picture differs (parts/flow_check.py), so what moves or appears keeps its own probabilities;
a scene cut makes it 0 everywhere. What was blended is the next frame's memory: one map.

Where logits are finer than half of the frame, the blend is computed at half of it and its change
of log probabilities is enlarged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .method import Method
from .ops.resize import resize
from .ops.warp import resize_flow, warp
from .optical_flow import build_flow, flow_between
from .parts.flow_check import flow_validity
from .single import SINGLE_FRAME, SingleFrame

FINEST = 2  # pixels: side of a cell of the finest grid that is blended on
LEAST_CONFIDENCE = 0.05  # of a uniform distribution: neither side is ever without weight
TINY = 1e-30  # smaller probabilities count as this: their logarithms and ratios stay finite


@dataclass(frozen=True)
class Past:
    """What the frame before left behind."""

    probabilities: Tensor  # (B, K, h, w) float32, blended
    frame: Tensor  # (B, 3, H, W), for flow and its check


class Smooth(SingleFrame):
    """The single-frame network, blended over time; nothing is trained beyond it."""

    recurrent = True
    # Those of every recurrent method: the fold over the clip.
    forward = Method.forward
    observe = Method.observe

    def __init__(
        self,
        backbone,
        offsets: tuple[int, ...] = (),
        *,
        optical_flow: nn.Module | None = None,
        strength: float = 0.6,
        align_corners: bool = True,
        **options,
    ):
        """offsets: frames before the labelled one that its clip brings in an evaluation.

        optical_flow: a FlowProvider; None where flow comes from outside. strength: the memory's
        share where both sides are equally sure, in [0, 1); 0 is the single-frame network, else
        ValueError. align_corners: of warping. options: those of SingleFrame.
        """
        if not 0 <= strength < 1:
            raise ValueError(f"the strength must be at least 0 and below 1, got {strength}")
        super().__init__(backbone, **options)
        self.offsets = tuple(offsets)
        self.optical_flow = optical_flow
        if optical_flow is not None:
            optical_flow.requires_grad_(False)
            self.always_eval.append(optical_flow)
        self.strength = strength
        self.align_corners = align_corners

    @classmethod
    def from_args(cls, backbone, args):
        return cls(
            backbone,
            args.offsets,
            optical_flow=build_flow(args),
            strength=args.smooth_strength,
            align_corners=args.warp_align_corners,
            aux_weight=args.aux_weight,
            head_lr=args.head_lr,
        )

    @property
    def capturable(self) -> bool:
        return self.optical_flow is None or not self.strength or self.optical_flow.capturable

    def training_offsets(self, rng):
        """None: the loss is the single frame's."""
        return ()

    def needs_flow(self, key: bool | None) -> bool:
        return self.strength > 0

    # The drawing

    def step(self, frame, state, flow=None, key=None):
        logits = self.backbone(frame)
        if not self.strength:
            return logits, state
        # Ratios of small probabilities need float32.
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits.float()
            own = resize(logits, blend_size(logits, frame)).softmax(1)
            if state is None:
                return logits, Past(own, frame)
            memory, share = self.read(frame, own, state, flow)
            blended = torch.lerp(own, memory, share)
            change = torch.log(blended.clamp(min=TINY) / own.clamp(min=TINY))
            return logits + resize(change, logits.shape[-2:]), Past(blended, frame)

    def read(
        self, frame: Tensor, own: Tensor, past: Past, flow: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The warped memory (B, K, h, w) and its share (B, 1, h, w)."""
        size = own.shape[-2:]
        if flow is None:
            flow = flow_between(self.optical_flow, frame, past.frame)
        flow = flow.float()
        cells = resize_flow(flow, size, cells_of=frame.shape[-2:])
        memory = warp(past.probabilities, cells, self.align_corners, padding="border")
        validity = flow_validity(frame, past.frame, flow, size)
        theirs = self.strength * validity * confidence(memory)
        ours = (1 - self.strength) * confidence(own)
        return memory, theirs / (theirs + ours)

    # Weights

    def key_maps(self):
        maps = super().key_maps()
        if self.optical_flow is not None:
            maps += [table.prefixed("optical_flow.") for table in self.optical_flow.key_maps()]
        return [*maps, SINGLE_FRAME]


def blend_size(logits: Tensor, frame: Tensor) -> tuple[int, int]:
    """(h, w) of the grid to blend on: that of the logits, or half of the frame if it is smaller."""
    pairs = zip(logits.shape[-2:], frame.shape[-2:], strict=True)
    height, width = (min(side, math.ceil(whole / FINEST)) for side, whole in pairs)
    return height, width


def confidence(probabilities: Tensor) -> Tensor:
    """(B, K, h, w) -> (B, 1, h, w): 1 for a sure class, LEAST_CONFIDENCE for a uniform one."""
    # torch.special.entr takes twice as long on a CPU.
    information = (probabilities * probabilities.clamp(min=TINY).log()).sum(1, keepdim=True)
    sure = 1 + information / math.log(max(probabilities.shape[1], 2))
    return sure.clamp(min=LEAST_CONFIDENCE)
