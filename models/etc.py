"""ETC (Liu et al., ECCV 2020): consistent over time although each frame is labelled alone.

    inference   frame -- backbone --> logits, as `single`
    training    the labelled frame I and one or two neighbours J, in the same network:

        cross entropy of I
        + motion         scores of I and of J, warped along optical flow, agree (temporal_loss.py)
        + distillation   what a frozen teacher says of I and J, and how it relates their pixels

The student sees the frames one after the other, I first, so batch norms get their statistics apart,
as published. Every loss has a weight; without one it is not computed.
"""

from __future__ import annotations

import math
import random
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import find
from .backbones.backbone import imagenet_normalize
from .keymaps import KeyMap
from .ops.resize import resize_aligned, resize_bilinear
from .ops.warp import resize_flow, warp
from .optical_flow import build_flow, flow_between
from .parts.conv_lstm import MultiFrame
from .parts.distillation import kl_per_element, pairwise_frames, pairwise_self
from .parts.frozen import Frozen
from .parts.temporal_loss import motion_loss, motion_mask
from .single import SINGLE_FRAME, SingleFrame

NEIGHBOUR_SHARE = 0.4  # of each of two neighbours beside the current frame
COARSEST = 8  # pixels: affinities between pixels are taken on cells of this side, or larger ones

# What is trained beside the student, and is no part of what labels frames
BESIDE = KeyMap(
    "our names of ETC",
    ((r"multi_frame\..+", None), (r"backbone\..+", r"\g<0>")),
    covers=r"backbone\.(?!aux\.|auxiliary_head\.).+",
)


@dataclass(frozen=True)
class Weights:
    """Of the losses; 0: not computed, but for the labels'."""

    labels: float = 1.0  # cross entropy, of an auxiliary head too
    motion: float = 0.1
    kd: float = 0.0  # of what the teacher predicts, frame by frame
    pairwise: float = 0.0  # of how it relates pixels of two frames
    pairwise_self: float = 0.0  # of how it relates pixels of one frame
    multi_frame: float = 0.0  # the same over all frames, by an LSTM

    @property
    def distil(self) -> bool:
        """Whether a teacher is needed."""
        return any((self.kd, self.pairwise, self.pairwise_self, self.multi_frame))


class Teacher(Frozen):
    """A single-frame method; the job loads its weights, from a file of their own."""

    def separate_entries(self, prefix: str = "") -> dict[str, Tensor]:
        return {}


class FrameMaps(NamedTuple):
    """What the losses see of one frame."""

    embedding: Tensor  # (B, E, h', w')
    logits: Tensor  # (B, K, h, w)


class ETC(SingleFrame):
    """The single-frame network, trained to be consistent."""

    # What clips bring (synthetic motion) is exact; else the provider computes it.
    wants_flows = True
    needs_known_flows = False

    def __init__(
        self,
        backbone: nn.Module,
        *,
        optical_flow: nn.Module | None = None,
        teacher: nn.Module | None = None,
        weights: Weights | None = None,
        neighbours: int = 1,
        neighbour_offsets: Sequence[int] = (-3, -2, -1, 1, 2, 3),
        mask: str = "absolute",
        on_probabilities: bool = False,
        swapped_norms: bool = False,
        temperature: float = 1.0,
        pool: int = 2,
        **options,
    ):
        """optical_flow: a FlowProvider; None where clips bring flow. teacher: a single-frame one.

        neighbours: 1, drawn from the offsets, or 2, as far before as behind. mask: of the motion
        loss (temporal_loss.MASKS). on_probabilities: it compares these, and not logits as
        published. swapped_norms: of pairwise affinities, as published. temperature: of kd. pool: of
        pairwise_self. options: those of SingleFrame. ValueError: a distillation without a teacher.
        """
        super().__init__(backbone, **options)
        self.weights = weights or Weights()
        if self.weights.distil and teacher is None:
            raise ValueError("distillation needs a teacher")
        # What the mask of the motion loss sees, whatever the backbone itself is used to.
        self.normalize = imagenet_normalize()
        self.optical_flow = None if optical_flow is None else Frozen(optical_flow)
        self.teacher = None if teacher is None else Teacher(teacher)
        self.multi_frame = MultiFrame() if self.weights.multi_frame else None
        self.neighbours = neighbours
        self.neighbour_offsets = tuple(neighbour_offsets)
        self.mask = mask
        self.on_probabilities = on_probabilities
        self.swapped_norms = swapped_norms
        self.temperature = temperature
        self.pool = pool

    @classmethod
    def from_args(cls, backbone, args):
        weights = Weights()
        optical_flow = None
        if args.training:
            weights = weights_of(args)
            optical_flow = build_flow(args) if weights.motion else None
        return cls(
            backbone,
            optical_flow=optical_flow,
            teacher=build_teacher(backbone, args) if args.training and weights.distil else None,
            weights=weights,
            neighbours=args.neighbours,
            neighbour_offsets=args.neighbour_offsets,
            mask=args.motion_mask,
            on_probabilities=args.motion_on == "probabilities",
            swapped_norms=args.pairwise_norms == "published",
            temperature=args.kd_temperature,
            pool=args.pairwise_pool,
            aux_weight=args.aux_weight,
            head_lr=args.head_lr,
        )

    # Training

    def training_offsets(self, rng: random.Random) -> tuple[int, ...]:
        """One neighbour at a drawn distance, or two: one before the frame and one behind it."""
        if not (self.weights.motion or self.weights.distil):
            return ()
        offset = rng.choice(self.neighbour_offsets)
        if self.neighbours == 1:
            return (offset,)
        return -abs(offset), abs(offset)

    def losses(self, clip, labels, flows=None):
        *others, current = clip.unbind(1)
        features = self.backbone.encode(current)
        own = maps_of(self.backbone, features)
        terms = self.with_auxiliary(
            self.cross_entropy(own.logits, labels[:, -1]), features, labels[:, -1], self.aux_weight
        )
        terms = {name: self.weights.labels * term for name, term in terms.items()}
        if not others:
            return terms
        neighbours = [maps_of(self.backbone, self.backbone.encode(frame)) for frame in others]
        if self.weights.motion:
            flow = self.flow_into(current, others[-1], flows)
            motion = self.motion(current, others[-1], own.logits, neighbours[-1].logits, flow)
            terms["motion"] = self.weights.motion * motion
        if self.teacher is not None:
            terms |= self.distillation(clip, [own, *neighbours])
        return terms

    def flow_into(self, frame: Tensor, other: Tensor, flows: Tensor | None) -> Tensor:
        """The flow of the clip's last frame into the one before it, (B, 2, H, W) in pixels.

        As the clip brings it; computed where it brings none, or not for all of the batch.
        """
        if flows is not None:
            brought = flows[:, -1].to(frame)
            known = brought.isfinite().flatten(1).all(1)
            if known.all():
                return brought
        size = frame.shape[-2:]
        computed = resize_flow(flow_between(self.optical_flow, frame, other), size, size)
        if flows is None:
            return computed
        return torch.where(known[:, None, None, None], brought, computed)

    def motion(
        self, frame: Tensor, other: Tensor, logits: Tensor, other_logits: Tensor, flow: Tensor
    ) -> Tensor:
        """How far the scores of a pixel and of where it lies in the other frame differ."""
        with torch.no_grad():
            warped = warp(self.normalize(other), flow, padding="border")
            mask = motion_mask(self.normalize(frame), warped, self.mask)
        scores = [self.upsample(x.float(), frame.shape[-2:]) for x in (logits, other_logits)]
        if self.on_probabilities:
            scores = [x.softmax(1) for x in scores]
        return motion_loss(*scores, flow, mask)

    def distillation(self, clip: Tensor, student: list[FrameMaps]) -> dict[str, Tensor]:
        """clip (B, T, 3, H, W), the student's maps of its frames, the current one first."""
        *others, current = clip.unbind(1)
        teacher = [self.taught(frame) for frame in (current, *others)]
        cells = [math.ceil(side / COARSEST) for side in clip.shape[-2:]]
        # As the teacher's: without an "ignore" output.
        classes = [x.logits[:, : self.num_classes] for x in student]
        logits = on_common_grid(classes, [x.logits for x in teacher], cells)
        embeddings = on_common_grid(
            [x.embedding for x in student], [x.embedding for x in teacher], cells
        )
        weights = self.weights
        terms = {}
        if weights.kd:
            found = [self.kd(*pair) for pair in zip(student, teacher, strict=True)]
            terms["kd"] = weights.kd * over_frames(found, 1.0 if len(others) == 1 else None)
        if weights.pairwise:
            pairs = [tuple(maps[:2]) for maps in logits]
            found = pairwise_frames(*pairs, swapped=self.swapped_norms)
            terms["pairwise"] = weights.pairwise * found
        if weights.pairwise_self:
            found = [pairwise_self(*pair, self.pool) for pair in zip(*embeddings, strict=True)]
            terms["pairwise_self"] = weights.pairwise_self * over_frames(found)
        if weights.multi_frame:
            found = self.multi_frame(*(in_order(maps) for maps in embeddings))
            terms["multi_frame"] = weights.multi_frame * found
        return terms

    @torch.no_grad()
    def taught(self, frame: Tensor) -> FrameMaps:
        """The teacher's maps; logits of the student's classes alone."""
        backbone = self.teacher.frozen.backbone
        # Crops fit the student's size rule, not always the teacher's; maps are compared on a
        # common grid.
        sides = [backbone.size_rule.fit(side) for side in frame.shape[-2:]]
        maps = maps_of(backbone, backbone.encode(resize_bilinear(frame, sides)))
        return maps._replace(logits=maps.logits[:, : self.num_classes])

    def kd(self, student: FrameMaps, teacher: FrameMaps) -> Tensor:
        """Of one frame, at the size of the teacher's logits."""
        size = tuple(teacher.logits.shape[-2:])
        logits = resize_aligned(student.logits[:, : self.num_classes].float(), size)
        return kl_per_element(logits, teacher.logits, self.temperature)

    @property
    def num_classes(self) -> int:
        """Without an "ignore" output."""
        return self.backbone.num_outputs - self.backbone.learned_ignore

    # Weights

    def key_maps(self):
        maps = [*self.backbone.key_maps(), SINGLE_FRAME]
        if self.multi_frame is None:
            maps.append(BESIDE)
        if self.optical_flow is not None:
            maps += [table.prefixed("optical_flow.") for table in self.optical_flow.key_maps()]
        return maps


def weights_of(args: Namespace) -> Weights:
    """Of the losses, as parsed options give them."""
    return Weights(
        labels=args.label_weight,
        motion=args.motion_weight,
        kd=args.kd_weight,
        pairwise=args.pairwise_weight,
        pairwise_self=args.self_weight,
        multi_frame=args.multi_frame_weight,
    )


def build_teacher(student: nn.Module, args: Namespace) -> SingleFrame:
    """The teacher of parsed options, without weights.

    Options of its network are those that its file brings (args.teacher_network).
    """
    num_classes = student.num_outputs - student.learned_ignore
    options = Namespace(**{**vars(args), **args.teacher_network})
    return SingleFrame(find(args.teacher_class).from_args(num_classes, options))


def maps_of(backbone: nn.Module, features) -> FrameMaps:
    embedding = backbone.embed(features)
    return FrameMaps(embedding, backbone.classify(embedding))


def on_common_grid(
    student: list[Tensor], teacher: list[Tensor], cells: Sequence[int]
) -> tuple[list[Tensor], list[Tensor]]:
    """Maps of both networks, averaged to the coarsest of their grids and of `cells` (h, w)."""
    sizes = (student[0].shape[-2:], teacher[0].shape[-2:], cells)
    size = tuple(min(sides) for sides in zip(*sizes, strict=True))
    ours, theirs = (
        [x if x.shape[-2:] == size else F.adaptive_avg_pool2d(x.float(), size) for x in maps]
        for maps in (student, teacher)
    )
    return ours, theirs


def over_frames(found: list[Tensor], share: float | None = None) -> Tensor:
    """The loss of the current frame (first) and, with their share, of its neighbours."""
    current, *others = found
    return current + (NEIGHBOUR_SHARE if share is None else share) * sum(others)


def in_order(maps: list[Tensor]) -> list[Tensor]:
    """Current frame and neighbours -> as a video shows them: before, current, behind."""
    current, first, *behind = maps
    return [first, current, *behind]
